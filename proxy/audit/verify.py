"""Whether the rows of the trail are those that were written: all of them, unchanged and in their order.

Owns the check of rows against their chains, and of chains against signed heads. Rows may come in any order that is not
too far from theirs; what waits for its predecessor is bounded. It knows neither where rows come from nor how lines are
made of them (`copied.py`, `passages.py`), only that row n of a chain has SHA-256(chain of row n-1 || line n). What a
row that does not fit means is said by `findings.py`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from proxy.audit.chain import Head, begin
from proxy.audit.findings import Finding, Kind, Suspect, explained

#: Rows that may wait for their predecessor, of all segments together: 0.5 KiB each.
MOST_WAITING: Final = 100_000
#: Suspects of a segment that are looked into; findings of a segment that are told.
MOST_SUSPECTS: Final = 32
MOST_FINDINGS: Final = 1000

#: Instead of a time, of a chain that has a head, whether it is believed or not.
SIGNED: Final = 1 << 62

Place = tuple[str, str]
"""Tenant and segment: what has a chain of its own."""


@dataclass(slots=True)
class Run:
    """Rows without a gap of which each fits the one before, but for the first, which may still wait for its own."""

    start: int
    end: int
    chain: bytes
    """Of the last row."""
    first_line: bytes = b""
    """Of the first row while it waits; b'' when it was checked."""
    first_chain: bytes = b""


class Strand:
    """The chain of one tenant in one segment, as far as its rows were seen."""

    __slots__ = (
        "active", "heads", "place", "rows", "runs", "since_us", "starts", "strange", "suspects", "twice", "unsettled"
    )  # fmt: skip

    def __init__(self, place: Place, heads: Iterable[Head] = (), since_us: int = 0) -> None:
        """`heads` are those whose signature is right; `since_us` is when one of its rows is from."""
        self.place = place
        self.since_us = since_us
        self.rows = 0
        #: By the row that each is about.
        self.heads = {head.rows: head for head in sorted(heads, key=lambda head: head.is_final)}
        #: The run that the last row went to, which the next one most likely continues.
        self.active = Run(0, 0, begin(place[1], place[0]))
        self.runs = {0: self.active}
        self.starts = [0]
        self.suspects: list[Suspect] = []
        self.strange = 0
        #: Rows at places in the order at which there is one already, or none should be.
        self.twice: list[Suspect] = []
        #: Places at which the chain is not what was signed.
        self.unsettled: list[int] = []

    @property
    def waiting(self) -> int:
        """Rows that wait for their predecessor."""
        return len(self.runs) - 1

    def add(self, seq: int, line: bytes, chain: bytes) -> int:
        """Take a row; the change in the number of rows that wait."""
        self.rows += 1
        active = self.active
        if seq != active.end + 1 or (len(self.starts) > 1 and seq + 1 in self.runs):
            return self._insert(seq, line, chain)
        if sha256(active.chain + line).digest() != chain:
            self._suspect(seq, line, active.chain, chain)
        active.end, active.chain = seq, chain
        if seq in self.heads and self.heads[seq].digest != chain:
            self.unsettled.append(seq)
        return 0

    def _insert(self, seq: int, line: bytes, chain: bytes) -> int:
        """Take a row that does not continue the active run, or closes a gap."""
        runs, starts = self.runs, self.starts
        index = bisect_right(starts, seq) - 1
        if index < 0 or seq <= runs[starts[index]].end:
            self._second(seq, line, chain)
            return 0
        if seq in self.heads and self.heads[seq].digest != chain:
            self.unsettled.append(seq)
        run, before = runs[starts[index]], len(starts)
        if run.end == seq - 1:
            self._check(seq, line, run.chain, chain)
            run.end, run.chain = seq, chain
        else:
            index += 1
            run = runs[seq] = Run(seq, seq, chain, line, chain)
            starts.insert(index, seq)
        if index + 1 < len(starts) and starts[index + 1] == seq + 1:
            self._join(run, runs.pop(starts.pop(index + 1)))
        self.active = run
        return len(starts) - before

    def _join(self, left: Run, right: Run) -> None:
        self._check(right.start, right.first_line, left.chain, right.first_chain)
        left.end, left.chain = right.end, right.chain

    def _check(self, seq: int, line: bytes, before: bytes, chain: bytes) -> None:
        if sha256(before + line).digest() != chain:
            self._suspect(seq, line, before, chain)

    def _suspect(self, seq: int, line: bytes, before: bytes, chain: bytes) -> None:
        self.strange += 1
        if len(self.suspects) < MOST_SUSPECTS:
            self.suspects.append(Suspect(seq, line, before, chain))

    def _second(self, seq: int, line: bytes = b"", chain: bytes = b"") -> None:
        self.strange += 1
        if len(self.twice) < MOST_SUSPECTS:
            self.twice.append(Suspect(seq, line, b"", chain))

    def merge(self, other: Strand) -> None:
        """Take over what another reader saw of the same chain."""
        self.rows += other.rows
        self.strange += other.strange
        self.suspects += other.suspects[: MOST_SUSPECTS - len(self.suspects)]
        self.twice += other.twice[: MOST_SUSPECTS - len(self.twice)]
        self.unsettled += other.unsettled
        for start in other.starts[1:] if other.runs[0].end == 0 else other.starts:
            self._merge_run(other.runs[start])

    def _merge_run(self, run: Run) -> None:
        """A run of the other that starts at 0 holds rows from 1, of which the first was checked."""
        first = max(run.start, 1)
        index = bisect_right(self.starts, first) - 1
        left = self.runs[self.starts[index]]
        if left.end >= first or (index + 1 < len(self.starts) and self.starts[index + 1] <= run.end):
            self._second(first)
            run, index = self._united(run)
        elif run.start == 0:
            self.runs[0] = run
        else:
            index += 1
            self.runs[run.start] = run
            self.starts.insert(index, run.start)
        if index + 1 < len(self.starts) and self.starts[index + 1] == run.end + 1:
            self._join(run, self.runs.pop(self.starts.pop(index + 1)))
        if index and self.runs[self.starts[index - 1]].end == run.start - 1:
            self._join(self.runs[self.starts[index - 1]], self.runs.pop(self.starts.pop(index)))

    def _united(self, run: Run) -> tuple[Run, int]:
        """One run instead of this and those that hold some of its rows, and its place among them. That the rows are the
        same is not looked at: they are told to be there twice."""
        same = [start for start in self.starts if start <= run.end and self.runs[start].end >= run.start]
        parts = [run, *(self.runs.pop(start) for start in same)]
        low, high = min(parts, key=lambda part: part.start), max(parts, key=lambda part: part.end)
        made = self.runs[low.start] = Run(low.start, high.end, high.chain, low.first_line, low.first_chain)
        self.starts = sorted(self.runs)
        return made, self.starts.index(low.start)


@dataclass(slots=True)
class Report:
    """What came of it."""

    rows: int = 0
    segments: int = 0
    heads: int = 0
    unsigned: int = 0
    """Rows of segments in use after their last signed head: in their chain, but not signed yet."""
    counts: dict[Kind, int] = field(default_factory=dict)
    """Findings of each kind, those included that are not told."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing was found."""
        return not self.counts

    def add(self, finding: Finding, times: int = 1) -> None:
        """One more."""
        self.counts[finding.kind] = self.counts.get(finding.kind, 0) + times
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(finding)


class Trail:
    """All chains of a range. Each is begun with its heads, is given its rows, and is then asked for a report."""

    def __init__(self, most_waiting: int = MOST_WAITING) -> None:
        self.strands: dict[Place, Strand] = {}
        #: Segments whose rows came too far from their order: to be read again, in order.
        self.scattered: set[Place] = set()
        self._most, self._waiting = most_waiting, 0

    def strand(self, place: Place, heads: Iterable[Head] = (), since_us: int = 0) -> Strand:
        """The chain of this place, of which no row was seen."""
        made = self.strands[place] = Strand(place, heads, since_us)
        self.scattered.discard(place)
        return made

    def wait(self, change: int) -> Place | None:
        """Count more rows that wait, or fewer, as `Strand.add` says. When there are too many, the chain in which most
        do is let go: its place."""
        self._waiting += change
        if self._waiting <= self._most:
            return None
        place = max(self.strands, key=lambda place: self.strands[place].waiting)
        self._waiting -= self.strands.pop(place).waiting
        self.scattered.add(place)
        return place

    def merge(self, other: Trail) -> None:
        """Take over what another reader saw; no rows are added afterwards."""
        self.scattered |= other.scattered
        for place, strand in other.strands.items():
            if place in self.strands:
                self.strands[place].merge(strand)
            else:
                self.strands[place] = strand
        for place in self.scattered & self.strands.keys():
            del self.strands[place]

    def report(self, report: Report, settled_us: int) -> None:
        """Add what is wrong. A chain without a head is, if it is from before `settled_us`: it should have one since."""
        for strand in self.strands.values():
            report.rows += strand.rows
            report.heads += len(strand.heads)
            _settle(strand, report, settled_us)
        report.segments += len(self.strands) + len(self.scattered)
        for place in sorted(self.scattered):
            report.add(Finding("scattered", *place))


def _settle(strand: Strand, report: Report, settled_us: int) -> None:
    place = strand.place
    for finding in explained(strand.suspects, strand.twice):
        report.add(finding.at(place))
    for second in strand.twice:
        report.add(Finding("inserted", *place, second.seq))
    if strand.strange > len(strand.suspects) + len(strand.twice):
        more = strand.strange - len(strand.suspects) - len(strand.twice)
        report.add(Finding("more", *place, 0, more), more)
    signed = {row.seq for row in strand.twice if row.seq in strand.heads and strand.heads[row.seq].digest == row.chain}
    for seq in () if strand.suspects else strand.unsettled:
        if seq not in signed:
            report.add(Finding("rewritten", *place, seq))
    last = max(strand.heads, default=0)
    _settle_length(strand, report, last)
    if not last and strand.since_us < settled_us:
        report.add(Finding("headless", *place))


def _settle_length(strand: Strand, report: Report, last: int) -> None:
    """Say what is missing of the rows that are signed, and what is there beside them."""
    place, end = strand.place, 0
    for start in strand.starts:
        if start > end + 1 and (end or last):  # of what nobody signed, rows before the range may be left out
            report.add(Finding("missing", *place, end + 1, start - 1), start - 1 - end)
        end = strand.runs[start].end
    if last > end:
        report.add(Finding("missing", *place, end + 1, last), last - end)
    elif last and end > last and strand.heads[last].is_final:
        report.add(Finding("inserted", *place, last + 1, end), end - last)
    else:
        report.unsigned += end - last if last else strand.rows
