"""Registered MCP servers: added, listed, disabled and enabled by an operator. `session` is one of
`accounts.administration`.

Owns rows of `mcp_servers`, but not what their values mean: who adds one has checked it. A row with the tag
`configuration-file` only stands for a server of the configuration file; one that is added takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from proxy.identity.records import FILE_TAG
from proxy.store import tenants
from proxy.store.accounts import Rejected, note
from proxy.store.database import Session

ADDED: Final = "added"
SAME: Final = "there already"
TAKEN: Final = "skipped: another server of this name is there"

_FIND: Final = """\
/* servers.find */ SELECT id, endpoint_url, transport_type, headers, options, is_enabled, tags FROM mcp_servers
WHERE tenant_id = $1 AND name = $2 FOR UPDATE"""
_ADD: Final = f"""\
/* servers.add */ INSERT INTO mcp_servers (tenant_id, name, endpoint_url, transport_type, headers, options, is_enabled)
VALUES ($1, $2, $3, $4, $5::jsonb, $6::jsonb, $7)
ON CONFLICT (tenant_id, name) DO UPDATE SET endpoint_url = EXCLUDED.endpoint_url,
transport_type = EXCLUDED.transport_type, headers = EXCLUDED.headers, options = EXCLUDED.options,
is_enabled = EXCLUDED.is_enabled, tags = array_remove(mcp_servers.tags, '{FILE_TAG}')
WHERE '{FILE_TAG}' = ANY (mcp_servers.tags) RETURNING id"""  # noqa: S608 - a constant
_COUNT: Final = "/* servers.count */ SELECT count(*) FROM mcp_servers WHERE tenant_id = $1"
_LIST: Final = """\
/* servers.list */ SELECT s.id, t.slug AS tenant, s.name, s.endpoint_url AS url, s.transport_type AS transport,
s.is_enabled AS enabled, s.health_status AS health,
ARRAY(SELECT jsonb_object_keys(s.headers) ORDER BY 1) AS headers, s.options,
s.tags, s.created_at
FROM mcp_servers AS s JOIN tenants AS t ON t.id = s.tenant_id
WHERE $1::text IS NULL OR t.slug = $1 ORDER BY t.slug, s.name"""
_ENABLE: Final = "/* servers.enable */ UPDATE mcp_servers SET is_enabled = $2 WHERE id = $1"


@dataclass(frozen=True, slots=True)
class NewServer:
    """Columns of a row of `mcp_servers`."""

    name: str
    endpoint_url: str = field(repr=False)
    transport_type: str = "streamable_http"
    headers: dict[str, Any] = field(default_factory=dict, repr=False)
    options: dict[str, Any] = field(default_factory=dict)
    is_enabled: bool = True


async def add(session: Session, slug: str, wanted: Sequence[NewServer]) -> list[str]:
    """Add servers to a tenant; says ADDED, SAME or TAKEN of each. Raises Rejected when that are too many."""
    tenant = await tenants.find(session, slug)
    outcomes = [await _add(session, tenant, server) for server in wanted]
    if ADDED not in outcomes:
        return outcomes
    if tenant.max_servers is not None and await session.fetch_value(_COUNT, tenant.id) > tenant.max_servers:
        raise Rejected(f"this tenant may have {tenant.max_servers} servers, and that would be more")
    names = [server.name for server, outcome in zip(wanted, outcomes, strict=True) if outcome == ADDED]
    await note(session, tenant.id, "servers_added", "Servers were registered", {"names": names})
    return outcomes


async def _add(session: Session, tenant: tenants.Tenant, server: NewServer) -> str:
    values = (server.endpoint_url, server.transport_type, server.headers, server.options, server.is_enabled)
    written = [orjson.dumps(value).decode() if isinstance(value, dict) else value for value in values]
    if await session.fetch_value(_ADD, tenant.id, server.name, *written) is not None:
        return ADDED
    row = await session.fetch_row(_FIND, tenant.id, server.name)
    if row is None:
        return TAKEN
    there = (row["endpoint_url"], row["transport_type"], orjson.loads(row["headers"]), orjson.loads(row["options"]))
    return SAME if there == values[:4] else TAKEN


async def listed(session: Session, slug: str | None) -> list[dict[str, Any]]:
    """The servers of a tenant or, for None, of all; of headers only the names. Raises Rejected for no such tenant."""
    if slug is not None:
        await tenants.find(session, slug)
    return [{**row, "options": orjson.loads(row["options"])} for row in await session.fetch(_LIST, slug)]


async def set_enabled(session: Session, slug: str, name: str, enabled: bool) -> bool:
    """Whether a server takes requests; False when nothing changed. Raises Rejected when there is none."""
    tenant = await tenants.find(session, slug)
    row = await session.fetch_row(_FIND, tenant.id, name)
    if row is None:
        raise Rejected("this tenant has no server of this name; 'mcp-manager servers list' shows them")
    if FILE_TAG in row["tags"]:
        raise Rejected("this server stands in the configuration file; change it there")
    if row["is_enabled"] == enabled:
        return False
    await session.execute(_ENABLE, row["id"], enabled)
    message = "A server was enabled" if enabled else "A server was disabled"
    await note(session, tenant.id, "server_enabled" if enabled else "server_disabled", message, {"name": name})
    return True
