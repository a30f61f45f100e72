"""Records of a spool as rows in PostgreSQL: some hundred at a time, in one transaction.

Owns what becomes of a batch: rows are made in the order of the records, then they are committed, or refused, or there
is no database just now. A record of which no row can be made is set aside, on the disk, before a row behind it is
committed: so it is left out of its chain every time. Never keeps the event loop for longer than a millisecond, but for
a single record that is very large.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeVar

from proxy.spool.kinds import is_row
from proxy.spool.quarantine import Entry, Quarantine
from proxy.spool.segment import HEAD
from proxy.store.database import Unavailable
from proxy.store.records import Repeated, Row, Unfit, Unusable, add_rows, row_of, writing

if TYPE_CHECKING:
    from proxy.audit.chain import Draft
    from proxy.audit.signing import Signer
    from proxy.log import Logger
    from proxy.store.database import Database

_R = TypeVar("_R")

#: Records of one transaction.
MOST_RECORDS: Final = 500
#: Records that are made into rows between two breaths of the event loop.
SLICE: Final = 16
#: Why a journal is stuck.
FULL: Final = "the quarantine takes nothing"
#: A disk that hangs is waited for this long, seconds.
_DISK_S: Final = 10.0


class Away(Exception):
    """Nothing can be shipped just now; the text says why."""


class Stuck(Away):
    """Nor of this journal: a record that PostgreSQL refuses cannot be set aside. The others need not wait."""


@dataclass(slots=True)
class Counts:
    """What was shipped by this process."""

    records: int = 0
    rows: int = 0
    """Of both tables."""
    batches: int = 0
    seconds: float = 0.0
    """Spent in transactions."""
    quarantined: int = 0
    """Records that were set aside."""
    damaged: int = 0
    """Places of segments that cannot be read."""
    away: int = 0
    """Attempts that PostgreSQL was not there for."""
    quarantine_failures: int = 0
    """Records that could not be set aside, each time anew."""
    unsaved: int = 0
    """Checkpoints that the disk would not have."""
    adopted: int = 0
    """Journals of processes that are gone."""
    unknown: int = 0
    """Requests whose end nobody saw, because their process died."""
    lag_s: float = 0.0
    """Age of the record that was shipped last; 0 when all are."""


@dataclass(slots=True)
class Means:
    """What all shipments of a process share."""

    database: Database
    quarantine: Quarantine
    signer: Signer | None
    log: Logger
    wall: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic
    after_commit: Callable[[], None] = lambda: None
    """Called when rows are committed and the checkpoint does not say so yet; a test ends the process here."""
    counts: Counts = field(default_factory=Counts)
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="shipping"))

    async def aside(self, call: Callable[[], _R], within_s: float = _DISK_S) -> _R:
        """Do something that blocks on the disk. Raises what it raises, and TimeoutError, which is an OSError."""
        async with asyncio.timeout(within_s):
            return await asyncio.get_running_loop().run_in_executor(self.thread, call)


class Batch(NamedTuple):
    """Records that go together."""

    records: list[bytes]
    rows: list[Row]
    unfit: list[tuple[bytes, str]]
    """Records of which no row can be made, and why."""
    draft: Draft
    end: int
    """Offset behind them."""


Fate = Literal["sent", "refused", "away", "stuck"]


async def make(means: Means, records: list[bytes], start: int, draft: Draft) -> Batch:
    """Rows of records that begin at an offset, behind what the draft holds. 13 µs each."""
    rows: list[Row] = []
    unfit: list[tuple[bytes, str]] = []
    for place, record in enumerate(records, 1):
        if place % SLICE == 0:
            await asyncio.sleep(0)
        if not is_row(record) or means.quarantine.knows(record):
            continue
        try:
            rows.append(row_of(record, draft))
        except Unfit as reason:
            unfit.append((record, str(reason)))
    return Batch(records, rows, unfit, draft, start + sum(map(len, records)) + HEAD * len(records))


async def send(means: Means, batch: Batch) -> tuple[Fate, str]:
    """Commit the rows of a batch; what became of them, and why they were not committed."""
    for record, reason in batch.unfit:
        if not await set_aside(means, record, reason, batch.draft.segment):
            return "stuck", FULL
    began = means.clock()
    try:
        try:
            await _commit(means, batch.rows, new=True)
        except Repeated:  # a process died, or a connection, before anyone knew of the commit
            await _commit(means, batch.rows, new=False)
    except Unusable as refusal:
        return "refused", str(refusal)
    except Unavailable as reason:
        return "away", str(reason)
    means.after_commit()
    counts = means.counts
    counts.seconds += means.clock() - began
    counts.batches += 1
    counts.records += len(batch.records)
    counts.rows += len(batch.rows)
    if batch.rows:
        counts.lag_s = max(0.0, means.wall() - _time_of(batch.rows[-1]))
    return "sent", ""


async def _commit(means: Means, rows: list[Row], *, new: bool) -> None:
    if rows:
        async with writing(means.database) as session:
            await add_rows(session, rows, new=new)


async def set_aside(means: Means, record: bytes, reason: str, segment: str) -> bool:
    """Put a record into the quarantine. False: it takes none."""
    entry = Entry(record, reason, means.wall(), segment)
    kept = False
    try:
        kept = await means.aside(partial(means.quarantine.add, entry))
    except OSError as error:  # TimeoutError is one
        means.log.error("quarantine failed", segment=segment, error=type(error).__name__)
    if kept:
        means.counts.quarantined += 1
        means.log.error("record set aside", segment=segment, reason=reason)
    else:
        means.counts.quarantine_failures += 1
    return kept


def _time_of(row: Row) -> float:
    """Seconds since 1970; the second column."""
    return int(row.line.split(b"\t", 2)[1]) / 1e6
