"""How risky a call is, and that the common one is rated in no time."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.audit import risk as module
from proxy.audit.risk import LEVELS, LOW, RiskRules, Verdict
from proxy.config.risk import Risk
from proxy.dataplane.offers import Hints

BERLIN = ZoneInfo("Europe/Berlin")


class Aim(NamedTuple):
    """As much of a message as is looked at."""

    method: str
    target: str


CALL = Aim("tools/call", "search")
NOON = datetime(2026, 11, 18, 12, 0, tzinfo=BERLIN).timestamp()
"""A Wednesday."""


def rules(**config: Any) -> RiskRules:
    return RiskRules(Risk.model_validate(config))


def rated(made: RiskRules, hints: Hints | None = None, **facts: Any) -> Verdict:
    given = {"aim": CALL, "who": "user:7", "admin": False, "denied": "", "now": NOON} | facts
    return made.assess(given["aim"], hints, given["who"], given["admin"], given["denied"], given["now"])


def test_a_common_call_is_low_without_a_reason() -> None:
    """Also one of which nothing is known."""
    made = rules()
    assert rated(made) is LOW
    assert rated(made, Hints(read_only=True)) is LOW
    assert rated(made, aim=Aim("tools/list", "")) is LOW
    assert rated(made, aim=None) is LOW


@pytest.mark.parametrize(
    ("hints", "verdict"),
    [
        (Hints(destructive=True), ("high", ("destructive",))),
        (Hints(open_world=True), ("medium", ("open_world",))),
        (Hints(open_world=True, destructive=True), ("high", ("destructive", "open_world"))),
        (Hints(read_only=True, destructive=True, open_world=True), ("low", ())),
        (Hints(destructive=False, open_world=False), ("low", ())),
    ],
)
def test_hints_of_a_tool_count(hints: Hints, verdict: tuple[str, tuple[str, ...]]) -> None:
    """Of a tool that only reads the others mean nothing."""
    assert rated(rules(), hints) == verdict
    assert rated(rules(), hints, aim=Aim("prompts/get", "search")) == ("low", ())


def test_a_tool_without_a_word_of_its_server_can_be_taken_for_a_risk() -> None:
    """As the protocol has it."""
    assert rated(rules(unhinted="medium")) == ("medium", ("unhinted",))
    assert rated(rules(unhinted="medium"), Hints()) == ("medium", ("unhinted",))
    assert rated(rules(unhinted="medium"), Hints(destructive=False)) is LOW


def test_refusals_count_by_what_they_say() -> None:
    """Being told to wait is no sign of anything."""
    made = rules()
    assert rated(made, denied="unauthorized") == ("medium", ("denied",))
    assert rated(made, denied="forbidden") == ("high", ("denied",))
    assert rated(made, denied="rate_limited") is LOW


def test_two_reasons_of_one_level_make_the_next() -> None:
    """Unless that is switched off; nothing is above critical."""
    facts = {"admin": True, "denied": "unauthorized"}
    assert rated(rules(), **facts) == ("high", ("denied", "admin"))
    assert rated(rules(combine=False), **facts) == ("medium", ("denied", "admin"))
    assert rated(rules(admin="critical", denied="critical"), **facts).level == "critical"


@pytest.mark.parametrize(
    ("day", "hour", "off"),
    [(18, 6, True), (18, 7, False), (18, 18, False), (18, 19, True), (21, 12, True), (22, 12, True)],
)
def test_it_is_late_where_the_people_are(day: int, hour: int, off: bool) -> None:
    """By their clocks and weekdays."""
    made = rules(hours=["Mon-Fri 07:00-19:00 Europe/Berlin"])
    now = datetime(2026, 11, day, hour, 0, tzinfo=BERLIN).timestamp()
    assert rated(made, now=now) == (("medium", ("off_hours",)) if off else LOW)


def test_a_shift_may_pass_midnight() -> None:
    """It belongs to the day on which it begins."""
    made = rules(hours=["Fri 22:00-06:00 Europe/Berlin"])
    for day, hour, off in ((20, 23, False), (21, 5, False), (21, 6, True), (21, 23, True), (20, 5, True)):
        now = datetime(2026, 11, day, hour, 0, tzinfo=BERLIN).timestamp()
        assert (rated(made, now=now) is not LOW) == off


def test_a_clock_that_is_set_back_is_believed() -> None:
    """Whether it is late is looked at again."""
    made = rules(hours=["Mon-Fri 07:00-19:00 Europe/Berlin"])
    assert rated(made, now=NOON + 10 * 3600) != LOW
    assert rated(made, now=NOON) is LOW


def test_unusually_many_calls_are_risky() -> None:
    """Of one principal; nobody known has habits."""
    made = rules(volume={"window": "10s", "minimum": 5, "learn": 2})
    for window in range(3):
        for _ in range(4):
            assert rated(made, now=NOON + window * 10) is LOW
    last = [rated(made, now=NOON + 30).level for _ in range(21)]
    assert last == ["low"] * 20 + ["high"]
    assert rated(made, now=NOON + 30, who="") is LOW
    assert rated(made, now=NOON + 30, who="user:8") is LOW


def test_habits_outlive_a_change_of_the_rules() -> None:
    """What is usual is not learned anew."""
    old = rules(volume={"window": "10s", "minimum": 5, "learn": 1})
    rated(old, now=NOON)
    new = RiskRules(Risk(), old.habits)
    assert new.habits is old.habits


def test_rules_of_ones_own_name_methods_and_targets() -> None:
    """`*` fits anything, everything else stands for itself."""
    made = rules(
        rules=[
            {"name": "deletes", "methods": ["tools/call"], "targets": ["delete_*", "a[b]?"], "level": "critical"},
            {"name": "reads", "methods": ["resources/*"], "level": "medium"},
        ]
    )
    assert rated(made, aim=Aim("tools/call", "delete_all")) == ("critical", ("deletes",))
    assert rated(made, aim=Aim("tools/call", "a[b]?")) == ("critical", ("deletes",))
    assert rated(made, aim=Aim("tools/call", "abx")) is LOW
    assert rated(made, aim=Aim("prompts/get", "delete_all")) is LOW
    assert rated(made, aim=Aim("resources/read", "file:///x")) == ("medium", ("reads",))


def test_the_hints_that_hold_now_count() -> None:
    """Two servers may have a tool of one name, and a server may change its word."""
    made = rules()
    safe, grave = Hints(read_only=True), Hints(destructive=True)
    for _ in range(3):
        assert rated(made, safe) is LOW
        assert rated(made, grave).level == "high"
        assert rated(made, Hints(destructive=True)).level == "high"


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets come from clients; long ones are judged each time."""
    monkeypatch.setattr(module, "_MOST", 10)
    made = rules(rules=[{"name": "x", "targets": ["tool*"], "level": "high"}])
    for number in range(100):
        assert rated(made, aim=Aim("tools/call", f"tool{number}")).level == "high"
        assert rated(made, aim=Aim("tools/call", f"tool{number}" + "x" * 1000)).level == "high"
    assert len(made._known) <= 10
    assert len(made._last) <= 10


@given(
    st.builds(Hints, *[st.sampled_from((None, True, False))] * 4),
    st.booleans(),
    st.sampled_from(("", "forbidden", "unauthorized", "shed", "rate_limited")),
    st.floats(0, 4e9),
)
def test_every_verdict_has_a_level_and_reasons_of_its_own(hints: Hints, admin: bool, denied: str, now: float) -> None:
    """Low is what has no reason."""
    level, reasons = rated(rules(hours=["Mon 09:00-17:00"]), hints, admin=admin, denied=denied, now=now)
    assert level in LEVELS
    assert (level == "low") == (not reasons)
    assert len(set(reasons)) == len(reasons)
