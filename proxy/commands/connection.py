"""The configured database, for the time of one command.

Owns which one that is: `postgres.dsn`, or the embedded server of `state_dir`, which is joined when the proxy runs it
and otherwise started, migrated and ended again. What is asked of it is the command's business.

Commands take turns at an embedded server: what one starts ends with it, whoever else would be using it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from proxy.commands.console import Misuse, told
from proxy.config.models import Config
from proxy.config.stores import Postgres, PostgresTimeouts
from proxy.store.accounts import Rejected, administration
from proxy.store.child_server import EmbeddedError
from proxy.store.database import Session, Unavailable
from proxy.store.lifecycle import Stores, embedded_postgres
from proxy.store.migrate import MigrationError, migrator

_Result = TypeVar("_Result")

#: A person waits longer than a request, and the first connection takes the longest.
_PATIENCE: Final = PostgresTimeouts.model_validate({"connect": "10s", "acquire": "15s", "statement": "30s"})
#: How long other commands may take, how often we look; seconds.
_TURN_S: Final = 60
_STEP_S: Final = 0.02
#: How long we look for the reason why PostgreSQL cannot be used, seconds.
_REASON_S: Final = 10.0
_FAILURES: Final = (EmbeddedError, MigrationError, Rejected)


def postgres_of(config: Config) -> Postgres:
    """The section `postgres`. Raises Misuse when there is none."""
    if config.postgres is None:
        raise Misuse("the configuration has no 'postgres', so there is nowhere to keep this (docs/database.md)")
    return config.postgres


def change(config: Config, work: Callable[[Session], Awaitable[_Result]]) -> _Result:
    """What `work` returns, done in one transaction of the admin plane. Raises Misuse."""
    return carried_out(_changed(config, work), config)


def carried_out(work: Coroutine[object, object, _Result], config: Config | None = None) -> _Result:
    """What `work` returns, with every failure of a database or file as Misuse; with `config` it says why the database
    cannot be used."""
    try:
        return asyncio.run(work)
    except _FAILURES as error:
        raise Misuse(str(error)) from None
    except Unavailable as error:
        raise Misuse(_reason(config) or f"{error}; 'mcp-manager migrate status' may say why") from None
    except OSError as error:
        raise Misuse(told(error)) from None


def _reason(config: Config | None) -> str:
    """Why `postgres.dsn` cannot be connected to, which the pools do not tell; '' when it can, or nobody knows."""
    dsn = config.postgres.dsn if config is not None and config.postgres is not None else None
    if dsn is None:
        return ""

    async def connected() -> None:
        async with asyncio.timeout(_REASON_S), migrator(dsn.get_secret_value()):
            pass

    try:
        asyncio.run(connected())
    except MigrationError as error:
        return f"{error} (postgres.dsn)"
    except TimeoutError:
        pass
    return ""


async def _changed(config: Config, work: Callable[[Session], Awaitable[_Result]]) -> _Result:
    postgres = postgres_of(config).model_copy(update={"timeouts": _PATIENCE})
    stores = Stores(postgres, None, Path(config.state_dir), time.monotonic, lambda: 0.5)
    async with turn(postgres.embedded, Path(config.state_dir)):
        await stores.start(join=True)
        try:
            if stores.database is None:
                raise Misuse("there is no database")
            async with administration(stores.database) as session:
                return await work(session)
        finally:
            await stores.stop()


@asynccontextmanager
async def owner_dsn(config: Config) -> AsyncIterator[str]:
    """How migrations reach the database; an embedded server can be migrated inside the block. Raises Misuse."""
    postgres, state_dir = postgres_of(config), Path(config.state_dir)
    dsn = postgres.owner_dsn or postgres.dsn
    if dsn is not None:
        yield dsn.get_secret_value()
        return
    async with turn(postgres.embedded, state_dir):
        server = embedded_postgres(state_dir)
        await server.start_or_join()
        try:
            yield server.owner_dsn
        finally:
            await server.stop()


@asynccontextmanager
async def turn(embedded: bool, state_dir: Path) -> AsyncIterator[None]:
    """Wait until no other command uses the embedded servers. Raises OSError, Misuse."""
    if not embedded:
        yield
        return
    with _lock_file(state_dir) as lock:
        await _lock(lock.fileno())
        yield


def _lock_file(state_dir: Path) -> BinaryIO:
    state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)  # the server may be another user
    return open(os.open(state_dir / "commands.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")


async def _lock(descriptor: int) -> None:
    for _ in range(round(_TURN_S / _STEP_S)):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        await asyncio.sleep(_STEP_S)
    raise Misuse(f"another command has been using the embedded database for {_TURN_S} s")
