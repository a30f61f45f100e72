"""A failing server is left alone, tried by one request at a time, and used again after a real success only."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.config.resilience import Breaker as Settings
from proxy.dataplane.breaker import Breaker, Change, Failure, Order
from tests.unit.dataplane.clocks import Clock

ON_THE_WAY: Final[list[Failure]] = ["connect", "tls", "timeout", "reset"]
FAILURES: Final[list[Failure]] = [*ON_THE_WAY, "upstream_5xx"]


class Bench:
    """A breaker, its time and chance, and what it told."""

    def __init__(self, **settings: object) -> None:
        self.clock = Clock()
        self.drawn = 0.0
        self.told: list[tuple[Change, str]] = []
        self.breaker = Breaker(
            Settings.model_validate(settings),
            self.clock,
            lambda: self.drawn,
            lambda breaker, change: self.told.append((change, breaker.state)),
        )

    def fail(self, times: int = 1, origin: Failure = "connect", retry_after_s: float = 0.0) -> None:
        """So many requests, one after the other."""
        for _ in range(times):
            ticket = self.breaker.admit()
            assert ticket
            self.breaker.failed(ticket, origin, retry_after_s)

    def succeed(self, times: int = 1) -> None:
        for _ in range(times):
            ticket = self.breaker.admit()
            assert ticket
            self.breaker.succeeded(ticket)

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    def open_s(self) -> float:
        """Seconds until a trial is due."""
        return self.breaker.next_attempt_at - self.clock.now

    def try_again(self) -> int:
        """The ticket of the trial, as soon as it is due."""
        self.wait(self.open_s())
        ticket = self.breaker.admit()
        assert ticket
        assert self.breaker.state == "half_open"
        return ticket


# --- opening --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", FAILURES)
def test_five_failures_in_a_row_open_it(origin: Failure) -> None:
    """Of any one kind."""
    bench = Bench()
    bench.fail(4, origin)
    assert (bench.breaker.state, bench.breaker.failures, bench.breaker.ready()) == ("closed", 4, True)
    bench.fail(1, origin)
    assert (bench.breaker.state, bench.breaker.ready(), bench.breaker.admit()) == ("open", False, 0)
    assert bench.breaker.by_origin[origin] == 5
    assert (bench.breaker.trips, bench.breaker.last_failure, bench.breaker.refused) == (1, origin, 1)
    assert bench.told == [("failures", "open")]


def test_failures_on_the_way_and_answers_have_a_run_each() -> None:
    """Four of one and four of the other are no five, and neither ends the run of the other."""
    bench = Bench()
    for _ in range(4):
        bench.fail(1, "reset")
        bench.fail(1, "upstream_5xx")
    assert (bench.breaker.state, bench.breaker.failures) == ("closed", 4)
    bench.fail(1, "timeout")
    assert bench.breaker.state == "open"


def test_a_success_ends_both_runs() -> None:
    """It answers after all."""
    bench = Bench()
    bench.fail(4, "reset")
    bench.fail(4, "upstream_5xx")
    bench.succeed()
    assert bench.breaker.failures == 0
    bench.fail(4, "reset")
    assert bench.breaker.state == "closed"


def test_half_of_twenty_requests_within_ten_seconds_open_it() -> None:
    """Though never five in a row failed."""
    bench = Bench()
    for _ in range(9):
        bench.succeed()
        bench.fail()
    bench.succeed()
    assert bench.breaker.state == "closed"
    bench.fail()
    assert (bench.breaker.state, bench.told) == ("open", [("failure_rate", "open")])


def test_failures_of_long_ago_do_not_count_for_the_rate() -> None:
    """After the window they are forgotten, however long the pause was."""
    for pause in (10.0, 11.0, 1e6):
        bench = Bench()
        for _ in range(9):
            bench.succeed()
            bench.fail()
        bench.wait(pause)
        bench.succeed()
        bench.fail()
        assert bench.breaker.state == "closed"


def test_few_requests_say_nothing_of_the_rate_however_they_are_spread() -> None:
    """Ten seconds hold six requests that are 1.9 seconds apart."""
    bench = Bench(failures=1000, min_requests=7)
    for _ in range(50):
        bench.fail()
        bench.wait(1.9)
    assert bench.breaker.state == "closed"


# --- how long -------------------------------------------------------------------------------------------------------


def test_it_stays_open_longer_with_each_failed_trial_up_to_a_limit() -> None:
    """5, 10, 15 seconds, and not more than a minute."""
    bench = Bench()
    bench.fail(5)
    waited = []
    for _ in range(14):
        waited.append(bench.open_s())
        bench.breaker.failed(bench.try_again(), "connect")
    assert waited == [5.0 * times for times in range(1, 13)] + [60.0, 60.0]
    assert bench.breaker.trips == 15


def test_chance_adds_up_to_a_fifth_so_that_replicas_do_not_try_together() -> None:
    """And never goes over the limit."""
    bench = Bench(max_open_for="5.5s")
    bench.drawn = 0.25
    bench.fail(5)
    assert bench.open_s() == 5.25
    bench.drawn = 0.999
    bench.breaker.failed(bench.try_again(), "connect")
    assert bench.open_s() == 5.5


@pytest.mark.parametrize(("asked_s", "open_s"), [(0.0, 5.0), (3.0, 5.0), (20.0, 20.0), (600.0, 60.0)])
def test_the_time_that_the_server_asked_for_is_given(asked_s: float, open_s: float) -> None:
    """When it is longer; up to the limit."""
    bench = Bench()
    bench.fail(5, "upstream_5xx", asked_s)
    assert bench.open_s() == open_s
    assert bench.breaker.retry_after_s == open_s


def test_a_server_that_comes_and_goes_is_tried_less_often() -> None:
    """Closed for less than `window`, its next opening is one in a row; after that time it is forgiven."""
    bench = Bench()
    bench.fail(5)
    bench.breaker.succeeded(bench.try_again())
    bench.wait(9.0)
    bench.fail(5)
    assert bench.open_s() == 10.0
    bench.breaker.succeeded(bench.try_again())
    bench.wait(10.0)
    bench.fail(5)
    assert bench.open_s() == 5.0


# --- trials ---------------------------------------------------------------------------------------------------------


def test_one_request_at_a_time_is_a_trial() -> None:
    """The others are refused until it has ended, and its success lets all through."""
    bench = Bench()
    bench.fail(5)
    bench.wait(4.9)
    assert not bench.breaker.ready()
    assert bench.breaker.admit() == 0
    trial = bench.try_again()
    assert (bench.breaker.ready(), bench.breaker.admit(), bench.breaker.retry_after_s) == (False, 0, 1.0)
    bench.breaker.succeeded(trial)
    assert (bench.breaker.state, bench.breaker.ready(), bench.breaker.retry_after_s) == ("closed", True, 0.0)
    assert bench.told == [("failures", "open"), ("trial", "half_open"), ("trial_succeeded", "closed")]


def test_a_trial_whose_client_left_is_given_to_the_next() -> None:
    """It said nothing of the server."""
    bench = Bench()
    bench.fail(5)
    bench.breaker.neutral(bench.try_again())
    assert (bench.breaker.state, bench.breaker.ready()) == ("half_open", True)
    assert bench.breaker.admit()
    assert not bench.breaker.ready()


def test_a_trial_that_never_ends_does_not_block_for_ever() -> None:
    """After `max_open_for` the next request is one, too; what the first says then still closes, but does not open."""
    bench = Bench()
    bench.fail(5)
    lost = bench.try_again()
    bench.wait(59.9)
    assert not bench.breaker.ready()
    bench.wait(0.1)
    assert bench.breaker.ready()
    second = bench.breaker.admit()
    assert second
    assert not bench.breaker.ready()
    bench.breaker.neutral(lost)
    assert not bench.breaker.ready()
    bench.breaker.failed(lost, "timeout")
    assert bench.breaker.state == "half_open"
    bench.wait(60.0)
    assert bench.breaker.admit()
    bench.breaker.succeeded(second)
    assert bench.breaker.state == "closed"


def test_what_was_sent_before_it_opened_says_nothing_of_it_now() -> None:
    """Neither closes it, nor opens it again, nor gives back a trial of another."""
    bench = Bench()
    early = [bench.breaker.admit() for _ in range(4)]
    bench.fail(5)
    bench.breaker.succeeded(early[0])
    assert bench.breaker.state == "open"
    trial = bench.try_again()
    bench.breaker.succeeded(early[1])
    bench.breaker.failed(early[2], "reset")
    bench.breaker.neutral(early[3])
    assert (bench.breaker.state, bench.breaker.ready()) == ("half_open", False)
    bench.breaker.succeeded(trial)
    assert bench.breaker.state == "closed"


def test_after_it_closed_the_counts_begin_anew() -> None:
    """What was before is paid for, though it is within the window yet."""
    bench = Bench(failures=1000, open_for="1s")
    for _ in range(5):
        for _ in range(2):
            bench.succeed()
            bench.fail()
        bench.wait(1.0)
    assert bench.breaker.state == "open"
    bench.breaker.succeeded(bench.try_again())
    bench.fail(19)
    assert bench.breaker.state == "closed"


# --- what else may be asked of it -----------------------------------------------------------------------------------


def test_a_breaker_that_is_not_enforced_tells_and_counts_but_refuses_nothing() -> None:
    """Its state is what it would be."""
    bench = Bench(enforce=False)
    bench.fail(5)
    assert (bench.breaker.state, bench.breaker.ready()) == ("open", True)
    bench.succeed(3)
    assert (bench.breaker.state, bench.breaker.refused) == ("open", 3)
    trial = bench.try_again()
    bench.fail(3)
    assert (bench.breaker.state, bench.breaker.refused) == ("half_open", 6)
    bench.breaker.succeeded(trial)
    assert [change for change, _ in bench.told] == ["failures", "trial", "trial_succeeded"]


def test_an_order_keeps_it_open_until_it_ends_and_then_a_trial_decides() -> None:
    """However long that takes, and whatever is under way."""
    bench = Bench()
    early = bench.breaker.admit()
    bench.breaker.force("open")
    bench.breaker.force("open")
    bench.breaker.succeeded(early)
    bench.wait(1e6)
    assert (bench.breaker.ready(), bench.breaker.order, bench.breaker.next_attempt_at) == (False, "open", 0.0)
    assert (bench.breaker.retry_after_s, bench.breaker.trips) == (60.0, 0)
    bench.breaker.force("")
    assert (bench.breaker.ready(), bench.breaker.state) == (True, "open")
    bench.breaker.succeeded(bench.breaker.admit())
    assert bench.breaker.state == "closed"
    assert [change for change, _ in bench.told] == ["ordered_open", "order_ended", "trial", "trial_succeeded"]


def test_an_order_closes_it_once_and_forgets_its_failures() -> None:
    """It may open again, for as long as at first; ordered again, it closes again."""
    bench = Bench()
    for _ in range(2):
        bench.fail(5)
        assert bench.open_s() == 5.0
        bench.breaker.force("closed")
        assert (bench.breaker.state, bench.breaker.failures, bench.breaker.order) == ("closed", 0, "")
    bench.fail(4)
    bench.breaker.force("closed")
    bench.fail(4)
    assert bench.breaker.state == "closed"


def test_a_server_that_asks_to_be_spared_rests_but_may_be_used() -> None:
    """For as long as it asked, up to the limit."""
    bench = Bench()
    assert not bench.breaker.resting()
    bench.breaker.rest(7.0)
    assert (bench.breaker.resting(), bench.breaker.ready()) == (True, True)
    bench.wait(7.0)
    assert not bench.breaker.resting()
    bench.breaker.rest(3600.0)
    bench.wait(60.0)
    assert not bench.breaker.resting()


def test_the_time_spent_in_each_state_is_known() -> None:
    """Up to now."""
    bench = Bench()
    bench.wait(3.0)
    bench.fail(5)
    trial = bench.try_again()
    bench.wait(2.0)
    bench.breaker.succeeded(trial)
    bench.wait(1.0)
    assert bench.breaker.seconds() == {"closed": 4.0, "open": 5.0, "half_open": 2.0}
    assert repr(bench.breaker) == "Breaker(closed, failures=0, trips=1)"


@given(st.floats(0, 0.4), st.integers(0, 99))
def test_a_server_that_fails_seldom_is_left_in_use(share: float, seed: int) -> None:
    """No run of many failures and no rate: whatever the order, it stays closed."""
    bench, chance = Bench(failures=1000), random.Random(seed)
    answers = [number >= share * 20 for number in range(20)] * 10
    for block in range(0, len(answers), 20):
        mixed = answers[block : block + 20]
        chance.shuffle(mixed)
        for good in sorted(mixed, reverse=True):
            bench.succeed() if good else bench.fail()
        bench.wait(0.5)
    assert bench.breaker.state == "closed"


# --- against a model ------------------------------------------------------------------------------------------------


@dataclass
class Admitted:
    """A request that has not ended."""

    ticket: int
    role: str
    """normal, trial, or passing where nothing is enforced."""
    period: int
    """How often it had opened or closed before."""
    at: float


class Breaking(RuleBasedStateMachine):
    """Requests that end in any way and order, orders, and time; the model keeps every event and counts them anew."""

    @initialize(enforce=st.booleans(), failures=st.integers(1, 4), rate=st.sampled_from([0.25, 0.5, 1.0]))
    def begin(self, enforce: bool, failures: int, rate: float) -> None:
        self.bench = Bench(
            enforce=enforce, failures=failures, failure_rate=rate, min_requests=6, open_for="5s", max_open_for="12s"
        )
        self.breaker, self.clock, self.enforce = self.bench.breaker, self.bench.clock, enforce
        self.began = self.clock.now
        self.limits = (failures, rate)
        self.state, self.ordered, self.period, self.in_a_row = "closed", False, 0, 0
        self.events: list[tuple[float, str]] = []
        self.under_way: list[Admitted] = []
        self.trial: Admitted | None = None
        self.due_from = self.due_until = 0.0
        self.changed_at = self.clock.now

    @rule(quarters=st.integers(1, 80), drawn=st.floats(0, 0.999))
    def time_passes(self, quarters: int, drawn: float) -> None:
        self.clock.now += quarters / 4
        self.bench.drawn = drawn

    @rule()
    def until_the_trial_is_due(self) -> None:
        if not self.ordered:
            self.clock.now = max(self.clock.now, self.breaker.next_attempt_at)

    @rule(times=st.integers(1, 3))
    def admit(self, times: int) -> None:
        for _ in range(times):
            role, ready = self.expected_role(), self.breaker.ready()
            assert ready == (role != "" or not self.enforce)
            ticket = self.breaker.admit()
            assert bool(ticket) == ready
            if not ticket:
                continue
            one = Admitted(ticket, role or "passing", self.period, self.clock.now)
            self.under_way.append(one)
            if role == "trial":
                assert self.trial is None or self.clock.now - self.trial.at >= 12.0
                self.trial, self.state = one, "half_open"

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 99))
    def succeed(self, which: int) -> None:
        one = self.under_way.pop(which % len(self.under_way))
        self.breaker.succeeded(one.ticket)
        if one.period == self.period and one.role == "normal":
            self.events.append((self.clock.now, "good"))
        elif one.period == self.period and one.role == "trial":
            self.closed()

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 99), origin=st.sampled_from(FAILURES), asked=st.sampled_from([0.0, 0.0, 7.0, 99.0]))
    def fail(self, which: int, origin: Failure, asked: float) -> None:
        one = self.under_way.pop(which % len(self.under_way))
        total = self.breaker.by_origin[origin]
        self.breaker.failed(one.ticket, origin, asked)
        assert self.breaker.by_origin[origin] == total + 1
        if one.period != self.period:
            return
        if one.role == "normal":
            self.events.append((self.clock.now, origin))
            if self.enough():
                self.opened(asked)
        elif one is self.trial:
            self.opened(asked)

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 99))
    def client_leaves(self, which: int) -> None:
        one = self.under_way.pop(which % len(self.under_way))
        before = (self.breaker.state, self.breaker.failures, self.breaker.trips, self.breaker.next_attempt_at)
        self.breaker.neutral(one.ticket)
        assert before == (
            self.breaker.state, self.breaker.failures, self.breaker.trips, self.breaker.next_attempt_at
        )  # fmt: skip
        if one is self.trial:
            self.trial = None

    @rule(order=st.sampled_from(["open", "closed", ""]))
    def order(self, order: Order) -> None:
        self.breaker.force(order)
        if order == "closed":
            self.ordered = False
            self.in_a_row, self.events = 0, []
            if self.state != "closed":
                self.closed()
        elif order == "open" and not self.ordered:
            self.ordered = True
            self.state, self.trial = "open", None
            self.period += 1
            self.due_from = self.due_until = 0.0
        elif order == "" and self.ordered:
            self.ordered = False
            self.due_from = self.due_until = self.clock.now

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "bench"):
            return
        assert (self.breaker.state, self.breaker.order) == (self.state, "open" if self.ordered else "")
        if self.state == "open":
            assert self.due_from <= self.breaker.next_attempt_at <= self.due_until
        assert sum(self.breaker.seconds().values()) == pytest.approx(self.clock.now - self.began)
        assert (self.breaker.retry_after_s == 0) == (self.state == "closed")

    # --- the model ---

    def expected_role(self) -> str:
        """Role of a request that comes now; '' for a refusal."""
        if self.state == "closed":
            return "normal"
        if self.state == "open":
            return "trial" if not self.ordered and self.clock.now >= self.breaker.next_attempt_at else ""
        return "trial" if self.trial is None or self.clock.now - self.trial.at >= 12.0 else ""

    def enough(self) -> bool:
        """Whether the events since it closed open it."""
        failures, rate = self.limits
        last_good = max((place for place, (_, what) in enumerate(self.events) if what == "good"), default=-1)
        run = [what for _, what in self.events[last_good + 1 :]]
        answers = run.count("upstream_5xx")
        second = int(self.clock.now - self.began)
        recent = [what for at, what in self.events if int(at - self.began) > second - 10]
        bad = len(recent) - recent.count("good")
        return max(answers, len(run) - answers) >= failures or (len(recent) >= 6 and bad / len(recent) >= rate)

    def opened(self, asked: float) -> None:
        if self.state == "closed" and self.clock.now - self.changed_at >= 10.0:
            self.in_a_row = 0
        self.in_a_row += 1
        self.state, self.trial = "open", None
        self.period += 1
        least = max(5.0 * self.in_a_row, asked)
        self.due_from = self.clock.now + min(12.0, least)
        self.due_until = self.clock.now + min(12.0, max(6.0 * self.in_a_row, asked))

    def closed(self) -> None:
        self.state, self.trial, self.events = "closed", None, []
        self.period += 1
        self.changed_at = self.clock.now


TestBreaking = Breaking.TestCase


def test_a_trial_may_be_hurried_but_not_before_its_time_nor_against_an_order() -> None:
    """Whoever has no other server asks soon; an operator's word stands."""
    clock = Clock()
    breaker = Breaker(Settings(failures=1), clock, lambda: 0.0)
    breaker.hurry(1.0)
    assert breaker.state == "closed"
    breaker.failed(breaker.admit(), "connect")
    breaker.hurry(1.0)
    assert not breaker.ready()
    clock.now += 1.0
    assert breaker.ready()
    breaker.force("open")
    clock.now += 100.0
    breaker.hurry(1.0)
    assert not breaker.ready()
