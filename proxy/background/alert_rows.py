"""Rules of alerts, from the configuration and from rows, and what happened to them, written to PostgreSQL.

Owns when rows are read and written, and what a rule of either kind means. While PostgreSQL is away the rules that were
read last stay in force, and what happens waits in memory; no look at a value waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final

from proxy.background.alert_states import Rule
from proxy.config.alerts import before, clear_of
from proxy.identity.records import SYSTEM_TENANT
from proxy.store.alerts import AlertRow, EpisodeRow, moment, put, read_rules, tidy
from proxy.store.database import TooSlow, Unavailable
from proxy.store.learned import Unusable
from proxy.store.observations import patient

if TYPE_CHECKING:
    from proxy.background.alert_states import Episode
    from proxy.background.alerts import Alerts
    from proxy.config.alerts import Alerts as Settings
    from proxy.log import Logger
    from proxy.store.database import Database

#: How often `step` is called, seconds.
STEP_S: Final = 1.0
#: How often last values, and that an alert fires still, are written, and how often is tidied up; seconds.
_SEEN_S: Final = 60.0
_TIDY_S: Final = 300.0
#: Tenants whose rows are written in one step, each in a transaction of its own.
_MOST_TENANTS: Final = 100
_OPERATOR: Final = "system"
_PREFIX: Final = "webhook:"


def rules_of_file(settings: Settings) -> Iterator[Rule]:
    """The rules of the configuration that are on."""
    for name, rule in settings.in_force.items():
        assert rule.metric is not None and rule.threshold is not None  # noqa: S101 - validated
        yield Rule(
            key=f"file:{name}", name=name, tenant=SYSTEM_TENANT, owner=_OPERATOR, metric=rule.metric,
            comparison=rule.comparison, threshold=rule.threshold, clear=clear_of(rule), server=rule.server or "",
            window_s=rule.window, min_requests=rule.min_requests, for_s=rule.holds_for,
            keep_firing_s=rule.keep_firing_for, cooldown_s=rule.cooldown, severity=rule.severity,
        )  # fmt: skip


def rule_of_row(row: AlertRow) -> Rule:
    """The rule of a row. A clear threshold beyond the other one counts as that one."""
    names = tuple(name.removeprefix(_PREFIX) for name in row.channels)
    clear = row.clear_threshold if row.clear_threshold is not None else before(row.comparison, row.threshold)
    nearest = min if row.comparison.startswith(">") else max
    return Rule(
        key=row.id, name=row.name, tenant=row.tenant_id, owner=row.owner, metric=row.metric, comparison=row.comparison,
        threshold=row.threshold, clear=nearest(clear, row.threshold), server=row.server_id or "",
        window_s=float(row.window_s), min_requests=row.min_requests, for_s=float(row.for_s),
        keep_firing_s=float(row.keep_firing_s), cooldown_s=float(row.cooldown_s), severity=row.severity,
        channels=None if row.tenant_id == SYSTEM_TENANT and not names else names,
    )  # fmt: skip


class AlertRows:
    """What keeps `Alerts` and the tables together."""

    def __init__(
        self, alerts: Alerts, database: Database | None, settings: Settings, monotonic: Callable[[], float], log: Logger
    ) -> None:
        """Without a database there are the rules of the configuration only, and nothing is written."""
        self._alerts = alerts
        self._database = database
        self._monotonic = monotonic
        self._log = log
        self._rows: list[AlertRow] = []
        self._read_at = self._seen_at = self._tidied_at = -inf
        #: Tenants whose last values are to be written.
        self._due: dict[str, None] = {}
        #: Episodes that PostgreSQL does not take, such as those of a tenant that is gone.
        self.refused = 0
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take a (new) configuration."""
        self._settings = settings
        self._apply()

    def _apply(self) -> None:
        rows = map(rule_of_row, self._rows) if self._settings.enabled else ()
        self._alerts.configure((*rules_of_file(self._settings), *rows))

    async def step(self) -> None:
        """Read rules that changed, and write what happened. Quiet while PostgreSQL is away."""
        if self._database is None:
            self._alerts.changed.clear()
            return
        now = self._monotonic()
        if now - self._read_at >= self._settings.interval:
            with suppress(Unavailable):
                await self._read(self._database, now)
        with suppress(Unavailable):
            await self._write(self._database, now)
            if now - self._tidied_at >= _TIDY_S:
                async with patient(self._database.across_tenants("write")) as session:
                    await tidy(session)
                self._tidied_at = now

    async def finish(self) -> None:
        """Write the end of everything, when the process ends. Quiet while PostgreSQL is away."""
        self._alerts.stop()
        if self._database is not None:
            with suppress(Unavailable):
                await self._write(self._database, -inf)

    async def _read(self, database: Database, now: float) -> None:
        async with patient(database.snapshot()) as session:
            rows = await read_rules(session)
        self._read_at = now
        if rows != self._rows:
            self._rows = rows
            self._apply()

    async def _write(self, database: Database, now: float) -> None:
        """What changed; every minute also what fires still, and last values."""
        alerts = self._alerts
        if now - self._seen_at >= _SEEN_S:
            self._seen_at = now
            self._due.update(dict.fromkeys(row.tenant_id for row in self._rows))
            self._due.update(dict.fromkeys(episode.rule.tenant for episode in alerts.firing))
        tenants = dict.fromkeys(episode.rule.tenant for episode in alerts.changed.values())
        for tenant in list({**tenants, **self._due})[:_MOST_TENANTS]:
            with suppress(TooSlow):  # the others need not wait for it
                await self._write_tenant(database, tenant)
                self._due.pop(tenant, None)

    async def _write_tenant(self, database: Database, tenant: str) -> None:
        changed = self._alerts.changed
        known = {each.id: each for each in (*self._alerts.firing, *changed.values()) if each.rule.tenant == tenant}
        episodes, found = list(known.values()), self._alerts.last_values()
        values = {row.id: found.get(row.id) for row in self._rows if row.tenant_id == tenant}
        rows = [_row(episode) for episode in episodes]  # as they are now: they may change while this waits
        try:
            async with patient(database.tenant(tenant)) as session:
                await put(session, rows, values)
        except Unusable as error:
            self.refused += len(rows)
            self._log.warning("rows of alerts were refused", tenant=tenant, count=len(rows), reason=str(error))
        for episode, row in zip(episodes, rows, strict=True):
            if moment(episode.resolved_at) == row.resolved_at:
                changed.pop(episode.id, None)


def _row(episode: Episode) -> EpisodeRow:
    rule = episode.rule
    began, ended = moment(episode.started_at), moment(episode.resolved_at)
    assert began is not None  # noqa: S101 - it has begun
    return EpisodeRow(
        episode.id, None if rule.key.startswith("file:") else rule.key, rule.name, episode.instance,
        episode.series or rule.server or None, rule.metric, rule.comparison, rule.threshold, episode.value,
        rule.severity, began, ended, episode.ended,
    )  # fmt: skip
