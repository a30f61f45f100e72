"""Records that the database does not take: kept in one file, so that the others go on and nothing is lost.

Owns this file: each entry says why, when and from where, and holds the record as it was. A record is known by its
digest, so that shipping it again after a crash skips it. Everything here blocks, and is called in a thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

import orjson

from proxy.spool import layout, segment
from proxy.spool.kinds import fields_of

_DIGEST_BYTES: Final = 16
_PIECE: Final = 1 << 20
#: They hold the checksum of the first entry, which holds its time.
_BEGIN_BYTES: Final = 64
#: Who writes it has the lock for some milliseconds; who was stopped has it for as long as he is. Seconds.
_PATIENCE_S: Final = 2.0
_PAUSE_S: Final = 0.01
#: Characters of a reason that are kept.
_REASON_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """A record that was set aside."""

    record: bytes
    reason: str
    """Why the database refused it; shows nothing of the record."""
    at: float
    """When, seconds since 1970."""
    segment: str
    """`<journal>/<number>`."""

    @property
    def id(self) -> str:
        """Id of its request; '' when it cannot be read."""
        return str(fields_of(self.record).get("id", ""))


class Quarantine:
    """The quarantine of a spool; several processes may use it."""

    def __init__(self, spool: Path, limit: int = 64 << 20, patience_s: float = _PATIENCE_S) -> None:
        """`limit`: bytes of the file beyond which nothing is added; another process is waited for so many seconds.
        Raises OSError."""
        self._path = spool / layout.QUARANTINE
        self._patience_s = patience_s
        self._limit = limit
        self._known: set[bytes] = set()
        #: Which file `_known` is of, by its first bytes (an inode may be used again), and how far it was read.
        self._file = b""
        self._read = 0
        self.refresh()

    def __len__(self) -> int:
        """Records in it, as of the last look."""
        return len(self._known)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return layout.size_of(self._path)

    def knows(self, record: bytes) -> bool:
        """Whether a record is in it, as of the last look: 1 µs, and nothing while it is empty."""
        return bool(self._known) and _digest(record) in self._known

    def refresh(self) -> None:
        """Look what others have added or taken back. Raises OSError."""
        try:
            with self._path.open("rb") as file:
                begin = file.read(_BEGIN_BYTES)
        except FileNotFoundError:
            begin = b""
        if begin != self._file or self.size < self._read:
            self._known, self._file, self._read = set(), begin, 0
        if not begin:
            return
        with suppress(FileNotFoundError):  # taken back in this moment: the next look sees it
            for entry, offset in _entries(self._path, self._read):
                self._known.add(_digest(entry.record))
                self._read = offset

    def entries(self) -> Iterator[Entry]:
        """Everything in it, the oldest first. Raises OSError."""
        with suppress(FileNotFoundError):
            yield from (entry for entry, _ in _entries(self._path, 0))

    def add(self, entry: Entry) -> bool:
        """Set a record aside, on the disk when this returns; once, however often it comes. False: it is full. Raises
        OSError; TimeoutError when another process keeps it from us."""
        about = {"reason": entry.reason[:_REASON_CHARS], "at": entry.at, "segment": entry.segment}
        framed = segment.frame(orjson.dumps(about) + b"\n" + entry.record)
        with _alone(self._path, self._patience_s):
            self.refresh()
            if self.knows(entry.record):
                return True
            if self.size + len(framed) > self._limit:
                return False
            self._append(framed)
            self.refresh()
        return True

    def take_back(self, put: Callable[[list[bytes]], bool]) -> int:
        """Give every record to `put`, and forget them when it has kept them (True). Returns how many. Raises
        OSError; TimeoutError as `add` does."""
        with _alone(self._path, self._patience_s):
            records = [entry.record for entry in self.entries()]
            if not records or not put(records):
                return 0
            self._path.unlink()
            layout.sync_folder(self._path.parent)
            self.refresh()
        return len(records)

    def _append(self, framed: bytes) -> None:
        """Behind the last whole entry: what a crash tore is written over."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, self._read)
            if os.pwrite(descriptor, framed, self._read) != len(framed):
                os.ftruncate(descriptor, self._read)
                raise OSError("the quarantine cannot be written")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        layout.sync_folder(self._path.parent)


def _entries(path: Path, offset: int) -> Iterator[tuple[Entry, int]]:
    """Entries from a place on, each with the place behind it."""
    at: int | None = offset
    while at is not None:
        piece = segment.read(path, at, _PIECE)
        for content in piece.records:
            at += segment.HEAD + len(content)
            head, _, record = content.partition(b"\n")
            about = fields_of(head)
            yield Entry(record, str(about["reason"]), float(about["at"]), str(about["segment"])), at
        at = segment.next_whole(path, at) if piece.torn else at if piece.records else None


def _digest(record: bytes) -> bytes:
    return blake2b(record, digest_size=_DIGEST_BYTES).digest()


@contextmanager
def _alone(path: Path, patience_s: float) -> Iterator[None]:
    """Only one process at a time; the lock is beside the file, which is deleted. Raises OSError."""
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + patience_s
    try:
        while not _locked(descriptor):
            if time.monotonic() >= until:
                raise TimeoutError(errno.ETIMEDOUT, "another process keeps the quarantine locked")
            time.sleep(_PAUSE_S)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
