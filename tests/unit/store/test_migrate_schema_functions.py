"""Functions and views of the schema: their answers are those of plain SQL; partitions are made, views refreshed."""

from __future__ import annotations

import statistics
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.unit.store.conftest import Connection

SYSTEM = UUID(int=0)


async def answer(connection: Connection, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Rows in a fixed order, with numbers that can be compared."""
    rows = await connection.fetch(query, *values)
    return sorted(
        (tuple(round(value, 6) if isinstance(value, float) else value for value in row) for row in rows), key=str
    )


async def test_the_health_summary_is_what_the_servers_say(seeded: Connection) -> None:
    """Counts per state, the mean, and the percentage."""
    servers = await seeded.fetch("SELECT health_status, is_enabled, avg_response_time FROM mcp_servers")
    states = [row["health_status"] for row in servers]
    found = await seeded.fetchrow("SELECT * FROM get_server_health_summary()")
    assert found is not None
    assert dict(found) == {
        "total_servers": len(servers),
        "enabled_servers": sum(row["is_enabled"] for row in servers),
        "healthy_servers": states.count("HEALTHY"),
        "degraded_servers": states.count("DEGRADED"),
        "unhealthy_servers": states.count("UNHEALTHY"),
        "maintenance_servers": states.count("MAINTENANCE"),
        "unknown_servers": states.count("UNKNOWN"),
        "avg_response_time": pytest.approx(statistics.fmean(row["avg_response_time"] for row in servers)),
        "health_percent": pytest.approx(100 * states.count("HEALTHY") / len(servers)),
    }
    assert states.count("DEGRADED") > 0
    assert states.count("UNHEALTHY") > 0


async def test_the_performance_summary_is_what_the_requests_say(seeded: Connection) -> None:
    """Per server, over a span whose end does not belong to it; percentiles as Python computes them."""
    now = await seeded.fetchval("SELECT now()")
    since, until = now - timedelta(hours=30), now - timedelta(hours=6)
    found = await seeded.fetch("SELECT * FROM get_request_performance_summary($1, $2)", since, until)
    rows = await seeded.fetch("SELECT * FROM request_logs WHERE ts >= $1 AND ts < $2", since, until)
    per_server: dict[UUID, list[Any]] = {}
    for row in rows:
        per_server.setdefault(row["server_id"], []).append(row)
    assert {row["server_id"] for row in found} == set(per_server)
    for row in found:
        requests = per_server[row["server_id"]]
        durations = sorted(request["duration_ms"] for request in requests)
        failed = sum(request["status_code"] >= 500 for request in requests)
        assert (row["total_requests"], row["failed_requests"]) == (len(requests), failed)
        assert row["error_percent"] == pytest.approx(100 * failed / len(requests))
        assert row["avg_ms"] == pytest.approx(statistics.fmean(durations))
        for share in (50, 95, 99):
            assert row[f"p{share}_ms"] == pytest.approx(percentile(durations, share / 100))
        assert row["bytes_in"] == sum(request["bytes_in"] for request in requests)
        assert row["bytes_out"] == sum(request["bytes_out"] for request in requests)
    assert sum(row["failed_requests"] for row in found) > 0


def percentile(ordered: list[float], share: float) -> float:
    """Linear interpolation between the two nearest."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


#: What the sums of use are, in one statement: of every period but those whose sums would be to come.
SUMS = """INSERT INTO tenant_usage (tenant_id, period_start, granularity, metric, quantity)
    SELECT tenant_id, date_trunc(g, ts, 'UTC'), g, m,
           sum(CASE m WHEN 'requests' THEN 1 WHEN 'bytes_in' THEN bytes_in ELSE bytes_out END)
    FROM request_logs, unnest('{minute,hour,day,month}'::text[]) AS g,
         unnest('{requests,bytes_in,bytes_out}'::text[]) AS m
    WHERE date_trunc('minute', ts) < date_trunc('minute', now() - interval '1 minute') GROUP BY 1, 2, 3, 4"""


async def sum_up(connection: Connection) -> None:
    """The sums are those of the requests that there are."""
    await connection.execute("DELETE FROM tenant_usage")
    await connection.execute(SUMS)


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("now() - interval '3 days'", "now() - interval '1 day'"),
        ("date_trunc('day', now()) - interval '3 days'", "date_trunc('day', now())"),
        ("date_trunc('hour', now()) - interval '30 hours'", "date_trunc('minute', now()) - interval '7 minutes'"),
        ("now() - interval '50 hours 17.5 seconds'", "now() - interval '49 hours 59 minutes 1 second'"),
        ("now() - interval '26 hours 40 seconds'", "now() - interval '26 hours 5 seconds'"),
        ("now() - interval '150 seconds'", "now()"),
        ("now() - interval '4 days'", "'infinity'"),
        ("'-infinity'", "now()"),
        ("now()", "now() - interval '1 day'"),
    ],
)
async def test_the_usage_summary_is_what_the_requests_say(seeded: Connection, since: str, until: str) -> None:
    """From the sums, whatever the time is: whole days, parts of an hour or a minute, what is not summed up yet."""
    await sum_up(seeded)
    found = await answer(
        seeded,
        "SELECT tenant_id, requests, failed_requests, bytes_in, bytes_out"
        f" FROM get_tenant_usage_summary({since}, {until}) WHERE requests > 0",
    )
    assert found == await answer(
        seeded,
        "SELECT tenant_id, count(*), count(*) FILTER (WHERE status_code >= 500), sum(bytes_in), sum(bytes_out)"
        f" FROM request_logs WHERE ts >= {since} AND ts < {until} GROUP BY 1",
    )


async def test_the_usage_summary_needs_few_requests(seeded: Connection) -> None:
    """Only those of the odd moments at the ends, and failures: without the others it says the same."""
    await sum_up(seeded)
    asked = "SELECT * FROM get_tenant_usage_summary(date_trunc('minute', now()) - interval '2 days')"
    before = await answer(seeded, asked)
    gone = "DELETE FROM request_logs WHERE ts < now() - interval '5 minutes' AND status_code < 500"
    assert int((await seeded.execute(gone)).split()[1]) > 50_000
    assert await answer(seeded, asked) == before


async def test_the_usage_summary_is_what_the_tables_say(seeded: Connection) -> None:
    """Per tenant, those without any use included; keys count only while they are in force."""
    await sum_up(seeded)
    await seeded.execute("UPDATE enhanced_api_keys SET not_before = now() + interval '1 hour', expires_at = NULL"
                         " WHERE id < lpad('40', 12, '0')")  # fmt: skip
    now = await seeded.fetchval("SELECT now()")
    since, until = now - timedelta(days=3), now - timedelta(days=1)
    found = await answer(seeded, "SELECT * FROM get_tenant_usage_summary($1, $2)", since, until)
    plain = {}
    for tenant, slug in await seeded.fetch("SELECT id, slug FROM tenants"):
        plain[tenant] = [tenant, slug] + [
            await seeded.fetchval(f"SELECT {what} WHERE tenant_id = $1 {more}", tenant, *values)
            for what, more, *values in (
                ("count(*) FROM mcp_servers", ""),
                ("count(*) FROM tenant_members", ""),
                ("count(*) FROM enhanced_api_keys", "AND revoked_at IS NULL AND coalesce(expires_at > now(), true)"
                 " AND coalesce(not_before <= now(), true)"),
                ("count(*) FROM request_logs", "AND ts >= $2 AND ts < $3", since, until),
                ("count(*) FROM request_logs", "AND ts >= $2 AND ts < $3 AND status_code >= 500", since, until),
                ("coalesce(sum(bytes_in), 0) FROM request_logs", "AND ts >= $2 AND ts < $3", since, until),
                ("coalesce(sum(bytes_out), 0) FROM request_logs", "AND ts >= $2 AND ts < $3", since, until),
            )
        ]  # fmt: skip
    assert found == sorted((tuple(row) for row in plain.values()), key=str)
    assert {row[5] for row in found if row[0] == SYSTEM} == {0}


async def test_summaries_show_a_tenant_only_itself(seeded: Connection) -> None:
    """Functions and views run with the rights of the caller."""
    tenant = await seeded.fetchval("SELECT md5('tenant7')::uuid")
    own = await seeded.fetchval("SELECT count(*) FROM mcp_servers WHERE tenant_id = $1", tenant)
    requests = await seeded.fetchval("SELECT count(*) FROM request_logs WHERE tenant_id = $1", tenant)
    await seeded.execute("SET LOCAL ROLE mcp_manager_app")
    await seeded.execute("SELECT set_config('app.tenant', $1, true)", str(tenant))
    assert await seeded.fetchval("SELECT total_servers FROM get_server_health_summary()") == own
    assert await seeded.fetchval("SELECT sum(total_requests) FROM get_request_performance_summary('-infinity')") == (
        requests - await seeded.fetchval("SELECT count(*) FROM request_logs WHERE ts >= now()")
    )
    assert [row["tenant_id"] for row in await seeded.fetch("SELECT * FROM get_tenant_usage_summary()")] == [tenant]
    counted = dict(map(tuple, await seeded.fetch("SELECT component, total_count FROM performance_monitoring")))
    assert counted["servers"] == own


async def test_the_monitoring_view_is_what_the_tables_say(seeded: Connection) -> None:
    """Each component against its own plain query."""
    await seeded.execute("""
        INSERT INTO circuit_breakers (tenant_id, server_id, state)
            SELECT tenant_id, id, CASE WHEN name < 'server-3' THEN 'open' ELSE 'closed' END FROM mcp_servers LIMIT 50;
        INSERT INTO connection_pools (tenant_id, server_id, max_connections, utilization)
            SELECT tenant_id, id, 10, CASE WHEN name < 'server-2' THEN 0.95 ELSE 0.5 END FROM mcp_servers LIMIT 50;
        INSERT INTO request_queues (tenant_id, server_id, max_concurrent, max_pending, pending, oldest_wait_ms)
            SELECT tenant_id, id, 1, 5, CASE WHEN name < 'server-2' THEN 5 ELSE 0 END, 12 FROM mcp_servers LIMIT 50;
        INSERT INTO performance_alerts (tenant_id, name, metric, threshold, state, is_enabled)
            SELECT id, 'a', 'p95_ms', 1, CASE WHEN slug < 'tenant-15' THEN 'firing' ELSE 'ok' END, slug <> 'tenant-2'
            FROM tenants""")
    rows = await seeded.fetch("SELECT * FROM performance_monitoring")
    hour = "FROM request_logs WHERE ts >= now() - interval '1 hour'"
    plain = {
        "servers": ("FROM mcp_servers", "health_status = 'HEALTHY'", "avg(avg_response_time)"),
        "requests": (hour, "status_code < 500", "avg(duration_ms)"),
        "breakers": ("FROM circuit_breakers", "state = 'closed'", "NULL::float"),
        "pools": ("FROM connection_pools", "utilization < 0.9", "avg(utilization)"),
        "queues": ("FROM request_queues", "pending = 0", "max(oldest_wait_ms)"),
        "alerts": ("FROM performance_alerts WHERE is_enabled", "state = 'ok'", "NULL::float"),
    }
    assert {row["component"] for row in rows} == set(plain)
    for row in rows:
        source, healthy, value = plain[row["component"]]
        total = await seeded.fetchval(f"SELECT count(*) {source}")
        well = await seeded.fetchval(f"SELECT count(*) FILTER (WHERE {healthy}) {source}")
        assert 0 < well < total, row["component"]
        assert (row["total_count"], row["healthy_count"]) == (total, well)
        assert row["health_percent"] == pytest.approx(100 * well / total)
        assert row["value"] == pytest.approx(await seeded.fetchval(f"SELECT {value} {source}"))


async def test_the_size_view_is_what_the_tables_take(seeded: Connection) -> None:
    """Every table once, with its partitions summed."""
    rows = {row["table_name"]: row for row in await seeded.fetch("SELECT * FROM database_size_summary")}
    for table in ("mcp_servers", "request_logs"):
        size = await seeded.fetchval(
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND (oid = $1::text::regclass"
            " OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = $1::text::regclass))", table
        )  # fmt: skip
        count = await seeded.fetchval(f"SELECT count(*) FROM {table}")
        assert rows[table]["total_bytes"] == size
        assert rows[table]["row_estimate"] == count
        assert rows[table]["table_bytes"] + rows[table]["index_bytes"] == size
    assert rows["mcp_servers"]["partitions"] == 0
    assert rows["request_logs"]["partitions"] >= 8
    tables = await seeded.fetchval("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
                                   " AND relkind IN ('r', 'p') AND NOT relispartition")  # fmt: skip
    assert len(rows) == tables


async def test_the_index_view_counts_scans_over_partitions(owner: Connection) -> None:
    """A scan shows after the statistics were written, under the name of the index that the migrations gave."""
    await owner.execute("SELECT create_partitions()")
    await owner.execute("SET enable_seqscan = off")
    await owner.fetch("SELECT * FROM request_logs WHERE trace_id = 'x'")
    await owner.execute("SELECT pg_stat_force_next_flush()")
    rows = {row["index_name"]: row for row in await owner.fetch("SELECT * FROM index_usage_summary")}
    partitions = await owner.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = 'request_logs'::regclass")
    assert rows["idx_request_logs_trace"]["scans"] == partitions
    assert rows["idx_request_logs_trace"]["table_name"] == "request_logs"
    assert rows["idx_request_logs_errors"]["scans"] == 0
    assert rows["request_logs_pkey"]["is_unique"]
    assert len([name for name in rows if name.startswith("idx_")]) == 38


LOG = "INSERT INTO request_logs (id, ts, tenant_id, http_method, status_code, outcome, duration_ms) VALUES"


async def test_partitions_are_made_ahead_and_take_the_rows_that_came_too_early(owner: Connection) -> None:
    """Days for logs, months for the rest; a second call makes none; no row is lost, and the data plane may call it."""
    start = datetime(2031, 12, 30, 15, tzinfo=UTC)
    await owner.execute(f"{LOG} (gen_random_uuid(), $1, $2, 'POST', 200, 'ok', 1)", start, SYSTEM)
    await owner.execute("INSERT INTO tenant_usage (tenant_id, period_start, granularity, metric) VALUES"
                        " ($2, $1, 'day', 'requests')", start, SYSTEM)  # fmt: skip
    await owner.execute("SET ROLE mcp_manager_app; SET timezone = 'Asia/Tokyo'")
    made = [row[0] for row in await owner.fetch("SELECT create_partitions($1, '3 days')", start)]
    await owner.execute("RESET ROLE")
    logs = [name for name in made if name.startswith("request_logs")]
    assert logs == [f"request_logs_{day}" for day in ("20311230", "20311231", "20320101", "20320102")]
    assert [name for name in made if name.startswith("tenant_usage")] == ["tenant_usage_203112", "tenant_usage_203201"]
    assert len(made) == 2 * 4 + 9 * 2
    places = await owner.fetch("SELECT tableoid::regclass::text FROM request_logs")
    assert [row[0] for row in places] == ["request_logs_20311230"]
    assert await owner.fetchval("SELECT tableoid::regclass::text FROM tenant_usage") == "tenant_usage_203112"
    assert await owner.fetch("SELECT create_partitions($1, '3 days')", start) == []
    assert await owner.fetchval("SELECT relforcerowsecurity FROM pg_class WHERE relname = 'request_logs_default'")
    indexes = "SELECT count(*) FROM pg_index WHERE indrelid = $1::text::regclass"
    assert await owner.fetchval(indexes, logs[0]) == await owner.fetchval(indexes, "request_logs")
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await owner.execute("SELECT create_partitions(now(), '401 days')")


async def test_views_are_refreshed_when_their_strategy_says_so(owner: Connection) -> None:
    """interval: when it has passed; always: each time; manual and disabled: never."""
    start = datetime(2031, 1, 1, tzinfo=UTC)
    refreshed = "SELECT view_name FROM refresh_materialized_views($1) ORDER BY 1"

    async def at(minutes: int) -> list[str]:
        return [row[0] for row in await owner.fetch(refreshed, start + timedelta(minutes=minutes))]

    assert await at(0) == ["server_performance_hourly", "tenant_usage_daily"]
    assert await at(4) == []
    assert await at(5) == ["server_performance_hourly"]
    await owner.execute("UPDATE materialized_views SET refresh_strategy = 'always', is_concurrent = false"
                        " WHERE view_name = 'tenant_usage_daily'")  # fmt: skip
    assert await at(6) == ["tenant_usage_daily"]
    await owner.execute("UPDATE materialized_views SET refresh_strategy = 'manual'")
    assert await at(10_000) == []
    await owner.execute("UPDATE materialized_views SET refresh_strategy = 'always', is_enabled = false")
    assert await at(10_000) == []


async def test_a_refreshed_view_is_what_plain_sql_says(seeded: Connection) -> None:
    """Made by its owner, for whom row level security is forced, and yet complete."""
    await sum_up(seeded)
    views = {row[0]: row[1] for row in await seeded.fetch("SELECT matviewname, definition FROM pg_matviews")}
    await seeded.execute("SET LOCAL ROLE mcp_manager_app")  # which may ask for it, and sees nothing of it
    done = await seeded.fetch("SELECT view_name, error FROM refresh_materialized_views()")
    await seeded.execute("RESET ROLE")
    assert {row["view_name"]: row["error"] for row in done} == dict.fromkeys(views)
    for name, definition in views.items():
        assert await answer(seeded, f"SELECT * FROM {name}") == await answer(seeded, definition)
        assert await seeded.fetchval(f"SELECT sum(requests) FROM {name}") > 0
    assert await answer(seeded, "SELECT * FROM tenant_usage_daily WHERE day < date_trunc('day', now(), 'UTC')") == (
        await answer(
            seeded,
            "SELECT tenant_id, date_trunc('day', ts, 'UTC'), count(*), count(*) FILTER (WHERE status_code >= 500),"
            " sum(bytes_in), sum(bytes_out) FROM request_logs WHERE ts < date_trunc('day', now(), 'UTC') GROUP BY 1, 2",
        )
    )


async def test_a_view_that_fails_does_not_keep_others_from_being_refreshed(owner: Connection) -> None:
    """Its error is kept, and it stays due."""
    await owner.execute("INSERT INTO materialized_views (view_name) VALUES ('absent')")
    done = {row[0]: row[1] for row in await owner.fetch("SELECT view_name, error FROM refresh_materialized_views()")}
    assert done.pop("absent") == 'relation "absent" does not exist'
    assert set(done.values()) == {None}
    assert await owner.fetchval("SELECT last_refreshed_at FROM materialized_views WHERE view_name = 'absent'") is None
    assert await owner.fetchval("SELECT last_error FROM materialized_views WHERE view_name = 'absent'") is not None


async def test_a_change_sets_the_time_of_the_change(owner: Connection) -> None:
    """Whatever the statement says."""
    await owner.execute("UPDATE tenants SET updated_at = '2000-01-01'")
    await owner.execute("UPDATE tenants SET name = 'Other', updated_at = '2000-01-01'")
    assert await owner.fetchval("SELECT updated_at > now() - interval '1 minute' FROM tenants")
