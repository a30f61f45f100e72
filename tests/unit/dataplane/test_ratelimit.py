"""The limiter with a real Redis: who passes, what goes over the wire, and what it does when Redis is not as it was."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy.dataplane.limit_script import bucket_key
from proxy.dataplane.ratelimit import Limiter, TenantShare
from proxy.dataplane.redis_link import RedisLink
from proxy.limits.rules import Demand, Rule
from proxy.limits.verdict import UNLIMITED
from proxy.store.embedded import EmbeddedRedis
from tests.unit.dataplane.clocks import Clock
from tests.unit.dataplane.valkey import PATIENCE_S, client_of, empty_server, own_server

TEN = Rule("ten", "ten", "key", 10.0, 0.001)
ONE_OF_TEN = [Demand(TEN, "s", 1.0)]


@asynccontextmanager
async def limiter(engine: EmbeddedRedis, name: str = "one", clock: Clock | None = None) -> AsyncIterator[Limiter]:
    """An open limiter; its link has the test's clock, if there is one."""
    clock_s = clock or time.monotonic
    limits = Limiter(RedisLink(engine.url, clock_s, random.random, PATIENCE_S), clock_s, name)
    await limits.open()
    try:
        yield limits
    finally:
        await limits.close()


async def admitted(limits: Limiter, demands: list[Demand], asked: int = 20) -> int:
    """How many of so many requests at once pass."""
    verdicts = await asyncio.gather(*(limits.take(demands, None) for _ in range(asked)))
    return sum(verdict.allowed for verdict in verdicts)


async def test_without_redis_this_process_counts_exactly() -> None:
    """And whoever is not limited passes."""
    clock = Clock()
    limits = Limiter(None, clock, "one")
    await limits.open()
    assert await limits.take([], None) is UNLIMITED
    assert await admitted(limits, ONE_OF_TEN) == 10
    verdict = await limits.take(ONE_OF_TEN, None)
    assert (verdict.rule, verdict.source, verdict.retry_after_s) == (TEN, "local", 1000.0)
    clock.now += 1000
    assert await admitted(limits, ONE_OF_TEN) == 1
    await limits.probe()
    await limits.share()
    assert (limits.by_redis, limits.by_itself, limits.refused, limits.workers) == (0, 41, 30, 1)
    await limits.close()


async def test_two_workers_count_together() -> None:
    """Neither knows of the other's requests, and exactly ten pass."""
    async with empty_server() as engine, limiter(engine, "one") as one, limiter(engine, "two") as two:
        passed = await asyncio.gather(admitted(one, ONE_OF_TEN, 100), admitted(two, ONE_OF_TEN, 100))
        assert sum(passed) == 10
        assert one.by_redis == two.by_redis == 100
        verdict = await one.take(ONE_OF_TEN, None)
        assert (verdict.rule, verdict.source) == (TEN, "redis")
        assert 990 < verdict.retry_after_s <= 1000
        await one.share()
        assert one.workers == 2


async def test_requests_of_one_tick_share_a_round_trip() -> None:
    """However many; the next tick makes the next."""
    async with empty_server() as engine, limiter(engine) as limits:
        assert limits.calls is not None
        assert await admitted(limits, ONE_OF_TEN, 50) == 10
        assert limits.calls.round_trips == 1
        await limits.take(ONE_OF_TEN, None)
        assert limits.calls.round_trips == 2
        assert limits.calls.in_flight == 0


async def test_who_stops_waiting_disturbs_nobody() -> None:
    """Its client is gone; the others of the tick get their verdicts."""
    async with empty_server() as engine, limiter(engine) as limits:
        tasks = [asyncio.ensure_future(limits.take(ONE_OF_TEN, None)) for _ in range(5)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        verdicts = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(verdicts[0], asyncio.CancelledError)
        assert [verdict.source for verdict in verdicts[1:]] == ["redis"] * 4  # type: ignore[union-attr]
        assert limits.calls is not None
        assert limits.calls.in_flight == 0


async def test_a_tenant_over_its_share_leaves_room_for_a_newcomer() -> None:
    """A flood of one tenant takes what there is, but for the reserve; another one's first request passes."""
    shared = [Demand(Rule("all", "all", "global", 100.0, 20.0), "", 1.0)]
    async with empty_server() as engine, limiter(engine) as limits:
        flood, quiet = TenantShare("flood"), TenantShare("quiet")
        verdicts = await asyncio.gather(*(limits.take(shared, flood) for _ in range(500)))
        assert 88 <= sum(verdict.allowed for verdict in verdicts) <= 100
        await limits.share()
        for _ in range(20):
            await limits.take(shared, flood)
        assert [(await limits.take(shared, quiet)).allowed for _ in range(5)] == [True] * 5
        again = await asyncio.gather(*(limits.take(shared, flood) for _ in range(100)))
        assert not all(verdict.allowed for verdict in again)


async def test_a_script_that_redis_forgot_is_given_to_it_again() -> None:
    """Nobody notices: all verdicts are by Redis, and no failure is counted."""
    async with empty_server() as engine, limiter(engine) as limits, client_of(engine) as client:
        assert await admitted(limits, ONE_OF_TEN, 5) == 5
        await client.script_flush()
        assert await admitted(limits, ONE_OF_TEN, 20) == 5
        assert limits.by_itself == 0
        assert limits.calls is not None
        assert limits.calls.reloads >= 1


async def test_a_redis_that_was_emptied_counts_from_full_buckets() -> None:
    """One burst more, and still by Redis."""
    async with empty_server() as engine, limiter(engine) as limits, client_of(engine) as client:
        assert await admitted(limits, ONE_OF_TEN) == 10
        await client.flushall()
        assert await admitted(limits, ONE_OF_TEN) == 10
        assert limits.by_itself == 0


async def test_an_error_for_one_request_is_decided_here() -> None:
    """A bucket that is something else: this request is counted locally, the others of its tick are not."""
    other = [Demand(TEN, "other", 1.0)]
    async with empty_server() as engine, limiter(engine) as limits, client_of(engine) as client:
        await client.set(bucket_key("ten", "other"), b"odd")
        verdicts = await asyncio.gather(limits.take(ONE_OF_TEN, None), limits.take(other, None))
        assert [verdict.source for verdict in verdicts] == ["redis", "local"]


async def test_a_redis_that_is_not_there_at_the_start_comes_later() -> None:
    """Until then this process counts; what it counted is told to Redis, which does not start from full buckets."""
    clock = Clock()
    async with own_server() as engine:
        await engine.stop()
        async with limiter(engine, clock=clock) as limits:
            assert not limits.remote
            assert await admitted(limits, ONE_OF_TEN, 7) == 7
            await engine.start()
            clock.now += 2
            await limits.probe()
            assert limits.remote
            assert await admitted(limits, ONE_OF_TEN) == 3
            assert (limits.by_itself, limits.by_redis) == (7, 20)


async def test_a_bucket_that_redis_still_has_is_not_replaced() -> None:
    """What a worker saw while Redis was gone for it is only for buckets that are lost."""
    clock = Clock()
    async with empty_server() as engine, client_of(engine) as client, limiter(engine, clock=clock) as limits:
        assert await admitted(limits, ONE_OF_TEN, 9) == 9
        assert limits.calls is not None
        await client.client_kill_filter(_type="normal", skipme=True)
        assert await admitted(limits, ONE_OF_TEN, 20) == 1
        assert limits.by_itself > 0
        await limits.probe()
        assert limits.remote
        assert await admitted(limits, ONE_OF_TEN) == 1


async def test_each_rule_does_what_it_says_while_redis_is_gone() -> None:
    """`deny` refuses, `allow` lets pass, `local` counts."""
    denying = Rule("deny", "deny", "key", 10.0, 1.0, on_store_error="deny")
    allowing = Rule("allow", "allow", "key", 1.0, 0.0, on_store_error="allow")
    async with own_server() as engine, limiter(engine) as limits:
        await engine.stop()
        assert await admitted(limits, [Demand(denying, "s", 1.0)]) == 0
        assert await admitted(limits, [Demand(allowing, "s", 1.0)]) == 20
        assert await admitted(limits, ONE_OF_TEN) == 10


@pytest.mark.parametrize("count", [64, 100])
async def test_more_rules_than_anyone_has_are_no_trouble(count: int) -> None:
    """All in one call."""
    demands = [Demand(Rule(f"r{n}", "r", "key", 10.0, 0.001), "s", 1.0) for n in range(count)]
    async with empty_server() as engine, limiter(engine) as limits:
        assert await admitted(limits, demands) == 10
        assert limits.by_itself == 0
