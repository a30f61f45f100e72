"""Memory comes from the kernel's files: of the process where its limit is configured, else of its control group."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.background.memory import Memory

MIB = 1 << 20
STAT_V2 = f"anon {100 * MIB}\nfile {900 * MIB}\nshmem {20 * MIB}\nsock {MIB}\nslab_unreclaimable {2 * MIB}\n"
STAT_V1 = f"cache {900 * MIB}\nrss {MIB}\nhierarchical_memory_limit 1\ntotal_rss {80 * MIB}\ntotal_shmem {5 * MIB}\n"


class Kernel:
    """The files that a kernel would show."""

    def __init__(self, root: Path) -> None:
        self.proc, self.cgroups = root / "proc", root / "cgroups"
        self.opened: list[Memory] = []
        self.write(self.proc / "statm", "5000 321 12 1 0 300 0\n")

    def write(self, file: Path, text: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def memory(self, limit: int | None = None) -> Memory:
        memory = Memory(self.proc, self.cgroups)
        self.opened.append(memory)
        memory.configure(limit)
        return memory


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    made = Kernel(tmp_path)
    yield made
    for memory in made.opened:
        memory.close()


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory()
    made.configure(512 * MIB)
    yield made
    made.close()


def test_the_real_process_uses_some_memory(memory: Memory) -> None:
    """More than an interpreter needs, less than the machine has; giving memory back does not break anything."""
    memory.trim()
    assert 5 * MIB < memory.used() < 64 << 30
    assert memory.limit == 512 * MIB


def test_what_was_freed_is_given_back(memory: Memory) -> None:
    """Small pieces in between others stay with the allocator until it is told."""
    pieces = [bytes(60_000) for _ in range(2000)]
    held = memory.used()
    del pieces[:-1]
    memory.trim()
    assert held - memory.used() > 60 * MIB


def test_it_is_read_without_another_descriptor(memory: Memory) -> None:
    """When they have run out, memory is still watched."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.open("/proc/self/statm", os.O_RDONLY)
        assert memory.used() > 5 * MIB
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_configured_limit_holds_for_the_process(kernel: Kernel) -> None:
    """Whatever the control group says."""
    kernel.write(kernel.proc / "cgroup", "0::/app\n")
    kernel.write(kernel.cgroups / "app/memory.max", f"{300 * MIB}\n")
    kernel.write(kernel.cgroups / "app/memory.stat", STAT_V2)
    memory = kernel.memory(128 * MIB)
    assert (memory.limit, memory.used()) == (128 * MIB, 321 * os.sysconf("SC_PAGE_SIZE"))
    memory.configure(None)
    assert (memory.limit, memory.used()) == (300 * MIB, 123 * MIB)


def test_a_group_of_version_2_limits_what_cannot_be_taken_back(kernel: Kernel) -> None:
    """Page cache is not among it."""
    kernel.write(kernel.proc / "cgroup", "0::/app\n")
    kernel.write(kernel.cgroups / "app/memory.max", f"{300 * MIB}\n")
    kernel.write(kernel.cgroups / "app/memory.stat", STAT_V2)
    memory = kernel.memory()
    assert (memory.limit, memory.used()) == (300 * MIB, 123 * MIB)


def test_the_smallest_limit_above_counts(kernel: Kernel) -> None:
    """A group has no more than those that it is in; there `max` is no limit."""
    kernel.write(kernel.proc / "cgroup", "0::/slice/app\n")
    kernel.write(kernel.cgroups / "slice/app/memory.max", "max\n")
    kernel.write(kernel.cgroups / "slice/memory.max", f"{200 * MIB}\n")
    kernel.write(kernel.cgroups / "slice/memory.stat", STAT_V2)
    kernel.write(kernel.cgroups / "memory.max", f"{400 * MIB}\n")
    assert kernel.memory().limit == 200 * MIB


def test_a_group_of_version_1_limits_as_well(kernel: Kernel) -> None:
    """In a container its path is the host's, and its files are at the root."""
    kernel.write(kernel.proc / "cgroup", "5:cpu,memory:/docker/abc\n0::/\n")
    kernel.write(kernel.cgroups / "memory/memory.limit_in_bytes", f"{300 * MIB}\n")
    kernel.write(kernel.cgroups / "memory/memory.stat", STAT_V1)
    memory = kernel.memory()
    assert (memory.limit, memory.used()) == (300 * MIB, 85 * MIB)


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", "", "0"])
def test_without_a_limit_nothing_is_watched(kernel: Kernel, limit: str) -> None:
    """`max`, the number that version 1 has for it, or no such file."""
    kernel.write(kernel.proc / "cgroup", "4:memory:/\n0::/\n")
    kernel.write(kernel.cgroups / "memory.max", limit)
    kernel.write(kernel.cgroups / "memory/memory.limit_in_bytes", limit)
    assert kernel.memory().limit == 0


def test_on_a_system_without_such_files_nothing_is_watched(tmp_path: Path) -> None:
    """Not even where a limit is configured."""
    memory = Memory(tmp_path / "proc", tmp_path / "cgroups")
    memory.configure(128 * MIB)
    assert memory.limit == 0
    memory.close()


def test_without_control_groups_there_is_no_limit(kernel: Kernel) -> None:
    """As on a kernel that has none."""
    assert kernel.memory().limit == 0
