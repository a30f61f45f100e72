"""A server that is asked for twice what it can do, in virtual time: what gets through, whose it is, and how
long the highest class waits."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from proxy.config.resilience import Queue
from proxy.dataplane.queueing import RequestQueue
from proxy.errors import QueueFull, QueueTimeout
from proxy.limits.fairness import TenantWant, weighted_shares
from tests.unit.dataplane.virtual_time import VirtualLoop, run_virtually

SLOTS, SERVICE_S, MAX_WAIT_S = 8, 0.05, 1.0
CAPACITY_PER_S = SLOTS / SERVICE_S
SECONDS, WARM_S = 40.0, 5.0
HIGH, NORMAL, LOW = range(3)


@dataclass(frozen=True)
class Crowd:
    """Requests of one tenant and class: so many times what the server can do."""

    tenant: str
    priority: int
    load: float
    weight: float = 1.0


@dataclass
class Seen:
    """What became of those who came after the start; seconds."""

    served: Counter[Crowd] = field(default_factory=Counter)
    took_s: dict[Crowd, list[float]] = field(default_factory=dict)
    refused_after_s: list[float] = field(default_factory=list)
    expired: int = 0
    told_s: list[int] = field(default_factory=list)

    @property
    def per_s(self) -> float:
        """Everything that got through."""
        return self.served.total() / SECONDS

    def p99_s(self, crowd: Crowd) -> float:
        """From coming to being served."""
        ordered = sorted(self.took_s[crowd])
        return ordered[int(len(ordered) * 0.99)]


async def simulate(loop: VirtualLoop, crowds: list[Crowd], seed: int = 1) -> Seen:
    """Requests come by chance and take by chance. What is served later than anyone waits for it would count as well,
    but nobody waits for longer than `MAX_WAIT_S`."""
    draw, seen = random.Random(seed), Seen()
    config = Queue.model_construct(max_concurrent=SLOTS, max_pending=1000, max_wait=MAX_WAIT_S)
    queue = RequestQueue(config, loop.time)

    async def ask(crowd: Crowd) -> None:
        came = loop.time()
        counts = came > WARM_S
        try:
            await queue.enter(crowd.tenant, crowd.weight, crowd.priority, float("inf"))
        except QueueFull as refusal:
            if counts:
                seen.refused_after_s.append(loop.time() - came)
                seen.expired += isinstance(refusal, QueueTimeout)
                seen.told_s.append(int(refusal.headers[0][1]))
            return
        try:
            await asyncio.sleep(draw.expovariate(1 / SERVICE_S))
        finally:
            queue.leave()
        if counts:
            seen.served[crowd] += 1
            seen.took_s.setdefault(crowd, []).append(loop.time() - came)

    async def keep_asking(crowd: Crowd, group: asyncio.TaskGroup) -> None:
        while loop.time() < WARM_S + SECONDS:
            await asyncio.sleep(draw.expovariate(crowd.load * CAPACITY_PER_S))
            group.create_task(ask(crowd))

    async with asyncio.TaskGroup() as group:
        for crowd in crowds:
            group.create_task(keep_asking(crowd, group))
    assert (queue.running, queue.pending) == (0, 0)
    return seen


def see(*crowds: Crowd) -> Seen:
    """What happens to them together."""
    loop = VirtualLoop()
    return run_virtually(simulate(loop, list(crowds)), loop)


@pytest.fixture(scope="module")
def peak_per_s() -> float:
    """The most that this server does: with just as much as it can take, and a queue that is never empty for long."""
    return max(see(Crowd("a", NORMAL, load)).per_s for load in (0.95, 1.1))


def test_twice_the_load_costs_no_throughput_and_the_high_class_does_not_notice(peak_per_s: float) -> None:
    """Three tenants share by weight what the highest class leaves; a sixteenth is for the lowest."""
    high, low = Crowd("x", HIGH, 0.3), Crowd("y", LOW, 0.3)
    tenants = [Crowd("a", NORMAL, 0.9), Crowd("b", NORMAL, 0.25), Crowd("c", NORMAL, 0.25, 2.0)]
    seen, unloaded = see(high, low, *tenants), see(high)

    assert seen.per_s >= 0.9 * peak_per_s
    assert seen.p99_s(high) <= 2 * unloaded.p99_s(high)
    assert seen.served[high] >= 0.99 * 0.3 * CAPACITY_PER_S * SECONDS
    assert seen.served[low] >= 0.9 / 16 * peak_per_s * SECONDS

    wants = {crowd.tenant: TenantWant(crowd.load * CAPACITY_PER_S, crowd.weight) for crowd in tenants}
    fair = weighted_shares(sum(seen.served[crowd] for crowd in tenants) / SECONDS, wants)
    for crowd in tenants:
        assert seen.served[crowd] / SECONDS >= 0.95 * fair[crowd.tenant], crowd


def test_most_who_are_refused_learn_it_at_once(peak_per_s: float) -> None:
    """They would have waited for nothing."""
    seen = see(Crowd("a", NORMAL, 1.0), Crowd("b", NORMAL, 1.0))
    assert seen.per_s >= 0.9 * peak_per_s
    refused = len(seen.refused_after_s)
    assert refused >= 0.9 * CAPACITY_PER_S * SECONDS
    assert sum(after_s == 0 for after_s in seen.refused_after_s) >= 0.9 * refused
    assert seen.expired <= 0.1 * refused
    assert set(seen.told_s) <= {1, 2}


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 2.0, 5.0), (0.1, 1.0, 1.0)])
def test_tenants_that_ask_too_much_get_their_shares(weights: tuple[float, ...]) -> None:
    """One of which floods."""
    crowds = [Crowd(str(number), NORMAL, 3.0 if not number else 1.0, weight) for number, weight in enumerate(weights)]
    seen = see(*crowds)
    for crowd in crowds:
        share = seen.served[crowd] / seen.served.total() * sum(weights) / crowd.weight
        assert 0.95 <= share <= 1.06, crowd


def test_whoever_asks_for_less_than_its_share_is_refused_nothing() -> None:
    """However much another floods."""
    quiet, flood = Crowd("quiet", NORMAL, 0.3), Crowd("flood", NORMAL, 2.0)
    seen = see(quiet, flood)
    assert seen.served[quiet] >= 0.97 * quiet.load * CAPACITY_PER_S * SECONDS
    assert seen.p99_s(quiet) <= MAX_WAIT_S
