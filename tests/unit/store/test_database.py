"""For whom a transaction is: roles, tenants and row level security, with the real migrations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest

from proxy.store.database import Database, Places, Unavailable
from tests.unit.store.engine import execute, migrated_database, opened, owner_dsn

INSERT_TENANT = "INSERT INTO tenants (slug, name) VALUES ($1, $1) RETURNING id"
INSERT_SERVER = "/* test.insert */ INSERT INTO mcp_servers (tenant_id, name, endpoint_url) VALUES ($1, $2, 'http://x/')"
NAMES = "/* test.names */ SELECT name FROM mcp_servers ORDER BY name"


@pytest.fixture
async def name() -> AsyncIterator[str]:
    """A database with every table."""
    async with migrated_database() as name:
        yield name


@pytest.fixture
async def database(name: str) -> AsyncIterator[Database]:
    """As the proxy uses it."""
    async with opened(name, connections=2, statement_s=5) as database:
        yield database


async def new_tenant(name: str, slug: str) -> UUID:
    """The id of a tenant that was made."""
    identity: UUID = (await execute(owner_dsn(name), INSERT_TENANT, slug))[0]["id"]
    return identity


async def names(database: Database, tenant: UUID | None) -> list[str]:
    """Servers that a tenant, or the admin plane, can see."""
    async with database.tenant(tenant) if tenant else database.across_tenants() as session:
        return [row["name"] for row in await session.fetch(NAMES)]


async def test_a_tenant_sees_its_own_rows_and_the_admin_plane_sees_all(name: str, database: Database) -> None:
    """Also one after the other on one connection, and without any WHERE."""
    one, other = await new_tenant(name, "one"), await new_tenant(name, "other")
    for tenant in (one, other, one):
        async with database.tenant(tenant) as session:
            await session.execute(INSERT_SERVER, tenant, f"s{uuid4().hex[:4]}-{tenant == one}")
    assert {text[-4:] for text in await names(database, one)} == {"True"}
    assert {text[-4:] for text in await names(database, other)} == {"alse"}
    assert len(await names(database, None)) == 3
    assert await names(database, uuid4()) == []


async def test_a_tenant_writes_no_row_of_another(name: str, database: Database) -> None:
    """Row level security refuses it, and the transaction is gone."""
    one, other = await new_tenant(name, "one"), await new_tenant(name, "other")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with database.tenant(one) as session:
            await session.execute(INSERT_SERVER, other, "foreign")
    assert await names(database, None) == []


async def test_nothing_of_a_tenant_stays_on_a_connection(name: str, database: Database) -> None:
    """After a commit, an error and a cancellation: the next one starts as nobody, with the login's own rights."""
    one = await new_tenant(name, "one")
    who = "/* test.who */ SELECT current_user::text || '/' || coalesce(current_setting('app.tenant', true), '')"
    async with database.tenant(one) as session:
        assert await session.fetch_value(who) == f"mcp_manager_app/{one}"
    with pytest.raises(RuntimeError):
        async with database.tenant(one):
            raise RuntimeError
    task = asyncio.create_task(sleeping(database, one))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(3):
        async with database._pools["write"].transaction("/* test.begin */ BEGIN") as session:
            assert await session.fetch_value(who) == "mcp_manager/"


async def sleeping(database: Database, tenant: UUID) -> None:
    """A transaction that takes its time."""
    async with database.tenant(tenant) as session:
        await session.fetch("/* test.sleep */ SELECT pg_sleep(3)")


async def test_readers_cannot_write(name: str, database: Database) -> None:
    """The purposes read and analytics, the snapshot, and the admin plane by default."""
    tenant = await new_tenant(name, "one")
    for transaction in (
        database.tenant(tenant, "read"), database.tenant(tenant, "analytics"),
        database.across_tenants(), database.snapshot(),
    ):  # fmt: skip
        with pytest.raises((asyncpg.ReadOnlySQLTransactionError, asyncpg.InsufficientPrivilegeError)):
            async with transaction as session:
                await session.execute(INSERT_SERVER, tenant, "x")
    async with database.across_tenants("write") as session:
        await session.execute(INSERT_SERVER, tenant, "x")
    assert await names(database, tenant) == ["x"]


async def test_a_snapshot_sees_one_moment(name: str, database: Database) -> None:
    """What is committed after its first query does not show."""
    tenant = await new_tenant(name, "one")
    async with database.snapshot() as session:
        assert await session.fetch(NAMES) == []
        async with database.tenant(tenant) as other:
            await other.execute(INSERT_SERVER, tenant, "late")
        assert await session.fetch(NAMES) == []
    assert await names(database, tenant) == ["late"]


async def test_the_writer_of_the_records_reads_none(database: Database) -> None:
    """It can append, of whatever tenant."""
    columns = "/* test.columns */ SELECT has_table_privilege('system_events', 'INSERT')"
    async with database.audit() as session:
        assert await session.fetch_value(columns) is True
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with database.audit() as session:
            await session.fetch("/* test.read */ SELECT * FROM system_events")


@pytest.mark.parametrize("tenant", ["", "acme", "'; DROP TABLE tenants; --", "00000000-0000-0000-0000-00000000000g"])
async def test_a_tenant_is_a_uuid(tenant: str, database: Database) -> None:
    """Anything else is refused before it comes near a statement."""
    with pytest.raises(ValueError, match="UUID"):
        async with database.tenant(tenant):
            pass


async def test_places_that_are_not_given_are_the_main_one() -> None:
    """They share what is known of its state: one failure speaks for all, one probe too."""
    places = Places("postgresql://u:hidden@127.0.0.1:1/x", analytics_dsn="postgresql://u:hidden@127.0.0.1:2/x")
    assert "hidden" not in repr(places)
    database = Database(places, {})
    await database.open()
    with pytest.raises(Unavailable):
        async with database.tenant(uuid4(), "read"):
            pass
    numbers = database.numbers()
    assert [numbers[purpose].circuit_open for purpose in ("write", "read", "analytics")] == [True, True, False]
    await asyncio.sleep(0.3)
    await database.probe()
    assert numbers["write"].circuit_open
    await database.close()
