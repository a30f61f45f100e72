"""A database that has the whole schema and a tenant: its name, and as the proxy uses it. Tests add what they need."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from proxy.store.database import Database
from tests.unit.store.engine import execute, migrated_database, opened, owner_dsn

ACME = "11111111-1111-1111-1111-111111111111"


@pytest.fixture
async def name() -> AsyncIterator[str]:
    """A new database with every table and a tenant."""
    async with migrated_database() as name:
        await execute(owner_dsn(name), f"INSERT INTO tenants (id, slug, name) VALUES ('{ACME}', 'acme', 'Acme')")
        yield name


@pytest.fixture
async def database(name: str) -> AsyncIterator[Database]:
    """The same as the proxy uses it."""
    async with opened(name, connections=2, statement_s=5) as database:
        yield database
