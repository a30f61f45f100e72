"""Limits under three times the load that they allow: what passes is what the rule says, and no rule pays for another.

Twice: four processes that ask their limiters directly, with a crowd for each level of rules; and four real proxies
behind one Redis. Each crowd is limited by one rule, and each of its requests also takes a token of a *witness*, a large
bucket that hardly refills: what it has lost in the end is what passed, if requests that were refused cost nothing.
Time is that of Redis, taken before the first request and after the last. Blocking is off: whoever is refused a hundred
times a second is blocked in a quarter of a minute.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from benchmarks import rig
from benchmarks.rig import Figure
from proxy.dataplane.limit_script import bucket_key
from tests.limits.asker import Crowd, Told, ask
from tests.limits.http_load import Kind, call
from tests.limits.valkey import Valkey, valkey
from tests.proofs.known import serving

PROCESSES: Final = 4
OVERLOAD: Final = 3
RATE, BURST = 50.0, 40.0
WITNESS, WITNESS_PER_S = 400_000.0, 1 / 60
SPAN_S, IN_SPAN = 4.0, 200.0
#: What an outage admits besides, per bucket (outages.py).
OUTAGE: Final = 2 * BURST + RATE * 0.15 + PROCESSES


@dataclass
class Length:
    """How much of it."""

    seconds: float = 60.0


SHORT: Final = Length(4.0)
#: Decisions of a short run that a stall of the machine may take away from Redis.
_STALLED: Final = 1000


@dataclass
class Exact:
    """One rule."""

    name: str
    asked: int
    admitted: int
    may: float
    drained: float
    """What the witness lost beyond what passed."""
    alone: float = 0.0
    """Passed without Redis, of all rules together: what the witness did not lose."""


def witness(name: str, level: str) -> dict[str, Any]:
    """A rule beside another one."""
    return {"name": f"witness-{name}", "level": level, "capacity": WITNESS, "refill_per_s": WITNESS_PER_S}


def crowd(name: str, level: str, aside: str = "client_address", **rule: Any) -> Crowd:
    """One that asks three times what its rule allows."""
    limit = {"name": name, "level": level, "capacity": BURST, "refill_per_s": RATE} | rule
    watching = {"name": f"shadow-{name}", "level": "tool", "capacity": 1.0, "refill_per_s": 0.1, "enforce": False}
    return Crowd(name, [limit, witness(name, aside), watching], OVERLOAD * RATE)


CROWDS: Final = (
    crowd("global", "global"),
    crowd("tenant", "tenant"),
    crowd("tier", "tier"),
    crowd("key", "key"),
    crowd("server", "server"),
    crowd("tool", "tool"),
    crowd("address", "client_address", "tenant"),
    crowd("priced", "key", capacity=5 * BURST, refill_per_s=5 * RATE, cost=5.0),
    crowd("window", "key", capacity=1000.0, refill_per_s=1000.0, window=(SPAN_S, IN_SPAN)),
)


async def direct(length: Length) -> tuple[list[Exact], int]:
    """Every level, without HTTP in front; and how many were decided without Redis."""
    async with valkey() as redis:
        turn = await _turn_of(redis)
        told = await ask(redis.url, CROWDS, length.seconds, processes=PROCESSES, starts_at=turn)
        return [await _exact(redis, told, at) for at in range(len(CROWDS))], sum(each.by_itself for each in told)


async def _turn_of(redis: Valkey) -> Callable[[float], float]:
    """The first moment not before another at which a window begins; both on the monotonic clock."""
    offset = await redis.now_s() - time.monotonic()
    return lambda soonest: ((soonest + offset) // SPAN_S + 1) * SPAN_S - offset + 0.01


async def _exact(redis: Valkey, told: list[Told], at: int) -> Exact:
    one = CROWDS[at]
    began, ended = min(each.began_at for each in told), max(each.ended_at for each in told)
    limit, aside = one.rules[0], one.rules[1]
    may = (limit["capacity"] + limit["refill_per_s"] * (ended - began)) / limit.get("cost", 1.0)
    if "window" in limit:
        may = IN_SPAN * (ended / SPAN_S - began // SPAN_S)
    admitted = sum(each.allowed[at] for each in told)
    subject = next(demand.subject for demand in one.demands if demand.rule.name == aside["name"])
    lost = await _lost(redis, aside["name"], subject)
    return Exact(one.name, sum(each.asked[at] for each in told), admitted, may, lost - admitted)


async def _lost(redis: Valkey, rule: str, subject: str) -> float:
    """What a witness lost, at the last time that it was taken from."""
    state = await redis.client.get(bucket_key(rule, subject))
    tokens, _ = struct.unpack("<2d", state)
    return WITNESS - float(tokens)


# --- real proxies ---------------------------------------------------------------------------------------------------

_LEVELS: Final = {"tool": "up/one_tool", "server": "two", "client_address": "203.0.113.0/24"}


def config(redis: Valkey, upstream_port: int) -> dict[str, Any]:
    """Rules that concern different calls, and a witness for all."""
    url = f"http://127.0.0.1:{upstream_port}/mcp"
    rules = [
        {"name": level, "level": level, "subject": subject, "rate": f"{RATE:g}/s", "burst": int(BURST)}
        for level, subject in _LEVELS.items()
    ]
    aside = {"name": "witness", "level": "global", "rate": f"{WITNESS_PER_S * 60:g}/min", "burst": int(WITNESS)}
    return {
        "auth": {"anonymous": True},
        "listen": {"trusted_proxies": ["127.0.0.1/32"]},
        "redis": {"url": redis.url},
        "limits": {"preset": "none", "rules": [*rules, aside], "blocking": {"enabled": False}},
        "servers": {"up": {"url": url}, "two": {"url": url}},
        "log": {"access": False},
    }


KINDS: Final = (
    Kind("tool", OVERLOAD * RATE, "one_tool"),
    Kind("server", OVERLOAD * RATE, path="/two/mcp"),
    Kind("client_address", OVERLOAD * RATE, headers={"X-Forwarded-For": "203.0.113.9"}),
)


async def through_proxies(length: Length) -> tuple[list[Exact], int]:
    """Three levels, through four proxies; and how many calls were answered otherwise than by 200 or 429.

    A machine that is so busy that a proxy does not get to read what Redis says is an outage to that proxy, and what
    passes then is bounded as in any other.
    """
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(valkey())
        upstream = stack.enter_context(rig.start_upstream())
        settings = config(redis, upstream.port)
        started = (stack.enter_async_context(serving(settings)) for _ in range(PROCESSES))
        proxies = await asyncio.gather(*started)
        began = await redis.now_s()
        found = await call([proxy.port for proxy in proxies], KINDS, length.seconds)
        ended = await redis.now_s()
        lost = await _lost(redis, "witness", "")
    may = BURST + RATE * (ended - began)
    passed = sum(answers.admitted for answers in found.values())
    drained, alone = lost - passed, round(max(0.0, passed - lost - 1))  # a token a minute comes back
    exact = [
        Exact(f"{name}, proxies", answers.statuses.total(), answers.admitted, may, drained, alone)
        for name, answers in found.items()
    ]
    return exact, sum(answers.errors for answers in found.values())


async def run(length: Length) -> tuple[tuple[list[Exact], int], tuple[list[Exact], int]]:
    """What `direct` and `through_proxies` find, at the same time: neither is much work for a machine."""
    return await asyncio.gather(direct(length), through_proxies(length))


def figures(short: bool) -> list[Figure]:
    """Three times the load that every rule allows, in four processes."""
    length = SHORT if short else Length()
    (rules, by_itself), (proxied, errors) = asyncio.run(run(length))
    under = 3 if short else 1
    stalled = short and bool(by_itself)
    shown = [figure for rule in rules for figure in _shown(rule, under, stalled)]
    shown.append(Figure("  decided without Redis, which was there", by_itself, _STALLED if short else 0, ""))
    shown += [figure for rule in proxied for figure in _shown(rule, 10 if short else 1, short)]
    return [*shown, Figure("  calls answered otherwise than by 200 or 429", errors, 0, "")]


def _shown(rule: Exact, under: float, stalled: bool) -> list[Figure]:
    """`stalled`: the machine was so busy that Redis may have been taken to be away."""
    print(f"  {rule.name}: {rule.asked} asked, {rule.admitted} admitted of {rule.may:.1f}")
    if rule.alone:
        print(f"  ! {rule.alone} passed without Redis: the machine was so busy that it was taken to be away")
    most = OUTAGE if rule.alone or stalled else 0
    return [
        Figure(f"{rule.name}: admitted over what it may", max(0.0, rule.admitted - rule.may), most, ""),
        Figure("  admitted under it", (1 - rule.admitted / rule.may) * 100, under, "%"),
        Figure("  tokens that refused requests took elsewhere", max(0.0, rule.drained), 0.01, ""),
    ]
