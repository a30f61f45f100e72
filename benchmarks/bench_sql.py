"""What each index of the database is worth: the time of the query it is for, with it and without it.

    python -m benchmarks.bench_sql [--short]

An embedded PostgreSQL is filled by a seeded generator (1,000,000 requests, 10,000 servers, 100 tenants, in a minute),
then each query is timed as it is, and again with its index dropped in a transaction that is rolled back. The time is
planning and execution as PostgreSQL reports them, the median of several runs. The tests use the same generator and the
same queries at a smaller size, and so does `--short`. Last line: `median_gain_percent: N`; below 40 is a failure.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final, TypeAlias

import asyncpg

from benchmarks.sql_seed import FULL, SMALL, Size, seed
from proxy.store.embedded import EmbeddedPostgres
from proxy.store.migrate import migrator

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

RUNS: Final = 5
TARGET_PERCENT: Final = 40

_T7: Final = "md5('tenant7')::uuid"
_S7: Final = "md5('server7')::uuid"
_DAY: Final = "ts >= now() - interval '1 day'"

#: Index -> the query it is for. Names and values are those of the generator.
QUERIES: Final = {
    # the registry
    "idx_mcp_servers_tenant_status":
        f"SELECT * FROM mcp_servers WHERE tenant_id = {_T7} AND health_status = 'UNHEALTHY'",
    "idx_mcp_servers_endpoint_transport":
        "SELECT id FROM mcp_servers"
        " WHERE endpoint_url = 'https://host7.example/mcp' AND transport_type = 'streamable_http'",
    "idx_mcp_servers_tags": "SELECT id, name FROM mcp_servers WHERE tags @> '{tag7}'",
    "idx_mcp_servers_due":
        "SELECT id FROM mcp_servers WHERE is_enabled AND next_health_check_at <= now()"
        " ORDER BY next_health_check_at LIMIT 100",
    "idx_servers_discovery_composite":
        "SELECT id, name FROM mcp_servers WHERE health_status = 'HEALTHY' AND transport_type = 'streamable_http'"
        " ORDER BY avg_response_time LIMIT 20",
    "idx_server_tools_name_server": "SELECT server_id FROM server_tools WHERE name = 'tool_7'",
    "idx_server_tools_usage":
        f"SELECT name, usage_count FROM server_tools WHERE tenant_id = {_T7} ORDER BY usage_count DESC LIMIT 10",
    "idx_server_resources_uri": "SELECT * FROM server_resources WHERE uri_template LIKE 'file:///srv7/%'",
    "idx_server_prompts_search":
        "SELECT name FROM server_prompts"
        " WHERE to_tsvector('simple', name || ' ' || coalesce(description, '')) @@ to_tsquery('simple', 'topic7')",
    # measurements
    "idx_server_metrics_server_time":
        f"SELECT * FROM server_metrics WHERE server_id = {_S7} AND recorded_at >= now() - interval '1 day'"
        " ORDER BY recorded_at DESC",
    "idx_server_metrics_tenant_time":
        f"SELECT * FROM server_metrics WHERE tenant_id = {_T7} ORDER BY recorded_at DESC LIMIT 50",
    "idx_server_health_checks_server_time":
        f"SELECT * FROM server_health_checks WHERE server_id = {_S7} ORDER BY checked_at DESC LIMIT 20",
    "idx_server_health_checks_failed":
        f"SELECT * FROM server_health_checks WHERE tenant_id = {_T7} AND status <> 'HEALTHY'"
        " ORDER BY checked_at DESC LIMIT 20",
    # requests
    "idx_request_logs_tenant_time":
        f"SELECT * FROM request_logs WHERE tenant_id = {_T7} AND {_DAY} ORDER BY ts DESC LIMIT 50",
    "idx_request_logs_server_time":
        f"SELECT * FROM request_logs WHERE server_id = {_S7} AND {_DAY} ORDER BY ts DESC LIMIT 50",
    "idx_request_logs_time":
        "SELECT count(*), avg(duration_ms) FROM request_logs"
        " WHERE ts >= now() - interval '50 hours' AND ts < now() - interval '49 hours'",
    "idx_request_logs_errors":
        f"SELECT * FROM request_logs WHERE tenant_id = {_T7} AND status_code >= 500 AND {_DAY}"
        " ORDER BY ts DESC LIMIT 50",
    "idx_request_logs_slow":
        f"SELECT * FROM request_logs WHERE tenant_id = {_T7} AND duration_ms >= 1000"
        " ORDER BY duration_ms DESC LIMIT 20",
    "idx_request_logs_key_time":
        f"SELECT * FROM request_logs WHERE api_key_id = lpad('7', 12, '0') AND {_DAY} ORDER BY ts DESC LIMIT 50",
    "idx_request_logs_tool_time":
        f"SELECT * FROM request_logs WHERE tenant_id = {_T7} AND tool_name = 'tool_7' AND {_DAY}"
        " ORDER BY ts DESC LIMIT 50",
    "idx_request_logs_trace": "SELECT * FROM request_logs WHERE trace_id = md5('trace8')",
    "idx_requests_performance_composite":
        "SELECT count(*), avg(duration_ms), count(*) FILTER (WHERE status_code >= 500) FROM request_logs"
        f" WHERE server_id = {_S7} AND method = 'tools/call' AND {_DAY}",
    # the trail and events
    "idx_audit_logs_actor_time": f"SELECT * FROM audit_logs WHERE actor_id = 'u7' AND {_DAY} ORDER BY ts DESC LIMIT 50",
    "idx_audit_logs_resource_time":
        f"SELECT * FROM audit_logs WHERE resource_type = 'tool' AND resource_id = 'tool_7' AND {_DAY}"
        " ORDER BY ts DESC LIMIT 50",
    "idx_audit_logs_high_risk":
        "SELECT * FROM audit_logs WHERE risk_level IN ('high', 'critical') ORDER BY ts DESC LIMIT 20",
    "idx_audit_investigation_composite":
        f"SELECT * FROM audit_logs WHERE tenant_id = {_T7} AND action = 'tools/call' AND outcome = 'denied'"
        " ORDER BY ts DESC LIMIT 50",
    "idx_error_logs_unresolved":
        f"SELECT * FROM error_logs WHERE tenant_id = {_T7} AND resolved_at IS NULL ORDER BY ts DESC LIMIT 20",
    "idx_error_logs_fingerprint_time":
        "SELECT * FROM error_logs WHERE fingerprint = 'fp7' ORDER BY ts DESC LIMIT 20",
    "idx_security_events_address_time":
        "SELECT * FROM security_events WHERE client_ip = '10.0.0.7' ORDER BY ts DESC LIMIT 20",
    "idx_security_events_severe":
        "SELECT * FROM security_events WHERE severity IN ('high', 'critical') ORDER BY ts DESC LIMIT 20",
    "idx_system_events_type_time":
        "SELECT * FROM system_events WHERE event_type = 'event7' ORDER BY ts DESC LIMIT 20",
    "idx_rate_limit_violations_subject_time":
        "SELECT count(*) FROM rate_limit_violations WHERE subject = 'subject7' AND ts >= now() - interval '2 days'",
    # identity, access, use
    "idx_users_tenant_role": f"SELECT id, name FROM \"user\" WHERE tenant_id = {_T7} AND role = 'admin'",
    "idx_tenant_members_user": "SELECT tenant_id, role FROM tenant_members WHERE user_id = 'u7'",
    "idx_enhanced_api_keys_active":
        f"SELECT id, name FROM enhanced_api_keys WHERE tenant_id = {_T7} AND revoked_at IS NULL"
        " ORDER BY created_at DESC LIMIT 50",
    "idx_enhanced_api_keys_expiry":
        "SELECT id FROM enhanced_api_keys WHERE revoked_at IS NULL AND expires_at IS NOT NULL"
        " AND expires_at < now() + interval '1 day' ORDER BY expires_at",
    "idx_access_rules_composite":
        f"SELECT * FROM server_access_control WHERE tenant_id = {_T7} AND server_id = {_S7} AND is_enabled"
        " ORDER BY priority DESC",
    "idx_tenant_usage_composite":
        "SELECT tenant_id, sum(quantity) FROM tenant_usage WHERE metric = 'requests' AND granularity = 'hour'"
        " AND period_start >= now() - interval '1 day' GROUP BY tenant_id",
}  # fmt: skip


@dataclass(frozen=True)
class Worth:
    """One index."""

    index: str
    with_ms: float
    without_ms: float

    @property
    def gain_percent(self) -> float:
        """How much of the time the index saves."""
        return 100 * (1 - self.with_ms / self.without_ms)


def scanned(plan: dict[str, Any]) -> Iterator[str]:
    """Names of the indexes that a plan scans."""
    if "Index Name" in plan:
        yield str(plan["Index Name"])
    for child in plan.get("Plans", ()):
        yield from scanned(child)


async def explain(connection: Connection, query: str, *, run: bool = False) -> dict[str, Any]:
    """PostgreSQL's plan of a query, with its times when it is run."""
    options = "ANALYZE, TIMING OFF, SUMMARY" if run else "COSTS"
    found = json.loads(await connection.fetchval(f"EXPLAIN ({options}, FORMAT JSON) {query}"))
    return dict(found[0])


async def uses(connection: Connection, index: str, query: str) -> bool:
    """Whether the planner takes the index, on the table or on one of its partitions."""
    rows = await connection.fetch(
        "SELECT i.oid::regclass::text FROM pg_class c CROSS JOIN LATERAL"
        " (SELECT relid AS oid FROM pg_partition_tree(c.oid) UNION SELECT c.oid) AS i WHERE c.relname = $1",
        index,
    )  # fmt: skip
    plan = await explain(connection, query)
    return bool({row[0] for row in rows} & set(scanned(plan["Plan"])))


async def time_ms(connection: Connection, query: str) -> float:
    """Median of planning and execution."""
    plans = [await explain(connection, query, run=True) for _ in range(RUNS)]
    return statistics.median(plan["Planning Time"] + plan["Execution Time"] for plan in plans)


async def worth(connection: Connection, index: str, query: str) -> Worth:
    """Time a query with its index, then without."""
    with_ms = await time_ms(connection, query)
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(f"DROP INDEX {index}")
        return Worth(index, with_ms, await time_ms(connection, query))
    finally:
        await transaction.rollback()


async def main(size: Size) -> float:
    """Start a server, fill a database, measure every index, print; returns the median gain."""
    with tempfile.TemporaryDirectory(prefix="mcpm-") as folder:
        os.chmod(folder, 0o711)  # servers do not run as root
        server = EmbeddedPostgres(Path(folder) / "postgres")
        await server.start()
        try:
            return await measure(server.owner_dsn, size)
        finally:
            await server.stop()


async def measure(dsn: str, size: Size) -> float:
    """Everything, on the empty database at `dsn`."""
    async with migrator(dsn) as migrations:
        await migrations.up()
    connection = await asyncpg.connect(dsn)
    try:
        began = perf_counter()
        await seed(connection, size)
        print(f"{size.requests:,} requests, {size.servers:,} servers, {size.tenants} tenants", end=" ")
        print(f"in {perf_counter() - began:.0f} s\n")
        print(f"{'index':42}{'with':>10}{'without':>12}{'gain':>8}")
        found = []
        for index, query in QUERIES.items():
            if not await uses(connection, index, query):
                raise SystemExit(f"{index}: the planner does not use it")
            each = await worth(connection, index, query)
            found.append(each)
            print(f"{index:42}{each.with_ms:7.2f} ms{each.without_ms:9.2f} ms{each.gain_percent:6.0f} %", flush=True)
    finally:
        await connection.close()
    gain = statistics.median(each.gain_percent for each in found)
    print(f"\nmedian_gain_percent: {gain:.0f}")
    return gain


if __name__ == "__main__":
    sys.exit(asyncio.run(main(SMALL if "--short" in sys.argv else FULL)) < TARGET_PERCENT)
