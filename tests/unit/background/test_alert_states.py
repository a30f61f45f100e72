"""One alert: when it begins, when it ends, and that a value which dances around its threshold does not make it flap."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.background.alert_states import Ended, Rule, Track


def rule(**given: Any) -> Rule:
    """Above 10 it is bad, up to 8 it is good."""
    return Rule(
        **{
            "key": "k", "name": "n", "tenant": "t", "owner": "t", "metric": "p99_ms", "comparison": ">",
            "threshold": 10.0, "clear": 8.0, **given,
        }
    )  # fmt: skip


def told(track: Track, *values: float | None, step_s: float = 1.0) -> list[tuple[int, str]]:
    """What follows from values that are seen one after the other: number of the look, and what it said."""
    found: list[tuple[int, str]] = []
    for number, value in enumerate(values):
        outcome = track.take(value, number * step_s)
        if outcome is not None:
            found.append((number, outcome))
    return found


def test_an_alert_begins_with_the_first_bad_value_and_ends_with_the_first_good_one() -> None:
    """Without durations."""
    assert told(Track(rule()), 1, 10, 10.1, 12, 8, 1) == [(2, "firing"), (4, "clear")]


def test_between_the_thresholds_nothing_begins_and_nothing_ends() -> None:
    """Hysteresis."""
    assert told(Track(rule()), 9, 9, 11, 9, 9.9, 10, 8.1, 11, 9) == [(2, "firing")]


@pytest.mark.parametrize(
    ("comparison", "bad", "edge"), [(">", 10.1, 10), (">=", 10, 9.9), ("<", 9.9, 10), ("<=", 10, 10.1)]
)
def test_each_comparison_is_meant_as_it_is_written(comparison: str, bad: float, edge: float) -> None:
    """On the threshold itself, with no hysteresis at all."""
    watched = rule(comparison=comparison, clear=10.0)
    assert told(Track(watched), edge, bad, edge) == [(1, "firing"), (2, "clear")]


def test_a_bad_value_has_to_last() -> None:
    """One good look, or one without a value, and the wait begins anew."""
    waits = rule(for_s=3)
    assert told(Track(waits), 11, 11, 11, 9, 11, 11, 11) == []
    assert told(Track(waits), 11, 11, 11, None, 11, 11, 11) == []
    assert told(Track(waits), 11, 11, 11, nan, 11, 11, 11, 11) == [(7, "firing")]


def test_a_good_value_has_to_last() -> None:
    """Between the thresholds the wait for the end begins anew, too."""
    keeps = rule(keep_firing_s=3)
    assert told(Track(keeps), 11, 1, 1, 1, 9, 1, 1, 1, 1) == [(0, "firing"), (8, "clear")]


def test_a_missing_value_ends_an_alert_only_when_it_is_missing_for_long() -> None:
    """A minute, or the window if that is longer."""
    assert told(Track(rule(window_s=5)), 11, *([None] * 59), 11, *([None] * 60)) == [(0, "firing"), (120, "missing")]
    assert told(Track(rule(window_s=90)), 11, *([inf] * 90)) == [(0, "firing"), (90, "missing")]


def test_a_restless_alert_ends_only_after_ten_good_minutes() -> None:
    """When it has begun thirty times within an hour; it is forgiven."""
    track = Track(rule())
    assert len(told(track, *([11, 1] * 30))) == 59
    assert track.phase == "firing"
    assert [track.take(1, 59 + after_s) for after_s in (1, 599, 600)] == [None, None, "clear"]
    assert (track.take(11, 3600), track.take(1, 3601)) == ("firing", None)
    assert track.take(1, 3601 + 600) == "clear"
    assert (track.take(11, 5000), track.take(1, 5001)) == ("firing", "clear")


def test_a_new_threshold_holds_at_once() -> None:
    """The state is kept."""
    track = Track(rule())
    assert track.take(11, 0) == "firing"
    track.rule = rule(threshold=20.0, clear=16.0)
    assert track.take(11, 1) == "clear"


VALUES = st.lists(st.one_of(st.none(), st.floats(0, 20), st.sampled_from([8.0, 10.0])), max_size=80)


@given(VALUES, st.integers(0, 5), st.integers(0, 5))
def test_beginnings_and_ends_take_turns_and_each_has_lasted(values: list[float | None], for_s: int, keep: int) -> None:
    """Against a description of the rule that knows the whole past."""
    track, fires = Track(rule(for_s=for_s, keep_firing_s=keep)), False
    for now, value in enumerate(values):
        outcome: Ended | str | None = track.take(value, now)
        if outcome == "firing":
            assert not fires
            past = values[now - for_s : now + 1]
            assert len(past) == for_s + 1 and all(each is not None and each > 10 for each in past)
        elif outcome == "clear":
            assert fires
            seen = [each for each in values[now - keep : now + 1] if each is not None]
            assert seen and value is not None and all(each <= 8 for each in seen)
        fires = track.phase == "firing"
        assert outcome is None or fires == (outcome == "firing")


@given(st.lists(st.floats(8.01, 20), min_size=1, max_size=200))
def test_a_value_that_dances_around_the_threshold_begins_one_alert_at_most(values: list[float]) -> None:
    """As long as it does not come down to the clear threshold."""
    assert len(told(Track(rule()), *values)) <= 1


@given(st.lists(st.floats(0, 20), min_size=1, max_size=200), st.integers(1, 30))
def test_whatever_a_value_does_it_fires_no_more_often_than_once_in_the_durations(
    values: list[float], lasts: int
) -> None:
    """Each alert takes the wait for its begin and the one for its end."""
    outcomes = told(Track(rule(for_s=lasts, keep_firing_s=lasts)), *values)
    assert sum(what == "firing" for _, what in outcomes) <= len(values) / (2 * lasts) + 1
