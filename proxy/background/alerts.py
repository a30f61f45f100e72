"""Alerts: looks at every rule, says in the log what begins and ends, and has it told and written down.

Owns all that is known of alerts and who is told when; it waits for nothing, so that an alert about a database needs no
database. How an alert begins and ends is `alert_states.py`, where values come from `signals.py`; `webhooks.py` tells,
`alert_rows.py` writes. Each process watches what it sees itself, and says who it is.

A rule may watch several series: the breakers of all servers are one rule, and each of them fires for itself.

Notifications that an alert begins are `cooldown_s` apart at least, for each series. One that still fires then is told
then; one that has ended meanwhile never is, nor its end. The log and the table have them all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from proxy.background.alert_states import Ended, Episode, Notice, Rule, Status, Track
from proxy.identity.records import SYSTEM_TENANT
from proxy.metrics import Family

if TYPE_CHECKING:
    from uuid import UUID

    from proxy.background.observing import Clocks
    from proxy.identity.uuid7 import RecordIds
    from proxy.log import Logger

#: Series of one rule that are not well, or were not of late.
_MOST_SERIES: Final = 10_000
#: Series that are looked at until requests have their turn.
_SLICE: Final = 500
#: Time that one look may spend on rules of tenants, seconds; the others have their turn with the next look.
_BUDGET_S: Final = 0.1
#: Episodes that wait to be written down; beyond that the oldest are in the log only.
_MOST_CHANGED: Final = 10_000
_SEVERITIES: Final = ("low", "medium", "high", "critical")

Values = Callable[[Rule], Mapping[str, float | None]]
"""The values that a rule watches, by series."""
_Identity = tuple[str, str, str, str]


class Alerts:
    """All rules, and what is known of each."""

    def __init__(
        self, values: Values, clocks: Clocks, ids: RecordIds, log: Logger, instance: str,
        told: Callable[[Notice], None],
    ) -> None:  # fmt: skip
        """`told` is called with each notification; it must not wait."""
        self._values = values
        self._clocks = clocks
        self._ids = ids
        self._log = log
        self._instance = instance
        self._told = told
        self._own: list[Rule] = []
        #: Rules of tenants; the next one first.
        self._others: deque[Rule] = deque()
        self._next_rules: tuple[Rule, ...] | None = None
        #: Only of series that are not well, or were not of late: there may be any number of others.
        self._tracks: dict[_Identity, dict[str, Track]] = {}
        #: By key of the rule, the worst of the values that were seen last.
        self._worst: dict[str, float] = {}
        #: Episodes that began or ended since somebody took them, in the order of time.
        self.changed: dict[UUID, Episode] = {}
        #: Alerts that began, notifications, and episodes for which there was no room in `changed`.
        self.fired = self.notified = self.forgotten = 0
        #: Looks that had no time for every rule of a tenant.
        self.cut = 0

    @property
    def firing(self) -> list[Episode]:
        """What fires now."""
        return [track.episode for _, track in self._all() if track.episode is not None]

    def last_values(self) -> dict[str, float]:
        """By key of the rule, the worst of its values."""
        return self._worst.copy()

    def configure(self, rules: Iterable[Rule]) -> None:
        """These are the rules from the next look on; alerts whose rule is gone end then."""
        self._next_rules = tuple(rules)

    async def evaluate(self) -> None:
        """Look at everything once. Requests are served after each rule, whose figures take up to 1 ms; nothing is
        waited for."""
        self._take_rules()
        for rule in self._own:
            await self._look(rule)
        others, spent_s = self._others, 0.0
        for _ in range(len(others)):
            if spent_s >= _BUDGET_S:
                self.cut += 1
                return
            others.rotate(-1)
            spent_s += await self._look(others[-1])

    def stop(self) -> None:
        """This process ends: who sees an alert of its would wait for the end for ever."""
        for _, track in self._all():
            self._end(track, "stopped", tell=False)

    def _all(self) -> Iterator[tuple[str, Track]]:
        for tracks in self._tracks.values():
            yield from tracks.items()

    def _take_rules(self) -> None:
        if self._next_rules is None:
            return
        rules, self._next_rules = self._next_rules, None
        self._own = [rule for rule in rules if rule.tenant == SYSTEM_TENANT]
        self._others = deque(rule for rule in rules if rule.tenant != SYSTEM_TENANT)
        by_identity = {rule.watched: rule for rule in rules}
        keys = {rule.key for rule in rules}
        self._worst = {key: value for key, value in self._worst.items() if key in keys}
        for identity, tracks in list(self._tracks.items()):
            rule = by_identity.get(identity)
            if rule is None:
                del self._tracks[identity]
            for track in tracks.values():
                if rule is None:
                    self._end(track, "removed")
                else:
                    track.rule = rule

    async def _look(self, rule: Rule) -> float:
        """Seconds that it took, without those of requests."""
        pieces, clock, spent_s = self._look_at(rule), self._clocks.monotonic, 0.0
        more = True
        while more:
            began = clock()
            more = next(pieces, False)
            spent_s += clock() - began
            await asyncio.sleep(0)
        return spent_s

    def _look_at(self, rule: Rule) -> Iterator[bool]:
        """True after each piece but the last."""
        values, tracks = self._values(rule), self._tracks.setdefault(rule.watched, {})
        self._note_worst(rule, values)
        for number, (series, value) in enumerate(values.items(), 1):
            if not number % _SLICE:
                yield True
            track = tracks.get(series)
            if track is None:
                if not rule.is_bad(value) or len(tracks) >= _MOST_SERIES:
                    continue
                track = tracks[series] = Track(rule)
            self._step(track, series, value)
        for series in [series for series in tracks if series not in values]:
            self._step(tracks[series], series, None)
        now = self._clocks.monotonic()
        for series in [series for series, track in tracks.items() if track.is_over(now)]:
            del tracks[series]

    def _note_worst(self, rule: Rule, values: Mapping[str, float | None]) -> None:
        known = [value for value in values.values() if value is not None and isfinite(value)]
        if known:
            self._worst[rule.key] = max(known) if rule.comparison.startswith(">") else min(known)
        else:
            self._worst.pop(rule.key, None)

    def _step(self, track: Track, series: str, value: float | None) -> None:
        outcome = track.take(value, self._clocks.monotonic())
        if outcome == "firing":
            self._begin(track, series)
        elif outcome is not None:
            self._end(track, outcome)
        elif track.episode is not None:
            track.episode.rule = track.rule
            if track.value is not None:
                track.episode.value = track.value
        self._notify(track)

    def _begin(self, track: Track, series: str) -> None:
        value = track.value
        assert value is not None  # noqa: S101 - nothing fires without
        track.told = False
        track.episode = Episode(self._ids.new(), track.rule, series, self._instance, self._clocks.wall(), value)
        self.fired += 1
        self._note(track.episode)
        self._log.warning("alert firing", **_described(track.episode))

    def _end(self, track: Track, ended: Ended, *, tell: bool = True) -> None:
        track.end()
        episode, track.episode = track.episode, None
        if episode is None:
            return
        episode.resolved_at, episode.ended = max(self._clocks.wall(), episode.started_at), ended
        if track.value is not None:
            episode.value = track.value
        self._note(episode)
        self._log.info("alert resolved", ended=ended, **_described(episode))
        if tell and track.told:
            self._tell("resolved", episode)

    def _note(self, episode: Episode) -> None:
        self.changed[episode.id] = episode
        if len(self.changed) > _MOST_CHANGED:
            del self.changed[next(iter(self.changed))]
            self.forgotten += 1

    def _notify(self, track: Track) -> None:
        """Tell of an alert that nobody was told of, unless one of this series was told a short while ago."""
        now = self._clocks.monotonic()
        if track.episode is None or track.told or now < track.quiet_until:
            return
        track.told, track.quiet_until = True, now + track.rule.cooldown_s
        self._tell("firing", track.episode)

    def _tell(self, status: Status, episode: Episode) -> None:
        self.notified += 1
        self._told(Notice(self._ids.new(), status, self._clocks.wall(), episode))


def _described(episode: Episode) -> dict[str, Any]:
    rule = episode.rule
    return {
        "alert": rule.name, "metric": rule.metric, "value": episode.value, "threshold": rule.threshold,
        "severity": rule.severity, "server": episode.series or rule.server, "tenant": rule.owner,
        "instance": episode.instance, "episode": str(episode.id),
    }  # fmt: skip


def families(alerts: Alerts) -> Iterator[Family]:
    """The metrics of alerts; those of tenants' own rules are counted together, by severity."""
    firing = dict.fromkeys(_SEVERITIES, 0)
    for episode in alerts.firing:
        firing[episode.rule.severity] += 1
    rows = [(f'{{severity="{severity}"}}', float(count)) for severity, count in firing.items()]
    yield Family("gauge", "mcp_proxy_alerts_firing", "Alerts that fire now, as this process sees them", rows)
    yield Family("counter", "mcp_proxy_alerts_fired", "Alerts that began", [("", alerts.fired)])
    purpose = "Notifications that an alert began or ended"
    yield Family("counter", "mcp_proxy_alert_notices", purpose, [("", alerts.notified)])
    purpose = "Looks that left rules of tenants for the next one, for want of time"
    yield Family("counter", "mcp_proxy_alert_looks_cut", purpose, [("", alerts.cut)])
