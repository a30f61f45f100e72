"""A database with every table and the proxy's login, as an operator's commands use it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from proxy.store.accounts import administration
from proxy.store.database import Bounds, Database, Places, Session
from tests.unit.store.engine import execute, login_dsn, migrated_database, owner_dsn


@dataclass(frozen=True)
class Administered:
    """One database."""

    name: str
    database: Database

    def session(self) -> AbstractAsyncContextManager[Session]:
        """A transaction of the admin plane."""
        return administration(self.database)

    async def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """What a superuser reads."""
        return [dict(row) for row in await execute(owner_dsn(self.name), query, *values)]

    async def events(self) -> list[str]:
        """Kinds of system events in the order in which they happened."""
        return [row["event_type"] for row in await self.rows("SELECT event_type FROM system_events ORDER BY ts")]


@asynccontextmanager
async def administered(name: str = "") -> AsyncIterator[Administered]:
    """A new database, or one that is there."""
    if name:
        async with _opened(name) as here:
            yield here
        return
    async with migrated_database() as made, _opened(made) as here:
        yield here


@asynccontextmanager
async def _opened(name: str) -> AsyncIterator[Administered]:
    database = Database(Places(login_dsn(name)), {"write": Bounds(connections=5, acquire_s=5, statement_s=5)})
    await database.open()
    try:
        yield Administered(name, database)
    finally:
        await database.close()
