"""Pools follow their use, and what their bounds should be is published and told once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.background.pool_sizing import PoolSizing, PoolState
from proxy.dataplane.pool_size import Recommendation
from proxy.dataplane.slots import Slots
from proxy.identity.access import Server as Place
from proxy.log import Logger
from proxy.metrics import Family
from proxy.protection_metrics import pool_families
from proxy.store.database import Bounds, Database, Places
from tests.unit.background.test_housekeeping import Lines
from tests.unit.dataplane.fakes import Proxy
from tests.unit.store.engine import login_dsn

HOUR = 3600.0
URL = "http://up.test/mcp"


class Desk:
    """Servers whose pools are sized, on the test's time."""

    def __init__(self, **pools: dict[str, Any]) -> None:
        servers = {name: {"url": URL, "pool": pool} for name, pool in pools.items()}
        self.proxy = Proxy({"servers": servers})
        self.lines = Lines()
        self.sizing = PoolSizing(self.proxy.live, cast(Logger, self.lines), self.proxy.time)

    def slots(self, name: str = "up") -> Slots:
        """Of a server's pool."""
        return self.proxy.live.snapshot.upstreams[name].client.slots

    async def step(self, seconds: float = 1.0, times: int = 1) -> None:
        """Steps, each some time after the one before."""
        for _ in range(times):
            self.proxy.time.now += seconds
            await self.sizing.step()

    def shown(self) -> dict[str, float]:
        """Sample with its labels -> value, as a scraper reads them."""
        self.proxy.metrics.more = lambda: pool_families(self.sizing)
        return {
            f"{sample.name} {' '.join(sample.labels.values())}": sample.value
            for family in text_string_to_metric_families(self.proxy.metrics.exposition("")[1].decode())
            for sample in family.samples
            if "pool" in sample.name
        }


class Sizes:
    """What a `PoolSizing` says of one server and one pool of PostgreSQL."""

    def states(self) -> Iterator[PoolState]:
        """One of each."""
        advice = Recommendation("keep", 10, "")
        for place in (Place("up"), None):
            yield PoolState("postgres write", place, "up", 10, 10, 0, 0, 0, 0, 0.0, 0.0, advice, {"connect": 0})


def size_families() -> Iterator[Family]:
    """Every metric of pools, each with a line."""
    return pool_families(cast(PoolSizing, Sizes()))


def taken(slots: Slots, number: int) -> None:
    """So many places are in use from now on."""
    assert all([slots.take() for _ in range(number)])


async def test_a_pool_with_a_lower_bound_follows_its_use() -> None:
    """It is there when it is needed, and goes a minute later; one without stays as it is. Metrics follow."""
    desk = Desk(up={"min_connections": 4, "max_connections": 100}, fixed={"max_connections": 50})
    await desk.step()
    taken(desk.slots(), 40)
    await desk.step()
    assert (desk.slots().limit, desk.slots("fixed").limit) == (60, 50)
    assert desk.proxy.live.snapshot.upstreams["up"].metrics.pool_limit == 60
    for _ in range(40):
        desk.slots().release()
    await desk.step(times=59)
    assert desk.slots().limit == 60
    await desk.step(times=3)
    assert desk.slots().limit == 49
    await desk.step(times=60)
    assert (desk.slots().limit, desk.slots("fixed").limit) == (4, 50)
    assert desk.proxy.live.snapshot.upstreams["up"].metrics.pool_limit == 4


async def test_advice_is_told_when_it_becomes_another_and_not_too_often() -> None:
    """Waiting at the bound, and an hour later nothing of it; then half of it was never used."""
    desk = Desk(up={"max_connections": 20})
    await desk.step()
    assert desk.lines.said == []
    taken(desk.slots(), 20)
    desk.slots().waits += 3
    await desk.step(times=5)
    fields = {"pool": "server up", "key": "pool.max_connections", "advice": "raise", "suggested": 30}
    reason = "3 waited in the last hour because all 20 connections were in use"
    assert desk.lines.said == [("connection pool", {**fields, "reason": reason})]
    assert desk.sizing.recommended("up") == 30
    for _ in range(19):
        desk.slots().release()
    await desk.step(60.0, times=64)
    assert next(desk.sizing.states()).recommendation.advice == "lower"
    assert [said["advice"] for _, said in desk.lines.said] == ["raise", "keep"], "the last line is too young"
    await desk.step(60.0, times=10)
    assert [said["advice"] for _, said in desk.lines.said] == ["raise", "keep", "lower"]
    assert desk.sizing.recommended("up") == 10
    assert desk.sizing.recommended("missing") is None


async def test_states_and_metrics_show_every_pool() -> None:
    """Kinds of errors apart."""
    desk = Desk(up={"max_connections": 20})
    taken(desk.slots(), 5)
    desk.proxy.live.snapshot.upstreams["up"].client.connect_errors["tls"] += 2
    assert list(desk.sizing.states()) == []
    await desk.step(times=200)
    (state,) = desk.sizing.states()
    assert (state.name, state.bound, state.limit, state.in_use, state.idle, state.waiting) == ("up", 20, 20, 5, 0, 0)
    assert state.place is not None
    assert state.utilization == pytest.approx(0.25, abs=0.02)
    shown = desk.shown()
    assert shown["mcp_proxy_pool_connections_bound up"] == 20
    assert shown["mcp_proxy_pool_connections_recommended up"] == 20
    assert shown["mcp_proxy_pool_waiting up"] == shown["mcp_proxy_pool_connections_idle up"] == 0
    assert shown["mcp_proxy_pool_wait_seconds_total up"] == 0
    assert shown["mcp_proxy_pool_connect_errors_total up tls"] == 2
    assert shown["mcp_proxy_pool_connect_errors_total up connect"] == 0


async def test_a_server_that_is_configured_anew_is_another_pool_and_one_that_is_gone_is_none() -> None:
    """Nothing is carried over from the old size."""
    desk = Desk(up={"max_connections": 20}, other={"max_connections": 3})
    taken(desk.slots(), 1)
    taken(desk.slots("other"), 1)
    desk.slots().waits += 1
    await desk.step()
    assert [state.recommendation.advice for state in desk.sizing.states()] == ["raise", "keep"]
    desk.proxy.configure(servers={"up": {"url": URL, "pool": {"max_connections": 40, "min_connections": 2}}})
    assert list(desk.sizing.states()) == []
    await desk.step()
    assert [(state.bound, state.limit, state.recommendation.advice) for state in desk.sizing.states()] == [
        (40, 2, "keep")
    ]
    assert desk.sizing.recommended("other") is None


async def test_pools_of_postgresql_are_looked_at_too(name: str) -> None:
    """Who had to wait for a connection asks for more; what is in use counts, also what was between two looks."""
    desk = Desk(up={"max_connections": 20})
    time = desk.proxy.time
    one, five = (Bounds(connections, acquire_s=30.0, connect_s=30.0, statement_s=30.0) for connections in (1, 5))
    database = Database(Places(login_dsn(name)), {"write": one, "read": five}, time)
    await database.open()
    sizing = PoolSizing(desk.proxy.live, cast(Logger, desk.lines), time, database)
    assert list(sizing.states()) == []
    async with database.across_tenants("read"), database.across_tenants("read"):
        pass
    async with database.across_tenants("write"):
        waiting = asyncio.ensure_future(database.across_tenants("write").__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait((waiting,))
        await sizing.step()
        write, read, analytics = sizing.states()
        assert (write.name, write.bound, write.in_use, write.waits) == ("postgres write", 1, 1, 1)
        assert write.recommendation[:2] == ("raise", 3)
        assert (read.in_use, read.recommendation.advice) == (0, "keep")
        assert (write.waiting, write.waited_s > 0, read.waits, analytics.bound) == (0, True, 0, 10)
        assert [fields["pool"] for _, fields in desk.lines.said] == ["postgres write"]
        desk.sizing = sizing
        assert {family.name: dict(family.rows) for family in pool_families(sizing)}[
            "mcp_proxy_postgres_connections_recommended"
        ] == {'{pool="write"}': 3, '{pool="read"}': 5, '{pool="analytics"}': 10}
    for _ in range(60):
        time.now += 60.0
        await sizing.step()
    _, read, analytics = sizing.states()
    assert read.recommendation.reason == "up to 2 of 5 connections were in use in the last hour"
    assert analytics.recommendation.reason == "not used in the last hour"
    await database.close()


async def test_many_servers_are_looked_at_in_pieces() -> None:
    """Between two of them others run; what was never used is not watched."""
    desk = Desk(**{f"s{number}": {"max_connections": 3} for number in range(450)})
    taken(desk.slots("s449"), 2)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    await desk.sizing.step()
    counting.cancel()
    assert turns >= 2
    assert [state.name for state in desk.sizing.states()] == ["s449"]
