"""Where things are in a spool."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from proxy.spool import layout
from tests.unit.spool.test_writer import largest_file


def test_an_empty_or_absent_spool_has_nothing(tmp_path: Path) -> None:
    """Nothing is made by looking."""
    assert layout.journals(tmp_path / "none") == []
    assert layout.segments(tmp_path / "none") == []
    assert layout.bytes_of(tmp_path / "none") == 0


def test_segments_are_in_the_order_of_their_numbers_and_all_count(tmp_path: Path) -> None:
    """The quarantine counts too; what is being made or removed does not, nor what somebody else has put there."""
    first, second = "20261122T120000Z-00000000000a", "20261123T120000Z-000000000009"
    for name in (second, first, f".new-{first}", f"{first}.bak", "backup"):
        (tmp_path / name).mkdir()
        for number in (100_000_000, 2, 1):
            layout.segment_path(tmp_path / name, number).write_bytes(bytes(10))
        (tmp_path / name / "lock").write_bytes(bytes(10))
        (tmp_path / name / ".00000009.seg.new").write_bytes(bytes(10))
    (tmp_path / layout.QUARANTINE).write_bytes(bytes(5))
    (tmp_path / "lost+found").mkdir(mode=0)
    (tmp_path / "20261124T120000Z-00000000000a").symlink_to(tmp_path / "backup")
    assert [path.name for path in layout.journals(tmp_path)] == [first, second]
    assert layout.segments(tmp_path / first) == [1, 2, 100_000_000]
    assert layout.bytes_of(tmp_path) == 65


def test_a_spool_is_measured_with_its_disk(tmp_path: Path) -> None:
    """It could have what it has, and what is free."""
    (tmp_path / layout.QUARANTINE).write_bytes(bytes(5))
    size, disk = layout.measured(tmp_path)
    assert size == 5 < disk <= shutil.disk_usage(tmp_path).total


def test_a_journal_that_cannot_be_read_keeps_nobody_from_measuring_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or no process could start beside it."""
    bad, good = (tmp_path / f"20261122T120000Z-00000000000{number}" for number in (1, 2))
    for journal in (bad, good):
        journal.mkdir()
        layout.segment_path(journal, 1).write_bytes(b"12345")
    listed = os.listdir

    def listdir(path: Path) -> list[str]:
        if path == bad:
            raise OSError(errno.EIO, "Input/output error")
        return listed(path)

    monkeypatch.setattr(layout.os, "listdir", listdir)
    assert layout.measured(tmp_path)[0] == 5


def test_segments_are_removed_up_to_a_number(tmp_path: Path) -> None:
    """The end of the journal stays."""
    for number in (1, 2, 3):
        layout.segment_path(tmp_path, number).touch()
    layout.remove_segments(tmp_path, 2)
    layout.remove_segments(tmp_path, 2)
    assert layout.segments(tmp_path) == [3]


def test_a_small_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Nothing else stays behind."""
    for content in (b"one", b""):
        layout.put_file(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    with largest_file(100), pytest.raises(OSError):
        layout.put_file(tmp_path / "file", bytes(1000))  # what was written of it takes no room on a full disk
    assert (tmp_path / "file").read_bytes() == b""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
