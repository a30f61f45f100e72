"""Rows of the trail on their way to being verified: from the database, or from an exported file.

Owns the two forms of a row outside its table: a line of COPY, which is the canonical text that was hashed with its hash
behind it, and a line of JSON, from which the canonical text is made again. Heads are lines of JSON, too. Nothing is
read here; blocks of bytes are given.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import orjson

from proxy.audit.chain import Head
from proxy.audit.columns import COLUMNS, NAMES, PLACE, SELECTED, line
from proxy.audit.verify import Place, Strand, Trail

#: Columns of a query whose COPY is read here: those of the canonical text, and `chain`.
COPIED: Final = f"{SELECTED}, encode(chain, 'hex') AS chain"
#: Kind of a line of JSON that is no row.
HEAD: Final = "head"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_US: Final = 1_000_000
_TS, _SEGMENT, _SEQ = PLACE["ts"], PLACE["segment"], PLACE["seq"]
_SHAPES: Final = dict[tuple[str, ...], "Shape"]()
_MOST_SHAPES: Final = 1000
_JSON: Final = tuple((PLACE[each.name], f"{each.name}_text") for each in COLUMNS if each.type == "json")
_UNESCAPED: Final = {
    "\\\\": "\\", "\\b": "\b", "\\f": "\f", "\\n": "\n", "\\r": "\r", "\\t": "\t", "\\v": "\v"
}  # fmt: skip
_ESCAPED: Final = str.maketrans({character: escape for escape, character in _UNESCAPED.items()})


class Strange(ValueError):
    """A line that is no row and no head of the trail."""


# --- from the database ----------------------------------------------------------------------------------------------


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


# --- to JSON --------------------------------------------------------------------------------------------------------


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


def to_json(copied: bytes) -> bytes:
    """A line of COPY as a line of JSON, without its end: the columns that are not null. 12 µs."""
    made = values(copied)
    row = {name: value for name, value in zip((*NAMES, "chain"), made, strict=True) if value is not None}
    for place, name in _JSON:
        text = made[place]
        if text is not None:
            inner = orjson.loads(text)
            # As it is hashed as text, it is exported as text if reading and writing it would change it.
            if orjson.dumps(inner).decode() == text:
                row[NAMES[place]] = inner
            else:
                row = {name if key == NAMES[place] else key: value for key, value in row.items()}
    return orjson.dumps(row)


def iso(us: int) -> str:
    """Microseconds since 1970 as `2026-11-22T12:05:14.123456Z`."""
    second, rest = divmod(us, _SECOND_US)
    return f"{_second_text(second)}.{rest:06d}Z"


@lru_cache(512)
def _second_text(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S")


def micros(text: str) -> int:
    """The reverse of `iso`. Raises ValueError and TypeError."""
    if text[19:20] != "." or text[26:] != "Z":
        raise ValueError("not a time of an export")
    return _second_us(text[:19]) + int(text[20:26])


@lru_cache(512)
def _second_us(text: str) -> int:
    return (datetime.fromisoformat(f"{text}+00:00") - _EPOCH) // timedelta(microseconds=1)


def head_to_json(head: Head, key_id: str | None, signature: bytes | None) -> bytes:
    """A signed head as a line of JSON, without its end."""
    return orjson.dumps(
        {
            "kind": HEAD, "tenant_id": head.tenant, "segment": head.segment, "row_count": head.rows,
            "is_final": head.is_final, "head": head.digest.hex(), "first_ts": iso(head.first_us),
            "last_ts": iso(head.last_us), "previous": head.previous, "key_id": key_id,
            "signature": signature.hex() if signature is not None else None,
        }
    )  # fmt: skip


def head_of(row: Mapping[str, Any]) -> tuple[Head, str | None, bytes | None]:
    """The head of a line of JSON, its key id and its signature. Raises Strange."""
    try:
        head = Head(
            row["tenant_id"], row["segment"], int(row["row_count"]), row["is_final"] is True,
            bytes.fromhex(row["head"]), micros(row["first_ts"]), micros(row["last_ts"]), row.get("previous"),
        )  # fmt: skip
        signature = row.get("signature")
        return head, row.get("key_id"), bytes.fromhex(signature) if signature is not None else None
    except (KeyError, TypeError, ValueError):
        raise Strange("a head that cannot be read") from None


# --- from JSON ------------------------------------------------------------------------------------------------------


class Shape:
    """What rows with the same keys in the order of the columns have in common: nearly all are of a few shapes."""

    __slots__ = ("_floats", "_form", "_json", "_truths")

    def __init__(self, keys: tuple[str, ...]) -> None:
        """Raises Strange when an export would not write these keys, or not in this order."""
        present = [PLACE.get(key.removesuffix("_text"), -1) for key in keys[:-1]]
        if keys[-1:] != ("chain",) or present != sorted(set(present)) or present[:6] != list(range(6)):
            raise Strange("a row that cannot be read")
        types = [COLUMNS[place].type for place in present]
        texts = ["%s" if place in present else "\\N" for place in range(len(COLUMNS))]
        self._form = "\t".join(texts)
        self._floats = [at for at, type_ in enumerate(types) if type_ == "float8"]
        self._truths = [at for at, type_ in enumerate(types) if type_ == "boolean"]
        self._json = [at for at, type_ in enumerate(types) if type_ == "json" and not keys[at].endswith("_text")]

    def line(self, found: list[Any], plain: bool) -> bytes:
        """The canonical text of a row of these values, but for the chain; `plain`: none has to be escaped."""
        found[_TS] = micros(found[_TS])
        for at in self._json:
            found[at] = orjson.dumps(found[at]).decode()
        for at in self._floats:
            if found[at].__class__ is float and found[at].is_integer():
                found[at] = int(found[at])
        for at in self._truths:
            found[at] = "t" if found[at] else "f"
        if not plain or self._json:
            found = [each.translate(_ESCAPED) if each.__class__ is str else each for each in found]
        return (self._form % tuple(found)).encode()


def line_of(raw: bytes, row: Mapping[str, Any]) -> bytes:
    """The canonical text of an exported row; `raw` is its JSON. Raises ValueError, TypeError, AttributeError. 4 µs."""
    keys = tuple(row)
    shape = _SHAPES.get(keys)
    if shape is None:
        shape = Shape(keys)
        if len(_SHAPES) < _MOST_SHAPES:
            _SHAPES[keys] = shape
    found = list(row.values())
    found.pop()
    return shape.line(found, b"\\" not in raw)


def take(trail: Trail, lines: Iterable[bytes]) -> tuple[int, dict[str, int]]:
    """Give rows of an export to their chains; how many lines are none, and how many rows of each tenant have no
    chain. Heads are passed over: they were read before."""
    strange, unchained, strands = 0, dict[str, int](), trail.strands
    for raw in lines:
        try:
            row = orjson.loads(raw)
            if row["kind"] == HEAD:
                continue
            place = row["tenant_id"], row.get("segment")
            strand = strands.get(place) or _found(trail, place, row, unchained)
            if strand is None:
                continue
            change = strand.add(_number(row["seq"]), line_of(raw, row), unhexlify(row["chain"]))
        except (ValueError, TypeError, KeyError, AttributeError):
            strange += 1
            continue
        if change:
            trail.wait(change)
    return strange, unchained


def _found(trail: Trail, place: Any, row: Mapping[str, Any], unchained: dict[str, int]) -> Strand | None:
    """The chain of a place without a head; None when rows of it do not count."""
    tenant, segment = place
    if segment is None:
        unchained[str(tenant)] = unchained.get(str(tenant), 0) + 1
        return None
    return None if place in trail.scattered else trail.strand(place, (), micros(row["ts"]))


def _number(value: object) -> int:
    if value.__class__ is not int:
        raise TypeError("a place in a chain is a number")
    return value


def heads_first(lines: Iterable[bytes]) -> Sequence[tuple[Head, str | None, bytes | None]]:
    """The heads that an export begins with. Raises Strange."""
    found = []
    for raw in lines:
        try:
            row = orjson.loads(raw)
        except orjson.JSONDecodeError:
            break
        if not isinstance(row, dict) or row.get("kind") != HEAD:
            break
        found.append(head_of(row))
    return found
