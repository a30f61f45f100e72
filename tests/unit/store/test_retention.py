"""The statements of the retention: what they find, and that their plans touch one partition only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import asyncpg
import orjson
import pytest

from proxy.store import retention
from proxy.store.pool import TooSlow
from proxy.store.retention import Extent, turn
from tests.unit.background.aged import KEEPER, OTHER, Aged, aged
from tests.unit.store.engine import execute, login_dsn, owner_dsn


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Aged]:
    """Partitions of the last six days."""
    async with aged(tmp_path) as here:
        yield here


async def extent(here: Aged, ago: int) -> Extent:
    """The partition of that day."""
    async with turn(here.database) as session:
        [found] = [
            each for each in await retention.extents(session, "request_logs") if each.name == here.partition(ago)
        ]
    return found


async def test_extents_cover_all_of_time_without_gap_or_overlap(here: Aged) -> None:
    """What lies between partitions belongs to the default one."""
    await here.rows(f"DROP TABLE {here.partition(3)}")
    async with turn(here.database) as session:
        for table in retention.TABLES:
            found = await retention.extents(session, table)
            assert all(one.until == next_one.since for one, next_one in pairwise(found)), table
            assert {each.whole for each in (found[0], found[-1])} == {False}
            assert all(each.size > 0 for each in found if each.whole)
        gaps = [each for each in await retention.extents(session, "request_logs") if not each.whole]
    assert len(gaps) == 3
    assert gaps[1].until - gaps[1].since == timedelta(days=1)
    assert set(retention.TABLES) == {row[0] for row in await here.rows(
        "SELECT partrelid::regclass::text FROM pg_partitioned_table"
    )}  # fmt: skip
    columns = await here.rows("SELECT attrelid::regclass::text, attname FROM pg_partitioned_table JOIN pg_attribute"
                              " ON attrelid = partrelid AND attnum = partattrs[0]")  # fmt: skip
    assert dict(map(tuple, columns)) == retention.TABLES


async def test_who_has_rows_is_found(here: Aged) -> None:
    """In tables with an index by tenant, and in others."""
    for tenant in (KEEPER, OTHER):
        await here.requests(4, tenant)
    await here.rows("INSERT INTO system_events (id, ts, tenant_id, event_type, component, message)"
                    " VALUES (gen_random_uuid(), $1, $2, 'x', 'x', 'x')", here.day(4), KEEPER)  # fmt: skip
    async with turn(here.database) as session:
        assert await retention.tenants_in(session, there := await extent_in(session, here, 4)) == [KEEPER, OTHER]
        assert await retention.tenants_in(session, await extent_in(session, here, 3)) == []
        [*months] = [each for each in await retention.extents(session, "system_events") if each.since <= here.day(4)]
        assert await retention.tenants_in(session, months[-1]) == [KEEPER]
        assert await retention.rows_in(session, there, here.now) == 6
        assert await retention.rows_in(session, there, here.now, OTHER) == 3


async def extent_in(session: retention.Session, here: Aged, ago: int) -> Extent:
    """The partition of that day, in a turn that is under way."""
    return next(each for each in await retention.extents(session, "request_logs") if each.name == here.partition(ago))


async def test_a_deletion_looks_at_one_partition_only(here: Aged) -> None:
    """The plan names no other; for rows between partitions, only the default one."""
    there = await extent(here, 4)
    gap = Extent("request_logs", "request_logs_default", retention._FIRST, there.since - timedelta(days=2), whole=False)
    for where, name in ((there, here.partition(4)), (gap, "request_logs_default")):
        statement = retention._deletion(where, "").partition("*/ ")[2]
        for number, value in enumerate((OTHER, where.since, where.until, 10), 1):
            statement = statement.replace(f"${number}", f"{value}" if number == 4 else f"'{value}'")
        plan = "\n".join(row[0] for row in await here.rows(f"EXPLAIN {statement}"))
        relations = {word for word in plan.replace("(", " ").split() if word.startswith("request_logs")}
        dated = {
            word[: len(here.partition(4))] for word in relations if word.removeprefix("request_logs_")[:1].isdigit()
        }
        assert dated <= {here.partition(4)}
        assert name in relations


async def test_rows_are_deleted_some_at_a_time_the_earliest_first(here: Aged) -> None:
    """And taken as lines without line ends."""
    await here.requests(4, OTHER, 5)
    there = await extent(here, 4)
    async with turn(here.database) as session:
        assert await retention.delete(session, there, OTHER, there.until, 2) == 2
        lines = await retention.take(session, there, OTHER, there.until, 2)
        assert len(lines) == 2
        assert not any("\n" in line for line in lines)
        assert await retention.delete(session, there, OTHER, there.until, 2) == 1
    assert await here.left() == {}


async def test_many_rows_are_taken_at_once_each_of_them_and_in_order(here: Aged) -> None:
    """They come as few values, so that the loop has little to do: more than one, and the last is not full."""
    await here.requests(4, OTHER, 1234)
    there = await extent(here, 4)
    async with turn(here.database) as session:
        lines = await retention.take(session, there, OTHER, there.until, 1200)
        assert await retention.take(session, there, OTHER, there.until, 1200) != []
        assert await retention.take(session, there, OTHER, there.until, 1200) == []
    assert lines == sorted(lines)
    assert len({orjson.loads(line)["id"] for line in lines}) == 1200


async def test_a_row_that_was_taken_is_known_by_its_line(here: Aged) -> None:
    """In each table, until it is gone; another one of the same moment is not taken for it."""
    await here.requests(4, OTHER, 2)
    await here.rows(
        "INSERT INTO tenant_usage (tenant_id, period_start, granularity, metric, quantity)"
        " VALUES ($1, $2, 'day', 'requests', 5)", OTHER, here.day(4),
    )  # fmt: skip
    for table in ("request_logs", "tenant_usage"):
        everything = Extent(table, table, here.day(9), here.day(0), whole=False)
        with pytest.raises(ZeroDivisionError):
            async with turn(here.database) as session:
                lines = await retention.take(session, everything, OTHER, here.day(0), 10)
                assert not await retention.has(session, table, lines[0])
                raise ZeroDivisionError
        async with turn(here.database) as session:
            assert await retention.has(session, table, lines[0])
            changed = orjson.loads(lines[0]) | {"quantity": 6, "method": "another"}
            assert not await retention.has(session, table, orjson.dumps(changed).decode())


async def test_json_that_was_kept_verbatim_stays_on_its_line(here: Aged) -> None:
    """Its line ends become blanks."""
    for statement in (
        "CREATE TABLE odd_20260101_retired_1 (value json)",
        "GRANT SELECT ON odd_20260101_retired_1 TO PUBLIC",
        "INSERT INTO odd_20260101_retired_1 VALUES (E'{\"a\":\\r\\n 1}')",
    ):
        await here.rows(statement)
    former = retention.Retired("odd", "odd_20260101_retired_1", "odd_20260101", 1, 0)
    async with turn(here.database) as session:
        assert [lines async for lines in retention.lines(session, former)] == [['{"value":{"a":   1}}']]


async def test_only_the_admin_plane_may_retire_and_drop(here: Aged) -> None:
    """And only partitions of a time that is over."""
    for role in ("app", "audit", "sync"):
        for call in ("retire_partition('x')", "drop_retired_partition('x')"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await as_role(here, role, f"SELECT {call}")
    for name in (here.partition(0), here.partition(1), "request_logs_default", "tenants", "absent", '"user"'):
        with pytest.raises(asyncpg.InvalidParameterValueError, match="not a partition"):
            await as_role(here, "admin", f"SELECT retire_partition('{name}')")
    for name in (here.partition(4), "tenants", "request_logs", "absent_retired_1"):
        assert await as_role(here, "admin", f"SELECT drop_retired_partition('{name}')") == [(False,)]


async def as_role(here: Aged, role: str, statement: str) -> list[tuple[object, ...]]:
    """Run a statement in a role, as the proxy's login."""
    connection = await asyncpg.connect(login_dsn(here.name))
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL ROLE mcp_manager_{role}")
            return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


async def test_a_former_partition_is_read_by_the_admin_plane_only(here: Aged) -> None:
    """It has its rows, row level security, a comment, and no foreign key."""
    await here.requests(4, OTHER)
    async with turn(here.database) as session:
        former = await retention.retire(session, await extent_in(session, here, 4))
        assert await retention.rows_of(session, former, exactly=True) == 3
        assert await retention.rows_of(session, former, exactly=False) == 3
    assert former.partition == here.partition(4)
    async with turn(here.database) as session:
        assert [(each.name, each.partition) for each in await retention.retired(session, "request_logs")] == [
            (former.name, former.partition)
        ]
        assert await retention.retired(session, "audit_logs") == []
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await as_role(here, "app", f"SELECT FROM {former.name}")
    async with turn(here.database) as session:
        assert await retention.drop(session, former)
        assert not await retention.drop(session, former)


async def test_rows_are_counted_from_the_statistics_where_that_is_good_enough(here: Aged) -> None:
    """Of millions of rows counting takes longer than everything else."""
    await here.requests(4, OTHER)
    await here.rows(f"ANALYZE {here.partition(4)}")
    await here.requests(4, OTHER)
    async with turn(here.database) as session:
        former = await retention.retire(session, await extent_in(session, here, 4))
        assert await retention.rows_of(session, former, exactly=False) == 3
        assert await retention.rows_of(session, former, exactly=True) == 6


async def test_nobody_waits_long_behind_a_partition_that_cannot_be_detached(here: Aged) -> None:
    """It gives up after a tenth of a second, and the writer behind it goes on."""
    reader = await asyncpg.connect(owner_dsn(here.name))
    there = await extent(here, 4)
    async with reader.transaction():
        await reader.fetch("SELECT count(*) FROM request_logs")
        with pytest.raises(TooSlow):
            async with turn(here.database) as session:
                await retention.retire(session, there)
    await reader.close()
    await execute(owner_dsn(here.name), "SELECT 1")
