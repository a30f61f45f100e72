"""One journal on its way to PostgreSQL: read, made into rows, written, and remembered how far.

Owns the order of these steps. Records go in the order in which they were written, and a chain counts only rows that
were committed, so that doing it again after a crash gives the same rows. While one batch is written the next is made.
What PostgreSQL refuses is halved until the one record is found that it does not take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from proxy.audit.chain import Chains, Draft
from proxy.background.batches import FULL, MOST_RECORDS, SLICE, Away, Batch, Fate, Stuck, make, send, set_aside
from proxy.spool import checkpoint, layout, segment
from proxy.spool.checkpoint import Checkpoint
from proxy.store.database import Unavailable
from proxy.store.records import SignedHead, Unusable, add_heads, signed, writing

if TYPE_CHECKING:
    from proxy.background.batches import Means

#: Bytes that are read at once, and that one transaction holds, about.
_PIECE: Final = 512 << 10
#: Heads of one transaction.
_HEADS: Final = 250
#: The checkpoint is written this often while there is more to ship, and the head of an unfinished segment, seconds.
_CHECKPOINT_S: Final = 0.25
_HEAD_S: Final = 60.0


class Origin(Protocol):
    """Where records come from."""

    @property
    def path(self) -> Path:
        """Folder of the journal."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def unwritten(self) -> Mapping[int, bytes]:
        """Segments behind all others that are in no file, because there is no room for them."""

    def is_sealed(self, number: int) -> bool:
        """Whether nothing will be added to a segment."""

    async def on_disk(self, number: int) -> None:
        """Return when what was read of a segment will outlive the host, or when that takes too long."""

    async def shipped(self, number: int) -> bool:
        """All segments up to this one are in the database, and that is on the disk. False: tell me again."""


class Ahead(NamedTuple):
    """Records of a segment, and the offsets between which they stand."""

    records: list[bytes]
    start: int
    end: int


class Shipment:
    """One journal. `open` comes first."""

    def __init__(self, means: Means, origin: Origin) -> None:
        self._means = means
        self._origin = origin
        self._chains = Chains("")
        self._number = self._offset = 0
        #: What was read and is in no batch yet, where it begins, and where it ends.
        self._ahead = Ahead([], 0, 0)
        self._saved = (-1, 0)
        self._saved_at = self._headed_at = means.clock()
        #: Tenant -> rows in its last head of the segment.
        self._headed: dict[str, int] = {}
        self._release = 0

    async def open(self) -> None:
        """Go on where the checkpoint says. Raises OSError."""
        found = await self._means.aside(partial(checkpoint.load, self._origin.path))
        with suppress(ValueError, TypeError):  # damaged chains are as good as no checkpoint
            self._chains = Chains.from_json(f"{self._origin.name}/{found.segment}", found.chains)
            self._number, self._offset = found.segment, found.offset
        if not self._number:
            await self._next()

    @property
    def _segment(self) -> str:
        return f"{self._origin.name}/{self._number}"

    async def ship(self, until: float) -> bool:
        """Ship what there is, until that moment of the clock. True: nothing is left, nor will anything come. Raises
        Away and OSError."""
        try:
            return await self._ship(until)
        finally:
            await self._save()

    async def _ship(self, until: float) -> bool:
        while self._means.clock() < until:
            sealed = self._origin.is_sealed(self._number)
            if not self._number:
                if not await self._next():
                    return sealed
            elif not await self._portions(until) and not await self._passed_damage(sealed):
                if not sealed:
                    await self._heads_in_time()
                    self._means.counts.lag_s = 0.0
                    return False
                if not await self._end_segment():
                    return True
        return False

    # --- a segment ------------------------------------------------------------------------------------------------

    async def _next(self) -> bool:
        """Begin the segment behind the present one, if there is one."""
        numbers = await self._means.aside(partial(layout.segments, self._origin.path))
        later = sorted(number for number in {*numbers, *self._origin.unwritten} if number > self._number)
        if later:
            self._number, self._offset, self._ahead = later[0], 0, Ahead([], 0, 0)
            self._chains.next(self._segment)
            self._headed.clear()
        return bool(later)

    async def _end_segment(self) -> bool:
        """Sign what the segment holds and go to the next one. False: there is none."""
        await self._heads(final=True)
        ended = self._number
        if not await self._next():
            return False
        self._release = ended
        await self._save()
        return True

    async def _passed_damage(self, sealed: bool) -> bool:
        """Whether something that cannot be read was passed over, and there is more behind it."""
        path = layout.segment_path(self._origin.path, self._number)
        size = await self._means.aside(partial(layout.size_of, path))
        if size <= self._offset:
            return False
        found = await self._means.aside(partial(segment.next_whole, path, self._offset))
        if not sealed:  # what has no record behind it may be on its way, and has come by now if it has one
            if found is None:
                return False
            if (await self._means.aside(partial(segment.read, path, self._offset, segment.HEAD))).records:
                return True
        self._means.counts.damaged += 1
        self._means.log.error("segment damaged", segment=self._segment, offset=self._offset, next=found)
        self._offset = found if found is not None else size
        return found is not None

    async def _save(self) -> None:
        """Keep how far everything is; what the disk does not take now it may take next time."""
        now = (self._number, self._offset)
        chains = self._chains.copy()
        if now != self._saved and self._number:
            try:
                await self._means.aside(
                    lambda: checkpoint.save(self._origin.path, Checkpoint(*now, chains.to_json()))
                )  # fmt: skip
            except OSError:
                self._means.counts.unsaved += 1
                if not await self._forgotten():
                    return
            else:
                self._saved = now
        self._saved_at = self._means.clock()
        if self._release and await self._origin.shipped(self._release):
            self._release = 0

    async def _forgotten(self) -> bool:
        """Whether segments may go although no checkpoint could be written: a full disk has room for one only then.
        Without any, what is left is shipped again, which changes nothing."""
        with suppress(OSError):
            if self._release:
                await self._means.aside(partial(checkpoint.forget, self._origin.path))
                self._saved = (-1, 0)
                return True
        return False

    # --- heads ----------------------------------------------------------------------------------------------------

    async def _heads_in_time(self) -> None:
        if self._means.clock() - self._headed_at >= _HEAD_S:
            await self._heads(final=False)

    async def _heads(self, final: bool) -> None:
        """Write what is signed of the segment: of tenants with rows since the last time. Raises Away."""
        self._headed_at = self._means.clock()
        due: list[SignedHead] = []
        for place, head in enumerate(self._chains.heads(final)):
            if place % SLICE == 0:
                await asyncio.sleep(0)
            if final or self._headed.get(head.tenant) != head.rows:
                due.append(signed(head, self._means.signer))
            if len(due) == _HEADS:
                await self._send_heads(due)
                due = []
        await self._send_heads(due)

    async def _send_heads(self, due: list[SignedHead]) -> None:
        try:
            if due:
                async with writing(self._means.database) as session:
                    await add_heads(session, due)
        except (Unavailable, Unusable) as reason:
            raise Away(str(reason)) from None
        self._headed.update({each.head.tenant: each.head.rows for each in due})

    # --- batches --------------------------------------------------------------------------------------------------

    async def _portions(self, until: float) -> bool:
        """Ship what can be read of the segment. False: nothing. Raises Away, and OSError for what cannot be read."""
        batch = await self._batch(self._offset, self._chains.draft())
        shipped = batch is not None
        while batch is not None:
            batch = await self._exchange(batch, self._means.clock() < until)
            if self._means.clock() - self._saved_at >= _CHECKPOINT_S:
                await self._save()
        return shipped

    async def _exchange(self, batch: Batch, more: bool) -> Batch | None:
        """Write a batch, and make the next one meanwhile."""
        following = None
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._send(batch))
            if more:
                with suppress(OSError):  # it will be read again
                    following = await self._batch(batch.end, self._chains.draft(batch.draft))
        return following if await self._settled(batch, *sending.result()) else None

    async def _batch(self, start: int, draft: Draft) -> Batch | None:
        """The next records, from an offset on; None when there are none. Raises OSError."""
        ahead = self._ahead if self._ahead.start == start else Ahead([], start, start)
        if len(ahead.records) < MOST_RECORDS:  # batches of one size, or making one is not over when the other is sent
            ahead = await self._read(ahead)
        some, rest = ahead.records[:MOST_RECORDS], ahead.records[MOST_RECORDS:]
        if not some:
            return None
        batch = await make(self._means, some, start, draft)
        self._ahead = Ahead(rest, batch.end, ahead.end)
        return batch

    async def _read(self, ahead: Ahead) -> Ahead:
        """The same and one piece more. Raises OSError."""
        path = layout.segment_path(self._origin.path, self._number)
        unwritten = self._origin.unwritten.get(self._number)
        if unwritten is not None:
            piece = segment.read_from(unwritten, ahead.end, _PIECE)
            return Ahead(ahead.records + piece.records, ahead.start, piece.offset)
        with suppress(FileNotFoundError):  # somebody has deleted it: it is at its end
            piece = await self._means.aside(partial(segment.read, path, ahead.end, _PIECE))
            return Ahead(ahead.records + piece.records, ahead.start, piece.offset)
        return ahead

    async def _send(self, batch: Batch) -> tuple[Fate, str]:
        await self._origin.on_disk(self._number)
        return await send(self._means, batch)

    async def _settled(self, batch: Batch, fate: Fate, reason: str) -> bool:
        """What follows from a batch's fate. False: what was made to follow it is void. Raises Away."""
        if fate == "away":
            raise Away(reason)
        if fate == "stuck":
            raise Stuck(reason)
        if fate == "refused":
            await self._split(batch, reason)
            return False
        self._chains.accept(batch.draft)
        self._offset = batch.end
        return True

    async def _split(self, batch: Batch, reason: str) -> None:
        """Write the halves of a batch apart; of a batch of one row, write none. Raises Away."""
        records, half = batch.records, len(batch.records) // 2
        if not half:
            if not await set_aside(self._means, records[0], reason, batch.draft.segment):
                raise Stuck(FULL)
            self._offset = batch.end
            await self._save()
            return
        for some in (records[:half], records[half:]):
            part = await make(self._means, some, self._offset, self._chains.draft())
            await self._settled(part, *await self._send(part))
