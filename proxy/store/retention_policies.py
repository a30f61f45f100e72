"""Policies of how long rows are kept: read by a run, set and taken back by an operator.

Owns the rows of `data_retention_policies`; what they mean is known elsewhere. Who changes them has a session of
`accounts.administration`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from proxy.store import tenants
from proxy.store.accounts import Rejected, note
from proxy.store.database import Session

_LIST: Final = """/* retention_policies.listed */ SELECT p.table_name AS table, p.tenant_id::text, t.slug AS tenant,
        p.retention_days AS days, p.archive, p.batch_size AS batch, p.is_enabled AS enabled, p.last_run_at,
        p.last_deleted_count
    FROM data_retention_policies AS p JOIN tenants AS t ON t.id = p.tenant_id ORDER BY p.table_name, t.slug"""
_PUT: Final = """\
/* retention_policies.put */ INSERT INTO data_retention_policies AS p
    (tenant_id, table_name, retention_days, archive, batch_size)
VALUES ($1, $2, $3, coalesce($4, (
    SELECT w.archive FROM data_retention_policies AS w JOIN tenants AS t ON t.id = w.tenant_id
    WHERE t.slug = 'system' AND w.table_name = $2 AND w.is_enabled
), $6), coalesce($5, 10000))
ON CONFLICT (tenant_id, table_name) DO UPDATE SET retention_days = excluded.retention_days,
    archive = coalesce($4, p.archive), batch_size = coalesce($5, p.batch_size), is_enabled = true
RETURNING id, table_name, retention_days, archive, batch_size"""
_REMOVE: Final = """\
/* retention_policies.remove */ DELETE FROM data_retention_policies WHERE tenant_id = $1 AND table_name = $2
RETURNING retention_days"""


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """A row of `data_retention_policies`."""

    table: str
    tenant_id: str
    tenant: str
    """Its slug."""
    days: int
    archive: bool
    batch: int
    enabled: bool
    last_run_at: datetime | None
    last_deleted_count: int | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A policy. None: as it is."""

    table: str
    days: int
    archive: bool | None = None
    """Of a first row, None: as it is for everyone."""
    batch: int | None = None


async def listed(session: Session) -> list[PolicyRow]:
    """All rows, in force or not."""
    return [PolicyRow(**row) for row in await session.fetch(_LIST)]


async def put(session: Session, slug: str, wanted: Wanted, *, archived: bool = False) -> dict[str, Any]:
    """Set the policy of a tenant, or with `tenants.SYSTEM` that of everyone else. `archived`: whether rows of the table
    are where no row says so. Raises Rejected."""
    tenant = await tenants.find(session, slug)
    row = await session.fetch_row(_PUT, tenant.id, wanted.table, wanted.days, wanted.archive, wanted.batch, archived)
    assert row is not None  # noqa: S101 - an INSERT returns its row
    await note(session, tenant.id, "retention_set", "A retention policy was set", asdict(wanted))
    return dict(row)


async def remove(session: Session, slug: str, table: str) -> None:
    """Take back a policy: the next wider one holds. Raises Rejected when there is none."""
    tenant = await tenants.find(session, slug)
    if await session.fetch_value(_REMOVE, tenant.id, table) is None:
        raise Rejected("there is no policy for this table; 'mcp-manager retention list' shows them")
    await note(session, tenant.id, "retention_unset", "A retention policy was removed", {"table": table})
