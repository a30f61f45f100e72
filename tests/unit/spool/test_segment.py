"""Segments: what was written is read back, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.spool import segment
from proxy.spool.segment import HEAD, LARGEST, Piece, frame, next_whole, read, read_from

RECORDS = st.lists(st.binary(min_size=0, max_size=80).map(lambda text: b"{" + text + b"}"), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that every example writes anew."""
    return tmp_path_factory.mktemp("segments") / "00000001.seg"


def all_of(path: Path, limit: int) -> tuple[list[bytes], int, bool]:
    """What reading piece after piece gives, until there is no more."""
    found: list[bytes] = []
    at = 0
    while True:
        piece = read(path, at, limit)
        found += piece.records
        at = piece.offset
        if piece.torn or not piece.records:
            return found, at, piece.torn


@given(records=RECORDS, limit=st.integers(1, 400))
def test_what_was_written_is_read_back_in_pieces_of_any_size(path: Path, records: list[bytes], limit: int) -> None:
    """Every record, once, in its order; the end is no tear."""
    path.write_bytes(b"".join(map(frame, records)))
    assert all_of(path, limit) == (records, path.stat().st_size, False)


@given(records=RECORDS, limit=st.integers(1, 400))
def test_what_is_no_file_is_read_in_the_same_way(records: list[bytes], limit: int) -> None:
    """Every record, once, in its order; each piece has one at least."""
    content = b"".join(map(frame, records))
    found: list[bytes] = []
    at = 0
    while at < len(content):
        piece = read_from(content, at, limit)
        assert piece.records
        found += piece.records
        at = piece.offset
    assert found == records
    assert read_from(content, at, limit) == Piece([], at, False)


@given(records=RECORDS, cut=st.integers(1, 2000), limit=st.integers(1, 400))
def test_a_file_cut_anywhere_gives_the_whole_records_before_the_cut(
    path: Path, records: list[bytes], cut: int, limit: int
) -> None:
    """Only what lost a byte is missing; and the reader stands at the tear."""
    content = b"".join(map(frame, records))
    cut %= len(content)
    path.write_bytes(content[:cut])
    whole, ends = [], 0
    for record in records:
        if ends + HEAD + len(record) > cut:
            break
        whole.append(record)
        ends += HEAD + len(record)
    assert all_of(path, limit) == (whole, ends, cut != ends)


@given(records=RECORDS, place=st.integers(0, 2000), bit=st.integers(0, 7), limit=st.integers(1, 400))
def test_a_flipped_bit_costs_one_record_and_no_other(
    path: Path, records: list[bytes], place: int, bit: int, limit: int
) -> None:
    """The reader stops at the damage; behind it the next whole record is found, and all the others."""
    content = bytearray(b"".join(map(frame, records)))
    place %= len(content)
    content[place] ^= 1 << bit
    path.write_bytes(content)
    before, at, torn = all_of(path, limit)
    assert torn
    assert before == records[: len(before)]
    damaged = len(before)
    after = next_whole(path, at)
    if damaged == len(records) - 1:
        assert after is None
        return
    assert after == at + HEAD + len(records[damaged])
    assert read(path, after, 1 << 20) == Piece(records[damaged + 1 :], len(content), False)


@pytest.mark.parametrize("zeros", [1, 8, 4096])
def test_zeros_that_a_crash_leaves_are_no_records(path: Path, zeros: int) -> None:
    """A file system may have made a file longer before it had its bytes."""
    path.write_bytes(frame(b"{}") + bytes(zeros))
    assert read(path, 0, 1 << 20) == Piece([b"{}"], 10, True)


def test_a_record_larger_than_the_limit_is_read_all_the_same(path: Path) -> None:
    """The limit is about how much, not about how large."""
    record = b"{" + b"x" * 5000 + b"}"
    path.write_bytes(frame(record) * 2)
    assert read(path, 0, 100) == Piece([record], HEAD + len(record), False)


def test_a_length_beyond_any_record_is_damage_and_not_waited_for(path: Path) -> None:
    """Else one flipped bit in a length would hold up a reader for good."""
    path.write_bytes((LARGEST + 1).to_bytes(4, "little") + bytes(100))
    assert read(path, 0, 1 << 20) == Piece([], 0, True)


def test_an_empty_file_and_its_end_are_no_tear(path: Path) -> None:
    """There is nothing yet."""
    path.write_bytes(b"")
    assert read(path, 0, 100) == Piece([], 0, False)


@pytest.mark.parametrize("record", [b"", bytes(LARGEST + 1)])
def test_what_could_not_be_read_back_is_not_framed(record: bytes) -> None:
    """An empty record would look like zeros, one that is too large like damage."""
    with pytest.raises(ValueError, match="between 1 and"):
        segment.frame(record)
