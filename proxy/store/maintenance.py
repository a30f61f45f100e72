"""Maintenance windows: planned, listed and ended by an operator. `session` is one of `accounts.administration`.

Owns rows of `maintenance_windows`, but not when one that comes back is. A server is named as in its tenant; None stands
for all servers of the tenant, and of the system tenant for those of everyone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from proxy.store import tenants
from proxy.store.accounts import Rejected, note
from proxy.store.database import Session

_FIND: Final = "/* maintenance.server */ SELECT id FROM mcp_servers WHERE tenant_id = $1 AND name = $2"
_ADD: Final = """\
/* maintenance.add */ INSERT INTO maintenance_windows (tenant_id, server_id, title, starts_at, ends_at, drain_s)
VALUES ($1, $2, $3, coalesce($4, now()), coalesce($4, now()) + $5, $6) RETURNING id, starts_at, ends_at"""
#: What has begun is over now, and stays to be seen; what has not, and a series, is called off.
_END: Final = """\
/* maintenance.end */ UPDATE maintenance_windows SET
status = CASE WHEN starts_at < now() AND recurrence IS NULL THEN 'completed' ELSE 'cancelled' END,
ends_at = CASE WHEN starts_at < now() AND recurrence IS NULL THEN least(ends_at, now()) ELSE ends_at END
WHERE status IN ('scheduled', 'active') AND ends_at > now()"""
_END_ONE: Final = f"{_END} AND id = $1 RETURNING id, tenant_id"
_END_OF_SERVER: Final = f"""{_END} AND tenant_id = $1 AND server_id IS NOT DISTINCT FROM $2 AND starts_at <= now()
AND recurrence IS NULL RETURNING id, tenant_id"""
#: Infinite times, which Python has not, end where the registry's do.
_LIST: Final = """\
/* maintenance.list */ SELECT w.id::text, t.slug AS tenant, s.name AS server, w.title, w.drain_s, w.recurrence,
w.status, greatest(timestamptz '0002-01-01 00:00Z', w.starts_at) AS starts_at,
least(timestamptz '9999-01-01 00:00Z', w.ends_at) AS ends_at
FROM maintenance_windows AS w JOIN tenants AS t ON t.id = w.tenant_id LEFT JOIN mcp_servers AS s ON s.id = w.server_id
WHERE w.status IN ('scheduled', 'active') AND w.ends_at > now() AND ($1::text IS NULL OR t.slug = $1)
ORDER BY w.starts_at, w.id"""


@dataclass(frozen=True, slots=True)
class NewWindow:
    """Columns of a row of `maintenance_windows`."""

    title: str
    length: timedelta
    drain_s: float = 30.0
    begins_at: datetime | None = None
    """None: now, by the clock of PostgreSQL."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A window that is not over."""

    id: str
    tenant: str
    """Slug."""
    server: str | None
    """None: every server of the tenant, or of everyone."""
    title: str
    drain_s: float
    recurrence: str | None
    status: str
    starts_at: datetime
    ends_at: datetime


async def add(session: Session, slug: str, server: str | None, wanted: NewWindow) -> dict[str, Any]:
    """Plan a window; its `id`, `starts_at` and `ends_at`. Raises Rejected for no such server."""
    tenant = await tenants.find(session, slug)
    found = await _find(session, tenant, server)
    row = await session.fetch_row(_ADD, tenant.id, found, wanted.title, wanted.begins_at, wanted.length, wanted.drain_s)
    assert row is not None  # noqa: S101 - an INSERT returns its row
    details = {"id": str(row["id"]), "server": server, "title": wanted.title, "ends_at": row["ends_at"].isoformat()}
    await note(session, tenant.id, "maintenance_planned", "A maintenance window was planned", details)
    return dict(row)


async def end_of_server(session: Session, slug: str, server: str | None) -> int:
    """End what is under way at a tenant's server and does not come back; how many. Raises Rejected for none."""
    tenant = await tenants.find(session, slug)
    found = await _find(session, tenant, server)
    count = await _ended(session, _END_OF_SERVER, tenant.id, found)
    if not count:
        raise Rejected(
            "no window is under way for this server, or for all, as you asked; those to come, and those that come back,"
            " are ended by their id: 'mcp-manager maintenance list' shows it"
        )
    return count


async def end(session: Session, window: UUID) -> None:
    """End a window that is under way, or call off one to come, or one that comes back. Raises Rejected."""
    if not await _ended(session, _END_ONE, window):
        raise Rejected("no window of this id is under way or to come; 'mcp-manager maintenance list' shows them")


async def _ended(session: Session, statement: str, *values: object) -> int:
    rows = await session.fetch(statement, *values)
    for row in rows:
        await note(
            session, row["tenant_id"], "maintenance_stopped", "A maintenance window was ended", {"id": str(row["id"])}
        )
    return len(rows)


async def _find(session: Session, tenant: tenants.Tenant, name: str | None) -> UUID | None:
    if name is None:
        return None
    found = await session.fetch_value(_FIND, tenant.id, name)
    if found is None:
        raise Rejected(
            "there is no server of this name; 'mcp-manager servers list' shows them, those of the configuration file"
            " once a proxy has run with it"
        )
    return UUID(str(found))


async def listed(session: Session, slug: str | None) -> list[Planned]:
    """The windows of a tenant or, for None, of all: under way or to come. Raises Rejected for no such tenant."""
    if slug is not None:
        await tenants.find(session, slug)
    return [Planned(**row) for row in await session.fetch(_LIST, slug)]
