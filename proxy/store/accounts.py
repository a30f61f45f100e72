"""Changes by an operator: one transaction of the admin plane each, with what PostgreSQL refuses in words for people.

Owns the transaction, the words and the event that tells of a change; the tables are those of `tenants.py`, `keys.py`
and `servers.py`. It knows no command line.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from proxy.store.database import Database, Session

#: Without the migrations there is no role to take on (22023), or no table.
_NOT_MIGRATED: Final = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidParameterValueError,
)
_EVENT: Final = """\
/* events.add */ INSERT INTO system_events (id, ts, tenant_id, event_type, component, message, details)
VALUES (gen_random_uuid(), now(), $1, $2, 'command line', $3, $4::jsonb)"""


class Rejected(Exception):
    """What was asked for cannot be done; the text is for people and shows no value that could be a secret."""


@asynccontextmanager
async def administration(database: Database) -> AsyncIterator[Session]:
    """A transaction that may change rows of every tenant. Raises Rejected for what PostgreSQL refuses, Unavailable."""
    try:
        async with database.across_tenants("write") as session:
            yield session
    except _NOT_MIGRATED:
        raise Rejected("the tables are not there, or not up to date: run 'mcp-manager migrate up'") from None
    except asyncpg.InsufficientPrivilegeError:
        raise Rejected(
            "the user of 'postgres.dsn' may not act as mcp_manager_admin (docs/database.md, Roles)"
        ) from None
    except asyncpg.PostgresError as error:
        raise Rejected(f"PostgreSQL refused: {error.message or type(error).__name__}") from None


async def note(session: Session, tenant_id: UUID, event: str, message: str, details: Mapping[str, Any]) -> None:
    """Add a row to `system_events`, in the transaction of the change that it tells of. No secret may be in it."""
    await session.execute(_EVENT, tenant_id, event, message, orjson.dumps(details).decode())
