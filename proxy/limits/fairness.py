"""What each tenant gets of a capacity that all share: weighted max-min, by what they asked for lately.

Owns the water filling, the measuring of demands, and the shares between two measurements. It must not know how the
workers tell each other what they saw. Pure: the caller says what time it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["Demands", "Shares", "TenantShare", "TenantWant", "reserve_of", "weighted_shares"]

#: Steps that make up the window in which who asked for something is active.
_STEPS: Final = 4
#: What a tenant gets beyond what it asked for, so that it finds room when it asks for a little more.
_HEADROOM: Final = 1.25
#: A share may be used unevenly: what was saved within so many seconds. Less for those who want more than they get, and
#: so ask all the time: what they save while others take, they would take from them later.
_BURST_S: Final = 1.0
_FLOOD_BURST_S: Final = 0.25
#: What nobody may touch that is over its share: this part of the capacity, and no more than comes back in so many s.
#: That is how long the workers take to learn of a newcomer, which lives on it meanwhile.
_RESERVE: Final = 0.1
_RESERVE_S: Final = 0.5


class TenantShare(NamedTuple):
    """Whose request it is, and how much its tenant counts beside the others."""

    tenant: str
    weight: float = 1.0


class TenantWant(NamedTuple):
    """What a tenant asks for, refused or not: tokens per second; and its weight."""

    per_s: float
    weight: float


def reserve_of(capacity: float, refill_per_s: float) -> float:
    """Tokens of the shared bucket that are for those within their share."""
    return min(_RESERVE * capacity, _RESERVE_S * refill_per_s)


def weighted_shares(capacity: float, wants: Mapping[str, TenantWant]) -> dict[str, float]:
    """Weighted max-min: nobody gets more than it wants, and what one leaves goes to the others by weight.

    All that can be used is: the sum is the capacity, or all that is wanted. O(n log n).
    """
    left = capacity
    weights = sum(want.weight for want in wants.values())
    shares = {}
    for tenant, want in sorted(wants.items(), key=lambda item: item[1].per_s / item[1].weight):
        share = min(want.per_s, left * want.weight / weights) if weights > 0 else 0.0
        shares[tenant] = share
        left = max(0.0, left - share)
        weights -= want.weight
    return shares


class Demands:
    """Counts what the tenants ask for, in steps."""

    __slots__ = ("_began", "_now", "_steps")

    def __init__(self, now: float) -> None:
        """`now`: monotonic seconds, as in `turn`."""
        self._began = now
        self._now: dict[str, list[float]] = {}
        self._steps: deque[tuple[float, dict[str, TenantWant]]] = deque(maxlen=_STEPS)

    def count(self, share: TenantShare, cost: float) -> None:
        """A request of `cost` tokens, whatever became of it."""
        counted = self._now.get(share.tenant)
        if counted is None:
            self._now[share.tenant] = [cost, share.weight]
        else:
            counted[0] += cost
            counted[1] = share.weight

    def turn(self, now: float) -> dict[str, TenantWant]:
        """End a step. What was asked for in the last few of them, per second."""
        step = {tenant: TenantWant(*counted) for tenant, counted in self._now.items()}
        self._steps.append((now - self._began, step))
        self._began, self._now = now, {}
        span_s = sum(length_s for length_s, _ in self._steps)
        sums: dict[str, TenantWant] = {}
        for _, each in self._steps:
            merge(sums, each)
        return {tenant: TenantWant(want.per_s / span_s, want.weight) for tenant, want in sums.items() if span_s > 0}


def merge(into: dict[str, TenantWant], more: Mapping[str, TenantWant]) -> None:
    """Add up wants of several steps, or of several workers; the newer weight holds."""
    for tenant, want in more.items():
        before = into.get(tenant)
        into[tenant] = want if before is None else TenantWant(before.per_s + want.per_s, want.weight)


class Part(NamedTuple):
    """What one tenant may take."""

    per_s: float
    burst_s: float
    """So many seconds' worth may be saved."""


class Shares:
    """What each tenant may take, from one settlement to the next."""

    __slots__ = ("_by_tenant", "_per_s", "_weights")

    def __init__(self) -> None:
        self._per_s = 0.0
        self._weights = 0.0
        self._by_tenant: dict[str, Part] = {}

    def settle(self, per_s: float, wants: Mapping[str, TenantWant]) -> None:
        """Share `per_s` tokens per second anew, among those that want some."""
        self._per_s = per_s
        self._weights = sum(want.weight for want in wants.values())
        roomy = {tenant: TenantWant(want.per_s * _HEADROOM, want.weight) for tenant, want in wants.items()}
        shares = weighted_shares(per_s, roomy)
        self._by_tenant = {tenant: self._part(shares[tenant], want) for tenant, want in wants.items()}

    def of(self, share: TenantShare, per_s: float) -> Part:
        """What a tenant may take, of `per_s` tokens per second if nothing was settled yet.

        Who was not seen lately gets what it would with the others as they are.
        """
        known = self._by_tenant.get(share.tenant)
        if known is not None:
            return known
        return Part((self._per_s or per_s) * share.weight / (self._weights + share.weight), _BURST_S)

    def _part(self, share: float, want: TenantWant) -> Part:
        """Who wants less than its part by weight gets that part all the same: it may want it in a moment."""
        even = self._per_s * want.weight / self._weights
        return Part(max(share, even), _BURST_S if want.per_s < share else _FLOOD_BURST_S)
