"""A pool against a real PostgreSQL that is stopped, frozen, slow, or has no connection left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace

import asyncpg
import psutil
import pytest

from proxy.store import pool as pool_module
from proxy.store.circuit import Circuit
from proxy.store.embedded import EmbeddedPostgres
from proxy.store.pool import Bounds, Pool, TooSlow, Unavailable
from tests.unit.store.engine import PATIENT, cluster, execute, folder

BEGIN = "/* test.begin */ BEGIN"
ONE = "/* test.one */ SELECT 1"


@asynccontextmanager
async def opened(server: EmbeddedPostgres, bounds: Bounds) -> AsyncIterator[Pool]:
    """A pool of this server."""
    pool = Pool(server.dsn, bounds, Circuit(time.monotonic), "test")
    await pool.open()
    try:
        yield pool
    finally:
        pool.close()


async def one(pool: Pool) -> object:
    """What SELECT 1 gives."""
    async with pool.transaction(BEGIN) as session:
        return await session.fetch_value(ONE)


async def healed(pool: Pool) -> bool:
    """Whether probes close the circuit after a while."""
    for _ in range(400):
        if pool.circuit.probe_due():
            pool.circuit.probed(await pool.probe())
        if not pool.circuit.open:
            return True
        await asyncio.sleep(0.05)
    return False


@contextmanager
def frozen(server: EmbeddedPostgres) -> Iterator[None]:
    """Every process of the server is stopped for as long as the block lasts."""
    pid = int((server.directory / "cluster" / "postmaster.pid").read_text().split("\n")[0])
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # a backend that ended meanwhile
                process.resume()


async def test_a_transaction_is_kept_when_its_block_ends_well_and_only_then() -> None:
    """An error of the block takes everything back; the connection is used again."""
    async with opened(cluster(), replace(PATIENT, connections=1)) as pool:
        async with pool.transaction(BEGIN) as session:
            await session.execute("/* test.table */ CREATE TEMP TABLE kept (x int)")
        with pytest.raises(KeyError):
            async with pool.transaction(BEGIN) as session:
                await session.execute("/* test.insert */ INSERT INTO kept VALUES ($1)", 1)
                raise KeyError
        with pytest.raises(asyncpg.UndefinedTableError):
            async with pool.transaction(BEGIN) as session:
                await session.fetch("/* test.wrong */ SELECT * FROM no_such_table")
        async with pool.transaction(BEGIN) as session:
            assert await session.fetch("/* test.read */ SELECT x FROM kept") == []
            assert await session.fetch_row("/* test.row */ SELECT 1 AS a, 2 AS b") == (1, 2)
        numbers = pool.numbers()
        assert (numbers.connections, numbers.idle, numbers.units, numbers.circuit_open) == (1, 1, 4, False)


async def test_a_statement_without_a_name_is_refused() -> None:
    """Before it is sent; the comment shows in the server's statistics."""
    async with opened(cluster(), PATIENT) as pool, pool.transaction(BEGIN) as session:
        with pytest.raises(ValueError, match="begins with its name"):
            await session.fetch("SELECT 1")
        activity = "/* test.activity */ SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        assert (await session.fetch_value(activity)).startswith("/* test.activity */")


async def test_a_slow_statement_is_ended_by_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection is lost, and the circuit stays closed."""
    monkeypatch.setattr(pool_module, "_GRACE_S", 20.0)  # that of a server which is silent
    async with opened(cluster(), replace(PATIENT, statement_s=0.5)) as pool:
        began = time.monotonic()
        with pytest.raises(TooSlow):
            async with pool.transaction(BEGIN) as session:
                await session.fetch("/* test.sleep */ SELECT pg_sleep(30)")
        assert time.monotonic() - began < 20
        assert await one(pool) == 1
        assert (pool.numbers().slow, pool.numbers().cut, pool.circuit.open) == (1, 0, False)


async def test_a_pool_without_a_free_connection_says_so_in_time() -> None:
    """That is our own load, no fault of the server."""
    async with opened(cluster(), replace(PATIENT, connections=1, acquire_s=1.0)) as pool, pool.transaction(BEGIN):
        with pytest.raises(TooSlow, match="in use"):
            await one(pool)
        assert pool.numbers().exhausted == 1
        assert not pool.circuit.open


async def test_a_pool_counts_what_is_wanted_of_it() -> None:
    """Who waited and for how long, and the most at once since somebody asked: also when it was over by then."""
    async with opened(cluster(), Bounds(connections=2, connect_s=30.0, acquire_s=30.0, statement_s=30.0)) as pool:
        numbers = pool.numbers()
        async with pool.transaction(BEGIN), pool.transaction(BEGIN):
            assert (numbers.bound, numbers.wanted, numbers.peak, numbers.waits, numbers.waited_s) == (2, 2, 2, 0, 0.0)
            third, left = asyncio.ensure_future(one(pool)), asyncio.ensure_future(one(pool))
            await asyncio.sleep(0)
            assert (numbers.wanted, numbers.peak, numbers.waits) == (4, 4, 2)
            left.cancel()
            await asyncio.wait((left,))
            assert (left.cancelled(), numbers.wanted) == (True, 3)
        assert await third == 1
        assert (numbers.demand(), numbers.demand(), numbers.wanted, numbers.waits) == (4, 0, 0, 2)
        assert numbers.waited_s > 0


async def test_a_cancelled_caller_leaves_no_connection_behind() -> None:
    """In the middle of a statement: the connection is cut and the place in the pool is free at once."""
    async with opened(cluster(), replace(PATIENT, connections=1)) as pool:

        async def sleep() -> None:
            async with pool.transaction(BEGIN) as session:
                await session.fetch("/* test.sleep */ SELECT pg_sleep(30)")

        for _ in range(5):
            task = asyncio.create_task(sleep())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await one(pool) == 1
        assert pool.numbers().connections == 1


@pytest.mark.alone
async def test_a_frozen_server_holds_nobody_for_longer_than_a_second() -> None:
    """The first wait until their deadline, the others are told at once; soon after it thaws all is well."""
    server = EmbeddedPostgres(folder() / "postgres")
    await server.start()
    try:
        async with opened(server, Bounds(connections=4, connect_s=0.5, acquire_s=0.5, statement_s=0.5)) as pool:
            assert await one(pool) == 1
            with frozen(server):
                began = time.monotonic()
                answers = await asyncio.gather(*(one(pool) for _ in range(8)), return_exceptions=True)
                assert time.monotonic() - began < 1.2
                assert all(isinstance(answer, Unavailable) for answer in answers)
                began = time.monotonic()
                with pytest.raises(Unavailable):
                    await one(pool)
                assert time.monotonic() - began < 0.01
                assert not await pool.probe()
            assert await healed(pool)
            assert await one(pool) == 1
    finally:
        await server.stop()


async def test_a_server_that_stops_and_returns_is_found_again() -> None:
    """Idle connections that it closed are no obstacle; while it is away everybody is told at once."""
    server = EmbeddedPostgres(folder() / "postgres")
    await server.start()
    try:
        async with opened(server, PATIENT) as pool:
            assert await one(pool) == 1
            await server.stop()
            for _ in range(3):
                with pytest.raises(Unavailable):
                    await one(pool)
            assert pool.numbers().unreachable == 1
            assert not await pool.probe()
            await server.start()
            assert await healed(pool)
            assert await one(pool) == 1
    finally:
        await server.stop()


async def test_a_connection_that_the_server_ends_is_replaced() -> None:
    """The one who used it is told; the next gets a new one, without a probe."""
    async with opened(cluster(), replace(PATIENT, connections=1)) as pool:
        with pytest.raises(Unavailable):
            async with pool.transaction(BEGIN) as session:
                await session.fetch("/* test.end */ SELECT pg_terminate_backend(pg_backend_pid())")
        assert await one(pool) == 1


@pytest.mark.parametrize("dsn", ["hidden://x", "postgresql://u:hidden@h:port/x"])
async def test_a_dsn_that_is_none_is_a_server_that_cannot_be_reached(dsn: str) -> None:
    """The configuration checks its form; whatever is left shows nothing of it."""
    pool = Pool(dsn, Bounds(), Circuit(time.monotonic), "test")
    await pool.open()
    with pytest.raises(Unavailable) as refused:
        await one(pool)
    assert "hidden" not in str(refused.value)
    assert not await pool.probe()
    pool.close()


async def test_a_connection_that_ends_between_two_statements_is_lost() -> None:
    """The next statement says so like any other, and so does the commit."""
    async with opened(cluster(), replace(PATIENT, connections=1)) as pool:
        for asks_on in (True, False):
            with pytest.raises(Unavailable):
                async with pool.transaction(BEGIN) as session:
                    pid = await session.fetch_value("/* test.pid */ SELECT pg_backend_pid()")
                    await execute(cluster().owner_dsn, "SELECT pg_terminate_backend($1, 5000)", pid)
                    await asyncio.sleep(0.05)  # the news is on its way to us
                    if asks_on:
                        await session.fetch(ONE)
        assert await one(pool) == 1
