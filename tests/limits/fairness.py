"""Tenants that share one global rule: weighted max-min, in four processes that ask their limiters directly.

Scenes on a Redis of their own each: a flood, to which two come later that want less than their shares; all three
wanting more than there is; and one alone. What passes counts from when the others have come: it begins with a full
bucket, and shares follow the demand four times a second. Whoever wants no more than its share is refused nothing, from
its first request on, for the reserve of the bucket lasts until all have learned of it. That of a bucket of half a
second does not: there the first second of a newcomer is left out.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from benchmarks.rig import Figure
from proxy.limits.fairness import TenantWant, weighted_shares
from tests.limits.asker import Crowd, Told, ask
from tests.limits.valkey import valkey

RATE = 200.0
#: In seconds of the rate; the default rules have a minute.
BURST_S, SMALL_BURST_S = 5.0, 0.5
WEIGHTS: Final = {"flood": 1.0, "light": 1.0, "heavy": 2.0}
#: What each asks for, by its share when all ask.
SCENES: Final[dict[str, dict[str, float]]] = {
    "one floods at 20x": {"flood": 20.0, "light": 0.9, "heavy": 0.9},
    "all ask too much": {"flood": 20.0, "light": 3.0, "heavy": 2.0},
    "alone": {"flood": 20.0},
    "a small burst, one floods": {"flood": 20.0, "light": 0.9, "heavy": 0.9},
}
SMALL: Final = "a small burst, one floods"
#: When those come who do not flood: the flood has emptied the bucket by then; seconds.
LATER_S: Final = 1.6


@dataclass
class Length:
    """How much of each scene."""

    scenes: tuple[str, ...] = tuple(SCENES)
    seconds: float = 40.0
    warm_s: float = 4.0


SHORT: Final = Length(tuple(SCENES)[:1], 4.7, 2.7)


@dataclass
class Tenant:
    """One of them."""

    name: str
    asked_per_s: float
    fair_per_s: float
    got_per_s: float
    refused: int
    """Since its first request, or since the first moment is over if the burst is small."""

    def __str__(self) -> str:
        return f"{self.name} asked {self.asked_per_s:.0f}/s, got {self.got_per_s:.1f} of {self.fair_per_s:.1f}"


@dataclass
class Scene:
    """What was seen."""

    name: str
    tenants: list[Tenant]
    over: float
    """Admitted by the global rule beyond what it may, since the start."""

    @property
    def refused_quiet(self) -> int:
        """Of those who asked for less than their shares."""
        return sum(each.refused for each in self.tenants if each.asked_per_s <= each.fair_per_s)

    @property
    def off_share(self) -> float:
        """The part of what is fair that somebody got too much or too little."""
        return max(abs(each.got_per_s / each.fair_per_s - 1) for each in self.tenants)

    @property
    def used(self) -> float:
        """Part of the global rate."""
        return sum(each.got_per_s for each in self.tenants) / RATE


async def run(length: Length) -> list[Scene]:
    """All scenes."""
    return [await _scene(name, length) for name in length.scenes]


async def _scene(name: str, length: Length) -> Scene:
    burst = RATE * (SMALL_BURST_S if name == SMALL else BURST_S)
    limit = {"name": "global", "level": "global", "capacity": burst, "refill_per_s": RATE}
    whole = sum(WEIGHTS.values())
    crowds = [
        Crowd(
            tenant, [limit], times * RATE * WEIGHTS[tenant] / whole, tenant, WEIGHTS[tenant],
            0.0 if tenant == "flood" else LATER_S,
        )
        for tenant, times in SCENES[name].items()
    ]  # fmt: skip
    async with valkey() as redis:
        told = await ask(redis.url, crowds, length.seconds, length.warm_s)
    began, ended = min(each.began_at for each in told), max(each.ended_at for each in told)
    admitted = sum(sum(each.allowed) for each in told)
    return Scene(name, _tenants(crowds, told, name != SMALL), admitted - burst - RATE * (ended - began))


def _tenants(crowds: list[Crowd], told: list[Told], from_the_start: bool) -> list[Tenant]:
    wants = {crowd.tenant: TenantWant(crowd.per_s, crowd.weight) for crowd in crowds}
    fair = weighted_shares(RATE, wants)
    seen_s = sum(each.ended_at - each.warm_at for each in told) / len(told)
    return [
        Tenant(
            crowd.tenant,
            crowd.per_s,
            fair[crowd.tenant],
            sum(each.settled[at] for each in told) / seen_s,
            sum((each.refused if from_the_start else each.refused_later)[at] for each in told),
        )
        for at, crowd in enumerate(crowds)
    ]


def figures(short: bool) -> list[Figure]:
    """Tenants of weights 1, 1 and 2, one of which asks for twenty times its share."""
    shown = []
    for scene in asyncio.run(run(SHORT if short else Length())):
        print(f"  {scene.name}: " + ", ".join(map(str, scene.tenants)))
        shown += [
            Figure(f"{scene.name}: refused of those within their share", scene.refused_quiet, 5 if short else 0, ""),
            Figure("  furthest from what is fair", scene.off_share * 100, 30 if short else 5, "%"),
            Figure("  of the global rate, not used", (1 - scene.used) * 100, 15 if short else 5, "%"),
            Figure("  admitted over what the global rule may", max(0.0, scene.over), 0, ""),
        ]
    return shown
