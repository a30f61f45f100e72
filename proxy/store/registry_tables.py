"""The tables of the registry: which columns are read of each, and the statements that read them, or hash them.

Owns the SQL. Who runs a statement, and what becomes of its rows, is `registry.py`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Literal

from proxy.store import rows
from proxy.store.rows import Row

#: Rows of one query: a page takes a few milliseconds of ours, and is far from any deadline.
PAGE: Final = 1000
#: Rows that one query takes the hashes of, at 2 or 3 us each.
HASHED: Final = 20_000
_JSON: Final = frozenset(("headers", "options", "conditions", "target_servers", "costs", "rules", "variants", "value"))
_UUID: Final = frozenset(("tenant_id", "server_id"))
_CLOCK: Final = frozenset(("daily_from", "daily_until"))
_TIME: Final = frozenset((
    "expires_at", "revoked_at", "not_before", "valid_from", "valid_until", "starts_at", "ends_at", "ban_expires",
    "updated_at",
))  # fmt: skip


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
    hashed_page: str
    """The same two, for ids and hashes."""
    hashed_some: str
    fingerprint: str
    """Query for number, hashes and last id of the rows after an id."""
    arrays: tuple[int, ...]
    """Positions of the columns that are arrays, and of those that are JSON."""
    json: tuple[int, ...]


def _table(
    name: str, row: type[Row], key: Literal["uuid", "text"] = "uuid", *, where: str = "true", **given: str
) -> Table:
    """`where` says which rows count; `given` writes columns in another way than by their name.

    The hash is over text, and so over every bit of it: record hashes are sums, in which two rows that swap a value
    cancel out. It is taken of a page that is cut already, because the planner may sort what it has computed.
    """
    names = [column.name for column in fields(row)]
    columns = ", ".join(_expression(column, given.get(column, f't."{column}"')) for column in names)
    counted = f'"{name}" AS t WHERE ({where})'
    after = f"{counted} AND ($1::text IS NULL OR t.id > $1::{key}) ORDER BY t.id LIMIT"
    some = f"FROM {counted} AND t.id = ANY ($1::text[]::{key}[])"
    digest = f"hashtextextended(ROW({columns})::text, 0)"
    last = 't.id::text COLLATE "C"' if key == "uuid" else "t.id"
    page = f"FROM (SELECT * FROM {after} {HASHED}) AS t"  # noqa: S608 - names of our own, like all below
    return Table(
        name, row, key,
        page=f"/* registry.page */ SELECT {columns} FROM {after} {PAGE}",  # noqa: S608
        some=f"/* registry.some */ SELECT {columns} {some}",
        hashed_page=f"/* registry.hashes */ SELECT t.id::text, {digest} {page} ORDER BY t.id",
        hashed_some=f"/* registry.hashes_of */ SELECT t.id::text, {digest} {some}",
        fingerprint=f"/* registry.fingerprint */ SELECT count(*), coalesce(bit_xor({digest}), 0), max({last}) {page}",
        arrays=tuple(at for at, column in enumerate(fields(row)) if str(column.type).startswith("tuple")),
        json=tuple(at for at, column in enumerate(names) if column in _JSON),
    )  # fmt: skip


def _expression(column: str, given: str) -> str:
    """SQL for a column of this name; the same name means the same everywhere.

    Times end where Python's do, a year before: others, and infinite ones, would break the reading of all.
    """
    if column == "id" or column in _UUID:
        return f"{given}::text"
    if column in _CLOCK:
        return f"to_char({given}, 'HH24:MI')"
    if column in _TIME:
        earliest, latest = (f"timestamptz '{year}-01-01 00:00Z'" for year in ("0002", "9999"))
        return f"CASE WHEN {given} IS NOT NULL THEN greatest({earliest}, least({latest}, {given})) END"
    return given


TABLES: Final = {
    table.name: table
    for table in (
        _table("tenants", rows.TenantRow),
        # The front end made these two, perhaps without the columns of Better-Auth's admin plugin.
        _table(
            "user", rows.UserRow, "text", banned="coalesce((to_jsonb(t)->>'banned')::boolean, false)",
            ban_expires="(to_jsonb(t)->>'ban_expires')::timestamptz",
        ),
        # What is over leaves by the hour: then, and not with every moment, does a fingerprint change.
        _table(
            "session", rows.SessionRow, "text", where="t.expires_at > date_trunc('hour', now())",
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
        _table("maintenance_windows", rows.MaintenanceRow, where="t.ends_at > date_trunc('hour', now())"),
        _table("breaker_orders", rows.BreakerOrderRow),
        _table("system_configs", rows.SettingRow),
    )
}  # fmt: skip
"""Every table of the registry, by name."""
