"""A server that is asked for twice what it can do, through a real proxy with a queue before it (F30, F32).

The server answers so many calls at once, each after a time that is drawn; asked for more, it slows all of them down,
as servers do. What it can do is measured first, with just as many callers. Then calls come at twice that pace, each
when it is due and on a connection that is free: of three tenants, one of which floods and one of which counts twice,
and of somebody of the highest class. Nobody calls again because of a refusal.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.load import percentile
from benchmarks.rig import Figure
from proxy.limits.fairness import TenantWant, weighted_shares
from tests.harness import ProxyProcess, RawClient, ScriptedUpstream, Wire, json_answer, scripted_upstream
from tests.proofs.known import Someone, admit, config, serving, someone
from tests.unit.store.engine import execute, folder, login_dsn, migrated_database, owner_dsn

SLOTS: Final = 10
#: The shortest and the longest that a call takes; they draw evenly.
SERVICE_S: Final = (0.025, 0.075)
#: Longest wait in the queue.
MAX_WAIT_S: Final = 0.5
#: Calls at twice the peak, by the peak: the highest class, and the tenants.
LOADS: Final = {"high": 0.2, "flood": 1.2, "light": 0.3, "heavy": 0.3}
WEIGHTS: Final = {"flood": 1.0, "light": 1.0, "heavy": 2.0}
assert sum(LOADS.values()) == 2.0


@dataclass
class Length:
    """How much of it, in seconds."""

    peak_s: float = 10.0
    alone_s: float = 15.0
    overload_s: float = 60.0
    warm_s: float = 3.0


SHORT: Final = Length(1.5, 2.5, 5.0, 1.0)


@dataclass
class Answers:
    """What one of them was answered, and when its calls were due and done."""

    statuses: Counter[int] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)
    """Of those that were served."""
    told_nothing: int = 0
    """Refusals without a time to come back."""


@dataclass
class Tenant:
    """What one tenant asked for and got; calls per second."""

    name: str
    asked_per_s: float
    fair_per_s: float
    got_per_s: float

    def __str__(self) -> str:
        return f"{self.name} asked {self.asked_per_s:.0f}/s, got {self.got_per_s:.1f} of {self.fair_per_s:.1f}"


@dataclass
class Found:
    """What was seen."""

    peak_per_s: float
    goodput_per_s: float
    alone_p99_ms: float
    high_p99_ms: float
    tenants: list[Tenant]
    high_refused: int
    told_nothing: int
    """Refusals without `Retry-After`."""
    otherwise: int
    """Calls that were neither served nor refused by the queue."""
    most_at_once: int
    """Calls that the server had to answer at the same time."""

    @property
    def lost(self) -> float:
        """Part of the peak."""
        return 1 - self.goodput_per_s / self.peak_per_s

    @property
    def below_share(self) -> float:
        """The part of what is fair that somebody did not get."""
        return max(1 - each.got_per_s / each.fair_per_s for each in self.tenants)


class Busy:
    """A server that does no more than so much at once without getting slower."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self._draw = random.Random(30)

    async def script(self, wire: Wire) -> None:
        """Answer every request on one connection."""
        while await wire.request():
            wire.upstream.seen.clear()
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await asyncio.sleep(self._draw.uniform(*SERVICE_S) * max(1.0, self.running / SLOTS) ** 2)
            finally:
                self.running -= 1
            await wire.send(json_answer())


class Caller:
    """Somebody who calls at a steady pace, whether or not the last call was answered."""

    def __init__(self, port: int, who: Someone) -> None:
        self._port = port
        self._request = who.call()
        self._idle: deque[RawClient] = deque()

    async def call(self, per_s: float, warm_s: float, seconds: float) -> Answers:
        """What the calls of so many seconds after the first are answered."""
        answers, began = Answers(), time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(int(per_s * (warm_s + seconds))):
                due_at = began + number / per_s
                await asyncio.sleep(max(0.0, due_at - time.monotonic()))
                group.create_task(self._ask(answers if due_at >= began + warm_s else Answers()))
        return answers

    async def call_in_turn(self, callers: int, warm_s: float, seconds: float) -> float:
        """Served calls per second of so many who call again when they are answered."""
        done: list[float] = []

        async def keep_calling() -> None:
            while time.monotonic() < began + warm_s + seconds:
                answers = Answers()
                await self._ask(answers)
                done.extend([time.monotonic()] * answers.statuses[200])

        began = time.monotonic()
        await asyncio.gather(*(keep_calling() for _ in range(callers)))
        return sum(began + warm_s <= at < began + warm_s + seconds for at in done) / seconds

    async def close(self) -> None:
        """Close every connection."""
        for client in self._idle:
            await client.close()

    async def _ask(self, answers: Answers) -> None:
        client = self._idle.pop() if self._idle else await RawClient.connect(self._port)
        began = time.monotonic()
        await client.send(self._request)
        status, fields, _ = await client.answer()
        self._idle.append(client)
        answers.statuses[status] += 1
        if status == 200:
            answers.took_s.append(time.monotonic() - began)
        elif status == 503 and int(fields.get("retry-after", "0")) < 1:
            answers.told_nothing += 1


@dataclass
class Scene:
    """A proxy, the server behind it, and everyone who calls."""

    proxy: ProxyProcess
    busy: Busy
    callers: dict[str, Caller]


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    """Everyone has a key and a tenant of its own."""
    people, busy = {name: someone("key") for name in LOADS}, Busy()
    async with scripted_upstream(busy.script) as upstream, migrated_database() as name:
        await admit(owner_dsn(name), people.values())
        for tenant, weight in WEIGHTS.items():
            await execute(
                owner_dsn(name), "UPDATE tenants SET fair_share_weight = $2 WHERE id = $1::text::uuid",
                people[tenant].tenant, weight,
            )  # fmt: skip
        async with serving(_config(login_dsn(name), upstream, people["high"])) as proxy:
            callers = {name: Caller(proxy.port, who) for name, who in people.items()}
            yield Scene(proxy, busy, callers)
            for caller in callers.values():
                await caller.close()


def _config(dsn: str, upstream: ScriptedUpstream, high: Someone) -> dict[str, Any]:
    settings = config(dsn, upstream.port, str(folder()), priorities={"keys": {high.id: "high"}})
    settings["servers"]["up"]["queue"] = {
        "max_concurrent": SLOTS, "max_pending": 400, "max_wait": f"{MAX_WAIT_S * 1000:.0f}ms",
    }  # fmt: skip
    return settings


async def run(length: Length) -> Found:
    """The peak, the highest class alone, and everyone at once."""
    async with scene() as here:
        high = here.callers["high"]
        await high.call_in_turn(SLOTS, 0, length.warm_s)
        peak_per_s = await high.call_in_turn(SLOTS, length.warm_s, length.peak_s)
        alone = await high.call(LOADS["high"] * peak_per_s, length.warm_s, length.alone_s)
        asking = [
            caller.call(LOADS[name] * peak_per_s, length.warm_s, length.overload_s)
            for name, caller in here.callers.items()
        ]
        answers = dict(zip(here.callers, await asyncio.gather(*asking), strict=True))
    return _judge(length, peak_per_s, alone, answers, here.busy.most)


def _judge(length: Length, peak_per_s: float, alone: Answers, answers: dict[str, Answers], most: int) -> Found:
    got = {name: each.statuses[200] / length.overload_s for name, each in answers.items()}
    wants = {name: TenantWant(LOADS[name] * peak_per_s, weight) for name, weight in WEIGHTS.items()}
    fair = weighted_shares(sum(got[name] for name in WEIGHTS), wants)
    return Found(
        peak_per_s,
        sum(got.values()),
        percentile(sorted(alone.took_s), 99) * 1e3,
        percentile(sorted(answers["high"].took_s), 99) * 1e3,
        [Tenant(name, wants[name].per_s, fair[name], got[name]) for name in WEIGHTS],
        answers["high"].statuses.total() - answers["high"].statuses[200],
        sum(each.told_nothing for each in answers.values()),
        sum(count for each in answers.values() for status, count in each.statuses.items() if status not in (200, 503)),
        most,
    )


def figures(short: bool) -> list[Figure]:
    """Targets are wider in a short run: a machine that is busy with other things takes its part."""
    found = asyncio.run(run(SHORT if short else Length()))
    print(f"  peak {found.peak_per_s:.1f}/s, at twice the load {found.goodput_per_s:.1f}/s")
    print(f"  p99 of the highest class {found.high_p99_ms:.1f} ms, alone {found.alone_p99_ms:.1f} ms")
    print("  " + "; ".join(map(str, found.tenants)))
    wider, slower = 2 if short else 1, found.high_p99_ms / found.alone_p99_ms
    return [
        Figure("twice the load: part of the peak that is lost", found.lost * 100, 10 * wider, "%"),
        Figure("  p99 of the highest class, by that without load", slower, 2 * wider, "x"),
        Figure("  calls of the highest class that were refused", found.high_refused, 0, ""),
        Figure("  furthest below its fair share", found.below_share * 100, 5 * wider, "%"),
        Figure("  refusals without a time to come back", found.told_nothing, 0, ""),
        Figure("  calls that were neither served nor refused", found.otherwise, 0, ""),
        Figure("  calls at once at the server", found.most_at_once, SLOTS, ""),
    ]
