"""Ships the spool to PostgreSQL: the journal of this process, and those of processes that are gone.

Owns which journal is shipped when, and the numbers. Nothing is done, and nothing lost, while PostgreSQL is away. How a
journal is shipped is `shipment.py`'s to know.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy.background.adopting import Adopting
from proxy.background.batches import Away, Counts, Means, Stuck
from proxy.background.shipment import Shipment
from proxy.metrics import Family
from proxy.spool.adoption import Adopted
from proxy.spool.quarantine import Quarantine

if TYPE_CHECKING:
    from proxy.audit.signing import Signer
    from proxy.log import Logger
    from proxy.spool.journal import Journal
    from proxy.store.database import Database

#: How often `step` is called, seconds.
STEP_S: Final = 0.2
#: A step ends after so many seconds, though there be more to ship.
_LONGEST_S: Final = 4.0
#: How long a step waits for a journal of a process that is gone to be put in order, seconds.
_ADOPT_S: Final = 1.0
#: What was read of a segment is waited for this long to be on the disk, before it is shipped all the same: a
#: disk that fails is a reason to hurry.
_DISK_S: Final = 1.0


class Own:
    """The journal of this process, to which records are added."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.path, self.name = journal.path, journal.name
        self.unwritten: Mapping[int, bytes] = {}
        #: No record will be added: the segment in use counts as sealed.
        self.ended = False

    def is_sealed(self, number: int) -> bool:
        """Another segment is in use."""
        return self.ended or 0 < number < self._journal.number

    async def on_disk(self, number: int) -> None:
        """A row must not outlive its record: after a crash of the host others would stand in its place."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DISK_S):
                await self._journal.durable()

    async def shipped(self, number: int) -> bool:
        """Whether they could be deleted."""
        with suppress(OSError):  # TimeoutError is one
            return await self._journal.release(number)
        return False


class Orphan:
    """A journal of a process that is gone. It is removed as a whole."""

    def __init__(self, adopted: Adopted) -> None:
        self.adopted = adopted
        self.path, self.name = adopted.path, adopted.name
        self.unwritten: Mapping[int, bytes] = adopted.unwritten

    def is_sealed(self, number: int) -> bool:
        """Always."""
        return True

    async def on_disk(self, number: int) -> None:
        """It is, or it would not have been read."""

    async def shipped(self, number: int) -> bool:
        """Nothing is deleted yet."""
        return True


class Shipper:
    """Ships what it finds. One for a process."""

    def __init__(
        self, database: Database, spool: Path, journal: Journal | None, signer: Signer | None, log: Logger,
        wall: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """`database` is one that nobody else uses, with a deadline of several seconds; `wall`: seconds since 1970.
        Without a journal of our own those of others are shipped. Raises OSError."""
        self.means = Means(database, Quarantine(spool), signer, log, wall)
        self._adopting = Adopting(spool, log, lambda: self.means.clock())
        self._origin = Own(journal) if journal is not None else None
        self._journal = journal
        self._own: Shipment | None = None
        self._orphan: tuple[Orphan, Shipment] | None = None
        self._alone = asyncio.Lock()
        #: Why nothing is shipped just now; '' when it is; and since when, by the clock.
        self.away = ""
        self._away_since = 0.0

    @property
    def counts(self) -> Counts:
        """What was done so far."""
        return self.means.counts

    @property
    def lag_s(self) -> float:
        """How far the database is behind, seconds; 0: not at all."""
        waited_s = self.means.clock() - self._away_since if self.away else 0.0
        return max(self.counts.lag_s, waited_s)

    @property
    def busy(self) -> bool:
        """Whether there is more to ship of a process that is gone."""
        return self._orphan is not None or self._adopting.busy

    @property
    def avoided(self) -> frozenset[Path]:
        """Journals of processes that are gone that cannot be used, for now."""
        return self._adopting.avoided

    @property
    def journal_failures(self) -> int:
        """How often one could not be used."""
        return self._adopting.failures

    async def step(self) -> None:
        """Ship what there is. Quiet while PostgreSQL is away. Raises OSError when our own journal cannot be read."""
        database = self.means.database
        await database.probe()
        try:
            if database.numbers()["write"].circuit_open:  # batches that nobody takes are not made five times a second
                raise Away("PostgreSQL does not answer")
            async with self._alone:
                until = self.means.clock() + _LONGEST_S
                stuck: OSError | Stuck | None = None
                try:
                    await self._ship_own(until)
                except (OSError, Stuck) as error:
                    stuck = error
                await self._ship_orphans(until)
                if stuck is not None:
                    raise stuck
        except Away as reason:
            self.means.counts.away += 1
            self._say(str(reason))
        else:
            self._say("")

    async def finish(self, deadline_s: float) -> bool:
        """Ship the rest when nothing is recorded any more, and sign it. True: all of our own journal is in PostgreSQL,
        so that it can be removed."""
        origin, journal = self._origin, self._journal
        done = origin is None or journal is None
        with suppress(Away, OSError):  # TimeoutError is one
            async with asyncio.timeout(deadline_s), self._alone:
                if origin is not None and journal is not None:
                    await journal.sync(last=True)
                    origin.ended = True
                    done = await self._ship_own(self.means.clock() + deadline_s) and not journal.numbers().ring
        if self._orphan is not None:
            self._orphan[0].adopted.release()
            self._orphan = None
        self._adopting.close()
        self.means.thread.shutdown(wait=False)
        return done

    async def _ship_own(self, until: float) -> bool:
        """Whether nothing will come any more."""
        if self._origin is None:
            return True
        if self._own is None:
            shipment = Shipment(self.means, self._origin)
            await shipment.open()
            self._own = shipment
        return await self._own.ship(until)

    # --- journals of processes that are gone ----------------------------------------------------------------------

    async def _ship_orphans(self, until: float) -> None:
        """One that cannot be used must not stop the others, nor what comes of our own."""
        while self.means.clock() < until:
            try:
                if self._orphan is None and not await self._adopt():
                    return
                if not await self._ship_orphan(until):
                    return
            except (OSError, Stuck) as error:  # TimeoutError is one
                self._give_up(error)

    async def _ship_orphan(self, until: float) -> bool:
        """Whether all of it is shipped."""
        orphan, shipment = self._orphan  # type: ignore[misc]
        if not await shipment.ship(until):
            return False
        await self.means.aside(orphan.adopted.remove)
        self._orphan = None
        return True

    async def _adopt(self) -> bool:
        """Whether there is a journal to ship besides our own. Raises OSError."""
        adopted = await self._adopting.next(_ADOPT_S)
        if adopted is None:
            return False
        orphan = Orphan(adopted)
        shipment = Shipment(self.means, orphan)
        self._orphan = (orphan, shipment)
        self.means.counts.adopted += 1
        self.means.counts.unknown += adopted.unknown
        self.means.log.warning("journal adopted", journal=adopted.name, unknown=adopted.unknown)
        await self.means.aside(self.means.quarantine.refresh)  # its process may have added to it
        await shipment.open()
        return True

    def _give_up(self, error: OSError | Stuck) -> None:
        """Leave the journal that we have adopted to others, or to a later time."""
        if self._orphan is not None:
            adopted, self._orphan = self._orphan[0].adopted, None
            adopted.release()
            self._adopting.avoid(adopted.path, error)

    def _say(self, reason: str) -> None:
        """Log a change."""
        if bool(reason) != bool(self.away):
            self._away_since = self.means.clock()
            if reason:
                self.means.log.warning("records wait", reason=reason)
            else:
                self.means.log.info("records are shipped again")
        self.away = reason


def families(shipper: Shipper) -> Iterator[Family]:
    """What was shipped, as metrics."""
    counts = shipper.counts
    for name, purpose in _COUNTERS.items():
        yield Family("counter", f"mcp_proxy_record_{name}", purpose, (("", float(getattr(counts, name))),))
    yield Family("counter", "mcp_proxy_record_journal_failures", "Journals of processes that are gone, not to be used",
                 (("", float(shipper.journal_failures)),))  # fmt: skip
    yield Family("gauge", "mcp_proxy_record_lag_seconds", "How far PostgreSQL is behind the spool; 0: not at all",
                 (("", shipper.lag_s),))  # fmt: skip
    yield Family(
        "gauge", "mcp_proxy_record_shipping", "Whether records can be shipped", (("", float(not shipper.away)),)
    )
    yield Family("gauge", "mcp_proxy_record_quarantine", "Records in the quarantine",
                 (("", float(len(shipper.means.quarantine))),))  # fmt: skip


_COUNTERS: Final = {
    "records": "Records shipped to PostgreSQL",
    "rows": "Rows of the audit trail sent to PostgreSQL",
    "batches": "Transactions that shipped records",
    "seconds": "Seconds spent in these transactions",
    "quarantined": "Records that PostgreSQL does not take, set aside",
    "damaged": "Places of segments that cannot be read",
    "away": "Attempts to ship that PostgreSQL was not there for",
    "quarantine_failures": "Records that could not be set aside: the quarantine is full, locked, or its disk fails",
    "unsaved": "Checkpoints that the disk would not have",
    "adopted": "Journals of processes that are gone, taken over",
    "unknown": "Requests whose end nobody saw, because their process died",
}
