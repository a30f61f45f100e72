"""How much memory the process uses and may use, from the kernel's files.

Owns reading /proc and the control group. Where the limit is configured it holds for the process itself (its resident
set); where it is the control group's, what counts is all that the kernel could not take back from the group: that is
when it kills, and child processes are in the group, too. It decides nothing.
"""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc/self")
_CGROUPS: Final = Path("/sys/fs/cgroup")
#: More than any of these files has.
_STAT_BYTES: Final = 16 << 10
#: Version 1 says "no limit" with a number near 2^63.
_NO_LIMIT: Final = 1 << 60
#: Lines of `memory.stat` that no pressure shrinks, in version 2 and 1. Page cache is not among them.
_HELD_V2: Final = frozenset((b"anon", b"shmem", b"sock", b"kernel_stack", b"pagetables", b"slab_unreclaimable"))
_HELD_V1: Final = frozenset((b"total_rss", b"total_shmem"))


class Memory:
    """The memory of this process, or of its control group."""

    def __init__(self, proc: Path = _PROC, cgroups: Path = _CGROUPS) -> None:
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        # open from now on: when descriptors run out is no time to open a file
        self._statm = _opened(proc / "statm")
        self._group = _limited_group(proc, cgroups)
        self._stat = _opened(self._group[1]) if self._group is not None else None
        self._by_group = False
        #: Bytes that may be used; 0: nobody said.
        self.limit = 0

    def configure(self, limit: int | None) -> None:
        """Take the configured limit in bytes; None: that of the control group, if it has one."""
        self._by_group = limit is None
        self.limit = 0
        if limit is not None and self._statm is not None:
            self.limit = limit
        elif limit is None and self._group is not None and self._stat is not None:
            self.limit = self._group[0]

    def used(self) -> int:
        """Bytes in use now, where there is a limit. Takes a few microseconds for the process, some 20 for a group."""
        if self._by_group and self._group is not None and self._stat is not None:
            lines = (line.split() for line in os.pread(self._stat, _STAT_BYTES, 0).splitlines())
            return sum(int(size) for name, size in lines if name in self._group[2])
        assert self._statm is not None  # noqa: S101 - else there is no limit
        return int(os.pread(self._statm, _STAT_BYTES, 0).split()[1]) * self._page_bytes

    def close(self) -> None:
        """Close the kernel's files; there is no limit any more."""
        for file in (self._statm, self._stat):
            if file is not None:
                os.close(file)
        self._statm = self._stat = None
        self.limit = 0

    def trim(self) -> None:
        """Give free memory back to the kernel: the allocator keeps it otherwise. Takes milliseconds."""
        gc.collect(1)
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
        if trim is not None:
            trim(0)


def _opened(file: Path) -> int | None:
    """A descriptor to read from; None on a system that has no such file."""
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _limited_group(proc: Path, cgroups: Path) -> tuple[int, Path, frozenset[bytes]] | None:
    """Limit in bytes, `memory.stat` and its lines that count, of the group with the smallest limit; None without."""
    found: list[tuple[int, Path, frozenset[bytes]]] = []
    try:
        lines = (proc / "cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found += _limits(cgroups, path, "memory.max", _HELD_V2)
        elif "memory" in controllers.split(","):
            found += _limits(cgroups / "memory", path, "memory.limit_in_bytes", _HELD_V1)
    return min(found, key=lambda each: each[0], default=None)


def _limits(root: Path, path: str, name: str, held: frozenset[bytes]) -> list[tuple[int, Path, frozenset[bytes]]]:
    """Limits of a group and all above it; in a container the path may be the host's, and the root is the group."""
    group, found = root / path.lstrip("/"), []
    for folder in (group, *group.parents):
        if folder.is_relative_to(root):
            limit = _number(folder / name)
            if 0 < limit < _NO_LIMIT:
                found.append((limit, folder / "memory.stat", held))
    return found


def _number(file: Path) -> int:
    """The number in a file; 0 when there is none (`max`) or no such file."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0
