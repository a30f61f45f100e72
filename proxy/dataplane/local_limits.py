"""Limits without Redis: what each rule asks for then, counted in this process for its part of the whole.

Owns the buckets of this process, and what was last seen of those in Redis, so that an outage neither starves anyone nor
gives everyone a full bucket. A bucket here has the rate r / W and the burst max(1, b / W) of the rule, W being the live
workers; it starts with what Redis had left, divided likewise. Where r / W is less than a token a minute that is the
rate all the same: one token for each worker is all that this adds to the whole, and no subject needs an owner.
It must not know how Redis is reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from proxy.dataplane.limit_script import bucket_key
from proxy.limits.bucket import Ask, Buckets, Fair
from proxy.limits.rules import Demand, Rule
from proxy.limits.verdict import Verdict, judged

__all__ = ["LocalLimits", "Seed"]

#: Buckets that are kept: those used last.
_BUCKETS: Final = 20_000
#: When somebody whom a rule denies without Redis may try again: about when Redis is probed next; seconds.
_DENIED_S: Final = 1.0


class Seed(NamedTuple):
    """A bucket for Redis on its return."""

    key: bytes
    tokens: float
    """Of all workers together."""
    used: float
    """Of its window."""
    window: tuple[float, float] | None
    lives_s: float
    """How long it differs from one that is not there."""


class LocalLimits:
    """Decides for this process."""

    def __init__(self, clock: Callable[[], float], *, alone: bool, capacity: int = _BUCKETS) -> None:
        """`alone`: there is no Redis, so what rules say of its absence does not matter. `clock`: monotonic seconds."""
        self._clock = clock
        self._alone = alone
        self._capacity = capacity
        self._workers = 1
        #: By identity of a demand (which is kept, so that it stays one): this worker's part of it.
        self._asks: dict[int, tuple[Demand, Ask]] = {}
        self._seen: dict[bytes, tuple[float, float]] = {}
        self._buckets = Buckets(capacity, self._left_of)

    @property
    def workers(self) -> int:
        """Live workers that share the limits."""
        return self._workers

    @workers.setter
    def workers(self, count: int) -> None:
        if count != self._workers:
            self._workers = count
            self._asks.clear()

    def saw(self, keys: Sequence[bytes], remaining: Sequence[float]) -> None:
        """What Redis has left; asked for when it is gone."""
        seen, now = self._seen, self._clock()
        for key, tokens in zip(keys, remaining, strict=True):
            seen.pop(key, None)
            seen[key] = (tokens, now)
        while len(seen) > self._capacity:
            del seen[next(iter(seen))]

    def decide(self, demands: Sequence[Demand], fair: Fair | None) -> Verdict:
        """The verdict without Redis. `fair` is for the demand with that index, of the whole: it is divided here."""
        denying = () if self._alone else tuple(demand for demand in demands if demand.rule.on_store_error == "deny")
        for demand in denying:
            if demand.rule.enforce:
                return Verdict(False, demand.rule, _DENIED_S, 0.0, demand.rule.capacity)
        local = demands
        if not self._alone:
            local = [demand for demand in demands if demand.rule.on_store_error == "local"]
            if fair is not None and len(local) < len(demands):
                fair = self._moved(fair, demands, local)
        asks = [(self._asks.get(id(demand)) or self._learn(demand))[1] for demand in local]
        outcome = self._buckets.take(asks, None if fair is None else self._part_of(fair), self._clock())
        verdict = judged(local, outcome.remaining, outcome.waits, "local")
        shadowed = tuple(demand.rule for demand in denying)
        return verdict._replace(shadowed=verdict.shadowed + shadowed) if shadowed else verdict

    def seeds(self) -> Iterator[Seed]:
        """What the buckets of this process say of the whole, those used last first."""
        now, workers = self._clock(), self.workers
        for key, earlier in reversed(tuple(self._buckets.by_key.items())):
            ask = earlier.ask
            if ask is not None:
                bucket = earlier.brought_to(now, ask)
                window = (ask.window_s, ask.window_limit) if ask.window_s else None
                used = bucket.in_window(ask) if window else 0.0
                missing = (ask.capacity - bucket.tokens) / ask.refill_per_s if ask.refill_per_s else ask.window_s
                yield Seed(key, bucket.tokens * workers, used * workers, window, missing + 2 * ask.window_s)

    def forget(self) -> None:
        """Redis counts again; the next outage starts from what it says then."""
        self._buckets = Buckets(self._capacity, self._left_of)

    def _learn(self, demand: Demand) -> tuple[Demand, Ask]:
        if len(self._asks) >= self._capacity:
            self._asks.clear()
        known = self._asks[id(demand)] = (demand, self._ask(demand))
        return known

    def _ask(self, demand: Demand) -> Ask:
        rule, workers = demand.rule, self.workers
        key = bucket_key(rule.id, demand.subject)
        window_s, window_limit = rule.window or (0.0, 0.0)
        if workers == 1:
            return Ask(key, rule.capacity, rule.refill_per_s, demand.cost, window_s, window_limit, rule.enforce)
        return Ask(
            key, _part(rule.capacity, workers, rule), rule.refill_per_s / workers, demand.cost,
            window_s, _part(window_limit, workers, rule), rule.enforce,
        )  # fmt: skip

    def _part_of(self, fair: Fair) -> Fair:
        workers = self.workers
        return fair._replace(
            capacity=max(1.0, fair.capacity / workers),
            refill_per_s=fair.refill_per_s / workers,
            reserve=fair.reserve / workers,
        )

    def _moved(self, fair: Fair, demands: Sequence[Demand], local: Sequence[Demand]) -> Fair | None:
        """The same for the demands that are left; None if the one it is for is not among them."""
        shared = demands[fair.shared]
        return fair._replace(shared=local.index(shared)) if shared in local else None

    def _left_of(self, ask: Ask, now: float) -> float:
        """What a new bucket holds: this worker's part of what Redis has left by now, as far as anyone here knows."""
        seen = self._seen.get(ask.key)
        if seen is None:
            return ask.capacity
        tokens, at = seen
        return min(ask.capacity, tokens / self.workers + (now - at) * ask.refill_per_s)


def _part(whole: float, workers: int, rule: Rule) -> float:
    """A worker's part of a burst: enough for the dearest request, if the whole is."""
    return min(whole, max(1.0, rule.costs.dearest, whole / workers))
