"""Records, clocks and journals for the tests of the spool."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from proxy.spool import layout, segment
from proxy.spool.journal import Bounds, Journal

#: 2026-11-22T12:00:00Z.
NOON = 1_795_348_800.0
SMALL = Bounds(total=1 << 20, segment=16 << 10, ring=64 << 10)


class Wall:
    """Seconds since 1970, as the test says."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def key_of(number: int) -> str:
    """Id of a request."""
    return f"0190a000-0000-7000-8000-{number:012x}"


def record_of(kind: str, number: int, size: int = 0, **more: object) -> bytes:
    """A record of a request, `size` bytes longer than it has to be."""
    about = {"kind": kind, "id": key_of(number), "timestamp": "2026-11-22T12:00:00.000000Z", **more}
    return orjson.dumps({**about, "path": "x" * size} if size else about)


def intent(number: int, size: int = 0, **more: object) -> bytes:
    """What is known when a request begins."""
    return record_of("intent", number, size, **more)


def outcome(number: int, size: int = 0, **more: object) -> bytes:
    """What is known when it is over."""
    return record_of("outcome", number, size, **more)


def journal_in(spool: Path, bounds: Bounds = SMALL, wall: Wall | None = None) -> Journal:
    """A journal; it holds its lock until it is closed or the last reference to it goes."""
    return Journal(spool, bounds, wall or Wall())


def contents(journal: Path) -> list[bytes]:
    """Every record of every segment."""
    found = []
    for number in layout.segments(journal):
        piece = segment.read(layout.segment_path(journal, number), 0, 1 << 30)
        assert not piece.torn
        found += piece.records
    return found


def kill(journal: Journal) -> None:
    """What the kernel does when a process dies: its files are closed, its lock is gone, what was in memory is lost."""
    journal._writer.close()
    journal._groups.close()
    journal._held.release()


@contextmanager
def stopped_inside(spool: Path) -> Iterator[None]:
    """Another process takes everything back, and is stopped (SIGSTOP) before it has; after the block it goes on."""
    script = (
        "import os, pathlib, signal, sys; from proxy.spool.quarantine import Quarantine\n"
        "Quarantine(pathlib.Path(sys.argv[1])).take_back(lambda records: os.kill(os.getpid(), signal.SIGSTOP))"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(spool)]) as child:
        try:
            assert os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1])
            yield
        finally:
            child.send_signal(signal.SIGCONT)
            assert child.wait(10) == 0
