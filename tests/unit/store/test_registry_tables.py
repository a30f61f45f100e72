"""The statements of the registry, with rows at the edge of what PostgreSQL can hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import fields
from datetime import UTC, datetime

import asyncpg
import pytest

from proxy.store.registry_tables import HASHED, PAGE, TABLES
from tests.unit.store.engine import migrated_database, owner_dsn
from tests.unit.store.test_registry import ACME, SYSTEM


@pytest.fixture
async def owner() -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A superuser in a database with a tenant and a user."""
    async with migrated_database() as name:
        connection = await asyncpg.connect(owner_dsn(name))
        await connection.execute(f"INSERT INTO tenants (id, slug, name) VALUES ('{ACME}', 'acme', 'Acme')")
        await connection.execute("INSERT INTO \"user\" (id, name, email) VALUES ('ada', 'Ada', 'a@example.com')")
        yield connection
        await connection.close()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("infinity", datetime(9999, 1, 1, tzinfo=UTC)),
        ("294276-01-01 00:00Z", datetime(9999, 1, 1, tzinfo=UTC)),
        ("-infinity", datetime(2, 1, 1, tzinfo=UTC)),
        ("4713-01-01 00:00Z BC", datetime(2, 1, 1, tzinfo=UTC)),
        ("2026-11-22 01:02:03.000004+03", datetime(2026, 11, 21, 22, 2, 3, 4, tzinfo=UTC)),
        (None, None),
    ],
)
async def test_no_time_is_beyond_python(
    written: str | None, read: datetime | None, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    """asyncpg fails at some of them, and one row would keep all others from being read."""
    await owner.execute(
        "INSERT INTO api_keys (tenant_id, name, key_hash, expires_at) "
        f"VALUES ('{ACME}', 'k', sha256('k'), $1::text::timestamptz)", written,
    )  # fmt: skip
    table = TABLES["api_keys"]
    record = await owner.fetchrow(table.page, None)
    assert record is not None
    assert record[[column.name for column in fields(table.row)].index("expires_at")] == read


async def test_expired_rows_leave_with_the_hour(owner: asyncpg.Connection[asyncpg.Record]) -> None:
    """While it passes, fingerprints stand still; what expired before it began is not there."""
    session = "INSERT INTO session (id, expires_at, token, user_id) VALUES ($1, $2::text::timestamptz, $1, 'ada')"
    hour = await owner.fetchval("SELECT date_trunc('hour', now())")
    for identity, moment in (("before", hour), ("within", hour.replace(second=1))):
        await owner.execute(session, identity, moment.isoformat())
    count, digest, last = await owner.fetchrow(TABLES["session"].fingerprint, None) or ()
    assert [row["id"] for row in await owner.fetch(TABLES["session"].page, None)] == ["within"]
    assert (count, last) == (1, "within")
    assert [tuple(row) for row in await owner.fetch(TABLES["session"].hashed_page, None)] == [("within", digest)]


@pytest.mark.parametrize("name", ["mcp_servers", "enhanced_api_keys"])
async def test_pages_hold_each_row_once_in_order(name: str, owner: asyncpg.Connection[asyncpg.Record]) -> None:
    """Of rows and of hashes; the last id of a fingerprint's page leads to the next."""
    await fill(owner, HASHED + 1)
    table = TABLES[name]
    rows = await owner.fetch(table.page, None)
    hashes = await owner.fetch(table.hashed_page, None)
    count, digest, last = await owner.fetchrow(table.fingerprint, None) or ()
    ids = [row[0] for row in hashes]
    assert (len(rows), len(hashes), count) == (PAGE, HASHED, HASHED)
    assert ids == sorted(ids)
    assert [row[0] for row in rows] == ids[:PAGE]
    assert last == ids[-1]
    rest = await owner.fetch(table.hashed_page, last)
    assert len(rest) == 1 and rest[0][0] > last
    assert (await owner.fetchrow(table.fingerprint, last) or ())[:2] == (1, rest[0][1])
    some = await owner.fetch(table.hashed_some, ids[:7])
    assert {row[0]: row[1] for row in some} == {row[0]: row[1] for row in hashes[:7]}
    assert digest != 0


async def fill(owner: asyncpg.Connection[asyncpg.Record], number: int) -> None:
    """So many servers and keys."""
    await owner.execute(
        f"INSERT INTO mcp_servers (tenant_id, name, endpoint_url) SELECT '{SYSTEM}', 's' || n, 'http://x/' "
        f"FROM generate_series(1, {number}) n"
    )
    await owner.execute(
        "INSERT INTO enhanced_api_keys (id, tenant_id, name, secret_hmac) SELECT lpad(n::text, 12, '0'), "
        f"'{ACME}', 'k', sha256(n::text::bytea) FROM generate_series(1, {number}) n"
    )
