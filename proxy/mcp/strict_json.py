"""The only JSON that the proxy decides on: strict UTF-8, bounded, and read the same by every parser.

Owns reading bytes into values, and the question whether the names in an object can be misread. Servers differ: the
first or the last of two equal keys counts, some fold case (Go's encoding/json, CVE-2026-27896), some drop NUL or
invisible characters. What two parsers could read differently is refused where we decide, and only there: elsewhere, as
in the arguments of a tool, equal keys pass. It knows no message and no method; the bytes themselves are never changed.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Any, Final, TypeGuard

import orjson

from proxy.errors import BodyTooLarge, InvalidRequest, ParseError

#: Levels of arrays and objects, the outermost included.
MAX_DEPTH: Final = 64
#: orjson's writer stops at this many levels (a test pins it). It measures depth in C, without recursion of ours.
_WRITER_DEPTH: Final = 254
#: Bodies above this many bytes are weighed before they are read.
_LARGE_BYTES: Final = 1 << 20
#: Cost allowed in units of 80 ns: an array or object is one, a member of an object (up to 250 ns) three. Together with
#: the bytes themselves, 4 MiB stay near 50 ms; only 1 MiB or more of nothing but structure is refused.
_MAX_WEIGHT: Final = 400_000
#: Up to this many bytes, repeated keys are looked for object by object; above, any repeat is refused.
_SEARCHED_BYTES: Final = 256 << 10
#: Characters of all unexpected keys of one object together.
_MAX_UNEXPECTED: Final = 8 << 10

#: White space, control characters, and what Unicode calls Default_Ignorable_Code_Point; also the dot that lower-casing
#: a Turkish capital I leaves behind.
_INVISIBLE: Final = re.compile(
    "[\x00-\x20\x7f-\xa0\xad\u0307\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f"
    "\u205f-\u206f\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]+"
)


class Repeating(dict[str, Any]):
    """An object in which a key stood twice; holds the last of each."""


def load(body: bytes) -> Any:
    """The value of one JSON document, with `Repeating` for each object that repeats a key.

    Raises ParseError for anything but strict UTF-8 JSON (RFC 8259): BOM, NaN, numbers beyond a double, lone surrogates,
    trailing bytes. Raises InvalidRequest for more than `MAX_DEPTH` levels, BodyTooLarge for a large body that is mostly
    structure.
    """
    if len(body) > _LARGE_BYTES and _weight(body) > _MAX_WEIGHT:
        raise BodyTooLarge("too many members, arrays and objects")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ParseError from None
    written = _write(body, value)
    # Equal bytes hold no key twice: the writer cannot write one twice. The usual SDK bodies end here.
    if written == body or _count_strings(written) == _count_strings(body):
        return value
    if len(body) > _SEARCHED_BYTES:
        raise InvalidRequest("a key is repeated in a large body")
    return _DECODER.decode(body.decode())


def _write(body: bytes, value: object) -> bytes:
    """`value` as orjson writes it; InvalidRequest when it is nested too deeply."""
    if body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        return orjson.dumps(value)
    padding = _WRITER_DEPTH - MAX_DEPTH
    for _ in range(padding):
        value = [value]
    try:
        return orjson.dumps(value)[padding:-padding]
    except orjson.JSONEncodeError:
        raise InvalidRequest("nested too deeply") from None


def _count_strings(document: bytes) -> int:
    """Number of string delimiters in a valid document. A repeated key is lost in reading, and at least one with it."""
    return _without_escapes(document).count(b'"')


def _without_escapes(document: bytes) -> bytes:
    """The document without escaped backslashes and quotes: every quote left begins or ends a string."""
    return document.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in document else document


def _weight(body: bytes) -> int:
    """What reading `body` costs at most, in the units of `_MAX_WEIGHT`; when that is much, strings are left out."""
    weight = _weigh(body)
    if weight <= _MAX_WEIGHT:
        return weight
    plain = _without_escapes(body)
    if plain.count(b'"') > _MAX_WEIGHT:
        return weight
    return _weigh(b"".join(plain.split(b'"')[::2]))


def _weigh(text: bytes) -> int:
    return 3 * text.count(b":") + text.count(b"{") + text.count(b"[")


def _collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    return members if len(members) == len(pairs) else Repeating(members)


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_collect)


def _fold(text: str) -> str:
    """`text` as the most forgiving parser would compare it: any case, any compatibility form, nothing invisible."""
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", text).upper().casefold())


class Names:
    """The names that are read from one kind of object; nothing else in it may look like one of them."""

    __slots__ = ("_folded", "_known")

    def __init__(self, read: Iterable[str], known: Iterable[str] = ()) -> None:
        """`read`: names that we or a server decide on. `known`: other usual names, which need no second look."""
        names = frozenset(read)
        self._folded = frozenset(map(_fold, names))
        self._known = names.union(known)

    def hold_in(self, value: object) -> TypeGuard[dict[str, Any]]:
        """Whether `value` is an object without repeated keys in which no other key passes for a name that is read."""
        if type(value) is not dict:
            return False
        return self._known.issuperset(value) or self._none_alike(value.keys() - self._known)

    def _none_alike(self, unexpected: set[str]) -> bool:
        return sum(map(len, unexpected)) <= _MAX_UNEXPECTED and self._folded.isdisjoint(map(_fold, unexpected))
