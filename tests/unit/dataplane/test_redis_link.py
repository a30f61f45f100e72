"""The link to Redis against a real one: what it answers, and how soon it says that Redis is gone."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import ssl
import time
from pathlib import Path

import pytest

from proxy.dataplane.redis_lane import LATE_S
from proxy.dataplane.redis_link import BUDGET_S, RedisGone, RedisLink
from tests.unit.config.pem import write_pair
from tests.unit.dataplane.clocks import Clock
from tests.unit.dataplane.valkey import PATIENCE_S, client_of, link_to, own_server, server


async def until_gone(link: RedisLink) -> list[float]:
    """Ask until Redis is gone; the waits for answers, in seconds. A busy machine makes some longer, none shorter."""
    waits = []
    while link.available:
        began = time.monotonic()
        with pytest.raises(RedisGone):
            await link.run(lambda pipeline: pipeline.set("x", 1))
        waits.append(time.monotonic() - began)
    return waits


async def test_replies_are_what_redis_py_makes_of_them() -> None:
    """Several commands go in one round trip."""
    async with link_to(server()) as link:
        replies = await link.run(
            lambda pipeline: (
                pipeline.zadd("zset", {"a": 1.5}),
                pipeline.zrange("zset", 0, -1, withscores=True),
                pipeline.hset("hash", mapping={"field": 7}),
                pipeline.hgetall("hash"),
                pipeline.script_load("return 1"),
            )
        )
    assert replies[1] == [(b"a", 1.5)]
    assert replies[3] == {b"field": b"7"}
    assert len(replies[4]) == 40


async def test_a_hundred_questions_share_the_connection() -> None:
    """Each gets its own answer."""
    async with link_to(server()) as link:
        answers = await asyncio.gather(
            *(link.run(lambda pipeline, n=n: pipeline.echo(n)) for n in range(100))  # type: ignore[misc]
        )
        assert [int(answer[0]) for answer in answers] == list(range(100))
        assert link.connected == 1


async def test_who_stops_waiting_disturbs_nobody() -> None:
    """The answer to a question that was cancelled is read and dropped."""
    async with link_to(server()) as link:
        waiting = asyncio.ensure_future(link.run(lambda pipeline: pipeline.echo("first")))
        await asyncio.sleep(0)
        waiting.cancel()
        assert await link.run(lambda pipeline: pipeline.echo("second")) == [b"second"]
        assert link.failures == 0


async def test_an_error_is_gone_and_says_no_more_than_its_code() -> None:
    """One is a failure, three within a second are a Redis that is gone."""
    async with link_to(server()) as link:
        for available in (True, True, False):
            with pytest.raises(RedisGone, match=r"^refused: WRONGPASS$"):
                await link.run(lambda pipeline: pipeline.execute_command("AUTH", "secret", "secret"))
            assert link.available == available
        assert (link.failures, link.opened) == (3, 1)


async def test_failures_far_apart_are_forgiven() -> None:
    """Three in an hour are no outage."""
    clock = Clock()
    link = RedisLink(server().url, clock, random.random, PATIENCE_S)
    await link.open()
    for _ in range(9):
        clock.now += 0.6
        with pytest.raises(RedisGone):
            await link.run(lambda pipeline: pipeline.execute_command("NONE"))
    assert link.available
    await link.close()


async def test_a_connection_that_is_refused_is_gone_until_a_probe_gets_through() -> None:
    """Requests ask nobody meanwhile, and the next probe is a second away."""
    clock = Clock()
    async with own_server() as engine:
        link = RedisLink(engine.url, clock, lambda: 0.5, PATIENCE_S)
        await engine.stop()
        await link.open()
        assert not link.available
        with pytest.raises(RedisGone):
            await link.run(lambda pipeline: pipeline.echo("x"))
        await engine.start()
        clock.now += 0.99
        await link.probe()
        assert not link.available
        clock.now += 0.02
        await link.probe()
        assert await link.run(lambda pipeline: pipeline.echo("x")) == [b"x"]
        await link.close()


async def test_a_server_that_goes_is_gone_at_once_and_back_with_the_next_probe() -> None:
    """A restart costs one lost connection, not three failures."""
    async with own_server() as engine, link_to(engine) as link:
        await engine.stop()
        with pytest.raises(RedisGone):
            await link.run(lambda pipeline: pipeline.echo("x"))
        assert not link.available
        await engine.start()
        await link.probe()
        assert link.available
        assert (link.connected, link.opened) == (2, 1)


@pytest.mark.alone
async def test_a_frozen_server_costs_three_waits_of_less_than_50_ms() -> None:
    """Whoever asks afterwards is told at once; a probe of a server that is frozen still is in vain."""
    clock = Clock()
    async with own_server() as engine, link_to(engine, clock, BUDGET_S) as link:
        pid = int((await link.run(lambda pipeline: pipeline.info("server"), PATIENCE_S))[0]["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            waits = await until_gone(link)
            assert len(waits) == 3
            assert BUDGET_S <= min(waits) < 0.06
            clock.now += 1.3
            await link.probe()
            assert not link.available
        finally:
            os.kill(pid, signal.SIGCONT)
        clock.now += 1.3
        await link.probe()
        assert link.available


def test_a_wait_that_a_busy_loop_makes_longer_is_over_within_50_ms() -> None:
    """A timer that comes late is given the same time again to read what may be there."""
    assert BUDGET_S + 2 * LATE_S <= 0.05


async def wait_of_the_second(link: RedisLink) -> float:
    """Of two that ask a server that is frozen, the other one half a budget before it; seconds."""
    pid = int((await link.run(lambda pipeline: pipeline.info("server"), PATIENCE_S))[0]["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        first = asyncio.ensure_future(link.run(lambda pipeline: pipeline.echo("x")))
        patient = asyncio.ensure_future(link.run(lambda pipeline: pipeline.echo("x"), budget_s=PATIENCE_S))
        await asyncio.sleep(BUDGET_S / 2)
        began = time.monotonic()
        with pytest.raises(RedisGone):
            await link.run(lambda pipeline: pipeline.echo("x"))
        took = time.monotonic() - began
        assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], RedisGone)
        assert link.failures == 1
        assert not patient.done()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert await patient == [b"x"]
    return took


@pytest.mark.alone
async def test_the_second_in_line_waits_no_longer_than_the_first() -> None:
    """Of those that ask a frozen server one waits the whole budget: the others stood behind it, and know as much."""
    waits = []
    async with own_server() as engine:
        for _ in range(3):  # a machine that stands still makes a wait longer, not all of them
            async with link_to(engine, budget_s=BUDGET_S) as link:
                waits.append(await wait_of_the_second(link))
    assert min(waits) < BUDGET_S * 0.9


@pytest.mark.alone
async def test_a_loop_that_was_busy_does_not_blame_redis() -> None:
    """The answer was there in time; it was we who did not read it."""
    async with link_to(server(), budget_s=BUDGET_S) as link:
        waiting = asyncio.ensure_future(link.run(lambda pipeline: pipeline.echo("x")))
        await asyncio.sleep(0)
        time.sleep(2 * BUDGET_S)
        assert await waiting == [b"x"]
        assert link.failures == 0


@pytest.mark.parametrize("command", ["CONFIG SET maxmemory 1", "REPLICAOF 127.0.0.1 1"])
@pytest.mark.alone
async def test_a_server_that_takes_no_writes_is_gone_until_it_does(command: str) -> None:
    """Out of memory, or a read-only replica: it answers, but a limit cannot be counted there."""
    clock = Clock()
    async with own_server() as engine, client_of(engine) as client, link_to(engine, clock) as link:
        await client.execute_command(command)
        assert min(await until_gone(link)) < 0.04
        clock.now += 1.3
        await link.probe()
        assert not link.available
        await client.config_set("maxmemory", 0)
        await client.execute_command("REPLICAOF NO ONE")
        clock.now += 1.3
        await link.probe()
        assert link.available


async def test_a_replica_that_takes_writes_is_not_the_master() -> None:
    """What is written there is lost with the next synchronization."""
    async with own_server() as engine, client_of(engine) as client:
        await client.config_set("replica-read-only", "no")
        await client.execute_command("REPLICAOF 127.0.0.1 1")
        async with link_to(engine) as link:
            assert not link.available


async def test_a_user_who_may_not_ask_for_the_role_may_use_it() -> None:
    """As where an operator takes away what is dangerous; one who may not write may not."""
    async with own_server() as engine, client_of(engine) as client:
        for name, rights, usable in (("careful", "+@all -@dangerous", True), ("reader", "+@read", False)):
            await client.execute_command("ACL", "SETUSER", name, "on", ">secret", "~*", *rights.split())
            _, at, socket = engine.url.partition("@")
            link = RedisLink(f"unix://{name}:secret{at}{socket}", time.monotonic, random.random, PATIENCE_S)
            await link.open()
            assert link.available == usable
            await link.close()


@pytest.mark.alone
async def test_probes_find_a_frozen_server_without_any_request() -> None:
    """Three of them, as with requests."""
    async with own_server() as engine, link_to(engine, budget_s=BUDGET_S) as link:
        pid = int((await link.run(lambda pipeline: pipeline.info("server"), PATIENCE_S))[0]["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(3):
                assert link.available
                await link.probe()
            assert not link.available
        finally:
            os.kill(pid, signal.SIGCONT)


async def test_tls_and_the_number_of_a_database_are_as_the_url_says(tmp_path: Path) -> None:
    """redis-py connects and signs in, and the lane takes over what it made: here behind something that speaks TLS."""
    write_pair(tmp_path / "certificate", tmp_path / "key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while some := await reader.read(65536):
            writer.write(some)
        writer.close()

    async def front(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to = await asyncio.open_unix_connection(str(server().sockets / "redis"))
        await asyncio.gather(carry(reader, to[1]), carry(to[0], writer))

    async with (
        await asyncio.start_server(front, "127.0.0.1", 0, ssl=context) as listener,
        client_of(server()) as client,
    ):
        password = client.connection_pool.connection_kwargs["password"]
        port = listener.sockets[0].getsockname()[1]
        url = f"rediss://:{password}@127.0.0.1:{port}/3?ssl_cert_reqs=none"
        link = RedisLink(url, time.monotonic, random.random, PATIENCE_S)
        await link.open()
        assert link.available
        await link.run(lambda pipeline: pipeline.set("over tls", "x" * 300_000))
        assert (await client.info("keyspace"))["db3"]["keys"] >= 1
        assert await link.run(lambda pipeline: pipeline.strlen("over tls")) == [300_000]
        await link.close()
        strict = RedisLink(f"rediss://:{password}@127.0.0.1:{port}", time.monotonic, random.random)
        await strict.open()
        assert not strict.available
        await strict.close()


def test_a_url_that_is_none_is_a_value_error() -> None:
    """redis-py says which schemes there are."""
    with pytest.raises(ValueError, match="scheme"):
        RedisLink("http://localhost", time.monotonic, random.random)
