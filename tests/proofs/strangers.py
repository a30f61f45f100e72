"""A thousand unknown keys a second beside good load: PostgreSQL hears nothing of it, and good callers lose little.

Good callers and strangers come at a steady pace, and latencies are counted from when a call was due. Stretches of time
without strangers, with strangers at another proxy, and with strangers at this one take turns, and neighbours are
compared: clients, servers and proxies share a noisy machine, so strangers elsewhere show what they cost the machine,
and strangers here what they cost the good callers. Statements are counted on their way to PostgreSQL, which every
connection of this proxy reaches through a relay.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

from benchmarks import rig
from benchmarks.load import Order, Report, Target
from benchmarks.rig import Figure
from tests.harness import ProxyProcess
from tests.proofs.known import KINDS, Someone, admit, config, own_postgres, serving, someone
from tests.proofs.postgres_relay import Relay, relayed
from tests.unit.store.engine import folder

#: What strangers show: keys, and a few tokens and cookies.
STRANGERS: Final = ("key",) * 18 + ("token", "cookie")
#: Calls a second on each connection.
PER_CONNECTION: Final = 50


@dataclass
class Length:
    """How much of it."""

    rounds: int = 15
    window_s: float = 2.0
    per_second: int = 1000
    """Unknown credentials: keys, and a few tokens and cookies."""
    good_per_second: int = 500
    """Calls of those who are known."""


SHORT: Final = Length(rounds=1, window_s=1.0)


@dataclass
class Window:
    """One stretch of time."""

    good: Report
    strangers: Report | None
    statements_per_s: float


#: Where the strangers of a stretch go.
NOWHERE, ELSEWHERE, HERE = "nowhere", "elsewhere", "here"
PLACES: Final = (NOWHERE, ELSEWHERE, HERE)


@dataclass
class Findings:
    """What was seen."""

    strangers: int = 0
    per_second: float = 0.0
    wrong: int = 0
    """Strangers that were not answered 401."""
    calls: int = 0
    failed: int = 0
    """Good calls without a good answer."""
    statements_without: float = 0.0
    """Per second, and so the next."""
    statements_with: float = 0.0
    statements_per_stranger: float = 0.0
    """What they add; 0 when it is less than nothing."""
    p50_ratio: float = float("nan")
    """Good calls with strangers here, by with strangers elsewhere; the median of pairs. So the next."""
    p99_ratio: float = float("nan")
    p99_ms: dict[str, float] = field(default_factory=dict)
    """By where the strangers were, the median of windows."""
    grown_kib: int = 0
    """Memory at the end, by after the first strangers."""


async def run(length: Length) -> Findings:
    """Windows in turns."""
    people = [someone(kind) for kind in KINDS]
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        server = await enter(own_postgres())
        relay = await enter(relayed(server))
        await admit(server.owner_dsn, people)
        upstream = stack.enter_context(rig.start_upstream())
        proxy = await enter(serving(config(relay.dsn(server.dsn), upstream.port, str(folder()))))
        elsewhere = await enter(serving(config(server.dsn, upstream.port, str(folder()))))
        loads = stack.enter_context(rig.Load()), stack.enter_context(rig.Load())
        return await measure(Bench((proxy, elsewhere), relay, loads, people, length), length)


class Bench:
    """What a window needs."""

    def __init__(
        self, proxies: tuple[ProxyProcess, ProxyProcess], relay: Relay, loads: tuple[rig.Load, rig.Load],
        people: list[Someone], length: Length,
    ) -> None:  # fmt: skip
        self.proxy = proxies[0]
        self._ports = {HERE: proxies[0].port, ELSEWHERE: proxies[1].port}
        self._relay = relay
        self._loads = loads
        self._length = length
        self._good = self._order(self.proxy.port, people, length.good_per_second, 200)

    def _order(self, port: int, people: list[Someone], per_second: int, status: int) -> Order:
        targets = [Target("/up/mcp", headers=dict([one.header])) for one in people]
        return Order(
            port, targets, "modern", connections=max(1, per_second // PER_CONNECTION), per_second=per_second,
            status=status, seconds=self._length.window_s,
        )  # fmt: skip

    async def window(self, place: str) -> Window:
        """Good load, perhaps with strangers, of whom none comes twice."""
        orders = [self._good]
        if place != NOWHERE:
            per_second = self._length.per_second
            count = round(per_second * self._length.window_s)
            unknown = [someone(STRANGERS[number % len(STRANGERS)]) for number in range(count)]
            orders.append(self._order(self._ports[place], unknown, per_second, 401))
        before, began = self._relay.statements, time.monotonic()
        work = (asyncio.to_thread(load.attempt, order) for load, order in zip(self._loads, orders, strict=False))
        good, *others = await asyncio.gather(*work)
        statements = (self._relay.statements - before) / (time.monotonic() - began)
        return Window(good, others[0] if others else None, statements)


async def measure(bench: Bench, length: Length) -> Findings:
    """Rounds of windows, whose order changes, so that a machine that becomes slower is no finding."""
    for place in PLACES:
        await bench.window(place)  # warm, and as large as it gets
    before_kib = bench.proxy.rss_bytes() // 1024
    rounds: list[dict[str, Window]] = []
    for number in range(length.rounds):
        order = PLACES if number % 2 else PLACES[::-1]
        rounds.append({place: await bench.window(place) for place in order})
    found = conclude(rounds)
    found.grown_kib = bench.proxy.rss_bytes() // 1024 - before_kib
    return found


def conclude(rounds: list[dict[str, Window]]) -> Findings:
    """The figures."""
    found = Findings()
    came = [report for each in rounds if (report := each[HERE].strangers) is not None]
    found.strangers = sum(report.calls for report in came)
    found.wrong = sum(report.errors for report in came)
    found.per_second = statistics.median(report.calls / report.seconds for report in came)
    found.calls = sum(window.good.calls for each in rounds for window in each.values())
    found.failed = sum(window.good.errors for each in rounds for window in each.values())
    found.statements_without = statistics.fmean(each[NOWHERE].statements_per_s for each in rounds)
    found.statements_with = statistics.fmean(each[HERE].statements_per_s for each in rounds)
    found.statements_per_stranger = max(0.0, found.statements_with - found.statements_without) / found.per_second
    found.p50_ratio = statistics.median(each[HERE].good.p50_ms / each[ELSEWHERE].good.p50_ms for each in rounds)
    found.p99_ratio = statistics.median(each[HERE].good.p99_ms / each[ELSEWHERE].good.p99_ms for each in rounds)
    found.p99_ms = {place: statistics.median(each[place].good.p99_ms for each in rounds) for place in PLACES}
    return found


def figures(short: bool) -> list[Figure]:
    """A thousand unknown credentials a second."""
    found = asyncio.run(run(SHORT if short else Length()))
    shown = ", ".join(f"{place} {p99_ms:.2f}" for place, p99_ms in found.p99_ms.items())
    print(f"  p99 of good calls in ms with strangers {shown}")
    print(f"  statements a second: {found.statements_without:.1f} without strangers, {found.statements_with:.1f} with")
    return [
        Figure(f"{found.strangers} strangers, {found.per_second:.0f} a second: not answered 401", found.wrong, 0, ""),
        Figure(f"  of {found.calls} good calls, failed", found.failed, 0, ""),
        Figure("  statements for each stranger", found.statements_per_stranger, 0.1 if short else 0.01, ""),
        Figure("  p99 of good calls, by that with strangers elsewhere", found.p99_ratio, 5 if short else 1.2, "x"),
        Figure("  memory grown by", found.grown_kib / 1024, 4, "MiB"),
    ]
