"""Windows that come back, held against the clocks of a zone read minute by minute."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from proxy.config.units import Recurrence
from proxy.dataplane.recurrence import Span, Window

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
ALWAYS = Span(float("-inf"), float("inf"))

#: Days on which something about the clocks is odd, and one on which nothing is.
ODD_DAYS = [
    ("Europe/Berlin", date(2026, 3, 29)),  # 02:00 -> 03:00
    ("Europe/Berlin", date(2026, 10, 25)),  # 03:00 -> 02:00
    ("America/New_York", date(2026, 3, 8)),
    ("America/New_York", date(2026, 11, 1)),
    ("America/Sao_Paulo", date(2018, 11, 4)),  # 00:00 -> 01:00: the day has no midnight
    ("America/Sao_Paulo", date(2019, 2, 16)),  # 24:00 -> 23:00: two hours before midnight
    ("Australia/Lord_Howe", date(2026, 10, 4)),  # half an hour
    ("Australia/Lord_Howe", date(2026, 4, 5)),
    ("Africa/Casablanca", date(2026, 2, 15)),  # Ramadan
    ("Pacific/Apia", date(2011, 12, 30)),  # a Friday that never was
    ("Asia/Kathmandu", date(2026, 6, 1)),
    ("UTC", date(2026, 6, 1)),
]  # fmt: skip


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def every(text: str) -> Window:
    return Window("w", 0.0, ALWAYS, Recurrence.parse(text))


class Clocks:
    """What the clocks of a zone show, minute by minute, for a few days around one."""

    def __init__(self, zone: str, around: date) -> None:
        middle = datetime.combine(around, time(12), tzinfo=UTC).timestamp()
        self.minutes = [middle + number * MINUTE for number in range(-5 * 1440, 5 * 1440)]
        self.shown = [
            datetime.fromtimestamp(each, UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None) for each in self.minutes
        ]

    def first(self, wall: datetime) -> float:
        """When they first show this time or a later one."""
        return next(each for each, shown in zip(self.minutes, self.shown, strict=True) if shown >= wall)

    def spans(self, when: Recurrence, around: date) -> list[tuple[float, float]]:
        """The occurrences of three days on each side."""
        found = []
        for number in range(-3, 4):
            day = around + timedelta(days=number)
            begins = datetime.combine(day, when.start)
            ends = datetime.combine(day, when.end) + timedelta(days=when.end <= when.start)
            start, end = self.first(begins), self.first(ends)
            if end == start:
                end = start + (ends - begins).total_seconds()
            if day.weekday() in when.days:
                found.append((start, end))
        return found


_CLOCKS: dict[tuple[str, date], Clocks] = {}


def clocks(zone: str, around: date) -> Clocks:
    """Made once for all examples."""
    if (zone, around) not in _CLOCKS:
        _CLOCKS[zone, around] = Clocks(zone, around)
    return _CLOCKS[zone, around]


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(ODD_DAYS),
    st.times().map(lambda each: each.replace(second=0, microsecond=0)),
    st.times().map(lambda each: each.replace(second=0, microsecond=0)),
    st.sets(st.integers(0, 6), min_size=1),
    st.lists(st.integers(-36 * 60, 36 * 60), min_size=1, max_size=8),
)
def test_occurrences_are_those_of_the_clocks(
    odd: tuple[str, date], start: time, end: time, days: set[int], minutes: list[int]
) -> None:
    """Whatever the zone does, and in whatever order it is asked."""
    assume(start != end)
    zone, around = odd
    when = Recurrence(frozenset(days), start, end, ZoneInfo(zone))
    expected = clocks(zone, around).spans(when, around)
    window = Window("w", 0.0, ALWAYS, when)
    middle = datetime.combine(around, time(12), tzinfo=UTC).timestamp()
    for minute in minutes:
        moment = middle + minute * MINUTE
        later = [span for span in expected if span[1] > moment]
        for found in (window.at(moment), window.find(moment)):
            assert found is not None
            if later:
                assert (found.start, found.end) == later[0]
            else:  # further away than was looked
                assert found.start > moment + DAY


@pytest.mark.parametrize(
    ("text", "asked", "start", "end"),
    [
        ("Sun 02:00-04:00 Europe/Berlin", "2026-11-22T00:00Z", "2026-11-22T01:00Z", "2026-11-22T03:00Z"),
        ("Sun 02:00-04:00 Europe/Berlin", "2026-11-22T03:00Z", "2026-11-29T01:00Z", "2026-11-29T03:00Z"),
        # Begins in the hour that is skipped: when the clocks are set; what was left of it is left.
        ("02:30-04:00 Europe/Berlin", "2026-03-29T00:30Z", "2026-03-29T01:00Z", "2026-03-29T02:00Z"),
        # Lies in it as a whole: as long as it would have been.
        ("02:10-02:40 Europe/Berlin", "2026-03-29T00:30Z", "2026-03-29T01:00Z", "2026-03-29T01:30Z"),
        # In the hour that comes twice: the first time, and not the second.
        ("02:10-02:40 Europe/Berlin", "2026-10-24T12:00Z", "2026-10-25T00:10Z", "2026-10-25T00:40Z"),
        ("02:10-02:40 Europe/Berlin", "2026-10-25T01:20Z", "2026-10-26T01:10Z", "2026-10-26T01:40Z"),
        # Around it: an hour longer.
        ("01:00-04:00 Europe/Berlin", "2026-10-24T12:00Z", "2026-10-24T23:00Z", "2026-10-25T03:00Z"),
        # Past midnight, by the day on which it begins.
        ("Sat 23:00-01:00", "2026-11-22T00:30Z", "2026-11-21T23:00Z", "2026-11-22T01:00Z"),
        ("Sun 23:00-01:00", "2026-11-22T00:30Z", "2026-11-22T23:00Z", "2026-11-23T01:00Z"),
    ],
)
def test_an_occurrence_is_where_people_expect_it(text: str, asked: str, start: str, end: str) -> None:
    """With the days and hours that zones skip or repeat."""
    assert every(text).at(at(asked)) == (at(start), at(end))


def test_a_window_once_is_its_bounds_until_it_is_over() -> None:
    """The end is not part of it."""
    window = Window("w", 0.0, Span(100.0, 200.0))
    assert window.at(0.0) == window.at(199.9) == (100.0, 200.0)
    assert window.at(200.0) is None
    assert window.at(150.0) == (100.0, 200.0)


def test_what_recurs_is_cut_to_its_bounds() -> None:
    """Nothing before, nothing after, and the parts that lie inside."""
    first, last = at("2026-11-22T02:30Z"), at("2026-11-24T02:10Z")
    window = Window("w", 0.0, Span(first, last), Recurrence.parse("02:00-03:00"))
    assert window.at(0.0) == window.at(first) == (first, at("2026-11-22T03:00Z"))
    assert window.at(at("2026-11-22T03:00Z")) == (at("2026-11-23T02:00Z"), at("2026-11-23T03:00Z"))
    assert window.at(at("2026-11-23T03:00Z")) == (at("2026-11-24T02:00Z"), last)
    assert window.at(last) is None
    assert Window("w", 0.0, Span(first, first + HOUR), Recurrence.parse("05:00-06:00")).at(first) is None
