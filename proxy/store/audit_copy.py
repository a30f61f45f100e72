"""The trail as a stream: rows by COPY, as fast as PostgreSQL reads them, and heads beside them.

Owns a connection of its own, for a scan has no deadline as a whole: one that says nothing for a while is cut. All that
one reader is told is of one moment. It reads as the admin plane, of all tenants, and cannot write.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg

from proxy.audit.chain import Head
from proxy.audit.columns import SETTINGS
from proxy.audit.copied import COPIED
from proxy.store.accounts import Rejected
from proxy.store.audit_search import Wanted, conditions
from proxy.store.pool import Unavailable

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_CONNECT_S: Final = 10.0
#: So long may the server be silent: the first row of a sorted stream takes the longest.
_SILENCE_S: Final = 120.0
_FAREWELL_S: Final = 2.0
#: How long rows of a segment may be from after its last head: a segment ends with its day (UTC).
_OPEN: Final = timedelta(days=1)
_BEGIN: Final = f"""BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL ROLE mcp_manager_admin;
SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '5s'; SET LOCAL search_path = public;
SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL synchronize_seqscans = off; SET LOCAL jit = off;
{SETTINGS}"""
_LOST: Final = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)
#: The third is what PostgreSQL says of a role.
_NOT_THERE: Final = (
    asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InvalidParameterValueError,
    asyncpg.UndefinedObjectError,
)  # fmt: skip
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_SELECT: Final = f"SELECT {COPIED} FROM audit_logs AS a"  # noqa: S608 - names of our own
#: Infinite times, which Python has not and nobody signed, are as far as possible.
_HEAD: Final = """h.tenant_id::text, h.segment, h.row_count, h.is_final, h.head,
greatest(timestamptz '0002-01-01 00:00Z', least(timestamptz '9999-01-01 00:00Z', h.first_ts)) AS first_ts,
greatest(timestamptz '0002-01-01 00:00Z', least(timestamptz '9999-01-01 00:00Z', h.last_ts)) AS last_ts,
h.previous, h.key_id, h.signature"""
_HEADS: Final = f"""/* audit.heads */ SELECT DISTINCT ON (h.tenant_id, h.segment) {_HEAD} FROM audit_heads AS h
WHERE h.last_ts >= $1 AND h.first_ts < $2 AND ($3::uuid IS NULL OR h.tenant_id = $3)
ORDER BY h.tenant_id, h.segment, h.row_count DESC, h.is_final DESC"""  # noqa: S608 - columns of our own
_PLACES: Final = """/* audit.places */ SELECT count(DISTINCT (tenant_id, segment)) FROM audit_heads
WHERE last_ts >= $1 AND first_ts < $2 AND ($3::uuid IS NULL OR tenant_id = $3)"""
_FINALS: Final = f"""/* audit.finals */ SELECT {_HEAD} FROM audit_heads AS h
JOIN unnest($1::uuid[], $2::text[]) AS n (tenant_id, segment) ON h.tenant_id = n.tenant_id AND h.segment = n.segment
WHERE h.is_final ORDER BY h.tenant_id, h.segment, h.row_count"""  # noqa: S608 - columns of our own
_OLDEST: Final = """/* audit.oldest */ SELECT tenant_id::text, min(last_ts) AS oldest FROM audit_heads
WHERE tenant_id = ANY ($1::uuid[]) AND last_ts >= '0002-01-01 00:00Z' GROUP BY tenant_id"""
_TENANT: Final = "/* audit.tenant */ SELECT id FROM tenants WHERE slug = $1"


@dataclass(frozen=True, slots=True)
class KeptHead:
    """A row of `audit_heads`."""

    head: Head
    key_id: str | None
    signature: bytes | None

    @property
    def last(self) -> datetime:
        """When its last row is from."""
        return _EPOCH + self.head.last_us * _MICROSECOND

    @property
    def span(self) -> tuple[datetime, datetime]:
        """From when rows of its segment can be: the last moment excluded."""
        return _EPOCH + self.head.first_us * _MICROSECOND, self.last + (_MICROSECOND if self.head.is_final else _OPEN)


class Reader:
    """Reads the trail as it was when the reader was made."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def tenant_id(self, name: str | None) -> UUID | None:
        """The id of a tenant, given by its short name or by itself. Raises Rejected."""
        try:
            return None if name is None else UUID(name)
        except ValueError:
            found = await self._fetch(_TENANT, name)
        if not found:
            raise Rejected("no tenant of this name; 'mcp-manager tenants list' shows them, and any id may be given")
        return UUID(str(found[0]["id"]))

    async def heads(self, since: datetime, until: datetime, tenant: UUID | None) -> list[KeptHead]:
        """The last head of each segment with rows from within this span."""
        return [_head(row) for row in await self._fetch(_HEADS, since, until, tenant)]

    async def places(self, since: datetime, until: datetime, tenant: UUID | None) -> int:
        """How many heads `heads` would give."""
        return int((await self._fetch(_PLACES, since, until, tenant))[0]["count"])

    async def finals(self, places: Collection[tuple[str, str]]) -> list[KeptHead]:
        """The final heads of these tenants' segments, from whenever they are; more than one of each if forged."""
        tenants, segments = [tenant for tenant, _ in places], [segment for _, segment in places]
        return [_head(row) for row in await self._fetch(_FINALS, tenants, segments)]

    async def oldest(self, tenants: Collection[str]) -> dict[str, datetime]:
        """When the oldest segment ended of which these tenants have a head."""
        return {row["tenant_id"]: row["oldest"] for row in await self._fetch(_OLDEST, list(tenants))}

    async def rows(self, wanted: Wanted, take: Callable[[bytes], None], *, ordered: bool) -> None:
        """Give rows to `take`, as lines of COPY in blocks that end anywhere; `wanted.tenant` is an id. `ordered`: by
        tenant and time, else as they lie."""
        where, given = _where(wanted)
        order = " ORDER BY a.tenant_id, a.ts, a.id, a.kind" if ordered else ""
        await self._copy(f"/* audit.copy */ {_SELECT} WHERE {where}{order}", given, take)

    async def rows_of(self, wanted: Wanted, segments: Sequence[str], take: Callable[[bytes], None]) -> None:
        """Give the rows of these segments to `take` in their own order."""
        where, given = _where(wanted)
        await self._copy(
            f"/* audit.segments */ {_SELECT} WHERE {where}"
            f" AND a.segment = ANY (${len(given) + 1}::text[]) ORDER BY a.tenant_id, a.segment, a.seq",
            [*given, list(segments)],
            take,
        )

    async def whole(self, wanted: Wanted, span: tuple[datetime, datetime], take: Callable[[bytes], None]) -> None:
        """Give all rows of segments with rows from within the time to `take`, by tenant and time; and those from within
        it that have no head. `span`: from when all these rows can be, the end excluded."""
        first, last = span
        where, given = _where(replace(wanted, since=first, until=last))
        number = len(given) + 1
        await self._copy(
            f"/* audit.whole */ {_SELECT} WHERE {where}"  # noqa: S608 - parameters only
            f" AND (a.ts >= ${number} AND a.ts < ${number + 1} OR (a.tenant_id, a.segment) IN (SELECT h.tenant_id,"
            f" h.segment FROM audit_heads AS h WHERE h.last_ts >= ${number} AND h.first_ts < ${number + 1}))"
            " ORDER BY a.tenant_id, a.ts, a.id, a.kind",
            [*given, wanted.since, wanted.until],
            take,
        )

    async def _fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        return list(await self._connection.fetch(statement, *values, timeout=_SILENCE_S))

    async def _copy(self, statement: str, given: Sequence[object], take: Callable[[bytes], None]) -> None:
        loop, connection = asyncio.get_running_loop(), self._connection
        cut = loop.call_later(_SILENCE_S, connection.terminate)

        async def taken(block: bytes) -> None:
            nonlocal cut
            cut.cancel()
            take(block)
            cut = loop.call_later(_SILENCE_S, connection.terminate)

        try:
            await connection.copy_from_query(statement, *given, output=taken)
        finally:
            cut.cancel()


def _where(wanted: Wanted) -> tuple[str, list[object]]:
    where, given = conditions(wanted, 1)
    if wanted.tenant is None:
        return where, given
    return f"{where} AND a.tenant_id = ${len(given) + 1}::uuid", [*given, UUID(wanted.tenant)]


def _head(row: asyncpg.Record) -> KeptHead:
    first_us, last_us = ((row[name] - _EPOCH) // _MICROSECOND for name in ("first_ts", "last_ts"))
    head = Head(
        row["tenant_id"], row["segment"], row["row_count"], row["is_final"], row["head"], first_us, last_us,
        row["previous"],
    )  # fmt: skip
    return KeptHead(head, row["key_id"], row["signature"])


@asynccontextmanager
async def reading(dsn: str) -> AsyncIterator[Reader]:
    """A reader. Raises Unavailable, and Rejected for what PostgreSQL refuses."""
    try:
        connection = await asyncpg.connect(dsn, timeout=_CONNECT_S, server_settings={"application_name": "mcp-manager"})
    except (*_LOST, ValueError, asyncpg.PostgresError):
        raise Unavailable("PostgreSQL cannot be reached") from None
    try:
        await connection.execute(_BEGIN, timeout=_CONNECT_S)
        yield Reader(connection)
    except _NOT_THERE:
        raise Rejected("the tables are not there, or not up to date: run 'mcp-manager migrate up'") from None
    except asyncpg.InsufficientPrivilegeError:
        raise Rejected("the user of the database may not act as mcp_manager_admin (docs/database.md, Roles)") from None
    except asyncpg.PostgresError as error:
        raise Rejected(f"PostgreSQL refused: {error.message or type(error).__name__}") from None
    except _LOST as error:
        if connection.is_closed():
            raise Unavailable("the connection was lost") from None
        raise error
    finally:
        with suppress(*_LOST, asyncpg.PostgresError):
            await connection.close(timeout=_FAREWELL_S)
