"""PostgreSQL stopped, frozen and slow under load: whoever is known is served as before, and all heals soon after.

A proxy with a PostgreSQL of its own, which is taken away, and one with a PostgreSQL that stays are called in turns, for
half a second each. The machine is noisy, so latencies are compared in pairs of neighbours: what the ratio of both
proxies' p99 is during the outage (the mean of the middle half of all pairs), by what it was just before. Meanwhile
somebody unknown asks the first one 20 times a second, and each well-known refusal is looked at once a second.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from zlib import crc32

from benchmarks import rig
from benchmarks.load import Order, Report, Target
from benchmarks.rig import Figure
from proxy.store.embedded import EmbeddedPostgres
from tests.harness import CALL, ProxyProcess, RawClient, post
from tests.integration.talk import ask
from tests.proofs.known import KINDS, Someone, admit, config, ended, own_postgres, serving, someone, status_of
from tests.proofs.load import tell
from tests.proofs.postgres_relay import Relay, relayed
from tests.unit.store.engine import execute, folder, login_dsn, migrated_database, owner_dsn
from tests.unit.store.test_pool import frozen

OUTAGES: Final = ("stopped", "frozen", "slow")
#: How long a slow PostgreSQL takes for each statement, seconds.
SLOW_S: Final = 3.0
#: Nothing is waited for any longer, seconds.
PATIENCE_S: Final = 20.0


@dataclass
class Length:
    """How much of it; times in seconds."""

    outages: tuple[str, ...] = OUTAGES
    before_s: float = 60.0
    outage_s: float = 60.0
    after_s: float = 10.0
    window_s: float = 0.5
    connections: int = 16


SHORT: Final = Length(outages=("frozen", "slow"), before_s=1.0, outage_s=3.0, after_s=0.5, window_s=0.25)
"""A stop is what a cold start goes through, too."""


@dataclass
class Findings:
    """What was seen of one outage; times in seconds."""

    calls: int = 0
    """In the outage and after it."""
    failed: int = 0
    p99_ratio: float = float("nan")
    """In the outage, by before."""
    slowest_ms: tuple[float, float] = (0.0, 0.0)
    """Slowest call in the outage: the proxy without its PostgreSQL, and the other."""
    noticed_s: float = float("nan")
    """Until an unknown credential was answered 503."""
    let_slip: int = 0
    """Answers to unknown credentials after that, in the outage, which were no 503."""
    changed: int = 0
    """Well-known refusals that were answered in another way than before."""
    healed_s: float = float("nan")
    """From the return until unknown credentials are 401 again, and stay so."""
    new_key_s: float = float("nan")
    """From the commit of a new key, made right after the return, until it was accepted."""
    notes: list[str] = field(default_factory=list)


@dataclass
class ColdStart:
    """Proxies that were started without PostgreSQL; times in seconds."""

    known_refused: int = 0
    """Kinds of credentials that are in the sealed copy and were not served."""
    unknown_wrong: int = 0
    """Credentials not in the copy, or asked without one, that were answered with anything but 503."""
    started_s: float = 0.0
    """The longer of both starts."""
    healed_s: float = 0.0
    """From the return of PostgreSQL until both proxies answered as they should."""


@asynccontextmanager
async def outage(kind: str, server: EmbeddedPostgres, relay: Relay) -> AsyncIterator[None]:
    """PostgreSQL is no use for the length of the block."""
    if kind == "stopped":
        await server.stop()
        yield
        await server.start()
    elif kind == "frozen":
        with frozen(server):
            yield
    else:
        relay.delay_s = SLOW_S
        yield
        relay.delay_s = 0.0


class Load:
    """Both proxies are called in turns, by people of every kind."""

    def __init__(self, load: rig.Load, ports: tuple[int, int], people: list[Someone], length: Length) -> None:
        targets = [Target("/up/mcp", headers=dict([one.header])) for one in people]
        self._orders = [
            Order(port, targets, "modern", connections=length.connections, seconds=length.window_s) for port in ports
        ]
        self._load = load
        self._turn = 0

    async def pair(self) -> tuple[Report, Report]:
        """A window of each, the first one of the one that was second."""
        self._turn = 1 - self._turn
        found: dict[int, Report] = {}
        for which in (self._turn, 1 - self._turn):
            found[which] = await asyncio.to_thread(self._load.attempt, self._orders[which])
        return found[0], found[1]

    async def run(self, seconds: float) -> list[tuple[Report, Report]]:
        """Pairs for this long."""
        until, pairs = time.monotonic() + seconds, []
        while time.monotonic() < until:
            pairs.append(await self.pair())
        return pairs


def ratio(pairs: list[tuple[Report, Report]]) -> float:
    """Mean of the middle half of the ratios of p99: as deaf to a bad second as the median, and steadier."""
    ratios = sorted(subject.p99_ms / control.p99_ms for subject, control in pairs)
    return statistics.fmean(ratios[len(ratios) // 4 : -(len(ratios) // 4) or None])


class Stranger:
    """Somebody unknown who asks all the time, as a key, a token and a cookie in turn."""

    def __init__(self, port: int) -> None:
        self.answers: list[tuple[float, int]] = []
        """When each answer came, and its status."""
        self._port = port
        self._asking = asyncio.create_task(self._ask())

    async def stop(self) -> None:
        """Enough."""
        await ended(self._asking)

    async def first(self, status: int, since: float) -> float:
        """When this status came first after a moment; waits for it."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = [at for at, seen in self.answers if seen == status and at > since]
                if found:
                    return found[0]
                await asyncio.sleep(0.01)

    async def _ask(self) -> None:
        client = await RawClient.connect(self._port)
        try:
            while True:
                for kind in ("key", "token", "cookie"):
                    self.answers.append((time.monotonic(), await status_of(client, someone(kind).call())))
                    await asyncio.sleep(0.05)
        finally:
            await client.close()


class Refusals:
    """What everybody knows to be refused, and how."""

    def __init__(self, port: int, key: Someone, revoked: Someone, afar: Someone) -> None:
        def shown(*fields: str, path: str = "/up/mcp") -> bytes:
            return post(path, CALL, *fields)

        good = ": ".join(key.header)
        text = key.value.removeprefix("Bearer ")
        self._port = port
        self.requests = {
            "no credential": shown(),
            "a mistyped key": shown(f"Authorization: Bearer {text[:-1]}{'0' if text[-1] != '0' else '1'}"),
            "a wrong secret": wrong_secret(key),
            "a revoked key": revoked.call(),
            "a key from elsewhere": afar.call(),
            "two credentials": shown(good, "X-API-Key: another"),
            "a key in the URL": shown(good, path=f"/up/mcp?api_key={text}"),
            "an unknown server": shown(good, path="/nowhere/mcp"),
        }

    async def look(self) -> dict[str, tuple[int, bytes]]:
        """Status and body of each."""
        found = {}
        for name, request in self.requests.items():
            status, _, body = await ask(self._port, request)
            found[name] = (status, body)
        return found


#: What `Refusals` sees when all is well.
EXPECTED: Final = (401, 401, 401, 401, 403, 400, 401, 404)


def wrong_secret(key: Someone) -> bytes:
    """A call with a key of a known id whose secret is another key's."""
    body = f"mcpm_{key.id}_{someone('key').value.split('_')[2]}"
    return post("/up/mcp", CALL, f"Authorization: Bearer {body}_{crc32(body.encode()):08x}")


@dataclass
class Scene:
    """What every outage has to do with."""

    server: EmbeddedPostgres
    relay: Relay
    control: ProxyProcess
    load: rig.Load
    upstream: rig.Process
    people: list[Someone]
    refused: tuple[Someone, Someone]
    """A revoked key, and one that is good from far away only."""


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    """Two databases with the same people."""
    people = [someone(kind) for kind in KINDS]
    refused = someone("key"), someone("key")
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        server, name = await enter(own_postgres()), await enter(migrated_database())
        relay = await enter(relayed(server))
        for dsn in (server.owner_dsn, owner_dsn(name)):
            await admit(dsn, [*people, *refused])
            await execute(dsn, "UPDATE enhanced_api_keys SET revoked_at = now() WHERE id = $1", refused[0].id)
            await execute(
                dsn, "UPDATE enhanced_api_keys SET allowed_ips = '{192.0.2.0/24}' WHERE id = $1", refused[1].id
            )
        upstream, load = stack.enter_context(rig.start_upstream()), stack.enter_context(rig.Load())
        control = await enter(serving(config(login_dsn(name), upstream.port, str(folder()))))
        yield Scene(server, relay, control, load, upstream, people, refused)


async def run(length: Length) -> dict[str, Findings]:
    """One outage of each kind."""
    async with scene() as here:
        return {kind: await suffer(kind, here, length) for kind in length.outages}


async def suffer(kind: str, here: Scene, length: Length) -> Findings:
    """One outage."""
    found = Findings()
    dsn = here.relay.dsn(here.server.dsn) if kind == "slow" else here.server.dsn
    async with serving(config(dsn, here.upstream.port, str(folder()))) as proxy:
        load = Load(here.load, (proxy.port, here.control.port), here.people, length)
        refusals, stranger = Refusals(proxy.port, here.people[0], *here.refused), Stranger(proxy.port)
        usual = await refusals.look()
        assert tuple(status for status, _ in usual.values()) == EXPECTED, usual
        await stranger.first(401, 0)
        watching = asyncio.create_task(watch(refusals, usual, found))
        await load.pair()  # warm
        before = await load.run(length.before_s)
        assert not any(subject.errors for subject, _ in before), before
        async with outage(kind, here.server, here.relay):
            began = time.monotonic()
            during = await load.run(length.outage_s)
            left = time.monotonic()
        returned = time.monotonic()
        after = asyncio.create_task(load.run(length.after_s))
        await accept(proxy, here.server.owner_dsn, found)
        await stranger.first(401, returned)
        after_pairs = await after
        await ended(watching)
        await stranger.stop()
    judge_stranger(found, stranger.answers, began, left, returned)
    measured = [*during, *after_pairs]
    found.calls = sum(subject.calls for subject, _ in measured)
    found.failed = sum(subject.errors + (subject.calls == 0) for subject, _ in measured)
    found.p99_ratio = ratio(during) / ratio(before)
    found.slowest_ms = (max(one.max_ms for one, _ in during), max(other.max_ms for _, other in during))
    return found


async def start_cold() -> ColdStart:
    """Start proxies while PostgreSQL is down: one with the sealed copy of an earlier run, one with nothing."""
    people, found = [someone(kind) for kind in KINDS], ColdStart()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        server = await enter(own_postgres())
        upstream = stack.enter_context(rig.start_upstream())
        await admit(server.owner_dsn, people)
        copy, nothing = folder(), folder()
        async with serving(config(server.dsn, upstream.port, str(copy))) as earlier:
            assert await statuses(earlier, people) == [200] * len(people)
        await server.stop()
        proxies = []
        for state in (copy, nothing):
            began = time.monotonic()
            proxies.append(await enter(serving(config(server.dsn, upstream.port, str(state)))))
            found.started_s = max(found.started_s, time.monotonic() - began)
        strangers = [someone(kind) for kind in KINDS]
        found.known_refused = sum(status != 200 for status in await statuses(proxies[0], people))
        unknown = [*await statuses(proxies[0], strangers), *await statuses(proxies[1], [*people, *strangers])]
        found.unknown_wrong = sum(status != 503 for status in unknown)
        await server.start()
        returned = time.monotonic()
        wanted = [200] * len(people) + [401] * len(strangers)
        async with asyncio.timeout(PATIENCE_S):
            for proxy in proxies:
                while await statuses(proxy, [*people, *strangers]) != wanted:
                    await asyncio.sleep(0.01)
        found.healed_s = time.monotonic() - returned
    return found


async def statuses(proxy: ProxyProcess, people: list[Someone]) -> list[int]:
    """What calls of each are answered."""
    client = await RawClient.connect(proxy.port)
    try:
        return [await status_of(client, one.call()) for one in people]
    finally:
        await client.close()


async def watch(refusals: Refusals, usual: dict[str, tuple[int, bytes]], found: Findings) -> None:
    """Look at the refusals every second."""
    while True:
        now = await refusals.look()
        for name, answer in now.items():
            if answer != usual[name]:
                found.changed += 1
                found.notes.append(f"{name}: {answer}")
        await asyncio.sleep(1)


async def accept(proxy: ProxyProcess, dsn: str, found: Findings) -> None:
    """Make a key, and wait until it is accepted."""
    new = someone("key")
    await admit(dsn, [new])
    made = time.monotonic()
    client = await RawClient.connect(proxy.port)
    async with asyncio.timeout(PATIENCE_S):
        while await status_of(client, new.call()) != 200:
            await asyncio.sleep(0.01)
    found.new_key_s = time.monotonic() - made
    await client.close()


def judge_stranger(
    found: Findings, answers: list[tuple[float, int]], began: float, left: float, returned: float
) -> None:
    """What the stranger was answered when."""
    noticed = next((at for at, status in answers if at > began and status == 503), float("inf"))
    found.noticed_s = noticed - began
    slips = [status for at, status in answers if noticed < at < left and status != 503]
    found.let_slip = len(slips)
    found.notes += [f"somebody unknown was answered {status}" for status in slips[:3]]
    doubted = [at for at, status in answers if at > returned and status != 401]
    found.healed_s = max(doubted, default=returned) - returned


def figures(short: bool) -> list[Figure]:
    """PostgreSQL stopped, frozen and slow, and not there at the start."""
    length, shown = SHORT if short else Length(), []
    for kind, found in asyncio.run(run(length)).items():
        tell(found.notes[:10])
        here, there = found.slowest_ms
        print(f"  slowest call while it was {kind}: {here:.0f} ms, at the other proxy {there:.0f} ms")
        shown += [
            Figure(f"{kind} for {length.outage_s:g} s, {found.calls} calls: failed", found.failed, 0, ""),
            Figure("  p99, by that before", found.p99_ratio, 5 if short else 1.1, "x"),
            Figure("  unknown credentials are 503 after", found.noticed_s, 4, "s"),
            Figure("  unknown credentials that were answered otherwise", found.let_slip, 0, ""),
            Figure("  well-known refusals that changed", found.changed, 0, ""),
            Figure("  unknown credentials are 401 again after", found.healed_s, 2, "s"),
            Figure("  a new key is accepted after", found.new_key_s, 2, "s"),
        ]
    cold = asyncio.run(start_cold())
    return [
        *shown,
        Figure("started without PostgreSQL: serves after", cold.started_s, 10, "s"),
        Figure("  known credentials refused, with a copy", cold.known_refused, 0, ""),
        Figure("  other credentials not answered 503", cold.unknown_wrong, 0, ""),
        Figure("  well after the return in", cold.healed_s, 2, "s"),
    ]
