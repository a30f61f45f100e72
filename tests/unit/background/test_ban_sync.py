"""Two replicas block together: over a real Redis, without one, and while it is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.background.ban_sync import STEP_S, BanSync
from proxy.dataplane.bans import Ban, Bans, policy_of
from proxy.dataplane.redis_link import RedisLink
from proxy.dataplane.shared_bans import MENTION_S, Question, SharedBan, SharedBans, Why
from proxy.errors import Blocked
from proxy.identity.directory import UnknownCredential
from tests.unit.dataplane.admitted import configuration
from tests.unit.dataplane.fakes import Time
from tests.unit.dataplane.valkey import client_of, empty_server, link_to, own_server

KEY = UnknownCredential("an unknown credential")
POLICY = policy_of(configuration(limits={"blocking": {"threshold": 100, "half_life": "1h"}}))
WHO, OTHER = "192.0.2.1", "192.0.2.2"


class Replica:
    """A table of bans, its step, and what it told the record."""

    def __init__(self, name: str, link: RedisLink | None, clock: Time) -> None:
        self.clock = clock
        self.told: list[Ban] = []
        self.shared = SharedBans(link, name) if link is not None else None
        self.bans = Bans(POLICY, sharing=link is not None)
        self.sync = BanSync(self.bans, self.shared, lambda ban, _: self.told.append(ban), name, clock)

    def try_keys(self, count: int, ip: str = WHO) -> None:
        """So many requests with a bad key."""
        for _ in range(count):
            if not self.blocks(ip):
                self.bans.note(KEY, ip, self.clock())

    def blocks(self, ip: str = WHO) -> bool:
        try:
            self.bans.check(ip, self.clock())
        except Blocked:
            return True
        return False

    async def step(self) -> None:
        await self.sync.step()


@pytest.fixture
async def replicas() -> AsyncIterator[tuple[Replica, Replica]]:
    """Two that share a Redis with nothing in it."""
    async with empty_server() as server, link_to(server) as first, link_to(server) as second:
        clock = Time()
        yield Replica("one", first, clock), Replica("two", second, clock)


@pytest.fixture
async def redis() -> AsyncIterator[Any]:
    """To look at what there is."""
    async with empty_server() as server, client_of(server) as client:
        yield client


async def test_half_of_the_violations_on_each_of_two_replicas_block_on_both(
    replicas: tuple[Replica, Replica],
) -> None:
    """Neither has seen enough; one step each way is all it takes, and one of them tells the record."""
    one, two = replicas
    one.try_keys(60)
    two.try_keys(60)
    assert not one.blocks() and not two.blocks()
    await one.step()
    await two.step()
    assert two.blocks() and not one.blocks()
    await one.step()
    assert one.blocks() and not one.blocks(OTHER)
    assert [ban.subject for ban in (*one.told, *two.told)] == [WHO]
    assert (two.told[0].kind, two.told[0].times) == ("bad_key", 1)
    assert two.told[0].score == pytest.approx(120.0, abs=0.1)


async def test_a_replica_that_has_seen_enough_blocks_at_once(replicas: tuple[Replica, Replica]) -> None:
    """The other with its next step; the record hears of it once."""
    one, two = replicas
    one.try_keys(1000)
    assert one.blocks()
    for replica in (one, two, one, two):
        await replica.step()
    assert two.blocks()
    assert (len(one.told), len(two.told)) == (1, 0)
    ban = two.bans.get(WHO)
    assert ban is not None and 59 < ban.until - two.clock() <= 60


async def test_a_ban_on_which_both_decided_within_a_step_is_told_once(replicas: tuple[Replica, Replica]) -> None:
    """The second to tell of it has one that ends a little later, and takes the first one over."""
    one, two = replicas
    one.try_keys(120)
    one.clock.now += STEP_S
    two.try_keys(120)
    assert one.blocks() and two.blocks()
    for _ in range(2):
        await one.step()
        await two.step()
    assert one.blocks() and two.blocks()
    assert [ban.subject for ban in (*one.told, *two.told)] == [WHO]


async def test_a_ban_ends_on_both_and_the_next_is_twice_as_long(replicas: tuple[Replica, Replica]) -> None:
    """Also on the replica that saw nothing of the first."""
    one, two = replicas
    one.try_keys(100)
    for replica in replicas:
        await replica.step()
    one.clock.now += 61
    assert not one.blocks() and not two.blocks()
    two.try_keys(100)
    ban = two.bans.get(WHO)
    assert ban is not None and (ban.times, ban.until - two.clock()) == (2, 120)


async def test_an_operator_s_ban_and_its_end_reach_everyone(replicas: tuple[Replica, Replica]) -> None:
    """A replica tells nothing of what it did not do."""
    one, _ = replicas
    assert one.shared is not None
    ban = SharedBan(OTHER, 3600.0, Why("operator", 0.0, 0, "", "because"), replace=True)
    await one.shared.ask(Question(bans=[ban]), POLICY)
    for replica in replicas:
        await replica.step()
        known = replica.bans.get(OTHER)
        assert replica.blocks(OTHER) and known is not None and known.note == "because"
    await one.shared.ask(Question(lifts=[OTHER]), POLICY)
    for replica in replicas:
        await replica.step()
        assert not replica.blocks(OTHER) and not replica.told


async def test_without_redis_a_replica_decides_for_itself() -> None:
    """And tells the record itself."""
    alone = Replica("alone", None, Time())
    alone.try_keys(150)
    assert alone.blocks()
    for _ in range(2):
        await alone.step()
    assert [ban.subject for ban in alone.told] == [WHO]


async def test_while_redis_is_away_each_decides_and_tells_the_others_when_it_is_back() -> None:
    """The record hears of it at once, and only once."""
    async with own_server() as server, link_to(server) as first, link_to(server) as second:
        clock = Time()
        one, two = Replica("one", first, clock), Replica("two", second, clock)
        await one.step()
        await server.stop()
        one.try_keys(150)
        await one.step()
        assert one.blocks() and [ban.subject for ban in one.told] == [WHO]
        await two.step()
        await server.start()
        for link in (first, second):
            while not link.available:
                await link.probe()
                await asyncio.sleep(0.05)
        for replica in (one, one, two, one):
            await replica.step()
        assert two.blocks()
        assert (len(one.told), len(two.told)) == (1, 0)


async def test_a_redis_that_lost_everything_gets_it_back(replicas: tuple[Replica, Replica], redis: Any) -> None:
    """Nobody is let in for it, and replicas that start later learn of the ban."""
    one, two = replicas
    one.try_keys(100)
    for replica in replicas:
        await replica.step()
    await redis.flushall()
    for replica in (one, two, one, two):
        await replica.step()
        assert one.blocks() and two.blocks()
    assert await redis.zcard("{mcpm}:bans") == 1
    assert (len(one.told), len(two.told)) == (1, 0)


async def test_who_heard_nothing_for_long_lets_go_what_is_gone(replicas: tuple[Replica, Replica], redis: Any) -> None:
    """The mention of a lifted ban does not last for ever; what is still there stays."""
    one, _ = replicas
    assert one.shared is not None
    await one.shared.ask(
        Question(bans=[SharedBan(ip, 5000.0, Why("operator", 0.0, 0, "", "")) for ip in (WHO, OTHER)]), POLICY
    )
    for replica in replicas:
        await replica.step()
    for key, forget in (("bans", redis.zrem), ("bans:changes", redis.zrem), ("bans:why", redis.hdel)):
        await forget(f"{{mcpm}}:{key}", WHO)
    await one.step()
    assert one.blocks(WHO)
    one.clock.now += MENTION_S + 1
    await one.step()
    assert not one.blocks(WHO) and one.blocks(OTHER)


async def test_many_bans_are_read_within_a_step_or_two(replicas: tuple[Replica, Replica]) -> None:
    """Page by page, a bounded number of pages a step."""
    one, two = replicas
    for number in range(450):
        one.try_keys(100, f"10.0.{number >> 8}.{number & 255}")
    await one.step()
    await two.step()
    assert len(two.bans) == 450
    assert len(one.told) == 450


@pytest.mark.alone
async def test_a_thousand_bad_keys_on_two_replicas_block_within_two_seconds(
    replicas: tuple[Replica, Replica],
) -> None:
    """On the real clock, with the step that is really taken, the keys spread over both."""
    began = time.monotonic()

    async def serve(replica: Replica) -> float:
        for number in range(40):
            replica.try_keys(13)
            if number % 5 == 4:
                await replica.step()
            if replica.blocks() and number % 5 == 4:
                break
            await asyncio.sleep(STEP_S / 5)
        assert replica.blocks() and not replica.blocks(OTHER)
        return time.monotonic() - began

    assert max(await asyncio.gather(*map(serve, replicas))) < 2
