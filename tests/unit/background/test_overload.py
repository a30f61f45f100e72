"""What lag and memory refuse: one class after the other, never the highest for lag, and all of it ends."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.background.memory import Memory
from proxy.background.overload import STEP_S, THRESHOLDS, Lag, LagLevel, MemoryLevel, OverloadWatch
from proxy.config.resilience import Overload
from proxy.dataplane.shedding import EVERYONE, NOBODY, Load
from tests.unit.dataplane.clocks import Clock

MIB = 1 << 20


class Meter(Memory):
    """Memory of which a test says how much is used."""

    def __init__(self) -> None:
        super().__init__()
        self.close()
        self.bytes = 0
        self.trimmed = 0

    def configure(self, limit: int | None) -> None:
        self.limit = limit or 0

    def used(self) -> int:
        return self.bytes

    def trim(self) -> None:
        self.trimmed += 1


class Watched:
    """A watch, what it writes, and time that passes with and without delays of the loop."""

    def __init__(self, config: Overload | None = None) -> None:
        self.load, self.meter, self.clock = Load(), Meter(), Clock()
        self.config = config or Overload()
        self.changes: list[tuple[int, bool]] = []
        self.watch = OverloadWatch(
            self.config, self.load, self.meter, self.clock,
            lambda: self.changes.append((self.load.refused_from, self.load.shrinking)),
        )  # fmt: skip
        self.watch.step()

    def steps(self, seconds: float, late_s: float = 0.0) -> None:
        """Steps for so long, each late by so much."""
        until = self.clock.now + seconds
        while self.clock.now < until - 1e-6:
            self.clock.now += STEP_S + late_s
            self.watch.step()

    def using(self, share: float) -> Load:
        """A step with this share of the memory in use."""
        self.meter.bytes = round(share * self.meter.limit)
        self.steps(STEP_S)
        return self.load


# --- lag --------------------------------------------------------------------------------------------------------------


def test_a_loop_in_time_refuses_nobody() -> None:
    """Nor does one that is a little late."""
    watched = Watched()
    watched.steps(30)
    assert watched.load.lag_s == pytest.approx(0, abs=1e-9)
    watched.steps(30, late_s=0.19)
    assert watched.load.refused_from == NOBODY
    assert watched.load.lag_s == pytest.approx(0.19)


@given(st.floats(0.2, 60))
def test_one_pause_alone_refuses_nobody(seconds: float) -> None:
    """It is over once it is seen: refusing would help nobody."""
    watched = Watched()
    watched.steps(STEP_S, late_s=seconds)
    assert watched.load.lag_s == pytest.approx(seconds)
    for _ in range(30):
        watched.steps(STEP_S)
        assert watched.load.refused_from == NOBODY
    assert watched.load.lag_s < 0.01


def test_lag_that_lasts_refuses_class_after_class_but_the_highest() -> None:
    """Low after `lag_for`, normal after it again, and no more however long it lasts."""
    watched = Watched()
    seen = []
    for _ in range(40):
        watched.steps(STEP_S, late_s=0.3)
        seen.append((watched.load.refused_from, watched.clock.now))
    assert {level for level, _ in seen} == {3, 2, 1}
    first_low = next(now for level, now in seen if level == 2)
    first_normal = next(now for level, now in seen if level == 1)
    assert 1.0 <= first_low - 6000.0 <= 2.0
    assert 1.0 <= first_normal - first_low <= 1.5
    assert watched.load.retry_after_s == 1


def test_pauses_between_steps_in_time_refuse_nobody() -> None:
    """A loop that stands still 0.3 s of each 0.9 s serves most of the time; the figure tells of it all the same."""
    watched = Watched()
    for _ in range(20):
        watched.steps(0.5)
        watched.steps(STEP_S, late_s=0.3)
        assert watched.load.lag_s == pytest.approx(0.3)
    assert watched.load.refused_from == NOBODY


def test_a_loop_in_time_again_serves_class_after_class() -> None:
    """One per `lag_for`, once most steps of the last second were in time."""
    watched = Watched()
    watched.steps(10, late_s=0.3)
    assert watched.load.refused_from == 1
    watched.steps(1.0)
    assert watched.load.refused_from == 1
    watched.steps(0.6)
    assert watched.load.refused_from == 2
    watched.steps(1.1)
    assert watched.load.refused_from == NOBODY


def test_between_half_and_the_whole_delay_nothing_changes() -> None:
    """What is refused stays so: it would come back at once."""
    watched = Watched()
    watched.steps(10, late_s=0.3)
    watched.steps(60, late_s=0.15)
    assert watched.load.refused_from == 1


class LagMachine(RuleBasedStateMachine):
    """The level under any delays: it moves by one, no sooner than `lag_for`, and only where it should."""

    def __init__(self) -> None:
        super().__init__()
        self.level, self.now, self.changed_at, self.lag = LagLevel(), 0.0, -inf, 0.0

    @rule(lag=st.floats(0, 1), after=st.floats(0.05, 3))
    def step(self, lag: float, after: float) -> None:
        before, lag_before = self.level.refused_from, self.lag
        self.now += after
        self.lag = lag
        self.level.seen(self.now, lag, 0.2, 1.0)
        change = self.level.refused_from - before
        assert abs(change) <= 1
        if change:
            assert (lag > 0.2, lag_before > 0.2) == (change < 0, change < 0)
            assert lag > 0.2 or (lag < 0.1 and lag_before < 0.1)
            assert self.now - self.changed_at >= 1.0 - 1e-9
            self.changed_at = self.now

    @rule()
    def calm(self) -> None:
        for _ in range(6):
            self.step(0.0, 1.0)
        assert self.level.refused_from == NOBODY

    @rule()
    def storm(self) -> None:
        for _ in range(6):
            self.step(1.0, 1.0)
        assert self.level.refused_from == 1

    @invariant()
    def the_highest_class_is_served(self) -> None:
        assert 1 <= self.level.refused_from <= NOBODY


TestLagMachine = LagMachine.TestCase


@given(st.lists(st.floats(0.001, 2), min_size=1, max_size=60))
def test_the_delay_is_the_longest_of_the_last_second(gaps: list[float]) -> None:
    """Whatever the moments at which steps come, by a plain count over all of them."""
    lag, now, seen = Lag(), 50.0, [(50.0, 0.0)]
    lag.seen(now, 1.0)
    for gap in gaps:
        before, now = now, now + gap
        seen.append((now, max(0.0, now - before - STEP_S)))
        assert lag.seen(now, 1.0) == max(late for at, late in seen if now - at < 1.0)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_is_refused_in_four_steps_and_given_free_again() -> None:
    """Shrink, close, refuse requests, refuse connections; each ends a little below where it began."""
    watched = Watched(Overload(memory=100 * MIB))

    def state(share: float) -> tuple[bool, bool, bool, bool]:
        load = watched.using(share)
        return load.shrinking, load.closing_keepalive, load.refused_from == EVERYONE, load.refusing

    assert state(0.84) == (False, False, False, False)
    assert state(0.86) == (True, False, False, False)
    assert state(0.925) == (True, True, False, False)
    assert state(0.955) == (True, True, True, False)
    assert state(0.985) == (True, True, True, True)
    assert state(0.965) == (True, True, True, True)
    assert state(0.955) == (True, True, True, False)
    assert state(0.925) == (True, True, False, False)
    assert state(0.895) == (True, False, False, False)
    assert state(0.835) == (True, False, False, False)
    assert state(0.825) == (False, False, False, False)
    assert watched.load.memory_limit == 100 * MIB


@given(st.lists(st.floats(0, 1.2), min_size=1, max_size=40))
def test_the_level_follows_memory_with_some_slack(shares: list[float]) -> None:
    """Never below what is reached, never above what is reached within 2 %."""
    level = MemoryLevel()
    for share in shares:
        level.seen(share)
        assert level.reached >= sum(share >= threshold for threshold in THRESHOLDS)
        assert level.reached <= sum(share >= threshold - 0.021 for threshold in THRESHOLDS)


def test_bodies_have_room_for_twice_what_is_free() -> None:
    """A body is copied when it is whole; above 97 % there is no room at all."""
    watched = Watched(Overload(memory=100 * MIB))
    assert watched.using(0.77).room == pytest.approx(10 * MIB)
    assert watched.using(0.98).room == 0
    assert watched.using(1.5).room == 0


def test_what_is_too_much_is_told_in_bytes() -> None:
    """Down to where the memory is well again."""
    watched = Watched(Overload(memory=100 * MIB))
    assert watched.using(0.80).excess == 0
    assert watched.using(0.95).excess == 10 * MIB


def test_free_memory_is_given_back_while_it_is_short() -> None:
    """Now and then, since it takes its time; never when there is enough."""
    watched = Watched(Overload(memory=100 * MIB))
    watched.using(0.5)
    watched.steps(10)
    assert watched.meter.trimmed == 0
    watched.using(0.9)
    watched.steps(10)
    assert 5 <= watched.meter.trimmed <= 25


def test_without_a_limit_memory_refuses_nobody() -> None:
    """And a reload that takes it away ends what it had refused."""
    watched = Watched(Overload(memory=100 * MIB))
    assert watched.using(0.99).refusing
    watched.watch.configure(Overload())
    watched.steps(STEP_S)
    load = watched.load
    assert (load.refusing, load.refused_from, load.shrinking, load.room) == (False, NOBODY, False, inf)
    assert (load.memory_bytes, load.memory_limit, load.excess) == (0, 0, 0)


def test_a_watch_that_is_closed_refuses_nobody_for_memory() -> None:
    """The process ends in order, whatever it uses."""
    watched = Watched(Overload(memory=100 * MIB))
    assert watched.using(0.99).refusing
    watched.watch.close()
    watched.steps(STEP_S)
    assert not watched.load.refusing


def test_memory_refuses_more_than_lag() -> None:
    """The stricter of the two holds."""
    watched = Watched(Overload(memory=100 * MIB))
    watched.steps(10, late_s=0.3)
    assert watched.load.refused_from == 1
    assert watched.using(0.96).refused_from == EVERYONE
    watched.meter.bytes = 0
    watched.steps(STEP_S, late_s=0.3)
    assert watched.load.refused_from == 1


def test_every_change_is_told_of_once() -> None:
    """After it happened, so that whoever is told finds what holds now."""
    watched = Watched(Overload(memory=100 * MIB))
    watched.steps(10, late_s=0.3)
    assert watched.changes == [(2, False), (1, False)]
    watched.meter.bytes = 86 * MIB
    watched.steps(5)
    assert watched.changes[2:] == [(1, True), (2, True), (NOBODY, True)]
