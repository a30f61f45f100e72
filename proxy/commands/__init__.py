"""What the operator does to the database: tenants, keys, servers, migrations.

    arguments        what each command takes; loads nothing
    values           single arguments: times, networks, patterns, headers
    console          exit codes, misuse, and where what is printed goes
    connection       the configured database, joined or started, for the time of one command
    migrate, tenants, keys, servers      the commands
    legacy_keys      a list of legacy keys, read
    client_files     the servers in an MCP client's settings, read

Whatever changes a row is `store/`'s. The proxy that runs hears of every change from PostgreSQL.
"""
