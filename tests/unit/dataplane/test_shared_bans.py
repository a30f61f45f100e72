"""Bans and scores that replicas share, in a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.dataplane import shared_bans as module
from proxy.dataplane.shared_bans import Answer, Change, Offence, Question, SharedBan, SharedBans, Why
from proxy.limits.scores import Policy, Scores
from tests.unit.dataplane.valkey import client_of, empty_server, link_to

POLICY = Policy(threshold=100.0, half_life_s=3600.0, first_block_s=60.0, longest_block_s=3600.0)
WHO, OTHER, NETWORK = "192.0.2.1", "192.0.2.2", "2001:db8:1:2::/64"
BY_HAND = Why("operator", 0.0, 0, "cli", "because")


class Replica:
    """One that asks, and remembers how far it has read."""

    def __init__(self, shared: SharedBans) -> None:
        self._shared = shared
        self.since = 0
        self.policy = POLICY

    async def ask(self, *offences: Offence, **question: Any) -> Answer:
        answer = await self._shared.ask(Question(self.since, offences=offences, **question), self.policy, 5.0)
        self.since = answer.last
        return answer

    async def news(self, *offences: Offence, **question: Any) -> Sequence[Change]:
        return (await self.ask(*offences, **question)).changes


@pytest.fixture
async def replicas() -> AsyncIterator[tuple[Replica, Replica]]:
    """Two, and nothing in Redis."""
    async with empty_server() as server, link_to(server) as first, link_to(server) as second:
        yield Replica(SharedBans(first, "one")), Replica(SharedBans(second, "two"))


@pytest.fixture
async def redis() -> AsyncIterator[Any]:
    """To look at what there is."""
    async with empty_server() as server, client_of(server) as client:
        yield client


def bad(weight: float, subject: str = WHO) -> Offence:
    return Offence(subject, weight, "bad_key")


async def test_violations_of_all_replicas_add_up(replicas: tuple[Replica, Replica]) -> None:
    """The one that brings the last learns of the ban in the same answer, the other with its next question."""
    one, two = replicas
    assert not await one.news(bad(60.0))
    (change,) = await two.news(bad(39.0), bad(60.0, OTHER), bad(2.0))
    assert (change.subject, change.why) == (WHO, Why("bad_key", pytest.approx(101.0, abs=0.1), 1, "two", ""))
    assert 59 < change.seconds <= 60
    assert [each.subject for each in await one.news()] == [WHO]
    assert not await one.news() and not await two.news()


async def test_what_happens_during_a_ban_counts_for_nothing_and_blocks_double(
    replicas: tuple[Replica, Replica], redis: Any
) -> None:
    """The first of 60 s, the next of 120 s, and so on to the longest."""
    one, two = replicas
    lengths = []
    for _ in range(8):
        (change,) = await one.news(bad(150.0), bad(150.0))
        assert [each.subject for each in await two.news(bad(500.0))] == [WHO]
        lengths.append(round(change.seconds))
        await redis.zadd("{mcpm}:bans", {WHO: 1})  # it has ended
        free = int(await redis.hget(f"{{mcpm}}:score:{WHO}", "free"))
        await redis.hset(f"{{mcpm}}:score:{WHO}", "free", free - 1000 * lengths[-1])
    assert lengths == [60, 120, 240, 480, 960, 1920, 3600, 3600]


async def test_scores_and_repetitions_decay(replicas: tuple[Replica, Replica], redis: Any) -> None:
    """By the clock of Redis; a clock that goes back takes nothing away."""
    one, _ = replicas
    key = f"{{mcpm}}:score:{WHO}"
    await one.ask(bad(80.0))
    at = int(await redis.hget(key, "at"))
    await redis.hset(key, "at", at - 3_600_000)
    await one.ask(bad(1.0))
    assert float(await redis.hget(key, "score")) == pytest.approx(41.0, abs=0.1)
    await redis.hset(key, "at", at + 3_600_000)
    await one.ask(bad(1.0))
    assert float(await redis.hget(key, "score")) == pytest.approx(42.0, abs=0.1)
    await redis.hset(key, mapping={"times": 4, "free": at - 2 * 3_600_000})
    (change,) = await one.news(bad(100.0))
    assert change.why is not None and (change.why.times, round(change.seconds)) == (2, 120)


async def test_a_ban_is_taken_over_unless_there_is_a_longer_one(replicas: tuple[Replica, Replica]) -> None:
    """A replica offers what it decided alone; an operator's word replaces what there is."""
    one, two = replicas
    why = Why("flood", 7.0, 2, "", "")
    (change,) = await one.news(bans=[SharedBan(NETWORK, 100.0, why)])
    assert (change.subject, round(change.seconds), change.why) == (NETWORK, 100, why)
    assert not await one.news(bans=[SharedBan(NETWORK, 50.0, why)])
    (change,) = await one.news(bans=[SharedBan(NETWORK, 50.0, BY_HAND, replace=True)])
    assert (round(change.seconds), change.why) == (50, BY_HAND)
    assert [each.why for each in await two.news()] == [BY_HAND]


async def test_repetitions_of_a_ban_that_is_taken_over_count(replicas: tuple[Replica, Replica], redis: Any) -> None:
    """Redis may have lost its own count."""
    one, _ = replicas
    await one.ask(bans=[SharedBan(WHO, 100.0, Why("flood", 7.0, 2, "", ""))])
    await redis.zadd("{mcpm}:bans", {WHO: 1})
    (change,) = await one.news(bad(100.0))
    assert change.why is not None and (change.why.times, round(change.seconds)) == (3, 240)


async def test_a_ban_is_lifted_for_everyone_with_its_past(replicas: tuple[Replica, Replica], redis: Any) -> None:
    """Who was not blocked is not mentioned."""
    one, two = replicas
    await one.ask(bad(100.0))
    await two.ask()
    (change,) = await one.news(lifts=[WHO, OTHER])
    assert (change.subject, change.why) == (WHO, None)
    assert [each.why for each in await two.news()] == [None]
    assert await redis.exists(f"{{mcpm}}:score:{WHO}") == 0
    (change,) = await two.news(bad(100.0))
    assert change.why is not None and change.why.times == 1


async def test_much_is_read_in_pages(replicas: tuple[Replica, Replica]) -> None:
    """Each change once, and the last page says that it is."""
    one, two = replicas
    subjects = [f"10.0.{number >> 8}.{number & 255}" for number in range(module.PAGE + 50)]
    for start in range(0, len(subjects), module.PAGE):
        await one.ask(bans=[SharedBan(each, 60.0, BY_HAND) for each in subjects[start : start + module.PAGE]])
    first, second = await two.ask(), await two.ask()
    assert (first.complete, second.complete) == (False, True)
    assert [each.subject for each in (*first.changes, *second.changes)] == subjects


async def test_nothing_grows(replicas: tuple[Replica, Replica], redis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ended is removed, of too many bans the first to end go, and every key expires."""
    one, two = replicas
    monkeypatch.setattr(module, "MOST", 3)
    await one.ask(bad(1.0, "192.0.2.9"), bans=[SharedBan("192.0.2.8", 0.01, BY_HAND)])
    await asyncio.sleep(0.02)
    await one.ask(bans=[SharedBan(f"192.0.2.{n}", 60.0 + n, BY_HAND) for n in range(5)])
    for key, command in (("bans", "zcard"), ("bans:changes", "zcard"), ("bans:why", "hlen")):
        assert await getattr(redis, command)(f"{{mcpm}}:{key}") == 3
    assert {each.subject for each in await two.news()} == {"192.0.2.2", "192.0.2.3", "192.0.2.4"}
    keys = await redis.keys("{mcpm}:[bs]*")
    assert len(keys) == 5
    assert all([0 < await redis.pttl(key) <= 86_400_000 for key in keys])


async def test_a_long_ban_keeps_its_keys(replicas: tuple[Replica, Replica], redis: Any) -> None:
    """Nobody may ask for a month, and it still holds."""
    one, _ = replicas
    await one.ask(bans=[SharedBan(WHO, 30 * 86_400.0, BY_HAND)])
    assert await redis.pttl("{mcpm}:bans:why") > 30 * 86_400_000


async def test_a_memory_that_was_lost_has_another_epoch(replicas: tuple[Replica, Replica], redis: Any) -> None:
    """Numbers of changes begin anew with it."""
    one, _ = replicas
    before = await one.ask(bad(100.0))
    assert (await one.ask()).epoch == before.epoch
    await redis.flushall()
    assert (await one.ask()).epoch != before.epoch


async def test_an_address_of_ipv6_costs_little_memory(replicas: tuple[Replica, Replica], redis: Any) -> None:
    """Its score is a small hash."""
    one, _ = replicas
    await one.ask(bad(1.2345678901234567, NETWORK))
    assert await redis.memory_usage(f"{{mcpm}}:score:{NETWORK}") <= 250


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from((WHO, OTHER)), st.integers(1, 1200)), max_size=40))
async def test_redis_decides_what_one_process_would(
    replicas: tuple[Replica, Replica], redis: Any, steps: list[tuple[str, int]]
) -> None:
    """The same violations at nearly the same time lead to the same bans."""
    await redis.flushall()
    policy = replace(POLICY, threshold=1000.5, half_life_s=1e6)
    scores = Scores(policy)
    expected = [
        (subject, verdict.times, verdict.seconds)
        for subject, weight in steps
        if (verdict := scores.add(subject, weight, 1.0)) is not None
    ]
    one, _ = replicas
    one.since, one.policy = 0, policy
    changes = await one.news(*(bad(float(weight), subject) for subject, weight in steps))
    assert [(each.subject, each.why and each.why.times, round(each.seconds)) for each in changes] == expected
