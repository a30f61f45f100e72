"""Rows of the database that say who may do what, as plain values; field names are those of the columns.

Owns the shapes, how whatever read a row becomes one of them, and what a rotation does to a row. Times are aware
datetimes, ids are text, '' stands for NULL. No record holds a credential that could be used: tokens come as their
SHA-256 (the query computes that of a session's), secrets as keyed hashes, and both stay out of every repr.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Literal

from proxy.identity.keys import Minted

#: The tenant that owns what concerns all tenants: shared servers, and rules for everyone.
SYSTEM_TENANT: Final = "00000000-0000-0000-0000-000000000000"
#: Tag of its rows of `mcp_servers` that only stand for a server of the configuration file: other tables refer to them.
FILE_TAG: Final = "configuration-file"


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """`tenants`."""

    id: str
    slug: str
    status: str = "active"
    """Only `active` tenants are served."""


@dataclass(frozen=True, slots=True)
class UserRecord:
    """`user` of Better-Auth, with the columns of its admin plugin and the home tenant."""

    id: str
    tenant_id: str = ""
    role: str | None = None
    """Several are joined by commas."""
    banned: bool | None = None
    ban_expires: datetime | None = None
    """None: a ban has no end."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """`enhanced_api_keys`."""

    id: str
    """The 12 characters of the key's text."""
    secret_hmac: bytes = field(repr=False)
    pepper_version: int
    tenant_id: str
    user_id: str = ""
    tier: str = "user"
    scopes: tuple[str, ...] = ()
    allowed_ips: tuple[str, ...] = ()
    """Addresses and networks; none: from anywhere."""
    allowed_origins: tuple[str, ...] = ()
    """None: with any `Origin`, or without one."""
    allowed_servers: tuple[str, ...] = ()
    """Patterns; none: every server of the tenant."""
    allowed_tools: tuple[str, ...] = ()
    """Patterns; none: every tool."""
    requests_per_minute: int | None = None
    burst: int | None = None
    not_before: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    rotated_from: str = ""
    """Id of the key that this one replaces."""


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """`api_keys` (legacy) and `api_tokens`: opaque texts."""

    table: Literal["api_keys", "api_tokens"]
    id: str
    token_hash: bytes = field(repr=False)
    """`key_hash` or `token_hash`: SHA-256 of the text."""
    tenant_id: str
    user_id: str = ""
    scopes: tuple[str, ...] = ()
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """`session` of Better-Auth. Its tenant is the user's."""

    id: str
    token_hash: bytes = field(repr=False)
    """SHA-256 of `token`."""
    user_id: str
    expires_at: datetime
    impersonated_by: str = ""
    """Id of the administrator who acts as the user."""


@dataclass(frozen=True, slots=True)
class AccessRule:
    """`server_access_control`: allows or denies servers, or tools of servers, to someone, perhaps at some time."""

    id: str
    tenant_id: str
    effect: Literal["allow", "deny"]
    server_id: str = ""
    """Id of the server; '' for all."""
    subject_type: Literal["everyone", "role", "user", "api_key", "anonymous"] = "everyone"
    subject_id: str = ""
    tools: tuple[str, ...] = ()
    """Patterns; none: everything of the server."""
    priority: int = 0
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    daily_from: str = ""
    """`HH:MM`, included; `daily_until` is excluded. The window may pass midnight; '' for a day's begin and end."""
    daily_until: str = ""
    days_of_week: tuple[int, ...] = ()
    """1 Monday to 7 Sunday, of the day on which the window began; none: every day."""
    time_zone: str = "UTC"
    is_enabled: bool = True


Record = TenantRecord | UserRecord | KeyRecord | TokenRecord | SessionRecord
"""What a directory is made of."""

_RECORDS: Final = MappingProxyType(
    {
        "tenants": TenantRecord,
        "user": UserRecord,
        "enhanced_api_keys": KeyRecord,
        "api_keys": TokenRecord,
        "api_tokens": TokenRecord,
        "session": SessionRecord,
    }
)
TABLES: Final = frozenset(_RECORDS)
"""The tables whose rows are records."""


def record_of(table: str, row: object) -> Record:
    """The record of a row of one of `TABLES`: any object with attributes that are named as the columns."""
    kind: type[Record] = _RECORDS[table]
    if kind is not TokenRecord:
        return kind(**_columns(kind, row))
    digest = getattr(row, "key_hash" if table == "api_keys" else "token_hash")
    return TokenRecord(**{**_columns(kind, row), "table": table, "token_hash": digest})


def rule_of(row: object) -> AccessRule:
    """The rule of a row of `server_access_control`."""
    return AccessRule(**_columns(AccessRule, row))


def _columns(kind: type[Record | AccessRule], row: object) -> dict[str, Any]:
    """The values of a row without NULLs: these are the defaults."""
    values = ((column.name, getattr(row, column.name, None)) for column in fields(kind))
    return {name: value for name, value in values if value is not None}


def rotated(record: KeyRecord, minted: Minted, until: datetime) -> tuple[KeyRecord, KeyRecord]:
    """The key as it goes on with a new id and secret, and the old one, which is good up to `until` at the latest."""
    fresh = replace(
        record,
        id=minted.id,
        secret_hmac=minted.secret_hmac,
        pepper_version=minted.pepper_version,
        rotated_from=record.id,
    )
    ends = until if record.expires_at is None else min(until, record.expires_at)
    return fresh, replace(record, expires_at=ends)
