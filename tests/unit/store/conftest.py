"""Connections to databases that have the whole schema, for the tests of `sql/migrations`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg
import pytest

from benchmarks.sql_seed import SMALL, seed
from tests.unit.store.engine import empty_database, execute, migrated_database, migrated_template, owner_dsn

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_SEEDED = "seeded"


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
