"""A run's work on one table: partitions are dropped whole where that is possible, and else rows are deleted.

Owns the order of the steps, so that a run may die anywhere and the next one goes on: a partition is detached, its rows
are written to the archive, and only then is it dropped; of rows that are deleted in batches, each batch is in a file
before its transaction is committed, and the next run removes a file whose transaction was not. SQL is in
`store/retention.py`, and files are in `archive.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from proxy.background.archive import NoRoom
from proxy.background.retention_plan import Retire, Rules, Trim, asks_who_is_there, decide
from proxy.identity.records import SYSTEM_TENANT
from proxy.store import retention as store
from proxy.store import retention_trail
from proxy.store.pool import TooSlow
from proxy.store.retention import Refused, turn

if TYPE_CHECKING:
    from datetime import datetime

    from proxy.background.archive import Archive
    from proxy.background.archive_files import Archived
    from proxy.config.retention import RetainedTable
    from proxy.store.database import Database
    from proxy.store.pool import Session
    from proxy.store.retention import Extent, Retired

#: How often, and at what intervals (seconds), it is tried to detach a partition of a table that is in use.
_TRIES: Final = 10
_BETWEEN_TRIES_S: Final = 0.5
#: Rest between two batches, so that others have the disk, too.
_BETWEEN_BATCHES_S: Final = 0.05
_NO_ARCHIVE: Final = "its rows are to be archived, and 'retention.archive_dir' is not set"


class _Changed(Exception):
    """Rows came meanwhile that are to be kept."""


@dataclass(slots=True)
class Done:
    """What became of one table."""

    deleted_rows: int = 0
    dropped_partitions: int = 0
    archived_rows: int = 0
    archived_bytes: int = 0
    left: list[str] = field(default_factory=list)
    """What should have gone and did not, each with the reason."""
    by_policy: dict[str, int] = field(default_factory=dict)
    """Rows deleted by the policy of each tenant."""

    def add(self, other: Done) -> None:
        """Count what another one did; what it left is what is left now."""
        self.deleted_rows += other.deleted_rows
        self.dropped_partitions += other.dropped_partitions
        self.archived_rows += other.archived_rows
        self.archived_bytes += other.archived_bytes
        self.left = other.left

    def totals(self) -> tuple[int, int, int, int]:
        """Rows deleted, partitions dropped, rows archived, bytes of the archive."""
        return self.deleted_rows, self.dropped_partitions, self.archived_rows, self.archived_bytes


@dataclass(frozen=True, slots=True)
class Doomed:
    """What a run would delete now."""

    table: str
    what: str
    """`drop partition`, `delete rows` or `drop detached partition`."""
    partition: str
    tenant: str | None
    """Id; None: of all tenants."""
    until: datetime | None
    rows: int
    bytes: int | None
    archive: bool


class Work:
    """A run's work on one table."""

    def __init__(
        self,
        database: Database,
        table: RetainedTable,
        rules: Rules,
        today: datetime,
        archive: Archive | None,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._database = database
        self._table = table
        self._rules = rules
        self._today = today
        self._archive = archive
        self._sleep = sleep
        self.done = Done(by_policy=dict.fromkeys((SYSTEM_TENANT, *rules.own), 0))

    async def run(self) -> None:
        """All of it. What cannot be done now is left for the next time. Raises Busy, Unavailable."""
        if self._archive is not None:
            await self._unless_left(self._table, self._settle(self._archive))
        extents, leftovers = await self._extents()
        for former in leftovers:
            await self._unless_left(former.name, self._finish(former, self._any_archive()))
        for extent in extents:
            await self._unless_left(extent.name, self._extent(extent))

    async def _extents(self) -> tuple[list[Extent], list[Retired]]:
        """Those in which something may be old enough, and former partitions."""
        latest = self._rules.latest(self._today)
        async with turn(self._database) as session:
            found = await store.extents(session, self._table)
            return [extent for extent in found if extent.since < latest], await store.retired(session, self._table)

    def _any_archive(self) -> bool:
        return any(rule.archive for rule in (self._rules.default, *self._rules.own.values()))

    async def _unless_left(self, name: str, work: Awaitable[None]) -> None:
        try:
            await work
        except (TooSlow, NoRoom, Refused, _Changed) as error:
            self._leave(f"{name}: {error}")

    def _leave(self, what: str) -> None:
        """Once, of rows of several tenants."""
        if what not in self.done.left:
            self.done.left.append(what)

    async def _steps(self, extent: Extent) -> list[Retire | Trim]:
        present: list[str] = []
        if asks_who_is_there(self._rules, extent):
            async with turn(self._database) as session:
                present = await store.tenants_in(session, extent)
        return decide(extent, self._rules, present, self._today)

    async def _extent(self, extent: Extent) -> None:
        for step in await self._steps(extent):
            await self._unless_left(extent.name, self._trim(step) if isinstance(step, Trim) else self._retire(step))

    def _check_place(self, archive: bool) -> None:
        """Raises NoRoom when rows are to be archived, and there is no archive."""
        if archive and self._archive is None:
            raise NoRoom(_NO_ARCHIVE)

    # --- partitions ---------------------------------------------------------------------------------------------

    async def _retire(self, step: Retire) -> None:
        self._check_place(step.archive)
        if step.archive and self._archive is not None:
            await self._archive.check(step.extent.size)
        for tries_left in reversed(range(_TRIES)):
            try:
                former = await self._detach(step.extent)
                break
            except TooSlow:
                if not tries_left:
                    raise
            await self._sleep(_BETWEEN_TRIES_S)
        await self._finish(former, step.archive)

    async def _detach(self, extent: Extent) -> Retired:
        """Nobody can add rows meanwhile; it is looked once more whether all may go."""
        async with turn(self._database) as session:
            former = await store.retire(session, extent)
            if self._rules.own:
                present = await store.tenants_in(session, extent, former.name)
                [*steps] = decide(extent, self._rules, present, self._today)
                if not any(isinstance(step, Retire) for step in steps):
                    raise _Changed("rows came that are to be kept")
            return former

    async def _finish(self, former: Retired, archive: bool) -> None:
        """Archive and drop a former partition."""
        self._check_place(archive)
        async with turn(self._database) as session:
            if archive and self._archive is not None:
                archived = await self._put(session, former, self._archive)
                self._count_archived(archived.rows, archived.bytes)
                rows = archived.rows
            else:
                rows = await store.rows_of(session, former, exactly=False)
            dropped = await store.drop(session, former)
        if dropped:
            self.done.dropped_partitions += 1
            self._count(SYSTEM_TENANT, rows)

    async def _put(self, session: Session, former: Retired, archive: Archive) -> Archived:
        """The audit trail goes with its signed heads, in the form that can be verified."""
        table, partition, origin = former.table, former.partition, str(former.oid)
        known = await archive.find(table, partition, origin)
        if known is not None and known.rows != await store.rows_of(session, former, exactly=True):
            origin = f"{origin} on {self._today:%Y-%m-%d}"  # another database uses this directory, too
        if table != retention_trail.TABLE:
            return await archive.put(table, partition, origin, store.lines(session, former))
        heads = await retention_trail.heads(session, former)
        return await archive.put(table, partition, origin, retention_trail.lines(session, former), heads)

    # --- rows ---------------------------------------------------------------------------------------------------

    async def _settle(self, archive: Archive) -> None:
        """Files of batches whose transaction nobody has seen the end of: when it was undone their rows are still there,
        and are written anew with the next batch."""
        for unsettled in await archive.unsettled(self._table):
            async with turn(self._database) as session:
                undone = await store.has(session, self._table, unsettled.line)
            await (archive.discard if undone else archive.settle)(unsettled.archived)

    async def _trim(self, step: Trim) -> None:
        self._check_place(step.archive)
        while await self._batch(step) >= step.batch:
            await self._sleep(_BETWEEN_BATCHES_S)

    async def _batch(self, step: Trim) -> int:
        """Rows that are gone."""
        extent, archived = step.extent, None
        async with turn(self._database) as session:
            if not step.archive or self._archive is None:
                count = await store.delete(session, extent, step.tenant, step.until, step.batch)
            else:
                rows = await store.take(session, extent, step.tenant, step.until, step.batch)
                count = len(rows)
                if rows:
                    archived = await self._archive.put_rows(extent.table, extent.name, step.tenant, rows)
        if archived is not None and self._archive is not None:
            self._count_archived(archived.rows, archived.bytes)
            await self._archive.settle(archived)
        self._count(step.tenant if step.tenant in self._rules.own else SYSTEM_TENANT, count)
        return count

    def _count(self, policy: str, rows: int) -> None:
        self.done.deleted_rows += rows
        self.done.by_policy[policy] = self.done.by_policy.get(policy, 0) + rows

    def _count_archived(self, rows: int, size: int) -> None:
        self.done.archived_rows += rows
        self.done.archived_bytes += size

    # --- what would be ------------------------------------------------------------------------------------------

    async def doomed(self) -> list[Doomed]:
        """What `run` would delete; `done` has what it would leave."""
        extents, leftovers = await self._extents()
        found: list[Doomed] = []
        for former in leftovers:
            if self._stays(former.name, self._any_archive()):
                continue
            async with turn(self._database) as session:
                rows = await store.rows_of(session, former, exactly=True)
            found.append(
                Doomed(
                    self._table, "drop detached partition", former.name, None, None, rows, former.size,
                    self._any_archive(),
                )
            )  # fmt: skip
        for extent in extents:
            steps = [step for step in await self._steps(extent) if not self._stays(extent.name, step.archive)]
            found += [await self._doomed_by(step) for step in steps]
        return [each for each in found if each.rows or each.what != "delete rows"]

    def _stays(self, name: str, archive: bool) -> bool:
        """Whether it would be left as there is no archive, which is noted then."""
        if not archive or self._archive is not None:
            return False
        self._leave(f"{name}: {_NO_ARCHIVE}")
        return True

    async def _doomed_by(self, step: Retire | Trim) -> Doomed:
        extent = step.extent
        tenant, until = (step.tenant, step.until) if isinstance(step, Trim) else (None, extent.until)
        async with turn(self._database) as session:
            rows = await store.rows_in(session, extent, until, tenant)
        what, size = ("delete rows", None) if isinstance(step, Trim) else ("drop partition", extent.size)
        return Doomed(self._table, what, extent.name, tenant, until, rows, size, step.archive)
