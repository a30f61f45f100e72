"""A process that asks its own limiter at a steady pace: one worker of several, without HTTP in front.

python -m tests.limits.asker      reads one order (JSON) from standard input, and prints one report

What HTTP costs on two cores would be more than the limits themselves, and the load could not be several times the rate.
The limiter, its link to Redis and its steps in the background are those of the proxy.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import uvloop

from benchmarks.rig import ROOT
from proxy.dataplane.ratelimit import Limiter
from proxy.dataplane.redis_link import RedisLink
from proxy.identity.principal import Principal, Source
from proxy.limits.costs import CostTable
from proxy.limits.fairness import TenantShare
from proxy.limits.rules import Asked, Demand, Rule, RuleBook

#: As the proxy's background (proxy/backend.py).
STEP_S = 0.25
#: How finely requests are spread, seconds.
TICK_S = 0.002
#: A stall of a busy machine is not to be taken for an outage here; seconds.
PATIENCE_S = 2.0
#: Time for all processes to import and connect, seconds.
START_S = 2.5


@dataclass
class Crowd:
    """Requests of one kind, at a steady pace."""

    name: str
    rules: list[dict[str, Any]]
    """What `Rule` is made of; `cost` is the price of a request."""
    per_s: float
    """Of one process."""
    tenant: str = ""
    weight: float = 1.0
    after_s: float = 0.0
    """How much later than the others it comes."""

    @property
    def demands(self) -> list[Demand]:
        """What each of the requests takes, found as the proxy finds it."""
        book = RuleBook.of(map(made, self.rules))
        principal = Principal(
            f"key:{self.name}", self.tenant or f"tenant-{self.name}", f"tenant-{self.name}", "", "user",
            frozenset(), Source.KEY, self.name,
        )  # fmt: skip
        return book.for_request(Asked(principal, "192.0.2.7", "server", "tool", "tools/call"))


def made(fields: dict[str, Any]) -> Rule:
    """A rule out of JSON."""
    rest = {key: value for key, value in fields.items() if key not in ("cost", "window")}
    window = fields.get("window")
    costs = CostTable(fields.get("cost", 1.0))
    return Rule(id=rest["name"], costs=costs, window=tuple(window) if window else None, **rest)


@dataclass
class Errand:
    """One order."""

    url: str
    instance: str
    starts_at: float
    """On the monotonic clock of the machine."""
    seconds: float
    warm_s: float
    """What is decided sooner does not count for `settled`."""
    crowds: list[Crowd]


@dataclass
class Told:
    """What became of the requests; lists are by crowd. Times are those of Redis, seconds."""

    asked: list[int]
    allowed: list[int]
    settled: list[int]
    """Allowed after `warm_s`."""
    refused: list[int]
    refused_later: list[int]
    """Refused after `warm_s`."""
    by_itself: int = 0
    began_at: float = 0.0
    warm_at: float = 0.0
    ended_at: float = 0.0


class Asker:
    """Carries one order out."""

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        link = RedisLink(errand.url, time.monotonic, random.random, PATIENCE_S)
        self._link = link
        self._limits = Limiter(link, time.monotonic, errand.instance)
        zeros = [[0] * len(errand.crowds) for _ in range(5)]
        self.told = Told(*zeros)  # type: ignore[arg-type]
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> Told:
        """All of it."""
        errand, told, over = self._errand, self.told, asyncio.Event()
        await self._limits.open()
        background = asyncio.ensure_future(self._steps(over))
        await asyncio.sleep(max(0.0, errand.starts_at - time.monotonic()))
        told.began_at = await self._now_s()
        asks = [asyncio.ensure_future(self._ask(at)) for at in range(len(errand.crowds))]
        await asyncio.sleep(errand.warm_s)
        told.warm_at = await self._now_s()
        await asyncio.gather(*asks)
        await asyncio.gather(*self._running)
        told.ended_at = await self._now_s()
        told.by_itself = self._limits.by_itself
        over.set()
        await background
        await self._limits.close()
        return told

    async def _now_s(self) -> float:
        [(seconds, micros)] = await self._link.run(lambda pipeline: pipeline.time())
        return float(seconds + micros / 1e6)

    async def _steps(self, over: asyncio.Event) -> None:
        while not over.is_set():
            await self._limits.probe()
            await self._limits.share()
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), STEP_S)

    async def _ask(self, at: int) -> None:
        errand, crowd = self._errand, self._errand.crowds[at]
        demands = crowd.demands
        share = TenantShare(crowd.tenant, crowd.weight) if crowd.tenant else None
        await asyncio.sleep(crowd.after_s)
        began, ends = errand.starts_at + crowd.after_s, errand.starts_at + errand.seconds
        while (now := time.monotonic()) < ends:
            for _ in range(int((now - began) * crowd.per_s) - self.told.asked[at]):
                self.told.asked[at] += 1
                task = asyncio.ensure_future(self._one(at, demands, share))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            await asyncio.sleep(TICK_S)

    async def _one(self, at: int, demands: Sequence[Demand], share: TenantShare | None) -> None:
        verdict = await self._limits.take(demands, share)
        told, later = self.told, self.told.warm_at > 0
        told.allowed[at] += verdict.allowed
        told.refused[at] += not verdict.allowed
        told.settled[at] += verdict.allowed and later
        told.refused_later[at] += not verdict.allowed and later


async def ask(
    url: str, crowds: Sequence[Crowd], seconds: float, warm_s: float = 0.0, *,
    processes: int = 4, starts_at: Callable[[float], float] = lambda soonest: soonest,
) -> list[Told]:  # fmt: skip
    """The reports of several processes that ask at once, each its part of what the crowds ask."""
    begin = starts_at(time.monotonic() + START_S)
    parts = [Crowd(**asdict(crowd) | {"per_s": crowd.per_s / processes}) for crowd in crowds]
    errands = [Errand(url, f"asker-{n}", begin, seconds, warm_s, parts) for n in range(processes)]
    return await asyncio.gather(*(asyncio.to_thread(_run, errand) for errand in errands))


def _run(errand: Errand) -> Told:
    done = subprocess.run(
        [sys.executable, "-m", "tests.limits.asker"], cwd=ROOT, input=json.dumps(asdict(errand)), text=True,
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    return Told(**json.loads(done.stdout))


def main() -> None:
    """Carry out the order on standard input."""
    fields = json.loads(sys.stdin.readline())
    errand = Errand(**fields | {"crowds": [Crowd(**crowd) for crowd in fields["crowds"]]})
    print(json.dumps(asdict(uvloop.run(Asker(errand).run()))))


if __name__ == "__main__":
    main()
