"""Look-ups of names: one at a time for each, none holds up another, and a good address outlives failures."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any, cast

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver

from proxy.dataplane import resolver as module
from proxy.dataplane.resolver import (
    FAILURE_S,
    FRESH_S,
    MOST_THREADS,
    REFRESH_S,
    STALE_S,
    STUCK_S,
    Addresses,
    Resolver,
    _Line,
    look_up,
)
from tests.harness import json_answer, post, scripted_upstream
from tests.unit.dataplane.clocks import Clock

V4 = socket.AF_INET


class Names:
    """A name server: what it knows, what it was asked, and the names at which it hangs."""

    def __init__(self) -> None:
        self.known: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.hangs: dict[str, threading.Event] = {}
        self.errors: dict[str, Exception] = {}

    def __call__(self, host: str) -> Addresses:
        self.asked.append(host)
        if host in self.hangs:
            assert self.hangs[host].wait(10)
        if host in self.errors:
            raise self.errors[host]
        return [(V4, address) for address in self.known.get(host, [])]


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resolver(names: Names, clock: Clock) -> Resolver:
    return Resolver(names, clock)


async def found(resolver: Resolver, host: str) -> list[str]:
    """Addresses, in time."""
    return [str(result["host"]) for result in await asyncio.wait_for(resolver.resolve(host, 80), 5)]


async def idle(resolver: Resolver) -> None:
    """No look-up is under way."""
    async with asyncio.timeout(5):
        while resolver.lookups.running:
            await asyncio.sleep(0.001)


async def test_a_name_is_looked_up_once_however_many_ask(resolver: Resolver, names: Names) -> None:
    """And its answer has aiohttp's shape, with the port of whoever asks."""
    names.known["a.test"] = ["192.0.2.1"]
    results = await asyncio.gather(*(resolver.resolve("a.test", port) for port in range(50)))
    assert names.asked == ["a.test"]
    assert results[7] == [
        {"hostname": "a.test", "host": "192.0.2.1", "port": 7, "family": V4, "proto": 0, "flags": module._NUMERIC}
    ]


async def test_several_addresses_take_turns(resolver: Resolver, names: Names) -> None:
    """Each comes first in its turn."""
    names.known["a.test"] = ["192.0.2.1", "192.0.2.2"]
    assert [(await found(resolver, "a.test"))[0] for _ in range(3)] == ["192.0.2.1", "192.0.2.2", "192.0.2.1"]


async def test_an_address_is_renewed_while_it_is_used(resolver: Resolver, names: Names, clock: Clock) -> None:
    """Nobody waits for the new one before the old one is too old."""
    names.known["a.test"] = ["192.0.2.1"]
    assert await found(resolver, "a.test") == ["192.0.2.1"]
    names.known["a.test"] = ["192.0.2.2"]
    clock.now += REFRESH_S
    assert await found(resolver, "a.test") == ["192.0.2.1"]
    assert names.asked == ["a.test"]
    clock.now += 1
    assert await found(resolver, "a.test") == ["192.0.2.1"]
    await idle(resolver)
    assert await found(resolver, "a.test") == ["192.0.2.2"]
    names.known["a.test"] = ["192.0.2.3"]
    clock.now += FRESH_S + 1
    assert await found(resolver, "a.test") == ["192.0.2.3"]
    assert resolver.lookups.stale_answers == 0


@pytest.mark.parametrize("failure", [socket.gaierror(socket.EAI_AGAIN, "later"), UnicodeError("label"), None])
async def test_a_good_address_outlives_failures_for_a_while(
    resolver: Resolver, names: Names, clock: Clock, failure: Exception | None
) -> None:
    """An error, and an answer without an address. Then it is gone, and the failure shows."""
    names.known["a.test"] = ["192.0.2.1"]
    await found(resolver, "a.test")
    names.known.clear()
    if failure is not None:
        names.errors["a.test"] = failure
    clock.now += STALE_S
    assert await found(resolver, "a.test") == ["192.0.2.1"]
    assert resolver.lookups.stale_answers == resolver.lookups.failures == 1
    clock.now += 1
    with pytest.raises(OSError):
        await found(resolver, "a.test")


async def test_a_failure_is_the_answer_for_a_second(resolver: Resolver, names: Names, clock: Clock) -> None:
    """Not longer: a name that was just made is soon found."""
    names.errors["a.test"] = socket.gaierror(socket.EAI_NONAME, "unknown")
    for _ in range(3):
        with pytest.raises(socket.gaierror, match="unknown"):
            await found(resolver, "a.test")
    assert len(names.asked) == 1
    del names.errors["a.test"]
    names.known["a.test"] = ["192.0.2.1"]
    clock.now += FAILURE_S
    assert await found(resolver, "a.test") == ["192.0.2.1"]


async def test_a_name_that_hangs_holds_up_no_other(names: Names) -> None:
    """It has one thread, however many ask, and whoever gives up takes nothing from the others."""
    resolver = Resolver(names)
    names.known = {"hung.test": ["192.0.2.1"], "good.test": ["192.0.2.2"]}
    names.hangs["hung.test"] = threading.Event()
    asking = [asyncio.create_task(resolver.resolve("hung.test")) for _ in range(100)]
    await asyncio.sleep(0)
    assert await found(resolver, "good.test") == ["192.0.2.2"]
    asking[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking[0]
    assert (resolver.lookups.running, names.asked.count("hung.test")) == (1, 1)
    names.hangs["hung.test"].set()
    results = await asyncio.gather(*asking[1:])
    assert {result[0]["host"] for result in results} == {"192.0.2.1"}
    assert resolver.lookups.running == 0


async def test_a_known_name_that_hangs_has_its_old_address(
    resolver: Resolver, names: Names, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first to ask waits for a moment, the others do not once that is over."""
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    names.known["a.test"] = ["192.0.2.1"]
    await found(resolver, "a.test")
    hang = names.hangs["a.test"] = threading.Event()
    clock.now += FRESH_S + 1
    assert await found(resolver, "a.test") == ["192.0.2.1"]
    clock.now += 1
    assert await found(resolver, "a.test") == ["192.0.2.1"]
    assert resolver.lookups.stale_answers == 2
    hang.set()
    await idle(resolver)
    assert names.asked == ["a.test", "a.test"]


class Crowd:
    """Owners whose names hang, at a resolver of few threads; on the test's time."""

    def __init__(self, names: Names, clock: Clock, most_threads: int) -> None:
        self.names = names
        self.resolver = Resolver(names, clock, most_threads)
        self.hang = threading.Event()
        self.tasks: dict[str, asyncio.Task[list[dict[str, Any]]]] = {}

    def ask(self, owner: str, host: str, *, hangs: bool = True) -> asyncio.Task[list[dict[str, Any]]]:
        """An owner asks for a name."""
        self.names.known[host] = ["192.0.2.1"]
        if hangs:
            self.names.hangs[host] = self.hang
        task = self.tasks[f"{owner} {host}"] = asyncio.ensure_future(self.resolver.of(owner).resolve(host))
        return task

    async def fill(self, owner: str, number: int) -> None:
        """It asks for so many names that hang."""
        for each in range(number):
            self.ask(owner, f"{owner}{each}")
        await asyncio.sleep(0)

    def running(self, owner: str) -> int:
        """Threads that it has."""
        return self.resolver.lookups.lines[owner].running

    async def end(self) -> None:
        """Nothing hangs any more, and everyone has an answer."""
        self.hang.set()
        await asyncio.wait_for(asyncio.gather(*self.tasks.values()), 5)
        lookups = self.resolver.lookups
        assert (lookups.running, lookups.lines, lookups.started) == (0, {}, len(self.names.asked))


async def test_no_owner_gets_all_threads_however_many_of_its_names_hang(names: Names, clock: Clock) -> None:
    """Half of what is free at most, so the next one finds some, and the next; names beyond wait."""
    crowd = Crowd(names, clock, 16)
    for owner, threads in (("a", 8), ("b", 4), ("c", 2)):
        await crowd.fill(owner, 20)
        assert crowd.running(owner) == threads
    await asyncio.wait_for(crowd.ask("d", "good", hangs=False), 5)
    assert crowd.resolver.lookups.running == 14
    assert sum(len(line.waiting) for line in crowd.resolver.lookups.lines.values()) == 12 + 16 + 18
    await crowd.end()
    assert MOST_THREADS == 64


async def test_owners_take_turns(names: Names, clock: Clock) -> None:
    """Who asked for a hundred names first does not make another wait for all of them."""
    crowd = Crowd(names, clock, 2)
    await crowd.fill("a", 20)
    await crowd.fill("b", 2)
    assert (crowd.running("a"), crowd.running("b")) == (1, 1)
    await crowd.end()
    assert max(names.asked.index("b0"), names.asked.index("b1")) < 6


async def test_where_all_threads_of_an_owner_hang_its_other_names_fail_at_once(names: Names, clock: Clock) -> None:
    """Not before they have for a while; what has an address goes on, and so do others."""
    crowd = Crowd(names, clock, 4)
    known = crowd.resolver.of("a")
    names.known["known"] = ["192.0.2.9"]
    await known.resolve("known")
    clock.now += REFRESH_S + 1
    await crowd.fill("a", 2)
    waits = crowd.ask("a", "late")
    await asyncio.sleep(0)
    clock.now += STUCK_S + 0.1
    await asyncio.sleep(0)
    assert not waits.done()
    with pytest.raises(OSError, match="hang"):
        await asyncio.wait_for(known.resolve("fresh"), 5)
    assert [each["host"] for each in await known.resolve("known")] == ["192.0.2.9"]
    await asyncio.wait_for(crowd.ask("b", "good", hangs=False), 5)
    await crowd.end()
    assert "fresh" not in names.asked


async def test_a_name_that_waits_in_the_line_of_another_owner_is_looked_up_in_ones_own(
    names: Names, clock: Clock
) -> None:
    """Else whoever has many names that hang could hold up a good one of others."""
    crowd = Crowd(names, clock, 4)
    await crowd.fill("a", 3)
    waits = crowd.ask("a", "shared", hangs=False)
    await asyncio.sleep(0)
    assert not waits.done()
    await asyncio.wait_for(crowd.ask("b", "shared", hangs=False), 5)
    assert await waits
    await crowd.end()
    assert names.asked.count("shared") == 1


async def test_names_that_nobody_asks_for_are_forgotten(resolver: Resolver, names: Names, clock: Clock) -> None:
    """So that names that come and go do not pile up."""
    names.known = {"a.test": ["192.0.2.1"], "b.test": ["192.0.2.2"]}
    await found(resolver, "a.test")
    clock.now += STALE_S + 1
    await found(resolver, "b.test")
    assert list(resolver.lookups.names) == ["b.test"]


async def test_a_family_that_a_name_lacks_is_no_address(resolver: Resolver, names: Names) -> None:
    """Whoever wants IPv6 only gets no IPv4."""
    names.known["a.test"] = ["192.0.2.1"]
    with pytest.raises(OSError, match="family"):
        await resolver.resolve("a.test", 80, socket.AF_INET6)


async def test_the_system_knows_this_machine() -> None:
    """The look-up of the real resolver, and of what is no name."""
    assert (V4, "127.0.0.1") in look_up("localhost")
    with pytest.raises(OSError, match="not a name"):
        await Resolver().resolve("a" * 64 + ".test")


async def test_aiohttp_connects_where_it_says(names: Names) -> None:
    """Its connector takes the resolver as it is."""
    names.known["up.test"] = ["127.0.0.1"]
    async with scripted_upstream() as upstream:
        resolver = cast(AbstractResolver, Resolver(names))
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(f"http://up.test:{upstream.port}/mcp", data=post()) as answer,
        ):
            assert json_answer().endswith(await answer.read())
            assert answer.status == 200
        names.errors["no.test"] = socket.gaierror(socket.EAI_NONAME, "unknown")
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
        async with aiohttp.ClientSession(connector=connector) as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get("http://no.test/")


def test_a_look_up_that_ends_after_the_loop_harms_nobody(names: Names) -> None:
    """The process is ending by then."""
    resolver = Resolver(names)
    names.known["a.test"] = ["192.0.2.1"]
    loop = asyncio.new_event_loop()
    loop.close()
    resolver.lookups.run(loop, "a.test", _Line())
    assert resolver.lookups.running == 0
