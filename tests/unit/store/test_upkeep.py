"""Partitions and materialized views, as the proxy's own user."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg
import pytest

from proxy.store import pool
from proxy.store.database import Database, Places
from proxy.store.pool import TooSlow, Unavailable
from proxy.store.upkeep import create_partitions, refresh_views
from tests.unit.store.engine import PATIENT, empty_database, execute, login_dsn, migrated_database, opened, owner_dsn

VIEWS = {"server_performance_hourly", "tenant_usage_daily"}


@pytest.fixture
async def name() -> AsyncIterator[str]:
    """A database with every table."""
    async with migrated_database() as name:
        yield name


@pytest.fixture
async def database(name: str) -> AsyncIterator[Database]:
    """With a long deadline."""
    async with opened(name, connections=1, statement_s=30) as database:
        yield database


async def test_partitions_are_made_once(name: str, database: Database) -> None:
    """Those of a week; the second call has nothing to do."""
    made = await create_partitions(database)
    assert len([one for one in made if one.startswith("request_logs_")]) >= 7
    tables = {row[0] for row in await execute(owner_dsn(name), "SELECT relname FROM pg_class WHERE relispartition")}
    assert set(made) <= tables
    assert await create_partitions(database) == []


@asynccontextmanager
async def reader(name: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A user in a transaction, whose every wait PostgreSQL looks at before ours: who waits in a circle is ended."""
    connection = await asyncpg.connect(owner_dsn(name))
    await connection.execute("SET deadlock_timeout = '10ms'")
    async with connection.transaction():
        yield connection
    await connection.close()


async def waits_or_is_done(name: str, work: asyncio.Task[list[str]]) -> None:
    """Until somebody waits for a lock, or has ended."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'"
    while not work.done() and (await execute(owner_dsn(name), waiting))[0][0] == 0:
        await asyncio.sleep(0)


@pytest.mark.parametrize("table", ["request_logs", "server_metrics"])
@pytest.mark.parametrize("held", ["", "_default"])
async def test_making_partitions_never_ends_a_query(name: str, table: str, held: str) -> None:
    """One that holds the table (or a partition), and then asks for all of it: ours gives way, and comes again."""
    async with opened(name, connections=1, statement_s=30) as database, reader(name) as user:
        await user.execute(f"LOCK TABLE ONLY {table}{held} IN ACCESS SHARE MODE")
        work = asyncio.create_task(create_partitions(database))
        await waits_or_is_done(name, work)
        assert await user.fetchval(f"SELECT count(*) FROM {table}") == 0
        with pytest.raises(TooSlow):
            await work
        made = await execute(owner_dsn(name), f"SELECT FROM pg_inherits WHERE inhparent = '{table}'::regclass")
        assert len(made) == 1
        others = await execute(owner_dsn(name), "SELECT FROM pg_inherits WHERE inhparent = 'error_logs'::regclass")
        assert len(others) > 1
    async with opened(name, connections=1, statement_s=30) as database:
        assert all(one.startswith(f"{table}_2") for one in await create_partitions(database))


async def test_a_query_that_comes_while_partitions_are_waited_for_is_held_up_for_moments(name: str) -> None:
    """A tenth of a second for each lock that ours waits for in vain, and no table is locked while ours waits."""
    async with opened(name, connections=1, statement_s=30) as database, reader(name) as user:
        await user.fetch("LOCK TABLE ONLY request_logs IN ACCESS SHARE MODE")
        work = asyncio.create_task(create_partitions(database))
        await waits_or_is_done(name, work)
        began = asyncio.get_running_loop().time()
        await execute(owner_dsn(name), "SELECT count(*) FROM request_logs")
        assert asyncio.get_running_loop().time() - began < 20  # who waited for ours would wait for 30 s
        with pytest.raises(TooSlow):
            await work


async def test_views_are_refreshed_when_they_are_due(name: str, database: Database) -> None:
    """Each says how it went; one that fails keeps no other from it."""
    await execute(owner_dsn(name), "INSERT INTO materialized_views (view_name) VALUES ('absent')")
    assert await refresh_views(database) == {**dict.fromkeys(VIEWS, True), "absent": False}
    assert await refresh_views(database) == {"absent": False}


async def test_a_database_that_is_not_migrated_is_unavailable() -> None:
    """It may be any moment."""
    async with empty_database() as name:
        database = Database(Places(login_dsn(name)), {})
        await database.open()
        for work in (create_partitions, refresh_views):
            with pytest.raises(Unavailable, match="not migrated"):
                await work(database)
        await database.close()


async def test_work_that_takes_too_long_is_given_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that somebody holds is none of our business."""
    monkeypatch.setattr(pool, "_GRACE_S", 30.0)  # PostgreSQL says so, however busy the machine is
    database = Database(Places(login_dsn(name)), {"write": replace(PATIENT, statement_s=0.2)})
    await database.open()
    blocker = await asyncpg.connect(owner_dsn(name))
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE request_logs, materialized_views IN ACCESS EXCLUSIVE MODE")
        for work in (create_partitions, refresh_views):
            with pytest.raises(TooSlow):
                async with asyncio.timeout(20):
                    await work(database)
    await blocker.close()
    await database.close()


async def test_an_error_that_has_nothing_to_do_with_migrations_is_told(name: str, database: Database) -> None:
    """It is a bug, and whoever runs the work logs it."""
    await execute(
        owner_dsn(name),
        "CREATE OR REPLACE FUNCTION create_partitions(since timestamptz DEFAULT now(), ahead interval DEFAULT '7 days')"
        " RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN RAISE division_by_zero; END $$",
    )
    with pytest.raises(asyncpg.DivisionByZeroError):
        await create_partitions(database)
