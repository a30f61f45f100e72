"""A server is what its checks and its traffic say, changes after enough of them in a row, and comes back slowly."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.config.resilience import HealthCheck
from proxy.dataplane.health import Health, Pace, Status
from tests.unit.dataplane.fakes import Time


class Server:
    """A health, its clock, and the changes that it told."""

    def __init__(self, checked: bool = True, **check: Any) -> None:
        self.time = Time()
        self.told: list[tuple[str, Status, Status]] = []
        config = HealthCheck.model_validate(check) if checked else None
        self.health = Health(config, self.time, "up", lambda *change: self.told.append(change))

    def check(self, *results: bool, seconds: float = 0.01) -> Status:
        for ok in results:
            self.health.checked(ok, seconds, 200 if ok else 503, "" if ok else "status")
        return self.health.status

    def ask(self, *results: bool) -> Status:
        for ok in results:
            self.health.passive(ok)
        return self.health.status


def test_checks_in_a_row_change_the_status_and_each_change_is_told_once() -> None:
    """Two good ones make it healthy, three bad ones unhealthy, two good ones healthy again."""
    server = Server()
    assert server.check(True) == "unknown"
    assert server.check(True, True) == "healthy"
    assert server.check(False, False, True, False, False) == "healthy"
    assert server.health.usable()
    assert server.check(False, False) == "unhealthy"
    assert not server.health.usable()
    assert server.check(True, False, True) == "unhealthy"
    assert server.check(True) == "healthy"
    assert server.told == [
        ("up", "unknown", "healthy"),
        ("up", "healthy", "unhealthy"),
        ("up", "unhealthy", "healthy"),
    ]


def test_what_the_last_check_found_is_kept() -> None:
    """Its time, status and cause, and how many there were."""
    server = Server()
    server.check(True)
    server.check(False, seconds=2.0)
    health = server.health
    assert (health.checks, health.failures) == (2, 1)
    assert (health.last_s, health.last_code, health.last_error) == (2.0, 503, "status")


def test_it_wavers_while_the_last_checks_do_not_fit_the_status() -> None:
    """Then the next checks follow at once."""
    server = Server()
    assert not server.health.wavering
    for result, wavering in ((True, True), (True, False), (False, True), (True, False)):
        server.check(result)
        assert server.health.wavering is wavering
    server.check(False, False, False)
    assert not server.health.wavering
    server.check(True)
    assert server.health.wavering


def test_traffic_makes_an_unknown_server_healthy_and_takes_back_bad_checks() -> None:
    """One good request is enough; it does not make an unhealthy server healthy."""
    server = Server()
    assert server.ask(True) == "healthy"
    server.check(False, False)
    assert server.ask(True) == "healthy"
    assert server.check(False, False) == "healthy"
    assert server.check(False) == "unhealthy"
    assert server.ask(*[True] * 50) == "unhealthy"


def test_traffic_does_not_overrule_a_page_of_its_own() -> None:
    """A page for checks may say no while requests are still answered."""
    server = Server(kind="http", path="/healthz")
    assert server.ask(True) == "healthy"
    server.check(False, False)
    assert server.ask(True) == "healthy"
    assert server.check(False) == "unhealthy"


def test_failures_of_traffic_count_but_the_last_step_is_a_checks() -> None:
    """However many there are."""
    server = Server()
    server.check(True, True)
    assert server.ask(*[False] * 50) == "healthy"
    assert server.check(False) == "unhealthy"


def test_a_single_bad_check_may_be_enough_but_no_failure_of_traffic() -> None:
    """With `unhealthy_after: 1`."""
    server = Server(unhealthy_after=1)
    assert server.ask(True, False, False) == "healthy"
    assert server.check(False) == "unhealthy"


def test_without_checks_the_status_follows_the_traffic_and_keeps_nobody_away() -> None:
    """Nothing else could find out that it is back."""
    server = Server(checked=False)
    assert server.ask(False, False) == "unknown"
    assert server.ask(False) == "unhealthy"
    assert server.health.usable()
    assert server.ask(True) == "healthy"
    assert server.health.ramp(lambda: 1.0)


def test_its_share_grows_after_it_recovered() -> None:
    """From a tenth to all in `slow_start`; chance is asked only then."""
    server = Server(healthy_after=1, slow_start="10s")
    asked: list[float] = []

    def draw() -> float:
        asked.append(0)
        return 0.55

    assert server.health.ramp(draw)
    server.check(True, False, False, False, True)
    assert server.health.status == "healthy"
    shares = []
    for _ in range(12):
        shares.append(server.health.ramp(draw))
        server.time.now += 1.0
    assert shares == [False] * 6 + [True] * 6  # 0.1 + 0.9 * 5.0 / 10 = 0.55 is not above what was drawn
    assert len(asked) == 10


def test_a_server_that_fails_again_starts_over() -> None:
    """And one without slow start has its whole share at once."""
    server = Server(healthy_after=1, unhealthy_after=1)
    server.check(True, False, True)
    server.time.now += 9.0
    server.check(False, True)
    assert not server.health.ramp(lambda: 0.11)
    assert server.health.ramp(lambda: 0.09)
    at_once = Server(healthy_after=1, unhealthy_after=1, slow_start="0s")
    at_once.check(True, False, True)
    assert at_once.health.ramp(lambda: 1.0)


def test_slower_than_usual_is_degraded_until_it_is_clearly_faster() -> None:
    """One outlier is not enough; degraded servers are usable."""
    server = Server()
    server.check(*[True] * 20, seconds=0.1)
    assert server.check(True, seconds=0.5) == "healthy"
    server.check(*[True] * 10, seconds=0.1)
    assert server.check(*[True] * 6, seconds=0.6) == "degraded"
    assert server.health.usable()
    limit_s = 3 * server.health.pace.baseline_s
    assert server.check(*[True] * 4, seconds=0.85 * limit_s) == "degraded"
    assert server.check(*[True] * 10, seconds=0.1) == "healthy"
    assert server.check(False, False, False) == "unhealthy"


def test_fast_servers_are_not_degraded_by_milliseconds() -> None:
    """1 ms that become 40 ms are no news."""
    server = Server()
    server.check(*[True] * 20, seconds=0.001)
    assert server.check(*[True] * 20, seconds=0.04) == "healthy"


def test_what_stays_slow_becomes_usual() -> None:
    """After some hundred checks; and a single hung one hardly moves the baseline."""
    pace = Pace(3.0)
    for _ in range(50):
        pace.observe(0.1)
    pace.observe(60.0)
    assert pace.baseline_s < 0.11
    for _ in range(300):
        pace.observe(0.5)
    assert not pace.slow


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200), st.floats(1, 10))
def test_the_baseline_stays_among_what_was_seen(samples: list[float], factor: float) -> None:
    """It is an average, whatever comes."""
    pace = Pace(factor)
    for sample in samples:
        pace.observe(sample)
        assert -1e-9 <= pace.baseline_s <= max(samples) + 1e-9


class Checked(RuleBasedStateMachine):
    """Checks and traffic in any order, against what the rows of good and bad ones say."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Server(healthy_after=2, unhealthy_after=3, slow_start="10s")
        self.state = "unknown"
        self.good = self.bad = 0
        self.recovered_at: float | None = None

    @rule(ok=st.booleans(), seconds=st.sampled_from([0.001, 0.01, 0.3, 5.0]))
    def check(self, ok: bool, seconds: float) -> None:
        self.good, self.bad = (self.good + 1, 0) if ok else (0, self.bad + 1)
        if self.bad == 3:
            self.state, self.recovered_at = "down", None
        elif ok and self.good >= 2 and self.state != "up":
            self.recovered_at = self.server.time.now if self.state == "down" else None
            self.state = "up"
        self.server.check(ok, seconds=seconds)

    @rule(ok=st.booleans())
    def traffic(self, ok: bool) -> None:
        if not ok:
            self.good, self.bad = 0, self.bad if self.bad > 1 else self.bad + 1
        elif self.state != "down":
            self.state, self.bad = "up", 0
        self.server.ask(ok)

    @invariant()
    def the_status_is_what_the_rows_say(self) -> None:
        means: dict[Status, str] = {"unknown": "unknown", "healthy": "up", "degraded": "up", "unhealthy": "down"}
        assert means[self.server.health.status] == self.state

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.server.time.now += seconds

    @invariant()
    def only_the_unhealthy_are_not_usable(self) -> None:
        assert self.server.health.usable() is (self.server.health.status != "unhealthy")

    @invariant()
    def the_share_is_whole_but_after_recovery(self) -> None:
        since = None if self.recovered_at is None else self.server.time.now - self.recovered_at
        ramping = since is not None and since < 10.0
        assert self.server.health.ramp(lambda: 1.0) is (not ramping)
        assert self.server.health.ramp(lambda: 0.0)

    @invariant()
    def changes_are_told_in_order(self) -> None:
        told = self.server.told
        assert all(old != new for _, old, new in told)
        assert all(first[2] == second[1] for first, second in pairwise(told))
        assert (told[-1][2] if told else "unknown") == self.server.health.status


TestChecked = Checked.TestCase


@pytest.mark.parametrize("status", ["healthy", "degraded"])
def test_the_usual_request_costs_a_look(status: Status) -> None:
    """Nothing changes and nothing is told."""
    server = Server()
    server.health.status = status
    assert server.ask(*[True] * 5) == status
    assert server.told == []
