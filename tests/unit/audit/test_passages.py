"""Rows pass into files and from there to verification without losing what was hashed."""

from __future__ import annotations

import re
from binascii import unhexlify
from collections import Counter
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.audit import columns
from proxy.audit.copied import iso
from proxy.audit.passages import Strange, head_of, head_to_json, heads_first, line_of, micros, take, to_json
from proxy.audit.regular import Regular
from proxy.audit.verify import Report, Trail
from tests.unit.audit.trails import ACME, FOREVER_US, SIGNER, edited, found, record, trail_of

LINES, HEADS = trail_of([record(number) for number in range(20)])
EXPORTED = [to_json(line) for line in LINES]
TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=40)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
RECORDS = st.builds(
    record, st.integers(0, 1000), user_agent=TEXTS | st.none(), detail=TEXTS, target=TEXTS, arguments=VALUES,
    result=VALUES, duration_ms=st.floats(0, 1e13) | st.none(), bytes_out=st.integers(0, 1 << 62),
    streamed=st.booleans() | st.none(), client=st.ip_addresses().map(str),
    risk_reasons=st.lists(st.sampled_from(["write", "night"])),
)  # fmt: skip


@given(RECORDS)
def test_an_exported_row_gives_the_text_that_was_hashed(made: dict[str, Any]) -> None:
    """Whatever is in it: escapes, NUL, floats, nested JSON."""
    line = columns.line(columns.values(made, "one\\2/1", 7))
    exported = to_json(line + b"\t" + b"ab" * 32)
    assert b"\n" not in exported
    assert line_of(exported, orjson.loads(exported)) == line


@given(st.integers(0, 253_402_300_799_999_999))
def test_times_are_read_as_they_are_written(us: int) -> None:
    """From 1970 to the year 9999."""
    assert micros(iso(us)) == us


@pytest.mark.parametrize("text", ["", "2026-11-22T12:00:00Z", "2026-11-22 12:00:00.000000+00", "x" * 27])
def test_other_forms_of_time_are_refused(text: str) -> None:
    """A row has one form of text only."""
    with pytest.raises(ValueError):
        micros(text)


def test_json_that_would_change_is_exported_as_text() -> None:
    """So would its hash."""
    line = edited(LINES[1], arguments='{"a": 1.0e2,  "a":2}')
    row = orjson.loads(to_json(line))
    assert "arguments" not in row
    assert row["arguments_text"] == '{"a": 1.0e2,  "a":2}'
    assert line_of(to_json(line), row) == line.rpartition(b"\t")[0]


def test_heads_stand_first_and_are_read_back() -> None:
    """With key and signature; a line that is none ends them."""
    signature = SIGNER.sign(HEADS[0].text())
    heads = [head_to_json(HEADS[0], SIGNER.key_id, signature), head_to_json(HEADS[0], None, None)]
    expected = [(HEADS[0], SIGNER.key_id, signature), (HEADS[0], None, None)]
    assert heads_first([*heads, EXPORTED[0], heads[0]]) == expected
    assert heads_first([*heads, b"x"]) == expected
    assert heads_first([]) == []


@pytest.mark.parametrize("more", [{"row_count": "x"}, {"head": "zz"}, {"first_ts": None}, {"signature": 5}])
def test_a_head_that_makes_no_sense_is_strange(more: dict[str, Any]) -> None:
    """It is not passed over in silence."""
    with pytest.raises(Strange):
        head_of(orjson.loads(head_to_json(HEADS[0], None, None)) | more)


def test_an_export_is_verified_row_by_row() -> None:
    """What is no row, and what has no chain, is counted."""
    trail = Trail()
    trail.strand((ACME, "one/1"), HEADS)
    odd = [
        b"{", b"[]", b"{}", b'{"kind":"intent","tenant_id":7}', EXPORTED[3].replace(b'"kind"', b'"kidn"'),
        EXPORTED[3].replace(b'"seq":4', b'"seq":"4"'), EXPORTED[3].replace(b'"ts":"', b'"ts":"x'),
        EXPORTED[3].replace(b'"instance":"one",', b'').replace(b'"segment"', b'"instance":"one","segment"'),
    ]  # fmt: skip
    bare = EXPORTED[3].replace(b'"segment":"one/1",', b"")
    head = head_to_json(HEADS[0], None, None)
    assert take(trail, [[head, *EXPORTED], odd, [bare]]) == (7, {ACME: 1, "7": 1})
    report = Report()
    trail.report(report, FOREVER_US)
    assert (found(report), report.rows) == ([], 20)


def test_a_changed_export_is_found() -> None:
    """Numbers, texts and JSON alike."""
    for old, new in ((b'"status_code":200', b'"status_code":500'), (b"12.25", b"12.5"), (b'"search"', b'"delete"')):
        trail = Trail()
        trail.strand((ACME, "one/1"), HEADS)
        assert old in EXPORTED[5]
        take(trail, [[*EXPORTED[:5], EXPORTED[5].replace(old, new)], EXPORTED[6:]])
        report = Report()
        trail.report(report, FOREVER_US)
        assert found(report) == [("changed", 6, 6)]


@settings(max_examples=200)
@given(st.data())
def test_what_was_done_to_an_export_is_found_either_way(data: st.DataObject) -> None:
    """Rows changed, removed, inserted, moved: the short way of reading finds what the long one does."""
    lines = list(EXPORTED)
    for _ in range(data.draw(st.integers(1, 3))):
        place, other = data.draw(st.integers(0, len(lines) - 1)), data.draw(st.integers(0, len(lines) - 1))
        what = data.draw(st.sampled_from(["change", "remove", "insert", "move"]))
        if what == "change":
            at = data.draw(st.integers(0, len(lines[place]) - 1))
            lines[place] = lines[place][:at] + data.draw(st.binary(max_size=2)) + lines[place][at + 1 :]
        elif what == "insert":
            lines.insert(place, lines[other])
        else:
            line = lines.pop(place)
            if what == "move":
                seq = b'"seq":%d,' % data.draw(st.integers(1, 20))
                lines.insert(other, re.sub(b'"seq":[0-9]+,', seq, line))
    short, long = Trail(), Trail()
    for trail in (short, long):
        trail.strand((ACME, "one/1"), HEADS)
    taken = take(short, [lines[:5], lines[5:]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Regular, "read", lambda *_: None)
        assert take(long, [lines]) == taken
    reports = []
    for trail in (short, long):
        reports.append(Report())
        trail.report(reports[-1], FOREVER_US)
    assert reports[0] == reports[1]
    is_same = Counter(map(meaning, lines)) == Counter(map(meaning, EXPORTED))
    assert (reports[0].complete and taken == (0, {})) is is_same


def meaning(raw: bytes) -> object:
    """The row that a line is, however it is written; of a line that is none, itself."""
    try:
        row = orjson.loads(raw)
        return row["tenant_id"], row["segment"], row["seq"], line_of(raw, row), unhexlify(row["chain"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return raw
