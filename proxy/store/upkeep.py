"""The regular work that PostgreSQL does on itself: partitions for the days to come, and materialized views.

Owns the two calls and how a database that is not migrated yet shows. When they are due is `housekeeping.py`'s business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import asyncpg

from proxy.store.pool import Unavailable

if TYPE_CHECKING:
    from proxy.store.database import Database, Session

#: Both functions run with their owner's rights and concern no tenant; one has to be named all the same.
_NOBODY: Final = "00000000-0000-0000-0000-000000000000"
#: No such function, table or role, or no right to it.
_MISSING: Final = (
    asyncpg.UndefinedFunctionError, asyncpg.UndefinedTableError, asyncpg.InvalidParameterValueError,
    asyncpg.InsufficientPrivilegeError,
)  # fmt: skip

_PARTITIONS: Final = "/* upkeep.partitions */ SELECT create_partitions()"
_VIEWS: Final = "/* upkeep.views */ SELECT view_name, error IS NULL FROM refresh_materialized_views()"


async def create_partitions(database: Database) -> list[str]:
    """Make the partitions of the next days that are missing; returns their names.

    A table that is in use is passed over, and looked at again in the next transaction, which holds no other's locks.
    `database` should allow for long statements. Raises Unavailable, also when the function is not there (yet), TooSlow
    when it took too long or a table is still in use, and asyncpg.PostgresError for anything else.
    """
    made: list[str] = []
    while True:
        async with _working(database) as session:
            some = [row[0] for row in await session.fetch(_PARTITIONS)]
        if not some:
            return made
        made += some


async def refresh_views(database: Database) -> dict[str, bool]:
    """Refresh the materialized views that are due; returns of each whether that went well. Raises as the other one.

    Why one failed is in the table `materialized_views`.
    """
    async with _working(database) as session:
        return {row[0]: row[1] for row in await session.fetch(_VIEWS)}


@asynccontextmanager
async def _working(database: Database) -> AsyncIterator[Session]:
    try:
        async with database.tenant(_NOBODY) as session:
            yield session
    except _MISSING as error:
        raise Unavailable(f"PostgreSQL is not migrated: {type(error).__name__}") from None
