"""Syncing in groups."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.spool.groups import Groups
from proxy.spool.writer import Unsynced, Writer
from tests.unit.spool.records import outcome


class Disk:
    """Lets syncs begin and end as the test says; nothing else of the disk is replaced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.syncs: list[int] = []
        self.error = ""
        self.free = threading.Event()
        self.free.set()
        real = Unsynced.sync

        def sync(what: Unsynced) -> str:
            self.free.wait(10)
            self.syncs.append(what.mark)
            return self.error or real(what)

        monkeypatch.setattr(Unsynced, "sync", sync)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A disk that works."""
    return Disk(monkeypatch)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    """With one record in it."""
    writer = Writer(tmp_path, 1 << 20)
    writer.bound = 1 << 20
    assert writer.insist(outcome(1))
    yield writer
    writer.close()


@pytest.fixture
def groups(writer: Writer) -> Iterator[Groups]:
    """With a clock that ticks one second at each look."""
    ticks = iter(range(1_000_000))
    groups = Groups(writer, lambda: float(next(ticks)))
    yield groups
    groups.close()


async def test_what_is_on_the_disk_is_not_synced_again(groups: Groups, writer: Writer, disk: Disk) -> None:
    """Nobody waits for nothing."""
    assert await groups.through(writer.mark)
    assert await groups.through(writer.mark)
    assert await groups.through(0)
    assert disk.syncs == [writer.mark]
    assert (groups.count, groups.failures, groups.seconds, groups.last_s) == (1, 0, 1.0, 1.0)
    assert groups.waiting_s == 0.0


async def test_all_who_wait_are_served_by_one_sync_after_the_running_one(
    groups: Groups, writer: Writer, disk: Disk
) -> None:
    """A sync that began before a record was written says nothing about it."""
    disk.free.clear()
    early = writer.mark
    waiting = [asyncio.create_task(groups.through(early))]
    await asyncio.sleep(0)
    assert groups.waiting_s > 0
    for number in range(50):
        assert writer.insist(outcome(number))
        waiting.append(asyncio.create_task(groups.through(writer.mark)))
    await asyncio.sleep(0)
    disk.free.set()
    assert all(await asyncio.gather(*waiting))
    assert disk.syncs == [early, writer.mark]


async def test_who_gives_up_waiting_takes_nobody_along(groups: Groups, writer: Writer, disk: Disk) -> None:
    """Also when it was the one that began."""
    disk.free.clear()
    first, second = (asyncio.create_task(groups.through(writer.mark)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    disk.free.set()
    assert await second
    assert first.cancelled()
    assert len(disk.syncs) == 1


async def test_what_a_failed_sync_was_to_write_never_counts_as_written(
    groups: Groups, writer: Writer, disk: Disk
) -> None:
    """What was before it and what comes after it does."""
    assert await groups.through(before := writer.mark)
    writer.insist(outcome(2))
    disk.error = "EIO"
    assert not await groups.through(lost := writer.mark)
    assert (groups.error, groups.failures) == ("EIO", 1)
    writer.insist(outcome(3))
    assert not await groups.through(also_lost := writer.mark)
    disk.error = ""
    await groups.again()
    assert groups.error == ""
    assert [await groups.through(mark) for mark in (before, lost, also_lost)] == [True, False, False]
    writer.insist(outcome(4))
    assert await groups.through(writer.mark)
    disk.error = "EIO"
    writer.insist(outcome(5))
    assert not await groups.through(writer.mark)
    disk.error = ""
    writer.insist(outcome(6))
    assert await groups.through(writer.mark)


async def test_what_is_lost_stays_lost_when_more_is(groups: Groups, writer: Writer, disk: Disk) -> None:
    """A sync in between that had nothing new to write has saved nothing."""
    disk.error = "EIO"
    assert not await groups.through(lost := writer.mark)
    disk.error = ""
    await groups.again()
    writer.insist(outcome(2))
    disk.error = "EIO"
    assert not await groups.through(writer.mark)
    assert not await groups.through(lost)


async def test_other_work_on_the_disk_takes_its_turn(groups: Groups) -> None:
    """In the same thread, so that one hanging disk holds one thread."""
    names = await groups.aside(lambda: threading.current_thread().name)
    assert names.startswith("spool")
