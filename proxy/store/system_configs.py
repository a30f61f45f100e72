"""Settings that are changed at run time: set, unset and listed by an operator. `session` is one of
`accounts.administration`.

Owns rows of `system_configs`, and that none changes without a row of the audit trail in the same transaction, which
holds the old value and the new one. Which settings there are, and what a value means, is for those who call.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from proxy.identity.uuid7 import RecordIds
from proxy.store import tenants
from proxy.store.accounts import Rejected, note
from proxy.store.database import Session

Audit = Callable[[Session, dict[str, Any]], Awaitable[object]]
"""Adds a record, shaped as in the spool, to the audit trail, in the transaction of the session."""

#: Infinite times, which Python has not, end where the registry's do.
_LIST: Final = """\
/* system_configs.list */ SELECT t.slug AS tenant, t.status = 'active' AS served, c.key, c.value::text AS value,
c.description AS reason, coalesce(c.changed_by, c.updated_by) AS changed_by,
greatest(timestamptz '0002-01-01 00:00Z', least(timestamptz '9999-01-01 00:00Z', c.updated_at)) AS changed_at
FROM system_configs AS c JOIN tenants AS t ON t.id = c.tenant_id
WHERE $1::text IS NULL OR t.slug = $1 ORDER BY t.slug <> 'system', t.slug, c.key"""
_FIND: Final = "/* system_configs.find */ SELECT value::text FROM system_configs WHERE tenant_id = $1 AND key = $2"
_PUT: Final = """\
/* system_configs.put */ INSERT INTO system_configs (tenant_id, key, value, description, changed_by)
VALUES ($1, $2, $3::jsonb, $4, $5) ON CONFLICT (tenant_id, key) DO UPDATE
SET value = excluded.value, description = excluded.description, changed_by = excluded.changed_by, updated_by = NULL"""
_REMOVE: Final = "/* system_configs.remove */ DELETE FROM system_configs WHERE tenant_id = $1 AND key = $2"

_IDS: Final = RecordIds(time.time, os.urandom)
#: Characters of a value that go into the audit trail; of a longer one, its beginning.
_LONGEST: Final = 4096


@dataclass(frozen=True, slots=True)
class Stored:
    """A row."""

    tenant: str
    """Slug."""
    served: bool
    """Whether the tenant is active."""
    key: str
    value: Any
    """Decoded JSON; its text when that is beyond what can be read or written."""
    reason: str | None
    changed_by: str | None
    """Name of an operator, or id of a user."""
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """What an operator wants to have changed."""

    tenant: str
    """Slug."""
    key: str
    by: str
    """Who it is, for the audit trail."""
    reason: str | None = None


async def listed(session: Session, slug: str | None) -> list[Stored]:
    """The rows of a tenant or, for None, of all; those for everyone come first. Raises Rejected for no such tenant."""
    if slug is not None:
        await tenants.find(session, slug)
    return [Stored(**{**row, "value": _decoded(row["value"])}) for row in await session.fetch(_LIST, slug)]


async def put(
    session: Session, change: Change, value: Any, check: Callable[[Sequence[Stored]], object], audit: Audit
) -> None:
    """Set a value. `check` is given all rows as they will be, and raises Rejected for what cannot be so; Rejected is
    raised for no such tenant, too. Others who change the same tenant's settings wait."""
    tenant = await tenants.find(session, change.tenant)
    old = await session.fetch_value(_FIND, tenant.id, change.key)
    await session.execute(
        _PUT, tenant.id, change.key, orjson.dumps(value).decode(), change.reason, change.by
    )  # fmt: skip
    check(await listed(session, None))
    values = {"old": _told(old), "new": value}
    await _tell(session, tenant, change, "config.set", values, audit)


async def remove(session: Session, change: Change, audit: Audit) -> None:
    """Let the file decide again. Raises Rejected where nothing is set."""
    tenant = await tenants.find(session, change.tenant)
    old = await session.fetch_value(_FIND, tenant.id, change.key)
    if old is None:
        raise Rejected("no row sets this; 'mcp-manager config show --effective' shows where values come from")
    await session.execute(_REMOVE, tenant.id, change.key)
    await _tell(session, tenant, change, "config.unset", {"old": _told(old)}, audit)


def _decoded(text: str) -> Any:
    try:
        value = orjson.loads(text)
        orjson.dumps([[[[value]]]])
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return text
    return value


def _told(text: str | None) -> Any:
    """For the audit trail, which holds no more of a value than anyone reads."""
    if text is None:
        return None
    return _decoded(text) if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


async def _tell(
    session: Session, tenant: tenants.Tenant, change: Change, action: str, values: dict[str, Any], audit: Audit
) -> None:
    moment = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    arguments = {**values, "reason": change.reason} if change.reason else values
    await audit(
        session,
        {
            "kind": "outcome", "id": _IDS.text(), "timestamp": moment, "tenant_id": str(tenant.id),
            "tenant": tenant.slug, "source": "command line", "principal": change.by, "rpc_method": action,
            "target_kind": "setting", "target": change.key, "outcome": "ok", "risk": "medium", "arguments": arguments,
        },
    )  # fmt: skip
    await note(session, tenant.id, "setting_changed", "A setting was changed at run time", {"key": change.key})
