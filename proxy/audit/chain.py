"""Hash chains: the rows of one tenant in one segment of a spool, in their order there.

Owns how a chain begins and goes on, where each stands, and what a head says. The same rows give the same chain however
often and in whatever portions they are added. No clock, no signature (`signing.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, NamedTuple

_GENESIS: Final = "mcp-manager audit 1\n{}\n{}"
_HEAD: Final = "mcp-manager audit head 1"


def begin(segment: str, tenant: str) -> bytes:
    """The hash before the first row. `tenant`: its id."""
    return sha256(_GENESIS.format(segment, tenant).encode()).digest()


def link(before: bytes, line: bytes) -> bytes:
    """The hash after a row; `line` is its canonical text (`columns.line`). 0.6 µs."""
    return sha256(before + line).digest()


class Link(NamedTuple):
    """Where the chain of one tenant stands."""

    rows: int
    """So far: `seq` of the last one."""
    digest: bytes
    first_us: int
    """The earliest time of its rows, microseconds since 1970."""
    last_us: int
    """The latest one."""
    previous: str | None
    """The segment of the same journal before this one in which the tenant has rows."""


@dataclass(frozen=True, slots=True)
class Head:
    """What is signed: that a tenant has just these rows in a segment."""

    tenant: str
    segment: str
    rows: int
    is_final: bool
    digest: bytes
    first_us: int
    last_us: int
    previous: str | None

    def text(self) -> bytes:
        """What a signature is over. No part holds the end of a line."""
        parts = (
            _HEAD, self.tenant, self.segment, str(self.rows), "final" if self.is_final else "open", self.digest.hex(),
            str(self.first_us), str(self.last_us), self.previous or "",
        )  # fmt: skip
        return "\n".join(parts).encode()


class Chains:
    """The chains of all tenants in the segment that a journal is at. Rows are added to a `Draft`, which counts once it
    is accepted: what is written to the database and what is known of it here never differ."""

    def __init__(self, segment: str, links: Mapping[str, Link] | None = None) -> None:
        self.segment = segment
        self._links: dict[str, Link] = dict(links or {})

    def draft(self, after: Draft | None = None) -> Draft:
        """Rows to come; `after`: behind those of another draft, which has to be accepted first."""
        return Draft(self.segment, {**self._links, **after.links} if after is not None else self._links)

    def copy(self) -> Chains:
        """As they are now, for another thread."""
        return Chains(self.segment, self._links)

    def accept(self, draft: Draft) -> None:
        """The rows are where they belong."""
        self._links.update(draft.links)

    def next(self, segment: str) -> None:
        """Another segment begins. A tenant without rows in the one that ends keeps the one in which it has some."""
        ended = self.segment
        self.segment = segment
        self._links = {
            tenant: Link(0, begin(segment, tenant), 0, 0, ended if link.rows else link.previous)
            for tenant, link in self._links.items()
        }

    def heads(self, final: bool) -> Iterator[Head]:
        """One of each tenant with rows in the segment. `final`: no row follows."""
        for tenant, at in list(self._links.items()):
            if at.rows:
                yield Head(tenant, self.segment, at.rows, final, at.digest, at.first_us, at.last_us, at.previous)

    def to_json(self) -> dict[str, list[Any]]:
        """For a checkpoint."""
        return {
            tenant: [at.rows, at.digest.hex(), at.first_us, at.last_us, at.previous]
            for tenant, at in self._links.items()
        }

    @classmethod
    def from_json(cls, segment: str, kept: Mapping[str, Any]) -> Chains:
        """As it was. Raises ValueError and TypeError for what `to_json` did not make."""
        links = {
            tenant: Link(int(rows), bytes.fromhex(digest), int(first), int(last), previous)
            for tenant, (rows, digest, first, last, previous) in kept.items()
        }
        if not all(link.previous is None or isinstance(link.previous, str) for link in links.values()):
            raise TypeError("a segment has a name")
        return cls(segment, links)


class Draft:
    """Rows that may yet be refused."""

    __slots__ = ("_before", "links", "segment")

    def __init__(self, segment: str, before: Mapping[str, Link]) -> None:
        self.segment = segment
        self._before = before
        #: Of tenants that the rows are of.
        self.links: dict[str, Link] = {}

    def at(self, tenant: str) -> Link:
        """Where the chain of a tenant stands; its next row has `seq` one more."""
        found = self.links.get(tenant) or self._before.get(tenant)
        return found if found is not None else Link(0, begin(self.segment, tenant), 0, 0, None)

    def add(self, tenant: str, line: bytes, ts_us: int) -> bytes:
        """Add a row; returns its hash. 1.5 µs."""
        rows, before, first_us, last_us, previous = self.at(tenant)
        after = link(before, line)
        if rows:
            first_us, last_us = min(first_us, ts_us), max(last_us, ts_us)
        else:
            first_us = last_us = ts_us
        self.links[tenant] = Link(rows + 1, after, first_us, last_us, previous)
        return after
