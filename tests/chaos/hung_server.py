"""A server that hangs (F2): its calls end at their deadline, and the calls of another server do not notice.

Two servers behind one proxy, both called at once; one is stopped (SIGSTOP) and let go again in turns. The machine is
noisy, so the other's p99 is compared in pairs of neighbours, hung and not: the mean of the middle half of the ratios.
The hung one's breaker only watches: every call goes there and waits, which is the worst for the other. Its calls have a
connection each whether it hangs or not: what one costs that is cut off at the deadline is not what is compared.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from benchmarks import rig
from benchmarks.load import Order, Target
from benchmarks.rig import Figure
from tests.chaos.calling import Caller, Seen
from tests.chaos.setting import server, sockets_to, within
from tests.harness import ProxyProcess, post, running_proxy

_DEADLINE_S: Final = 2.0
#: Calls a second to the server that hangs: after the deadline a hundred of them wait all the time.
_PER_S: Final = 50.0
_SETTLES_S: Final = 0.5
_REQUEST: Final = post("/hung/mcp")


@dataclass
class Length:
    """How much of it; seconds."""

    pairs: int = 10
    window_s: float = 2.0
    connections: int = 8
    per_s: float = 300.0


SHORT: Final = Length(2, 1.0)


@dataclass
class Found:
    """What was seen."""

    pairs: list[tuple[float, float]]
    """p99 of the other server without and with a neighbour that hangs, milliseconds."""
    failed: int
    """Calls of the other server that were not answered well."""
    hung: list[Seen]
    """Calls of the one that hangs."""
    waiting: float
    """Calls that waited for it at once, at the most that was seen."""
    freed_s: float
    """From the end of the last call until all connections to it were closed, while it still hung."""
    left: dict[str, float]
    """What was still held then."""


def figures(short: bool) -> list[Figure]:
    """F2."""
    return _judge(asyncio.run(_measure(SHORT if short else Length())), 2.0 if short else 1.0)


@contextmanager
def _hanging(process: rig.Process) -> Iterator[None]:
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


async def _measure(length: Length) -> Found:
    with ExitStack() as stack:
        hung, other, load = (stack.enter_context(make()) for make in (rig.start_upstream, rig.start_upstream, rig.Load))
        assert isinstance(load, rig.Load)
        proxy = stack.enter_context(running_proxy(_config(hung.port, other.port)))
        order = Order(
            proxy.port, [Target("/other/mcp")], "modern", connections=length.connections, per_second=length.per_s
        )
        order.seconds = length.window_s
        caller, found = Caller(proxy.port), Found([], 0, [], 0.0, 0.0, {})

        async def window() -> float:
            report = await asyncio.to_thread(load.attempt, order)
            found.failed += report.errors + (report.calls == 0)
            return report.p99_ms

        async def hanging() -> float:
            with _hanging(hung):
                await asyncio.sleep(_DEADLINE_S)
                took = await window()
                found.waiting = max(found.waiting, await asyncio.to_thread(_in_flight, proxy))
            await asyncio.sleep(_SETTLES_S)
            return took

        enough = asyncio.Event()
        calling = asyncio.create_task(caller.keep_pace(_PER_S, lambda: _REQUEST, enough))
        await window()  # warm
        for number in range(length.pairs):
            if number % 2:
                without_ms = await window()
                found.pairs.append((without_ms, await hanging()))
            else:
                with_ms = await hanging()
                found.pairs.append((await window(), with_ms))
        with _hanging(hung):
            await asyncio.sleep(1)
            enough.set()
            found.hung = await calling
            found.freed_s = await within(5, lambda: not sockets_to(proxy.pid, hung.port))
            found.left = await asyncio.to_thread(_held, proxy)
        await caller.close()
    return found


def _config(hung: int, other: int) -> dict[str, Any]:
    options = {
        "timeouts": {"first_byte": f"{_DEADLINE_S:g}s"},
        "queue": {"max_concurrent": 150},
        "pool": {"keepalive": "0s"},
    }
    return {"servers": {"hung": server(hung, **options), "other": server(other)}, "log": {"access": False}}


def _in_flight(proxy: ProxyProcess) -> float:
    return proxy.metric("mcp_proxy_queue_running", server="hung")


def _held(proxy: ProxyProcess) -> dict[str, float]:
    names = ("queue_running", "queue_pending", "pool_connections_in_use", "requests_in_flight")
    return {name: proxy.metric(f"mcp_proxy_{name}") for name in names}


def _judge(found: Found, wider: float) -> list[Figure]:
    ratios = sorted(with_it / without for without, with_it in found.pairs)
    cut = len(ratios) // 4
    ratio = statistics.fmean(ratios[cut : len(ratios) - cut])
    late = [each.took_s - _DEADLINE_S for each in found.hung if each.status == 504]
    otherwise = sum(each.status not in (200, 504) for each in found.hung)
    print(f"  p99 without and with it, ms: {', '.join(f'{one:.2f} {two:.2f}' for one, two in found.pairs)}")
    print(f"  {len(late)} of {len(found.hung)} calls of the hung server ended at the deadline")
    return [
        Figure(
            f"hung server, {found.waiting:.0f} calls wait: p99 of another, by that without", ratio, 1.1 * wider, "x"
        ),
        Figure("  calls of the other that failed", found.failed, 0, ""),
        Figure("  504 later than the deadline, at most", max(late, default=1e9), 0.2 * wider, "s"),
        Figure("  504 sooner than the deadline, at most", -min(late, default=-1e9), 0.2, "s"),
        Figure("  neither 504 nor, once it lives again, 200", otherwise, 0, ""),
        Figure("  its connections closed after", found.freed_s, 0.2 * wider, "s"),
        Figure("  slots, places and connections still held", sum(found.left.values()), 0, ""),
    ]
