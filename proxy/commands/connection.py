"""The configured database, for the time of one command.

Owns which one that is: `postgres.dsn`, or the embedded server of `state_dir`, which is joined when the proxy runs it
and otherwise started, migrated and ended again. What is asked of it is the command's business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Final, TypeVar

from proxy.commands.console import Misuse
from proxy.config.models import Config
from proxy.config.stores import Postgres, PostgresTimeouts
from proxy.store.accounts import Rejected, administration
from proxy.store.child_server import EmbeddedError
from proxy.store.database import Session, Unavailable
from proxy.store.lifecycle import Stores
from proxy.store.migrate import MigrationError

_Result = TypeVar("_Result")

#: A person waits longer than a request, and the first connection takes the longest.
_PATIENCE: Final = PostgresTimeouts.model_validate({"connect": "10s", "acquire": "15s", "statement": "30s"})
_FAILURES: Final = (EmbeddedError, MigrationError, Rejected)


def postgres_of(config: Config) -> Postgres:
    """The section `postgres`. Raises Misuse when there is none."""
    if config.postgres is None:
        raise Misuse("the configuration has no 'postgres', so there is nowhere to keep this (docs/database.md)")
    return config.postgres


def change(config: Config, work: Callable[[Session], Awaitable[_Result]]) -> _Result:
    """What `work` returns, done in one transaction of the admin plane. Raises Misuse."""
    return carried_out(_changed(config, work))


def carried_out(work: Coroutine[object, object, _Result]) -> _Result:
    """What `work` returns, with every failure of a database or file as Misuse."""
    try:
        return asyncio.run(work)
    except _FAILURES as error:
        raise Misuse(str(error)) from None
    except Unavailable as error:
        raise Misuse(f"{error}; 'mcp-manager migrate status' may say why") from None
    except OSError as error:
        raise Misuse(str(error) or type(error).__name__) from None


async def _changed(config: Config, work: Callable[[Session], Awaitable[_Result]]) -> _Result:
    postgres = postgres_of(config).model_copy(update={"timeouts": _PATIENCE})
    stores = Stores(postgres, None, Path(config.state_dir), time.monotonic, lambda: 0.5)
    await stores.start(join=True)
    try:
        if stores.database is None:
            raise Misuse("there is no database")
        async with administration(stores.database) as session:
            return await work(session)
    finally:
        await stores.stop()
