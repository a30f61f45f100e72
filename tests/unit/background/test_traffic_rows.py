"""What is told is written once, to the real tables; while PostgreSQL is away it is kept, merged and within bounds."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.background import traffic_rows as module
from proxy.background.recent import Recent
from proxy.background.sums import KeySum, Sum
from proxy.background.traffic import bin_of
from proxy.background.traffic_rows import TrafficRows, families
from proxy.identity.access import Server
from proxy.identity.records import SYSTEM_TENANT
from proxy.identity.uuid7 import RecordIds
from proxy.store import traffic as store
from proxy.store.database import Database
from tests.unit.background.conftest import ACME
from tests.unit.background.doubtful import Doubtful
from tests.unit.store.engine import execute, owner_dsn

ZETA = "22222222-2222-2222-2222-222222222222"
SERVER = "33333333-3333-3333-3333-333333333333"
GONE = "55555555-5555-5555-5555-555555555555"
PLACE = Server("files", SERVER, ACME)
NOON = int(datetime(2027, 1, 15, 12, tzinfo=UTC).timestamp()) // 60
IDS = RecordIds(time.time, os.urandom)


@pytest.fixture
async def name(name: str) -> str:
    """With two tenants, one of which has a server."""
    await execute(owner_dsn(name), f"INSERT INTO tenants (id, slug, name) VALUES ('{ZETA}', 'zeta', 'T')")
    await execute(
        owner_dsn(name),
        "INSERT INTO mcp_servers (id, tenant_id, name, endpoint_url) "
        f"VALUES ('{SERVER}', '{ACME}', 'files', 'https://s.example/')",
    )
    return name


@pytest.fixture
async def database(database: Database) -> Doubtful:
    return Doubtful(database)


def writer(database: Any, instance: str = "a") -> TrafficRows:
    return TrafficRows(database, IDS.new, instance)


def requests(count: int, total: Sum | None = None) -> Any:
    """So many requests, each a call of a tool, of 10 ms, 100 bytes and an answer of 10; none failed."""
    total = total or Sum()
    total.requests = total.tool_calls = total.timed = count
    total.bytes_in, total.bytes_out, total.seconds = 100 * count, 10 * count, 0.01 * count
    total.bins = {bin_of(0.01): count}
    return total


def of_key(count: int) -> KeySum:
    """The same, of a credential."""
    total: KeySum = requests(count, KeySum())
    total.count_tool(("files", "read\0"), count)
    return total


async def rows(name: str, query: str) -> list[tuple[Any, ...]]:
    """As the owner of everything sees them."""
    return [tuple(row) for row in await execute(owner_dsn(name), query)]


SUMS = "SELECT sum(request_count)::int, count(*) FROM server_metrics"
USED = "SELECT granularity, sum(quantity)::int FROM tenant_usage WHERE metric = 'requests' GROUP BY 1 ORDER BY 1"


async def test_a_minute_of_a_server_is_a_row(name: str, database: Doubtful) -> None:
    """Each instance writes its own."""
    for instance in ("a", "b"):
        traffic = writer(database, instance)
        traffic.add_server(PLACE, NOON, requests(3), 2)
        await traffic.step()
        assert (traffic.waiting, traffic.written) == (0, 1)
    columns = "instance, window_s, request_count, error_count, bytes_in, bytes_out, open_streams, avg_ms, recorded_at"
    found = await rows(name, f"SELECT {columns} FROM server_metrics ORDER BY instance")
    end = datetime(2027, 1, 15, 12, 1, tzinfo=UTC)
    assert found == [("a", 60, 3, 0, 300, 30, 2, pytest.approx(10), end), ("b", 60, 3, 0, 300, 30, 2, 10, end)]
    quantiles = await rows(name, "SELECT p50_ms, p95_ms, p99_ms FROM server_metrics WHERE instance = 'a'")
    assert quantiles == [(pytest.approx(10, rel=0.01),) * 3]


async def test_a_minute_without_a_duration_has_no_quantiles(name: str, database: Doubtful) -> None:
    """Such as one in which there were only open streams."""
    traffic = writer(database)
    traffic.add_server(PLACE, NOON, Sum(), 2)
    await traffic.step()
    columns = "request_count, open_streams, avg_ms, p50_ms, p99_ms, duration_bins"
    assert await rows(name, f"SELECT {columns} FROM server_metrics") == [(0, 2, None, None, None, [])]


async def test_a_minute_of_a_credential_is_a_row_with_its_tools(name: str, database: Doubtful) -> None:
    """Names are such that PostgreSQL takes them."""
    traffic = writer(database)
    traffic.add_key("api_keys", "k", ACME, NOON, of_key(3))
    await traffic.step()
    columns = "tenant_id::text, credential_table, credential_id, request_count, tool_call_count, tools::text"
    expected = [(ACME, "api_keys", "k", 3, 3, '{"files": {"read?": 3}}')]
    assert await rows(name, f"SELECT {columns} FROM api_key_usage") == expected


async def test_use_of_a_tenant_is_added_to_minute_hour_day_and_month(name: str, database: Doubtful) -> None:
    """By all instances together; what is zero has no row."""
    for instance, minute, count in (("a", NOON, 3), ("a", NOON + 1, 4), ("b", NOON + 1, 5), ("b", NOON + 12 * 60, 6)):
        traffic = writer(database, f"{instance}{minute}")
        traffic.add_tenant(ACME, minute, requests(count))
        await traffic.step()
    found = await rows(
        name,
        "SELECT granularity, to_char(period_start AT TIME ZONE 'UTC', 'MM-DD HH24:MI'), quantity FROM tenant_usage "
        "WHERE metric = 'requests' ORDER BY 1, 2",
    )
    assert found == [
        ("day", "01-15 00:00", 12), ("day", "01-16 00:00", 6),
        ("hour", "01-15 12:00", 12), ("hour", "01-16 00:00", 6),
        ("minute", "01-15 12:00", 3), ("minute", "01-15 12:01", 9), ("minute", "01-16 00:00", 6),
        ("month", "01-01 00:00", 18),
    ]  # fmt: skip
    metrics = await rows(name, "SELECT metric, quantity FROM tenant_usage WHERE granularity = 'month' ORDER BY 1")
    assert metrics == [("bytes_in", 1800), ("bytes_out", 180), ("requests", 18), ("tool_calls", 18)]


async def test_whoever_belongs_to_no_tenant_counts_for_the_system(name: str, database: Doubtful) -> None:
    """Also an id that is none."""
    traffic = writer(database)
    traffic.add_tenant("t-unknown", NOON, requests(1))
    await traffic.step()
    assert await rows(name, "SELECT DISTINCT tenant_id::text FROM tenant_usage") == [(SYSTEM_TENANT,)]


async def test_rows_of_a_tenant_that_is_gone_hold_up_nobody(name: str, database: Doubtful) -> None:
    """They are counted as refused."""
    traffic = writer(database)
    traffic.add_key("api_keys", "k", GONE, NOON, of_key(3))
    traffic.add_tenant(GONE, NOON, requests(3))
    traffic.add_tenant(ACME, NOON, requests(3))
    await traffic.step()
    assert (traffic.refused, traffic.written, traffic.waiting) == (17, 16, 0)
    assert await rows(name, "SELECT DISTINCT tenant_id::text FROM tenant_usage") == [(ACME,)]


async def test_a_server_that_goes_meanwhile_takes_nothing_with_it(name: str, database: Doubtful) -> None:
    """Its rows are refused once, and then it is known to be gone."""
    traffic = writer(database)
    traffic.add_server(PLACE, NOON, requests(3), 0)
    traffic.add_tenant(ACME, NOON, requests(3))
    database.fails = ["unusable"]
    await traffic.step()
    assert (traffic.waiting, traffic.refused) == (0, 0)
    assert await rows(name, SUMS) == [(3, 1)]
    assert await rows(name, USED) == [("day", 3), ("hour", 3), ("minute", 3), ("month", 3)]


async def test_a_tenant_that_is_slow_does_not_stand_before_the_others(name: str, database: Doubtful) -> None:
    """It comes last the next time; what was written nevertheless is not written twice."""
    traffic = writer(database)
    for tenant in (ACME, ZETA):
        traffic.add_tenant(tenant, NOON, requests(3))
    database.fails = ["slow"]
    await traffic.step()
    await traffic.step()
    assert await rows(name, USED) == [("day", 6), ("hour", 6), ("minute", 6), ("month", 6)]


STEPS = st.lists(st.sampled_from(["server", "tenant", "key", "away", "lost", "slow", "write"]), max_size=14)


async def test_nothing_is_lost_and_nothing_doubles(name: str, database: Doubtful) -> None:
    """Whatever happens to transactions, and in whatever order: the rows add up to what was told."""
    # the test below runs examples on this database: making one for each would take seconds
    loop = asyncio.get_running_loop()
    told = dict.fromkeys(("server", "tenant", "key"), 0)

    @settings(max_examples=25, deadline=None)
    @given(STEPS)
    def run(steps: list[str]) -> None:
        asyncio.run_coroutine_threadsafe(follow(steps), loop).result(30)

    async def follow(steps: list[str]) -> None:
        traffic = writer(database, str(uuid4()))
        for number, step in enumerate(steps, 1):
            if step in told:
                told[step] += number
                add(traffic, step, NOON + number % 3, number)
            elif step == "write":
                await traffic.step()
            else:
                database.fails.append(step)
                await traffic.step()
        database.fails.clear()
        await traffic.finish()
        assert (traffic.waiting, traffic.lost, traffic.refused) == (0, 0, 0)

    await asyncio.to_thread(run)
    assert told["server"] and (await rows(name, SUMS))[0][0] == told["server"]
    assert (await rows(name, "SELECT sum(request_count)::int FROM api_key_usage"))[0][0] == told["key"]
    used = [(granularity, told["tenant"]) for granularity in ("day", "hour", "minute", "month")]
    assert await rows(name, USED) == used


def add(traffic: TrafficRows, what: str, minute: int, count: int) -> None:
    """Tell of so many requests."""
    if what == "server":
        traffic.add_server(PLACE, minute, requests(count), 0)
    elif what == "tenant":
        traffic.add_tenant(ACME, minute, requests(count))
    else:
        traffic.add_key("api_keys", "k", ACME, minute, of_key(count))


async def test_many_minutes_wait_merged_by_the_hour(
    name: str, database: Doubtful, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request is lost, and a window that was sent takes nothing more."""
    monkeypatch.setattr(module, "MOST_WINDOWS", 4)
    traffic = writer(database)
    for minute in range(30):
        traffic.add_server(PLACE, NOON + minute, requests(1), minute)
    assert traffic.waiting == 3
    database.fails = ["lost"]
    await traffic.step()
    traffic.add_server(PLACE, NOON + 40, requests(1), 7)
    assert (traffic.waiting, traffic.lost) == (4, 0)
    await traffic.step()
    found = await rows(name, "SELECT window_s, request_count, open_streams FROM server_metrics ORDER BY 1, 2, 3")
    assert found == [(60, 1, 0), (60, 1, 1), (3600, 1, 7), (3600, 28, 29)]


async def test_what_finds_no_room_is_counted(name: str, database: Doubtful, monkeypatch: pytest.MonkeyPatch) -> None:
    """As requests that are missing in the rows."""
    monkeypatch.setattr(module, "MOST_WINDOWS", 2)
    monkeypatch.setattr(module, "_ROOM", (1, 2, 4, 4))
    traffic = writer(database)
    for hour in range(4):
        traffic.add_key("api_keys", "k", ACME, NOON + 60 * hour, of_key(5))
    assert (traffic.lost, traffic.waiting) == (10, 2)
    for hour in range(4):
        traffic.add_tenant(ACME, NOON + 60 * hour, requests(1))
    assert (traffic.lost, traffic.waiting) == (10, 6), "minutes and hours are given up first"
    traffic.add_tenant(ZETA, NOON, requests(1))
    assert traffic.lost == 11
    await traffic.step()
    assert await rows(name, USED) == [("day", 4), ("hour", 1), ("minute", 1), ("month", 4)]


async def test_at_the_end_all_is_written(name: str, database: Doubtful, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many steps that takes; nothing holds it up while PostgreSQL is away."""
    monkeypatch.setattr(module, "_MOST_TENANTS", 1)
    traffic = writer(database)
    for tenant in (ACME, ZETA, SYSTEM_TENANT):
        traffic.add_tenant(tenant, NOON, requests(1))
    database.fails = ["away"]
    await traffic.finish()
    assert traffic.waiting == 8
    await traffic.finish()
    assert traffic.waiting == 0
    assert await rows(name, USED) == [("day", 3), ("hour", 3), ("minute", 3), ("month", 3)]


async def test_only_servers_with_a_row_have_rows(database: Doubtful) -> None:
    """Those of a configuration file have one when there is a database; until then there is nothing to refer to."""
    traffic = writer(database)
    traffic.add_server(Server("file"), NOON, requests(1), 0)
    assert traffic.waiting == 0


async def test_without_a_database_nothing_waits() -> None:
    """There is nowhere to write it."""
    traffic = writer(None)
    for what in ("server", "tenant", "key"):
        add(traffic, what, NOON, 1)
    await traffic.step()
    assert (traffic.waiting, traffic.written, traffic.lost) == (0, 0, 0)


async def test_more_than_one_statement_takes(name: str, database: Doubtful, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goes in several steps, each in order."""
    monkeypatch.setattr(store, "MOST_ROWS", 10)
    monkeypatch.setattr(store, "MOST_WINDOWS", 3)
    monkeypatch.setattr(module, "_MOST_SENT", 8)
    traffic = writer(database)
    for minute in range(25):
        traffic.add_server(PLACE, NOON + minute, requests(1), 0)
        traffic.add_tenant(ACME, NOON + minute, requests(1))
    for _ in range(20):
        await traffic.step()
    assert traffic.waiting == 0
    assert await rows(name, SUMS) == [(25, 25)]
    assert await rows(name, USED) == [("day", 25), ("hour", 25), ("minute", 25), ("month", 25)]


async def test_all_numbers_are_metrics() -> None:
    """Each with its value."""
    traffic = writer(None)
    traffic.written, traffic.lost, traffic.refused = 1, 2, 3
    sums: Any = SimpleNamespace(tally=SimpleNamespace(overflowed=4), keys_crowded=5, recent=Recent())
    found = {family.name: dict(family.rows)[""] for family in families(sums, traffic)}
    assert found == {
        "mcp_proxy_traffic_rows_waiting": 0, "mcp_proxy_traffic_rows_written": 1, "mcp_proxy_traffic_rows_refused": 3,
        "mcp_proxy_traffic_requests_lost": 2, "mcp_proxy_traffic_requests_unsummed": 4,
        "mcp_proxy_traffic_requests_keyless": 5, "mcp_proxy_traffic_sums_crowded": 0,
    }  # fmt: skip
