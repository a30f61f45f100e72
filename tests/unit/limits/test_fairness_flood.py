"""Shares and buckets together, over a minute of simulated time and several workers: who gets what under a flood."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from proxy.limits.bucket import Ask, Buckets, Fair
from proxy.limits.fairness import Demands, Shares, TenantShare, TenantWant, merge, reserve_of

PER_S = 100.0
CAPACITY = 100.0
STEP_S = 0.25
WEIGHTS = {"a": 1.0, "b": 1.0, "c": 2.0}


class Fleet:
    """Some workers with one set of buckets between them, each of which learns of the others' demands a step late."""

    def __init__(self, workers: int) -> None:
        self.buckets = Buckets(100)
        self.demands = [Demands(0.0) for _ in range(workers)]
        self.shares = [Shares() for _ in range(workers)]
        self.told: list[dict[str, TenantWant]] = [{} for _ in range(workers)]
        self.allowed: dict[str, int] = {}
        self.asked: dict[str, int] = {}

    def settle(self, worker: int, now: float) -> None:
        """The step of one worker."""
        self.told[worker] = self.demands[worker].turn(now)
        wants: dict[str, TenantWant] = {}
        for told in self.told:
            merge(wants, told)
        self.shares[worker].settle(PER_S, wants)

    def take(self, worker: int, share: TenantShare, now: float) -> None:
        """A request."""
        self.demands[worker].count(share, 1.0)
        per_s, burst_s = self.shares[worker].of(share, PER_S)
        fair = Fair(share.tenant.encode(), 0, max(1.0, per_s * burst_s), per_s, reserve_of(CAPACITY, PER_S))
        allowed = self.buckets.take([Ask(b"all", CAPACITY, PER_S, 1.0)], fair, now).allowed
        self.asked[share.tenant] = self.asked.get(share.tenant, 0) + 1
        self.allowed[share.tenant] = self.allowed.get(share.tenant, 0) + allowed

    def run(self, rates: Mapping[str, float], begins: float, ends: float, rng: random.Random) -> None:
        """Requests that come at random, so many per second of each tenant, at any worker."""
        now, settled = begins, [begins + STEP_S * rng.random() for _ in self.shares]
        tenants, weights = list(rates), list(rates.values())
        while (now := now + rng.expovariate(sum(weights))) < ends:
            for worker, due in enumerate(settled):
                if now >= due:
                    self.settle(worker, now)
                    settled[worker] = due + STEP_S
            (tenant,) = rng.choices(tenants, weights)
            self.take(rng.randrange(len(self.shares)), TenantShare(tenant, WEIGHTS.get(tenant, 1.0)), now)


def measured(rates: Mapping[str, float], workers: int = 2, seed: int = 1) -> tuple[dict[str, float], dict[str, float]]:
    """What each gets and asks per second of a minute, after the first bursts are spent; '' is all together."""
    fleet, rng = Fleet(workers), random.Random(seed)
    fleet.run(rates, 0.0, 10.0, rng)
    fleet.allowed.clear()
    fleet.asked.clear()
    fleet.run(rates, 10.0, 70.0, rng)
    got = {tenant: count / 60 for tenant, count in fleet.allowed.items()}
    got[""] = sum(got.values())
    asked = {tenant: count / 60 for tenant, count in fleet.asked.items()}
    print({tenant: (round(value, 1), round(asked.get(tenant, 0.0), 1)) for tenant, value in list(got.items())[:4]})
    return got, asked


@pytest.mark.parametrize("seed", range(3))
def test_a_flood_at_twenty_times_takes_nothing_from_the_quiet(seed: int) -> None:
    """They get all that they ask below their share; the flood gets what they leave; nothing is wasted."""
    got, asked = measured({"a": 500.0, "b": 20.0, "c": 40.0}, seed=seed)
    assert got["b"] >= 0.98 * asked["b"]
    assert got["c"] >= 0.98 * asked["c"]
    assert got["a"] >= 0.95 * (100 - asked["b"] - asked["c"])
    assert 95 <= got[""] <= 100.5


@pytest.mark.parametrize("workers", [1, 4])
def test_where_all_ask_for_more_than_there_is_weights_decide(workers: int) -> None:
    """1 : 1 : 2, though one asks for twenty times as much as another."""
    got, _ = measured({"a": 1000.0, "b": 50.0, "c": 100.0}, workers)
    assert [got["a"], got["b"], got["c"]] == pytest.approx([25, 25, 50], rel=0.05)
    assert 95 <= got[""] <= 100.5


def test_alone_a_tenant_gets_all_of_it() -> None:
    """Whatever its weight."""
    assert 99 <= measured({"a": 300.0})[0]["a"] <= 100.5


def test_a_newcomer_is_served_from_its_first_request() -> None:
    """It asks for half its share while another one floods: next to nothing of it is refused, from the start."""
    fleet, rng = Fleet(4), random.Random(7)
    fleet.run({"a": 1000.0}, 0.0, 10.0, rng)
    fleet.run({"a": 1000.0, "b": 25.0}, 10.0, 20.0, rng)
    assert fleet.allowed["b"] >= 0.97 * fleet.asked["b"]


def test_a_crowd_shares_evenly() -> None:
    """A hundred tenants, of whom ten flood: the others are not hurt."""
    rates = {f"t{n}": 40.0 if n < 10 else 0.5 for n in range(100)}
    got, asked = measured(rates)
    assert sum(got[f"t{n}"] for n in range(10, 100)) >= 0.97 * sum(asked[f"t{n}"] for n in range(10, 100))
    assert [got[f"t{n}"] for n in range(10)] == pytest.approx([got["t0"]] * 10, rel=0.08)
    assert 95 <= got[""] <= 100.5
