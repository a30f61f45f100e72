"""A server whose port is closed, and one behind which nobody is left (F1): refused at once, and tried once in a while.

With a closed port the failed connections are those that the proxy counts; a port that accepts and resets counts the
dials itself. A trial's client is told 502, so that its answers show when trials were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from operator import sub
from typing import Final

from benchmarks.rig import Figure
from tests.chaos.calling import QUIET, Caller, Seen, p99_ms
from tests.chaos.fault_proxy import FaultProxy, fault_proxy
from tests.chaos.setting import within
from tests.harness import ProxyProcess, post, running_proxy, scripted_upstream

_PER_S: Final = 200.0
_FAILURES: Final = 5
#: Always as long: not longer with each failed trial.
_OPEN_S: Final = 1.0
#: What a trial may be late, and a clock early; seconds.
_LATE_S, _EARLY_S = 0.25, 0.02
_REQUEST: Final = post()


def figures(short: bool) -> list[Figure]:
    """F1, for both kinds of death."""
    found = []
    for name, die in (("closed port", _close), ("accepts and resets", _refuse)):
        found += asyncio.run(_measure(name, die, 2.5 if short else 30.0, 10.0 if short else 1.0))
    return found


async def _close(fault: FaultProxy) -> None:
    await fault.stop(reset=True)


async def _refuse(fault: FaultProxy) -> None:
    fault.refuses = True
    await fault.cut()


async def _measure(
    name: str, die: Callable[[FaultProxy], Awaitable[None]], dead_s: float, wider: float
) -> list[Figure]:
    breaker = {"failures": _FAILURES, "open_for": f"{_OPEN_S:g}s", "max_open_for": f"{_OPEN_S:g}s"}
    async with scripted_upstream() as upstream, fault_proxy(upstream.port) as fault:
        server = {"url": f"http://127.0.0.1:{fault.port}/mcp", "breaker": breaker}
        with running_proxy({"servers": {"up": server}, **QUIET}) as proxy:
            caller, enough = Caller(proxy.port), asyncio.Event()
            calling = asyncio.create_task(caller.keep_pace(_PER_S, lambda: _REQUEST, enough))
            loop = asyncio.get_running_loop()
            await asyncio.sleep(1)
            before, died_at = await _dials(proxy, fault), loop.time()
            await die(fault)
            await asyncio.sleep(dead_s)
            after, back_at = await _dials(proxy, fault), loop.time()
            if fault.refuses:
                fault.heal()
            else:
                await fault.start()
            await within(5, lambda: bool(upstream.open))
            await asyncio.sleep(1)
            enough.set()
            seen = await calling
            await caller.close()
    return _judge(
        f"{name}, {_PER_S:.0f} calls/s for {dead_s:g} s", seen, (died_at, back_at), max(map(sub, after, before)), wider
    )


async def _dials(proxy: ProxyProcess, fault: FaultProxy) -> tuple[float, float]:
    """Connections that could not be opened, and those that were: one that is reset at once may be both."""
    return await asyncio.to_thread(proxy.metric, "mcp_proxy_pool_connect_errors_total"), fault.connections


def _judge(name: str, seen: list[Seen], dead: tuple[float, float], dials: float, wider: float) -> list[Figure]:
    died_at, back_at = dead
    meanwhile = [each for each in seen if died_at <= each.ended_at and each.sent_at < back_at]
    failures = [each for each in meanwhile if each.status == 502]
    refused = [each for each in seen if each.status == 503]
    opened_at = sorted(each.ended_at for each in failures)[_FAILURES - 1 :][:1]
    trials = [each.ended_at for each in failures if opened_at and each.sent_at > opened_at[0]]
    gaps = [later - earlier for earlier, later in pairwise([*opened_at, *trials])]
    silent = sum(each.reason != "circuit_open" or not each.retry_after.isdigit() for each in refused)
    good = [each.ended_at for each in seen if each.status == 200 and each.ended_at > back_at]
    back_s = min(good, default=float("inf")) - back_at
    again = sum(each.status != 200 for each in seen if each.sent_at > back_at + back_s)
    otherwise = sum(each.status not in (200, 502, 503) for each in seen)
    print(f"  {len(failures)} answered 502, {len(refused)} refused, {len(trials)} trials, {dials:.0f} dials")
    early = sum(gap < _OPEN_S - _EARLY_S for gap in gaps)
    return [
        Figure(f"{name}: p99 of a refusal", p99_ms(refused), 5 * wider, "ms"),
        Figure("  trials that came too early: more than one in open_for", early, 0, ""),
        Figure(
            f"  longest time between trials, open_for being {_OPEN_S:g} s",
            max(gaps, default=1e9),
            _OPEN_S + _LATE_S * wider,
            "s",
        ),
        Figure("  dials without a 502: neither first failures nor trials", max(0.0, dials - len(failures)), 0, ""),
        Figure("  refusals without circuit_open and Retry-After", silent, 0, ""),
        Figure("  neither 200, 502 nor 503", otherwise, 0, ""),
        Figure(f"  back: first success after (open_for {_OPEN_S:g} s)", back_s, 2, "s"),
        Figure("  not answered after that", again, 0, ""),
    ]
