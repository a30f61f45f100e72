"""What PostgreSQL says of rows of the audit trail, and whether they are chained as they should be."""

from __future__ import annotations

import io

import asyncpg

from proxy.audit.chain import begin, link
from proxy.audit.columns import PLACE, SELECTED, SETTINGS
from tests.unit.store.engine import execute


async def copied(dsn: str) -> list[bytes]:
    """The canonical lines of all rows, in the order of their chains."""
    connection = await asyncpg.connect(dsn)
    try:
        written = io.BytesIO()
        async with connection.transaction():
            await connection.execute(SETTINGS)
            query = f"SELECT {SELECTED} FROM audit_logs ORDER BY segment, tenant_id, seq"
            await connection.copy_from_query(query, output=written)
        return written.getvalue().split(b"\n")[:-1]
    finally:
        await connection.close()


async def chains(dsn: str) -> dict[tuple[str, str], tuple[int, bytes]]:
    """Segment and tenant -> rows and hash; every row was checked against the one before it."""
    stored = await execute(dsn, "SELECT chain FROM audit_logs ORDER BY segment, tenant_id, seq")
    found: dict[tuple[str, str], tuple[int, bytes]] = {}
    for line, (chain,) in zip(await copied(dsn), stored, strict=True):
        fields = line.split(b"\t")
        place = (fields[PLACE["segment"]].decode(), fields[PLACE["tenant_id"]].decode())
        count, before = found.get(place, (0, begin(*place)))
        assert int(fields[PLACE["seq"]]) == count + 1
        assert bytes(chain) == link(before, line)
        found[place] = (count + 1, bytes(chain))
    return found


async def count(dsn: str, table: str) -> int:
    """Rows of a table."""
    return int((await execute(dsn, f"SELECT count(*) FROM {table}"))[0][0])
