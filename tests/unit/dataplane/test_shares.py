"""What tenants may take of what all share, over several workers and one real Redis."""

from __future__ import annotations

import pytest

from proxy.dataplane.shares import TenantShares
from proxy.limits.fairness import TenantShare, reserve_of
from proxy.limits.rules import Demand, Rule
from tests.unit.dataplane.clocks import Clock
from tests.unit.dataplane.valkey import client_of, empty_server, link_to

ALL = Rule("all", "all", "global", 100.0, 40.0)
DEMANDS = [Demand(Rule("key", "key", "key", 1.0, 1.0), "s", 1.0), Demand(ALL, "", 1.0)]
A, B, C = (TenantShare(name, weight) for name, weight in (("a", 1.0), ("b", 1.0), ("c", 2.0)))


def per_s(shares: TenantShares, share: TenantShare) -> float:
    """What a tenant may take per second; asking counts as a request."""
    fair = shares.fair(DEMANDS, share)
    assert fair is not None
    return fair.refill_per_s


def test_only_the_bucket_that_all_share_is_shared() -> None:
    """Not that of one tenant, and nothing when nobody says whose request it is."""
    shares = TenantShares(Clock(), "w")
    assert shares.fair(DEMANDS, None) is None
    assert shares.fair(DEMANDS[:1], A) is None
    assert shares.fair([Demand(Rule("own", "own", "global", 9.0, 9.0, tenant="a"), "", 1.0)], A) is None
    fair = shares.fair(DEMANDS, A)
    assert fair is not None
    assert (fair.shared, fair.capacity, fair.refill_per_s) == (1, 40.0, 40.0)
    assert fair.reserve == reserve_of(100.0, 40.0)


def test_a_request_dearer_than_a_share_of_a_second_fits_into_it() -> None:
    """Or it could only ever pass over its share."""
    fair = TenantShares(Clock(), "w").fair([Demand(ALL, "", 70.0)], A)
    assert fair is not None
    assert fair.capacity == 70.0


async def test_without_redis_a_worker_shares_by_what_it_sees() -> None:
    """Weights 1 : 2, and what is not wanted goes to the other."""
    clock = Clock()
    shares = TenantShares(clock, "w")
    for _ in range(100):
        per_s(shares, A)
        per_s(shares, C)
    clock.now += 1
    await shares.settle(None)
    assert per_s(shares, A) == pytest.approx(40 / 3)
    assert per_s(shares, C) == pytest.approx(80 / 3)
    assert shares.workers == 1


async def test_workers_hear_of_each_others_tenants() -> None:
    """And of each other: the exchange is the heartbeat. Who leaves is not counted any more."""
    clock = Clock()
    async with empty_server() as engine, link_to(engine) as link:
        one, two = (TenantShares(clock, name) for name in ("one", "two"))
        for _ in range(100):
            per_s(one, A)
            per_s(two, B)
            per_s(two, C)
        clock.now += 1
        for shares in (one, two, one):
            await shares.settle(link)
        assert one.workers == two.workers == 2
        assert [per_s(two, share) for share in (A, B, C)] == pytest.approx([10, 10, 20])
        await two.leave(link)
        await one.settle(link)
        assert one.workers == 1


async def test_a_worker_that_is_not_heard_of_is_not_alive() -> None:
    """By the clock of Redis, and its traces go."""
    async with empty_server() as engine, link_to(engine) as link, client_of(engine) as client:
        one, two = (TenantShares(Clock(), name) for name in ("one", "two"))
        await one.settle(link)
        old = await client.hget("{mcpm}:d", "one")
        await two.settle(link)
        assert two.workers == 2
        await client.hset("{mcpm}:d", "one", bytes(8) + old[8:])
        await two.settle(link)
        assert two.workers == 1
        assert await client.hkeys("{mcpm}:d") == [b"two"]
        assert 0 < await client.pttl("{mcpm}:d") <= 6000


async def test_when_redis_is_gone_the_last_number_of_workers_holds() -> None:
    """And shares are by what this worker sees."""
    clock = Clock()
    async with empty_server() as engine, link_to(engine) as link:
        one, two = (TenantShares(clock, name) for name in ("one", "two"))
        for shares in (two, one):
            await shares.settle(link)
        link.available = False
        for _ in range(100):
            per_s(one, A)
        clock.now += 1
        await one.settle(link)
        assert one.workers == 2
        assert per_s(one, A) == 40


async def test_many_tenants_are_told_as_one() -> None:
    """What goes over the wire four times a second is bounded; the weights are all there."""
    clock = Clock()
    async with empty_server() as engine, link_to(engine) as link, client_of(engine) as client:
        one = TenantShares(clock, "one")
        for number in range(2000):
            per_s(one, TenantShare(f"tenant-{number}"))
        for _ in range(50):
            per_s(one, A)
        clock.now += 1
        await one.settle(link)
        assert len(await client.hget("{mcpm}:d", "one")) < 25_000
        assert per_s(one, A) == pytest.approx(40 / 2001)
        assert per_s(one, TenantShare("tenant-1999")) == pytest.approx(40 / 2002, rel=0.01)


async def test_a_settlement_makes_known_shares_new() -> None:
    """What is remembered between two of them is not older."""
    clock = Clock()
    shares = TenantShares(clock, "w")
    assert per_s(shares, A) == per_s(shares, A) == 40
    for _ in range(100):
        per_s(shares, A)
        per_s(shares, B)
    clock.now += 1
    await shares.settle(None)
    assert per_s(shares, A) == 20
