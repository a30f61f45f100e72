"""One alert: when a value is not well for long enough it fires, and it ends when the value is well for long enough.

Owns what a rule is, and the states (ok, pending, firing) with their hysteresis. Pure: no I/O, the time is given.

- A value that is not well begins the wait (`for_s`); one that is not, or none at all, ends it.
- A firing alert ends when its value was well for `keep_firing_s` without a break. Between the two thresholds nothing
  begins and nothing ends. A missing value ends nothing until it was missing for `window_s`, a minute at least.
- One that has begun 30 times within an hour is restless: it ends only when its value was well for ten minutes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from operator import ge, gt, le, lt
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from uuid import UUID


Status = Literal["firing", "resolved"]
Phase = Literal["ok", "pending", "firing"]
Ended = Literal["clear", "missing", "removed", "stopped"]
"""Why an alert ended: its value is well, there is none any more, its rule is gone or another, this process ends."""

#: A firing alert ends without a value after its window, but not sooner; seconds.
_MISSING_S: Final = 60.0
#: So many begins within so long are too many; then the value has to be well for so long. Times in seconds.
_RESTLESS_BEGINS: Final = 30
_RESTLESS_WITHIN_S: Final = 3600.0
_RESTLESS_KEEP_S: Final = 600.0
_COMPARE: Final[Mapping[str, Callable[[float, float], bool]]] = {">": gt, ">=": ge, "<": lt, "<=": le}


@dataclass(frozen=True, slots=True)
class Rule:
    """What is watched, with everything decided; times in seconds."""

    key: str
    """Its identity: the id of its row, or `file:` and its name."""
    name: str
    tenant: str
    """Id of the tenant that owns it."""
    owner: str
    """Its short name."""
    metric: str
    comparison: str
    threshold: float
    clear: float
    """The value is well here and beyond."""
    server: str = ""
    """Id of a server's row, or its name for one of the configuration file; '' for all."""
    window_s: float = 300.0
    min_requests: int = 0
    for_s: float = 0.0
    keep_firing_s: float = 0.0
    cooldown_s: float = 900.0
    severity: str = "medium"
    channels: tuple[str, ...] | None = None
    """Names of the webhooks that are told; None for all of them, of a rule of the operator."""

    @property
    def watched(self) -> tuple[str, str, str, str]:
        """Of two rules with the same, one replaces the other without ending an alert."""
        return (self.key, self.metric, self.server, self.comparison)

    def is_bad(self, value: float | None) -> bool:
        """Whether an alert waits for, or fires at, such a value."""
        return value is not None and isfinite(value) and _COMPARE[self.comparison](value, self.threshold)


@dataclass(slots=True)
class Episode:
    """One time that an alert fired. Times are seconds since 1970."""

    id: UUID
    rule: Rule
    series: str
    """Which of the rule's series, such as a server; '' where there is only one."""
    instance: str
    started_at: float
    value: float
    """That it began with, later the last one that was seen."""
    resolved_at: float | None = None
    ended: Ended | None = None


class Notice(NamedTuple):
    """That an alert began or ended."""

    id: UUID
    status: Status
    at: float
    """Seconds since 1970."""
    episode: Episode


@dataclass(slots=True)
class Track:
    """The state of one series. Times are monotonic."""

    rule: Rule
    phase: Phase = "ok"
    value: float | None = None
    since: float = 0.0
    """When the wait began."""
    seen_at: float = 0.0
    """When there was a value."""
    well_since: float | None = None
    """Since when a firing one is well; None while it is not."""
    episode: Episode | None = field(default=None, repr=False)
    told: bool = False
    """Whether somebody was notified of this episode."""
    quiet_until: float = 0.0
    """Until when a begin is not told."""
    begins: deque[float] = field(default_factory=lambda: deque(maxlen=_RESTLESS_BEGINS), repr=False)
    """When it began the last times."""

    def take(self, value: float | None, now: float) -> Ended | Literal["firing"] | None:
        """The value now, None for none; what follows, if anything does."""
        self.value = value if value is not None and isfinite(value) else None
        if self.value is None:
            return self._missed(now)
        self.seen_at = now
        bad = self.rule.is_bad(self.value)
        if self.phase == "firing":
            return self._while_firing(not bad and self._is_clear(self.value), now)
        if not bad:
            self.phase = "ok"
            return None
        if self.phase == "ok":
            self.phase, self.since = "pending", now
        if now - self.since < self.rule.for_s:
            return None
        self.phase, self.well_since = "firing", None
        self.begins.append(now)
        return "firing"

    def is_over(self, now: float) -> bool:
        """Whether nothing is left of it that a new one would not have, too."""
        rested = not self.begins or now - self.begins[-1] >= _RESTLESS_WITHIN_S
        return self.phase == "ok" and now >= self.quiet_until and rested

    def end(self) -> None:
        """It fires no more."""
        self.phase, self.well_since = "ok", None

    def _is_clear(self, value: float) -> bool:
        rule = self.rule
        return value <= rule.clear if rule.comparison.startswith(">") else value >= rule.clear

    def _while_firing(self, well: bool, now: float) -> Ended | None:
        if not well:
            self.well_since = None
            return None
        if self.well_since is None:
            self.well_since = now
        restless = len(self.begins) == _RESTLESS_BEGINS and now - self.begins[0] < _RESTLESS_WITHIN_S
        if now - self.well_since < max(self.rule.keep_firing_s, _RESTLESS_KEEP_S if restless else 0.0):
            return None
        self.end()
        return "clear"

    def _missed(self, now: float) -> Ended | None:
        if self.phase != "firing":
            self.phase = "ok"
            return None
        if now - self.seen_at < max(_MISSING_S, self.rule.window_s):
            return None
        self.end()
        return "missing"
