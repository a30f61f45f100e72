"""Redis goes and comes back under load: nobody waits long, nobody starves, and little more passes than may."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from redis.asyncio import Redis

from proxy.dataplane.ratelimit import Limiter
from proxy.dataplane.redis_link import RedisLink
from proxy.limits.rules import Demand, Rule
from proxy.store.embedded import EmbeddedRedis
from tests.unit.dataplane.valkey import client_of, own_server

RATE_PER_S, BURST, WORKERS = 100.0, 100.0, 2
ASKED_PER_S = 300
BEFORE_S, OUTAGE_S, AFTER_S = 0.7, 1.0, 2.2
DEMANDS = [Demand(Rule("r", "r", "key", BURST, RATE_PER_S), "s", 1.0)]


@dataclass
class Seen:
    """What became of the requests."""

    allowed: int = 0
    took_s: list[float] = field(default_factory=list)
    by_redis_at: list[float] = field(default_factory=list)
    """When Redis decided; seconds since the start."""
    lasted_s: float = 0.0


class Broken:
    """A server, and the ways in which it is no longer one."""

    def __init__(self, engine: EmbeddedRedis, client: Redis) -> None:
        self.engine = engine
        self.client = client
        self.pid = 0

    async def watch(self) -> None:
        """Learn which process it is, while it can be asked."""
        self.pid = int((await self.client.info("server"))["process_id"])

    async def stop(self) -> None:
        """Connections are refused; what it held is written."""
        await self.engine.stop()

    async def start(self) -> None:
        """There again."""
        await self.engine.start()

    async def empty_start(self) -> None:
        """There again, with nothing in it."""
        (self.engine.directory / "dump.rdb").unlink()
        await self.engine.start()

    async def freeze(self) -> None:
        """It takes connections, and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    async def thaw(self) -> None:
        """It answers again."""
        os.kill(self.pid, signal.SIGCONT)

    async def fill(self) -> None:
        """No memory for anything new."""
        await self.client.config_set("maxmemory", 1)

    async def empty(self) -> None:
        """All the memory there is."""
        await self.client.config_set("maxmemory", 0)

    async def follow(self) -> None:
        """A replica, which takes no writes."""
        await self.client.execute_command("REPLICAOF", "127.0.0.1", "1")

    async def lead(self) -> None:
        """The master."""
        await self.client.execute_command("REPLICAOF", "NO", "ONE")

    async def flush(self) -> None:
        """It lost everything."""
        await self.client.flushall()

    async def flush_scripts(self) -> None:
        """It lost the scripts."""
        await self.client.script_flush()


async def steps(limits: Limiter, until: asyncio.Event) -> None:
    """The background, as the supervisor runs it."""
    while not until.is_set():
        await limits.probe()
        await limits.share()
        with suppress(TimeoutError):
            await asyncio.wait_for(until.wait(), 0.25)


async def client(limits: Limiter, seen: Seen, began: float, ends: float) -> None:
    """Requests at a steady rate, each by itself."""
    running: set[asyncio.Task[None]] = set()

    async def one() -> None:
        sent = time.monotonic()
        verdict = await limits.take(DEMANDS, None)
        now = time.monotonic()
        seen.took_s.append(now - sent)
        seen.allowed += verdict.allowed
        if verdict.source == "redis":
            seen.by_redis_at.append(now - began)

    count = 0
    while (now := time.monotonic()) < ends:
        due = int((now - began) * ASKED_PER_S / WORKERS)
        for _ in range(due - count):
            task = asyncio.ensure_future(one())
            running.add(task)
            task.add_done_callback(running.discard)
        count = due
        await asyncio.sleep(0.003)
    await asyncio.gather(*running)


async def outage(
    engine: EmbeddedRedis, breaks: Callable[[], Awaitable[None]], repairs: Callable[[], Awaitable[None]] | None
) -> Seen:
    """Two workers under three times the load that may pass, before, while and after something is broken."""
    workers = [
        Limiter(RedisLink(engine.url, time.monotonic, random.random), time.monotonic, f"worker-{n}")
        for n in range(WORKERS)
    ]
    for limits in workers:
        await limits.open()
    for limits in workers:
        await limits.share()
    seen, over = Seen(), asyncio.Event()
    began = time.monotonic()
    ends = began + BEFORE_S + OUTAGE_S + AFTER_S
    background = [asyncio.ensure_future(steps(limits, over)) for limits in workers]
    load = [asyncio.ensure_future(client(limits, seen, began, ends)) for limits in workers]
    await asyncio.sleep(BEFORE_S)
    await breaks()
    await asyncio.sleep(max(0.0, began + BEFORE_S + OUTAGE_S - time.monotonic()))
    if repairs is not None:
        await repairs()
    await asyncio.gather(*load)
    seen.lasted_s = time.monotonic() - began
    over.set()
    await asyncio.gather(*background)
    for limits in workers:
        await limits.close()
    return seen


def bounded(seen: Seen) -> None:
    """What is to be proved of every outage."""
    may = BURST + RATE_PER_S * seen.lasted_s
    slow = sum(took > 0.05 for took in seen.took_s)
    print(f"admitted {seen.allowed} of {may:.0f}, slower than 50 ms {slow}, longest {max(seen.took_s) * 1e3:.0f} ms")
    assert seen.allowed <= may + 2 * BURST + RATE_PER_S * 0.15 + WORKERS
    assert seen.allowed >= 0.95 * may
    assert slow <= 5


@pytest.mark.alone
@pytest.mark.parametrize(
    ("breaks", "repairs"),
    [("stop", "start"), ("stop", "empty_start"), ("freeze", "thaw"), ("fill", "empty"), ("follow", "lead")],
)
async def test_an_outage_costs_little(breaks: str, repairs: str) -> None:
    """While it lasts nobody waits for Redis, and two seconds after its end it decides again."""
    async with own_server() as engine, client_of(engine) as redis:
        broken = Broken(engine, redis)
        await broken.watch()
        try:
            seen = await outage(engine, getattr(broken, breaks), getattr(broken, repairs))
        finally:
            with suppress(ProcessLookupError):
                await broken.thaw()
        bounded(seen)
        gone = [at for at in seen.by_redis_at if BEFORE_S + 0.3 < at < BEFORE_S + OUTAGE_S]
        assert gone == []
        assert seen.by_redis_at[-1] > seen.lasted_s - 0.1
        back_s = min(at for at in seen.by_redis_at if at > BEFORE_S + OUTAGE_S) - BEFORE_S - OUTAGE_S
        print(f"back after {back_s:.2f} s")
        assert back_s <= 2


@pytest.mark.alone
@pytest.mark.parametrize("breaks", ["flush", "flush_scripts"])
async def test_a_loss_is_no_outage(breaks: str) -> None:
    """Redis decides all the time."""
    async with own_server() as engine, client_of(engine) as redis:
        seen = await outage(engine, getattr(Broken(engine, redis), breaks), None)
        bounded(seen)
        assert len(seen.by_redis_at) == len(seen.took_s)
