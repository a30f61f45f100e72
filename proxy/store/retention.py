"""Old rows in PostgreSQL: where they are, and how they go.

Owns the statements. A session is one of `turn`, which only one process of all has at a time, and in which no statement
waits for a lock for long. What is old enough is not known here. Rows of whatever tenant are seen: the role is that of
the admin plane; detaching and dropping partitions is done by two functions of the database that only it may call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
import orjson

from proxy.store.pool import Unavailable

if TYPE_CHECKING:
    from proxy.store.database import Database
    from proxy.store.pool import Session

#: Tables with their time.
TABLES: Final = {
    "request_logs": "ts", "audit_logs": "ts", "error_logs": "ts", "security_events": "ts", "system_events": "ts",
    "server_metrics": "recorded_at", "server_health_checks": "checked_at", "rate_limit_violations": "ts",
    "tenant_usage": "period_start", "audit_heads": "last_ts", "api_key_usage": "period_start",
}  # fmt: skip
#: Those with an index in the order of tenants: who is there is found without reading every row.
_BY_TENANT: Final = frozenset(("request_logs", "audit_logs", "server_metrics", "tenant_usage", "audit_heads"))
#: Rows that are read as one: a tenth of a millisecond of the loop, a few of the thread that compresses them.
_READ_ROWS: Final = 100
_FIRST: Final = datetime(1, 1, 2, tzinfo=UTC)
_LAST: Final = datetime(9999, 12, 30, tzinfo=UTC)
_NOT_MIGRATED: Final = (
    asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.UndefinedFunctionError,
    asyncpg.InvalidParameterValueError, asyncpg.InsufficientPrivilegeError,
)  # fmt: skip

# A row as one line: text of JSON that was kept verbatim may hold line ends, as blanks.
_LINE: Final = r"translate(row_to_json(t)::text, E'\n\r', '  ')"
_TURN: Final = """/* retention.turn */ SELECT pg_try_advisory_xact_lock(hashtext('mcp_manager retention')),
    set_config('timezone', 'UTC', true), set_config('lock_timeout', '200ms', true),
    set_config('plan_cache_mode', 'force_custom_plan', true)"""


class Busy(Exception):
    """Another process is at it."""


class Refused(Exception):
    """PostgreSQL does not detach a partition, as it is none (any more), or not old enough for it."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A stretch of time of a table: a partition, or a stretch for which there is none, whose rows are in the default
    partition."""

    table: str
    name: str
    since: datetime
    until: datetime
    whole: bool
    """It is a partition of its own."""
    size: int = 0
    """Bytes on disk, indexes included; 0 when it is none of its own."""


@dataclass(frozen=True, slots=True)
class Retired:
    """A former partition that is to be dropped."""

    table: str
    name: str
    partition: str
    """The name it had."""
    oid: int
    size: int


@asynccontextmanager
async def turn(database: Database) -> AsyncIterator[Session]:
    """A transaction that no other process has at the same time. Raises Busy, Unavailable."""
    try:
        async with database.across_tenants("write") as session:
            if not await session.fetch_value(_TURN):
                raise Busy("another run is under way")
            yield session
    except _NOT_MIGRATED as error:
        raise Unavailable(f"PostgreSQL is not migrated: {type(error).__name__}") from None


# --- what there is --------------------------------------------------------------------------------------------------

#: Those that `create_partitions` makes, or that look the same: rows of any other, attached by hand, are deleted in
#: batches, as those without a partition.
_PARTITIONS: Final = r"""/* retention.partitions */ SELECT c.relname AS name, b.bounds[1]::timestamptz AS since,
        b.bounds[2]::timestamptz AS until, pg_total_relation_size(c.oid) AS size
    FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    CROSS JOIN LATERAL regexp_match(pg_get_expr(c.relpartbound, c.oid),
        'FROM \(''([0-9][^'']+)''\) TO \(''([0-9][^'']+)''\)') AS b (bounds)
    WHERE i.inhparent = to_regclass($1::text) AND b.bounds IS NOT NULL AND NOT i.inhdetachpending
        AND c.relname ~ ('^' || $1::text || '_[0-9]+$') AND c.relkind = 'r'
        AND c.relnamespace = 'public'::regnamespace AND pg_get_userbyid(c.relowner) = 'mcp_manager_owner'
    ORDER BY since"""
_RETIRED: Final = r"""/* retention.retired */ SELECT relname AS name, oid::bigint AS oid,
        regexp_replace(relname, '_retired_[0-9]+$', '') AS partition, pg_total_relation_size(oid) AS size
    FROM pg_class WHERE relname ~ ('^' || $1::text || '_[0-9]+_retired_[0-9]+$') AND relkind = 'r'
        AND NOT relispartition AND relnamespace = 'public'::regnamespace ORDER BY relname"""


async def clock(session: Session) -> datetime:
    """What time it is for PostgreSQL."""
    found: datetime = await session.fetch_value("/* retention.clock */ SELECT now()")
    return found


async def extents(session: Session, table: str) -> list[Extent]:
    """The partitions of a table and the stretches between them, earliest first."""
    found, since = [], _FIRST
    for row in await session.fetch(_PARTITIONS, table):
        if row["since"] > since:
            found.append(Extent(table, f"{table}_default", since, row["since"], whole=False))
        found.append(Extent(table, row["name"], row["since"], row["until"], whole=True, size=row["size"]))
        since = row["until"]
    return [*found, Extent(table, f"{table}_default", since, _LAST, whole=False)]


async def retired(session: Session, table: str) -> list[Retired]:
    """Former partitions that an earlier run left."""
    return [Retired(table, **row) for row in await session.fetch(_RETIRED, table)]


async def tenants_in(session: Session, extent: Extent, relation: str = "") -> list[str]:
    """Ids of the tenants with rows in an extent; `relation`: under which name it is read."""
    rows = f"FROM {relation or extent.table} WHERE {TABLES[extent.table]} >= $1 AND {TABLES[extent.table]} < $2"
    if extent.table not in _BY_TENANT:
        query = f"/* retention.tenants */ SELECT DISTINCT tenant_id::text {rows}"
    else:
        query = f"""/* retention.tenants */ WITH RECURSIVE found AS (
                (SELECT tenant_id {rows} ORDER BY tenant_id LIMIT 1)
                UNION ALL SELECT (SELECT tenant_id {rows} AND tenant_id > f.tenant_id ORDER BY tenant_id LIMIT 1)
                FROM found AS f WHERE f.tenant_id IS NOT NULL)
            SELECT tenant_id::text FROM found WHERE tenant_id IS NOT NULL"""  # noqa: S608 - names of our own
    return [row[0] for row in await session.fetch(query, extent.since, extent.until)]


async def rows_in(session: Session, extent: Extent, until: datetime, tenant: str | None = None) -> int:
    """How many rows there are before `until`: of a tenant, or of all."""
    time = TABLES[extent.table]
    return int(
        await session.fetch_value(
            f"/* retention.count */ SELECT count(*) FROM {extent.table} WHERE {time} >= $1 AND {time} < $2"  # noqa: S608
            " AND ($3::uuid IS NULL OR tenant_id = $3)", extent.since, until, tenant,
        )
    )  # fmt: skip


# --- how they go ----------------------------------------------------------------------------------------------------

_ABOUT: Final = "/* retention.about */ SELECT reltuples::bigint FROM pg_class WHERE oid = $1::bigint::oid"


async def retire(session: Session, extent: Extent) -> Retired:
    """Detach a partition. Raises TooSlow when somebody uses the table for longer than we may wait, and Refused."""
    try:
        name = await session.fetch_value("/* retention.retire */ SELECT retire_partition($1)", extent.name)
    except asyncpg.InvalidParameterValueError:
        raise Refused("PostgreSQL does not take it for a partition of a time that is over") from None
    return Retired(extent.table, name, extent.name, int(name.rpartition("_")[2]), extent.size)


async def rows_of(session: Session, former: Retired, *, exactly: bool) -> int:
    """How many rows a former partition has. If it need not be exact, the statistics are asked, where there are any."""
    if not exactly and (about := await session.fetch_value(_ABOUT, former.oid)) > 0:
        return int(about)
    return int(await session.fetch_value(f"/* retention.rows */ SELECT count(*) FROM {former.name}"))  # noqa: S608


async def lines(session: Session, former: Retired) -> AsyncIterator[list[str]]:
    """The rows of a former partition, each as a line of JSON, some at a time."""
    await session.execute(
        f"/* retention.declare */ DECLARE former NO SCROLL CURSOR FOR SELECT {_LINE} FROM {former.name} AS t"  # noqa: S608
    )
    while rows := await session.fetch(f"/* retention.fetch */ FETCH {_READ_ROWS} FROM former"):
        yield [row[0] for row in rows]
    await session.execute("/* retention.close */ CLOSE former")


async def drop(session: Session, former: Retired) -> bool:
    """Drop a former partition; False when it is gone already."""
    return bool(await session.fetch_value("/* retention.drop */ SELECT drop_retired_partition($1)", former.name))


async def delete(session: Session, extent: Extent, tenant: str, until: datetime, most: int) -> int:
    """Delete some of a tenant's rows before `until`, the earliest first; how many."""
    status = await session.execute(_deletion(extent, ""), UUID(tenant), extent.since, until, most)
    return int(status.rpartition(" ")[2])


async def take(session: Session, extent: Extent, tenant: str, until: datetime, most: int) -> list[str]:
    """The same, and the rows as lines of JSON."""
    deletion = _deletion(extent, f"RETURNING {_LINE} AS line")
    pieces = await session.fetch(_TAKEN.format(deletion, _READ_ROWS), UUID(tenant), extent.since, until, most)
    lines: list[str] = []
    for piece in pieces:
        lines += piece[0].split("\n")
        await asyncio.sleep(0)
    return lines


async def has(session: Session, table: str, line: str) -> bool:
    """Whether a row that `take` gave as this line is still there."""
    time = TABLES[table]
    return bool(
        await session.fetch_value(
            f"""/* retention.has */ SELECT EXISTS (SELECT FROM {table} AS t
            WHERE t.tenant_id = ($1::text::json ->> 'tenant_id')::uuid
                AND t.{time} = ($1::text::json ->> '{time}')::timestamptz AND {_LINE} = $1::text)""",  # noqa: S608 - names of our own
            line,
        )
    )


#: Sorted, and many lines in one value: ten thousand objects at once would hold up the loop, and its garbage collector.
_TAKEN: Final = """/* retention.take */ WITH gone AS ({0}), numbered AS (
        SELECT line, row_number() OVER (ORDER BY line COLLATE "C") - 1 AS number FROM gone)
    SELECT string_agg(line, E'\n' ORDER BY number) FROM numbered GROUP BY number / {1} ORDER BY number / {1}"""


def _deletion(extent: Extent, returning: str) -> str:
    """The times are there twice, so that only one partition is looked at; the order is one that repeats."""
    table, time = extent.table, TABLES[extent.table]
    return f"""/* retention.delete */ WITH old AS (
            SELECT tableoid AS relation, ctid AS place FROM {table}
            WHERE tenant_id = $1 AND {time} >= $2 AND {time} < $3 ORDER BY {time} LIMIT $4)
        DELETE FROM {table} AS t USING old
        WHERE t.tableoid = old.relation AND t.ctid = old.place AND t.{time} >= $2 AND t.{time} < $3
        {returning}"""  # noqa: S608 - names of our own


# --- what was done --------------------------------------------------------------------------------------------------

_CLAIM: Final = """/* retention.claim */ INSERT INTO retention_runs (id, instance)
    SELECT $1, $2 WHERE NOT EXISTS (
        SELECT FROM retention_runs WHERE (started_at > now() - $3::interval AND started_at <= now())
            OR (finished_at IS NULL AND touched_at > now() - interval '5 minutes'
                AND touched_at < now() + interval '5 minutes'))
    RETURNING id"""
_FORGET: Final = "/* retention.forget */ DELETE FROM retention_runs WHERE started_at < now() - interval '400 days'"
_RECORD: Final = """/* retention.record */ UPDATE retention_runs SET touched_at = now(),
        finished_at = CASE WHEN $7 THEN now() END, deleted_rows = $2, dropped_partitions = $3, archived_rows = $4,
        archived_bytes = $5, details = $6::jsonb
    WHERE id = $1"""
_RAN: Final = """/* retention.ran */ UPDATE data_retention_policies AS p
    SET last_run_at = now(), last_deleted_count = n.count
    FROM unnest($2::uuid[], $3::bigint[]) AS n (tenant_id, count)
    WHERE p.table_name = $1 AND p.tenant_id = n.tenant_id AND p.is_enabled"""
_LAST_RUNS: Final = """/* retention.runs */ SELECT id, instance, started_at, finished_at, deleted_rows,
    dropped_partitions, archived_rows, archived_bytes, details::text FROM retention_runs
    ORDER BY started_at DESC LIMIT $1"""


async def claim(session: Session, run: UUID, instance: str, every: Any) -> bool:
    """Begin a run, unless one is under way or began less than `every` (a timedelta) ago. One of the future, before a
    clock was put right, is neither."""
    await session.execute(_FORGET)
    return await session.fetch_value(_CLAIM, run, instance, every) is not None


async def record(session: Session, run: UUID, totals: Sequence[int], details: Any, finished: bool) -> None:
    """What a run did so far. `totals`: rows deleted, partitions dropped, rows archived, bytes of the archive."""
    await session.execute(_RECORD, run, *totals, orjson.dumps(details).decode(), finished)


async def ran(session: Session, table: str, deleted: dict[str, int]) -> None:
    """Say of the policies of a table, by tenant, that they ran, and how many rows each deleted."""
    await session.execute(_RAN, table, [UUID(tenant) for tenant in deleted], list(deleted.values()))


async def last_runs(session: Session, most: int) -> list[dict[str, Any]]:
    """The last runs, newest first."""
    return [{**row, "details": orjson.loads(row["details"])} for row in await session.fetch(_LAST_RUNS, most)]
