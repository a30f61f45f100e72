"""Transactions of the admin plane: what PostgreSQL refuses becomes a sentence, and events come with their change."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from proxy.identity.records import SYSTEM_TENANT
from proxy.store.accounts import Rejected, administration, note
from proxy.store.database import Bounds, Database, Places, Unavailable
from tests.unit.store.administered import Administered, administered
from tests.unit.store.engine import empty_database, execute, owner_dsn

SYSTEM = UUID(SYSTEM_TENANT)


@pytest.fixture
async def here() -> AsyncIterator[Administered]:
    """A database."""
    async with administered() as made:
        yield made


async def test_an_event_is_written_with_its_change_or_not_at_all(here: Administered) -> None:
    """It is a row of the same transaction."""
    with pytest.raises(RuntimeError):
        async with here.session() as session:
            await note(session, SYSTEM, "lost", "Something", {})
            raise RuntimeError
    async with here.session() as session:
        await note(session, SYSTEM, "kept", "Something", {"names": ["a"]})
    rows = await here.rows("SELECT tenant_id, event_type, severity, component, message, details FROM system_events")
    assert [(row["tenant_id"], row["event_type"], row["component"]) for row in rows] == [
        (SYSTEM, "kept", "command line")
    ]
    assert json.loads(rows[0]["details"]) == {"names": ["a"]}


async def test_a_database_without_tables_says_what_to_do() -> None:
    """Roles belong to the whole server, so they may be there without the tables."""
    async with empty_database() as name, administered(name) as here:
        with pytest.raises(Rejected, match="migrate up"):
            async with here.session() as session:
                await note(session, SYSTEM, "x", "x", {})


async def test_a_user_without_the_role_is_told_which(here: Administered) -> None:
    """Operators grant the roles themselves."""
    await execute(owner_dsn(here.name), "CREATE ROLE stranger LOGIN PASSWORD 'x'")
    dsn = owner_dsn(here.name).replace("//postgres:", "//stranger:").replace(_password(here), ":x@")
    database = Database(Places(dsn), {"write": Bounds(acquire_s=5, statement_s=5)})
    await database.open()
    try:
        with pytest.raises(Rejected, match="mcp_manager_admin"):
            async with administration(database):
                pass
    finally:
        await database.close()
        await execute(owner_dsn(here.name), "DROP ROLE stranger")


def _password(here: Administered) -> str:
    return f":{owner_dsn(here.name).partition('//')[2].partition(':')[2].partition('@')[0]}@"


async def test_anything_else_that_postgresql_refuses_is_one_sentence(here: Administered) -> None:
    """Of a row only the names are shown."""
    with pytest.raises(Rejected, match=r"^PostgreSQL refused: .*tenants_slug_check") as refused:
        async with here.session() as session:
            await session.execute("/* test.bad */ INSERT INTO tenants (slug, name) VALUES ('Planted Slug', 'x')")
    assert "Planted" not in str(refused.value)
    assert not isinstance(refused.value.__cause__, asyncpg.PostgresError)


async def test_a_database_that_is_away_is_not_rejected_but_unavailable() -> None:
    """It may be there the next time."""
    database = Database(Places("postgresql://u:planted@127.0.0.1:1/x"), {})
    await database.open()
    with pytest.raises(Unavailable) as away:
        async with administration(database):
            pass
    assert "planted" not in str(away.value)
    await database.close()
