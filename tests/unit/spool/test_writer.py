"""The segment that is written."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.spool import layout, segment
from proxy.spool.writer import Writer, name_of
from tests.unit.spool.records import contents, outcome


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    """Segments of 1000 bytes, and room enough."""
    writer = Writer(tmp_path, 1000)
    writer.bound = 1 << 20
    yield writer
    writer.close()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond this: a disk that is full in the middle of a record."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_nothing_is_written_while_the_gate_is_shut(writer: Writer, tmp_path: Path) -> None:
    """Not before the first segment, and not when it was shut again."""
    assert not writer.write(b"{}")
    assert writer.roll()
    assert not writer.write(b"{}")
    writer.open_gate()
    assert writer.write(b"{}")
    writer.shut_gate()
    assert not writer.write(b"{}")
    assert contents(tmp_path) == [b"{}"]


def test_records_go_into_a_new_segment_when_one_is_full(writer: Writer, tmp_path: Path) -> None:
    """`write` says that there is no room in this one, `insist` begins the next."""
    records = [outcome(number, 100) for number in range(20)]
    for record in records:
        if not writer.write(record):
            assert writer.insist(record)
            writer.open_gate()
    assert contents(tmp_path) == records
    sizes = [layout.segment_path(tmp_path, number).stat().st_size for number in layout.segments(tmp_path)]
    assert len(sizes) == writer.number > 3
    assert max(sizes) <= 1000
    assert sum(sizes) == writer.mark


def test_a_record_larger_than_a_segment_has_one_of_its_own(writer: Writer, tmp_path: Path) -> None:
    """It is not refused for ever."""
    assert writer.roll()
    assert writer.insist(outcome(0, 5000))
    assert writer.number == 1
    assert writer.insist(outcome(1))
    assert writer.insist(outcome(2, 5000))
    assert writer.insist(outcome(3))
    assert layout.segments(tmp_path) == [1, 2, 3, 4]
    assert contents(tmp_path) == [outcome(0, 5000), outcome(1), outcome(2, 5000), outcome(3)]


def test_nothing_goes_beyond_the_bound_but_what_may(writer: Writer) -> None:
    """`extra` is for ends of requests."""
    writer.bound = 500
    assert writer.insist(bytes(400))
    assert not writer.insist(bytes(200))
    assert writer.insist(bytes(200), 200)
    assert not writer.insist(bytes(200), 200)
    assert not writer.insist(bytes(segment.LARGEST + 1), 1 << 62)


def test_a_record_that_was_written_in_part_is_taken_back(writer: Writer, tmp_path: Path) -> None:
    """The segment has no tear, and goes on when there is room again."""
    assert writer.insist(outcome(1))
    writer.open_gate()
    with largest_file(writer.mark + 50):
        assert not writer.write(outcome(2))
        assert writer.error in ("ENOSPC", "EFBIG")
    assert contents(tmp_path) == [outcome(1)]
    assert writer.insist(outcome(3))
    assert writer.error == ""
    assert contents(tmp_path) == [outcome(1), outcome(3)]
    assert layout.segments(tmp_path) == [1]


def test_a_file_that_cannot_be_cut_is_written_no_more(writer: Writer, tmp_path: Path) -> None:
    """The next record goes into a new one, where no tear is before it."""
    assert writer.insist(outcome(1))
    writer.open_gate()
    os.dup2(os.open(tmp_path, os.O_RDONLY), writer.unsynced().files[-1])  # a file gone bad
    assert not writer.write(outcome(2))
    assert writer.error == "EBADF"
    assert writer.insist(outcome(3))
    assert layout.segments(tmp_path) == [1, 2]
    assert contents(tmp_path) == [outcome(1), outcome(3)]


def test_no_new_segment_where_none_can_be_made(writer: Writer, tmp_path: Path) -> None:
    """It says so, and the old one goes on."""
    assert writer.insist(outcome(1))
    layout.segment_path(tmp_path, 2).touch()
    assert not writer.insist(bytes(990))
    assert writer.error == "EEXIST"
    assert writer.insist(outcome(2))
    assert writer.number == 1


def test_a_sync_covers_all_that_was_written_and_closes_what_is_written_no_more(writer: Writer, tmp_path: Path) -> None:
    """Names of new segments are synced once."""
    for number in range(20):
        assert writer.insist(outcome(number, 100))
    what = writer.unsynced()
    assert what.sync() == ""
    assert what.mark == writer.mark
    assert what.folder == tmp_path
    assert len(what.files) == writer.number
    writer.roll()
    writer.synced(what)
    for descriptor in what.files[:-1]:
        with pytest.raises(OSError):
            os.fstat(descriptor)
    later = writer.unsynced()
    assert later.files[0] == what.files[-1]
    assert later.folder == tmp_path  # of the segment that came meanwhile
    writer.synced(later)
    assert writer.unsynced().folder is None
    assert len(writer.unsynced().files) == 1


def test_a_sync_says_how_it_failed(tmp_path: Path) -> None:
    """By the name of the error."""
    writer = Writer(tmp_path, 1000)
    writer.bound = 1 << 20
    assert writer.insist(outcome(1))
    what = writer.unsynced()
    writer.close()
    assert what.sync() == "EBADF"
    assert name_of(OSError()) == "unknown"
    assert not writer.insist(outcome(2))
