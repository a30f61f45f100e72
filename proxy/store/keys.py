"""API keys: made, listed, revoked, rotated and imported by an operator. `session` is one of `accounts.administration`.

Owns the rows of `enhanced_api_keys` and `api_keys`. It never sees a key: what comes here is hashed already.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from proxy.identity.keys import Minted
from proxy.identity.records import KeyRecord, rotated
from proxy.store import tenants
from proxy.store.accounts import Rejected, note
from proxy.store.database import Session

_COLUMNS: Final = tuple(column.name for column in fields(KeyRecord))
#: How a column is written, and read, where that is not by its name.
_WRITTEN: Final = {
    "user_id": "nullif({}::text, '')",
    "rotated_from": "nullif({}::text, '')",
    "tenant_id": "{}::text::uuid",
    "allowed_ips": "{}::text[]::cidr[]",
}
#: Infinite times, which Python has not, end where the registry's do.
_FINITE: Final = """CASE {0}{1} WHEN 'infinity' THEN '9999-01-01 00:00Z' WHEN '-infinity' THEN '0002-01-01 00:00Z'
ELSE {0}{1} END AS {1}"""
_READ: Final = {
    "tenant_id": "tenant_id::text",
    "allowed_ips": "allowed_ips::text[]",
    **{name: _FINITE.format("", name) for name in ("not_before", "expires_at", "revoked_at")},
}
_NOT_BEFORE, _EXPIRES_AT, _REVOKED_AT = (
    _FINITE.format("k.", name) for name in ("not_before", "expires_at", "revoked_at")
)
_PLACES: Final = ", ".join(
    _WRITTEN.get(name, "{}").format(f"${number}") for number, name in enumerate((*_COLUMNS, "name"), 1)
)
_INSERT: Final = f"""\
/* keys.create */ INSERT INTO enhanced_api_keys ({", ".join(_COLUMNS)}, name) VALUES ({_PLACES})
RETURNING created_at"""  # noqa: S608 - names of our own
_FIND: Final = f"""\
/* keys.find */ SELECT {", ".join(_READ.get(name, name) for name in _COLUMNS)}, name, now() AS now
FROM enhanced_api_keys WHERE id = $1 FOR UPDATE"""  # noqa: S608 - names of our own

_IN_FORCE: Final = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"
#: A key and the one it was rotated into count once.
_COUNT: Final = f"""\
/* keys.count */ WITH good AS (
    SELECT id, name, rotated_from FROM enhanced_api_keys WHERE tenant_id = $1 AND {_IN_FORCE})
SELECT (SELECT count(*) FROM good WHERE id NOT IN (SELECT rotated_from FROM good WHERE rotated_from IS NOT NULL))
     + (SELECT count(*) FROM api_keys WHERE tenant_id = $1 AND {_IN_FORCE}) AS keys,
       EXISTS (SELECT FROM good WHERE name = $2) AS named"""  # noqa: S608 - conditions of our own
_SUCCESSOR: Final = f"""\
/* keys.successor */ SELECT id FROM enhanced_api_keys
WHERE rotated_from = $1 AND {_IN_FORCE} LIMIT 1"""  # noqa: S608 - conditions of our own
_IS_USER: Final = '/* keys.user */ SELECT EXISTS (SELECT FROM "user" WHERE id = $1)'
_EXPIRE: Final = "/* keys.expire */ UPDATE enhanced_api_keys SET expires_at = $2 WHERE id = $1"

_STATE: Final = """\
CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked' WHEN k.expires_at <= now() THEN 'expired' {}ELSE 'in force' END
AS state"""
_LIST: Final = f"""\
/* keys.list */ SELECT k.id, t.slug AS tenant, k.name, k.user_id, k.scopes, k.tier,
{_STATE.format("WHEN k.not_before > now() THEN 'not yet valid' ")}, {_NOT_BEFORE}, {_EXPIRES_AT}, {_REVOKED_AT},
k.revoked_reason, k.rotated_from, k.allowed_ips::text[], k.allowed_origins, k.allowed_servers, k.allowed_tools,
k.requests_per_minute, k.burst, k.usage_count, k.last_used_at, k.created_at
FROM enhanced_api_keys AS k JOIN tenants AS t ON t.id = k.tenant_id
WHERE $1::text IS NULL OR t.slug = $1 ORDER BY t.slug, k.created_at, k.id"""  # noqa: S608 - conditions of our own
_LIST_LEGACY: Final = f"""\
/* keys.list_legacy */ SELECT k.id::text, t.slug AS tenant, k.name, k.user_id, k.scopes, 'legacy' AS tier,
{_STATE.format("")}, {_EXPIRES_AT}, {_REVOKED_AT}, k.usage_count, k.last_used_at, k.created_at
FROM api_keys AS k JOIN tenants AS t ON t.id = k.tenant_id
WHERE $1::text IS NULL OR t.slug = $1 ORDER BY t.slug, k.created_at, k.id"""  # noqa: S608 - conditions of our own

_REVOKE: Final = """\
/* keys.revoke */ UPDATE enhanced_api_keys SET revoked_at = coalesce(revoked_at, now()),
revoked_reason = coalesce(revoked_reason, $2) WHERE id = $1 RETURNING tenant_id, name, revoked_at < now() AS before"""
_REVOKE_LEGACY: Final = """\
/* keys.revoke_legacy */ UPDATE api_keys SET revoked_at = coalesce(revoked_at, now())
WHERE id = $1::text::uuid RETURNING tenant_id, name, revoked_at < now() AS before"""
_UUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")

_KNOWN: Final = """\
/* keys.known */ SELECT key_hash, tenant_id, revoked_at IS NOT NULL AS revoked FROM api_keys
WHERE key_hash = ANY ($1)"""
_IMPORT: Final = """\
/* keys.import */ INSERT INTO api_keys (tenant_id, name, scopes, key_hash) VALUES ($1, $2, $3, $4)
ON CONFLICT (key_hash) DO NOTHING RETURNING id"""


@dataclass(frozen=True, slots=True)
class LegacyKey:
    """A key to import."""

    name: str
    key_hash: bytes = field(repr=False)
    """SHA-256 of the key."""
    scopes: tuple[str, ...]


async def create(session: Session, slug: str, name: str, wanted: KeyRecord) -> dict[str, Any]:
    """Keep a new key of a tenant; `wanted` is complete but for its tenant. Returns the new row.

    Raises Rejected: no such tenant or user, a key in force of this name, as many keys as the tenant may have.
    """
    tenant = await tenants.find(session, slug)
    await _make_room(session, tenant, 1, name)
    if wanted.user_id and not await session.fetch_value(_IS_USER, wanted.user_id):
        raise Rejected("no user of this id")
    record = replace(wanted, tenant_id=str(tenant.id))
    made = await _insert(session, record, name)
    details = {"key": record.id, "name": name, "scopes": record.scopes}
    await note(session, tenant.id, "key_created", "An API key was made", details)
    return {"tenant": slug, **made}


async def listed(session: Session, slug: str | None) -> list[dict[str, Any]]:
    """The keys of a tenant or, for None, of all; then the legacy keys. Raises Rejected for no such tenant."""
    if slug is not None:
        await tenants.find(session, slug)
    return [dict(row) for query in (_LIST, _LIST_LEGACY) for row in await session.fetch(query, slug)]


async def revoke(session: Session, key_id: str, reason: str | None) -> bool:
    """Refuse a key, or a legacy key, from now on; False when it was revoked already. Raises Rejected for no key."""
    row = await session.fetch_row(_REVOKE, key_id, reason)
    if row is None and _UUID.fullmatch(key_id):
        row = await session.fetch_row(_REVOKE_LEGACY, key_id)
    if row is None:
        raise Rejected("no key of this id; 'mcp-manager keys list' shows them")
    if row["before"]:
        return False
    details = {"key": key_id, "name": row["name"], "reason": reason}
    await note(session, row["tenant_id"], "key_revoked", "An API key was revoked", details)
    return True


async def rotate(session: Session, key_id: str, minted: Minted, overlap: timedelta) -> dict[str, Any]:
    """Replace a key by one with a new id and secret; the old one is good for `overlap` more. Returns the new row and
    the end of the old one. Raises Rejected for a key that is not in force, or was rotated already."""
    row = await session.fetch_row(_FIND, key_id)
    if row is None:
        raise Rejected("no key of this id; 'mcp-manager keys list' shows them (legacy keys cannot be rotated)")
    columns: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    name, now = columns.pop("name"), columns.pop("now")
    record = KeyRecord(**{column: value for column, value in columns.items() if value is not None})
    await _check_rotation(session, record, now)
    fresh, ending = rotated(record, minted, now + overlap)
    made = await _insert(session, fresh, name)
    await session.execute(_EXPIRE, record.id, ending.expires_at)
    details = {"key": fresh.id, "rotated_from": record.id, "until": ending.expires_at}
    await note(session, UUID(record.tenant_id), "key_rotated", "An API key was rotated", details)
    return {**made, "rotated_from": record.id, "old_key_until": ending.expires_at}


async def _check_rotation(session: Session, record: KeyRecord, now: datetime) -> None:
    if record.revoked_at is not None or (record.expires_at is not None and record.expires_at <= now):
        raise Rejected("this key is revoked or expired; make a new one")
    if record.not_before is not None and record.not_before > now:
        raise Rejected("this key is not valid yet; revoke it and make a new one")
    successor = await session.fetch_value(_SUCCESSOR, record.id)
    if successor is not None:
        raise Rejected(f"this key was rotated already; its successor is {successor}")


async def import_legacy(session: Session, slug: str, given: Sequence[LegacyKey]) -> list[str]:
    """Keep legacy keys; says of each what became of it. Raises Rejected when there is no room for all new ones."""
    tenant = await tenants.find(session, slug)
    known = {row["key_hash"]: row for row in await session.fetch(_KNOWN, [key.key_hash for key in given])}
    new = {key.key_hash for key in given} - known.keys()
    await _make_room(session, tenant, len(new))
    outcomes = []
    for key in given:
        if key.key_hash in known:
            row = known[key.key_hash]
            outcomes.append(_known_already(row["tenant_id"] == tenant.id, row["revoked"]))
        elif await session.fetch_value(_IMPORT, tenant.id, key.name, key.scopes, key.key_hash) is None:
            outcomes.append("there already")
        else:
            outcomes.append("imported")
    imported = outcomes.count("imported")
    if imported:
        await note(session, tenant.id, "keys_imported", "Legacy API keys were imported", {"keys": imported})
    return outcomes


def _known_already(same_tenant: bool, revoked: bool) -> str:
    if not same_tenant:
        return "skipped: it is a key of another tenant"
    return "there already, and revoked" if revoked else "there already"


async def _insert(session: Session, record: KeyRecord, name: str) -> dict[str, Any]:
    values = {column: getattr(record, column) for column in _COLUMNS}
    created_at = await session.fetch_value(_INSERT, *values.values(), name)
    hidden = ("secret_hmac", "pepper_version", "tenant_id", "revoked_at")
    shown = {column: value for column, value in values.items() if column not in hidden}
    return {"id": record.id, "name": name, **shown, "created_at": created_at}


async def _make_room(session: Session, tenant: tenants.Tenant, keys: int, name: str | None = None) -> None:
    """Raise Rejected when so many more keys, or one of this name, would be too many."""
    row = await session.fetch_row(_COUNT, tenant.id, name)
    if row is None or (tenant.max_api_keys is not None and keys and row["keys"] + keys > tenant.max_api_keys):
        raise Rejected(f"this tenant may have {tenant.max_api_keys} keys in force, and that would be more")
    if row["named"]:
        raise Rejected("this tenant has a key of this name in force")
