"""Who holds a journal: a lock on its file `lock`, which the kernel takes back when the holder dies.

Owns taking and giving up this lock, and the making of a journal that nobody can hold before its maker does.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from proxy.spool.layout import LOCK, sync_folder

_RANDOM_BYTES: Final = 6
#: Making and removing a journal takes less, seconds.
_LEFTOVER_S: Final = 600.0


class Held:
    """A journal that is ours until `release`."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def release(self) -> None:
        """Let others have it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def remove(self) -> None:
        """Delete the journal with everything in it; where that fails it is left to others. Raises OSError."""
        try:
            gone = self.path.with_name(f".gone-{self.path.name}")
            self.path.rename(gone)
            shutil.rmtree(gone)
        finally:
            self.release()


def make(spool: Path, wall: Callable[[], float]) -> Held:
    """Make a journal with a name of its own. Raises OSError."""
    if not spool.is_dir():
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(spool.parent)  # a record is on no disk while its folder is not
    _sweep(spool, wall() - _LEFTOVER_S)
    begun = datetime.fromtimestamp(wall(), UTC)
    name = f"{begun:%Y%m%dT%H%M%SZ}-{os.urandom(_RANDOM_BYTES).hex()}"
    new = spool / f".new-{name}"
    new.mkdir(mode=0o700)
    held = take(new)
    assert held is not None  # noqa: S101 - nobody else knows the name
    held.path = new.rename(spool / name)
    sync_folder(spool)
    return held


def take(path: Path) -> Held | None:
    """Hold a journal; None when somebody does, or when it is gone. Raises OSError."""
    try:
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_ino == (path / LOCK).stat().st_ino:
            return Held(path, lock)
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(lock)
        raise
    os.close(lock)
    return None


def is_held(path: Path) -> bool:
    """Whether somebody holds a journal now. Raises OSError."""
    held = take(path)
    if held is not None:
        held.release()
        return False
    return path.exists()


def _sweep(spool: Path, before: float) -> None:
    """Delete what a crash left of journals that were being made or removed. What is younger than `before` (seconds
    since 1970) may be somebody's who is about to hold it. What cannot be deleted stays."""
    for path in (*spool.glob(".new-*"), *spool.glob(".gone-*")):
        with suppress(OSError):
            held = take(path) if path.stat().st_mtime < before else None
            if held is not None:
                shutil.rmtree(path, ignore_errors=True)
                held.release()
