"""The audit trail on its way into the archive, in the form of `audit export --whole`, so that it can be proved later.

Owns the statements, and that rows are told in just the words that were hashed. Signed heads come first: those of every
segment with rows in the partition. A segment that reached over midnight has rows in the next one, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from proxy.audit.chain import Head
from proxy.audit.columns import COLUMNS, line
from proxy.audit.passages import head_to_json, to_json

if TYPE_CHECKING:
    import asyncpg

    from proxy.store.pool import Session
    from proxy.store.retention import Retired

TABLE: Final = "audit_logs"
#: Rows read at once, and put into words at once: less than a millisecond of the loop.
_READ_ROWS: Final = 200
_TOLD_ROWS: Final = 20
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

#: Values as `columns.line` takes them. What `format` writes is what COPY writes, unlike a cast.
_EXPRESSIONS: Final = {
    "timestamptz": "(extract(epoch FROM {0}) * 1000000)::bigint",
    "bytea": "encode({0}, 'hex')",
    "uuid": "{0}::text",
    "inet": "CASE WHEN {0} IS NOT NULL THEN format('%s', {0}) END",
}
_SELECTED: Final = ", ".join(_EXPRESSIONS.get(column.type, "{0}").format(column.name) for column in COLUMNS)


async def heads(session: Session, former: Retired) -> list[str]:
    """The last signed head of each segment, as lines of JSON."""
    rows = await session.fetch(f"""/* retention.heads */ WITH place AS MATERIALIZED (
            SELECT tenant_id, segment, min(ts) AS first FROM {former.name} WHERE segment IS NOT NULL GROUP BY 1, 2)
        SELECT DISTINCT ON (h.tenant_id, h.segment) h.tenant_id::text, h.segment, h.row_count, h.is_final, h.head,
            h.first_ts, h.last_ts, h.previous, h.key_id, h.signature
        FROM audit_heads AS h JOIN place AS p ON p.tenant_id = h.tenant_id AND p.segment = h.segment
        WHERE h.last_ts >= (SELECT min(first) FROM place)
        ORDER BY h.tenant_id, h.segment, h.row_count DESC, h.is_final DESC""")  # noqa: S608 - names of our own
    return [_head(row) for row in rows]


def _head(row: asyncpg.Record) -> str:
    first_us, last_us = ((row[name] - _EPOCH) // _MICROSECOND for name in ("first_ts", "last_ts"))
    head = Head(
        row["tenant_id"], row["segment"], row["row_count"], row["is_final"], row["head"], first_us, last_us,
        row["previous"],
    )  # fmt: skip
    return head_to_json(head, row["key_id"], row["signature"]).decode()


async def lines(session: Session, former: Retired) -> AsyncIterator[list[str]]:
    """The rows of a former partition of the trail, each as a line of JSON, some at a time."""
    query = f"SELECT {_SELECTED}, encode(chain, 'hex') FROM {former.name}"  # noqa: S608 - names of our own
    await session.execute(f"/* retention.declare */ DECLARE trail NO SCROLL CURSOR FOR {query}")
    while rows := await session.fetch(f"/* retention.fetch */ FETCH {_READ_ROWS} FROM trail"):
        told: list[str] = []
        for start in range(0, len(rows), _TOLD_ROWS):
            told += _told(rows[start : start + _TOLD_ROWS])
            await asyncio.sleep(0)
        yield told
    await session.execute("/* retention.close */ CLOSE trail")


def _told(rows: Sequence[asyncpg.Record]) -> list[str]:
    told = []
    for row in rows:
        *made, chain = row.values()
        told.append(to_json(line(made) + b"\t" + (chain or "\\N").encode()).decode())
    return told
