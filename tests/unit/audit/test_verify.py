"""Rows are as they were written, or the place is found at which they are not."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.audit.chain import begin, link
from proxy.audit.copied import Copied
from proxy.audit.verify import Report, Trail
from tests.unit.audit.trails import ACME, NOON_US, ZETA, checked, edited, found, record, trail_of

LINES, HEADS = trail_of([record(number) for number in range(40)])


def test_an_untouched_trail_is_complete() -> None:
    """Nothing is found, and everything was looked at."""
    report = checked(LINES, HEADS)
    assert report.complete
    assert (report.rows, report.segments, report.heads, report.unsigned) == (40, 1, 1, 0)


@given(st.randoms(use_true_random=False))
def test_rows_may_come_in_any_order(rng: random.Random) -> None:
    """The order in which they are read says nothing."""
    lines = list(LINES)
    rng.shuffle(lines)
    assert checked(lines, HEADS).complete


def test_tenants_of_a_segment_have_chains_of_their_own() -> None:
    """Rows of two tenants alternate, and a change concerns one."""
    lines, heads = trail_of([record(number, ACME if number % 3 else ZETA) for number in range(30)])
    assert checked(lines, heads).complete
    report = checked([edited(lines[0], reason="x"), *lines[1:]], heads)
    assert [(each.tenant, each.first) for each in report.findings] == [(ZETA, 1)]


@given(st.integers(0, 39), st.sampled_from(["outcome", "actor_id", "ts", "status_code", "arguments", "client_ip"]))
def test_a_changed_row_is_named(place: int, column: str) -> None:
    """Whatever column it is; the rows around it are not blamed."""
    lines = list(LINES)
    lines[place] = edited(lines[place], **{column: "77"})
    assert found(checked(lines, HEADS)) == [("changed", place + 1, place + 1)]


@given(st.integers(0, 39))
def test_a_changed_hash_is_one_changed_row(place: int) -> None:
    """Not two, although the row after it does not follow from it either; the last one contradicts what was signed."""
    lines = list(LINES)
    lines[place] = edited(lines[place], chain="00" * 32)
    assert found(checked(lines, HEADS)) == [("changed", place + 1, place + 1)]


@given(st.integers(0, 39), st.integers(1, 40))
def test_missing_rows_are_named(start: int, count: int) -> None:
    """From the first to the last, also at the end of a chain."""
    gone = range(start, min(start + count, 40))
    left = [line for place, line in enumerate(LINES) if place not in gone]
    report = checked(left, HEADS)
    assert found(report) == [("missing", gone.start + 1, gone.stop)]
    assert report.counts == {"missing": len(gone)}


@given(st.integers(0, 39), st.sampled_from(["copy", "hash of the other", "hash of its own", "no hash"]), st.booleans())
def test_an_inserted_row_is_named(place: int, kind: str, first: bool) -> None:
    """A row more at a place that is taken, whichever of the two is read first."""
    more = LINES[place] if kind == "copy" else edited(LINES[place], outcome="error")
    if kind == "no hash":
        more = edited(more, chain="00" * 32)
    elif kind == "hash of its own":
        more = rechained([*LINES[:place], more], place)[-1]
    at = place if first else place + 1
    assert found(checked([*LINES[:at], more, *LINES[at:]], HEADS)) == [("inserted", place + 1, place + 1)]


def test_two_inserted_rows_one_after_the_other_are_named() -> None:
    """Both are read before those whose place they take, and the second follows from the first."""
    forged = rechained([*LINES[:10], *(edited(LINES[place], outcome="error") for place in (10, 11))], 10)
    assert found(checked([*forged, *LINES[10:]], HEADS)) == [("inserted", 11, 11), ("inserted", 12, 12)]


def test_a_row_after_the_last_is_inserted() -> None:
    """Even if its hash is right, which anybody can compute: the final head says that there is none."""
    line = edited(LINES[-1], seq="41").rpartition(b"\t")[0]
    more = line + b"\t" + link(HEADS[0].digest, line).hex().encode()
    assert found(checked([*LINES, more], HEADS)) == [("inserted", 41, 41)]


@pytest.mark.parametrize("seq", ["0", "-3"])
def test_a_row_before_the_first_is_inserted(seq: str) -> None:
    """Rows are counted from 1."""
    assert found(checked([*LINES, edited(LINES[4], seq=seq)], HEADS)) == [("inserted", int(seq), int(seq))]


@given(st.lists(st.integers(0, 39), min_size=2, max_size=2, unique=True), st.booleans())
def test_exchanged_rows_are_named_with_where_they_were(places: list[int], with_hash: bool) -> None:
    """Both, and nothing else, whether or not their hashes were exchanged with them."""
    one, other = sorted(places)
    lines = list(LINES)
    lines[one], lines[other] = edited(LINES[other], seq=str(one + 1)), edited(LINES[one], seq=str(other + 1))
    if not with_hash:
        lines[one] = edited(lines[one], chain=LINES[one].rpartition(b"\t")[2].decode())
        lines[other] = edited(lines[other], chain=LINES[other].rpartition(b"\t")[2].decode())
    report = checked(lines, HEADS)
    assert found(report) == [("reordered", one + 1, one + 1), ("reordered", other + 1, other + 1)]
    assert [each.detail for each in report.findings] == [f"it was row {other + 1}", f"it was row {one + 1}"]


def rechained(lines: list[bytes], first: int) -> list[bytes]:
    """The lines from a place on with hashes that fit them, as somebody would make them who can write rows."""
    made = lines[:first]
    before = bytes.fromhex(made[-1].rpartition(b"\t")[2].decode()) if made else begin("one/1", ACME)
    for line in lines[first:]:
        text = line.rpartition(b"\t")[0]
        before = link(before, text)
        made.append(text + b"\t" + before.hex().encode())
    return made


@given(st.integers(0, 39))
def test_a_chain_that_was_computed_anew_contradicts_its_head(place: int) -> None:
    """Hashes need no secret, but what was signed does."""
    lines = list(LINES)
    lines[place] = edited(lines[place], outcome="error")
    assert found(checked(rechained(lines, place), HEADS)) == [("rewritten", 40, 40)]


def test_rows_after_an_open_head_are_counted() -> None:
    """They are in their chain; the next head will be about them."""
    _, heads = trail_of([record(number) for number in range(30)])
    open_head = replace(heads[0], is_final=False)
    more, _ = trail_of([record(number) for number in range(35)])
    report = checked(more, [open_head])
    assert report.complete
    assert report.unsigned == 5
    assert found(checked([*more[:32], edited(more[32], reason="x"), *more[33:]], [open_head])) == [("changed", 33, 33)]


def test_an_open_head_is_checked_at_its_row() -> None:
    """Rows that come after it do not hide that it was contradicted, in whatever order they are read."""
    lines = rechained([edited(LINES[0], reason="x"), *LINES[1:]], 0)
    open_head = replace(
        HEADS[0], is_final=False, rows=20, digest=bytes.fromhex(LINES[19].rpartition(b"\t")[2].decode())
    )
    assert found(checked(lines, [open_head])) == [("rewritten", 20, 20)]
    assert found(checked(lines[::-1], [open_head])) == [("rewritten", 20, 20)]


def test_a_chain_without_head_is_suspect_once_it_is_old() -> None:
    """In its first minute it has none; what is missing before its first known row nobody can say then."""
    assert checked(LINES[10:], [], settled_us=NOON_US).complete
    report = checked(LINES[10:], [], settled_us=NOON_US + 60_000_000)
    assert found(report) == [("headless", 0, 0)]
    assert report.unsigned == 30


def test_rows_without_a_chain_are_counted() -> None:
    """Nothing vouches for them."""
    assert checked([*LINES, edited(LINES[3], segment="\\N", seq="\\N", chain="\\N")], HEADS).counts == {"unchained": 1}
    assert checked([*LINES, edited(LINES[3], seq="\\N")], HEADS).counts == {"unchained": 1}
    assert checked([*LINES, edited(LINES[3], chain="xyz")], HEADS).counts == {"unchained": 1}


def test_rows_too_far_from_their_order_are_let_go() -> None:
    """Of the chain of which most wait; it is named, so that it is read again in order."""
    lines, heads = trail_of([record(number, ZETA) for number in range(8)], "two/1")
    report = checked([*LINES[::-2], *lines, *LINES[::2]], [*HEADS, *heads], most_waiting=10)
    assert [(each.kind, each.tenant) for each in report.findings] == [("scattered", ACME)]
    assert (report.rows, report.segments) == (8, 2)


def test_much_that_is_wrong_is_counted_but_not_told() -> None:
    """A chain that was replaced is not explained row by row."""
    lines, heads = trail_of([record(number) for number in range(300)])
    report = checked([edited(line, reason="x") for line in lines], heads)
    assert sum(report.counts.values()) == 300
    assert len(report.findings) == 33


@settings(max_examples=200)
@given(st.lists(st.integers(0, 2), min_size=40, max_size=40), st.data())
def test_parts_that_were_read_apart_are_joined(readers: list[int], data: st.DataObject) -> None:
    """Each reader takes some of the rows; joined they find what one would have found."""
    lines = list(LINES)
    expected: list[tuple[str, int, int]] = []
    what = data.draw(st.sampled_from(["nothing", "changed", "missing"]))
    place = data.draw(st.integers(0, 39))
    if what == "changed":
        lines[place] = edited(lines[place], reason="x")
    if what == "missing":
        lines[place] = b""
    if what != "nothing":
        expected = [(what, place + 1, place + 1)]
    joined = Trail()
    for reader in range(3):
        trail = Trail()
        trail.strand((ACME, "one/1"), HEADS)
        rows = Copied(trail, (), (0, 1 << 62))
        rows.feed(b"".join(line + b"\n" for line, by in zip(lines, readers, strict=True) if by == reader and line))
        joined.merge(pickle.loads(pickle.dumps(trail)))
    report = Report()
    joined.report(report, 0)
    assert found(report) == expected
    assert report.rows == 40 - (what == "missing")


def test_a_row_that_two_readers_saw_is_inserted() -> None:
    """It stands in both halves of a file."""
    joined = Trail()
    for lines in (LINES[:25], LINES[20:]):
        trail = Trail()
        trail.strand((ACME, "one/1"), HEADS)
        Copied(trail, (), (0, 1 << 62)).feed(b"".join(line + b"\n" for line in lines))
        joined.merge(trail)
    report = Report()
    joined.report(report, 0)
    assert found(report) == [("inserted", 21, 21)]
    assert report.counts == {"inserted": 1}
