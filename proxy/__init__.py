"""MCP Manager proxy: a transparent reverse proxy for the Model Context Protocol. It relays bytes and adds policy.

Planes
    data plane    `dataplane/`: what happens to a request; one file per phase
    admin plane   `admin/`: its own port for probes and metrics
    background    `background/`: the only place that starts tasks; keeps the registry fresh and puts changes in force

Beside them
    identity/     who a credential stands for and what it may do; pure
    store/        PostgreSQL and Redis: migrations, pools, embedded servers; the only importer of asyncpg
    limits/       how much anyone may use, and who is blocked; pure
    audit/        how risky a call is, its content without secrets, the chain of its rows and its proof; pure
    spool/        records on disk until PostgreSQL has them
    commands/     the command line's groups: tenants, keys, servers, the record, ...

The walk of one request, from socket to record, in one direction
    1  dataplane/gate.py       owns the connection: strict head, body framing, pipelining, deadlines
    2  dataplane/handler.py    the phases in order, on one screen; then exactly one record
                               bans.py, identity.py: from where, and who asks, from memory alone (identity/)
    3  dataplane/inspect.py    reads the body once and its JSON-RPC envelope (mcp/)
    4  dataplane/match.py      finds the route, and the session that binds to one server
                               authorize.py, tokens.py: may the principal send this there, and now (limits/)
    5  dataplane/forward.py    pick a server -> write the intent down -> send -> the next one only if nothing was sent
    6  dataplane/relay.py      the answer, piece by piece as it comes

Words
    downstream / upstream      the client's side / the server's side of the proxy
    Server, Upstream           one MCP server as configured / as it lives in this process
    Route, Condition           which requests go to which servers
    strategy, affinity         how a server is chosen / what keeps requests on one
    era                        legacy (up to 2025-11-25) or modern (from 2026-07-28)
    envelope                   the JSON-RPC frame of a body, as far as a decision needs it
    Exchange, lane             one request and its answer as phases see them / what carries them from the gate
    Principal, Scope           who asks / what it may do at all
    registry                   tenants, credentials, servers, routes and rules as rows of PostgreSQL, kept in memory
    estate                     the servers and routes of one tenant, or those that all tenants share
    snapshot                   the routes and servers that requests read, compiled and swapped whole
    admission, allowance       the credentials and rules of access, the limits: swapped whole, too
    token bucket               capacity, refill, cost
    refusal / failure          the proxy said no / the upstream did not answer
    outcome                    how a request ended, one word; the record of that
    intent                     the record of a call before it is sent
    journal, segment           what one process has recorded / a file of it
    drain                      ending without failing a request

Imports go one way: cli -> app -> admin, background -> dataplane, store, spool -> identity -> mcp, config, errors, ...
"""
