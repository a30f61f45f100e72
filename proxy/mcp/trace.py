"""Where a request comes from in a distributed trace: the W3C trace context of its header or, in `_meta`, its message.

Owns the grammar (W3C Trace Context, section 3.2) and which of both counts. The header was set by whoever sent the HTTP
request, on behalf of the message inside (MCP 2026-07-28 basic, `_meta`), so it is nearer. What is malformed is as if
it were absent. Nothing is changed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

#: Version, trace, parent, flags. Later versions may have more after that; version 255 is forbidden.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_VERSION_0: Final = "00"
_SAMPLED: Final = 1
#: Characters that are looked at.
_LONGEST: Final = 256


class Trace(NamedTuple):
    """A place in a trace."""

    trace_id: str
    """32 lower-case hexadecimal digits."""
    span_id: str
    """16 of them: the caller's."""
    sampled: bool
    """The caller records it."""


def trace_of(fields: Mapping[str, str], stated: str = "") -> Trace | None:
    """The trace that a request belongs to: `fields` are lower-case name to value, `stated` is what its message says
    (`Envelope.traceparent`). 0.1 µs when there is none."""
    value = fields.get("traceparent")
    if value is not None and (found := parse(value)) is not None:
        return found
    return parse(stated) if stated else None


def stated_in(meta: object) -> str:
    """What the `_meta` of a message says, unchecked; '' for nothing."""
    value = meta.get("traceparent") if isinstance(meta, dict) else None
    return value if isinstance(value, str) else ""


def parse(value: str) -> Trace | None:
    """A value of `traceparent`; None for what is none."""
    match = _TRACEPARENT.fullmatch(value) if len(value) <= _LONGEST else None
    if match is None or (match[5] is not None and match[1] == _VERSION_0):
        return None
    return Trace(match[2], match[3], bool(int(match[4], 16) & _SAMPLED))
