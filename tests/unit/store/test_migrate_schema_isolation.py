"""Row level security and rights: who sees which rows, and who may do what."""

from __future__ import annotations

from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.unit.store.conftest import Connection

A, B = UUID(int=0xA), UUID(int=0xB)
TRAIL = ("request_logs", "audit_logs", "audit_heads", "error_logs", "security_events", "system_events")
RULE = "(tenant_id = (NULLIF(current_setting('app.tenant'::text, true), ''::text))::uuid)"

#: Tables with a tenant, partitions included, that lack a part of their protection.
UNPROTECTED = f"""
    SELECT c.relname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE a.attname = 'tenant_id' AND NOT a.attisdropped AND c.relkind IN ('r', 'p')
      AND c.relnamespace = 'public'::regnamespace
      AND NOT (c.relrowsecurity AND c.relforcerowsecurity AND EXISTS (
          SELECT FROM pg_policies p WHERE p.tablename = c.relname AND p.schemaname = 'public' AND p.cmd = 'ALL'
             AND p.roles = '{{public}}' AND p.qual = $r${RULE}$r$ AND p.with_check = $r${RULE}$r$))"""

ROWS = """
    INSERT INTO tenants (id, slug, name) VALUES ($1, 't' || right($1::text, 1), 'T');
    INSERT INTO "user" (id, name, email, tenant_id) VALUES ('u' || $1, 'U', $1 || '@example.org', $1);
    INSERT INTO session (id, token, expires_at, user_id) VALUES ('s' || $1, 't' || $1, now(), 'u' || $1);
    INSERT INTO tenant_members (tenant_id, user_id) VALUES ($1, 'u' || $1);
    INSERT INTO tenant_invitations (tenant_id, email, token_hash, expires_at)
        VALUES ($1, 'a@b', sha256($1::text::bytea), now());
    INSERT INTO tenant_usage (tenant_id, period_start, granularity, metric, quantity)
        VALUES ($1, date_trunc('day', now(), 'UTC'), 'day', 'requests', 1);
    INSERT INTO mcp_servers (id, tenant_id, name, endpoint_url) VALUES ($1, $1, 'one', 'https://one.example/mcp');
    INSERT INTO server_tools (tenant_id, server_id, name) VALUES ($1, $1, 'tool');
    INSERT INTO server_resources (tenant_id, server_id, uri_template, name) VALUES ($1, $1, 'file:///a', 'a');
    INSERT INTO server_prompts (tenant_id, server_id, name) VALUES ($1, $1, 'prompt');
    INSERT INTO server_metrics (tenant_id, server_id, recorded_at, window_s) VALUES ($1, $1, now(), 60);
    INSERT INTO server_health_checks (tenant_id, server_id, checked_at, kind, status)
        VALUES ($1, $1, now(), 'http', 'HEALTHY');
    INSERT INTO routing_rules (tenant_id, name, path, target_servers) VALUES ($1, 'r', '/r', '["one"]');
    INSERT INTO enhanced_api_keys (id, tenant_id, name, secret_hmac)
        VALUES (lpad(right($1::text, 1), 12, '0'), $1, 'k', sha256('k'));
    INSERT INTO api_keys (tenant_id, name, key_hash) VALUES ($1, 'k', sha256($1::text::bytea));
    INSERT INTO api_tokens (tenant_id, name, token_hash) VALUES ($1, 'k', sha256($1::text::bytea));
    INSERT INTO server_access_control (tenant_id, subject_type, effect) VALUES ($1, 'everyone', 'deny');
    INSERT INTO rate_limit_configs (tenant_id, name, level, capacity, refill_per_minute) VALUES ($1, 'l', 'key', 1, 1);
    INSERT INTO rate_limit_violations (id, ts, tenant_id, level, subject) VALUES ($1, now(), $1, 'key', 'k');
    INSERT INTO circuit_breakers (tenant_id, server_id) VALUES ($1, $1);
    INSERT INTO connection_pools (tenant_id, server_id, max_connections) VALUES ($1, $1, 10);
    INSERT INTO request_queues (tenant_id, server_id, max_concurrent, max_pending) VALUES ($1, $1, 1, 1);
    INSERT INTO request_logs (id, ts, tenant_id, http_method, status_code, outcome, duration_ms)
        VALUES ($1, now(), $1, 'POST', 200, 'ok', 1);
    INSERT INTO audit_logs (id, ts, tenant_id, kind, actor_type, action)
        VALUES ($1, now(), $1, 'intent', 'user', 'tools/call');
    INSERT INTO audit_heads (tenant_id, segment, row_count, is_final, head, first_ts, last_ts)
        VALUES ($1, 's', 1, true, sha256('h'), now(), now());
    INSERT INTO error_logs (id, ts, tenant_id, component, error_type, message, fingerprint)
        VALUES ($1, now(), $1, 'c', 'e', 'm', 'f');
    INSERT INTO security_events (id, ts, tenant_id, event_type, severity, description)
        VALUES ($1, now(), $1, 'bad_key', 'low', 'd');
    INSERT INTO system_events (id, ts, tenant_id, event_type, component, message)
        VALUES ($1, now(), $1, 'start', 'c', 'm');
    INSERT INTO performance_alerts (tenant_id, name, metric, threshold) VALUES ($1, 'a', 'p95_ms', 1);
    INSERT INTO alert_events (id, tenant_id, name, instance, metric, comparison, threshold, value, severity, started_at,
        seen_at) VALUES ($1, $1, 'a', 'i', 'p95_ms', '>', 1, 2, 'low', now(), now());
    INSERT INTO data_retention_policies (tenant_id, table_name, retention_days) VALUES ($1, 'audit_logs', 1);
    INSERT INTO usage_writers (tenant_id, instance, batch) VALUES ($1, 'i', 1);
    INSERT INTO api_key_usage (id, tenant_id, period_start, credential_table, credential_id, window_s)
        VALUES ($1, $1, now(), 'api_keys', 'k', 60);
    INSERT INTO system_configs (tenant_id, key, value) VALUES ($1, 'k', '1');
    INSERT INTO feature_flags (tenant_id, key) VALUES ($1, 'f');
    INSERT INTO maintenance_windows (tenant_id, title, starts_at, ends_at)
        VALUES ($1, 'm', now(), now() + interval '1 hour');
    INSERT INTO breaker_orders (tenant_id, server_id, state) VALUES ($1, $1, 'open');
    INSERT INTO system_announcements (id, tenant_id, title, body) VALUES ($1, $1, 'a', 'b');
    INSERT INTO announcement_acknowledgments (tenant_id, announcement_id, user_id) VALUES ($1, $1, 'u' || $1)"""


async def fill(owner: Connection, tenant: UUID) -> None:
    """One row of the tenant in every table that has tenants."""
    await owner.execute(ROWS.replace("$1", f"'{tenant}'::uuid"))


@pytest.fixture
async def two(owner: Connection) -> Connection:
    """A superuser in a database with the rows of two tenants."""
    for tenant in (A, B):
        await fill(owner, tenant)
    return owner


async def become(connection: Connection, role: str, tenant: UUID | None = None) -> None:
    """Take on a role, and the context of a tenant, as the store does (here for the session)."""
    await connection.execute(f"SET ROLE mcp_manager_{role}")
    await connection.execute("SELECT set_config('app.tenant', $1, false)", str(tenant or ""))


async def readable(connection: Connection, role: str) -> dict[str, str]:
    """Tables that the role may read, with the column that names the tenant."""
    rows = await connection.fetch("""
        SELECT c.oid::regclass::text, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace AND NOT a.attisdropped
          AND a.attname = CASE c.relname WHEN 'tenants' THEN 'id' ELSE 'tenant_id' END
          AND has_column_privilege($1, c.oid, a.attname, 'SELECT')""", f"mcp_manager_{role}")  # fmt: skip
    return dict(map(tuple, rows))


async def test_every_table_with_a_tenant_is_protected(owner: Connection) -> None:
    """RLS is on, forced, and has the policy of the tenant; later partitions too."""
    assert await owner.fetchval("SELECT count(*) FROM create_partitions()") >= 9
    assert [row[0] for row in await owner.fetch(UNPROTECTED)] == []


@pytest.mark.parametrize(
    "spoil",
    [
        "CREATE TABLE fruit (tenant_id uuid)",
        "CREATE TABLE fruit (tenant_id uuid); ALTER TABLE fruit ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "CREATE TABLE fruit (tenant_id uuid); SELECT isolate_tenant_rows('fruit');"
        " ALTER TABLE fruit NO FORCE ROW LEVEL SECURITY",
        "CREATE TABLE fruit (tenant_id uuid); SELECT isolate_tenant_rows('fruit');"
        " ALTER POLICY tenant_isolation ON fruit USING (true)",
    ],
    ids=["no row level security", "no policy", "not forced", "policy lets all through"],
)
async def test_a_table_without_full_protection_is_found(owner: Connection, spoil: str) -> None:
    """The rule above can fail."""
    await owner.execute(spoil)
    assert [row[0] for row in await owner.fetch(UNPROTECTED)] == ["fruit"]


async def test_the_rows_of_the_test_are_in_every_table_with_a_tenant(two: Connection) -> None:
    """So the tests below leave out no table."""
    rows = await two.fetch(
        "SELECT attrelid::regclass::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " WHERE attname = 'tenant_id' AND relkind IN ('r', 'p') AND NOT relispartition"
    )
    for (table,) in rows:
        assert await two.fetchval(f"SELECT count(DISTINCT tenant_id) FROM {table}") == 2, table


async def test_without_a_tenant_the_data_plane_sees_no_row_and_adds_none(two: Connection) -> None:
    """Neither when the tenant was never set nor after the transaction that set it."""
    tables = await readable(two, "app")
    assert len(tables) >= 28
    await two.execute("SET ROLE mcp_manager_app")
    for _ in range(2):
        for table, column in tables.items():
            assert await two.fetchval(f"SELECT count({column}) FROM {table}") == 0, table
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await two.execute("INSERT INTO feature_flags (tenant_id, key) VALUES ($1, 'x')", A)
        async with two.transaction():
            await two.execute("SELECT set_config('app.tenant', $1, true)", str(A))
            assert await two.fetchval("SELECT count(*) FROM feature_flags") == 1


async def test_a_query_that_lost_its_where_clause_sees_and_changes_nothing_of_others(two: Connection) -> None:
    """Every table that the data plane may read; then changes and deletions without condition."""
    tables = await readable(two, "app")
    await become(two, "app", A)
    for table, column in tables.items():
        assert {row[0] for row in await two.fetch(f"SELECT {column} FROM {table}")} == {A}, table
    assert await two.execute("UPDATE mcp_servers SET description = 'mine'") == "UPDATE 1"
    assert await two.execute("UPDATE enhanced_api_keys SET usage_count = 1") == "UPDATE 1"
    assert await two.execute("DELETE FROM mcp_servers") == "DELETE 1"
    await two.execute("RESET ROLE")
    left = await two.fetch("SELECT tenant_id, description FROM mcp_servers")
    assert [tuple(row) for row in left] == [(B, None)]
    assert await two.fetchval("SELECT count(*) FROM server_tools WHERE tenant_id = $1", B) == 1


async def test_a_row_cannot_be_written_into_another_tenant(two: Connection) -> None:
    """Not added there, not moved there."""
    await become(two, "app", A)
    for statement in (
        "INSERT INTO feature_flags (tenant_id, key) VALUES ($1, 'x')",
        "UPDATE feature_flags SET tenant_id = $1",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await two.execute(statement, B)


async def test_a_row_cannot_refer_to_another_tenants_server(two: Connection) -> None:
    """Foreign keys to servers contain the tenant."""
    await become(two, "app", A)
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await two.execute("INSERT INTO server_tools (tenant_id, server_id, name) VALUES ($1, $2, 'x')", A, B)


async def test_a_forged_tenant_is_an_error(two: Connection) -> None:
    """What is no UUID reaches no row."""
    await two.execute("SET ROLE mcp_manager_app; SET app.tenant = 'x'' OR true --'")
    with pytest.raises(asyncpg.InvalidTextRepresentationError):
        await two.fetch("SELECT * FROM mcp_servers")


async def test_the_owner_of_the_tables_is_no_exception(two: Connection) -> None:
    """FORCE holds for it; what it reads for the summaries is requests and their sums alone."""
    await become(two, "owner")
    tables = await readable(two, "owner")
    seen = {table for table, column in tables.items() if await two.fetchval(f"SELECT count({column}) FROM {table}")}
    assert seen <= {"request_logs", "tenant_usage", '"user"'}


async def test_the_data_plane_reaches_no_partition_beside_its_table(two: Connection) -> None:
    """No role but the owner has any right on a partition."""
    await two.execute("SELECT create_partitions()")
    rows = await two.fetch("""
        SELECT c.relname, r.rolname FROM pg_class c, pg_roles r
        WHERE c.relispartition AND c.relkind = 'r' AND r.rolname IN
              ('mcp_manager_app', 'mcp_manager_audit', 'mcp_manager_admin', 'mcp_manager_sync')
          AND has_table_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')""")
    assert [tuple(row) for row in rows] == []


async def test_summaries_of_all_tenants_are_closed_to_the_data_plane(two: Connection) -> None:
    """Row level security does not reach materialized views."""
    rows = await two.fetch("SELECT matviewname FROM pg_matviews WHERE schemaname = 'public'")
    assert len(rows) == 2
    for (name,) in rows:
        for role in ("app", "audit", "sync"):
            assert not await two.fetchval("SELECT has_table_privilege($1, $2, 'SELECT')", f"mcp_manager_{role}", name)


async def test_the_audit_writer_only_adds(two: Connection) -> None:
    """INSERT on the tables of the trail, for any tenant; no other right on any table."""
    rows = await two.fetch("""
        SELECT c.relname, p.right FROM pg_class c,
               unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS p ("right")
        WHERE c.relkind IN ('r', 'p', 'v', 'm') AND c.relnamespace = 'public'::regnamespace
          AND has_table_privilege('mcp_manager_audit', c.oid, p.right)""")
    assert {tuple(row) for row in rows} == {(table, "INSERT") for table in TRAIL}
    await become(two, "audit")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await two.fetch("SELECT * FROM audit_logs")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await two.execute("DELETE FROM audit_logs")


async def test_rows_of_the_trail_arrive_in_batches_exactly_once(two: Connection) -> None:
    """The same batch twice adds each row once; an intent and its outcome share their id and time."""
    calls = [uuid4() for _ in range(3)]
    await two.execute("SET TIME ZONE 'UTC'; SET ROLE mcp_manager_audit")
    for kind in ("intent", "outcome", "outcome"):
        await two.execute(
            "INSERT INTO audit_logs (tenant_id, ts, id, kind, actor_type, action)"
            " SELECT tenant, '2026-01-01', call, $3, 'user', 'tools/call' FROM unnest($1::uuid[], $2::uuid[])"
            " AS batch (tenant, call) ON CONFLICT DO NOTHING",
            [A, B, UUID(int=0)], calls, kind,
        )  # fmt: skip
    await two.execute("RESET ROLE")
    rows = await two.fetch("SELECT id, kind FROM audit_logs WHERE ts = '2026-01-01'")
    assert sorted(map(tuple, rows)) == sorted((call, kind) for call in calls for kind in ("intent", "outcome"))


async def test_the_admin_plane_sees_all_tenants_and_cannot_change_the_past(two: Connection) -> None:
    """Its own policies, not an exception from row level security."""
    tables = await readable(two, "admin")
    await become(two, "admin")
    for table, column in tables.items():
        assert {A, B} <= {row[0] for row in await two.fetch(f"SELECT {column} FROM {table}")}, table
    for table in ("request_logs", "audit_logs"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await two.execute(f"UPDATE {table} SET status_code = 200")
    assert await two.execute("UPDATE error_logs SET resolved_at = now(), resolved_by = 'me'") == "UPDATE 2"


async def test_the_snapshot_role_reads_all_tenants_and_writes_nothing(two: Connection) -> None:
    """It sees what the data plane needs of each tenant, and sessions; no right to write exists."""
    tables = await readable(two, "sync")
    rows = await two.fetch("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN"
                           " ('r', 'p', 'v', 'm') AND has_table_privilege('mcp_manager_sync', oid, 'INSERT, UPDATE,"
                           " DELETE, TRUNCATE')")  # fmt: skip
    assert [row[0] for row in rows] == []
    await become(two, "sync")
    for table, column in tables.items():
        assert {A, B} <= {row[0] for row in await two.fetch(f"SELECT {column} FROM {table}")}, table
    assert await two.fetchval("SELECT count(*) FROM session") == 2
    assert "audit_logs" not in tables


async def test_the_data_plane_counts_the_use_of_keys_and_cannot_widen_them(two: Connection) -> None:
    """Secrets of sign-in are closed to it altogether."""
    await become(two, "app", A)
    for statement in (
        "UPDATE enhanced_api_keys SET scopes = '{admin}'",
        "UPDATE enhanced_api_keys SET revoked_at = NULL",
        "INSERT INTO api_tokens (tenant_id, name, token_hash) VALUES (NULL, 'x', NULL)",
        "SELECT token FROM session",
        "SELECT password FROM account",
        "SELECT secret FROM two_factor_auth",
        "SELECT * FROM materialized_views",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await two.execute(statement)


async def test_no_role_of_ours_may_bypass_or_log_in(owner: Connection) -> None:
    """The operator's own users are granted them."""
    rows = await owner.fetch("SELECT rolname, rolcanlogin, rolsuper, rolbypassrls FROM pg_roles WHERE rolname IN"
                             " ('mcp_manager_owner', 'mcp_manager_app', 'mcp_manager_audit', 'mcp_manager_admin',"
                             " 'mcp_manager_sync')")  # fmt: skip
    assert len(rows) == 5
    assert {tuple(row)[1:] for row in rows} == {(False, False, False)}


async def test_each_role_can_do_its_work(two: Connection) -> None:
    """Foreign keys reach rows that the role itself does not see; summaries answer."""
    await become(two, "app", A)
    await two.execute(
        "INSERT INTO server_tools (tenant_id, server_id, name) VALUES ($1, $1, 'learned')"
        " ON CONFLICT (server_id, name) DO UPDATE SET last_seen_at = now()", A
    )  # fmt: skip
    await two.execute(
        "INSERT INTO feature_flags (tenant_id, key, created_by) VALUES ($1, 'x', 'u' || $2::text)", A, str(A)
    )
    await two.execute("INSERT INTO tenant_usage (tenant_id, period_start, granularity, metric) VALUES"
                      " ($1, date_trunc('day', now()), 'day', 'errors') ON CONFLICT (tenant_id, period_start,"
                      " granularity, metric) DO UPDATE SET quantity = tenant_usage.quantity + 1", A)  # fmt: skip
    assert await two.fetchval("SELECT sum(total_count) FROM performance_monitoring") >= 5
    await become(two, "admin")
    await two.execute("INSERT INTO tenant_members (tenant_id, user_id) VALUES ($1, 'u' || $2::text)", A, str(B))
    await two.execute("INSERT INTO enhanced_api_keys (id, tenant_id, name, secret_hmac)"
                      " VALUES ('0123456789aB', $1, 'k', sha256('k'))", A)  # fmt: skip
    for view in ("database_size_summary", "index_usage_summary", "performance_monitoring"):
        assert await two.fetchval(f"SELECT count(*) FROM {view}") > 5
    assert await two.fetchval("SELECT count(*) FROM refresh_materialized_views()") == 2
    assert await two.fetchval("SELECT sum(requests) FROM tenant_usage_daily") == 2
