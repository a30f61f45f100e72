"""What went by, written to PostgreSQL: minutes of servers and credentials, and what tenants used.

Owns the statements. Each is one round trip for many rows. Rows of servers that are gone are passed over. A minute has
an identity that was made with it, so it stays one row however often it is written. Use of a tenant is added to what is
there, by numbered batches: `usage_writers` remembers the last one of each writer, in the same statement. Every session
is one of the tenant that owns the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from proxy.store.failures import told_apart

if TYPE_CHECKING:
    from proxy.store.pool import Session

#: Windows of one statement: each has a sketch of a kilobyte, and requests wait while one is written down.
MOST_WINDOWS: Final = 25
#: Quantities of one batch.
MOST_ROWS: Final = 250


class ServerWindow(NamedTuple):
    """`server_metrics`. Fields of this and the next two stand in the order of the statement's columns."""

    id: UUID
    recorded_at: datetime
    """End of the window."""
    server_id: str
    window_s: int
    request_count: int
    error_count: int
    avg_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    bytes_in: int
    bytes_out: int
    open_streams: int
    duration_bins: str
    """An array as PostgreSQL writes it, like the next one."""
    duration_counts: str


class KeyWindow(NamedTuple):
    """`api_key_usage`."""

    id: UUID
    period_start: datetime
    credential_table: str
    credential_id: str
    window_s: int
    request_count: int
    error_count: int
    tool_call_count: int
    bytes_in: int
    bytes_out: int
    avg_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    duration_bins: str
    duration_counts: str
    tools: str
    """JSON."""


class Quantity(NamedTuple):
    """`tenant_usage`."""

    period_start: datetime
    granularity: str
    metric: str
    quantity: int


_SERVERS: Final = """/* traffic.servers */ INSERT INTO server_metrics
        (id, recorded_at, tenant_id, server_id, instance, window_s, request_count, error_count, avg_ms, p50_ms, p95_ms,
        p99_ms, bytes_in, bytes_out, open_streams, duration_bins, duration_counts)
    SELECT n.id, n.recorded_at, s.tenant_id, s.id, $1::text, n.window_s, n.request_count, n.error_count, n.avg_ms,
        n.p50_ms, n.p95_ms, n.p99_ms, n.bytes_in, n.bytes_out, n.open_streams, n.duration_bins::int[],
        n.duration_counts::bigint[]
    FROM unnest($2::uuid[], $3::timestamptz[], $4::uuid[], $5::int[], $6::bigint[], $7::bigint[], $8::float8[],
        $9::float8[], $10::float8[], $11::float8[], $12::bigint[], $13::bigint[], $14::int[], $15::text[], $16::text[])
        AS n (id, recorded_at, server_id, window_s, request_count, error_count, avg_ms, p50_ms, p95_ms, p99_ms,
        bytes_in, bytes_out, open_streams, duration_bins, duration_counts)
    JOIN mcp_servers AS s ON s.id = n.server_id
    ON CONFLICT DO NOTHING"""
_KEYS: Final = """/* traffic.keys */ INSERT INTO api_key_usage
        (tenant_id, instance, id, period_start, credential_table, credential_id, window_s, request_count, error_count,
        tool_call_count, bytes_in, bytes_out, avg_ms, p50_ms, p95_ms, p99_ms, duration_bins, duration_counts, tools)
    SELECT current_setting('app.tenant')::uuid, $1::text, n.id, n.period_start, n.credential_table, n.credential_id,
        n.window_s, n.request_count, n.error_count, n.tool_call_count, n.bytes_in, n.bytes_out, n.avg_ms, n.p50_ms,
        n.p95_ms, n.p99_ms, n.duration_bins::int[], n.duration_counts::bigint[], n.tools::jsonb
    FROM unnest($2::uuid[], $3::timestamptz[], $4::text[], $5::text[], $6::int[], $7::bigint[], $8::bigint[],
        $9::bigint[], $10::bigint[], $11::bigint[], $12::float8[], $13::float8[], $14::float8[], $15::float8[],
        $16::text[], $17::text[], $18::text[])
        AS n (id, period_start, credential_table, credential_id, window_s, request_count, error_count, tool_call_count,
        bytes_in, bytes_out, avg_ms, p50_ms, p95_ms, p99_ms, duration_bins, duration_counts, tools)
    ON CONFLICT DO NOTHING"""
#: Nothing is added unless the batch is newer than the last one of this writer.
_USAGE: Final = """/* traffic.usage */ WITH fresh AS (
        INSERT INTO usage_writers AS w (tenant_id, instance, batch)
        VALUES (current_setting('app.tenant')::uuid, $1::text, $2::bigint)
        ON CONFLICT (tenant_id, instance) DO UPDATE SET batch = excluded.batch WHERE w.batch < excluded.batch
        RETURNING tenant_id
    ), gone AS (
        DELETE FROM usage_writers WHERE instance <> $1::text AND updated_at < now() - interval '30 days'
    )
    INSERT INTO tenant_usage AS t (tenant_id, period_start, granularity, metric, quantity)
    SELECT fresh.tenant_id, n.period_start, n.granularity, n.metric, n.quantity
    FROM unnest($3::timestamptz[], $4::text[], $5::text[], $6::bigint[])
        AS n (period_start, granularity, metric, quantity), fresh
    ORDER BY 1, 2, 3, 4
    ON CONFLICT (tenant_id, period_start, granularity, metric) DO UPDATE
    SET quantity = t.quantity + excluded.quantity"""


async def add_servers(session: Session, instance: str, rows: Sequence[ServerWindow]) -> None:
    """Add windows of servers. Raises Unusable, Unavailable."""
    for start in range(0, len(rows), MOST_WINDOWS):
        await _execute(session, _SERVERS, rows[start : start + MOST_WINDOWS], instance)


async def add_keys(session: Session, instance: str, rows: Sequence[KeyWindow]) -> None:
    """Add windows of credentials. Raises Unusable when the tenant is gone, Unavailable."""
    for start in range(0, len(rows), MOST_WINDOWS):
        await _execute(session, _KEYS, rows[start : start + MOST_WINDOWS], instance)


async def add_usage(session: Session, instance: str, batch: int, rows: Sequence[Quantity]) -> None:
    """Add at most MOST_ROWS quantities, each period and metric named once, unless they have been: numbers of batches of
    an instance only grow. Raises as `add_keys`."""
    await _execute(session, _USAGE, rows, instance, batch)


async def _execute(session: Session, statement: str, rows: Sequence[Any], *first: object) -> None:
    if not rows:
        return
    with told_apart():
        await session.execute(statement, *first, *zip(*rows, strict=True))
