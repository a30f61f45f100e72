"""One real PostgreSQL for every test of a process, with as many databases as the tests ask for."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import asyncpg

from proxy.store.database import Bounds, Database, Places
from proxy.store.embedded import EmbeddedPostgres
from proxy.store.migrate import migrator

_NUMBERS: Final = itertools.count(1)
#: For whoever tests something else than how long PostgreSQL may take: a busy machine is no reason to give up.
PATIENT: Final = Bounds(connect_s=30, acquire_s=30, statement_s=30)


def folder() -> Path:
    """A new folder that an unprivileged user may enter, unlike pytest's own: servers do not run as root."""
    path = Path(tempfile.mkdtemp(prefix="mcpm-"))
    path.chmod(0o711)
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def aside(make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine in a thread with a loop of its own, also when this thread has one that runs."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(make())).result(60)


@cache
def cluster() -> EmbeddedPostgres:
    """The server; it ends with the process."""
    server = EmbeddedPostgres(folder() / "postgres")
    aside(server.start)
    atexit.register(lambda: asyncio.run(server.stop()))
    return server


def owner_dsn(name: str) -> str:
    """How the owner of everything reaches a database of this name."""
    return cluster().owner_dsn.replace("/mcp_manager?", f"/{name}?")


def login_dsn(name: str) -> str:
    """How the proxy reaches it."""
    return cluster().dsn.replace("/mcp_manager?", f"/{name}?")


async def execute(dsn: str, statement: str, *values: object) -> list[Any]:
    """Run one statement over a connection of its own; returns the rows."""
    connection = await asyncpg.connect(dsn, timeout=30, command_timeout=60)
    try:
        return list(await connection.fetch(statement, *values))
    finally:
        await connection.close()


@asynccontextmanager
async def empty_database(template: str = "template0") -> AsyncIterator[str]:
    """The name of a new database that is dropped at the end."""
    name = f"test_{next(_NUMBERS)}"
    maintenance = owner_dsn("postgres")
    await execute(maintenance, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield name
    finally:
        await execute(maintenance, f"DROP DATABASE {name} WITH (FORCE)")


async def migrated_template() -> str:
    """A database with every migration applied; made once, then copied."""
    name = "migrated"
    if not await execute(owner_dsn("postgres"), "SELECT 1 FROM pg_database WHERE datname = $1", name):
        await execute(owner_dsn("postgres"), f"CREATE DATABASE {name}")
        async with migrator(owner_dsn(name)) as migrations:
            await migrations.up()
        await cluster().allow()
    return name


@asynccontextmanager
async def migrated_database() -> AsyncIterator[str]:
    """The name of a new database with every table."""
    async with empty_database(await migrated_template()) as name:
        yield name


@asynccontextmanager
async def opened(name: str, **bounds: Any) -> AsyncIterator[Database]:
    """A database of this name as the proxy uses it, with patience but for these bounds of its pool for writing."""
    write = replace(PATIENT, **bounds)
    database = Database(Places(login_dsn(name)), {"write": write, "read": PATIENT, "analytics": PATIENT})
    await database.open()
    yield database
    await database.close()


@asynccontextmanager
async def circle_of_locks(
    name: str, statement: str, first: object, last: object
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Somebody who holds the row of `last`, and takes that of `first` when told to. Who has taken `first` and waits for
    `last` is in a circle with it then, which PostgreSQL ends for whoever waited first. `statement` takes the row $1."""
    somebody = await asyncpg.connect(owner_dsn(name))
    await somebody.execute("SET deadlock_timeout = '30s'")
    transaction = somebody.transaction()
    await transaction.start()
    await somebody.execute(statement, last)

    async def close() -> None:
        while not await execute(owner_dsn(name), "SELECT FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0)
        await somebody.execute(statement, first)

    yield close
    await transaction.rollback()
    await somebody.close()


async def rows(name: str, query: str) -> list[tuple[Any, ...]]:
    """As the owner of everything sees them."""
    return [tuple(row) for row in await execute(owner_dsn(name), query)]
