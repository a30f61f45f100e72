"""How risky a call is, and why: a level, and the words that gave rise to it.

Owns the rules. What depends on the method, its target and the hints of its server alone is decided once and remembered;
besides, a call costs one look at the time and one count (`habits.py`). The level is the highest of all reasons, and one
more when two reasons share it. Hints are a server's own word: what a tool really does, rules of one's own have to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta, tzinfo
from fnmatch import translate
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

from proxy.audit.habits import Habits, Unusual

LEVELS: Final = ("low", "medium", "high", "critical")
_RANK: Final = {level: rank for rank, level in enumerate(LEVELS)}
#: Verdicts on methods and targets that are remembered, and characters of a target beyond which none is.
_MOST: Final = 10_000
_LONGEST: Final = 256
#: Whether it is off-hours is looked at so often, seconds.
_LOOK_S: Final = 60.0
_CALL: Final = "tools/call"

Reason = tuple[int, str]
"""Rank of a level, and a fixed word or the name of a rule."""


class Aim(Protocol):
    """What a call is aimed at: a message of an envelope is one."""

    method: str
    target: str


class Hints(Protocol):
    """What a server says of a tool (MCP `ToolAnnotations`); None: nothing."""

    @property
    def read_only(self) -> bool | None:
        """It changes nothing."""

    @property
    def destructive(self) -> bool | None:
        """It may destroy something."""

    @property
    def open_world(self) -> bool | None:
        """It reaches beyond its server."""


class Window(Protocol):
    """A time that comes back: `config.units.Recurrence` is one."""

    @property
    def days(self) -> frozenset[int]:
        """Weekdays on which it begins; Monday is 0."""

    @property
    def start(self) -> time:
        """When it begins."""

    @property
    def end(self) -> time:
        """When it ends; before its begin: on the next day."""

    @property
    def zone(self) -> tzinfo:
        """Where."""


class Rule(Protocol):
    """A rule of one's own: `config.risk.RiskRule` is one."""

    @property
    def name(self) -> str:
        """Its word among the reasons."""

    @property
    def level(self) -> str:
        """How risky what fits is."""

    @property
    def methods(self) -> tuple[str, ...]:
        """What fits, `*` being anything; none: every method."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The same of targets."""


class Settings(Protocol):
    """The levels of all reasons: `config.risk.Risk` is one, and says what each means."""

    @property
    def destructive(self) -> str:
        """Of a tool that may destroy something."""

    @property
    def open_world(self) -> str:
        """Of one that reaches beyond its server."""

    @property
    def unhinted(self) -> str:
        """Of one of which nothing is said."""

    @property
    def admin(self) -> str:
        """Of somebody who may administer."""

    @property
    def denied(self) -> str:
        """Of a refusal."""

    @property
    def denials(self) -> Mapping[str, str]:
        """Of a refusal for this reason."""

    @property
    def hours(self) -> Sequence[Window]:
        """Work; none: always."""

    @property
    def off_hours(self) -> str:
        """Of any other time."""

    @property
    def volume(self) -> Unusual:
        """Of too many calls."""

    @property
    def combine(self) -> bool:
        """Whether two reasons of a level make the next."""

    @property
    def rules(self) -> Sequence[Rule]:
        """Those of one's own."""


class Verdict(NamedTuple):
    """How risky a call is."""

    level: str
    reasons: tuple[str, ...]
    """The gravest first."""


LOW: Final = Verdict("low", ())


class RiskRules:
    """The rules of one configuration, and what they remember."""

    __slots__ = (
        "_combine",
        "_config",
        "_habits",
        "_known",
        "_last",
        "_look_after",
        "_look_at",
        "_off",
        "_rules",
        "_volume",
    )

    def __init__(self, config: Settings, habits: Habits | None = None) -> None:
        """`habits` are those of the rules that these replace, to go on with."""
        volume = config.volume
        self._config = config
        self._combine = config.combine
        self._volume = _RANK[volume.level]
        self._habits = habits or Habits(volume.window, volume.factor, volume.minimum, volume.learn, volume.principals)
        self._rules = [
            ((_RANK[rule.level], rule.name), _pattern(rule.methods), _pattern(rule.targets)) for rule in config.rules
        ]
        self._known: dict[tuple[str, str, Hints | None], tuple[Reason, ...]] = {}
        #: The same for the hints that came last: the very object, which need not be hashed.
        self._last: dict[tuple[str, str], tuple[Hints | None, tuple[Reason, ...]]] = {}
        #: Whether it is off-hours, since when that is known, and when to look again.
        self._off: tuple[Reason, ...] = ()
        self._look_after = self._look_at = 0.0

    @property
    def habits(self) -> Habits:
        """For the rules that replace these, when `volume` stays as it is."""
        return self._habits

    def assess(self, aim: Aim | None, hints: Hints | None, who: str, admin: bool, denied: str, now: float) -> Verdict:
        """Rate a request. `hints` of the tool that it calls, `who` asks ('' for nobody known), `admin`: it may
        administer, `denied`: the reason of its refusal or '', `now`: seconds since 1970. 0.4 µs when it is low."""
        reasons: tuple[Reason, ...] = ()
        if aim is not None:
            last = self._last.get((aim.method, aim.target))
            reasons = last[1] if last is not None and last[0] is hints else self._recalled(aim, hints)
        if not self._look_after <= now < self._look_at:
            self._look(now)
        if self._volume and who and self._habits.exceeds(who, now):
            reasons = (*reasons, (self._volume, "volume"))
        if denied:
            reasons = (*reasons, *self._of_refusal(denied))
        if admin:
            reasons = (*reasons, *_if_any(_RANK[self._config.admin], "admin"))
        if self._off:
            reasons += self._off
        return _verdict(reasons, self._combine) if reasons else LOW

    def _of_refusal(self, denied: str) -> tuple[Reason, ...]:
        return _if_any(_RANK[self._config.denials.get(denied, self._config.denied)], "denied")

    def _recalled(self, aim: Aim, hints: Hints | None) -> tuple[Reason, ...]:
        """What was decided of hints like these, or is now."""
        method, target = aim.method, aim.target
        if len(target) > _LONGEST:
            return self._decided(method, target[:_LONGEST], hints)
        if len(self._known) >= _MOST:
            self._known.clear()
            self._last.clear()
        reasons = self._known.get((method, target, hints))
        if reasons is None:
            reasons = self._known[method, target, hints] = self._decided(method, target, hints)
        self._last[method, target] = hints, reasons
        return reasons

    def _decided(self, method: str, target: str, hints: Hints | None) -> tuple[Reason, ...]:
        found: list[Reason] = []
        if method == _CALL:
            found += self._of_hints(hints)
        for reason, methods, targets in self._rules:
            if reason[0] and methods.fullmatch(method) and targets.fullmatch(target):
                found.append(reason)
        return tuple(found)

    def _of_hints(self, hints: Hints | None) -> tuple[Reason, ...]:
        """Of a tool that is read-only the other hints mean nothing (MCP 2025-11-25, schema, `ToolAnnotations`)."""
        if hints is None or (hints.read_only is None and hints.destructive is None and hints.open_world is None):
            return _if_any(_RANK[self._config.unhinted], "unhinted")
        if hints.read_only:
            return ()
        found: tuple[Reason, ...] = ()
        if hints.destructive:
            found = _if_any(_RANK[self._config.destructive], "destructive")
        return found + _if_any(_RANK[self._config.open_world], "open_world") if hints.open_world else found

    def _look(self, now: float) -> None:
        """Off-hours begin and end with a minute."""
        self._look_after = now - now % _LOOK_S
        self._look_at = self._look_after + _LOOK_S
        hours = self._config.hours
        moment = datetime.fromtimestamp(now, UTC)
        off = bool(hours) and not any(_is_within(window, moment) for window in hours)
        self._off = _if_any(_RANK[self._config.off_hours], "off_hours") if off else ()


def _if_any(rank: int, word: str) -> tuple[Reason, ...]:
    return ((rank, word),) if rank else ()


@lru_cache(4096)
def _verdict(reasons: tuple[Reason, ...], combine: bool) -> Verdict:
    ordered = sorted(dict.fromkeys(reasons), key=lambda reason: -reason[0])
    top = ordered[0][0]
    shared = len(ordered) > 1 and ordered[1][0] == top
    level = LEVELS[min(top + (combine and shared), len(LEVELS) - 1)]
    return Verdict(level, tuple(word for _, word in ordered))


@lru_cache(1024)
def _pattern(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """`*` fits anything; every other character stands for itself. None: anything at all."""
    if not patterns:
        return re.compile(".*", re.DOTALL)
    return re.compile("|".join(translate(re.sub(r"[\[?]", r"[\g<0>]", pattern)) for pattern in patterns))


def _is_within(window: Window, moment: datetime) -> bool:
    """Whether a moment lies in a window."""
    local = moment.astimezone(window.zone)
    now, today = local.time(), local.weekday()
    if window.start < window.end:
        return today in window.days and window.start <= now < window.end
    yesterday = (local - timedelta(days=1)).weekday()
    return (today in window.days and now >= window.start) or (yesterday in window.days and now < window.end)
