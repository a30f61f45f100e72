"""When a window is: once, or again and again by the clocks of a time zone, which are set forward and back.

Owns the arithmetic, in seconds since 1970. It knows nothing of servers.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from proxy.config.units import Recurrence

_DAY: Final = timedelta(days=1)
#: Occurrences that are not worked out again, 30 µs each: rows are read anew with every change of one of them.
_REMEMBERED: Final = 8192


class Span(NamedTuple):
    """One occurrence of a window: the begin is part of it, the end is not."""

    start: float
    end: float


class Window:
    """One window, once or recurring."""

    __slots__ = ("_asked_at", "_bounds", "_every", "_known", "drain_s", "title")

    def __init__(self, title: str, drain_s: float, bounds: Span, every: Recurrence | None = None) -> None:
        """`bounds`: the window or, when it recurs, what its occurrences are cut to."""
        self.title = title
        self.drain_s = drain_s
        self._bounds = bounds
        self._every = every
        #: The answer of last time, and from when on it holds.
        self._asked_at, self._known = inf, Span(0.0, 0.0)

    def at(self, moment: float) -> Span | None:
        """The occurrence that is under way, or else the next one; None when there is none any more."""
        if self._asked_at <= moment < self._known.end:
            return self._known
        found = self.find(moment)
        if found is not None:
            self._asked_at, self._known = moment, found
        return found

    def find(self, moment: float) -> Span | None:
        """The same, worked out anew."""
        first, last = self._bounds
        if moment >= last:
            return None
        if self._every is None:
            return self._bounds
        span = next(span for span in _occurrences(self._every, max(moment, first)) if span.end > max(moment, first))
        cut = Span(max(span.start, first), min(span.end, last))
        return cut if cut.start < cut.end else None


def _occurrences(every: Recurrence, moment: float) -> Iterator[Span]:
    """In order, from one that is over by `moment` on, or begins after it."""
    day = datetime.fromtimestamp(moment, every.zone).date() - 2 * _DAY
    while True:
        if day.weekday() in every.days:
            yield _occurrence(every, day)
        day += _DAY


@lru_cache(maxsize=_REMEMBERED)
def _occurrence(every: Recurrence, day: date) -> Span:
    """The one that begins on `day`. Where the clocks are set forward over its begin or end, that is the moment at which
    they are; where they are set back, the hour that comes twice counts the first time. One that lies in the skipped
    hour as a whole lasts as long as it would have."""
    begins = datetime.combine(day, every.start)
    ends = datetime.combine(day if every.start < every.end else day + _DAY, every.end)
    start, end = _instant(begins, every), _instant(ends, every)
    return Span(start, end if end > start else start + (ends - begins).total_seconds())


def _instant(shown: datetime, every: Recurrence) -> float:
    """When the clocks of the zone first show this time, or a later one."""
    local = shown.replace(tzinfo=every.zone)
    late, early = (int(local.replace(fold=fold).timestamp()) for fold in (0, 1))

    def reached(second: int) -> bool:
        return datetime.fromtimestamp(second, every.zone).replace(tzinfo=None) >= shown

    if late <= early:  # not skipped: both are the same, or this is the first of two
        return late
    while late - early > 1:  # the clocks were set forward in between
        middle = (early + late) // 2
        early, late = (early, middle) if reached(middle) else (middle, late)
    return late
