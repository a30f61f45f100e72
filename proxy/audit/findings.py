"""What is wrong with rows that do not fit their chain, in words.

Owns the kinds of findings and the reading of suspects: rows whose chain is not that of the row before them and of
themselves. One changed hash makes two rows suspect and two exchanged rows make four, so each is tried at the places of
the others, and after the hashes that should have stood there. Nothing is guessed: a row belongs to another place only
if its hash says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal, NamedTuple

from proxy.audit.columns import PLACE

Kind = Literal[
    "changed", "missing", "inserted", "reordered", "rewritten", "headless", "forged", "unchained", "unreadable",
    "orphaned", "unended", "scattered", "more",
]  # fmt: skip

_WORDS: Final[dict[Kind, str]] = {
    "changed": "changed: {rows} not what was written",
    "missing": "missing: {rows} not there",
    "inserted": "inserted: {rows} not of this chain",
    "reordered": "reordered: {rows} out of place",
    "rewritten": "rewritten: the rows up to row {first} do not lead to what was signed",
    "headless": "head missing: nothing that was signed says how many rows there are, and which",
    "forged": "head wrongly signed: the one for {first} rows",
    "unchained": "inserted: {count} rows that name no segment",
    "unreadable": "unreadable: a line that is no row of the trail",
    "orphaned": "missing: the segment before it, with its heads",
    "unended": "end missing: nothing that was signed says that no row follows row {first}",
    "scattered": "not checked: its rows come too far from their order",
    "more": "more of the same",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: of what kind, and where."""

    kind: Kind
    tenant: str
    segment: str = ""
    first: int = 0
    """First row that it is about, from 1; 0 when it is about the segment."""
    last: int = 0
    """Last row; 0 when it is about one."""
    detail: str = ""
    """More, for people."""

    def at(self, place: tuple[str, str]) -> Finding:
        """The same of this tenant and segment."""
        return Finding(self.kind, *place, self.first, self.last, self.detail)

    @property
    def words(self) -> str:
        """A sentence for people, without the place."""
        many = self.last > self.first
        rows = f"rows {self.first} to {self.last} are" if many else f"row {self.first} is"
        text = _WORDS[self.kind].format(rows=rows, first=self.first, count=self.last)
        return f"{text} ({self.detail})" if self.detail else text


class Suspect(NamedTuple):
    """A row that does not fit."""

    seq: int
    line: bytes
    before: bytes
    """Chain of the row at the place before; b'' of the second row of a place."""
    chain: bytes
    """Its own, as it stands."""


def explained(suspects: Sequence[Suspect], second: Sequence[Suspect] = ()) -> Iterator[Finding]:
    """What is wrong with each suspect of a chain, the innocent left out; tenant and segment are not filled in.

    `second` are rows that were read after another one of the same place. Rows come in any order, so the one that was
    inserted may have been the first: then the second fits, and that a row was inserted is said by whoever saw both.
    """
    # Hashes that may have stood before a row: those that do, and those that should according to the row itself.
    before = {each.before for each in suspects}
    before |= {each.chain for each in suspects}
    before |= {sha256(each.before + each.line).digest() for each in suspects}
    before |= {each.chain for each in second}
    genuine = {each.seq for each in second if _fits(each, before)}
    chains = {each.chain for each in suspects}
    places = sorted({each.seq for each in suspects})
    for each in sorted(suspects):
        if each.seq in genuine or _fits(each, before):
            continue  # it fits what should stand before it, which is the suspect
        home = _home(each, places, before, chains)
        if home is None:
            yield Finding("changed", "", "", each.seq)
        else:
            yield Finding("reordered", "", "", each.seq, 0, f"it was row {home}")


def _fits(row: Suspect, before: set[bytes]) -> bool:
    return any(sha256(hash_ + row.line).digest() == row.chain for hash_ in before)


def _renumbered(line: bytes, seq: int) -> bytes:
    """The row as it would read at another place."""
    parts = line.split(b"\t", PLACE["seq"] + 1)
    parts[PLACE["seq"]] = b"%d" % seq
    return b"\t".join(parts)


def _home(row: Suspect, places: Sequence[int], before: set[bytes], chains: set[bytes]) -> int | None:
    """The other place at which the row fits, if there is one."""
    for place in places:
        if place == row.seq:
            continue
        line = _renumbered(row.line, place)
        if any(sha256(hash_ + line).digest() in chains for hash_ in before):
            return place
    return None
