"""Lines of COPY are taken apart as they come."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.audit import columns
from proxy.audit.copied import Copied, iso, values
from proxy.audit.verify import Report, Trail
from tests.unit.audit.test_passages import RECORDS
from tests.unit.audit.trails import ACME, FOREVER_US, ZETA, edited, record, trail_of

LINES, HEADS = trail_of([record(number) for number in range(20)])


@given(RECORDS)
def test_copy_reads_as_the_values_that_were_written(made: dict[str, Any]) -> None:
    """But for times, which people want to read."""
    expected = columns.values(made, "one/1", 7)
    expected[columns.PLACE["ts"]] = iso(int(str(expected[columns.PLACE["ts"]])))
    assert values(columns.line(expected[:1] + columns.values(made, "one/1", 7)[1:]) + b"\tabcd") == [*expected, "abcd"]


@given(st.integers(1, 400))
def test_blocks_may_end_anywhere(size: int) -> None:
    """In the middle of a row, of an escape, between rows."""
    trail = Trail()
    trail.strand((ACME, "one/1"), HEADS)
    rows, content = Copied(trail, (), (0, FOREVER_US)), b"".join(line + b"\n" for line in LINES)
    for start in range(0, len(content), size):
        rows.feed(content[start : start + size])
    report = Report()
    trail.report(report, FOREVER_US)
    assert (report.complete, report.rows) == (True, 20)


def test_rows_of_other_places_and_times_are_passed_over() -> None:
    """Only unknown places within the time count, and they are in want of a head."""
    trail = Trail()
    trail.strand((ACME, "one/1"), HEADS)
    other, _ = trail_of([record(number, ZETA) for number in range(5)], "a\\t\tb/1")
    first_us = int(other[2].split(b"\t")[1])
    rows = Copied(trail, {(ZETA, "known")}, (0, first_us))
    for line in (*LINES, *other[2:], *(edited(line, segment="known") for line in other)):
        rows.feed(line + b"\n")
    report = Report()
    trail.report(report, FOREVER_US)
    assert (report.complete, report.rows) == (True, 20)
    rows.feed(other[0] + b"\n" + other[1] + b"\n")
    report = Report()
    trail.report(report, FOREVER_US)
    assert [(each.kind, each.segment) for each in report.findings] == [("headless", "a\\t\tb/1")]
