"""Who holds a journal."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.spool import held, layout
from tests.unit.spool.records import NOON, Wall


def test_a_new_journal_is_held_by_its_maker_from_the_first_moment(tmp_path: Path) -> None:
    """Its name says when it began, and is its own."""
    one, other = held.make(tmp_path / "spool", Wall()), held.make(tmp_path / "spool", Wall())
    assert one.path != other.path
    assert one.path.name.startswith("20261122T120000Z-")
    assert held.take(one.path) is None
    assert held.is_held(one.path)
    assert not list((tmp_path / "spool").glob(".new-*"))
    one.release()
    other.release()


def test_the_folders_of_a_new_spool_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a host that dies takes with it what was synced in them."""
    synced: list[Path] = []
    monkeypatch.setattr(held, "sync_folder", synced.append)
    spool = tmp_path / "spool"
    for _ in range(2):
        held.make(spool, Wall()).release()
    assert synced == [tmp_path, spool, spool]


def test_only_one_holds_a_journal(tmp_path: Path) -> None:
    """Who gives it up lets the next one have it."""
    maker = held.make(tmp_path, Wall())
    maker.release()
    first = held.take(maker.path)
    assert first is not None
    assert held.take(maker.path) is None
    first.release()
    assert not held.is_held(maker.path)


def test_a_journal_that_is_removed_is_nobodys(tmp_path: Path) -> None:
    """Also for who had opened its lock before."""
    holding = held.make(tmp_path, Wall())
    holding.remove()
    assert held.take(holding.path) is None
    assert not held.is_held(holding.path)
    assert list(tmp_path.iterdir()) == []


def test_who_was_too_late_for_a_lock_does_not_hold_what_came_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening a lock and taking it the journal may have been removed, and its name used again."""
    made = held.make(tmp_path, Wall())
    made.release()
    real = fcntl.flock

    def late(lock: int, how: int) -> None:
        (made.path / layout.LOCK).rename(tmp_path / "old")
        (made.path / layout.LOCK).touch()
        real(lock, how)

    monkeypatch.setattr(fcntl, "flock", late)
    assert held.take(made.path) is None


def test_a_journal_that_cannot_be_removed_is_left_to_others(tmp_path: Path) -> None:
    """It is as it was."""
    holding = held.make(tmp_path, Wall())
    (tmp_path / f".gone-{holding.path.name}").touch()  # a folder cannot take the place of a file
    with pytest.raises(OSError):
        holding.remove()
    assert not held.is_held(holding.path)


def test_the_death_of_the_holder_frees_a_journal(tmp_path: Path) -> None:
    """The kernel does it, whatever killed the process."""
    script = (
        "import sys,time,pathlib,os,signal; from proxy.spool import held\n"
        "print(held.make(pathlib.Path(sys.argv[1]), time.time).path.name, flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        path = tmp_path / child.stdout.readline().strip()
        assert held.is_held(path)
        child.kill()
        child.wait()
    assert not held.is_held(path)


def test_what_a_crash_left_half_made_is_swept_and_nothing_else(tmp_path: Path) -> None:
    """What somebody holds stays, and what is so young that somebody may be about to hold it."""
    for name, age_s in ((".new-dead", 3600), (".gone-dead", 3600), (".new-alive", 3600), (".new-young", 60)):
        (tmp_path / name).mkdir()
        layout.segment_path(tmp_path / name, 1).touch()
        os.utime(tmp_path / name, (NOON - age_s, NOON - age_s))
    alive = held.take(tmp_path / ".new-alive")
    assert alive is not None
    os.utime(tmp_path / ".new-alive", (NOON - 3600, NOON - 3600))
    journal = held.make(tmp_path, Wall())
    assert sorted(os.listdir(tmp_path)) == [".new-alive", ".new-young", journal.path.name]
    alive.release()
    journal.release()


def test_rubbish_that_cannot_be_swept_keeps_nobody_from_starting(tmp_path: Path) -> None:
    """It stays where it is."""
    (tmp_path / ".gone-file").touch()
    os.utime(tmp_path / ".gone-file", (NOON - 3600, NOON - 3600))
    journal = held.make(tmp_path, Wall())
    assert (tmp_path / ".gone-file").exists()
    journal.release()
