"""A server that hangs (F2): its calls end at their deadline, and the calls of another server do not notice.

Two servers stand behind a proxy, both are called, and one is stopped (SIGSTOP). The machine is noisy, so that a second
proxy with servers of its own, none of which hangs, is called in turns with the first: of the other server's p99 the
ratio of both proxies is compared with what it was before, by the mean of the middle half of all pairs of windows.

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
from tests.chaos.calling import QUIET, Caller, Seen
from tests.chaos.setting import server, sockets_to, within
from tests.harness import ProxyProcess, post, running_proxy

_DEADLINE_S: Final = 2.0
#: Calls a second to the server that hangs: after the deadline fifty of them wait all the time.
_PER_S: Final = 25.0
_REQUEST: Final = post("/hung/mcp")


@dataclass
class Length:
    """How much of it; seconds."""

    before: int = 30
    """Pairs of windows."""
    during: int = 40
    window_s: float = 0.8
    connections: int = 8
    per_s: float = 300.0
    """Calls of the other server."""


SHORT: Final = Length(3, 4, 0.5)


@dataclass
class Found:
    """What was seen."""

    before: list[tuple[float, float]]
    """p99 of the other server, milliseconds: beside the one that hangs later, and elsewhere."""
    during: list[tuple[float, float]]
    failed: int
    """Calls of the other server that were not answered well."""
    hung: list[Seen]
    """Calls of the one that hangs."""
    waiting: float
    """Calls that waited for it at once, at the end."""
    freed_s: float
    """From the end of the last call until all connections to it were closed, while it still hung."""
    left: dict[str, float]
    """What was still held then."""


def figures(short: bool) -> list[Figure]:
    """F2."""
    return _judge(asyncio.run(_measure(SHORT if short else Length())), 10.0 if short else 1.0)


class Scene:
    """A proxy with two servers, one of which is called all the time."""

    def __init__(self, stack: ExitStack) -> None:
        self.hung, self.other = (stack.enter_context(rig.start_upstream()) for _ in range(2))
        self.proxy = stack.enter_context(running_proxy(_config(self.hung.port, self.other.port)))
        self.caller = Caller(self.proxy.port)
        self.enough = asyncio.Event()
        self.calling = asyncio.create_task(self.caller.keep_pace(_PER_S, lambda: _REQUEST, self.enough))

    async def end(self) -> list[Seen]:
        """No more calls; what became of those that were."""
        self.enough.set()
        seen = await self.calling
        await self.caller.close()
        return seen


@contextmanager
def _hanging(process: rig.Process) -> Iterator[None]:
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


async def _measure(length: Length) -> Found:
    with ExitStack() as stack:
        subject, control = Scene(stack), Scene(stack)
        load, found = stack.enter_context(rig.Load()), Found([], [], 0, [], 0.0, 0.0, {})

        async def window(scene: Scene) -> float:
            order = Order(scene.proxy.port, [Target("/other/mcp")], "modern", connections=length.connections)
            order.seconds, order.per_second = length.window_s, length.per_s
            report = await asyncio.to_thread(load.attempt, order)
            found.failed += report.errors + (report.calls == 0)
            return report.p99_ms

        async def pairs(count: int) -> list[tuple[float, float]]:
            took = []
            for number in range(count):
                if number % 2:
                    took.append((await window(subject), await window(control)))
                else:
                    took.append((await window(control), await window(subject))[::-1])
            return took

        await pairs(1)  # warm
        found.before = await pairs(length.before)
        with _hanging(subject.hung):
            await asyncio.sleep(_DEADLINE_S)
            found.during = await pairs(length.during)
            found.waiting = await asyncio.to_thread(_in_flight, subject.proxy)
            found.hung = await subject.end()
            found.freed_s = await within(5, lambda: not sockets_to(subject.proxy.pid, subject.hung.port))
            found.left = await asyncio.to_thread(_held, subject.proxy)
        await control.end()
    return found


def _config(hung: int, other: int) -> dict[str, Any]:
    options = {
        "timeouts": {"first_byte": f"{_DEADLINE_S:g}s"},
        "queue": {"max_concurrent": 150},
        "pool": {"keepalive": "0s"},
    }
    return {"servers": {"hung": server(hung, **options), "other": server(other)}, **QUIET}


def _in_flight(proxy: ProxyProcess) -> float:
    return proxy.metric("mcp_proxy_queue_running", server="hung")


def _held(proxy: ProxyProcess) -> dict[str, float]:
    names = ("queue_running", "queue_pending", "pool_connections_in_use", "requests_in_flight")
    return {name: proxy.metric(f"mcp_proxy_{name}") for name in names}


def _judge(found: Found, wider: float) -> list[Figure]:
    before, during = _ratio(found.before), _ratio(found.during)
    late = [each.took_s - _DEADLINE_S for each in found.hung if each.status == 504]
    otherwise = sum(each.status not in (200, 504) for each in found.hung)
    print(f"  p99 of another server by that of another proxy's: {before:.2f} before, {during:.2f} with one that hangs")
    print(f"  its median {_median_ms(found.before):.2f} ms before, {_median_ms(found.during):.2f} ms with it")
    print(f"  {len(late)} of {len(found.hung)} calls of the hung server ended at the deadline")
    return [
        Figure(
            f"hung server, {found.waiting:.0f} calls wait: p99 of another, by that without",
            during / before,
            1.1 * wider,
            "x",
        ),
        Figure("  calls of the other that failed", found.failed, 0, ""),
        Figure("  504 later than the deadline, at most", max(late, default=1e9), 0.2 * wider, "s"),
        Figure("  504 sooner than the deadline, at most", -min(late, default=-1e9), 0.2, "s"),
        Figure("  neither 504 nor, once it lives again, 200", otherwise, 0, ""),
        Figure("  its connections closed after", found.freed_s, 0.2 * wider, "s"),
        Figure("  slots, places and connections still held", sum(found.left.values()), 0, ""),
    ]


def _ratio(pairs: list[tuple[float, float]]) -> float:
    ratios = sorted(subject / control for subject, control in pairs)
    cut = len(ratios) // 4
    return statistics.fmean(ratios[cut : len(ratios) - cut])


def _median_ms(pairs: list[tuple[float, float]]) -> float:
    return statistics.median(subject for subject, _ in pairs)
