"""What went by reaches its tables, once, and can be added up: with the real migrations."""

from __future__ import annotations

import os
import random
import time
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from proxy.background.sums import Sum
from proxy.background.traffic import ACCURACY, bin_of, milliseconds
from proxy.background.traffic_rows import TrafficRows
from proxy.identity.records import SYSTEM_TENANT
from proxy.identity.uuid7 import RecordIds
from proxy.store import traffic
from proxy.store.database import Database
from proxy.store.learned import Unusable
from proxy.store.observations import patient
from proxy.store.pool import Unavailable
from proxy.store.traffic import KeyWindow, Quantity, ServerWindow
from tests.unit.store.conftest import ACME, OTHER, OTHERS, SERVER
from tests.unit.store.engine import empty_database, execute, opened, owner_dsn, rows

GONE = "55555555-5555-5555-5555-555555555555"
NOON = datetime(2027, 1, 15, 12, tzinfo=UTC)
IDS = RecordIds(time.time, os.urandom)


def server_row(server: str = SERVER, durations_ms: tuple[float, ...] = (10.0, 20.0, 30.0)) -> ServerWindow:
    """A minute of a server, one request in three failed."""
    bins = sorted(bin_of(each / 1e3) for each in durations_ms)
    count = len(durations_ms)
    return ServerWindow(
        IDS.new(), NOON, server, 60, count, count // 3, 20.0, 20.0, 30.0, 30.0, 300, 30, 2,
        f"{{{','.join(map(str, bins))}}}", f"{{{','.join('1' for _ in bins)}}}",
    )  # fmt: skip


def key_row(tools: str = '{"s":{"echo":2}}') -> KeyWindow:
    """A minute of a credential."""
    return KeyWindow(
        IDS.new(), NOON, "api_keys", "k", 60, 3, 1, 2, 300, 30, 20.0, 20.0, 30.0, 30.0, "{5,7}", "{1,2}", tools
    )  # fmt: skip


async def test_minutes_are_written_once_however_often_they_are_sent(name: str, database: Database) -> None:
    """Their identity was made with them."""
    server, key = server_row(), key_row()
    for _ in range(3):
        async with database.tenant(ACME) as session:
            await traffic.add_servers(session, "a", [server])
            await traffic.add_keys(session, "a", [key])
    columns = "tenant_id::text, instance, window_s, request_count, error_count, bytes_in, bytes_out, avg_ms, p95_ms"
    assert await rows(name, f"SELECT {columns}, recorded_at, server_id::text, open_streams FROM server_metrics") == [
        (ACME, "a", 60, 3, 1, 300, 30, 20.0, 30.0, NOON, SERVER, 2)
    ]
    found = await rows(name, f"SELECT {columns}, period_start, credential_table, credential_id FROM api_key_usage")
    assert found == [(ACME, "a", 60, 3, 1, 300, 30, 20.0, 30.0, NOON, "api_keys", "k")]
    others = "tool_call_count, duration_bins, duration_counts, tools->'s'->>'echo'"
    assert await rows(name, f"SELECT {others} FROM api_key_usage") == [(2, [5, 7], [1, 2], "2")]


async def test_servers_that_are_gone_or_another_tenants_are_passed_over(name: str, database: Database) -> None:
    """The others are written."""
    async with database.tenant(ACME) as session:
        await traffic.add_servers(session, "a", [server_row(OTHERS), server_row(GONE), server_row()])
    assert await rows(name, "SELECT server_id::text FROM server_metrics") == [(SERVER,)]


async def test_a_batch_of_use_is_added_once_and_in_order(name: str, database: Database) -> None:
    """By number: a second time, or after a later one, it adds nothing; other writers add their own."""
    for instance, batch, quantity in (("a", 1, 5), ("a", 1, 5), ("a", 3, 7), ("a", 2, 100), ("b", 1, 11)):
        async with database.tenant(ACME) as session:
            await traffic.add_usage(session, instance, batch, [Quantity(NOON, "minute", "requests", quantity)])
    found = await rows(name, "SELECT tenant_id::text, period_start, granularity, metric, quantity FROM tenant_usage")
    assert found == [(ACME, NOON, "minute", "requests", 23)]
    assert await rows(name, "SELECT instance, batch FROM usage_writers ORDER BY 1") == [("a", 3), ("b", 1)]


async def test_writers_that_are_long_gone_are_forgotten(name: str, database: Database) -> None:
    """When somebody else writes for the tenant."""
    await execute(
        owner_dsn(name),
        "INSERT INTO usage_writers (tenant_id, instance, batch, updated_at) SELECT id, 'old', 1, "
        f"now() - interval '31 days' FROM tenants WHERE id IN ('{ACME}', '{OTHER}')",
    )
    async with database.tenant(ACME) as session:
        await traffic.add_usage(session, "a", 1, [Quantity(NOON, "minute", "requests", 1)])
    found = await rows(name, "SELECT tenant_id::text, instance FROM usage_writers ORDER BY 1")
    assert found == [(ACME, "a"), (OTHER, "old")]


async def test_what_can_never_be_written_is_told_from_what_can_later(database: Database) -> None:
    """A tenant that is gone; a database without tables."""
    with pytest.raises(Unusable):
        async with database.tenant(GONE) as session:
            await traffic.add_usage(session, "a", 1, [Quantity(NOON, "minute", "requests", 1)])
    with pytest.raises(Unusable):
        async with database.tenant(GONE) as session:
            await traffic.add_keys(session, "a", [key_row()])
    async with empty_database() as empty, opened(empty, connections=1) as bare:
        with pytest.raises(Unavailable):
            async with patient(bare.tenant(ACME)) as session:
                await traffic.add_servers(session, "a", [server_row()])


async def test_a_tenant_sees_its_own_rows_only(database: Database) -> None:
    """Row level security, for reading and for writing."""
    async with database.tenant(ACME) as session:
        await traffic.add_servers(session, "a", [server_row()])
        await traffic.add_keys(session, "a", [key_row()])
        await traffic.add_usage(session, "a", 1, [Quantity(NOON, "minute", "requests", 1)])
    for tenant, count in ((ACME, 1), (OTHER, 0), (SYSTEM_TENANT, 0)):
        async with database.tenant(tenant) as session:
            for table in ("server_metrics", "api_key_usage", "tenant_usage", "usage_writers"):
                assert (await session.fetch(f"/* test.ask */ SELECT count(*) FROM {table}"))[0][0] == count


async def test_postgresql_and_ddsketch_agree_on_what_a_bin_is(name: str) -> None:
    """From a microsecond to days."""
    numbers = range(bin_of(0), bin_of(1e6), 50)
    found = await rows(name, f"SELECT duration_of_bin(n) FROM unnest('{{{','.join(map(str, numbers))}}}'::int[]) AS n")
    assert [row[0] for row in found] == pytest.approx([milliseconds(number) for number in numbers], rel=1e-9)


async def test_quantiles_of_many_instances_are_those_of_all_requests(name: str, database: Database) -> None:
    """Not means of quantiles: rows of two instances add up to what one would have seen."""
    draw = random.Random(1)
    fast = tuple(draw.lognormvariate(2, 1) for _ in range(300))
    slow = tuple(draw.lognormvariate(6, 1) for _ in range(100))
    for instance, durations in (("a", fast), ("b", slow)):
        async with database.tenant(ACME) as session:
            await traffic.add_servers(session, instance, [server_row(durations_ms=durations)])
    since, until = NOON - timedelta(minutes=1), NOON
    query = "SELECT * FROM get_server_traffic_summary($1, $2)"
    (found,) = await execute(owner_dsn(name), query, since, until)
    every = sorted(fast + slow)
    for column, share in (("p50_ms", 0.50), ("p95_ms", 0.95), ("p99_ms", 0.99)):
        assert found[column] == pytest.approx(every[int(share * 399)], rel=ACCURACY * 1.001)
    assert (str(found["server_id"]), found["total_requests"], found["failed_requests"]) == (SERVER, 400, 133)
    assert (found["error_percent"], found["bytes_in"], found["bytes_out"]) == (33.25, 600, 60)
    assert await execute(owner_dsn(name), query, until, until + timedelta(hours=1)) == []


async def test_the_summaries_answer_from_rows(name: str, database: Database) -> None:
    """Functions and views of the front end, once there are rows of requests; and those of the minutes beside them."""
    now = datetime.now(UTC)
    await execute(owner_dsn(name), "UPDATE mcp_servers SET health_status = 'HEALTHY'")
    log = """INSERT INTO request_logs
        (id, ts, tenant_id, server_id, http_method, status_code, outcome, duration_ms, bytes_in, bytes_out)
        VALUES (gen_random_uuid(), $1, $2, $3, 'POST', $4, 'ok', $5, 100, 10)"""
    for status, duration_ms in ((200, 10.0), (200, 20.0), (502, 30.0)):
        await execute(owner_dsn(name), log, now - timedelta(minutes=1), ACME, SERVER, status, duration_ms)
    async with database.tenant(ACME) as session:
        await traffic.add_servers(session, "a", [server_row()._replace(recorded_at=now)])
        day = now.replace(hour=0, minute=0, second=0, microsecond=0)
        used_today = (("requests", 3), ("bytes_in", 300), ("bytes_out", 30))
        await traffic.add_usage(session, "a", 1, [Quantity(day, "day", *each) for each in used_today])
    async with database.tenant(ACME, "read") as session:
        health = (await session.fetch("/* test.ask */ SELECT * FROM get_server_health_summary()"))[0]
        asked = (await session.fetch("/* test.ask */ SELECT * FROM get_request_performance_summary()"))[0]
        used = (await session.fetch("/* test.ask */ SELECT * FROM get_tenant_usage_summary()"))[0]
        by_minute = (await session.fetch("/* test.ask */ SELECT * FROM get_server_traffic_summary()"))[0]
        monitored = await session.fetch("/* test.ask */ SELECT * FROM performance_monitoring")
    parts = {row["component"]: row for row in monitored}
    assert (health["total_servers"], health["healthy_servers"]) == (1, 1)
    assert (asked["total_requests"], asked["failed_requests"], asked["p50_ms"]) == (3, 1, 20.0)
    assert (used["requests"], used["failed_requests"], used["bytes_in"]) == (3, 1, 300)
    assert (by_minute["total_requests"], by_minute["failed_requests"]) == (3, 1)
    assert by_minute["p50_ms"] == pytest.approx(asked["p50_ms"], rel=ACCURACY * 1.001)
    assert (parts["requests"]["total_count"], parts["requests"]["healthy_count"]) == (3, 2)
    await execute(owner_dsn(name), "SELECT refresh_materialized_views()")
    assert await rows(name, "SELECT requests, failed_requests FROM server_performance_hourly") == [(3, 1)]
    assert await rows(name, "SELECT requests, bytes_out FROM tenant_usage_daily") == [(3, 30)]


async def test_sums_of_real_traffic_say_what_its_requests_say(name: str, database: Database) -> None:
    """As they are written, of three days with many gaps: asked for any time, both ways give one answer."""
    draw = random.Random(7)
    now = datetime.now(UTC)
    sums = TrafficRows(database, IDS.new, "a")
    logged, minutes = [], dict[tuple[str, int], Sum]()
    for _ in range(3000):
        at = now - timedelta(seconds=draw.uniform(0, 3) ** 6 * 355)
        tenant, status, sizes = draw.choice((ACME, OTHER)), draw.choice((200, 404, 502)), (draw.randrange(9000), 7)
        logged.append((IDS.new(), at, tenant, status, *sizes))
        total = minutes.setdefault((tenant, int(at.timestamp()) // 60), Sum())
        total.requests, total.errors = total.requests + 1, total.errors + (status >= 500)
        total.bytes_in, total.bytes_out = total.bytes_in + sizes[0], total.bytes_out + sizes[1]
    for (tenant, minute), total in minutes.items():
        sums.add_tenant(tenant, minute, total)
    await sums.finish()
    assert (sums.waiting, sums.lost) == (0, 0)
    connection = await asyncpg.connect(owner_dsn(name))
    await connection.executemany(
        "INSERT INTO request_logs (id, ts, tenant_id, status_code, bytes_in, bytes_out, http_method, outcome,"
        " duration_ms) VALUES ($1, $2, $3, $4, $5, $6, 'POST', 'ok', 1)", logged,
    )  # fmt: skip
    told = "SELECT tenant_id, requests, failed_requests, bytes_in, bytes_out"
    plain = "SELECT tenant_id, count(*), count(*) FILTER (WHERE status_code >= 500), sum(bytes_in), sum(bytes_out)"
    for _ in range(60):
        since, until = sorted(now - timedelta(seconds=draw.uniform(-1, 3) ** 6 * 355) for _ in range(2))
        one = await connection.fetch(
            f"{told} FROM get_tenant_usage_summary($1, $2) WHERE requests > 0 ORDER BY 1", since, until
        )
        other = await connection.fetch(
            f"{plain} FROM request_logs WHERE ts >= $1 AND ts < $2 GROUP BY 1 ORDER BY 1", since, until
        )
        assert [tuple(row) for row in one] == [tuple(row) for row in other]
    await connection.execute("SELECT refresh_materialized_views()")
    one = await connection.fetch(f"{told}, day FROM tenant_usage_daily ORDER BY 1, 6")
    other = await connection.fetch(
        f"{plain}, date_trunc('day', ts, 'UTC') FROM request_logs GROUP BY 1, 6 ORDER BY 1, 6"
    )
    assert [tuple(row) for row in one] == [tuple(row) for row in other]
    await connection.close()
