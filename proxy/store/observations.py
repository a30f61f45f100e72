"""What this instance sees of servers, written to PostgreSQL: breakers, pools, queues, health, and what happened.

Owns the statements. Each is one round trip for many rows, and takes its locks in the order of the key. Rows of servers
that are gone, or another tenant's, are passed over. Sessions are those of the tenant that owns the rows, but for events
(the writer of the trail) and `remove_rows` (the admin plane). What is worth writing, and when, is the caller's to say.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from uuid import UUID

import orjson

from proxy.store.failures import LATER, told_apart
from proxy.store.pool import Unavailable

if TYPE_CHECKING:
    from proxy.store.pool import Session

#: Rows of one statement. Requests wait while one is written down: 1 or 2 ms.
MOST_ROWS: Final = 250
#: Characters of a text.
_LONGEST: Final = 512
#: An instance that has not touched its rows for so long is gone.
_GONE: Final = "1 hour"

HealthStatus = Literal["HEALTHY", "DEGRADED", "UNHEALTHY", "MAINTENANCE", "UNKNOWN"]
CheckKind = Literal["http", "mcp", "websocket", "tcp"]
Severity = Literal["info", "warning", "error", "critical"]


class BreakerSeen(NamedTuple):
    """`circuit_breakers`. Fields of this and the next two stand in the order of the statement's columns."""

    server_id: str
    state: str
    failure_count: int
    open_count: int
    opened_at: datetime | None
    next_attempt_at: datetime | None
    last_failure: str | None


class PoolSeen(NamedTuple):
    """`connection_pools`."""

    server_id: str
    max_connections: int
    in_use: int
    idle: int
    waiting: int
    utilization: float
    """0 to 1."""
    recommended_max: int | None


class QueueSeen(NamedTuple):
    """`request_queues`."""

    server_id: str
    max_concurrent: int
    max_pending: int
    running: int
    pending: int
    oldest_wait_ms: float
    admitted_count: int
    rejected_count: int
    expired_count: int


class HealthSeen(NamedTuple):
    """Columns of `mcp_servers`."""

    server_id: str
    status: HealthStatus
    average_ms: float | None
    failures: int
    """Bad checks in a row."""
    checked_at: datetime | None


class Check(NamedTuple):
    """`server_health_checks`."""

    id: UUID
    checked_at: datetime
    server_id: str
    kind: CheckKind
    status: HealthStatus
    response_time_ms: float | None
    status_code: int | None
    error: str | None


class Event(NamedTuple):
    """`system_events`."""

    id: UUID
    at: float
    """Seconds since 1970."""
    tenant: str
    kind: str
    severity: Severity
    component: str
    message: str
    details: Mapping[str, Any]
    instance: str


# --- state, one row per server and instance -------------------------------------------------------------------------


def _seen(table: str, columns: Mapping[str, str]) -> str:
    """Adds or replaces rows. $1 is the instance, then follow the ids of servers and an array per column."""
    names = ", ".join(columns)
    arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(columns.values(), 3))
    return f"""/* observations.{table} */ INSERT INTO {table} AS t (tenant_id, server_id, instance, {names})
        SELECT s.tenant_id, s.id, $1::text, {", ".join(f"n.{name}" for name in columns)}
        FROM unnest($2::uuid[], {arrays}) AS n (server_id, {names}) JOIN mcp_servers AS s ON s.id = n.server_id
        ORDER BY s.id
        ON CONFLICT (server_id, instance) DO UPDATE
        SET ({names}) = ROW ({", ".join(f"excluded.{name}" for name in columns)})"""  # noqa: S608 - names of our own


_BREAKERS: Final = _seen(
    "circuit_breakers",
    {"state": "text", "failure_count": "int", "open_count": "bigint", "opened_at": "timestamptz",
     "next_attempt_at": "timestamptz", "last_failure": "text"},
)  # fmt: skip
_POOLS: Final = _seen(
    "connection_pools",
    {"max_connections": "int", "in_use": "int", "idle": "int", "waiting": "int", "utilization": "float8",
     "recommended_max": "int"},
)  # fmt: skip
_QUEUES: Final = _seen(
    "request_queues",
    {"max_concurrent": "int", "max_pending": "int", "running": "int", "pending": "int", "oldest_wait_ms": "float8",
     "admitted_count": "bigint", "rejected_count": "bigint", "expired_count": "bigint"},
)  # fmt: skip


async def put_breakers(session: Session, instance: str, rows: Sequence[BreakerSeen]) -> None:
    """Write what an instance sees, each server named once. Raises Unusable, Unavailable."""
    await _in_batches(session, _BREAKERS, rows, instance)


async def put_pools(session: Session, instance: str, rows: Sequence[PoolSeen]) -> None:
    """The same for connection pools."""
    await _in_batches(session, _POOLS, rows, instance)


async def put_queues(session: Session, instance: str, rows: Sequence[QueueSeen]) -> None:
    """The same for request queues."""
    await _in_batches(session, _QUEUES, rows, instance)


# --- health ---------------------------------------------------------------------------------------------------------

_HEALTH: Final = """/* observations.health */ WITH n AS (
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::float8[], $4::int[], $5::timestamptz[])
        AS n (id, status, average_ms, failures, checked_at)
    ), locked AS (
        SELECT t.id FROM mcp_servers AS t JOIN n USING (id) ORDER BY t.id FOR NO KEY UPDATE OF t
    )
    UPDATE mcp_servers AS t
    SET health_status = n.status, avg_response_time = coalesce(n.average_ms, t.avg_response_time),
        consecutive_failures = n.failures, last_health_check_at = greatest(t.last_health_check_at, n.checked_at)
    FROM locked JOIN n USING (id) WHERE t.id = locked.id"""
_CHECKS: Final = """/* observations.checks */ INSERT INTO server_health_checks
        (id, checked_at, tenant_id, server_id, instance, kind, status, response_time_ms, status_code, error)
    SELECT n.id, n.checked_at, s.tenant_id, s.id, $1::text, n.kind, n.status, n.response_time_ms, n.status_code, n.error
    FROM unnest($2::uuid[], $3::timestamptz[], $4::uuid[], $5::text[], $6::text[], $7::float8[], $8::int[], $9::text[])
        AS n (id, checked_at, server_id, kind, status, response_time_ms, status_code, error)
    JOIN mcp_servers AS s ON s.id = n.server_id
    ON CONFLICT DO NOTHING"""


async def put_health(session: Session, rows: Sequence[HealthSeen]) -> None:
    """Say of servers how they are, each named once. Raises Unusable, Unavailable."""
    await _in_batches(session, _HEALTH, sorted(rows, key=lambda row: row.server_id))


async def add_checks(session: Session, instance: str, rows: Sequence[Check]) -> None:
    """Add results of checks; one that is written again stays one row. Raises Unusable, Unavailable."""
    mended = [row._replace(error=plain(row.error) if row.error else None) for row in rows]
    await _in_batches(session, _CHECKS, mended, instance)


# --- what happened --------------------------------------------------------------------------------------------------

_EVENTS: Final = """/* observations.events */ INSERT INTO system_events
        (id, ts, tenant_id, event_type, severity, component, message, details, instance)
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[],
        $8::jsonb[], $9::text[])
    ON CONFLICT DO NOTHING"""


async def add_events(session: Session, rows: Sequence[Event]) -> None:
    """Add events of any tenant; `session` is one of `Database.audit`. One that is written again stays one row. Raises
    Unusable, Unavailable."""
    written = [
        (
            row.id, datetime.fromtimestamp(row.at, UTC), row.tenant, plain(row.kind), row.severity,
            plain(row.component), plain(row.message), json_of(row.details), row.instance,
        )
        for row in rows
    ]  # fmt: skip
    await _in_batches(session, _EVENTS, written)


# --- rows of instances that are gone --------------------------------------------------------------------------------

_STATES: Final = ("circuit_breakers", "connection_pools", "request_queues")
_REMOVE: Final = tuple(
    f"""/* observations.remove */ DELETE FROM {table}
        WHERE instance = $1::text OR updated_at < now() - interval '{_GONE}'"""  # noqa: S608 - names of our own
    for table in _STATES
)


async def remove_rows(session: Session, instance: str | None = None) -> None:
    """Remove the state that instances left behind which are gone, or that one leaves which ends now.

    `session` is one of the admin plane, as nobody else sees all tenants. Raises Unavailable.
    """
    for statement in _REMOVE:
        await _execute(session, statement, instance)


@asynccontextmanager
async def patient(transaction: AbstractAsyncContextManager[Session]) -> AsyncIterator[Session]:
    """A transaction that raises Unavailable, too, while the role that it takes on is not there yet."""
    try:
        async with transaction as session:
            yield session
    except LATER as error:
        raise Unavailable(type(error).__name__) from None


# --- small things ---------------------------------------------------------------------------------------------------


async def _in_batches(session: Session, statement: str, rows: Sequence[Any], *first: object) -> None:
    for start in range(0, len(rows), MOST_ROWS):
        await _execute(session, statement, *first, *zip(*rows[start : start + MOST_ROWS], strict=True))


async def _execute(session: Session, statement: str, *values: object) -> None:
    with told_apart():
        await session.execute(statement, *values)


def plain(text: str) -> str:
    """A text that PostgreSQL takes."""
    return text[:_LONGEST].encode("utf-8", "replace").decode().replace("\0", "?")


def json_of(details: Mapping[str, Any]) -> str:
    """As jsonb takes it, which knows no NUL either; what is no JSON becomes text."""
    return orjson.dumps(_mended(details), default=str).decode()


def _mended(value: Any) -> Any:
    """With texts that PostgreSQL takes, however deep."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {plain(str(key)): _mended(inner) for key, inner in value.items()}
    return [_mended(inner) for inner in value] if isinstance(value, list | tuple) else value
