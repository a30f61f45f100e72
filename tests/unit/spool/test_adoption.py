"""Journals whose process is gone."""

from __future__ import annotations

from errno import EIO, ENOSPC
from pathlib import Path

import orjson
import pytest

from proxy.spool import held, layout, segment
from proxy.spool.adoption import Adopted, adopt, orphans
from proxy.spool.kinds import carried
from tests.unit.spool.records import Wall, contents, intent, key_of, outcome, record_of


def abandoned(spool: Path, *of_segments: list[bytes]) -> Path:
    """A journal with these segments that nobody holds."""
    holding = held.make(spool, Wall())
    holding.release()
    for number, records in enumerate(of_segments, 1):
        layout.segment_path(holding.path, number).write_bytes(b"".join(map(segment.frame, records)))
    return holding.path


def adopted(path: Path) -> Adopted:
    """Adopt without rest."""
    found = adopt(path, lambda: None)
    assert found is not None
    return found


def unknown(record: bytes) -> bytes:
    """The end of a request of which nothing is known but this beginning."""
    return orjson.dumps({**orjson.loads(record), "kind": "outcome", "outcome": "unknown", "reason": "crash"})


def test_open_requests_get_an_unknown_end_at_the_time_of_their_beginning(tmp_path: Path) -> None:
    """Those that have ended do not."""
    records = [intent(1, tool="a"), intent(2, tool="b"), outcome(1), record_of("denied", 3), record_of("summary", 4)]
    path = abandoned(tmp_path, records)
    taken = adopted(path)
    assert taken.unknown == 1
    assert taken.segments() == [1, 2]
    assert (taken.path, taken.name) == (path, path.name)
    assert contents(path) == [*records, unknown(intent(2, tool="b"))]
    made = orjson.loads(contents(path)[-1])
    assert (made["id"], made["tool"], made["timestamp"]) == (key_of(2), "b", orjson.loads(intent(2))["timestamp"])


def test_what_is_found_does_not_depend_on_segments(tmp_path: Path) -> None:
    """An end may be in a later segment than its beginning, or its beginning be carried."""
    path = abandoned(tmp_path, [carried(intent(1)), carried(intent(2)), intent(3)], [outcome(1), outcome(3)], [])
    assert adopted(path).unknown == 1
    assert contents(path)[-1] == unknown(intent(2))


def test_unknown_ends_of_two_days_are_in_two_segments(tmp_path: Path) -> None:
    """A segment goes with its day."""
    yesterday, today = (intent(day, timestamp=f"2026-11-{day}T00:00:00.000000Z") for day in (21, 22))
    path = abandoned(tmp_path, [today, yesterday])
    taken = adopted(path)
    assert taken.segments() == [1, 2, 3]
    assert contents(path)[2:] == [unknown(yesterday), unknown(today)]


def test_arguments_stay_with_the_beginning(tmp_path: Path) -> None:
    """Whatever they are: no end has any, and one that is as deep or as large as a beginning may be cannot be made."""
    begun = intent(1, arguments={"a": 1}, arguments_hash="00", tool="b")
    head = intent(2)[:-1] + b',"arguments":'
    deep = head + b"[" * 1000 + b"]" * 1000 + b"}"
    large = head + b'"' + b"x" * (segment.LARGEST - len(head) - 3) + b'"}'
    for record in (begun, deep, large):
        path = abandoned(tmp_path, [record])
        assert adopted(path).unknown == 1
        made = orjson.loads(contents(path)[1])
        assert (made["outcome"], made.keys() & {"arguments", "arguments_hash"}) == ("unknown", set())


def test_adopting_twice_comes_to_the_same(tmp_path: Path) -> None:
    """Also when the first one died after half of it."""
    path = abandoned(tmp_path, [intent(1)])
    adopted(path).release()
    once = contents(path)
    (path / layout.SEALED).unlink()
    assert adopted(path).unknown == 0
    assert contents(path) == once


def test_a_sealed_journal_is_not_looked_through(tmp_path: Path) -> None:
    """Nothing was left open in it: records that were put back may lack their other half."""
    path = abandoned(tmp_path, [intent(1)])
    (path / layout.SEALED).touch()
    assert adopted(path).unknown == 0
    assert contents(path) == [intent(1)]


@pytest.mark.parametrize("torn", [1, 4, 8, 9, 50])
def test_a_torn_end_is_cut_off(tmp_path: Path, torn: int) -> None:
    """Its request is open again if that was its end."""
    path = abandoned(tmp_path, [intent(1), outcome(1, 50)])
    file = layout.segment_path(path, 1)
    file.write_bytes(file.read_bytes()[:-torn])
    assert adopted(path).unknown == 1
    assert contents(path) == [intent(1), unknown(intent(1))]


def test_damage_within_is_left_alone_and_what_is_behind_it_counts(tmp_path: Path) -> None:
    """Only the damaged record is lost."""
    path = abandoned(tmp_path, [intent(1), intent(2), outcome(1)])
    file = layout.segment_path(path, 1)
    content = bytearray(file.read_bytes())
    content[segment.HEAD * 2 + len(intent(1)) + 10] ^= 1
    file.write_bytes(content)
    assert adopted(path).unknown == 0
    assert file.read_bytes() == content


def test_it_rests_now_and_then_for_the_sake_of_others(tmp_path: Path) -> None:
    """After each piece."""
    rests: list[None] = []
    path = abandoned(tmp_path, [intent(number, 1000) for number in range(1000)])
    taken = adopt(path, lambda: rests.append(None))
    assert taken is not None
    assert len(rests) >= 4


def test_only_journals_that_nobody_holds_are_orphans(tmp_path: Path) -> None:
    """The oldest first; who adopted one holds it until it is released or removed."""
    assert orphans(tmp_path / "none") == []
    alive = held.make(tmp_path, Wall())
    old, new = sorted(abandoned(tmp_path, []) for _ in range(2))
    assert orphans(tmp_path) == [old, new]
    assert adopt(alive.path) is None
    taken = adopted(old)
    assert orphans(tmp_path) == [new]
    assert adopt(old) is None
    taken.release()
    assert orphans(tmp_path) == [old, new]
    adopted(old).remove()
    assert adopt(old) is None
    assert not old.exists()
    assert orphans(tmp_path) == [new]
    alive.release()


def test_one_that_cannot_be_put_in_order_is_not_kept_from_others(tmp_path: Path) -> None:
    """Who fails lets go."""
    path = abandoned(tmp_path, [intent(1)])
    (path / f".{layout.SEALED}.new").mkdir()
    with pytest.raises(OSError):
        adopt(path)
    assert orphans(tmp_path) == [path]


@pytest.mark.parametrize("room", [0, 1, 2])
def test_a_disk_without_room_keeps_no_journal_from_being_shipped(
    tmp_path: Path, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ends that it has no room for are told from memory, in the same segments as when there is room again."""
    days = [intent(day, timestamp=f"2026-11-{day}T00:00:00.000000Z") for day in (20, 21, 22)]
    path, put, left = abandoned(tmp_path, days), layout.put_file, iter(range(room))

    def full(target: Path, content: bytes) -> None:
        if next(left, None) is None:
            raise OSError(ENOSPC, "full")
        put(target, content)

    monkeypatch.setattr(layout, "put_file", full)
    taken = adopted(path)
    assert (taken.unknown, sorted(taken.unwritten)) == (3, [2, 3, 4][room:])
    taken.release()
    monkeypatch.undo()
    again = adopted(path)
    assert (again.unknown, again.unwritten) == (3 - room, {})
    for number, content in taken.unwritten.items():
        assert layout.segment_path(path, number).read_bytes() == content
    assert contents(path) == [*days, *map(unknown, days)]
    assert adopt(path) is None
    again.release()
    assert adopted(path).unknown == 0


def test_a_disk_that_fails_otherwise_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the journal is left to others."""
    path = abandoned(tmp_path, [intent(1)])

    def fails(target: Path, content: bytes) -> None:
        raise OSError(EIO, "broken")

    monkeypatch.setattr(layout, "put_file", fails)
    with pytest.raises(OSError, match="broken"):
        adopt(path, lambda: None)
    assert not held.is_held(path)
