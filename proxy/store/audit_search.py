"""Rows of the trail that an investigation asks for, newest first. `session` is one of `accounts.administration`.

Owns the statement and its filters, which `audit_copy.py` shares. One tenant's rows are read from the end of an index
until there are enough. Without a tenant the same is done for each that there is; rows of tenants that are gone are
found by the id of the tenant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from proxy.audit.columns import COLUMNS, NAMES
from proxy.identity.uuid7 import made_ms
from proxy.store.accounts import Rejected
from proxy.store.database import Session
from proxy.store.tenants import find

#: Rows of a call are from between the making of its id and so much later.
_EARLIEST: Final = timedelta(seconds=5)
_LATEST: Final = timedelta(days=7)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows. Texts that end in `*` stand for all that begin so."""

    since: datetime
    until: datetime
    """This moment excluded."""
    tenant: str | None = None
    """Short name or id; None: all."""
    who: str | None = None
    """`actor_id`."""
    action: str | None = None
    target: str | None = None
    """`resource_id`."""
    server: str | None = None
    outcome: str | None = None
    risk: str | None = None
    """This level or a higher one."""
    kind: str | None = None
    request: UUID | None = None


#: From the lowest.
RISKS: Final = ("low", "medium", "high", "critical")
#: Filters of `Wanted` after the times; the first parameter is number 3.
_FILTERS: Final = (
    "a.actor_id LIKE {0}::text", "a.action LIKE {0}::text", "a.resource_id LIKE {0}::text",
    "a.server_name LIKE {0}::text", "a.outcome LIKE {0}::text", "a.risk_level = ANY ({0}::text[])",
    "a.kind = {0}::text", "a.id = {0}::uuid",
)  # fmt: skip
_READABLE: Final = {
    "inet": "host(a.{0}) AS {0}",
    "bytea": "encode(a.{0}, 'hex') AS {0}",
    "uuid": "a.{0}::text",
}
_COLUMNS: Final = ", ".join(_READABLE.get(each.type, "a.{0}").format(each.name) for each in COLUMNS)
#: How many rows there are depends on the values more than on anything else.
_CUSTOM: Final = "/* audit.plan */ SELECT set_config('plan_cache_mode', 'force_custom_plan', true)"
_FIND: Final = "/* audit.tenant */ SELECT id FROM tenants WHERE slug = $1"


def conditions(wanted: Wanted, first: int) -> tuple[str, list[object]]:
    """What rows `a` have to fulfil, and the values of its parameters, of which `first` is the number of the first."""
    parts, given = [f"a.ts >= ${first}", f"a.ts < ${first + 1}"], list[object]((wanted.since, wanted.until))
    levels = RISKS[RISKS.index(wanted.risk) :] if wanted.risk is not None else None
    texts = [_like(text) for text in (wanted.who, wanted.action, wanted.target, wanted.server, wanted.outcome)]
    for form, value in zip(_FILTERS, (*texts, levels, wanted.kind, wanted.request), strict=True):
        if value is not None:
            parts.append(form.format(f"${first + len(given)}"))
            given.append(value)
    return " AND ".join(parts), given


def _like(text: str | None) -> str | None:
    """A pattern of LIKE; one without `%` is a mere comparison."""
    if text is None:
        return None
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"{escaped[:-1]}%" if text.endswith("*") else escaped


def narrowed(wanted: Wanted) -> Wanted:
    """A search for one request needs only the time around it, which its id tells: of what is wanted, as an id may tell
    a time that no clock will show."""
    begun_ms = made_ms(wanted.request) if wanted.request is not None else None
    if begun_ms is None:
        return wanted
    made, first, last = timedelta(milliseconds=begun_ms), wanted.since - _EPOCH, wanted.until - _EPOCH
    since, until = (_EPOCH + min(max(at, first), last) for at in (made - _EARLIEST, made + _LATEST))
    return replace(wanted, since=since, until=until)


async def tenant_id(session: Session, name: str) -> UUID:
    """The id of a tenant, given by its short name or by itself. Raises Rejected for a name that nobody has."""
    try:
        return UUID(name)
    except ValueError:
        found = await session.fetch_value(_FIND, name)
        if found is None:
            found = (await find(session, name)).id  # which says what names there are
        return UUID(str(found))


async def search(session: Session, wanted: Wanted, most: int) -> list[dict[str, Any]]:
    """The newest rows, at most so many: `tenant` (short name, None when it is gone) and every column but the chain;
    null ones included, JSON as text. Raises Rejected."""
    wanted = narrowed(wanted)
    await session.fetch_value(_CUSTOM)
    where, given = conditions(wanted, 2)
    if wanted.tenant is not None:
        chosen = f"SELECT ${len(given) + 2}::uuid AS id"
        given.append(await tenant_id(session, wanted.tenant))
    else:
        chosen = "SELECT id FROM tenants"
    rows = await session.fetch(
        f"/* audit.search */ SELECT t.slug AS tenant, a.* FROM ({chosen}) AS owner, LATERAL ("  # noqa: S608
        f"SELECT {_COLUMNS} FROM audit_logs AS a WHERE a.tenant_id = owner.id AND {where}"
        " ORDER BY a.ts DESC, a.id DESC LIMIT $1) AS a LEFT JOIN tenants AS t ON t.id = a.tenant_id::uuid"
        " ORDER BY a.ts DESC, a.id DESC LIMIT $1",
        most,
        *given,
    )
    return [dict(row) for row in rows]


__all__ = ["NAMES", "RISKS", "Rejected", "Wanted", "conditions", "narrowed", "search", "tenant_id"]
