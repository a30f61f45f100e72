"""The regular work in a real PostgreSQL: at the start, every day, every minute, and not while it is away."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, cast

import asyncpg
import pytest

from proxy.background.housekeeping import Housekeeping
from proxy.log import Logger
from proxy.store.database import Bounds, Database, Places
from proxy.store.embedded import EmbeddedPostgres
from proxy.store.migrate import migrator
from tests.unit.background.test_registry_sync import frozen
from tests.unit.store.engine import empty_database, execute, folder, login_dsn, owner_dsn

PARTITIONS = "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' AND relname ~ '_[0-9]+$'"
REFRESHED = "SELECT view_name, last_refreshed_at FROM materialized_views WHERE last_refreshed_at IS NOT NULL"
DUE = "UPDATE materialized_views SET refresh_strategy = 'always'"
DAY = 86_400.0


class Lines:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.said.append((event, fields))

    warning = info


class House:
    """A database, its housekeeping, and a clock that is moved by hand."""

    def __init__(self, dsn: str, statement_s: float = 30.0) -> None:
        self.now = 100.0
        self.lines = Lines()
        bounds = Bounds(connections=1, connect_s=0.5, statement_s=statement_s)
        self.database = Database(Places(dsn), {"write": bounds}, lambda: self.now)
        self.keeping = Housekeeping(self.database, cast(Logger, self.lines), lambda: self.now)

    async def step(self, after_s: float = 60.0) -> None:
        """A step some time later."""
        self.now += after_s
        await self.keeping.step()


@pytest.fixture
async def house(name: str) -> AsyncIterator[House]:
    """With a long deadline."""
    house = House(login_dsn(name))
    await house.database.open()
    yield house
    await house.database.close()


async def rows(name: str, statement: str) -> dict[str, Any]:
    """First column to last."""
    return {row[0]: row[-1] for row in await execute(owner_dsn(name), statement)}


async def test_partitions_are_made_at_the_start_and_every_day(name: str, house: House) -> None:
    """What was dropped meanwhile is made again a day later, not before."""
    await house.step(0)
    made = set(await rows(name, PARTITIONS))
    one = min(partition for partition in made if partition.startswith("request_logs_"))
    assert house.lines.said == [("partitions made", {"number": len(made)})]
    await execute(owner_dsn(name), f"DROP TABLE {one}")
    await house.step()
    assert set(await rows(name, PARTITIONS)) == made - {one}
    await house.step(DAY)
    assert set(await rows(name, PARTITIONS)) == made


async def test_views_are_refreshed_with_each_step_that_finds_them_due(name: str, house: House) -> None:
    """PostgreSQL knows when; a step asks."""
    await house.step(0)
    first = await rows(name, REFRESHED)
    assert len(first) == 2
    await house.step()
    assert await rows(name, REFRESHED) == first
    await execute(owner_dsn(name), DUE)
    await house.step()
    later = await rows(name, REFRESHED)
    assert all(later[view] > first[view] for view in first)


async def test_a_view_that_fails_is_named_once(name: str, house: House) -> None:
    """Until it went well and fails again."""
    insert = "INSERT INTO materialized_views (view_name, refresh_strategy, is_concurrent) VALUES ('v', 'always', false)"
    await execute(owner_dsn(name), insert)
    for _ in range(3):
        await house.step()
    await execute(owner_dsn(name), "CREATE MATERIALIZED VIEW v AS SELECT 1 AS one")
    await execute(owner_dsn(name), "ALTER MATERIALIZED VIEW v OWNER TO mcp_manager_owner")
    await house.step()
    await execute(owner_dsn(name), "DROP MATERIALIZED VIEW v")
    for _ in range(3):
        await house.step()
    assert [fields["views"] for event, fields in house.lines.said if "views" in fields] == [["v"], ["v"]]


async def test_work_that_takes_too_long_is_named_once_and_tried_again(name: str) -> None:
    """The other job is done all the same."""
    house = House(login_dsn(name), statement_s=2.0)
    await house.database.open()
    blocker = await asyncpg.connect(owner_dsn(name))
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE materialized_views IN ACCESS EXCLUSIVE MODE")
        for _ in range(2):
            await house.step()
    await blocker.close()
    assert [event for event, _ in house.lines.said] == [
        "partitions made",
        "housekeeping took too long and was given up",
    ]
    await house.step()
    assert len(await rows(name, REFRESHED)) == 2
    await house.database.close()


async def test_a_database_that_is_not_migrated_yet_is_no_news() -> None:
    """The work is done with the first step after the migrations."""
    async with empty_database() as name:
        house = House(login_dsn(name))
        await house.database.open()
        await house.step()
        assert house.lines.said == []
        async with migrator(owner_dsn(name)) as migrations:
            await migrations.up()
        await house.step()
        assert len(await rows(name, PARTITIONS)) >= 16
        assert len(await rows(name, REFRESHED)) == 2
        await house.database.close()


async def test_a_server_that_is_away_or_frozen_is_no_news() -> None:
    """No step raises or takes long, and the work goes on when it is back."""
    server = EmbeddedPostgres(folder() / "postgres")
    await server.start()
    try:
        async with migrator(server.owner_dsn) as migrations:
            await migrations.up()
        await server.allow()
        house = House(server.dsn)
        await house.database.open()
        with frozen(server):
            began = time.monotonic()
            for _ in range(2):
                await house.step()
            assert time.monotonic() - began < 5
        await server.stop()
        for _ in range(3):
            await house.step()
        assert house.lines.said == []
        await server.start()
        await house.step()
        assert [event for event, _ in house.lines.said] == ["partitions made"]
        assert len(await execute(server.owner_dsn, REFRESHED)) == 2
        await house.database.close()
    finally:
        await server.stop()
