"""The short way to read a line of an export says what the long way says, or nothing."""

from __future__ import annotations

from binascii import unhexlify
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.audit import columns
from proxy.audit.passages import HEAD, line_of, to_json
from proxy.audit.regular import Kept, Regular, Row
from tests.unit.audit.test_passages import RECORDS, TEXTS
from tests.unit.audit.trails import ACME, ZETA, record, trail_of

CALLS: list[dict[str, Any]] = [
    {}, {"session": "Abc-_9", "trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"},
    {"trace_id": "0af7651916cd43dd8448eb211c80319c"}, {"detail": "not, really"}, {"target": "größer"},
    {"arguments": {"a": [1, {"chain": "ab" * 32}]}, "arguments_hash": "cd" * 32}, {"result": [None]},
    {"client": None, "principal": None}, {"bytes_out": 1 << 40}, {"risk_reasons": ["write", "night"]},
]  # fmt: skip
LINES, _ = trail_of([record(number, ZETA if number % 3 else ACME, **CALLS[number // 2 % 10]) for number in range(60)])
EXPORTED = [to_json(line) for line in LINES]
#: What may stand in a line instead of something else, or between.
ODD = st.sampled_from(
    [b"", b'"', b",", b"\\", b"\\u0041", b"\\n", b" ", b"{", b"}", b"0", b"-", b"-0", b".0", b"1e5", b"00", b"null",
     b"12345678901234567890", b"true", b"false", b"0.0001", b"12.50", b"\xff", b"\xc3\xa9", b"\x00", b"\x7f", b"\t",
     b'"kind":"head"', b'"seq":7,', b',"seq":', b',"duration_ms":', b',"bytes_in":', b',"chain":"', b'"instance":"x",',
     b',"arguments":{"a":1}', b',"arguments_text":"[1, 2]"', b'"result"', b"E", b"_text", b"-1",
     b',"segment":null', b'"segment":"two"', b"A", b"f"]
)  # fmt: skip


def at_length(raw: bytes) -> Row | None:
    """The row that a line is when it is parsed as a whole."""
    try:
        row = orjson.loads(raw)
        if row["kind"] == HEAD or row["segment"] is None or row["seq"].__class__ is not int:
            return None
        return (row["tenant_id"], row["segment"]), row["seq"], line_of(raw, row), unhexlify(row["chain"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A line with something in another's place: at the edge of a value most of the time."""
    raw = draw(st.sampled_from(EXPORTED))
    for _ in range(draw(st.integers(0, 3))):
        edges = [at for at, byte in enumerate(raw) if byte in b'",:{}'] + [len(raw)]
        start = draw(st.sampled_from(edges) | st.integers(0, len(raw))) + draw(st.integers(0, 1))
        end = draw(st.just(start) | st.sampled_from(edges) | st.integers(start, start + 3))
        piece = draw(ODD | st.binary(max_size=3) | st.just(raw[start : start + draw(st.integers(0, 80))]))
        raw = raw[:start] + piece + raw[max(start, end) :]
    return raw


@settings(max_examples=400)
@given(st.lists(damaged(), min_size=1, max_size=4))
def test_both_ways_agree_on_any_line(lines: list[bytes]) -> None:
    """Whatever was read before it, and whatever was done to it."""
    regular = Regular()
    for raw in [*EXPORTED[:20], *lines]:
        row = regular.read(raw)
        assert row is None or row == at_length(raw)


@settings(max_examples=100)
@given(st.lists(RECORDS, min_size=1, max_size=4), TEXTS, st.text("0123456789abcdef", max_size=32))
@example([record(1)] * 2, "", "")
def test_both_ways_agree_on_every_row_that_is_written(rows: list[dict[str, Any]], text: str, digits: str) -> None:
    """Escapes, nulls, large numbers and characters of all kinds included."""
    regular = Regular()
    for number, made in enumerate(rows, 1):
        traced = made | {"trace_id": digits, "session": text, "reason": text}
        for each in (made, traced):
            line = columns.line(columns.values(each, f"one/{text}", number))
            raw = to_json(line + b"\t" + b"ab" * 32)
            row = regular.read(raw)
            assert row is None or row == at_length(raw)
            assert row is None or row[1:] == (number, line, b"\xab" * 32)


def test_rows_of_calls_are_read_the_short_way() -> None:
    """All of them, so that what is compared above is not nothing."""
    regular = Regular()
    for raw in EXPORTED:
        row = regular.read(raw)
        assert row is not None
        assert row == at_length(raw)


NUMBERS = st.one_of(
    st.integers(-(1 << 70), 1 << 70).map(str), st.floats(0, 1e13).map(repr),
    st.from_regex(r"\A-?[0-9]{1,4}\.?[0-9]{0,5}\Z"),
    st.integers(0, 10**14).map(lambda us: repr(us / 1000)), st.sampled_from(["1e3", "0.0", "10.0", "1.0.0", "12.25.0"]),
)  # fmt: skip


@settings(max_examples=200)
@given(st.sampled_from(['duration_ms":12.25', 'auth_ms":0.012', 'bytes_in":231', 'tries":1', 'seq":1']), NUMBERS)
def test_both_ways_agree_on_any_number(member: str, number: str) -> None:
    """Only such are read the short way as are written in the same way in both forms."""
    regular, name = Regular(), member.partition(":")[0]
    raw = EXPORTED[1]
    assert member.encode() in raw
    raw = raw.replace(member.encode(), f"{name}:{number}".encode())
    for each in (EXPORTED[1], raw):
        row = regular.read(each)
        assert row is None or row == at_length(each)


def test_a_line_that_ends_inside_its_arguments_is_none() -> None:
    """Although what is at its end looks like the hash."""
    captured = b',"arguments":{"chain":"' + b"ab" * 32 + b'"}'
    begin = EXPORTED[0].partition(b',"actor_id"')[0] + captured.replace(b'{"chain"', b'{"a":1,"chain"')
    regular, whole = Regular(), begin + b',"chain":"' + b"cd" * 32 + b'"}'
    assert regular.read(whole) == at_length(whole) is not None
    assert regular.read(begin) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"kind":"intent"', b'"kind":"summary"'), (b"2026-11-22T12", b"1960-11-22T12"), (b"11111111-", b"1111111!-"),
     (b'"seq":1', b'"seq":01'), (b'Z","id"', b'z","id"')],
)  # fmt: skip
def test_what_looks_different_is_left_to_the_long_way(old: bytes, new: bytes) -> None:
    """It is none of those that are known."""
    assert old in EXPORTED[0]
    regular = Regular()
    assert regular.read(EXPORTED[0].replace(old, new)) is None
    assert regular.read(EXPORTED[0]) is not None


def test_lines_that_have_little_in_common_are_not_tried_for_a_while() -> None:
    """It would take longer."""
    regular = Regular()
    different = [EXPORTED[0].replace(b'"alice"', b'"a%d"' % number) for number in range(20)]
    read = regular.reader(10)
    assert all(read(raw) for raw in different[:11])
    assert [bool(regular.reader(10)(raw)) for raw in different] == [False] * 16 + [True] * 4


def test_what_is_kept_of_pieces_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When there are too many, they are found again."""
    monkeypatch.setattr("proxy.audit.regular._MOST", 2)
    asked = list[bytes]()
    kept = Kept(lambda piece: asked.append(piece) or piece.upper())
    assert [kept[piece] for piece in (b"a", b"b", b"a", b"c", b"a")] == [b"A", b"B", b"A", b"C", b"A"]
    assert asked == [b"a", b"b", b"c", b"a"]
    assert kept[b"x" * 1025] == b"X" * 1025
    assert b"x" * 1025 not in kept
    regular = Regular()
    assert all(regular.read(raw) for raw in EXPORTED)
    long = EXPORTED[0].replace(b'"search"', b'"%b"' % (b"s" * 20_000))
    assert at_length(long) is not None
    assert regular.read(long) is None
