"""Journals whose process is gone: found, put in order, and held until they are shipped.

Owns what a crash left open. A torn end is cut off: nobody was told that it was written. A request that had begun and
not ended gets an end that says what is known, which is nothing: outcome `unknown`, reason `crash`, at the time of its
beginning. Done twice it comes to the same. Everything here blocks, and is called in a thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Final

import orjson

from proxy.spool import held, layout, segment
from proxy.spool.kinds import closed, fields_of, opened

#: Bytes that are looked through at once, and the seconds of rest after them, for the sake of the other threads.
_PIECE: Final = 256 << 10
_REST_S: Final = 0.001
_DAY: Final = len("2026-11-22")
#: What beginnings have and ends have not.
_ARGUMENTS: Final = ("arguments", "arguments_hash")
_NO_ROOM: Final = (ENOSPC, EDQUOT)


class Adopted:
    """A journal of a process that is gone; nobody else ships it until `release` or `remove`."""

    def __init__(self, holding: held.Held, unknown: int, unwritten: dict[int, bytes]) -> None:
        self._held = holding
        #: Requests that the crash had left open.
        self.unknown = unknown
        #: Segments of their ends, behind all others, that the disk has no room for: number -> content.
        self.unwritten = unwritten

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._held.path

    @property
    def name(self) -> str:
        """Its name."""
        return self._held.path.name

    def segments(self) -> list[int]:
        """Numbers of its segments, in order."""
        return layout.segments(self._held.path)

    def release(self) -> None:
        """Leave it to others."""
        self._held.release()

    def remove(self) -> None:
        """All of it was shipped: delete it. Raises OSError."""
        self._held.remove()


def orphans(spool: Path) -> list[Path]:
    """Journals that nobody holds, the oldest first, and those of which that cannot be told. Raises OSError."""
    return [path for path in layout.journals(spool) if not _is_held(path)]


def _is_held(path: Path) -> bool:
    try:
        return held.is_held(path)
    except OSError:  # whoever adopts it will see why
        return False


def adopt(path: Path, rest: Callable[[], None] = lambda: time.sleep(_REST_S)) -> Adopted | None:
    """Take a journal over; None when somebody else has. `rest` is called now and then. Raises OSError."""
    holding = held.take(path)
    if holding is None:
        return None
    try:
        return Adopted(holding, *((0, {}) if (path / layout.SEALED).exists() else _put_in_order(path, rest)))
    except BaseException:
        holding.release()
        raise


def _put_in_order(path: Path, rest: Callable[[], None]) -> tuple[int, dict[int, bytes]]:
    """Returns how many requests were open, and the segments of their ends that the disk has no room for."""
    numbers = layout.segments(path)
    open_requests: dict[str, bytes] = {}
    for number in numbers:
        end = _read_through(layout.segment_path(path, number), open_requests, rest)
        _settle(layout.segment_path(path, number), end if number == numbers[-1] else None)
    by_day: dict[str, list[bytes]] = {}
    for intent in open_requests.values():
        about = fields_of(intent)
        by_day.setdefault(str(about.get("timestamp"))[:_DAY], []).append(segment.frame(_unknown(about)))
    first = numbers[-1] + 1 if numbers else 1
    ends = {number: b"".join(by_day[day]) for number, day in enumerate(sorted(by_day), first)}
    return len(open_requests), _put(path, ends)


def _put(path: Path, ends: dict[int, bytes]) -> dict[int, bytes]:
    """Write segments, and that nothing is open any more. Returns those that there is no room for, from the first one
    on: were a later one written, who adopts the journal after us would give the others other numbers."""
    left = dict(ends)
    try:
        for number, content in ends.items():
            layout.put_file(layout.segment_path(path, number), content)
            del left[number]
        layout.put_file(path / layout.SEALED, b"")
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
    return left


def _read_through(path: Path, open_requests: dict[str, bytes], rest: Callable[[], None]) -> int:
    """Note which requests are open at the end of a segment. Returns where its last whole record ends."""
    at: int | None = 0
    end = 0
    while at is not None:
        piece = segment.read(path, at, _PIECE)
        for record in piece.records:
            begun = opened(record)
            if begun is not None:
                open_requests.setdefault(*begun)
            else:
                open_requests.pop(closed(record), None)
        end = piece.offset if piece.records else end
        at = segment.next_whole(path, piece.offset) if piece.torn else piece.offset if piece.records else None
        rest()
    return end


def _settle(path: Path, end: int | None) -> None:
    """Cut off what is behind `end`, and put the rest on the disk: what is open is decided by it, once."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        if end is not None:
            os.ftruncate(descriptor, end)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unknown(intent: dict[str, object]) -> bytes:
    """The end of a request of which only its beginning is known: what is large or deep of that stays there."""
    about = {name: value for name, value in intent.items() if name not in _ARGUMENTS}
    return orjson.dumps({**about, "kind": "outcome", "outcome": "unknown", "reason": "crash"})
