"""What the tenants ask for, over all workers, and what each may take of the bucket that all share.

Owns the exchange with the other workers, which is also the heartbeat that tells how many there are. The path of
requests only counts and looks up. It must not know how a share is enforced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from heapq import nlargest
from typing import Any, Final

import orjson

from proxy.dataplane.limit_script import fair_key
from proxy.dataplane.redis_link import RedisGone, RedisLink
from proxy.limits.bucket import Fair
from proxy.limits.fairness import Demands, Shares, TenantShare, TenantWant, merge, reserve_of
from proxy.limits.rules import Demand, Rule

__all__ = ["TenantShares"]

_KEY: Final = "{mcpm}:d"
#: Tenants whose demands one worker tells the others; the rest is told as one.
_TOLD: Final = 500
_REST: Final = ""
#: A worker that was not heard of for so long is not alive, and its demands are no more; seconds.
_LIVES_S: Final = 3
_UNKNOWN: Final[tuple[Rule | None, Fair]] = (None, Fair(b"", 0, 0.0, 0.0, 0.0))
_EXCHANGE: Final = """\
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local longest = tonumber(ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], struct.pack('<d', now) .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], longest * 2000)
local all = redis.call('HGETALL', KEYS[1])
local live = {}
for i = 1, #all, 2 do
  if math.abs(now - struct.unpack('<d', all[i + 1])) > longest then
    redis.call('HDEL', KEYS[1], all[i])
  else
    live[#live + 1] = string.sub(all[i + 1], 9)
  end
end
return live
"""


class TenantShares:
    """The shares of this process's tenants, and the number of live workers."""

    def __init__(self, clock: Callable[[], float], instance: str) -> None:
        """`clock`: monotonic seconds; `instance`: the name of this worker among all of them."""
        self._clock = clock
        self._instance = instance
        self._demands = Demands(clock())
        self._shares = Shares()
        self._shared: Rule | None = None
        #: What was worked out since the last settlement.
        self._known: dict[tuple[TenantShare, float], tuple[Rule | None, Fair]] = {}
        #: Live workers when last heard, this one among them.
        self.workers = 1

    def fair(self, demands: Sequence[Demand], share: TenantShare | None) -> Fair | None:
        """Count a request, and say what its tenant may take; None if nothing is shared. The bucket that all share is
        the first that a rule for everyone has for everyone."""
        if share is None:
            return None
        for index, demand in enumerate(demands):
            rule = demand.rule
            if rule.level == "global" and not rule.tenant:
                self._shared = rule
                self._demands.count(share, demand.cost)
                known, fair = self._known.get((share, demand.cost), _UNKNOWN)
                return fair if known is rule and fair.shared == index else self._learn(share, demand, index)
        return None

    async def settle(self, link: RedisLink | None) -> None:
        """A background step, four times a second: tell the others, hear them, and share anew.

        Without them this worker shares what it may use by itself.
        """
        own = self._demands.turn(self._clock())
        wants = own if link is None else await self._exchange(link, own)
        if self._shared is not None:
            self._shares.settle(self._shared.refill_per_s, own if wants is None else wants)
        self._known.clear()

    def _learn(self, share: TenantShare, demand: Demand, index: int) -> Fair:
        rule = demand.rule
        per_s, burst_s = self._shares.of(share, rule.refill_per_s)
        burst = max(1.0, demand.cost, per_s * burst_s)
        reserve = reserve_of(rule.capacity, rule.refill_per_s)
        fair = Fair(fair_key(rule.id, share.tenant), index, burst, per_s, reserve)
        self._known[share, demand.cost] = (rule, fair)
        return fair

    async def leave(self, link: RedisLink) -> None:
        """This worker is no more."""
        with suppress(RedisGone):
            await link.run(lambda pipeline: pipeline.hdel(_KEY, self._instance))

    async def _exchange(self, link: RedisLink, own: dict[str, TenantWant]) -> dict[str, TenantWant] | None:
        """What all workers saw; None if Redis is gone."""
        told = orjson.dumps({tenant: tuple(want) for tenant, want in _told(own).items()})
        try:
            [live] = await link.run(lambda pipeline: pipeline.eval(_EXCHANGE, 1, _KEY, self._instance, told, _LIVES_S))
        except RedisGone:
            return None
        self.workers = max(1, len(live))
        wants: dict[str, TenantWant] = {}
        for one in live:
            merge(wants, _heard(one))
        return wants


def _told(wants: dict[str, TenantWant]) -> dict[str, TenantWant]:
    """The wants as they are told: the biggest by name, the others as one."""
    if len(wants) <= _TOLD:
        return wants
    named = dict(nlargest(_TOLD, wants.items(), key=lambda item: item[1].per_s))
    rest = [want for tenant, want in wants.items() if tenant not in named]
    named[_REST] = TenantWant(sum(want.per_s for want in rest), sum(want.weight for want in rest))
    return named


def _heard(told: bytes) -> dict[str, TenantWant]:
    read: dict[str, Any] = orjson.loads(told)
    return {tenant: TenantWant(per_s, weight) for tenant, (per_s, weight) in read.items()}
