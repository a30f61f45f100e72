"""The control law of pools: within its bounds, at once upwards, slowly downwards, and still under constant demand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from proxy.dataplane.pool_size import Outlook, Recommendation, Sizing, grown
from proxy.dataplane.slots import Slots

HOUR, MINUTE = 3600.0, 60.0


class PoolMachine(RuleBasedStateMachine):
    """A pool whose places are taken and given back, and the step that sizes it, in any order."""

    @initialize(least=st.integers(1, 30), more=st.integers(0, 200))
    def begins(self, least: int, more: int) -> None:
        self.least, self.most = least, least + more
        self.slots = Slots(self.least, self.most)
        self.sizing = Sizing(self.least, self.most)
        self.demands: list[int] = []

    @rule(number=st.integers(1, 40))
    def come(self, number: int) -> None:
        for _ in range(number):
            had_room = self.slots.used < self.most
            assert self.slots.take() == had_room

    @rule(number=st.integers(1, 40))
    def leave(self, number: int) -> None:
        for _ in range(min(number, self.slots.used)):
            self.slots.release()

    @rule(times=st.integers(1, 80))
    def steps(self, times: int) -> None:
        for _ in range(times):
            before, demand = self.slots.limit, self.slots.demand()
            self.demands.append(demand)
            size = self.sizing.step(before, demand)
            self.slots.resize(size)
            aim = max(self.least, grown(max(self.demands[-60:]), self.most))
            if before <= aim:
                assert size == aim, "grows within one step, and stands still where it aims at"
            else:
                assert aim <= size < before, "shrinks with each step, and never below what it aims at"
                assert before - size <= max(1, before / 10)

    @invariant()
    def within_its_bounds(self) -> None:
        if hasattr(self, "slots"):
            assert self.least <= self.slots.limit <= self.most
            assert self.slots.used <= self.slots.limit


TestPool = PoolMachine.TestCase


@given(demand=st.integers(0, 300), least=st.integers(1, 50), more=st.integers(0, 200))
def test_constant_demand_never_makes_it_oscillate(demand: int, least: int, more: int) -> None:
    """From either side it goes one way, arrives and stays."""
    most = least + more
    for size in (least, most):
        sizing, sizes = Sizing(least, most), [size]
        for _ in range(200):
            sizes.append(sizing.step(sizes[-1], demand))
        assert sizes in (sorted(sizes), sorted(sizes, reverse=True))
        assert sizes[-1] == max(least, min(most, -(-3 * demand // 2)))


def test_a_burst_is_remembered_for_a_minute() -> None:
    """Then the pool shrinks by a tenth each second."""
    sizing = Sizing(2, 100)
    sizes = [sizing.step(60, 40)]
    for _ in range(70):
        sizes.append(sizing.step(sizes[-1], 0))
    assert sizes[:60] == [60] * 60
    assert sizes[60:64] == [54, 49, 45, 41]


# --- what is recommended --------------------------------------------------------------------------------------------


def watched(*demands: int, refused: int = 0, least: int = 1, bound: int = 200) -> Recommendation:
    """After an hour and more with this highest demand in each minute, the last ones given."""
    outlook = Outlook(least, bound, 0.0)
    seen = [0] * (61 - len(demands)) + list(demands)
    for minute, demand in enumerate(seen):
        outlook.see(minute * MINUTE, demand, 0)
    outlook.see(60 * MINUTE, 0, refused)
    return outlook.recommendation(60 * MINUTE)


@pytest.mark.parametrize(
    ("demand", "expected"),
    [
        (0, Recommendation("keep", 200, "not used in the last hour")),
        (40, Recommendation("lower", 60, "never more than 40 of 200 connections were in use in the last hour")),
        (2, Recommendation("lower", 10, "never more than 2 of 200 connections were in use in the last hour")),
        (100, Recommendation("lower", 150, "never more than 100 of 200 connections were in use in the last hour")),
        (101, Recommendation("keep", 200, "up to 101 of 200 connections were in use in the last hour")),
    ],
)
def test_a_bound_that_was_never_half_used_could_be_lower(demand: int, expected: Recommendation) -> None:
    """By so much that the demand is two thirds of it, but not for a pool that is small."""
    assert watched(demand, 0, 0) == expected


def test_waits_at_the_bound_ask_for_more() -> None:
    """At once, and as much as those who waited would have needed."""
    outlook = Outlook(1, 20, 0.0)
    outlook.see(1.0, 30, 10)
    reason = "10 waited in the last hour because all 20 connections were in use"
    assert outlook.recommendation(1.0) == Recommendation("raise", 45, reason)
    assert watched(7, refused=1, bound=20).size == 21


def test_nothing_is_lowered_before_an_hour_has_passed_nor_below_what_must_be() -> None:
    """A pool of few is left alone."""
    young = Outlook(1, 200, 0.0)
    young.see(5.0, 3, 0)
    assert young.recommendation(HOUR - 1).advice == "keep"
    assert young.recommendation(HOUR).advice == "lower"
    assert watched(1, least=50).size == 50
    assert watched(1, bound=10).advice == "keep"


def test_an_hour_later_it_is_forgotten() -> None:
    """Also when nobody looked in between."""
    for pauses in ([MINUTE] * 62, [62 * MINUTE], [1e9]):
        outlook, now = Outlook(1, 20, 0.0), 0.0
        outlook.see(now, 30, 10)
        for pause in pauses:
            now += pause
            outlook.see(now, 0, 0)
        assert outlook.recommendation(now) == Recommendation("keep", 20, "not used in the last hour")


@given(bound=st.integers(1, 300), demand=st.integers(0, 300))
def test_whoever_follows_it_is_not_told_the_opposite(bound: int, demand: int) -> None:
    """The recommended bound is kept under the same demand."""
    followed = watched(min(demand, bound), bound=bound).size
    assert watched(min(demand, followed), bound=followed).advice == "keep"


@given(looks=st.lists(st.tuples(st.sampled_from([1.0, 45.0, 4000.0]), st.integers(0, 30), st.integers(0, 2))))
def test_a_look_that_changes_nothing_says_so(looks: list[tuple[float, int, int]]) -> None:
    """So that nobody works out the same recommendation each second."""
    outlook, now = Outlook(1, 20, 0.0), 2 * HOUR
    outlook.see(now, 0, 0)
    known = outlook.recommendation(now)
    for pause, demand, refused in looks:
        now += pause
        if outlook.see(now, demand, refused):
            known = outlook.recommendation(now)
        assert outlook.recommendation(now) == known
