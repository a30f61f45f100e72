"""The parts together: a value that is not well is known to a receiver at once, whatever else is going on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

from proxy.background.alerting import Alerting, Around
from proxy.background.observing import Clocks
from proxy.background.signals import Sources
from proxy.config.alerts import Alerts as Settings
from proxy.identity.uuid7 import RecordIds
from proxy.store.database import Bounds, Database, Places
from tests.unit.background.notices import Endpoint, endpoint, webhook
from tests.unit.background.test_alerts import WALL, Log
from tests.unit.dataplane.fakes import PATIENCE_S, Time


class Whole:
    """Alerts whose spool is as full as the test says."""

    def __init__(self, here: Endpoint, database: Database | None = None, **settings: Any) -> None:
        self.time, self.share, self.log = Time(), 0.0, Log()
        self.tasks: list[asyncio.Task[None]] = []
        clocks = Clocks(lambda: self.time.now + WALL, self.time)
        around = Around(
            self.spawn, clocks, lambda: 0.5, RecordIds(clocks.wall, os.urandom), self.log, "here"  # type: ignore[arg-type]
        )  # fmt: skip
        sources = Sources(lambda *asked: None, dict, spool_share=lambda: self.share, postgres_away=lambda: True)
        self.settings = Settings(webhooks={"ops": webhook(here.url)}).model_copy(update=settings)
        self.alerting = Alerting(self.settings, sources, database, around)

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, None]) -> bool:
        self.tasks.append(asyncio.get_running_loop().create_task(coroutine))
        return True

    async def look(self, after_s: float) -> None:
        self.time.now += after_s
        await self.alerting.look()
        async with asyncio.timeout(PATIENCE_S):
            while self.tasks:
                await self.tasks.pop()


async def test_values_are_looked_at_every_interval() -> None:
    """A new configuration, at once."""
    async with endpoint() as here:
        whole = Whole(here)
        await whole.look(0)
        whole.share = 0.9
        await whole.look(4.9)
        assert here.got == []
        await whole.look(0.1)
        assert [body["alert"] for body in here.bodies] == ["spool_half_full", "spool_nearly_full", "postgres_away"]
        whole.share = 0.0
        whole.alerting.configure(whole.settings)
        await whole.look(1)
        assert len(here.got) == 3
        whole.alerting.configure(whole.settings.model_copy(update={"interval": 1.0}))
        await whole.look(0.1)
        assert [body["status"] for body in here.bodies[3:]] == ["resolved", "resolved"]
        await whole.alerting.finish()


async def test_an_alert_about_postgresql_needs_none() -> None:
    """It is told while the step of the rows fails to reach it."""
    gone = Database(Places("postgresql://nobody@127.0.0.1:1/nothing"), {"write": Bounds(connect_s=0.2)})
    await gone.open()
    async with endpoint() as here:
        whole = Whole(here, gone)
        steps = {name: step for name, _, step, _ in whole.alerting.steps()}
        await whole.look(0)
        rows = steps["rows of alerts"]()
        assert isinstance(rows, Coroutine)
        await rows
        await whole.look(5)
        assert [body["alert"] for body in here.bodies] == ["postgres_away"]
        await whole.alerting.finish()
    await gone.close()


async def test_metrics_and_steps_have_names() -> None:
    """Each once."""
    async with endpoint() as here:
        whole = Whole(here)
        names = [family.name for family in whole.alerting.families()]
        assert len(set(names)) == len(names) == 8 and all(name.startswith("mcp_proxy_") for name in names)
        assert [name for name, *_ in whole.alerting.steps()] == ["alerts", "rows of alerts"]
        await whole.alerting.finish()
