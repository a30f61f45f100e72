"""Rows of `rate_limit_violations` and `security_events`.

Owns the statements, of which each table has one: many rows in one round trip. A row whose commit was lost on the way
may be written again; its identity was made with it, so it stays one row. Values come from requests: what PostgreSQL
would refuse (NUL, half of a surrogate pair, an address that is none) is mended here, so that no row can hold up the
others. Violations are written as their tenant, which then can read them; events by whoever may only add.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from proxy.identity.records import SYSTEM_TENANT
from proxy.store.failures import told_apart
from proxy.store.observations import json_of, plain

if TYPE_CHECKING:
    from proxy.store.pool import Session

#: Rows of one statement.
MOST_ROWS: Final = 1000

Severity = Literal["low", "medium", "high", "critical"]
Action = Literal["logged", "throttled", "blocked", "revoked"]


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule was exceeded by a subject in one second; the first request that was refused in it. Times: seconds."""

    id: UUID
    at: float
    """Since 1970, like the last one."""
    rule: str
    """The id of a row, or the name of a configured rule, which has no row."""
    level: str
    subject: str
    ip: str
    limit: float
    retry_after_s: float
    blocked_until: float | None = None


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    """What looked like an attack, and what was done about it."""

    id: UUID
    at: float
    """Seconds since 1970."""
    kind: str
    severity: Severity
    ip: str
    """An address, or a network of IPv6."""
    description: str
    score: float | None = None
    action: Action = "blocked"
    details: Mapping[str, Any] = field(default_factory=dict)
    tenant: str = SYSTEM_TENANT
    """Id; anything else is the system tenant."""
    instance: str = ""
    principal: str = ""
    """'' for none, like the next one."""
    request_id: str = ""


_VIOLATIONS: Final = """/* violations.add */ INSERT INTO rate_limit_violations
        (id, ts, tenant_id, rule_id, level, subject, client_ip, limit_value, retry_after_s, blocked_until)
    SELECT n.id, n.ts, current_setting('app.tenant')::uuid, n.rule_id, n.level, n.subject, n.client_ip, n.limit_value,
        n.retry_after_s, n.blocked_until
    FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::text[], $5::text[], $6::inet[], $7::float8[],
        $8::float8[], $9::timestamptz[])
        AS n (id, ts, rule_id, level, subject, client_ip, limit_value, retry_after_s, blocked_until)
    ON CONFLICT DO NOTHING"""
_EVENTS: Final = """/* violations.add_events */ INSERT INTO security_events
        (id, ts, tenant_id, event_type, severity, client_ip, principal_id, description, score, action_taken, details,
        request_id, instance)
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::text[], $5::text[], $6::inet[], $7::text[],
        $8::text[], $9::float8[], $10::text[], $11::jsonb[], $12::uuid[], $13::text[])
    ON CONFLICT DO NOTHING"""


async def add_violations(session: Session, rows: Sequence[Violation]) -> None:
    """Add rows of the session's tenant. Raises Unusable, Unavailable."""
    for some in _batches(rows):
        await _execute(
            session,
            _VIOLATIONS,
            [row.id for row in some],
            [moment_of(row.at) for row in some],
            [uuid_of(row.rule) for row in some],
            [plain(row.level) for row in some],
            [plain(row.subject) for row in some],
            [_inet(row.ip) for row in some],
            [row.limit for row in some],
            [max(0.0, row.retry_after_s) for row in some],
            [moment_of(row.blocked_until) if row.blocked_until is not None else None for row in some],
        )


async def add_events(session: Session, rows: Sequence[SecurityEvent]) -> None:
    """Add rows of any tenant. Raises Unusable, Unavailable."""
    for some in _batches(rows):
        await _execute(
            session,
            _EVENTS,
            [row.id for row in some],
            [moment_of(row.at) for row in some],
            [tenant_of(row.tenant) for row in some],
            [plain(row.kind) for row in some],
            [row.severity for row in some],
            [_inet(row.ip) for row in some],
            [plain(row.principal) or None for row in some],
            [plain(row.description) for row in some],
            [row.score for row in some],
            [row.action for row in some],
            [json_of(row.details) for row in some],
            [uuid_of(row.request_id) for row in some],
            [plain(row.instance) for row in some],
        )


def tenant_of(text: str) -> str:
    """The tenant a row belongs to: the system's when none is known."""
    return str(uuid_of(text) or SYSTEM_TENANT)


async def _execute(session: Session, statement: str, *values: object) -> None:
    with told_apart():
        await session.execute(statement, *values)


def _batches(rows: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (rows[start : start + MOST_ROWS] for start in range(0, len(rows), MOST_ROWS))


def moment_of(seconds: float) -> datetime:
    """A time of a row; `seconds` since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def uuid_of(text: str) -> UUID | None:
    """None for what is none."""
    try:
        return UUID(text)
    except ValueError:
        return None


def _inet(text: str) -> str | None:
    """An address, or a network such as 2001:db8::/64; PostgreSQL knows no zones."""
    address, slash, bits = text.partition("/")
    try:
        plain = str(ip_address(address.partition("%")[0]))
    except ValueError:
        return None
    return f"{plain}/{bits}" if slash and bits.isdecimal() and int(bits) <= (32 if "." in plain else 128) else plain
