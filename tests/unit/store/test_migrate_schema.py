"""The migrations of `sql/migrations` themselves: up, down, beside Better-Auth's tables, and explained."""

from __future__ import annotations

import re

import asyncpg
import pytest

from proxy.store.migrate import Migration, Migrator, migrator, read, shipped
from tests.unit.store.catalogue import facts
from tests.unit.store.conftest import Connection

TABLES = set(
    """api_key_usage usage_writers retention_runs
    tenants tenant_members tenant_invitations tenant_usage user session account verification two_factor_auth
    mcp_servers server_tools server_resources server_prompts server_metrics server_health_checks routing_rules api_keys
    enhanced_api_keys api_tokens server_access_control rate_limit_configs rate_limit_violations circuit_breakers
    connection_pools request_queues request_logs audit_logs error_logs security_events system_events performance_alerts
    data_retention_policies materialized_views system_configs feature_flags maintenance_windows system_announcements
    announcement_acknowledgments breaker_orders audit_heads alert_events""".split()  # noqa: SIM905
)
PARTITIONED = set(
    """api_key_usage
    tenant_usage server_metrics server_health_checks rate_limit_violations request_logs audit_logs error_logs
    audit_heads security_events system_events""".split()  # noqa: SIM905
)
SILENT = """
    SELECT a.attrelid::regclass || '.' || a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND a.attnum > 0
      AND NOT a.attisdropped AND col_description(a.attrelid, a.attnum) IS NULL AND c.relname <> 'schema_migrations'
    UNION ALL
    SELECT c.relname FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
      AND obj_description(c.oid, 'pg_class') IS NULL AND c.relname <> 'schema_migrations'
    UNION ALL
    SELECT oid::regprocedure::text FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL"""


async def everything_up(dsn: str) -> None:
    """Every migration, as `mcp-manager migrate up` does."""
    async with migrator(dsn) as migrations:
        await migrations.up()


async def everything_down(dsn: str) -> None:
    """Down to zero."""
    async with migrator(dsn) as migrations:
        await migrations.down(everything=True)


async def test_down_to_zero_leaves_nothing_and_up_again_the_same_catalogue(fresh: str) -> None:
    """Every fact of the catalogue is there again: owners, rights, policies, comments and definitions."""
    connection = await asyncpg.connect(fresh)
    try:
        empty = await facts(connection)
        await everything_up(fresh)
        first = await facts(connection)
        await everything_down(fresh)
        assert await facts(connection) == empty
        await everything_up(fresh)
        assert await facts(connection) == first
        assert len(first) > 1000
    finally:
        await connection.close()


async def test_each_migration_can_be_taken_back(fresh: str) -> None:
    """The way down of a file leaves exactly what was there before its way up."""
    files = read(shipped())
    connection = await asyncpg.connect(fresh)
    try:
        before = []
        for count in range(len(files)):
            before.append(await facts(connection))
            assert await Migrator(connection, files[: count + 1]).up() == (files[count].file,)
        for migration in reversed(files):
            assert await Migrator(connection, files).down() == (migration.file,)
            assert await facts(connection) == before.pop(), migration.file
    finally:
        await connection.close()


async def test_every_table_is_there_and_time_series_are_partitioned_by_time(owner: Connection) -> None:
    """The tables are those that are documented; each partitioned one has a default partition."""
    rows = await owner.fetch("SELECT relname, relkind FROM pg_class WHERE relnamespace = 'public'::regnamespace"
                             " AND relkind IN ('r', 'p') AND NOT relispartition")  # fmt: skip
    assert {row["relname"] for row in rows} - {"schema_migrations"} == TABLES
    assert {row["relname"] for row in rows if row["relkind"] == b"p"} == PARTITIONED
    defaults = await owner.fetch("SELECT partrelid::regclass::text FROM pg_partitioned_table WHERE partdefid <> 0")
    assert {row[0] for row in defaults} == PARTITIONED


async def test_every_table_column_and_function_is_explained(owner: Connection) -> None:
    """Views and partitions included."""
    await owner.execute("SELECT create_partitions()")
    assert [row[0] for row in await owner.fetch(SILENT)] == []


async def test_a_column_without_comment_is_found(owner: Connection) -> None:
    """The rule above can fail."""
    await owner.execute("CREATE TABLE mute (x int); COMMENT ON TABLE mute IS 'No column speaks.'")
    assert [row[0] for row in await owner.fetch(SILENT)] == ["mute.x"]


async def test_the_owner_role_owns_everything_and_other_roles_nothing(owner: Connection) -> None:
    """Relations and functions alike."""
    rows = await owner.fetch("""
        SELECT relname, relowner::regrole::text AS owner FROM pg_class WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT proname, proowner::regrole::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace""")
    others = {row[0] for row in rows if row["owner"] != "mcp_manager_owner"}
    assert {name for name in others if not name.startswith("schema_migrations")} == set()


@pytest.mark.parametrize("migration", read(shipped()), ids=lambda migration: str(migration.file))
def test_a_migration_is_one_short_idea(migration: Migration) -> None:
    """It begins with a sentence of why; a role that was taken on is given back."""
    text = (shipped() / migration.file).read_text()
    assert text.startswith("-- ")
    assert len(text.splitlines()) <= 180
    for half in text.split("-- migrate:down"):
        assert len(re.findall(r"^SET LOCAL ROLE", half, re.MULTILINE)) == len(
            re.findall(r"^RESET ROLE;$", half, re.MULTILINE)
        )


BETTER_AUTH = """
    CREATE TABLE "user" (
        id text PRIMARY KEY, name text NOT NULL, email text NOT NULL UNIQUE, email_verified boolean NOT NULL,
        image text, created_at timestamp NOT NULL DEFAULT now(), updated_at timestamp NOT NULL DEFAULT now());
    CREATE TABLE session (
        id text PRIMARY KEY, expires_at timestamp NOT NULL, token text NOT NULL UNIQUE, created_at timestamp NOT NULL,
        updated_at timestamp NOT NULL, ip_address text, user_agent text, user_id text NOT NULL REFERENCES "user" (id));
    COMMENT ON TABLE session IS 'Said by the front end.';
    INSERT INTO "user" VALUES ('u1', 'Ada', 'ada@example.org', true);
    ALTER TABLE "user" OWNER TO front_end;
    ALTER TABLE session OWNER TO front_end;
"""


@pytest.fixture
async def front_end(fresh: str) -> Connection:
    """The front end's own role in a database where its Better-Auth made two of the tables."""
    connection = await asyncpg.connect(fresh)
    if not await connection.fetchval("SELECT to_regrole('front_end')"):
        await connection.execute("CREATE ROLE front_end")
    await connection.execute(BETTER_AUTH)
    return connection


async def test_tables_of_better_auth_that_exist_are_kept_and_completed(front_end: Connection, fresh: str) -> None:
    """Missing tables are made, missing columns added; what the front end said and owns stays so."""
    before = await facts(front_end)
    await everything_up(fresh)
    row = await front_end.fetchrow('SELECT name, role, tenant_id FROM "user"')
    assert row is not None
    assert tuple(row) == ("Ada", "user", None)
    owners = await front_end.fetch("SELECT relname, relowner::regrole::text FROM pg_class WHERE relname IN"
                                   " ('user', 'session', 'account')")  # fmt: skip
    assert dict(map(tuple, owners)) == {"user": "front_end", "session": "front_end", "account": "mcp_manager_owner"}
    assert await front_end.fetchval("SELECT obj_description('session'::regclass)") == "Said by the front end."
    assert [row[0] for row in await front_end.fetch(SILENT)] == []
    first = await facts(front_end)
    await everything_down(fresh)
    after = await facts(front_end)
    assert after == before
    assert await front_end.fetchval('SELECT count(*) FROM "user"') == 1
    await everything_up(fresh)
    assert without_numbers(await facts(front_end)) == without_numbers(first)
    await front_end.close()


def without_numbers(found: set[str]) -> set[str]:
    """Facts without the numbers of columns: a column that is dropped and added again has a new one."""
    return {re.sub(r"^column: \d+", "column:", fact) for fact in found}


async def test_the_front_end_goes_on_seeing_all_users(front_end: Connection, fresh: str) -> None:
    """Row level security on users holds for the data plane, not for whom Better-Auth signs users in."""
    await everything_up(fresh)
    await front_end.execute("GRANT mcp_manager_app TO CURRENT_USER; SET ROLE front_end")
    assert await front_end.fetchval('SELECT count(*) FROM "user"') == 1
    await front_end.execute("UPDATE \"user\" SET name = 'Ada L.'")
    await front_end.execute("RESET ROLE; SET ROLE mcp_manager_app")
    assert await front_end.fetchval('SELECT count(id) FROM "user"') == 0
    await front_end.close()


async def test_a_migrator_needs_no_superuser(fresh: str) -> None:
    """Whoever owns the database and may make roles and members of them may migrate it."""
    connection = await asyncpg.connect(fresh)
    name = await connection.fetchval("SELECT current_database()")
    if not await connection.fetchval("SELECT to_regrole('plain_migrator')"):
        await connection.execute("CREATE ROLE plain_migrator CREATEROLE")
    for role in ("owner", "app", "audit", "admin", "sync"):
        if await connection.fetchval("SELECT to_regrole($1)", f"mcp_manager_{role}"):
            await connection.execute(f"GRANT mcp_manager_{role} TO plain_migrator WITH ADMIN OPTION")
    await connection.execute(f"ALTER DATABASE {name} OWNER TO plain_migrator")
    await connection.execute("SET SESSION AUTHORIZATION plain_migrator")
    await Migrator(connection, read(shipped())).up()
    assert await connection.fetchval("SELECT count(*) FROM mcp_servers") == 0
    await Migrator(connection, read(shipped())).down(everything=True)
    await connection.close()
