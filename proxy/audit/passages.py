"""Rows and heads of the trail as lines of JSON: how they are exported, and made into what was hashed again.

Owns that form. Columns that are null are left out, and the others stand in the order of the table: nearly all rows are
of a few shapes, which is why they can be verified fast. Nothing is read or written here.
"""

from __future__ import annotations

import itertools
from binascii import unhexlify
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import orjson

from proxy.audit.chain import Head
from proxy.audit.columns import COLUMNS, NAMES, PLACE, escaped
from proxy.audit.copied import iso, values
from proxy.audit.regular import Regular, Row
from proxy.audit.verify import Strand, Trail

#: Kind of a line that is no row.
HEAD: Final = "head"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TS: Final = PLACE["ts"]
_NUMBERS: Final = frozenset(("smallint", "integer", "bigint", "float8", "boolean"))
_SHAPES: Final = dict[tuple[str, ...], "Shape"]()
_MOST_SHAPES: Final = 1000
_JSON: Final = tuple((PLACE[each.name], f"{each.name}_text") for each in COLUMNS if each.type == "json")


class Strange(ValueError):
    """A line that is no row and no head of the trail."""


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


class Shape:
    """What rows with the same keys in the order of the columns have in common: nearly all are of a few shapes."""

    __slots__ = ("_between", "_json", "_numbers")

    def __init__(self, keys: tuple[str, ...]) -> None:
        """Raises Strange when an export would not write these keys, or not in this order."""
        present = [PLACE.get(key.removesuffix("_text"), -1) for key in keys[:-1]]
        if keys[-1:] != ("chain",) or present != sorted(set(present)) or present[:6] != list(range(6)):
            raise Strange("a row that cannot be read")
        types = [COLUMNS[place].type for place in present]
        #: What stands before, between and behind the values; where a column is null, that is said there.
        edges = [-1, *present, len(COLUMNS)]
        nulls = [["\\N"] * (after - before - 1) for before, after in itertools.pairwise(edges)]
        between = ["\t".join(["", *each, ""]) for each in nulls]
        between[0], between[-1] = between[0][1:], between[-1][:-1]
        self._between = [part for each in between for part in (each, "")][:-1]
        self._numbers = [at for at, type_ in enumerate(types) if type_ in _NUMBERS]
        self._json = [at for at, type_ in enumerate(types) if type_ == "json" and not keys[at].endswith("_text")]

    def line(self, found: list[Any], plain: bool) -> bytes:
        """The canonical text of a row of these values, but for the chain; `plain`: none has to be escaped."""
        found[_TS] = str(micros(found[_TS]))
        for at in self._json:
            found[at] = orjson.dumps(found[at]).decode()
        for at in self._numbers:
            value = found[at]
            found[at] = str(value) if value.__class__ is int else _number(value)
        if not plain:  # nor is there a backslash in what is written for JSON then
            found = [escaped(each) for each in found]
        parts = self._between.copy()
        parts[1::2] = found
        return "".join(parts).encode()


def _number(value: object) -> str:
    """A number or truth as COPY writes it. Raises Strange for another value."""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if value.__class__ is not bool:
        raise Strange("a value of a wrong type")
    return "t" if value else "f"


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


def take(trail: Trail, blocks: Iterable[Sequence[bytes]]) -> tuple[int, dict[str, int]]:
    """Give rows of an export to their chains, from lines in portions; how many lines are none, and how many rows of
    each tenant have no chain. Heads are passed over: they were read before."""
    strange, unchained, regular = 0, dict[str, int](), Regular()
    for lines in blocks:
        strange += _take(trail, lines, regular.reader(len(lines)), unchained)
    return strange, unchained


def _take(trail: Trail, lines: Iterable[bytes], read: Callable[[bytes], Row | None], unchained: dict[str, int]) -> int:
    """Do so with one portion, of which `read` knows a short way for most lines; how many are none."""
    strange, strands = 0, trail.strands
    for raw in lines:
        try:
            row = read(raw)
            strand = strands.get(row[0]) if row is not None else None
            if row is None or strand is None:
                row, strand = _read(trail, raw, unchained)
            change = strand.add(row[1], row[2], row[3]) if row is not None and strand is not None else 0
        except (ValueError, TypeError, KeyError, AttributeError):
            strange += 1
            continue
        if change:
            trail.wait(change)
    return strange


def _read(trail: Trail, raw: bytes, unchained: dict[str, int]) -> tuple[Row | None, Strand | None]:
    """Any line, and the chain that its row is of; None when it is no row, or does not count. Raises ValueError,
    TypeError, KeyError, AttributeError."""
    row = orjson.loads(raw)
    if row["kind"] == HEAD:
        return None, None
    place = row["tenant_id"], row.get("segment")
    strand = trail.strands.get(place) or _found(trail, place, row, unchained)
    if strand is None:
        return None, None
    return (place, _place(row["seq"]), line_of(raw, row), unhexlify(row["chain"])), strand


def _found(trail: Trail, place: Any, row: Mapping[str, Any], unchained: dict[str, int]) -> Strand | None:
    """The chain of a place without a head; None when rows of it do not count."""
    tenant, segment = place
    if segment is None:
        unchained[str(tenant)] = unchained.get(str(tenant), 0) + 1
        return None
    return None if place in trail.scattered else trail.strand(place, (), micros(row["ts"]))


def _place(value: object) -> int:
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
