"""Where the trail is read from by commands that read much of it: the replica for long queries, if there is one.

Owns which database that is. Unlike changes, reading brings no tables up to date.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from proxy.commands.connection import postgres_of, turn
from proxy.config.models import Config
from proxy.store.audit_copy import Reader, reading
from proxy.store.lifecycle import embedded_postgres


@asynccontextmanager
async def reader_of(config: Config) -> AsyncIterator[Reader]:
    """A reader of the configured database; an embedded server runs for as long. Raises Misuse, and as `reading`."""
    postgres, state_dir = postgres_of(config), Path(config.state_dir)
    dsn = postgres.analytics_dsn or postgres.dsn
    if dsn is not None:
        async with reading(dsn.get_secret_value()) as reader:
            yield reader
        return
    async with turn(postgres.embedded, state_dir):
        server = embedded_postgres(state_dir)
        await server.start_or_join()
        try:
            async with reading(server.dsn) as reader:
                yield reader
        finally:
            await server.stop()
