"""What a limit costs: time and CPU of a request with six rules, however many rules and subjects there are; and memory.

The price of a call is measured on two real proxies that differ only in their limits, called in turns by one client at a
time (time added) and by several (CPU of the proxy's process), on a Redis that is reached by TCP on the loopback.
That nothing grows is measured on the limiter itself, in pairs of neighbours: finding the rules and asking Redis.
While one client calls, something of the lowest priority keeps the cores awake, and the limiter stands on one core with
its Redis: a virtual machine takes as long to wake another core as a call takes. What the limiter takes is that of the
quietest tenth of windows, since a host that is busy with others can only add to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import hiredis
import uvloop

from benchmarks import rig
from benchmarks.load import Order
from benchmarks.rig import Figure
from proxy.dataplane.limit_script import SCRIPT
from proxy.dataplane.ratelimit import Limiter
from proxy.dataplane.redis_link import RedisLink
from proxy.identity.principal import Principal, Source
from proxy.limits.rules import Asked, Demand, Level, Rule, RuleBook
from tests.limits.asker import PATIENCE_S
from tests.limits.valkey import Valkey, valkey

#: Never used up: this is about the price of what passes.
PLENTY: Final = 1e6
RULES: Final = 6
CLIENTS: Final = 16
TIMES: Final = 50
"""Requests in a row, of either of a pair."""
FEW: Final = 1000
#: More than a process remembers.
SOME: Final = 40_000
CHUNK: Final = 1000
PINGS: Final = 2000
#: Buckets that stay as long as this runs: so much is taken, and comes back so slowly.
_SLOW: Final = Rule("own", "own", "key", PLENTY, 1.0)
_TAKEN: Final = 2000.0
_QUICK: Final = Rule("quick", "quick", "key", 100.0, 100.0)
GONE_S: Final = 1.5


@dataclass
class Length:
    """How much of it."""

    pairs: int = 30
    window_s: float = 1.0
    rules: int = 10_000
    few_rules: int = 10
    subjects: int = 1_000_000
    chunks: int = 600


SHORT: Final = Length(2, 0.25, 1000, 100, 50_000, 40)


@dataclass
class Price:
    """What limits add to a call; microseconds."""

    p50_us: float
    cpu_us: float
    cpu_alone_us: float
    """With one call at a time, which shares its round trip with no other."""
    without_us: float
    """p50 of a call without limits."""
    ping_us: float
    """p50 of the shortest question to this Redis, without any of our code."""


@dataclass
class Growth:
    """What many cost more than few, as a ratio; memory in bytes."""

    rules: float
    stored: float
    """So many subjects in Redis, of which always the same few ask."""
    asking: float
    """All of them ask, in no order, by all of `SOME`: neither are remembered by the process."""
    unknown: float
    """Those by few that are."""
    take_us: float
    take_cpu_us: float
    """Of one request with six rules, by the limiter alone: p50, and CPU of its process; in the quietest windows."""
    bytes_per_subject: float
    forever: int
    """Keys that do not expire."""
    left: int
    """Keys that are there although their time is over."""


# --- the price of a call --------------------------------------------------------------------------------------------


def config(redis: Valkey, upstream_port: int, limited: bool) -> dict[str, Any]:
    """A proxy, with or without six rules for each call."""
    levels = {"global": None, "tier": None, "server": None, "tool": None, "client_address": None, "more": "demo/get_*"}
    rules = [
        {"name": name, "level": "tool" if name == "more" else name, "rate": "1000000/s", "burst": int(PLENTY)}
        | ({"subject": subject} if subject else {})
        for name, subject in levels.items()
    ]
    settings = rig.demo_config(upstream_port) | {"redis": {"url": redis.url}, "log": {"access": False}}
    return settings | ({"limits": {"preset": "none", "rules": rules}} if limited else {})


async def price(length: Length) -> tuple[Price, int]:
    """What six rules add, by the medians of neighbours; and how many keys of the proxies do not expire."""
    others, _ = rig.two_cores()
    async with valkey(others) as redis:
        found = await asyncio.to_thread(_price, redis, length)
        return found, await _forever(redis)


def _price(redis: Valkey, length: Length) -> Price:
    others, own = rig.two_cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mcpm-")))
        upstream = stack.enter_context(rig.start_upstream(others))
        load = stack.enter_context(rig.Load(others))
        proxies = [
            stack.enter_context(rig.start_proxy(folder / str(limited), config(redis, upstream.port, limited), own))
            for limited in (False, True)
        ]
        with awake():
            ping_us = _ping_us(redis)
            alone = _pairs(load, proxies, 1, length)
        crowded = _pairs(load, proxies, CLIENTS, length)
    return Price(
        statistics.median(limited[0] - free[0] for free, limited in alone),
        statistics.median(limited[1] - free[1] for free, limited in crowded),
        statistics.median(limited[1] - free[1] for free, limited in alone),
        statistics.median(free[0] for free, _ in alone),
        ping_us,
    )


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """No core sleeps for the length of the block; whoever else wants one has it at once."""
    spin = "import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"
    spinning = []
    for core in sorted(os.sched_getaffinity(0)):
        spinning.append(subprocess.Popen([sys.executable, "-c", spin]))
        os.sched_setaffinity(spinning[-1].pid, {core})
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """This process and those that it starts share a core, which does not sleep, for the length of the block."""
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, rig.two_cores()[1])
    try:
        with awake():
            yield
    finally:
        os.sched_setaffinity(0, all_of_them)


def _ping_us(redis: Valkey) -> float:
    took = []
    with redis.connect() as wire:
        for _ in range(PINGS):
            began = time.perf_counter_ns()
            wire.sendall(b"PING\r\n")
            wire.recv(100)
            took.append(time.perf_counter_ns() - began)
    return statistics.median(took) / 1e3


def _pairs(
    load: rig.Load, proxies: Sequence[rig.Process], clients: int, length: Length
) -> list[list[tuple[float, float]]]:
    """Of each pair, without and with limits: p50, and CPU of a call; microseconds."""

    def window(proxy: rig.Process) -> tuple[float, float]:
        before = proxy.cpu_ns()
        report = load.run(Order(proxy.port, era="modern", connections=clients, seconds=length.window_s))
        return report.p50_ms * 1e3, (proxy.cpu_ns() - before) / report.calls / 1e3

    for proxy in proxies:
        window(proxy)  # warm up
    found = []
    for number in range(length.pairs):
        if number % 2:
            found.append([window(proxy) for proxy in proxies])
        else:
            found.append([window(proxy) for proxy in proxies[::-1]][::-1])
    return found


# --- what grows -----------------------------------------------------------------------------------------------------


def growth(length: Length) -> Growth:
    """With many rules and many subjects."""
    return uvloop.run(_growth(length))


async def _growth(length: Length) -> Growth:
    async with AsyncExitStack() as stack:
        stack.enter_context(one_core())
        few, some, many = [await stack.enter_async_context(valkey()) for _ in range(3)]
        limits = [await _limiter(stack, redis) for redis in (few, some, many)]
        quick = await _quick(few)
        before = int((await many.client.info("memory"))["used_memory"])
        for redis, count in ((few, FEW), (some, SOME), (many, length.subjects)):
            await asyncio.to_thread(_fill, redis, count)
        memory = (int((await many.client.info("memory"))["used_memory"]) - before) / length.subjects
        small, large = book(length.few_rules), book(length.rules)
        base = Side(limits[0], small, FEW)
        take_cpu_us = await _cpu_us(base, length)
        rules, take_us = await _ratio(length, base, Side(limits[0], large, FEW))
        stored, _ = await _ratio(length, base, Side(limits[2], small, FEW))
        all_ask = Side(limits[2], small, length.subjects)
        asking, _ = await _ratio(length, Side(limits[1], small, SOME), all_ask)
        unknown, _ = await _ratio(length, base, all_ask)
        forever = sum([await _forever(redis) for redis in (few, some, many)])
        return Growth(rules, stored, asking, unknown, take_us, take_cpu_us, memory, forever, quick)


async def _limiter(stack: AsyncExitStack, redis: Valkey) -> Limiter:
    link = RedisLink(redis.url, time.monotonic, random.random, PATIENCE_S)
    limits = Limiter(link, time.monotonic, "one")
    await limits.open()
    stack.push_async_callback(limits.close)
    return limits


def book(count: int) -> RuleBook:
    """So many rules, six of which concern a call of `asks`."""
    levels: tuple[Level, ...] = ("global", "tenant", "tier", "server", "tool")
    own = [Rule(level, level, level, PLENTY, PLENTY) for level in levels]
    others = [Rule(f"r{n}", f"r{n}", "tool", PLENTY, PLENTY, f"other/tool{n}") for n in range(count - RULES)]
    return RuleBook.of([*own, _SLOW, *others])


def ask_of(number: int) -> Asked:
    """A call of one principal."""
    principal = Principal(name_of(number), "t", "t", "", "user", frozenset(), Source.KEY, str(number))
    return Asked(principal, "192.0.2.7", "server", "tool", "tools/call")


def name_of(number: int) -> str:
    """As long as names of subjects are: a word and a UUID."""
    return f"user:{UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128)}"


@dataclass
class Side:
    """One of two that are compared."""

    limits: Limiter
    book: RuleBook
    subjects: int

    async def run(self) -> float:
        """Microseconds of a request: the middle one of so many."""
        took = []
        for asked in [ask_of(random.randrange(self.subjects)) for _ in range(TIMES)]:
            began = time.perf_counter_ns()
            verdict = await self.limits.take(self.book.for_request(asked), None)
            took.append(time.perf_counter_ns() - began)
            assert verdict.allowed and verdict.source == "redis", verdict
        return statistics.median(took) / 1e3


async def _cpu_us(side: Side, length: Length) -> float:
    """CPU microseconds of a request, making it up included."""
    took = []
    for _ in range(length.chunks):
        began = time.process_time_ns()
        await side.run()
        took.append((time.process_time_ns() - began) / TIMES / 1e3)
    return _quietest(took)


def _quietest(took: list[float]) -> float:
    return sorted(took)[len(took) // 10]


async def _ratio(length: Length, one: Side, other: Side) -> tuple[float, float]:
    """What `other` takes by what `one` takes, the median of pairs; and what `one` takes when it is quiet."""
    await one.run(), await other.run()
    pairs = []
    for number in range(length.chunks):
        if number % 2:
            pairs.append((await one.run(), await other.run()))
        else:
            pairs.append((await other.run(), await one.run())[::-1])
    return statistics.median(b / a for a, b in pairs), _quietest([a for a, _ in pairs])


def _fill(redis: Valkey, count: int) -> None:
    """A bucket for each of so many subjects, made by the script."""
    _run_script(redis, count, lambda number: Demand(_SLOW, name_of(number), _TAKEN))


def _run_script(redis: Valkey, count: int, demand: Callable[[int], Demand]) -> None:
    replies = hiredis.Reader()
    with redis.connect() as wire:
        wire.sendall(SCRIPT.load)
        awaited = 1
        for start in range(0, count, CHUNK):
            numbers = range(start, min(count, start + CHUNK))
            wire.sendall(b"".join(SCRIPT.command([demand(number)], None)[0] for number in numbers))
            awaited += len(numbers)
            while awaited:
                replies.feed(wire.recv(1 << 20))
                while (reply := replies.gets()) is not False:
                    assert isinstance(reply, bytes), reply
                    awaited -= 1


async def _quick(redis: Valkey) -> int:
    """Keys of buckets that are full again, and should be gone."""
    before = await redis.client.dbsize()
    await asyncio.to_thread(_run_script, redis, FEW, lambda number: Demand(_QUICK, name_of(number), 1.0))
    await asyncio.sleep(GONE_S)
    return max(0, int(await redis.client.dbsize()) - before - 2)


async def _forever(redis: Valkey) -> int:
    """Keys that do not expire."""
    keys = (await redis.client.info("keyspace")).get("db0", {"keys": 0, "expires": 0})
    return int(keys["keys"]) - int(keys["expires"])


def figures(short: bool) -> list[Figure]:
    """Time, CPU and memory. A short run on a busy machine says little about microseconds."""
    length, loose = (SHORT, 10) if short else (Length(), 1)
    added, forever = asyncio.run(price(length))
    grown = growth(length)
    print(f"  a call without limits takes {added.without_us:.0f} us, a PING of Redis {added.ping_us:.0f} us")
    print(f"  subjects that the process does not remember take {grown.unknown:.2f} times as long")
    flat = 3 if short else 1.05
    return [
        Figure(f"{RULES} rules: finding them and asking Redis, p50", grown.take_us, 60 * loose, "us"),
        Figure("  CPU of the process", grown.take_cpu_us, 40 * loose, "us"),
        Figure("  added to a call through the proxy, p50, one client", added.p50_us, 60 * loose, "us"),
        Figure(f"  CPU of the proxy, {CLIENTS} clients", added.cpu_us, 40 * loose, "us"),
        Figure("  CPU of the proxy, one client", added.cpu_alone_us, 40 * loose, "us"),
        Figure(f"{length.rules:,} rules, by {length.few_rules}", grown.rules, flat, "x"),
        Figure(f"{length.subjects:,} subjects in Redis, by {FEW:,}", grown.stored, flat, "x"),
        Figure(f"  all of which ask, by {SOME:,}", grown.asking, flat, "x"),
        Figure("  memory of Redis for each", grown.bytes_per_subject, 250, "B"),
        Figure("keys that do not expire", forever + grown.forever, 0, ""),
        Figure("keys of buckets that are full again", grown.left, 0, ""),
    ]
