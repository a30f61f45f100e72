"""The segment that is written: one `write(2)` for each record, and a new file when one is full.

Owns the open files of a journal and how far each was written. What was written in part is taken back, so that a segment
has no tear but where the machine stopped. Knows nothing of what a record says, and never raises.
"""

from __future__ import annotations

import os
from contextlib import suppress
from errno import ENOSPC, errorcode
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

from proxy.spool.layout import segment_path, sync_folder
from proxy.spool.segment import HEAD, LARGEST

_head: Final = Struct("<II").pack
_write: Final = os.write
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC


class Unsynced(NamedTuple):
    """What has to be synced so that everything up to `mark` is on the disk."""

    mark: int
    files: tuple[int, ...]
    closing: int
    """So many of the first files are written no more."""
    folder: Path | None
    """The folder whose names are new."""

    def sync(self) -> str:
        """Put it on the disk; blocks. Returns the name of the error, '' for none."""
        try:
            for descriptor in self.files:
                os.fdatasync(descriptor)
            if self.folder is not None:
                sync_folder(self.folder)
        except OSError as error:
            return name_of(error)
        return ""


class Writer:
    """Writes the segments of one journal. Positions are *marks*: bytes written since the journal began."""

    __slots__ = ("_end", "_fd", "_folder", "_named", "_retired", "_segment", "_start", "bound", "error", "mark",
                 "number", "until")  # fmt: skip

    def __init__(self, folder: Path, segment: int) -> None:
        """`segment`: bytes at which a new one is begun."""
        self._folder = folder
        self._segment = segment
        self._fd = -1
        self._retired: list[int] = []
        #: Whether the names of all segments are on the disk.
        self._named = False
        self._start = self._end = 0
        #: Number of the segment that is written; 0: none yet.
        self.number = 0
        self.mark = 0
        #: Mark up to which `write` writes; 0: the gate is shut.
        self.until = 0
        #: Mark up to which there is room in the spool.
        self.bound = 0
        #: Name of the error that stopped the last write or the last new file; '' for none.
        self.error = ""

    def write(self, record: bytes) -> bool:
        """Write a record if the gate is open and the segment has room for it. The hot one: 0.7 µs and the write."""
        whole = _head(len(record), crc32(record)) + record
        mark = self.mark + len(whole)
        if mark > self.until:
            return False
        try:
            written = _write(self._fd, whole)
        except OSError as error:
            self._take_back(name_of(error))
            return False
        if written != len(whole):
            self._take_back(errorcode[ENOSPC])
            return False
        self.mark = mark
        return True

    def insist(self, record: bytes, extra: int = 0) -> bool:
        """Write a record whatever the gate says, into a new segment if need be: up to `extra` bytes beyond the
        bound."""
        mark = self.mark + HEAD + len(record)
        if mark > self.bound + extra or len(record) > LARGEST:
            return False
        if (self._fd < 0 or (mark > self._end and self.mark > self._start)) and not self.roll():
            return False
        gate, self.until = self.until, mark
        written = self.write(record)
        self.until = gate
        if written:
            self.error = ""
        return written

    def open_gate(self) -> None:
        """Let `write` write as far as segment and bound reach."""
        self.until = min(self.bound, self._end) if self._fd >= 0 else 0

    def shut_gate(self) -> None:
        """Let `write` write nothing."""
        self.until = 0

    @property
    def fresh(self) -> bool:
        """Whether nothing is in the segment yet."""
        return self.mark == self._start

    def roll(self) -> bool:
        """Begin a new segment; the gate has to be opened anew. False: it cannot be made, and the old one goes on."""
        try:
            descriptor = os.open(segment_path(self._folder, self.number + 1), _NEW, 0o600)
        except OSError as error:
            self.error = name_of(error)
            return False
        self._retire()
        self._fd = descriptor
        self.number += 1
        self._start, self._end = self.mark, self.mark + self._segment
        self._named = False
        self.until = 0
        return True

    def renew(self) -> None:
        """After a write that failed, begin a new segment: when the old one is shipped it can go, and make room."""
        if self.error and not self.fresh:
            self.roll()

    def replace_deleted(self) -> None:
        """If somebody has deleted the segment, what is in it is lost; begin a new one, or write nothing any more."""
        if self._fd >= 0 and not os.fstat(self._fd).st_nlink and not self.roll():
            self._retire()
            self.until = 0

    def _take_back(self, error: str) -> None:
        """Cut off what a write that failed may have left; a file that cannot be cut is written no more."""
        self.error = error
        try:
            os.ftruncate(self._fd, self.mark - self._start)
        except OSError:
            self._retire()
            self.until = 0

    def _retire(self) -> None:
        if self._fd >= 0:
            self._retired.append(self._fd)
            self._fd = -1

    # --- syncing --------------------------------------------------------------------------------------------------

    def unsynced(self) -> Unsynced:
        """What to sync now."""
        current = (self._fd,) if self._fd >= 0 else ()
        files, folder = (*self._retired, *current), None if self._named else self._folder
        return Unsynced(self.mark, files, len(self._retired), folder)

    def synced(self, done: Unsynced) -> None:
        """It is on the disk: what is written no more is closed."""
        for descriptor in done.files[: done.closing]:
            self._retired.remove(descriptor)
            os.close(descriptor)
        if done.folder is not None and done.files[-1:] == (self._fd,):
            self._named = True

    def close(self) -> None:
        """Close every file, and write nothing any more."""
        self._retire()
        for descriptor in self._retired:
            with suppress(OSError):
                os.close(descriptor)
        self._retired.clear()
        self.until = self.bound = 0


def name_of(error: OSError) -> str:
    """Such as ENOSPC."""
    return errorcode.get(error.errno or 0, "unknown")
