"""Redis taken away under load: nobody waits for it, nobody starves, little more passes than may, and it is soon back.

Two real proxies are called 300 times a second, three times what two tools allow. A kind of outage has tools of its own,
so that it begins with full buckets. That a proxy asks Redis again is seen in the list of its clients. Its clock cannot
be set without rights over the machine: jumps are tried on the script with its `TIME` replaced by a key, and on the
buckets of a process, whose clock is handed to them.

A machine that stops for a moment makes calls slow, too: a third proxy, without limits and Redis, is called as often at
the same time, and its slow calls are taken off.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import hiredis
from redis.exceptions import RedisError

from benchmarks import rig
from benchmarks.load import percentile
from benchmarks.rig import Figure
from proxy.dataplane.limit_script import outcome_of
from proxy.dataplane.local_limits import LocalLimits
from proxy.limits.rules import Demand, Rule
from tests.limits.http_load import Answers, Kind, call
from tests.limits.valkey import Valkey, valkey
from tests.proofs.known import serving
from tests.unit.dataplane.test_limit_script import TIMED

WORKERS: Final = 2
RATE, BURST = 50.0, 50.0
ASKED_PER_S: Final = 300.0
TOOLS: Final = 2
#: Admitted beyond burst and rate, of one bucket: the switch, an empty Redis on return, 0.15 s until it is noticed.
MOST_OVER: Final = 2 * BURST + RATE * 0.15 + WORKERS
SLOW_S: Final = 0.05
#: What is done, and what undoes it.
KINDS: Final = {
    "kill": ("kill", "start"),
    "freeze": ("freeze", "thaw"),
    "maxmemory": ("fill", "empty"),
    "read-only": ("follow", "lead"),
    "flush": ("flush", ""),
}
#: How often is looked who asks, seconds; and for how long at most.
LOOK_S: Final = 0.02
LOOK_FOR_S: Final = 5.0
DAY_S: Final = 86_400


@dataclass
class Length:
    """How much of each kind."""

    before_s: float = 5.0
    outage_s: float = 30.0
    after_s: float = 6.0


SHORT: Final = Length(0.3, 0.8, 1.5)


@dataclass
class Findings:
    """What was seen of one kind. Numbers of requests are those of the tool that had most or least."""

    kind: str
    calls: int
    errors: int
    slow: int
    slow_without: int
    """At the proxy without limits, in as many calls."""
    longest_s: float
    p50_s: float
    over: float
    """Admitted beyond burst and rate; negative: less."""
    starved: float
    """Part of what may pass that did not."""
    back_s: float
    """After which all proxies asked Redis again."""


async def run(length: Length) -> list[Findings]:
    """All kinds, one after the other."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(valkey())
        upstream = stack.enter_context(rig.start_upstream())
        settings = config(redis, upstream.port)
        free = {key: value for key, value in settings.items() if key not in ("redis", "limits")}
        started = (stack.enter_async_context(serving(each)) for each in [settings] * WORKERS + [free])
        ports = [proxy.port for proxy in await asyncio.gather(*started)]
        await call(ports, [Kind("warm", 150.0, "warm")], 0.5)
        return [await outage(redis, ports, kind, length) for kind in KINDS]


def config(redis: Valkey, upstream_port: int) -> dict[str, Any]:
    """One rule, with a bucket for each tool."""
    rule = {"name": "tool", "level": "tool", "rate": f"{RATE:g}/s", "burst": int(BURST)}
    return {
        "redis": {"url": redis.url},
        "limits": {"preset": "none", "rules": [rule], "blocking": {"enabled": False}},
        "servers": {"up": {"url": f"http://127.0.0.1:{upstream_port}/mcp"}},
        "log": {"access": False},
    }


async def outage(redis: Valkey, ports: list[int], kind: str, length: Length) -> Findings:
    """Calls before, during and after it. The last of the proxies is the one without limits."""
    breaks, repairs = KINDS[kind]
    tools = [Kind(f"{kind}_{number}", ASKED_PER_S / TOOLS, f"{kind}_{number}") for number in range(TOOLS)]
    lasts_s = length.before_s + length.outage_s + length.after_s
    began = time.monotonic()
    load = asyncio.ensure_future(call(ports[:-1], tools, lasts_s))
    aside = asyncio.ensure_future(call(ports[-1:], [Kind("free", ASKED_PER_S)], lasts_s))
    await asyncio.sleep(length.before_s)
    await getattr(redis, breaks)()
    if repairs:
        await asyncio.sleep(length.outage_s)
        await getattr(redis, repairs)()
    back_s = await _until_asked(redis)
    found = await load
    lasted_s = time.monotonic() - began
    [free] = (await aside).values()
    return _conclude(kind, list(found.values()), free, lasted_s, back_s)


def _conclude(kind: str, found: list[Answers], free: Answers, lasted_s: float, back_s: float) -> Findings:
    may = BURST + RATE * lasted_s
    took_s = sorted(took_s for each in found for took_s in each.took_s)
    return Findings(
        kind, len(took_s), sum(each.errors for each in found), sum(each > SLOW_S for each in took_s),
        sum(each > SLOW_S for each in free.took_s), took_s[-1],
        percentile(took_s, 50), max(each.admitted for each in found) - may,
        1 - min(each.admitted for each in found) / may, back_s,
    )  # fmt: skip


async def _until_asked(redis: Valkey) -> float:
    """Seconds until every proxy asks the script again: the same connection, more than once."""
    began, before, asking = time.monotonic(), dict[str, int](), dict[str, float]()
    while len(asking) < WORKERS and time.monotonic() - began < LOOK_FOR_S:
        with contextlib.suppress(OSError, RedisError):
            for one in await redis.client.client_list():
                count = int(one["tot-cmds"])
                if one["cmd"] == "evalsha" and count > before.get(one["id"], count):
                    asking.setdefault(one["id"], time.monotonic() - began)
                before[one["id"]] = count
        await asyncio.sleep(LOOK_S)
    return max(asking.values()) if len(asking) >= WORKERS else float("inf")


# --- clocks ---------------------------------------------------------------------------------------------------------

_CAPACITY, _PER_S = 100.0, 50.0
_DEMANDS: Final = [Demand(Rule("jump", "jump", "key", _CAPACITY, _PER_S), "s", 1.0)]
_START_S: Final = 1_795_000_000
#: From one moment to the next, and how many may pass then: there a bucket is asked for more than it can hold.
_STEPS: Final = ((0, 100), (-DAY_S, 0), (1, 50), (-DAY_S, 0), (1, 50), (DAY_S, 100), (-DAY_S, 0), (1, 50), (0, 0))


async def jumps() -> dict[str, int]:
    """Extra admissions when a clock jumps by a day, by where it is read.

    Back: none may pass. Forward nothing tells a jump from a day of waiting, and a bucket is full after both: what it
    holds may pass, no more. The proxy's own buckets go by a monotonic clock, which does not jump; one that does is put
    in its place here.
    """
    clock = [float(_START_S)]
    local = LocalLimits(lambda: clock[0], alone=True)

    async def by_process(now_s: int) -> bool:
        clock[0] = float(now_s)
        return local.decide(_DEMANDS, None).allowed

    async with valkey() as redis:
        reader, writer = await asyncio.open_connection("127.0.0.1", redis.port)
        replies = hiredis.Reader()

        async def by_script(now_s: int) -> bool:
            await redis.client.mset({"seconds": now_s, "micros": 0})
            writer.write(TIMED.command(_DEMANDS, None)[0])
            return outcome_of(await _reply(reader, replies)).allowed

        writer.write(TIMED.load)
        await _reply(reader, replies)
        found = {"script in Redis": await _extra(by_script), "buckets of a process": await _extra(by_process)}
        writer.close()
    return found


async def _reply(reader: asyncio.StreamReader, replies: hiredis.Reader) -> bytes:
    while (reply := replies.gets()) is False:
        replies.feed(await reader.read(65536))
    assert isinstance(reply, bytes), reply
    return reply


async def _extra(passes: Callable[[int], Awaitable[bool]]) -> int:
    now_s, extra = _START_S, 0
    for step_s, may in _STEPS:
        now_s += step_s
        extra += abs(sum([await passes(now_s) for _ in range(round(_CAPACITY) + 20)]) - may)
    return extra


def figures(short: bool) -> list[Figure]:
    """Redis killed, frozen, full, read-only and flushed, and clocks that jump."""
    shown = []
    length, loose = (SHORT, 5) if short else (Length(), 1)
    for found in asyncio.run(run(length)):
        p50_ms, longest_ms = found.p50_s * 1e3, found.longest_s * 1e3
        print(f"  {found.kind}: {found.calls} calls, p50 {p50_ms:.1f} ms, longest {longest_ms:.0f} ms")
        print(f"  slower than 50 ms: {found.slow}, and {found.slow_without} of as many without limits")
        shown += [
            Figure(f"{found.kind} for {length.outage_s:g} s: neither 200 nor 429", found.errors, 0, ""),
            Figure("  slower than 50 ms, less those without limits", found.slow - found.slow_without, 5 * loose, ""),
            Figure("  admitted over burst and rate", found.over, MOST_OVER * loose, ""),
            Figure("  admitted under it", found.starved * 100, 5 * loose, "%"),
            Figure("  back on Redis after", found.back_s, 2 * loose, "s"),
        ]
    for where, extra in asyncio.run(jumps()).items():
        shown.append(Figure(f"clock of the {where} jumps by a day: admitted too much", extra, 0, ""))
    return shown
