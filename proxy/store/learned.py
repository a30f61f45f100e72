"""What the data plane has learned, written to PostgreSQL: what servers offer, and how often things were used.

Owns the statements. Each is one round trip for many rows, does nothing to rows that would stay as they are, and takes
its locks in the order of the key, so that replicas that write the same rows do not wait for each other in a circle.
Rows whose server or credential is gone are passed over. What is worth writing, and when, is the caller's to say. Every
session is one of the tenant that owns the rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from proxy.identity.records import FILE_TAG, SYSTEM_TENANT
from proxy.store.failures import Unusable as Unusable
from proxy.store.failures import told_apart

if TYPE_CHECKING:
    from proxy.store.pool import Session

#: Rows of one statement: some milliseconds, far from any deadline.
MOST_ROWS: Final = 1000

Offer = Mapping[str, object]
"""Column -> value; JSON is text, a column that is absent is null."""
OfferTable = Literal["server_tools", "server_resources", "server_prompts"]
KeyTable = Literal["enhanced_api_keys", "api_keys", "api_tokens"]

#: Columns with their types; the first is the key within a server.
_COLUMNS: Final[Mapping[OfferTable, Mapping[str, str]]] = {
    "server_tools": {
        "name": "text", "title": "text", "description": "text", "input_schema": "jsonb", "output_schema": "jsonb",
        "annotations": "jsonb",
    },
    "server_resources": {
        "uri_template": "text", "is_template": "boolean", "name": "text", "title": "text", "description": "text",
        "mime_type": "text", "size_bytes": "bigint",
    },
    "server_prompts": {"name": "text", "title": "text", "description": "text", "arguments": "jsonb"},
}  # fmt: skip
_KEY: Final = {table: next(iter(columns)) for table, columns in _COLUMNS.items()}


class Use(NamedTuple):
    """How often a tool, resource or prompt was used since the last time."""

    server_id: str
    name: str
    """Its key: the name, or the URI of a resource."""
    calls: int
    errors: int
    seconds: float
    """Of all calls together."""
    at: float
    """When it was last used, seconds since 1970."""


class KeyUse(NamedTuple):
    """How often a credential was used since the last time."""

    id: str
    calls: int
    at: float
    """When it was last used, seconds since 1970."""
    ip: str
    """Where it was last used; what is no address is not known."""


class FileServer(NamedTuple):
    """A server of the configuration file."""

    name: str
    url: str
    """Without user, query and fragment."""
    transport: str


async def _execute(session: Session, statement: str, *values: object) -> str:
    """Run a statement. Raises Unusable for its values, Unavailable when somebody else was faster or no table is there
    yet."""
    with told_apart():
        return await session.execute(statement, *values)


# --- what servers offer ---------------------------------------------------------------------------------------------


def _offering(table: OfferTable) -> str:
    """Adds what is new and brings up to date what differs. $1 is the server, then follows an array per column."""
    columns, key = _COLUMNS[table], _KEY[table]
    names = ", ".join(columns)
    arrays = ", ".join(
        f"${number}::{'text' if kind == 'jsonb' else kind}[]" for number, kind in enumerate(columns.values(), 2)
    )
    others = [name for name in columns if name != key]
    before, after = (", ".join(f"{side}.{name}" for name in others) for side in ("t", "excluded"))
    return f"""/* learned.{table} */ INSERT INTO {table} AS t (tenant_id, server_id, {names})
        SELECT s.tenant_id, s.id, {", ".join(f"n.{name}::{kind}" for name, kind in columns.items())}
        FROM mcp_servers AS s, unnest({arrays}) AS n ({names}) WHERE s.id = $1::uuid ORDER BY n.{key}
        ON CONFLICT (server_id, {key}) DO UPDATE
        SET ({", ".join(others)}) = ROW ({after}), is_available = true, last_seen_at = now()
        WHERE ({before}) IS DISTINCT FROM ({after}) OR NOT t.is_available OR t.last_seen_at < now() - interval '30 min'
        """  # noqa: S608 - names of our own


_OFFERING: Final = {table: _offering(table) for table in _COLUMNS}
_GONE: Final = {
    table: f"""/* learned.{table}_gone */ UPDATE {table} SET is_available = false
        WHERE server_id = $1::uuid AND is_available AND NOT {key} = ANY ($2::text[])
        {"AND is_template = $3" if "is_template" in _COLUMNS[table] else ""}"""  # noqa: S608
    for table, key in _KEY.items()
}


async def put_offers(session: Session, table: OfferTable, server_id: str, offers: Sequence[Offer]) -> None:
    """Add or bring up to date what a server offers. Raises Unusable, and as `Session.execute`."""
    unique = list({offer[_KEY[table]]: offer for offer in offers}.values())
    for rows in _batches(unique):
        arrays = [[row.get(column) for row in rows] for column in _COLUMNS[table]]
        await _execute(session, _OFFERING[table], server_id, *arrays)


async def keep_offers(
    session: Session, table: OfferTable, server_id: str, names: Collection[str], template: bool = False
) -> None:
    """Mark what a server no longer offers: all but `names`, of resources only templates or only the others."""
    of_kind = (template,) if table == "server_resources" else ()
    await _execute(session, _GONE[table], server_id, list(names), *of_kind)


# --- how often things were used -------------------------------------------------------------------------------------

#: Only tools have a moving average: each call weighs a tenth, a hundred calls leave nothing of what was before.
_AVERAGE: Final[Mapping[str, str]] = {
    "server_tools": """avg_duration_ms = CASE WHEN t.avg_duration_ms IS NULL THEN n.mean_ms
            ELSE n.mean_ms + (t.avg_duration_ms - n.mean_ms) * power(0.9, least(n.calls, 100)) END, """
}
_USED: Final = {
    table: f"""/* learned.{table}_used */ WITH n AS (
            SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::float8[], $6::timestamptz[])
            AS n (server_id, name, calls, errors, mean_ms, at)
        ), locked AS (
            SELECT t.id, n.calls, n.errors, n.mean_ms, n.at
            FROM {table} AS t JOIN n ON t.server_id = n.server_id AND t.{key} = n.name
            ORDER BY t.server_id, t.{key} FOR NO KEY UPDATE OF t
        )
        UPDATE {table} AS t
        SET usage_count = t.usage_count + n.calls, error_count = t.error_count + n.errors,
            {_AVERAGE.get(table, "")}last_used_at = greatest(t.last_used_at, n.at)
        FROM locked AS n WHERE t.id = n.id"""  # noqa: S608
    for table, key in _KEY.items()
}


def _key_used(table: KeyTable, key: str) -> str:
    ip = ", last_used_ip = coalesce(n.ip, t.last_used_ip)" if table == "enhanced_api_keys" else ""
    return f"""/* learned.{table}_used */ WITH locked AS (
            SELECT id FROM {table} WHERE id = ANY ($1::{key}[]) ORDER BY id FOR NO KEY UPDATE
        )
        UPDATE {table} AS t
        SET usage_count = t.usage_count + n.calls, last_used_at = greatest(t.last_used_at, n.at){ip}
        FROM locked JOIN unnest($1::{key}[], $2::bigint[], $3::timestamptz[], $4::inet[]) AS n (id, calls, at, ip)
            USING (id)
        WHERE t.id = locked.id"""  # noqa: S608


_KEY_USED: Final[Mapping[KeyTable, str]] = {
    "enhanced_api_keys": _key_used("enhanced_api_keys", "text"),
    "api_keys": _key_used("api_keys", "uuid"),
    "api_tokens": _key_used("api_tokens", "uuid"),
}


#: No row: the batch was counted before.
_CLAIM: Final = """/* learned.claim */ INSERT INTO usage_writers AS w (tenant_id, instance, batch)
    VALUES (current_setting('app.tenant')::uuid, $1::text, $2::bigint)
    ON CONFLICT (tenant_id, instance) DO UPDATE SET batch = excluded.batch WHERE w.batch < excluded.batch
    RETURNING batch"""


async def claim(session: Session, writer: str, batch: int) -> bool:
    """Whether a batch of a writer is still to be counted: in this very transaction, and then it is. Numbers only grow.
    Raises Unusable when the tenant is gone, and as `Session.execute`."""
    with told_apart():
        return bool(await session.fetch(_CLAIM, writer, batch))


async def add_uses(session: Session, table: OfferTable, uses: Sequence[Use]) -> None:
    """Count uses of tools, resources or prompts, each named once. Raises Unusable, and as `Session.execute`."""
    for rows in _batches(uses):
        await _execute(
            session,
            _USED[table],
            [use.server_id for use in rows],
            [use.name for use in rows],
            [use.calls for use in rows],
            [use.errors for use in rows],
            [1000 * use.seconds / use.calls for use in rows],
            [datetime.fromtimestamp(use.at, UTC) for use in rows],
        )


async def add_key_uses(session: Session, table: KeyTable, uses: Sequence[KeyUse]) -> None:
    """Count uses of credentials, each named once. Raises Unusable, and as `Session.execute`."""
    for rows in _batches(uses):
        await _execute(
            session,
            _KEY_USED[table],
            [use.id for use in rows],
            [use.calls for use in rows],
            [datetime.fromtimestamp(use.at, UTC) for use in rows],
            [_address(use.ip) for use in rows],
        )


# --- servers of the configuration file ------------------------------------------------------------------------------

_ENSURE: Final = f"""/* learned.ensure_rows */ INSERT INTO mcp_servers AS t
        (tenant_id, name, endpoint_url, transport_type, tags)
    SELECT '{SYSTEM_TENANT}'::uuid, n.name, n.url, n.transport, '{{{FILE_TAG}}}'::text[]
    FROM unnest($1::text[], $2::text[], $3::text[]) AS n (name, url, transport) ORDER BY n.name
    ON CONFLICT (tenant_id, name) DO UPDATE
    SET endpoint_url = excluded.endpoint_url, transport_type = excluded.transport_type, is_enabled = true
    WHERE '{FILE_TAG}' = ANY (t.tags) AND (t.endpoint_url, t.transport_type, t.is_enabled)
        IS DISTINCT FROM (excluded.endpoint_url, excluded.transport_type, true)"""  # noqa: S608
_DISABLE: Final = f"""/* learned.disable_rows */ UPDATE mcp_servers SET is_enabled = false
    WHERE is_enabled AND '{FILE_TAG}' = ANY (tags) AND NOT name = ANY ($1::text[])"""  # noqa: S608
_IDS: Final = "/* learned.row_ids */ SELECT name, id::text AS id FROM mcp_servers WHERE name = ANY ($1::text[])"


async def ensure_rows(session: Session, servers: Iterable[FileServer]) -> dict[str, str]:
    """Give every server of the configuration file a row, and disable the rows of those that are no longer in it.

    `session` is of the system tenant. Returns name -> id, also of rows that were made in another way: those stay as
    they are. Raises Unusable, and as `Session.execute`.
    """
    unique = list({server.name: server for server in servers}.values())
    for rows in _batches(unique):
        await _execute(
            session,
            _ENSURE,
            [server.name for server in rows],
            [server.url for server in rows],
            [server.transport for server in rows],
        )
    names = [server.name for server in unique]
    await _execute(session, _DISABLE, names)
    return {row["name"]: row["id"] for row in await session.fetch(_IDS, names)}


# --- small things ---------------------------------------------------------------------------------------------------


def _batches(rows: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (rows[start : start + MOST_ROWS] for start in range(0, len(rows), MOST_ROWS))


def _address(text: str) -> str | None:
    try:
        return str(ip_address(text.partition("%")[0]))  # PostgreSQL knows no zones
    except ValueError:
        return None
