"""Whether a request may pass, as far as limits go: one call of a script in Redis, or this process's own counting.

Owns which of the two decides, and the way from one to the other: a request waits for Redis as long as the link's budget
at most, and whatever fails, it gets a verdict. It must not know which rules concern a request, nor how a refusal looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Final

from redis.asyncio.client import Pipeline

from proxy.dataplane.limit_script import SCRIPT, outcome_of, packed_bucket
from proxy.dataplane.local_limits import LocalLimits, Seed
from proxy.dataplane.redis_link import RedisGone, RedisLink
from proxy.dataplane.script_calls import ScriptCalls
from proxy.dataplane.shares import TenantShares
from proxy.limits.fairness import TenantShare
from proxy.limits.rules import Demand
from proxy.limits.verdict import UNLIMITED, Verdict, judged

__all__ = ["Limiter", "TenantShare", "Verdict"]

#: Buckets that Redis is given on its return, so many at a time, within so long a time (s).
_SEEDS: Final = 10_000
_CHUNK: Final = 500
_SEED_BUDGET_S: Final = 0.25


class Limiter:
    """The limits of this process, together with those of the others as long as there is Redis."""

    def __init__(self, link: RedisLink | None, clock: Callable[[], float], instance: str) -> None:
        """`link` None: all is counted here, exactly. `clock`: monotonic seconds; `instance`: a name of its own."""
        self._link = link
        self._local = LocalLimits(clock, alone=link is None)
        self._shares = TenantShares(clock, instance)
        self._calls = None if link is None else ScriptCalls(link)
        #: Whether Redis decides.
        self.remote = False
        #: Verdicts by Redis, and by this process; refusals among them.
        self.by_redis = 0
        self.by_itself = 0
        self.refused = 0

    @property
    def calls(self) -> ScriptCalls | None:
        """What goes to Redis, with its numbers; None without Redis."""
        return self._calls

    @property
    def workers(self) -> int:
        """Live workers when last heard; this one is among them."""
        return self._shares.workers

    async def open(self) -> None:
        """Connect. A Redis that is gone is no error."""
        if self._link is not None:
            await self._link.open()
            self.remote = self._link.available
            await self.share()

    async def close(self) -> None:
        """Tell the other workers, and end the connection."""
        if self._link is not None:
            await self._shares.leave(self._link)
            await self._link.close()

    async def take(self, demands: Sequence[Demand], share: TenantShare | None) -> Verdict:
        """The verdict on all demands of one request, which are taken together or not at all. Never raises."""
        if not demands:
            return UNLIMITED
        fair = self._shares.fair(demands, share)
        verdict = None
        if self.remote and self._calls is not None and self._calls.open:
            command, keys = SCRIPT.command(demands, fair)
            reply = await self._calls.ask(command)
            if reply is not None:
                outcome = outcome_of(reply)
                self._local.saw(keys, outcome.remaining)
                verdict = judged(demands, outcome.remaining, outcome.waits, "redis")
                self.by_redis += 1
        if verdict is None:
            verdict = self._local.decide(demands, fair)
            self.by_itself += 1
        self.refused += not verdict.allowed
        return verdict

    async def probe(self) -> None:
        """A background step, four times a second: find out that Redis is gone, or that it is back."""
        link = self._link
        if link is None:
            return
        if not link.available:
            self.remote = False
        await link.probe()
        if link.available and not self.remote:
            await self._seed(link)
            self.remote = link.available

    async def share(self) -> None:
        """A background step, four times a second: a heartbeat, and what each tenant may take."""
        await self._shares.settle(self._link)
        self._local.workers = self._shares.workers

    async def _seed(self, link: RedisLink) -> None:
        """Give Redis what this process knows of buckets that it does not have, or has lost; then start anew."""
        seeds = islice(self._local.seeds(), _SEEDS)
        try:
            [(seconds, micros)] = await link.run(lambda pipeline: pipeline.time())
            now = seconds + micros / 1e6
            while chunk := list(islice(seeds, _CHUNK)):
                await link.run(partial(_put, chunk, now), _SEED_BUDGET_S)
        except RedisGone:
            return
        self._local.forget()


def _put(seeds: Sequence[Seed], now: float, pipeline: Pipeline) -> None:
    for seed in seeds:
        state = packed_bucket(seed.tokens, now, seed.window, seed.used)
        pipeline.set(seed.key, state, nx=True, px=int(seed.lives_s * 1000) + 1)
