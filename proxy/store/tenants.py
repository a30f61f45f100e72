"""Tenants: made, listed, suspended and brought back by an operator. `session` is one of `accounts.administration`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID

from proxy.store.accounts import Rejected, note
from proxy.store.database import Session

SYSTEM: Final = "system"
"""Slug of the tenant that owns what is shared."""
#: Slugs that are told when an unknown one is asked for.
_MOST_TOLD: Final = 20

_CREATE: Final = """\
/* tenants.create */ INSERT INTO tenants (slug, name, plan, max_servers, max_api_keys) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (slug) DO NOTHING RETURNING id, slug, name, status, plan, max_servers, max_api_keys, created_at"""
_LIST: Final = """\
/* tenants.list */ SELECT id, slug, name, status, plan, max_servers, max_api_keys, created_at, suspended_at
FROM tenants ORDER BY slug"""
#: NO KEY: rows that refer to the tenant can be added by others meanwhile.
_FIND: Final = """\
/* tenants.find */ SELECT id, slug, status, max_servers, max_api_keys FROM tenants WHERE slug = $1 FOR NO KEY UPDATE"""
_SLUGS: Final = "/* tenants.slugs */ SELECT slug FROM tenants ORDER BY slug LIMIT $1"
_SET_STATUS: Final = """\
/* tenants.status */ UPDATE tenants SET status = $2, suspended_at = CASE $2 WHEN 'suspended' THEN now() END
WHERE id = $1"""


@dataclass(frozen=True, slots=True)
class NewTenant:
    """Columns of a row of `tenants`."""

    slug: str
    name: str
    plan: str = "free"
    max_servers: int | None = None
    """None: no limit, like the next."""
    max_api_keys: int | None = None


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant whose row is locked until the transaction ends, so that its limits hold."""

    id: UUID
    slug: str
    status: str
    max_servers: int | None
    max_api_keys: int | None


async def create(session: Session, wanted: NewTenant) -> dict[str, Any]:
    """The new row. Raises Rejected when the slug is taken."""
    values = (wanted.slug, wanted.name, wanted.plan, wanted.max_servers, wanted.max_api_keys)
    row = await session.fetch_row(_CREATE, *values)
    if row is None:
        raise Rejected("there is a tenant of this name already")
    await note(session, row["id"], "tenant_created", "A tenant was made", asdict(wanted))
    return dict(row)


async def listed(session: Session) -> list[dict[str, Any]]:
    """Every tenant, the system's included."""
    return [dict(row) for row in await session.fetch(_LIST)]


async def find(session: Session, slug: str) -> Tenant:
    """The tenant of this slug. Raises Rejected when there is none."""
    row = await session.fetch_row(_FIND, slug)
    if row is None:
        slugs = [row["slug"] for row in await session.fetch(_SLUGS, _MOST_TOLD + 1)]
        more = ", ..." if len(slugs) > _MOST_TOLD else ""
        raise Rejected(f"no tenant of this name; there are: {', '.join(slugs[:_MOST_TOLD])}{more}")
    return Tenant(**row)


async def suspend(session: Session, slug: str) -> bool:
    """Refuse the tenant everywhere; False when it was suspended already. Raises Rejected."""
    tenant = await find(session, slug)
    if tenant.slug == SYSTEM:
        raise Rejected("the system tenant owns what all share; it cannot be suspended")
    return await _set_status(session, tenant, "suspended")


async def activate(session: Session, slug: str) -> bool:
    """Serve the tenant again; False when it was active already. Raises Rejected."""
    return await _set_status(session, await find(session, slug), "active")


async def _set_status(session: Session, tenant: Tenant, status: str) -> bool:
    if tenant.status == status:
        return False
    await session.execute(_SET_STATUS, tenant.id, status)
    details = {"slug": tenant.slug, "before": tenant.status, "after": status}
    await note(session, tenant.id, "tenant_status", "The status of a tenant was changed", details)
    return True
