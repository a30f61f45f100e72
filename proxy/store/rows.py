"""Rows of the registry as plain values: what the data plane is told of PostgreSQL. Fields are named as the columns.

Owns shapes only. Ids and tenants are text, times are aware datetimes, JSON is decoded, arrays are tuples; None is null.
No row holds a credential that could be used: tokens come as SHA-256, secrets as keyed hashes, and stay out of reprs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """What all have."""

    id: str


@dataclass(frozen=True, slots=True)
class TenantRow(Row):
    """`tenants`."""

    slug: str
    status: str
    plan: str
    fair_share_weight: float
    audit_mode: str


@dataclass(frozen=True, slots=True)
class UserRow(Row):
    """`user` of Better-Auth."""

    tenant_id: str | None
    role: str | None
    banned: bool
    """False where the front end has no such column."""
    ban_expires: datetime | None


@dataclass(frozen=True, slots=True)
class SessionRow(Row):
    """`session` of Better-Auth, while it has not expired."""

    user_id: str
    token_hash: bytes = field(repr=False)
    """SHA-256 of `token`."""
    expires_at: datetime
    impersonated_by: str | None


@dataclass(frozen=True, slots=True)
class ServerRow(Row):
    """`mcp_servers`, also those that are not enabled."""

    tenant_id: str
    name: str
    endpoint_url: str = field(repr=False)
    transport_type: str
    headers: dict[str, Any] = field(repr=False)
    options: dict[str, Any]
    tags: tuple[str, ...]
    is_enabled: bool


@dataclass(frozen=True, slots=True)
class RouteRow(Row):
    """`routing_rules`."""

    tenant_id: str
    name: str
    path: str
    priority: int
    conditions: dict[str, Any]
    target_servers: list[Any]
    load_balancing_strategy: str
    options: dict[str, Any]
    is_enabled: bool


@dataclass(frozen=True, slots=True)
class AccessRow(Row):
    """`server_access_control`."""

    tenant_id: str
    server_id: str | None
    subject_type: str
    subject_id: str | None
    effect: str
    tools: tuple[str, ...]
    priority: int
    valid_from: datetime | None
    valid_until: datetime | None
    daily_from: str | None
    """`HH:MM`, like the next."""
    daily_until: str | None
    days_of_week: tuple[int, ...]
    time_zone: str
    is_enabled: bool


@dataclass(frozen=True, slots=True)
class KeyRow(Row):
    """`enhanced_api_keys`."""

    tenant_id: str
    user_id: str | None
    scopes: tuple[str, ...]
    secret_hmac: bytes = field(repr=False)
    pepper_version: int
    tier: str
    allowed_ips: tuple[str, ...]
    """Networks, such as 10.0.0.0/8."""
    allowed_origins: tuple[str, ...]
    allowed_servers: tuple[str, ...]
    allowed_tools: tuple[str, ...]
    requests_per_minute: int | None
    burst: int | None
    not_before: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    rotated_from: str | None


@dataclass(frozen=True, slots=True)
class LegacyKeyRow(Row):
    """`api_keys`: opaque texts, found by their SHA-256."""

    tenant_id: str
    user_id: str | None
    scopes: tuple[str, ...]
    key_hash: bytes = field(repr=False)
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class TokenRow(Row):
    """`api_tokens`: the same, made by users for the API of the front end."""

    tenant_id: str
    user_id: str | None
    scopes: tuple[str, ...]
    token_hash: bytes = field(repr=False)
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class LimitRow(Row):
    """`rate_limit_configs`."""

    tenant_id: str
    name: str
    level: str
    subject: str | None
    capacity: int
    refill_per_minute: float
    cost: float
    window_s: int | None
    window_limit: int | None
    on_store_error: str
    enforce: bool
    costs: dict[str, Any]
    is_enabled: bool


@dataclass(frozen=True, slots=True)
class FlagRow(Row):
    """`feature_flags`."""

    tenant_id: str
    key: str
    is_enabled: bool
    rollout_percent: float
    rules: list[Any]
    variants: dict[str, Any]


@dataclass(frozen=True, slots=True)
class MaintenanceRow(Row):
    """`maintenance_windows` that are not over."""

    tenant_id: str
    server_id: str | None
    starts_at: datetime
    ends_at: datetime
    status: str
    title: str
    drain_s: float
    recurrence: str | None
    """As `config.units.Recurrence` is written; the two times are those of the series then."""


@dataclass(frozen=True, slots=True)
class BreakerOrderRow(Row):
    """`breaker_orders`."""

    tenant_id: str
    server_id: str
    state: str
    updated_at: datetime
    """A later one is another order, also when the rest is the same."""


@dataclass(frozen=True, slots=True)
class SettingRow(Row):
    """`system_configs`."""

    tenant_id: str
    key: str
    value: Any
