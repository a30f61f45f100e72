"""Circuit breakers as an operator sees and orders them. `session` is one of `accounts.administration`.

Owns rows of `breaker_orders`: one for each server whose breakers are not left alone. Every instance hears of them and
obeys. What breakers are is in `circuit_breakers`, as each instance last said (`observations.py`).
"""

from __future__ import annotations

from typing import Any, Final, Literal
from uuid import UUID

from proxy.store import tenants
from proxy.store.accounts import Rejected, note
from proxy.store.database import Session

Order = Literal["open", "closed"]

_LIST: Final = """\
/* breaker_orders.list */ SELECT t.slug AS tenant, s.name AS server, b.instance, b.state, b.failure_count AS failures,
b.open_count AS trips, b.opened_at AS since, b.next_attempt_at AS next_attempt, b.last_failure, b.updated_at AS updated,
o.state AS ordered, o.reason, o.updated_at AS ordered_at
FROM mcp_servers AS s JOIN tenants AS t ON t.id = s.tenant_id
LEFT JOIN circuit_breakers AS b ON b.server_id = s.id LEFT JOIN breaker_orders AS o ON o.server_id = s.id
WHERE ($1::text IS NULL OR t.slug = $1) AND (b.id IS NOT NULL OR o.id IS NOT NULL)
ORDER BY t.slug, s.name, b.instance"""
#: KEY SHARE: the server cannot go away meanwhile.
_FIND: Final = "/* breaker_orders.find */ SELECT id FROM mcp_servers WHERE tenant_id = $1 AND name = $2 FOR KEY SHARE"
_GIVE: Final = """\
/* breaker_orders.give */ INSERT INTO breaker_orders (tenant_id, server_id, state, reason) VALUES ($1, $2, $3, $4)
ON CONFLICT (server_id) DO UPDATE SET state = EXCLUDED.state, reason = EXCLUDED.reason"""
_END: Final = "/* breaker_orders.end */ DELETE FROM breaker_orders WHERE server_id = $1 RETURNING state"


async def listed(session: Session, slug: str | None) -> list[dict[str, Any]]:
    """The breakers of a tenant's servers or, for None, of all: one row for each server and instance, and one for a
    server that has only an order. Raises Rejected for no such tenant."""
    if slug is not None:
        await tenants.find(session, slug)
    return [dict(row) for row in await session.fetch(_LIST, slug)]


async def give(session: Session, slug: str, name: str, order: Order, reason: str | None) -> None:
    """Order the breakers of a server to be open, or to close now; in place of the order before. Raises Rejected."""
    tenant, server = await _find(session, slug, name)
    await session.execute(_GIVE, tenant, server, order, reason)
    message = "A circuit breaker was ordered open" if order == "open" else "A circuit breaker was ordered closed"
    details = {"name": name, "reason": reason}
    await note(
        session, tenant, "breaker_ordered_open" if order == "open" else "breaker_ordered_closed", message, details
    )


async def end(session: Session, slug: str, name: str) -> bool:
    """Leave the breakers of a server to themselves; False when there was no order. Raises Rejected."""
    tenant, server = await _find(session, slug, name)
    if await session.fetch_value(_END, server) is None:
        return False
    await note(session, tenant, "breaker_released", "A circuit breaker was left to itself", {"name": name})
    return True


async def _find(session: Session, slug: str, name: str) -> tuple[UUID, UUID]:
    tenant = await tenants.find(session, slug)
    server = await session.fetch_value(_FIND, tenant.id, name)
    if server is None:
        raise Rejected(
            "there is no server of this name; 'mcp-manager servers list' shows them, those of the configuration file"
            " once a proxy has run with it"
        )
    return tenant.id, server
