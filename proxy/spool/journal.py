"""The journal of a process: every record of every request, on the disk before it counts.

Owns what is done with a record when there is no room. By its grade: `strict` is refused; `standard` waits in memory,
and is refused when that is full too; `usage` is counted, and the count written when there is room again. Refusals are
counted much earlier. Which requests are open is known, so that a segment can go although one of its requests lasts.
`begin`, `end` and `append` never wait for a sync and never raise. Knows ids and tenants of records, no more of them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from proxy.identity.uuid7 import RecordIds
from proxy.spool import held, layout
from proxy.spool.bounds import Bounds, Grade, Numbers
from proxy.spool.groups import Groups
from proxy.spool.kinds import carried, summary, tenant_of
from proxy.spool.ring import Ring, Tallies
from proxy.spool.writer import Writer

#: How often `sync` is called, seconds: with what a sync takes, a host loses 50 ms of records that nobody waited for.
STEP_S: Final = 0.04
#: Steps between two looks at how full the spool is.
_LOOK_STEPS: Final = 25
#: A sync that runs longer than this is a disk that fails, seconds.
_SLOW_S: Final = 1.0
#: The last sync may take so long, seconds.
_CLOSE_S: Final = 5.0
#: Records that are written between two breaths of the loop.
_SLICE: Final = 64
#: "Segment" of a record that is in no file yet: later than all.
_IN_MEMORY: Final = 1 << 62
_NO_BOUND: Final = 1 << 62
_DAY_S: Final = 86400
#: What is written to see whether there is room: no row, and a page long.
_PROBE: Final = carried(b" " * 4096 + b"null")

__all__ = ["STEP_S", "Bounds", "Grade", "Journal", "Numbers"]


class Journal:
    """The records of this process. One for a process; used by its event loop only."""

    def __init__(self, directory: Path, bounds: Bounds, wall: Callable[[], float]) -> None:
        """Make a journal in the spool `directory`; `wall`: seconds since 1970. Raises OSError."""
        self._spool, self._wall = directory, wall
        self._held = held.make(directory, wall)
        size, disk = layout.measured(directory)
        self._asked, self._bounds = bounds, bounds.on(disk)
        self._writer = Writer(self._held.path, self._bounds.file)
        self._groups = Groups(self._writer)
        self._ring, self._tallies = Ring(bounds.ring), Tallies()
        self._ids = RecordIds(wall, os.urandom)
        #: Id of each open request -> the segment of the record of its beginning, and that record.
        self._open: dict[str, tuple[int, bytes]] = {}
        self._steps, self._day = 0, int(wall() // _DAY_S)
        #: Whether records go to the disk; False: something waits that has to go first, or there is no room.
        self._flows = False
        #: Bytes of the spool, as of the last look; records that were written; beginnings that were refused.
        self.size = self.written = self.refused = 0
        #: Records that were counted instead of kept.
        self.dropped: dict[Grade, int] = {"strict": 0, "standard": 0, "usage": 0}
        self._seen(0, size, disk)
        if self._writer.roll():
            self._flow()

    # --- the request path -----------------------------------------------------------------------------------------

    def begin(self, key: str, record: bytes, grade: Grade) -> bool:
        """A request begins: `key` is its id, and `record` what is known. False: no room, the request is refused."""
        writer = self._writer
        if (grade != "strict" or not self.unsafe) and writer.write(record):
            self._open[key] = (writer.number, record)
            self.written += 1
            return True
        return self._begin_slowly(key, record, grade)

    def end(self, key: str, record: bytes, grade: Grade) -> bool:
        """A request that has begun is over. False: there was no room even for that, and it was counted."""
        if self._writer.write(record):
            self._open.pop(key, None)
            self.written += 1
            return True
        return self._end_slowly(key, record, grade)

    def append(self, record: bytes, grade: Grade, tenant: str) -> bool:
        """A request of a tenant (its id, or '') was refused. False: counted, for lack of room, whatever its grade."""
        if self._writer.mark < self._refusals and (self._writer.write(record) or self._written_slowly(record)):
            self.written += 1
            return True
        self._count(tenant, grade)
        return False

    def skip(self, tenant: str) -> None:
        """Only count a record of a tenant, as one of grade `usage` for which there is no room."""
        self._count(tenant, "usage")

    def takes(self, grade: Grade) -> bool:
        """Whether `begin` would succeed now, as far as is known."""
        if self._flows:
            return grade != "strict" or not self.unsafe
        return grade == "usage" or (grade == "standard" and self._ring.has_room)

    @property
    def unsafe(self) -> bool:
        """Whether what is written may not get onto the disk: the last sync failed, or the running one lasts."""
        return bool(self._groups.error)

    def _begin_slowly(self, key: str, record: bytes, grade: Grade) -> bool:
        if (grade != "strict" or not self.unsafe) and self._written_slowly(record):
            self._open[key] = (self._writer.number, record)
            self.written += 1
            return True
        if grade == "usage":  # counted at its end
            return True
        if grade == "standard" and self._ring.put(key, record):
            self._open[key] = (_IN_MEMORY, record)
            return True
        self.refused += 1
        return False

    def _end_slowly(self, key: str, record: bytes, grade: Grade) -> bool:
        if self._written_slowly(record):
            self._open.pop(key, None)
            self.written += 1
            return True
        begun = self._open.get(key)
        on_disk = begun is not None and begun[0] < _IN_MEMORY  # an end never stands before its beginning
        if on_disk and not self._writer.error and self._writer.insist(record, self._bounds.reserve):
            self._open.pop(key)
            self.written += 1
            return True
        if (begun is not None or grade != "usage") and self._ring.put(key, record, end=begun is not None):
            return True  # open still: until this is written, its beginning must not go
        self._open.pop(key, None)
        self._count(tenant_of(record), grade)
        return False

    def _written_slowly(self, record: bytes) -> bool:
        """Write a record that the gate did not let through: into a new segment, if that was all."""
        if not self._flows:
            return False
        if self._writer.insist(record):
            self._writer.open_gate()
            return True
        self._stop()
        return False

    def _count(self, tenant: str, grade: Grade) -> None:
        self.dropped[grade] += 1
        self._tallies.count(tenant, self._wall())

    def _stop(self) -> None:
        self._flows = False
        self._writer.shut_gate()

    def _flow(self) -> None:
        self._flows = True
        self._writer.open_gate()

    @property
    def name(self) -> str:
        """Name of the journal, which no other ever had."""
        return self.path.name

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._held.path

    @property
    def number(self) -> int:
        """Number of the segment that is written; those before are sealed."""
        return self._writer.number

    def numbers(self) -> Numbers:
        """How it is."""
        groups, error = self._groups, self._writer.error or self._groups.error
        return Numbers(
            self.size, self.size / self._bounds.total, self._ring.size, len(self._open), self.written, self.refused,
            dict(self.dropped), groups.count, groups.failures, groups.seconds, groups.last_s, error,
            not self._flows or bool(error),
        )  # fmt: skip

    # --- the step -------------------------------------------------------------------------------------------------

    async def durable(self) -> bool:
        """Return when everything recorded so far is on the disk: with whoever else waits, in one sync. False: it is
        not, and may never be. The deadline is the caller's."""
        return await self._groups.through(self._writer.mark) and not self._ring

    async def sync(self, *, last: bool = False) -> None:
        """Every `STEP_S`: put on the disk what was written, write what waits if there is room again and counts of
        minutes that are over (the `last` time: all), and begin the segment of a new day. A disk that hangs is waited
        for no longer than a second."""
        self._steps += 1
        day = int(self._wall() // _DAY_S)
        if day != self._day and (self._writer.fresh or self._writer.roll()):
            self._day = day
            if self._flows:
                self._writer.open_gate()
        try:
            async with asyncio.timeout(_SLOW_S):
                if self._groups.error:
                    await self._groups.again()
                await self._groups.through(self._writer.mark)
                if not self._flows or self._steps % _LOOK_STEPS == 0:
                    await self._look()
        except TimeoutError:
            self._groups.error = "ETIMEDOUT"
            return
        if not self._flows or self._tallies.due(self._wall(), last=last):
            await self._resume()

    async def _look(self) -> None:
        self._writer.replace_deleted()
        with suppress(OSError):  # then it is as full as it was
            self._seen(self._writer.mark, *await self._groups.aside(partial(layout.measured, self._spool)))

    def _seen(self, mark: int, size: int, disk: int) -> None:
        """The spool has so many bytes, our own were `mark` or more in all; the disk has room for so many."""
        self.size, self._bounds = size, self._asked.on(disk)
        self._writer.bound = mark + self._bounds.total - self._bounds.reserve - size
        self._refusals = mark + self._bounds.refusals - size  # mark up to which they are written
        if self._flows:
            self._writer.open_gate()

    async def _resume(self) -> None:
        """Write what waits, in its order; let new records through when nothing waits any more."""
        self._writer.renew()
        if not self._ring and not self._tallies and not self._writer.insist(_PROBE):
            return
        while self._ring:
            key, record = self._ring.first
            if not self._writer.insist(record):
                return
            self._ring.drop_first()
            self.written += 1
            if self._open.pop(key, (0, b""))[0] == _IN_MEMORY:  # else it was an end
                self._open[key] = (self._writer.number, record)
            if self.written % _SLICE == 0:
                await asyncio.sleep(0)
        for tenant, minute, dropped in self._tallies.each():
            if not self._writer.insist(summary(self._ids.new(), tenant, minute, dropped)):
                return
            self._tallies.drop(tenant, minute)
        self._flow()

    # --- what was shipped -----------------------------------------------------------------------------------------

    async def release(self, number: int) -> bool:
        """Delete the sealed segments up to `number`, which were shipped; beginnings of open requests in them are
        copied first. False: the disk would not have it, for now. Raises OSError."""
        number = min(number, self._writer.number - 1)
        due = [key for key, begun in self._open.items() if begun[0] <= number]
        for place, key in enumerate(due, 1):
            record = self._open.get(key, (0, b""))[1]
            if record and not self._writer.insist(carried(record), _NO_BOUND):
                return False
            if record:
                self._open[key] = (self._writer.number, record)
            if place % _SLICE == 0:
                await asyncio.sleep(0)
        if self._flows:
            self._writer.open_gate()
        async with asyncio.timeout(_CLOSE_S):
            if not await self._groups.through(self._writer.mark):
                return False
            await self._groups.aside(partial(layout.remove_segments, self.path, number))
            await self._look()
        return True

    async def close(self, *, remove: bool = False) -> int:
        """Write and sync the rest, and let go of the journal, so that others ship it. Returns how many records are
        lost, because the disk takes none. `remove`: all so far was shipped, and it is deleted, unless something comes
        now, or a request is open, whose end whoever adopts it will tell. Raises OSError."""
        shipped = self._writer.mark
        if self._ring or self._tallies:
            await self._resume()
        lost = len(self._ring) + len(self._tallies)
        self._ring = Ring(0)
        self._stop()
        with suppress(OSError):  # TimeoutError is one: it was written, and is in the hands of the kernel
            async with asyncio.timeout(_CLOSE_S):
                await self._groups.through(self._writer.mark)
                if not self._open and not lost:
                    await self._groups.aside(partial(layout.put_file, self.path / layout.SEALED, b""))
        self._groups.close()
        self._writer.close()
        if remove and not lost and not self._open and self._writer.mark == shipped:
            self._held.remove()
        self._held.release()
        return lost
