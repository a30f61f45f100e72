"""How large a connection pool should be: the control law, and what is recommended for the bound that people set.

Pure arithmetic over numbers that others measure; no clock, no I/O.

The law, for a pool between `least` and `most`; demand is what was in use or waited at the same time:
- Growth is immediate. Who would wait while the pool is below `most` makes it grow to `grown(demand)`, 1.5 times the
  demand, and does not wait (`connector.Slots`). So nobody ever waits whom a pool of `most` would have served at once.
- Shrinking is slow. A step each second looks at the highest demand of the last minute: a pool larger than 1.5 times
  that loses a tenth of itself, at least 1, and never goes below 1.5 times that demand.
- Under constant demand the pool stands still: both aim at the same size.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal, NamedTuple

Advice = Literal["raise", "lower", "keep"]

#: Steps whose highest demand the pool stays fit for: a minute of them.
_REMEMBERED: Final = 60
#: Minutes that a recommendation looks back on.
_MINUTES: Final = 60
_MINUTE_S: Final = 60.0
#: A pool of which never more than this percentage was in use could be lower. Well below 1/1.5, so that whoever follows
#: the recommendation is not told the opposite next.
_LOW_PERCENT: Final = 50
#: A bound that is lower than this is worth no one's attention.
_SMALL: Final = 10


def grown(demand: int, most: int) -> int:
    """The size that `demand` asks for."""
    return min(most, (3 * demand + 1) // 2)


def shrunk(size: int, demand: int, least: int, most: int) -> int:
    """The next size of a pool after a time of at most this demand; more when the demand asks for more."""
    target = max(least, grown(demand, most))
    return target if size <= target else max(target, size - max(1, size // 10))


class Sizing:
    """The size of one pool over time. One `step` each second or so."""

    __slots__ = ("_least", "_most", "_recent")

    def __init__(self, least: int, most: int) -> None:
        self._least = least
        self._most = most
        self._recent: deque[int] = deque(maxlen=_REMEMBERED)

    def step(self, size: int, demand: int) -> int:
        """The size from now on; `demand` is the highest since the last step."""
        if self._least == self._most:
            return self._most
        self._recent.append(demand)
        return shrunk(size, max(self._recent), self._least, self._most)


class Recommendation(NamedTuple):
    """What to do with the bound of a pool."""

    advice: Advice
    size: int
    """The bound that the demand suggests."""
    reason: str


class _Minute(NamedTuple):
    demand: int
    refused: int


class Outlook:
    """What the demand of the last hour says about the bound of one pool."""

    __slots__ = ("_began_at", "_bound", "_least", "_minute", "_minute_began_at", "_past")

    def __init__(self, least: int, bound: int, now: float) -> None:
        """`least`: what is never recommended to go below. `now`: seconds of any clock that goes forward."""
        self._least = least
        self._bound = bound
        self._began_at = self._minute_began_at = now
        self._minute = _Minute(0, 0)
        self._past: deque[_Minute] = deque(maxlen=_MINUTES)

    def see(self, now: float, demand: int, refused: int) -> bool:
        """The highest demand since the last look, and how many had to wait at the bound since then. Whether that can
        change the recommendation."""
        changed = False
        if now - self._minute_began_at >= (_MINUTES + 1) * _MINUTE_S:  # nobody looked for more than an hour
            self._past.clear()
            self._minute, self._minute_began_at, changed = _Minute(0, 0), now, True
        while now - self._minute_began_at >= _MINUTE_S:
            self._past.append(self._minute)
            self._minute, self._minute_began_at = _Minute(0, 0), self._minute_began_at + _MINUTE_S
            changed = True
        if demand > self._minute.demand or refused:
            self._minute = _Minute(max(self._minute.demand, demand), self._minute.refused + refused)
            changed = True
        return changed

    def recommendation(self, now: float) -> Recommendation:
        """For the bound that is set."""
        bound = self._bound
        demand = max((minute.demand for minute in self._past), default=0)
        demand = max(demand, self._minute.demand)
        refused = sum(minute.refused for minute in self._past) + self._minute.refused
        suggested = max(self._least, (3 * demand + 1) // 2)
        if refused:
            reason = f"{refused} waited in the last hour because all {bound} connections were in use"
            return Recommendation("raise", max(suggested, bound + 1), reason)
        if now - self._began_at < _MINUTES * _MINUTE_S:
            return Recommendation("keep", bound, "not watched for an hour yet")
        if not demand:
            return Recommendation("keep", bound, "not used in the last hour")
        if 100 * demand <= _LOW_PERCENT * bound and max(suggested, _SMALL) < bound:
            reason = f"never more than {demand} of {bound} connections were in use in the last hour"
            return Recommendation("lower", max(suggested, _SMALL), reason)
        return Recommendation("keep", bound, f"up to {demand} of {bound} connections were in use in the last hour")
