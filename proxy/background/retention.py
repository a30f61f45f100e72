"""Old rows are archived and deleted, beside the requests and by one process of all at a time.

Owns when there is a run, what is recorded of it, and its numbers. What a run does to a table is in `retention_work.py`,
what goes at all is decided in `retention_plan.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from proxy.background.archive import Archive
from proxy.background.retention_plan import midnight, rules_of
from proxy.background.retention_work import Done, Doomed, Work
from proxy.config.retention import DEFAULTS
from proxy.metrics import Family
from proxy.store import retention as store
from proxy.store import retention_policies
from proxy.store.pool import Unavailable
from proxy.store.retention import Busy, turn

if TYPE_CHECKING:
    from uuid import UUID

    from proxy.config.retention import RetainedTable
    from proxy.config.retention import Retention as Settings
    from proxy.identity.uuid7 import RecordIds
    from proxy.log import Logger
    from proxy.store.database import Database
    from proxy.store.pool import Session
    from proxy.store.retention_policies import PolicyRow

#: How often `step` is called, seconds.
STEP_S: Final = 60.0


class Retention:
    """`step()` is meant for a loop of a minute; it starts runs, and waits for none."""

    def __init__(
        self,
        database: Database,
        settings: Callable[[], Settings],
        wall: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        log: Logger,
        ids: RecordIds,
    ) -> None:
        """`database` should have a connection of its own and allow for long statements, as `Stores.upkeep`. `settings`
        gives what is in force; `wall` seconds since 1970."""
        self._database = database
        self._settings = settings
        self._wall = wall
        self._sleep = sleep
        self._log = log
        self._ids = ids
        #: Names this process in its runs; set by whoever knows it.
        self.instance = ""
        self._looked_at = 0.0
        self.running = False
        #: Runs of this process by how they ended, when the last one ended (seconds since 1970), how long it took.
        self.runs = {"done": 0, "incomplete": 0, "failed": 0}
        self.ended_at = 0.0
        self.took_s = 0.0
        #: By table, since the start.
        self.totals: dict[str, Done] = {table: Done() for table in DEFAULTS}

    def step(self, spawn: Callable[[str, Coroutine[Any, Any, object]], bool]) -> None:
        """Start a run, if one may be due; `spawn` is the supervisor's."""
        every, now = self._settings().every, self._wall()
        if self.running or not every or 0 <= now - self._looked_at < min(every, 600.0):
            return
        self._looked_at = now
        spawn("retention", self.run_quietly(every))

    async def run_quietly(self, every_s: float) -> None:
        """A run, unless there was one less than `every_s` ago. While PostgreSQL is away there is no news."""
        try:
            done = await self.run(every_s)
        except Busy:
            return
        except Unavailable as error:
            self._log.warning("retention ended early", reason=str(error))
            return
        if done is None:
            return
        gone = {table: each.deleted_rows for table, each in done.items() if each.deleted_rows}
        if gone:
            self._log.info("old rows deleted", **gone)
        for table, each in done.items():
            for reason in each.left:
                self._log.warning("old rows were left", table=table, reason=reason)

    async def run(self, every_s: float = 0.0) -> dict[str, Done] | None:
        """Delete what is old enough; None when there was a run less than `every_s` ago, or one is under way.

        Raises Busy, Unavailable.
        """
        run = self._ids.new()
        async with turn(self._database) as session:
            if not await store.claim(session, run, self.instance, timedelta(seconds=every_s)):
                return None
            rows, today = await retention_policies.listed(session), await self._today(session)
        self.running, began = True, self._wall()
        result = "failed"
        try:
            done = await self._all_tables(run, rows, today)
            result = "incomplete" if any(each.left for each in done.values()) else "done"
        finally:
            self.running = False
            self.runs[result] += 1
            self.ended_at, self.took_s = self._wall(), self._wall() - began
        return done

    async def _all_tables(self, run: UUID, rows: list[PolicyRow], today: datetime) -> dict[str, Done]:
        done: dict[str, Done] = {}
        for table in DEFAULTS:
            work = self._work(table, rows, today)
            await work.run()
            done[table] = work.done
            self.totals[table].add(done[table])
            totals = [sum(each) for each in zip(*(part.totals() for part in done.values()), strict=True)]
            details = {
                name: {"deleted": part.deleted_rows, "dropped": part.dropped_partitions, "left": part.left}
                for name, part in done.items()
                if part.deleted_rows or part.dropped_partitions or part.left
            }
            async with turn(self._database) as session:
                await store.ran(session, table, done[table].by_policy)
                await store.record(session, run, totals, details, finished=len(done) == len(DEFAULTS))
        return done

    async def _today(self, session: Session) -> datetime:
        """The earlier one of two clocks, ours and PostgreSQL's: no row is to go because one of them is fast."""
        return midnight(min(self._wall(), (await store.clock(session)).timestamp()))

    def _work(self, table: RetainedTable, rows: list[PolicyRow], today: datetime) -> Work:
        settings = self._settings()
        archive = Archive(Path(settings.archive_dir)) if settings.archive_dir else None
        rules = rules_of(table, settings, rows)
        return Work(self._database, table, rules, today, archive, self._sleep)

    async def doomed(self) -> tuple[list[Doomed], dict[str, Done]]:
        """Exactly what a run would delete now, and by table what it would leave. Raises Busy, Unavailable."""
        async with turn(self._database) as session:
            rows, today = await retention_policies.listed(session), await self._today(session)
        works = {table: self._work(table, rows, today) for table in DEFAULTS}
        return [each for work in works.values() for each in await work.doomed()], {
            table: work.done for table, work in works.items()
        }

    def families(self) -> Iterator[Family]:
        """The metrics of retention."""
        yield _family("counter", "runs", "Runs by how they ended", "result", self.runs)
        yield _family("gauge", "running", "Whether a run is under way", "", {"": self.running})
        yield _family("gauge", "last_end_seconds", "When the last run of this process ended", "", {"": self.ended_at})
        yield _family("gauge", "last_run_seconds", "How long it took", "", {"": self.took_s})
        left = {table: len(each.left) for table, each in self.totals.items()}
        yield _family("gauge", "left", "What the last run could not delete", "table", left)
        for name, purpose in _COUNTED.items():
            values = {table: getattr(each, name) for table, each in self.totals.items()}
            yield _family("counter", name, purpose, "table", values)


_COUNTED: Final = {
    "deleted_rows": "Rows deleted, those of whole partitions included",
    "dropped_partitions": "Partitions dropped whole",
    "archived_rows": "Rows written to the archive",
    "archived_bytes": "Bytes of files of the archive",
}


def _family(kind: str, name: str, purpose: str, label: str, values: Mapping[str, float]) -> Family:
    """Values of the label are names of ours."""
    rows = [(f'{{{label}="{key}"}}' if label else "", +value) for key, value in values.items()]
    return Family(kind, f"mcp_proxy_retention_{name}", purpose, rows)
