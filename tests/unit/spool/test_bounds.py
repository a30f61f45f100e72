"""Bounds of the spool."""

from __future__ import annotations

from proxy.spool.bounds import Bounds


def test_a_small_spool_has_small_segments_and_a_small_reserve() -> None:
    """Something of it can be deleted, and most of it is for beginnings."""
    bounds = Bounds(total=1 << 20)
    assert bounds.file == 256 << 10
    assert bounds.reserve == 64 << 10
    assert bounds.refusals == 512 << 10


def test_a_large_spool_has_segments_as_they_are_asked_for() -> None:
    """The reserve is no larger than a segment of ordinary size."""
    bounds = Bounds(total=1 << 40, segment=1 << 20)
    assert bounds.file == 1 << 20
    assert bounds.reserve == 16 << 20


def test_a_disk_that_is_smaller_is_the_bound() -> None:
    """It leaves the rest as it was; one without any room is no reason to divide by zero."""
    bounds = Bounds(total=1 << 30, ring=5)
    assert bounds.on(1 << 30) is bounds
    assert bounds.on(1 << 20) == Bounds(total=1 << 20, ring=5)
    assert bounds.on(0).total == 1
