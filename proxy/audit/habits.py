"""How often each principal usually calls, and whether it calls unusually often now.

Owns one small record per principal, in bounded number. Calls are counted in windows; what is usual is an exponentially
weighted mean over the windows in which there were calls, so that a quiet night makes nobody's morning unusual. What is
above the bound is learned only up to it: a flood does not become usual at once. A call costs one look-up.
"""

from __future__ import annotations

from math import inf
from typing import Final, Protocol

#: Share of the newest window in what is usual.
_NEWEST: Final = 0.2


class Unusual(Protocol):
    """How many calls are too many: `config.risk.Volume` is one; `Habits` says what it means."""

    @property
    def level(self) -> str:
        """How risky they are; `low`: nobody counts."""

    @property
    def window(self) -> float:
        """Seconds."""

    @property
    def factor(self) -> float:
        """Times what is usual."""

    @property
    def minimum(self) -> int:
        """Calls."""

    @property
    def learn(self) -> int:
        """Windows."""

    @property
    def principals(self) -> int:
        """Those who are remembered."""


class _Habit:
    __slots__ = ("count", "limit", "mean", "seen", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.count = 0
        self.limit = inf
        self.mean = 0.0
        #: Windows with calls that are over.
        self.seen = 0


class Habits:
    """The habits of all principals."""

    __slots__ = ("_factor", "_habits", "_learn", "_minimum", "_most", "_per_s")

    def __init__(self, window_s: float, factor: float, minimum: int, learn: int, most: int) -> None:
        """Unusual are more than `factor` times as many calls in `window_s` seconds as usual, and more than `minimum`;
        nothing is in the first `learn` windows of a principal. Of more than `most` principals, those that have called
        least recently are forgotten."""
        self._per_s = 1.0 / window_s
        self._factor = factor
        self._minimum = minimum
        self._learn = learn
        self._most = most
        self._habits: dict[str, _Habit] = {}

    def __len__(self) -> int:
        return len(self._habits)

    def exceeds(self, who: str, now: float) -> bool:
        """Count a call, `now` in seconds; whether it is one too many. 0.15 µs; 1 µs for the first of a window."""
        window = int(now * self._per_s)
        habit = self._habits.get(who)
        if habit is None or habit.window != window:
            habit = self._turn(who, habit, window)
        habit.count += 1
        return habit.count > habit.limit

    def _turn(self, who: str, habit: _Habit | None, window: int) -> _Habit:
        """A new window begins: learn from the last one, and be the most recent."""
        if habit is None:
            if len(self._habits) >= self._most:
                del self._habits[next(iter(self._habits))]
            habit = self._habits[who] = _Habit(window)
            return habit
        del self._habits[who]
        self._habits[who] = habit
        learned = min(float(habit.count), habit.limit)
        habit.mean += (learned - habit.mean) * (_NEWEST if habit.seen else 1.0)
        habit.seen += 1
        if habit.seen >= self._learn:
            habit.limit = max(float(self._minimum), self._factor * habit.mean)
        habit.window, habit.count = window, 0
        return habit
