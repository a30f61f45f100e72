"""How much is kept of what is recorded, and what becomes of a record for which there is no room.

Owns these two choices of the operator as the spool knows them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

#: `strict`: the request is refused. `standard`: it waits in memory, and is refused when that is full. `usage`: counted.
Grade = Literal["strict", "standard", "usage"]

#: Part of the bound that is kept for ends of requests, and its largest size in bytes.
_RESERVED: Final = 1 / 16
_MOST_RESERVED: Final = 16 << 20
#: Part of the bound that refusals may fill: they come by the thousand, and must never take the room of calls.
_REFUSALS: Final = 1 / 2
#: A small spool has at least so many segments, or nothing could be deleted of it.
_LEAST_SEGMENTS: Final = 4


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be kept, bytes."""

    total: int = 1 << 30
    """On the disk, of all journals of the spool."""
    segment: int = 16 << 20
    """In one file."""
    ring: int = 64 << 20
    """In memory, while the disk takes nothing."""

    def on(self, disk: int) -> Bounds:
        """The same on a disk that has room for so many bytes of the spool."""
        return replace(self, total=max(disk, 1)) if disk < self.total else self

    @property
    def reserve(self) -> int:
        """What of the total only ends of requests may use."""
        return min(int(self.total * _RESERVED), _MOST_RESERVED)

    @property
    def refusals(self) -> int:
        """While the spool has less, requests that were refused are recorded one by one."""
        return int(self.total * _REFUSALS)

    @property
    def file(self) -> int:
        """At this size a new segment is begun."""
        return max(min(self.segment, self.total // _LEAST_SEGMENTS), 1)


@dataclass(frozen=True, slots=True)
class Numbers:
    """A journal as it is now; bytes, records and seconds."""

    size: int
    """Bytes of all journals of the spool."""
    share: float
    """The same as a part of the bound."""
    ring: int
    """Bytes of memory that wait for the disk."""
    open: int
    """Requests that have begun and not ended."""
    written: int
    refused: int
    dropped: dict[Grade, int]
    syncs: int
    sync_failures: int
    sync_s: float
    last_sync_s: float
    error: str
    """Name of the error that keeps records from the disk; '' for none."""
    failing: bool
    """Whether records do not get onto the disk as they should: no room, or an error."""
