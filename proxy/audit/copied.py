"""Rows of the trail as PostgreSQL gives them: lines of COPY, the text that was hashed with its hash behind it.

Owns how they are taken apart; blocks of bytes are given. What an export makes of them is `passages.py`'s to know.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Callable, Container, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from proxy.audit.columns import COLUMNS, SELECTED, line
from proxy.audit.verify import Place, Strand, Trail

#: Columns of a query whose COPY is read here: those of the canonical text, and `chain`.
COPIED: Final = f"{SELECTED}, encode(chain, 'hex') AS chain"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_US: Final = 1_000_000
_UNESCAPED: Final = {
    "\\\\": "\\", "\\b": "\b", "\\f": "\f", "\\n": "\n", "\\r": "\r", "\\t": "\t", "\\v": "\v"
}  # fmt: skip
ESCAPED: Final = str.maketrans({character: escape for escape, character in _UNESCAPED.items()})
"""COPY's escapes, for `str.translate`."""


class Copied:
    """Takes what COPY gives, in blocks that end anywhere."""

    def __init__(self, trail: Trail, others: Container[Place], span_us: tuple[int, int]) -> None:
        """`others`: places whose rows are not ours to look at, although they are from the same time. Rows of unknown
        places count when they are from within `span_us`, the end excluded."""
        self._trail, self._others, self._span_us = trail, others, span_us
        self._strands = {_key(place): strand for place, strand in trail.strands.items()}
        self._rest = b""
        #: Rows without a chain, by tenant.
        self.unchained: dict[str, int] = {}

    def feed(self, block: bytes) -> None:
        """Take so much more. 2 µs a row."""
        lines = (self._rest + block).split(b"\n")
        self._rest = lines.pop()
        strands = self._strands
        for each in lines:
            text, _, chain = each.rpartition(b"\t")
            tenant, ts, _, _, segment, seq, _ = text.split(b"\t", 6)
            strand = strands.get((tenant, segment)) or self._found(tenant, segment, ts)
            if strand is None:
                continue
            try:
                change = strand.add(int(seq), text, unhexlify(chain))
            except ValueError:
                self._count(tenant)
                continue
            if change and (left := self._trail.wait(change)) is not None:
                del strands[_key(left)]

    def _found(self, tenant: bytes, segment: bytes, ts: bytes) -> Strand | None:
        """The chain of a place without a head; None when its rows do not count."""
        start_us, end_us = self._span_us
        place = tenant.decode(), _unescaped(segment.decode())
        if place in self._others or place in self._trail.scattered or not start_us <= int(ts) < end_us:
            return None
        if segment == b"\\N":
            self._count(tenant)
            return None
        strand = self._strands[tenant, segment] = self._trail.strand(place, (), int(ts))
        return strand

    def _count(self, tenant: bytes) -> None:
        name = tenant.decode()
        self.unchained[name] = self.unchained.get(name, 0) + 1


def _key(place: Place) -> tuple[bytes, bytes]:
    """How a place reads in COPY."""
    tenant, segment = line(place).split(b"\t")
    return tenant, segment


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    parts = text.split("\\\\")  # what is between them holds no backslash that is escaped
    for escape, character in _UNESCAPED.items():
        if escape != "\\\\":
            parts = [part.replace(escape, character) for part in parts]
    return "\\".join(parts)


_READ: Final[Mapping[str, Callable[[str], Any]]] = {
    "smallint": int, "integer": int, "bigint": int, "float8": float, "boolean": "t".__eq__, "timestamptz": lambda text:
    iso(int(text)), "text": _unescaped, "json": _unescaped,
}  # fmt: skip
_READERS: Final = tuple(_READ.get(column.type, str) for column in COLUMNS)


def values(copied: bytes) -> list[Any]:
    """A line of COPY as values in the order of the columns, and the chain: times as ISO 8601, JSON as its text."""
    *texts, chain = copied.decode().split("\t")
    made = [None if text == "\\N" else read(text) for read, text in zip(_READERS, texts, strict=True)]
    return [*made, None if chain == "\\N" else chain]


def iso(us: int) -> str:
    """Microseconds since 1970 as `2026-11-22T12:05:14.123456Z`."""
    second, rest = divmod(us, _SECOND_US)
    return f"{_second_text(second)}.{rest:06d}Z"


@lru_cache(512)
def _second_text(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S")
