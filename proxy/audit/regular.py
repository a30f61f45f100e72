"""Lines of an export that look just as they were written, read in few steps.

Owns a short way to what `passages.py` finds by parsing each line as a whole. Such a line is a beginning of fixed
length, numbers, and pieces between them, which are mostly those of the row before: what a piece is in the canonical
text is found once, by parsing it, and kept. Whatever looks different in the least has to be read the long way. As each
piece stands where a member of the object may begin, and is whole members itself, all are read just when the line is.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from struct import Struct, error
from typing import Any, Final

import orjson

from proxy.audit.columns import COLUMNS, PLACE, escaped
from proxy.audit.verify import Place

Row = tuple[Place, int, bytes, bytes]
"""Tenant and segment, place in the chain, canonical text, hash."""

#: Pieces that are kept, of each kind, and their longest; the longest line that is read here. Bytes.
_MOST: Final = 4096
_LONGEST_PIECE: Final = 1024
_LONGEST: Final = 16_384
#: Up to the end of the tenant; the time, up to the second; its microseconds; what is between; the id; the kind's begin.
_BEGIN: Final = Struct("50s28s6s9s36s14s")
_LEAD: Final = 129
"""Where that of the kind begins."""
_TENANT: Final = re.compile(rb'\{"tenant_id":"([0-9a-f-]{36})')
_SECOND: Final = re.compile(rb'","ts":"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})\.')
_HEX: Final = b"0123456789abcdef-"
_SEQ: Final = b',"seq":'
_CHAIN: Final = b',"chain":"'
_END: Final = 76
"""Bytes of the last member, the hash, with the end of the line."""

#: A float of 14 digits at most, three of them decimals, reads in COPY as it does in JSON, but for `.0` at its end.
_FLOAT: Final = r"((?:0|[1-9][0-9]{0,10})(?:\.[0-9]{0,2}[1-9](?=,)|(?=(?:\.0)?,)))(?:\.0)?+"
_INTEGER: Final = r"(0|[1-9][0-9]{0,17}+)"
_MEASURES: Final = COLUMNS[PLACE["duration_ms"] : PLACE["bytes_out"] + 1]
_MEMBERS: Final = [f',"{each.name}":{_FLOAT if each.type == "float8" else _INTEGER}' for each in _MEASURES]
_NUMBERS: Final = re.compile("".join(f"(?:{each})?" for each in _MEMBERS).encode())
_TRACE: Final = re.compile(
    rb'(?:,"session_ref":"([0-9A-Za-z_-]*+)")?(?:,"trace_id":"([0-9a-f]*+)")?(?:,"span_id":"([0-9a-f]*+)")?'
)


#: Portions of lines.
_PAUSE: Final = 16


class Irregular(ValueError):
    """A line, or a piece of it, that has to be read the long way."""


class Kept(dict[bytes, bytes]):
    """What was found for a piece of a line; found when it is asked for."""

    def __init__(self, find: Callable[[bytes], bytes]) -> None:
        super().__init__()
        self._find = find
        self.missed = 0

    def __missing__(self, piece: bytes) -> bytes:
        """Raises ValueError, TypeError, KeyError."""
        self.missed += 1
        made = self._find(piece)
        if len(self) >= _MOST:
            self.clear()
        if len(piece) <= _LONGEST_PIECE:
            self[piece] = made
        return made


def members(first: str, last: str) -> Callable[[bytes], bytes]:
    """How `,"a":1,"b":2` becomes text: all members of a row from one column to another, some of which may be null."""
    columns = COLUMNS[PLACE[first] : PLACE[last] + 1]
    places = {column.name: (place, column.type) for place, column in enumerate(columns)}
    places |= {f"{name}_text": (place, "text") for name, (place, type_) in places.items() if type_ == "json"}

    def text(piece: bytes) -> bytes:
        if piece and not piece.startswith(b',"'):
            raise Irregular
        texts, before = ["\\N"] * len(columns), -1
        for key, value in orjson.loads(b"{%b}" % piece[1:]).items():
            place, type_ = places[key]
            if place <= before:
                raise Irregular
            texts[place], before = _text(value, type_), place
        return "\t".join(texts).encode()

    return text


def _text(value: Any, type_: str) -> str:
    """A value as COPY writes it. Raises Irregular."""
    if type_ == "json":
        value = orjson.dumps(value).decode()
    elif type_ in ("smallint", "integer", "bigint") and value.__class__ is int:
        return str(value)
    elif type_ == "boolean" and value.__class__ is bool:
        return "t" if value else "f"
    elif type_ not in ("text", "uuid", "inet", "bytea") or value.__class__ is not str:
        raise Irregular
    return escaped(value)


def _second(piece: bytes) -> bytes:
    found = _SECOND.fullmatch(piece)
    seconds = int(datetime.fromisoformat(found[1].decode()).replace(tzinfo=UTC).timestamp()) if found else 0
    if seconds <= 0:
        raise Irregular
    return b"%d" % seconds


_captured: Final = members("arguments", "result")
_KINDS: Final = {b'","kind":"inte': "intent", b'","kind":"outc': "outcome", b'","kind":"deni': "denied"}


class Spot:
    """Of rows of one tenant and kind: what they begin with, and what was found in the last of them."""

    __slots__ = (
        "after",
        "after_text",
        "begin",
        "body",
        "body_text",
        "first",
        "format",
        "lead",
        "lead_text",
        "measures",
        "place",
    )

    def __init__(self, tenant: bytes, kind: bytes) -> None:
        """Raises Irregular, KeyError."""
        found = _TENANT.fullmatch(tenant)
        if found is None:
            raise Irregular
        self.begin, self.place = found[1] + b"\t", (found[1].decode(), "")
        #: The first of the numbers: an intent has no durations.
        self.first = b',"bytes_in":' if kind.endswith(b"inte") else b',"duration_ms":'
        #: Pieces that no line has.
        self.lead = self.body = self.after = b"\0"
        self.lead_text = self.body_text = self.after_text = b""
        self.measures, self.format = _measures((True,) * len(_MEASURES))


@lru_cache(256)
def _measures(present: tuple[bool, ...]) -> tuple[re.Pattern[bytes], bytes]:
    """What finds just these of the measures in a line, and their text."""
    names = "|".join(column.name for column in _MEASURES)
    there = "".join(each for each, is_there in zip(_MEMBERS, present, strict=True) if is_there)
    texts = ("%b" if is_there else "\\N" for is_there in present)
    return re.compile(f'{there}(?!,"(?:{names})")'.encode()), "\t".join(texts).encode()


def _learn_measures(spot: Spot, raw: bytes, at: int) -> re.Match[bytes]:
    """Find which of the numbers there are. Raises Irregular."""
    all_ = _NUMBERS.match(raw, at)
    spot.measures, spot.format = _measures(tuple(each is not None for each in all_.groups()) if all_ else ())
    found = spot.measures.match(raw, at)
    if found is None:
        raise Irregular
    return found


class Regular:
    """Reads lines, and keeps what it found for pieces of them."""

    def __init__(self) -> None:
        self._spots = dict[tuple[bytes, bytes], Spot]()
        self._irregular, self._tried, self._missed, self._left = 0, 0, 0, 0
        self._seconds, self._resources = Kept(_second), Kept(members("resource_id", "resource_id"))
        self._kept = [
            Kept(members(*span))
            for span in (
                ("actor_type", "result"), ("actor_type", "resource_type"), ("server_name", "result"),
                ("server_name", "risk_reasons"),
                ("messages", "instance"), ("messages", "user_agent"), ("instance", "instance"),
            )
        ]  # fmt: skip
        self._whole, self._actors, self._calls, self._named, self._behind, self._clients, self._last = self._kept

    def reader(self, lines: int) -> Callable[[bytes], Row | None]:
        """What reads so many lines that come next. When most of the last ones had little in common with those before
        them, the short way is the longer one, and for a while it is not tried."""
        missed = self._irregular + sum(kept.missed for kept in self._kept)
        if (missed - self._missed) * 2 > self._tried:
            self._left = _PAUSE
        self._missed, self._tried = missed, lines
        if self._left:
            self._left -= 1
            return _unread
        return self.read

    def read(self, raw: bytes) -> Row | None:
        """A row; None when the line has to be read the long way. 3 µs."""
        if len(raw) > _LONGEST:
            return None
        try:
            tenant, second, us, between, ident, kind = _BEGIN.unpack_from(raw)
            spot = self._spots.get((tenant, kind)) or self._spot(tenant, kind)
            if not raw.startswith(spot.lead, _LEAD):
                _learn_place(spot, raw)
            start = _LEAD + len(spot.lead)
            comma, end = raw.find(b",", start), len(raw) - _END
            seq = raw[start:comma]
            found = spot.measures.match(raw, comma + len(spot.body)) if raw.startswith(spot.body, comma) else None
            if found is None:
                found = self._learn_body(spot, raw, comma, end)
            behind = found.end()
            after = raw[behind:end]
            if after != spot.after:
                spot.after_text, spot.after = self._after(after), after
            if between != b'Z","id":"' or ident.translate(None, _HEX) or not (us + seq).isdigit() or seq[0] == 48:
                return None
            if behind > end or len(seq) > 18 or raw[end:-66] != _CHAIN or raw[-2:] != b'"}':
                return None
            text = b"".join(
                (
                    spot.begin, self._seconds[second], us, b"\t", ident, spot.lead_text, seq,
                    spot.body_text, spot.format % found.groups(), spot.after_text,
                )
            )  # fmt: skip
            return spot.place, int(seq), text, unhexlify(raw[-66:-2])
        except (ValueError, TypeError, KeyError, IndexError, error):
            self._irregular += 1
            return None

    def _spot(self, tenant: bytes, kind: bytes) -> Spot:
        if len(self._spots) >= _MOST:
            self._spots.clear()
        made = self._spots[tenant, kind] = Spot(tenant, kind)
        return made

    def _learn_body(self, spot: Spot, raw: bytes, comma: int, end: int) -> re.Match[bytes]:
        """Find where the numbers are, and what is before them."""
        at = raw.find(spot.first, comma)
        if at < 0 and (at := raw.find(b',"bytes_in":', comma)) < 0:
            at = end
        found = spot.measures.match(raw, at) or _learn_measures(spot, raw, at)
        body = raw[comma:at]
        spot.body_text, spot.body = self._before(body), body
        return found

    def _before(self, body: bytes) -> bytes:
        """The text of what stands before the numbers. Arguments differ from row to row."""
        at = body.find(b',"resource_id":')
        after = body.find(b',"server_name":', at)
        if at < 0 or after < 0:
            return b"\t%b\t" % self._whole[body]
        cut = body.find(b',"arguments', after)
        call = (
            self._calls[body[after:]] if cut < 0 else b"%b\t%b" % (self._named[body[after:cut]], _captured(body[cut:]))
        )
        return b"\t%b\t%b\t%b\t" % (self._actors[body[:at]], self._resources[body[at:after]], call)

    def _after(self, after: bytes) -> bytes:
        """The text of what stands behind the numbers. What a call was part of differs from row to row."""
        at = after.find(b',"session_ref":"')
        if at < 0:
            at = after.find(b',"trace_id":"')
        if at < 0:
            return b"\t" + self._behind[after]
        found = _TRACE.match(after, at)
        if found is None:
            raise Irregular
        trace = b"\t".join(found.groups(b"\\N"))
        return b"\t%b\t%b\t%b" % (self._clients[after[:at]], trace, self._last[after[found.end() :]])


def _unread(raw: bytes) -> None:
    """Says of every line that it has to be read the long way."""


def _learn_place(spot: Spot, raw: bytes) -> None:
    """Find the kind and the segment, of `","kind":"outcome","segment":"one/1","seq":`. Raises ValueError and so on."""
    at = raw.find(_SEQ, _LEAD) + len(_SEQ)
    lead = raw[_LEAD:at]
    row = orjson.loads(b"{%b}" % lead[2 : -len(_SEQ)])
    kind, segment = row["kind"], row["segment"]
    if lead[:3] != b'","' or list(row) != ["kind", "segment"] or kind not in _KINDS.values() or segment is None:
        raise Irregular
    spot.lead_text = f"\t{kind}\t{escaped(segment)}\t".encode()
    spot.place, spot.lead = (spot.place[0], segment), lead
