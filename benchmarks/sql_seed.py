"""Rows for every table that has an index worth measuring: the same rows for the same size, only shifted to end now.

Identities are digests of numbers (`md5('server7')::uuid`), so that queries can name them; everything else is drawn from
PostgreSQL's own integer hash, with one seed per column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@dataclass(frozen=True)
class Size:
    """How many rows."""

    tenants: int
    servers: int
    requests: int
    days: int = 7
    """Time that requests and events spread over, ending now."""

    @property
    def events(self) -> int:
        """Rows in each of the tables of measurements, audit and events."""
        return self.requests // 5

    @property
    def busy(self) -> int:
        """Servers, the first ones, that get every second request."""
        return max(self.servers // 100, 10)

    @property
    def people(self) -> int:
        """Users, and keys."""
        return self.servers * 2


FULL: Final = Size(tenants=100, servers=10_000, requests=1_000_000)
SMALL: Final = Size(tenants=20, servers=600, requests=60_000)

#: `h(i, column)`: a number from 0 to 2^31 - 1.
_HASH: Final = """
CREATE FUNCTION pg_temp.h(i int, seed int) RETURNS int LANGUAGE sql IMMUTABLE AS
$$ SELECT (hashint4extended(i, seed) & 2147483647)::int $$;
CREATE FUNCTION pg_temp.tenant(i int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ SELECT md5('tenant' || i)::uuid $$;
CREATE FUNCTION pg_temp.server(i int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$ SELECT md5('server' || i)::uuid $$;
"""

#: Statements in the order of their foreign keys; {tenants} and so on are of the size.
_ROWS: Final = (
    """INSERT INTO tenants (id, slug, name)
    SELECT pg_temp.tenant(i), 'tenant-' || i, 'Tenant ' || i FROM generate_series(1, {tenants}) AS i""",
    """INSERT INTO "user" (id, name, email, role, tenant_id)
    SELECT 'u' || i, 'User ' || i, 'u' || i || '@example.org', CASE WHEN i % 20 = 7 THEN 'admin' ELSE 'user' END,
           pg_temp.tenant(1 + (i - 1) % {tenants})
    FROM generate_series(1, {people}) AS i""",
    """INSERT INTO tenant_members (tenant_id, user_id)
    SELECT DISTINCT pg_temp.tenant(t), 'u' || i FROM generate_series(1, {people}) AS i,
           LATERAL (VALUES (1 + (i - 1) % {tenants}), (1 + pg_temp.h(i, 1) % {tenants})) AS v (t)""",
    """INSERT INTO mcp_servers (id, tenant_id, name, endpoint_url, transport_type, tags, health_status,
                                avg_response_time, next_health_check_at)
    SELECT pg_temp.server(i), pg_temp.tenant(1 + (i - 1) % {tenants}), 'server-' || i,
           'https://host' || i || '.example/mcp',
           CASE WHEN pg_temp.h(i, 2) % 20 < 16 OR i = 7 THEN 'streamable_http' WHEN pg_temp.h(i, 2) % 20 < 19 THEN 'sse'
                ELSE 'websocket' END,
           ARRAY['tag' || pg_temp.h(i, 3) % 200, 'region' || pg_temp.h(i, 4) % 5],
           CASE WHEN pg_temp.h(i, 5) % 100 < 90 THEN 'HEALTHY' WHEN pg_temp.h(i, 5) % 100 < 94 THEN 'DEGRADED'
                WHEN pg_temp.h(i, 5) % 100 < 97 THEN 'UNHEALTHY' ELSE 'UNKNOWN' END,
           pg_temp.h(i, 6) % 2000 / 2.0, now() + (pg_temp.h(i, 7) % 3600 - 30) * interval '1 second'
    FROM generate_series(1, {servers}) AS i""",
    """INSERT INTO server_tools (tenant_id, server_id, name, description, usage_count)
    SELECT pg_temp.tenant(1 + (s - 1) % {tenants}), pg_temp.server(s), 'tool_' || k * 400 + pg_temp.h(s, 8 + k) % 400,
           'A tool of server ' || s, pg_temp.h(s * 5 + k, 13) % 100000
    FROM generate_series(1, {servers}) AS s, generate_series(0, 4) AS k""",
    """INSERT INTO server_resources (tenant_id, server_id, uri_template, name)
    SELECT pg_temp.tenant(1 + (s - 1) % {tenants}), pg_temp.server(s), 'file:///srv' || s || '/doc' || k, 'doc' || k
    FROM generate_series(1, {servers}) AS s, generate_series(1, 3) AS k""",
    """INSERT INTO server_prompts (tenant_id, server_id, name, description)
    SELECT pg_temp.tenant(1 + (s - 1) % {tenants}), pg_temp.server(s), 'prompt_' || k,
           'A summary of topic' || pg_temp.h(s * 3 + k, 14) % 500 || ' in plain words'
    FROM generate_series(1, {servers}) AS s, generate_series(1, 3) AS k""",
    """INSERT INTO server_access_control (tenant_id, server_id, subject_type, effect, priority, is_enabled)
    SELECT pg_temp.tenant(1 + (s - 1) % {tenants}), pg_temp.server(s), 'everyone', 'allow', k, k > 0
    FROM generate_series(1, {servers}) AS s, generate_series(0, 3) AS k""",
    """INSERT INTO enhanced_api_keys (id, tenant_id, user_id, name, secret_hmac, expires_at, revoked_at, created_at)
    SELECT lpad(i::text, 12, '0'), pg_temp.tenant(1 + (i - 1) % {tenants}), 'u' || i, 'key ' || i,
           sha256(i::text::bytea),
           CASE WHEN i % 5 = 0 THEN now() + pg_temp.h(i, 15) % 365 * interval '1 day' END,
           CASE WHEN pg_temp.h(i, 16) % 10 < 3 THEN now() END, now() - pg_temp.h(i, 17) % 365 * interval '1 day'
    FROM generate_series(1, {people}) AS i""",
    """INSERT INTO tenant_usage (tenant_id, period_start, granularity, metric, quantity)
    SELECT pg_temp.tenant(t), date_trunc('hour', now()) - k * interval '1 hour', 'hour', m, pg_temp.h(t * 1000 + k, 18)
    FROM generate_series(1, {tenants}) AS t, generate_series(0, {days} * 24) AS k,
         unnest('{{requests,errors,bytes_in,bytes_out}}'::text[]) AS m""",
    """INSERT INTO server_metrics (tenant_id, server_id, recorded_at, window_s, request_count)
    SELECT pg_temp.tenant(1 + (s - 1) % {tenants}), pg_temp.server(s), now() - ({events} - i) * {step}, 60, i % 100
    FROM generate_series(1, {events}) AS i, LATERAL (SELECT 1 + pg_temp.h(i, 19) % {servers}) AS v (s)""",
    """INSERT INTO server_health_checks (tenant_id, server_id, checked_at, kind, status, response_time_ms)
    SELECT pg_temp.tenant(1 + (s - 1) % {tenants}), pg_temp.server(s), now() - ({events} - i) * {step}, 'http',
           CASE WHEN pg_temp.h(i, 20) % 100 < 97 THEN 'HEALTHY' ELSE 'UNHEALTHY' END, pg_temp.h(i, 21) % 200
    FROM generate_series(1, {events}) AS i, LATERAL (SELECT 1 + pg_temp.h(i, 22) % {servers}) AS v (s)""",
    """INSERT INTO request_logs (id, ts, tenant_id, server_id, server_name, principal_id, api_key_id, trace_id,
                                 http_method, method, tool_name, status_code, outcome, duration_ms, bytes_in, bytes_out)
    SELECT md5('request' || i)::uuid, now() - ({requests} - i) * ({step} / 5), pg_temp.tenant(1 + (s - 1) % {tenants}),
           pg_temp.server(s), 'server-' || s, 'u' || k,
           CASE WHEN i % 10 < 7 THEN lpad(k::text, 12, '0') END, CASE WHEN i % 2 = 0 THEN md5('trace' || i) END, 'POST',
           m, CASE m WHEN 'tools/call' THEN 'tool_' || pg_temp.h(i, 26) % 200 END, c,
           CASE WHEN c < 400 THEN 'ok' ELSE 'failed' END,
           CASE WHEN pg_temp.h(i, 27) % 100 = 0 THEN 1000 + pg_temp.h(i, 28) % 5000 ELSE pg_temp.h(i, 28) % 400 END,
           pg_temp.h(i, 29) % 2000, pg_temp.h(i, 30) % 20000
    FROM generate_series(1, {requests}) AS i,
         LATERAL (SELECT 1 + pg_temp.h(i, 23) % CASE i % 2 WHEN 0 THEN {busy} ELSE {servers} END,
                         1 + pg_temp.h(i, 24) % {people},
                         CASE WHEN pg_temp.h(i, 25) % 10 < 7 THEN 'tools/call' WHEN pg_temp.h(i, 25) % 10 < 9
                              THEN 'tools/list' ELSE 'ping' END,
                         CASE pg_temp.h(i, 31) % 100 WHEN 0 THEN 502 WHEN 1 THEN 403 WHEN 2 THEN 429 ELSE 200 END)
             AS v (s, k, m, c)""",
    """INSERT INTO audit_logs (tenant_id, ts, id, kind, actor_type, actor_id, action, resource_type, resource_id,
                               outcome, risk_level, client_ip)
    SELECT pg_temp.tenant(1 + pg_temp.h(i, 32) % {tenants}), now() - ({events} - i) * {step}, md5('audit' || i)::uuid,
           CASE WHEN d THEN 'denied' ELSE 'outcome' END, 'user', 'u' || 1 + pg_temp.h(i, 33) % {people}, 'tools/call',
           'tool', 'tool_' || pg_temp.h(i, 34) % 500, CASE WHEN d THEN 'denied' ELSE 'ok' END,
           CASE pg_temp.h(i, 35) % 200 WHEN 0 THEN 'critical' WHEN 1 THEN 'high' WHEN 2 THEN 'medium' ELSE 'low' END,
           '10.0.0.0'::inet + pg_temp.h(i, 36) % 1000
    FROM generate_series(1, {events}) AS i, LATERAL (SELECT pg_temp.h(i, 37) % 100 = 0) AS v (d)""",
    """INSERT INTO error_logs (id, ts, tenant_id, component, error_type, message, fingerprint, resolved_at)
    SELECT md5('error' || i)::uuid, now() - ({events} - i) * {step}, pg_temp.tenant(1 + pg_temp.h(i, 38) % {tenants}),
           'forward', 'ConnectError', 'The server refused the connection.', 'fp' || pg_temp.h(i, 39) % 300,
           CASE WHEN pg_temp.h(i, 40) % 20 > 0 THEN now() END
    FROM generate_series(1, {events}) AS i""",
    """INSERT INTO security_events (id, ts, tenant_id, event_type, severity, client_ip, description)
    SELECT md5('security' || i)::uuid, now() - ({events} - i) * {step},
           pg_temp.tenant(1 + pg_temp.h(i, 41) % {tenants}), 'bad_key',
           CASE pg_temp.h(i, 42) % 200 WHEN 0 THEN 'critical' WHEN 1 THEN 'high' ELSE 'low' END,
           '10.0.0.0'::inet + pg_temp.h(i, 43) % 1000, 'A key that does not exist.'
    FROM generate_series(1, {events}) AS i""",
    """INSERT INTO system_events (id, ts, tenant_id, event_type, component, message)
    SELECT md5('system' || i)::uuid, now() - ({events} - i) * {step}, '00000000-0000-0000-0000-000000000000',
           'event' || pg_temp.h(i, 44) % 100, 'health', 'It happened.'
    FROM generate_series(1, {events}) AS i""",
    """INSERT INTO rate_limit_violations (id, ts, tenant_id, level, subject)
    SELECT md5('violation' || i)::uuid, now() - ({events} - i) * {step},
           pg_temp.tenant(1 + pg_temp.h(i, 45) % {tenants}), 'key', 'subject' || pg_temp.h(i, 46) % 500
    FROM generate_series(1, {events}) AS i""",
)


async def seed(connection: Connection, size: Size) -> None:
    """Fill a migrated, empty database whose owner `connection` is, with its partitions."""
    names = {
        name: getattr(size, name) for name in ("tenants", "servers", "busy", "requests", "events", "people", "days")
    }
    step = f"(interval '{size.days} days' / {size.events})"
    async with connection.transaction():
        await connection.execute(_HASH)
        span = f"'{size.days} days'::interval"
        await connection.execute(f"SELECT create_partitions(now() - {span}, {span} + '1 day')")
        for statement in _ROWS:
            await connection.execute(statement.format(**names, step=step))
    await connection.execute("VACUUM (ANALYZE)")
