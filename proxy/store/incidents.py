"""Rows of `error_logs` and `security_events` that the proxy writes about requests and about itself.

Owns the statements: many rows in one round trip, added by whoever may only add. A row whose commit was lost on the way
may be written again; its identity was made with it, so it stays one row. Texts are mended to what PostgreSQL takes, so
that no row can hold up the others. Sessions are those of `Database.audit`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from uuid import UUID

import asyncpg
import orjson

from proxy.store.learned import Unusable
from proxy.store.observations import plain
from proxy.store.pool import Unavailable
from proxy.store.violations import moment_of, tenant_of, uuid_of

if TYPE_CHECKING:
    from proxy.store.pool import Session

#: Rows of one statement.
MOST_ROWS: Final = 500
#: Characters of a stack.
_LONGEST: Final = 8192
_REFUSED: Final = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)
#: There is no table or role yet: the migrations are to come.
_LATER: Final = (
    asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidParameterValueError,
)  # fmt: skip


class ErrorRow(NamedTuple):
    """`error_logs`."""

    id: UUID
    at: float
    """Seconds since 1970, like those of `EventRow`."""
    tenant: str
    """Id; anything else is the system tenant."""
    severity: Literal["warning", "error", "critical"]
    component: str
    kind: str
    """Class of the error, or the reason of a refusal."""
    message: str
    fingerprint: str
    stack: str
    context: Mapping[str, Any]
    request_id: str
    """'' for none."""
    instance: str


class EventRow(NamedTuple):
    """`security_events`."""

    id: UUID
    at: float
    tenant: str
    kind: str
    severity: Literal["low", "medium", "high", "critical"]
    ip: str
    principal: str
    description: str
    details: Mapping[str, Any]
    request_id: str
    instance: str


_ERRORS: Final = """/* incidents.add_errors */ INSERT INTO error_logs
        (id, ts, tenant_id, severity, component, error_type, message, fingerprint, stack, context, request_id, instance)
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[],
        $8::text[], $9::text[], $10::jsonb[], $11::uuid[], $12::text[])
    ON CONFLICT DO NOTHING"""
_EVENTS: Final = """/* incidents.add_events */ INSERT INTO security_events
        (id, ts, tenant_id, event_type, severity, client_ip, principal_id, description, details, request_id, instance)
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::text[], $5::text[], $6::inet[], $7::text[],
        $8::text[], $9::jsonb[], $10::uuid[], $11::text[])
    ON CONFLICT DO NOTHING"""


async def add_errors(session: Session, rows: Sequence[ErrorRow]) -> None:
    """Add errors of any tenant. Raises Unusable, Unavailable."""
    values = [
        (
            row.id, moment_of(row.at), tenant_of(row.tenant), row.severity, plain(row.component), plain(row.kind),
            plain(row.message), plain(row.fingerprint), _stack(row.stack), _json(row.context), uuid_of(row.request_id),
            plain(row.instance),
        )
        for row in rows
    ]  # fmt: skip
    await _add(session, _ERRORS, values)


async def add_events(session: Session, rows: Sequence[EventRow]) -> None:
    """Add events of any tenant. Raises Unusable, Unavailable."""
    values = [
        (
            row.id, moment_of(row.at), tenant_of(row.tenant), plain(row.kind), row.severity, _inet(row.ip),
            plain(row.principal) or None, plain(row.description), _json(row.details), uuid_of(row.request_id),
            plain(row.instance),
        )
        for row in rows
    ]  # fmt: skip
    await _add(session, _EVENTS, values)


async def _add(session: Session, statement: str, values: Sequence[tuple[Any, ...]]) -> None:
    for start in range(0, len(values), MOST_ROWS):
        try:
            await session.execute(statement, *zip(*values[start : start + MOST_ROWS], strict=True))
        except _REFUSED as error:
            raise Unusable(type(error).__name__) from None
        except _LATER as error:
            raise Unavailable(type(error).__name__) from None


def _stack(text: str) -> str | None:
    return text[-_LONGEST:].encode("utf-8", "replace").decode().replace("\0", "?") or None


def _json(facts: Mapping[str, Any]) -> str:
    mended = {plain(key): plain(value) if isinstance(value, str) else value for key, value in facts.items()}
    return orjson.dumps(mended, default=str).decode()


def _inet(text: str) -> str | None:
    """PostgreSQL knows no zones, and a Unix socket has no address."""
    try:
        return str(ip_address(text.partition("%")[0]))
    except ValueError:
        return None
