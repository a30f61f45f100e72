"""Reads the registry: everything at one moment, later only the rows that changed, whether anyone told or not.

Owns how records become plain values (`rows.py`), and how hashes of rows show the changes of which no notice came; the
statements are in `registry_tables.py`. It decides nothing: what a row means, whether it is in force and what is merged
over the configuration is for whoever builds the snapshot.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import reduce
from operator import xor
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

import asyncpg
import orjson

from proxy.store.pool import Unavailable
from proxy.store.registry_tables import HASHED, PAGE, TABLES, Table
from proxy.store.rows import Row

if TYPE_CHECKING:
    from proxy.store.database import Database
    from proxy.store.pool import Session

__all__ = [
    "TABLES", "Fingerprints", "Hashes", "Registry", "Unreadable", "differing", "fingerprints", "merged",
    "read_changes", "read_everything", "read_fingerprints", "read_hashes", "reading",
]  # fmt: skip

Registry = Mapping[str, Mapping[str, Row]]
"""Table name -> id -> row, for every table of `TABLES`."""
Hashes = Mapping[str, Mapping[str, int]]
"""Table name -> id -> hash of exactly what the registry has of that row."""
Fingerprints = Mapping[str, tuple[int, int]]
"""Table name -> number of rows, and their hashes, combined."""
_Value = TypeVar("_Value")

#: JSON of more brackets than this is looked at twice, because orjson reads 1024 levels and writes 254.
_BRACKETS: Final = 200


class Unreadable(Unavailable):
    """PostgreSQL answers, but not with a registry: the tables or the role are missing."""


@asynccontextmanager
async def reading(database: Database) -> AsyncIterator[Session]:
    """A transaction that sees one moment, for the functions below. Raises Unavailable."""
    try:
        async with database.snapshot() as session:
            yield session
    except asyncpg.PostgresError as error:
        raise Unreadable(f"the registry cannot be read: {type(error).__name__}") from None


async def read_everything(session: Session) -> Registry:
    """The whole registry. Raises as `Session.fetch`."""
    return {name: await _read_table(session, table) for name, table in TABLES.items()}


async def read_changes(session: Session, changed: Iterable[tuple[str, str]]) -> Registry:
    """The rows named by (table, id) pairs; rows that are gone are absent, id '' stands for the whole table.

    Tables that are not of the registry, and ids that cannot be ids, are passed over. Raises as `Session.fetch`.
    """
    return {
        table.name: await (_read_table(session, table) if "" in ids else _read_some(session, table, ids))
        for table, ids in _wanted(changed)
    }


async def read_hashes(session: Session, asked: Iterable[tuple[str, str]]) -> Hashes:
    """The same for the hashes of rows: two are equal when the registry has the same of both."""
    return {
        table.name: await (_hash_table(session, table) if "" in ids else _hash_some(session, table, ids))
        for table, ids in _wanted(asked)
    }


async def read_fingerprints(session: Session, names: Iterable[str] = TABLES) -> Fingerprints:
    """Of these tables. They change with what the registry reads, and not with counters; what has expired leaves them
    at the next full hour. Raises as `Session.fetch`."""
    return {name: await _fingerprint(session, TABLES[name]) for name in names}


def fingerprints(hashes: Hashes) -> Fingerprints:
    """What `read_fingerprints` says of tables with these rows."""
    return {name: (len(table), reduce(xor, table.values(), 0)) for name, table in hashes.items()}


def differing(known: Hashes, asked: Iterable[tuple[str, str]], read: Hashes) -> frozenset[tuple[str, str]]:
    """The (table, id) pairs whose hash is not what was known; `read` is what `read_hashes` gave for `asked`."""
    found: set[tuple[str, str]] = set()
    for name, identity in asked:
        before, after = known.get(name, {}), read.get(name, {})
        ids = (identity,) if identity else before.keys() | after.keys()
        found.update((name, one) for one in ids if before.get(one) != after.get(one))
    return frozenset(found)


def merged(
    registry: Mapping[str, Mapping[str, _Value]],
    changed: Iterable[tuple[str, str]],
    read: Mapping[str, Mapping[str, _Value]],
) -> Mapping[str, Mapping[str, _Value]]:
    """A new registry: `registry` with the rows that `read_changes` read for `changed`. Untouched tables are shared.
    Hashes are merged the same way."""
    copies: dict[str, dict[str, _Value]] = {}
    for name, identity in changed:
        if name not in TABLES:
            continue
        if name not in copies:
            copies[name] = dict(registry.get(name, {}))
        table, found = copies[name], read.get(name, {})
        if identity == "":
            table.clear()
            table.update(found)
        elif identity in found:
            table[identity] = found[identity]
        else:
            table.pop(identity, None)
    return {**registry, **copies}


def _wanted(asked: Iterable[tuple[str, str]]) -> Iterator[tuple[Table, set[str]]]:
    wanted: dict[str, set[str]] = {}
    for name, identity in asked:
        if name in TABLES:
            wanted.setdefault(name, set()).add(identity)
    return ((TABLES[name], ids) for name, ids in wanted.items())


async def _read_table(session: Session, table: Table) -> dict[str, Row]:
    found: dict[str, Row] = {}
    last: str | None = None
    while True:
        page = await session.fetch(table.page, last)
        found.update(_rows(table, page))
        if len(page) < PAGE:
            return found
        last = page[-1][0]


async def _read_some(session: Session, table: Table, ids: set[str]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for some in _in_pages(table, ids):
        found.update(_rows(table, await session.fetch(table.some, some)))
    return found


async def _hash_table(session: Session, table: Table) -> dict[str, int]:
    found: dict[str, int] = {}
    last: str | None = None
    while True:
        page = await session.fetch(table.hashed_page, last)
        found.update((row[0], row[1]) for row in page)
        if len(page) < HASHED:
            return found
        last = page[-1][0]


async def _hash_some(session: Session, table: Table, ids: set[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for some in _in_pages(table, ids):
        found.update((row[0], row[1]) for row in await session.fetch(table.hashed_some, some))
    return found


async def _fingerprint(session: Session, table: Table) -> tuple[int, int]:
    count = digest = 0
    last: str | None = None
    while True:
        ((number, combined, last),) = await session.fetch(table.fingerprint, last)
        count, digest = count + number, digest ^ combined
        if number < HASHED:
            return count, digest


def _in_pages(table: Table, ids: set[str]) -> Iterator[list[str]]:
    """Those that can be ids of this table."""
    known = [identity for identity in ids if (_is_uuid(identity) if table.key == "uuid" else "\0" not in identity)]
    return (known[at : at + PAGE] for at in range(0, len(known), PAGE))


def _rows(table: Table, page: Iterable[Any]) -> Iterator[tuple[str, Row]]:
    """Each row by its id; one whose JSON is beyond what can be read or written is left out."""
    kind, arrays, json = table.row, table.arrays, table.json
    for record in page:
        values = list(record)
        for at in arrays:
            values[at] = tuple(values[at])
        try:
            for at in json:
                values[at] = _json(values[at])
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):
            continue
        yield values[0], kind(*values)


def _json(text: str | None) -> Any:
    if text is None:
        return None
    value = orjson.loads(text)
    if text.count("[") + text.count("{") > _BRACKETS:
        orjson.dumps([[[[value]]]])
    return value


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
