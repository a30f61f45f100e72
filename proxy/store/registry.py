"""Reads the registry: everything at one moment, and later only the rows of which a notice came.

Owns the queries, and how rows become plain values (`rows.py`). It decides nothing: what a row means, whether it is in
force and what is merged over the configuration is for whoever builds the snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

import orjson

from proxy.store import rows
from proxy.store.rows import Row

if TYPE_CHECKING:
    from proxy.store.pool import Session

Registry = Mapping[str, Mapping[str, Row]]
"""Table name -> id -> row, for every table of `TABLES`."""

#: Rows of one query: a page takes a few milliseconds, far from any deadline.
_PAGE: Final = 2000
_JSON: Final = frozenset(("headers", "options", "conditions", "target_servers", "rules", "value"))
_UUID: Final = frozenset(("tenant_id", "server_id"))
_CLOCK: Final = frozenset(("daily_from", "daily_until"))


@dataclass(frozen=True, slots=True)
class Table:
    """How one table is read."""

    name: str
    row: type[Row]
    key: Literal["uuid", "text"]
    """Type of the column `id`."""
    page: str
    """Query for the rows after an id, in order."""
    some: str
    """Query for the rows with given ids."""


def _table(
    name: str, row: type[Row], key: Literal["uuid", "text"] = "uuid", *, where: str = "true", **given: str
) -> Table:
    """`where` says which rows count; `given` writes columns in another way than by their name."""
    columns = ", ".join(given.get(column.name) or _expression(column.name) for column in fields(row))
    select = f'SELECT {columns} FROM "{name}" AS t WHERE ({where})'  # noqa: S608 - names of our own
    return Table(
        name, row, key,
        f"/* registry.page */ {select} AND ($1::text IS NULL OR t.id > $1::{key}) ORDER BY t.id LIMIT {_PAGE}",
        f"/* registry.some */ {select} AND t.id = ANY ($1::text[]::{key}[])",
    )  # fmt: skip


def _expression(column: str) -> str:
    """SQL for a column of this name; the same name means the same everywhere."""
    if column == "id" or column in _UUID:
        return f't."{column}"::text'
    if column in _CLOCK:
        return f"to_char(t.{column}, 'HH24:MI')"
    return f't."{column}"'


TABLES: Final = {
    table.name: table
    for table in (
        _table("tenants", rows.TenantRow),
        # The front end made these two, perhaps without the columns of Better-Auth's admin plugin.
        _table(
            "user", rows.UserRow, "text", banned="coalesce((to_jsonb(t)->>'banned')::boolean, false)",
            ban_expires="(to_jsonb(t)->>'ban_expires')::timestamptz",
        ),
        _table(
            "session", rows.SessionRow, "text", where="t.expires_at > now()",
            token_hash="sha256(convert_to(t.token, 'UTF8'))", impersonated_by="to_jsonb(t)->>'impersonated_by'",  # noqa: S106
        ),
        _table("mcp_servers", rows.ServerRow),
        _table("routing_rules", rows.RouteRow),
        _table("server_access_control", rows.AccessRow),
        _table("enhanced_api_keys", rows.KeyRow, "text", allowed_ips="t.allowed_ips::text[]"),
        _table("api_keys", rows.LegacyKeyRow),
        _table("api_tokens", rows.TokenRow),
        _table("rate_limit_configs", rows.LimitRow),
        _table("feature_flags", rows.FlagRow),
        _table("maintenance_windows", rows.MaintenanceRow, where="t.ends_at > now()"),
        _table("system_configs", rows.SettingRow),
    )
}  # fmt: skip
"""Every table of the registry, by name."""


async def read_everything(session: Session) -> Registry:
    """The whole registry; `session` should be of `Database.snapshot()`. Raises as `Session.fetch`."""
    return {name: await _read_table(session, table) for name, table in TABLES.items()}


async def read_changes(session: Session, changed: Iterable[tuple[str, str]]) -> Registry:
    """The rows named by (table, id) pairs; rows that are gone are absent, id '' stands for the whole table.

    Tables that are not of the registry, and ids that cannot be ids, are passed over. Raises as `Session.fetch`.
    """
    wanted: dict[str, set[str]] = {}
    for name, identity in changed:
        if name in TABLES:
            wanted.setdefault(name, set()).add(identity)
    return {
        name: await (_read_table(session, TABLES[name]) if "" in ids else _read_some(session, TABLES[name], ids))
        for name, ids in wanted.items()
    }


def merged(registry: Registry, changed: Iterable[tuple[str, str]], read: Registry) -> Registry:
    """A new registry: `registry` with the rows that `read_changes` read for `changed`. Untouched tables are shared."""
    copies: dict[str, dict[str, Row]] = {}
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


async def _read_table(session: Session, table: Table) -> dict[str, Row]:
    found: dict[str, Row] = {}
    last: str | None = None
    while True:
        page = [_row(table.row, record) for record in await session.fetch(table.page, last)]
        found.update((row.id, row) for row in page)
        if len(page) < _PAGE:
            return found
        last = page[-1].id


async def _read_some(session: Session, table: Table, ids: set[str]) -> dict[str, Row]:
    known = [identity for identity in ids if table.key == "text" or _is_uuid(identity)]
    return {row.id: row for row in (_row(table.row, record) for record in await session.fetch(table.some, known))}


def _row(kind: type[Row], record: Any) -> Row:
    return kind(*(_plain(field.name, value) for field, value in zip(fields(kind), record, strict=True)))


def _plain(column: str, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return orjson.loads(value) if column in _JSON and value is not None else value


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
