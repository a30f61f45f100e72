"""Trails in a database, as the proxy would have written them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from proxy.audit.chain import Head
from proxy.audit.columns import NAMES, PLACE
from proxy.audit.copied import iso
from proxy.audit.signing import Signer
from tests.unit.audit.trails import ACME, SIGNER, ZETA, record, trail_of

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: From before the records of `trails.record`, and after them.
MORNING: Final = datetime(2026, 11, 22, 6, tzinfo=UTC)
EVENING: Final = datetime(2026, 11, 22, 18, tzinfo=UTC)


def stored(line: bytes) -> bytes:
    """A line of COPY as the table takes it, in which times and hashes are no numbers and digits."""
    parts = line.split(b"\t")
    parts[PLACE["ts"]] = iso(int(parts[PLACE["ts"]])).encode()
    for place in (PLACE["arguments_hash"], -1):
        if parts[place] != b"\\N":
            parts[place] = b"\\\\x" + parts[place]
    return b"\t".join(parts) + b"\n"


async def add_lines(dsn: str, lines: Sequence[bytes]) -> None:
    """Add rows, as a superuser, whom no policy keeps from COPY."""
    connection = await asyncpg.connect(dsn)
    try:
        source = io.BytesIO(b"".join(map(stored, lines)))
        await connection.copy_to_table("audit_logs", source=source, columns=[*NAMES, "chain"])
    finally:
        await connection.close()


async def add_signed(dsn: str, heads: Sequence[Head], signer: Signer | None = SIGNER) -> None:
    """Add heads with their signatures."""
    rows = [
        (
            head.tenant, head.segment, head.rows, head.is_final, head.digest, _moment(head.first_us),
            _moment(head.last_us), head.previous, signer.key_id if signer else None,
            signer.sign(head.text()) if signer else None,
        )
        for head in heads
    ]  # fmt: skip
    connection = await asyncpg.connect(dsn)
    try:
        await connection.executemany(
            "INSERT INTO audit_heads (tenant_id, segment, row_count, is_final, head, first_ts, last_ts, previous,"
            " key_id, signature) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            rows,
        )
    finally:
        await connection.close()


def _moment(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


async def add_trail(dsn: str, count: int = 40, segment: str = "one/1", first: int = 0) -> list[Head]:
    """Two tenants, of whose rows every third is Zeta's, and their heads; `first`: number of the first record."""
    rows = [record(number, ACME if number % 3 else ZETA, instance=segment) for number in range(first, first + count)]
    lines, heads = trail_of(rows, segment)
    await add_lines(dsn, lines)
    await add_signed(dsn, heads)
    return heads


async def add_tenants(dsn: str) -> None:
    """The two."""
    connection = await asyncpg.connect(dsn)
    try:
        for tenant, slug in ((ACME, "acme"), (ZETA, "zeta")):
            await connection.execute("INSERT INTO tenants (id, slug, name) VALUES ($1, $2, $2)", tenant, slug)
    finally:
        await connection.close()
