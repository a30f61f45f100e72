"""Alerts as a whole: rules, values, webhooks and tables, and the two steps that keep them going.

Owns how the parts are put together and when values are looked at. The look waits for nothing; what may wait, reading
and writing rows, has a step of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.background import alerts as engine
from proxy.background.alert_rows import STEP_S as ROWS_S
from proxy.background.alert_rows import AlertRows
from proxy.background.alerts import Alerts
from proxy.background.signals import Signals
from proxy.background.webhooks import STEP_S, Webhooks

if TYPE_CHECKING:
    from proxy.background.observing import Clocks
    from proxy.background.signals import Sources
    from proxy.background.supervisor import Step
    from proxy.background.webhooks import Spawn
    from proxy.config.alerts import Alerts as Settings
    from proxy.dataplane.resolver import Resolver
    from proxy.identity.uuid7 import RecordIds
    from proxy.log import Logger
    from proxy.metrics import Family
    from proxy.store.database import Database

#: How long tables and webhooks may take at the end, seconds.
_LAST_ROWS_S: Final = 1.0
_LAST_TRIES_S: Final = 2.0


class Around(NamedTuple):
    """What the process gives to its alerts."""

    spawn: Spawn
    clocks: Clocks
    draw: Callable[[], float]
    """A number, 0 <= x < 1."""
    ids: RecordIds
    log: Logger
    instance: str
    resolver: Resolver | None = None


class Alerting:
    """Everything about alerts in one process."""

    def __init__(self, settings: Settings, sources: Sources, database: Database | None, around: Around) -> None:
        """Made without I/O."""
        self._clocks = clocks = around.clocks
        self.webhooks = Webhooks(around.spawn, clocks, around.draw, around.log, around.resolver)
        self.alerts = Alerts(
            Signals(sources).values, clocks, around.ids, around.log, around.instance, self.webhooks.tell
        )
        self._rows = AlertRows(self.alerts, database, settings, clocks.monotonic, around.log)
        self._settings = settings
        self._due_at = -inf
        self.webhooks.configure(settings.webhooks)

    def configure(self, settings: Settings) -> None:
        """A reloaded configuration is in force."""
        if settings != self._settings:
            self._settings = settings
            self._rows.configure(settings)
            self.webhooks.configure(settings.webhooks)
            self._due_at = -inf

    def steps(self) -> Iterator[tuple[str, float, Step, float]]:
        """Name, interval in seconds, step and jitter of every loop."""
        yield "alerts", STEP_S, self.look, 0.0
        yield "rows of alerts", ROWS_S, self._rows.step, 0.1

    async def look(self) -> None:
        """Have what is due told; look at the values when an interval is over."""
        self.webhooks.step()
        now = self._clocks.monotonic()
        if now >= self._due_at:
            self._due_at = now + self._settings.interval
            await self.alerts.evaluate()

    def families(self) -> Iterator[Family]:
        """The metrics of all this."""
        yield from engine.families(self.alerts)
        yield from self.webhooks.families()

    async def finish(self) -> None:
        """Write the end of everything, and tell what waits; takes a few seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_ROWS_S):
                await self._rows.finish()
        await self.webhooks.finish(_LAST_TRIES_S)
