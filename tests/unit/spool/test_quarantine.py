"""Records that the database does not take."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.spool import layout, segment
from proxy.spool.quarantine import Entry, Quarantine
from tests.unit.spool.records import NOON, key_of, outcome, stopped_inside


def entry_of(number: int, size: int = 0) -> Entry:
    """A record that was refused."""
    return Entry(outcome(number, size), "invalid byte sequence", NOON, "journal/1")


def test_who_is_stopped_while_he_has_the_lock_stops_nobody(tmp_path: Path) -> None:
    """The others are told in time, and try again when he goes on."""
    quarantine = Quarantine(tmp_path, patience_s=0.05)
    assert quarantine.add(entry_of(1))
    with stopped_inside(tmp_path):
        with pytest.raises(TimeoutError, match="another process"):
            quarantine.add(entry_of(2))
        with pytest.raises(TimeoutError, match="another process"):
            quarantine.take_back(lambda records: True)
        assert quarantine.knows(outcome(1))
    assert quarantine.add(entry_of(2))
    assert len(quarantine) == 2


def test_what_was_set_aside_is_known_and_listed(tmp_path: Path) -> None:
    """As it was, with the reason."""
    quarantine = Quarantine(tmp_path)
    assert not quarantine.knows(outcome(1))
    assert list(quarantine.entries()) == []
    assert quarantine.add(entry_of(1))
    assert quarantine.knows(outcome(1))
    assert not quarantine.knows(outcome(2))
    assert list(quarantine.entries()) == [entry_of(1)]
    assert next(quarantine.entries()).id == key_of(1)


def test_a_record_that_comes_again_is_there_once(tmp_path: Path) -> None:
    """Shipping again after a crash finds it; so does another process."""
    assert Quarantine(tmp_path).add(entry_of(1))
    after_the_crash = Quarantine(tmp_path)
    assert after_the_crash.knows(outcome(1))
    assert after_the_crash.add(entry_of(1))
    assert len(list(after_the_crash.entries())) == 1


def test_what_others_add_and_take_back_is_seen(tmp_path: Path) -> None:
    """At the next look, and always before adding."""
    one, other = Quarantine(tmp_path), Quarantine(tmp_path)
    assert one.add(entry_of(1))
    assert other.add(entry_of(2))
    assert len(other) == 2
    assert not one.knows(outcome(2))
    one.refresh()
    assert one.knows(outcome(2))
    assert one.take_back(lambda records: True) == 2
    other.refresh()
    assert (len(other), other.size) == (0, 0)
    assert other.add(entry_of(3))
    one.refresh()
    assert [one.knows(outcome(number)) for number in (1, 2, 3)] == [False, False, True]


def test_what_is_taken_back_while_somebody_looks_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is no reason to fail."""
    one, other = Quarantine(tmp_path), Quarantine(tmp_path)
    read = segment.read

    def too_late(path: Path, offset: int, limit_bytes: int) -> segment.Piece:
        path.unlink()
        return read(path, offset, limit_bytes)

    for look in (one.refresh, lambda: list(one.entries())):
        assert other.add(entry_of(1))
        with monkeypatch.context() as patched:
            patched.setattr(segment, "read", too_late)
            look()
        one.refresh()
        assert (len(one), list(one.entries())) == (0, [])


def test_what_is_taken_back_is_given_whole_and_only_then_forgotten(tmp_path: Path) -> None:
    """Who could not keep it leaves it where it was."""
    quarantine = Quarantine(tmp_path)
    given: list[bytes] = []

    def refuse(records: list[bytes]) -> bool:
        given.extend(records)
        return False

    assert quarantine.take_back(refuse) == 0
    for number in range(3):
        quarantine.add(entry_of(number))
    assert quarantine.take_back(refuse) == 0
    assert given == [outcome(number) for number in range(3)]
    assert len(quarantine) == 3
    assert quarantine.take_back(lambda records: len(records) == 3) == 3
    assert list(quarantine.entries()) == []


def test_a_new_file_in_the_place_of_the_old_one_is_noticed(tmp_path: Path) -> None:
    """Though it be as long, and have the old one's inode: what was taken back must not be skipped for it."""
    one, other = Quarantine(tmp_path), Quarantine(tmp_path)
    one.add(entry_of(1))
    other.refresh()
    path = tmp_path / layout.QUARANTINE
    one.take_back(lambda records: True)
    one.add(entry_of(2))
    one.add(entry_of(3))
    assert path.stat().st_size > 0
    other.refresh()
    assert [other.knows(outcome(number)) for number in (1, 2, 3)] == [False, True, True]


def test_it_is_bounded(tmp_path: Path) -> None:
    """What finds no room is not added, and what is there stays."""
    quarantine = Quarantine(tmp_path, limit=5000)
    added = [quarantine.add(entry_of(number, 1000)) for number in range(10)]
    assert added == [True] * 4 + [False] * 6
    assert quarantine.size <= 5000
    assert quarantine.add(entry_of(0, 1000))  # is there


@pytest.mark.parametrize("torn", [1, 30, 200])
def test_an_entry_that_a_crash_tore_is_written_over(tmp_path: Path, torn: int) -> None:
    """Those before it stay, and the next one is read."""
    quarantine = Quarantine(tmp_path)
    quarantine.add(entry_of(1))
    quarantine.add(entry_of(2, 500))
    path = tmp_path / layout.QUARANTINE
    path.write_bytes(path.read_bytes()[:-torn])
    again = Quarantine(tmp_path)
    assert list(again.entries()) == [entry_of(1)]
    assert again.add(entry_of(3))
    assert list(again.entries()) == [entry_of(1), entry_of(3)]
    assert again.size == again._read  # nothing of it is left behind the new one


def test_damage_in_the_middle_costs_one_entry(tmp_path: Path) -> None:
    """Those behind it are read, and stay when one is added."""
    quarantine = Quarantine(tmp_path)
    for number in (1, 2, 3):
        quarantine.add(entry_of(number))
    path = tmp_path / layout.QUARANTINE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    again = Quarantine(tmp_path)
    assert again.add(entry_of(4))
    assert list(again.entries()) == [entry_of(1), entry_of(3), entry_of(4)]


def test_a_record_that_is_no_json_keeps_its_bytes(tmp_path: Path) -> None:
    """It may be the very reason."""
    quarantine = Quarantine(tmp_path)
    entry = Entry(b"\xff\n\x00{", "x" * 500, NOON, "journal/1")
    assert quarantine.add(entry)
    (kept,) = quarantine.entries()
    assert (kept.record, kept.reason, kept.id) == (entry.record, "x" * 200, "")
