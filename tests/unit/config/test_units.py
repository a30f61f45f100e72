"""Durations, sizes, time windows and revision ranges."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.units import RevisionRange, TimeWindow, duration_s, duration_text, size_bytes, size_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("200ms", 0.2),
        ("5s", 5),
        ("1.5s", 1.5),
        ("15m", 900),
        ("1h", 3600),
        ("7d", 604800),
        (0, 0),
        (0.0, 0),
        ("0", 0),
        ("0s", 0),
    ],
)
def test_a_duration_is_read_in_seconds(text: object, seconds: float) -> None:
    """A number with a unit, or 0."""
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "5", 5, 1.5, "5 s", "-5s", "+5s", "5S", "1e3s", "5s5s", "5s\n", "\u0665s", True, False, None, [], {}, "3651d"],
)
def test_other_durations_are_refused(text: object) -> None:
    """A bare number would be read as seconds by some and as milliseconds by others."""
    with pytest.raises(ValueError, match="a duration is"):
        duration_s(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [(0, 0), (512, 512), ("512", 512), ("512B", 512), ("64KiB", 65536), ("4MiB", 4 << 20), ("1GiB", 1 << 30)],
)
def test_a_size_is_read_in_bytes(text: object, size: int) -> None:
    """With or without a unit."""
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "4MB", "4 MiB", "4.5MiB", 4.5, -1, "-1", True, None, [], "4mib", "\u0664MiB"])
def test_other_sizes_are_refused(text: object) -> None:
    """MB would leave open whether 1000 or 1024 is meant."""
    with pytest.raises(ValueError, match="a size is"):
        size_bytes(text)


@given(st.integers(0, 10 * 365 * 86_400_000))
def test_a_duration_written_back_is_the_same(milliseconds: int) -> None:
    """Whatever unit it comes back in."""
    assert duration_s(duration_text(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


@given(st.integers(0, 1 << 40))
def test_a_size_written_back_is_the_same(size: int) -> None:
    """Whatever unit it comes back in."""
    if len(size_text(size)) <= 12:
        assert size_bytes(size_text(size)) == size


def test_values_are_written_back_in_their_largest_unit() -> None:
    """As people would."""
    assert [duration_text(value) for value in (0, 0.25, 5, 75, 900, 604800)] == ["0", "250ms", "5s", "75s", "15m", "7d"]
    assert [size_text(value) for value in (0, 1000, 8192, 4 << 20, 1 << 30)] == ["0", "1000", "8KiB", "4MiB", "1GiB"]


def at(hour: int, minute: int = 0) -> datetime:
    """A moment of 1 July 2026, UTC."""
    return datetime(2026, 7, 1, hour, minute, tzinfo=UTC)


def test_a_window_includes_its_start_and_excludes_its_end() -> None:
    """So that two windows that meet leave no gap and no overlap."""
    window = TimeWindow.parse("09:00-17:00")
    assert [window.holds(at(*moment)) for moment in ((8, 59), (9,), (16, 59), (17,))] == [False, True, True, False]


def test_a_window_may_pass_midnight() -> None:
    """It then holds late and early."""
    window = TimeWindow.parse("22:00-06:00")
    assert [window.holds(at(*moment)) for moment in ((21, 59), (22,), (0,), (5, 59), (6,))] == [
        False,
        True,
        True,
        True,
        False,
    ]


def test_a_window_is_in_its_zone() -> None:
    """22:00 in Berlin is 20:00 UTC in summer."""
    window = TimeWindow.parse("22:00-06:00 Europe/Berlin")
    assert [window.holds(at(*moment)) for moment in ((19, 59), (20,), (3, 59), (4,))] == [False, True, True, False]
    assert TimeWindow.parse(window) is window


@pytest.mark.parametrize("text", ["", "9:00-17:00", "09:00", "09:00-17:00Z", "24:00-01:00", "09:00-09:00", None, 5, []])
def test_other_windows_are_refused(text: object) -> None:
    """With one sentence that says why."""
    with pytest.raises(ValueError, match="a time window"):
        TimeWindow.parse(text)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("2025-06-18", [False, True, False]),
        ("=2025-06-18", [False, True, False]),
        (">=2025-06-18", [False, True, True]),
        (">2025-06-18", [False, False, True]),
        ("<=2025-06-18", [True, True, False]),
        ("<2025-06-18", [True, False, False]),
    ],
)
def test_revisions_compare_as_dates(text: str, holds: list[bool]) -> None:
    """A revision is the day it was agreed on."""
    wanted = RevisionRange.parse(text)
    assert [wanted.holds(revision) for revision in ("2025-03-26", "2025-06-18", "2025-11-25")] == holds
    assert RevisionRange.parse(wanted) is wanted


@pytest.mark.parametrize("text", ["", "2025", "latest", "=>2025-06-18", "2025-06-18 ", None, 5, [], {}])
def test_other_revisions_are_refused(text: object) -> None:
    """A typo must not match nothing silently."""
    with pytest.raises(ValueError, match="a protocol revision looks like"):
        RevisionRange.parse(text)
