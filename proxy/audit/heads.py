"""Signed heads of chains: which of them are to be believed, and what they say of each other.

Owns what is wrong with heads; what they say of rows is checked by `verify.py`. Keys are given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import inf
from typing import Final, Protocol
from uuid import UUID

from proxy.audit.chain import Head
from proxy.audit.findings import Finding
from proxy.audit.verify import Report
from proxy.identity.uuid7 import made_ms

_DAY_US: Final = 86_400_000_000


class Verifies(Protocol):
    """A public key."""

    def is_signed(self, text: bytes, signature: bytes) -> bool:
        """Whether the holder of the secret key signed this."""


def believed(
    heads: Iterable[tuple[Head, str | None, bytes | None]], keys: Mapping[str, Verifies], report: Report
) -> Iterator[Head]:
    """The heads whose signatures are right, by the keys of these ids; what is wrong with others is reported."""
    for head, key_id, signature in heads:
        key = keys.get(key_id or "")
        if signature is None:
            wrong = "it is not signed"
        elif key is None:
            wrong = f"the public key {key_id} was not given"
        elif not key.is_signed(head.text(), signature):
            wrong = "the signature is not of this head"
        else:
            yield head
            continue
        report.add(Finding("forged", head.tenant, head.segment, head.rows, 0, wrong))


def unended(heads: Iterable[Head], settled_us: int) -> Iterator[Finding]:
    """Segments whose end nobody signed, although another came after them, or their day was over before `settled_us`: an
    older head in the place of the last would hide that rows behind it were cut off."""
    known = list(heads)
    ended = {(head.tenant, head.segment) for head in known if head.is_final}
    named = {(head.tenant, head.previous) for head in known}
    for head in known:
        place, day_ends = (head.tenant, head.segment), head.last_us - head.last_us % _DAY_US + _DAY_US
        if place not in ended and (place in named or day_ends < settled_us):
            yield Finding("unended", *place, head.rows)


def orphans(heads: Iterable[Head]) -> Iterator[Finding]:
    """Segments that name one before them which was not ended, although it should be there."""
    known = list(heads)
    ended = {(head.tenant, head.segment) for head in known if head.is_final}
    oldest: dict[str, int] = {}
    for head in known:
        oldest[head.tenant] = min(head.last_us, oldest.get(head.tenant, head.last_us))
    for head in known:
        if (
            head.previous is not None
            and (head.tenant, head.previous) not in ended
            and misses(head, oldest[head.tenant])
        ):
            yield Finding("orphaned", head.tenant, head.segment, 0, 0, head.previous)


def misses(head: Head, oldest_us: int) -> bool:
    """Whether the segment that a head names should be there, when `oldest_us` (since 1970) is the end of the tenant's
    oldest one: those of a journal are as old as each other, or a day; an act may be of years ago, and says when it
    was."""
    return oldest_us < head.first_us - head.first_us % _DAY_US and oldest_us <= _acted_us(head.previous or "")


def _acted_us(segment: str) -> float:
    """When an act was that has a segment to itself (its id tells); endless for all others."""
    kind, _, name = segment.partition("/")
    try:
        acted_ms = made_ms(UUID(name)) if kind == "direct" else None
    except ValueError:
        acted_ms = None
    return acted_ms * 1000 if acted_ms is not None else inf
