"""Where the trail is read from by commands that read much of it: the replica for long queries, if there is one.

Owns which database that is, and the portions in which much is read. Unlike changes, reading makes no tables.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from proxy.commands.connection import postgres_of, turn
from proxy.config.models import Config
from proxy.store.audit_copy import Reader, reading
from proxy.store.lifecycle import embedded_postgres

DAY: Final = timedelta(days=1)
#: Segments of one portion, of all tenants: 1 KiB of memory each. A portion of one minute is never divided.
_MOST_PLACES: Final = 100_000
_SHORTEST: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Range:
    """What is asked for; `until` excluded."""

    since: datetime
    until: datetime
    tenant: str | None


async def portions(reader: Reader, asked: Range, tenant: UUID | None) -> AsyncIterator[tuple[datetime, datetime]]:
    """The range in portions: days (UTC), or less where there are too many segments; what is to come is one."""
    since, to_come = asked.since, datetime.now(UTC) + DAY
    while since < asked.until:
        until = asked.until
        if since < to_come:
            until = min(until, since.replace(hour=0, minute=0, second=0, microsecond=0) + DAY)
        while until - since > _SHORTEST and await reader.places(since, until, tenant) > _MOST_PLACES:
            until = since + (until - since) / 2
        yield since, until
        since = until


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
