"""Databases that have the whole schema: a connection to one, and one as the proxy uses it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg
import pytest

from benchmarks.sql_seed import SMALL, seed
from proxy.store.database import Database
from tests.unit.store.engine import (
    empty_database,
    execute,
    migrated_database,
    migrated_template,
    opened,
    owner_dsn,
)

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

#: Two tenants, and a server of each.
ACME = "11111111-1111-1111-1111-111111111111"
OTHER = "22222222-2222-2222-2222-222222222222"
SERVER = "33333333-3333-3333-3333-333333333333"
OTHERS = "44444444-4444-4444-4444-444444444444"
_SEEDED = "seeded"


@pytest.fixture
async def name() -> AsyncIterator[str]:
    """A new database with every table and two tenants that have a server each."""
    async with migrated_database() as name:
        for tenant, slug, server in ((ACME, "acme", SERVER), (OTHER, "other", OTHERS)):
            await execute(owner_dsn(name), f"INSERT INTO tenants (id, slug, name) VALUES ('{tenant}', '{slug}', 'T')")
            await execute(
                owner_dsn(name),
                "INSERT INTO mcp_servers (id, tenant_id, name, endpoint_url) "
                f"VALUES ('{server}', '{tenant}', 's', 'https://s.example/')",
            )
        yield name


@pytest.fixture
async def database(name: str) -> AsyncIterator[Database]:
    """The same as the proxy uses it."""
    async with opened(name, connections=2, statement_s=5) as database:
        yield database


@pytest.fixture
async def owner() -> AsyncIterator[Connection]:
    """A superuser in a new database with every table and no rows but the system tenant."""
    async with migrated_database() as name:
        connection = await asyncpg.connect(owner_dsn(name))
        yield connection
        await connection.close()


@pytest.fixture
async def fresh() -> AsyncIterator[str]:
    """How a superuser reaches a new database without tables."""
    async with empty_database() as name:
        yield owner_dsn(name)


@pytest.fixture
async def seeded() -> AsyncIterator[Connection]:
    """A superuser in a database with the rows of the generator, made once; what a test changes is taken back."""
    maintenance = owner_dsn("postgres")
    if not await execute(maintenance, "SELECT 1 FROM pg_database WHERE datname = $1", _SEEDED):
        template = await migrated_template()
        await execute(maintenance, f"CREATE DATABASE {_SEEDED} TEMPLATE {template}")
        connection = await asyncpg.connect(owner_dsn(_SEEDED))
        await seed(connection, SMALL)
        await connection.close()
    connection = await asyncpg.connect(owner_dsn(_SEEDED))
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    await transaction.rollback()
    await connection.close()
