"""Credentials that end while they are in use: how soon every replica refuses them, and cuts what is open.

Two proxy processes are replicas on one PostgreSQL. Each victim calls both over several kept connections and has a
stream, some a WebSocket, on both; then one statement ends it, and the clock runs until every connection was refused. It
runs again with the triggers off that tell of changes, and with the connections ended, again and again, on which the
replicas listen. Bystanders, some of a victim's tenant, call all the time and must notice nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import asyncpg

from benchmarks import rig
from benchmarks.load import percentile
from benchmarks.rig import Figure
from tests.harness import ProxyProcess, RawClient, ScriptedUpstream, Wire, scripted_upstream
from tests.integration.test_websocket import HANDSHAKE, SWITCH
from tests.proofs.known import KINDS, TABLES, Someone, admit, config, serving, someone, status_of
from tests.proofs.load import tell
from tests.unit.store.engine import folder, login_dsn, migrated_database, owner_dsn

REPLICAS: Final = 2
#: How a credential ends, what may end so, and by which statement ($1: id of the row, the tenant or the user).
ENDINGS: Final = {
    "revoked": (("key", "legacy", "token"), "UPDATE {table} SET revoked_at = now() WHERE id = {id}"),
    "expired": (("key", "legacy", "token", "bearer"), "UPDATE {table} SET expires_at = now() WHERE id = {id}"),
    "suspended": (KINDS, "UPDATE tenants SET status = 'suspended', suspended_at = now() WHERE id = '{tenant}'"),
    "banned": (KINDS, "UPDATE \"user\" SET banned = true WHERE id = '{user}'"),
    "deleted": (("bearer", "cookie", "key"), "DELETE FROM {table} WHERE id = {id}"),
}
#: How replicas learn of it: told; nobody tells and they believe to hear; nobody tells and they know.
NEWS: Final = ("told", "untold", "deaf")
TRIGGERS: Final = """\
DO $$ DECLARE name regclass; BEGIN
    FOR name IN SELECT tgrelid::regclass FROM pg_trigger WHERE tgname = 'notify_change' LOOP
        EXECUTE format('ALTER TABLE %s {} TRIGGER notify_change', name);
    END LOOP;
END $$"""
#: No answer is waited for any longer, seconds.
PATIENCE_S: Final = 15.0


@dataclass
class Length:
    """How much of it."""

    each: int = 100
    """Victims of each ending."""
    news: tuple[str, ...] = NEWS
    wave: dict[str, int] = field(default_factory=lambda: {"told": 20, "untold": 50, "deaf": 50})
    """Victims at a time."""
    connections: int = 2
    """Of each victim to each replica."""
    pause_s: dict[str, float] = field(default_factory=lambda: {"told": 0.02, "untold": 0.08, "deaf": 0.08})
    """Between two calls on one connection."""
    spread_s: dict[str, float] = field(default_factory=lambda: {"told": 0.5, "untold": 4.0, "deaf": 4.0})
    """The victims of a wave end at random moments in this time."""


SHORT: Final = Length(each=2, news=("told", "untold"), spread_s=dict.fromkeys(NEWS, 0.5))


@dataclass
class Findings:
    """What was seen under one kind of news; times are seconds since the statement was sent."""

    victims: int = 0
    calls: int = 0
    refused_s: list[float] = field(default_factory=list)
    """Until the last connection of a victim to any replica was refused."""
    cut_s: list[float] = field(default_factory=list)
    """Until the last stream or WebSocket of a victim was cut."""
    streams: int = 0
    early: int = 0
    """Calls and streams that ended before the statement was sent."""
    again: int = 0
    """Calls that were answered after a refusal on the same replica."""
    harmed: int = 0
    """Calls and streams of bystanders that did not go on."""
    bystander_calls: int = 0
    notes: list[str] = field(default_factory=list)


class Victim:
    """Somebody, everywhere at once; ends when the statement was carried out and everybody has noticed."""

    def __init__(self, one: Someone, ending: str, found: Findings, pause_s: float) -> None:
        self.one = one
        self.ending = ending
        self._found = found
        self._pause_s = pause_s
        self._ended_at = float("inf")
        self._clients: list[RawClient] = []
        self._all_well = asyncio.Event()
        self._to_go = 0

    @property
    def statement(self) -> str:
        """What ends it."""
        quoted = f"'{self.one.id}'"
        ids = {"table": TABLES[self.one.kind], "id": quoted, "tenant": self.one.tenant, "user": self.one.user}
        return ENDINGS[self.ending][1].format(**ids)

    async def suffer(self, replicas: Sequence[ProxyProcess], connections: int, *, socket: bool) -> None:
        """Until all is over."""
        ports = [proxy.port for proxy in replicas]
        try:
            calls = [self._call(port) for port in ports for _ in range(connections)]
            streams = [self._stream(port, self.one.stream()) for port in ports]
            sockets = [self._stream(port, upgrade(self.one)) for port in ports if socket]
            refused = asyncio.gather(*calls)
            cut = asyncio.gather(*streams, *sockets)
            self._to_go = len(calls) + len(streams) + len(sockets)
            self._found.refused_s.append(max(await refused))
            self._found.cut_s.append(max(await cut))
            self._found.streams += len(streams) + len(sockets)
            self._found.victims += 1
        finally:
            for client in self._clients:
                await client.close()

    async def end(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """Once everything of it has gone well for a while."""
        async with asyncio.timeout(PATIENCE_S):
            await self._all_well.wait()
        self._ended_at = time.monotonic()
        status = await connection.execute(self.statement)
        assert status.endswith(" 1"), (status, self.statement)

    async def _connect(self, port: int) -> RawClient:
        client = await RawClient.connect(port)
        self._clients.append(client)
        return client

    def _went_well(self) -> None:
        """One more connection got its first good answer."""
        self._to_go -= 1
        if self._to_go == 0:
            self._all_well.set()

    async def _call(self, port: int) -> float:
        """Call again and again; seconds until the first refusal, after which three more must follow."""
        client = await self._connect(port)
        request = self.one.call()
        await asyncio.sleep(random.random() * self._pause_s)
        made = 0
        while (status := await status_of(client, request)) == 200:
            made += 1
            if made == 1:
                self._went_well()
            self._found.calls += 1
            if time.monotonic() - self._ended_at > PATIENCE_S:
                return PATIENCE_S
            await asyncio.sleep(self._pause_s)
        took_s = self._since(f"status {status}")
        for _ in range(3):
            await asyncio.sleep(self._pause_s)
            if await status_of(client, request) != 401:
                self._found.again += 1
        if status != 401:
            self._found.notes.append(f"{self.one.kind} {self.ending}: a last call ended with {status}")
            return PATIENCE_S
        return took_s

    async def _stream(self, port: int, request: bytes) -> float:
        """Hold a stream; seconds until it is cut."""
        client = await self._connect(port)
        await client.send(request)
        head = await client.head()
        assert head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 101 ")), head
        self._went_well()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(2 * PATIENCE_S):
                while await client.reader.read(1 << 16):
                    pass
        return self._since("a stream")

    def _since(self, what: str) -> float:
        took_s = time.monotonic() - self._ended_at
        if took_s < 0:
            self._found.early += 1
            self._found.notes.append(f"{self.one.kind} {self.ending}: ended too early, {what}")
            return PATIENCE_S
        return took_s


def upgrade(one: Someone) -> bytes:
    """The request for a WebSocket."""
    fields = (*HANDSHAKE, ": ".join(one.header))
    return "\r\n".join(["GET /ws/mcp HTTP/1.1", "Host: 127.0.0.1", *fields, "", ""]).encode()


async def silent_socket(wire: Wire) -> None:
    """A WebSocket server that says nothing."""
    if await wire.request():
        await wire.send(SWITCH)
        await wire.reader.read()


class Bystanders:
    """People whose credentials stay good."""

    def __init__(self, people: Sequence[Someone], replicas: Sequence[ProxyProcess], found: Findings) -> None:
        self._found = found
        self._stopped = False
        self._tasks = [asyncio.create_task(self._call(one, proxy.port)) for one in people for proxy in replicas]
        self._tasks += [asyncio.create_task(self._stream(one, proxy.port)) for one in people for proxy in replicas]

    async def stop(self) -> None:
        """They have seen enough."""
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def _call(self, one: Someone, port: int) -> None:
        client = await RawClient.connect(port)
        while not self._stopped:
            status = await status_of(client, one.call())
            self._found.bystander_calls += 1
            if status != 200:
                self._found.harmed += 1
                self._found.notes.append(f"a bystander's call ended with {status}")
            await asyncio.sleep(0.02)
        await client.close()

    async def _stream(self, one: Someone, port: int) -> None:
        client = await RawClient.connect(port)
        await client.send(one.stream())
        await client.head()
        await client.chunk()
        reading = asyncio.create_task(client.reader.read(1))
        while not self._stopped:
            await asyncio.sleep(0.05)
        if reading.done():
            self._found.harmed += 1
            self._found.notes.append("a bystander's stream was cut")
        reading.cancel()
        await client.close()


@asynccontextmanager
async def news_cut(database: str, news: str) -> AsyncIterator[None]:
    """Keep notices from the replicas, unless they are `told`."""
    owner = await asyncpg.connect(owner_dsn(database))
    try:
        if news == "untold":
            await owner.execute(TRIGGERS.format("DISABLE"))
            yield
            await owner.execute(TRIGGERS.format("ENABLE"))
        elif news == "deaf":
            deafening = asyncio.create_task(deafen(owner))
            yield
            deafening.cancel()
            with suppress(asyncio.CancelledError):
                await deafening
        else:
            yield
    finally:
        await owner.close()


async def deafen(owner: asyncpg.Connection[asyncpg.Record]) -> None:
    """End every connection that listens, over and over."""
    while True:
        await owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'mcp-manager listen'"
        )
        await asyncio.sleep(0.02)


async def run(length: Length) -> dict[str, Findings]:
    """Every ending under every kind of news."""
    found = {news: Findings() for news in length.news}
    victims = {
        news: [
            Victim(someone(kinds[number % len(kinds)]), ending, found[news], length.pause_s[news])
            for ending, (kinds, _) in ENDINGS.items()
            for number in range(length.each)
        ]
        for news in length.news
    }
    for several in victims.values():
        random.shuffle(several)
    neighbours = [each for each in victims[length.news[0]] if each.ending == "revoked"]
    bystanders = [replace(someone(kind), tenant=neighbours[0].one.tenant) for kind in KINDS]
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        name = await enter(migrated_database())
        await admit(owner_dsn(name), [*bystanders, *(each.one for several in victims.values() for each in several)])
        upstream = stack.enter_context(rig.start_upstream())
        sockets = await enter(scripted_upstream(silent_socket))
        settings = [config(login_dsn(name), upstream.port, str(folder())) for _ in range(REPLICAS)]
        replicas = [await enter(serving(with_sockets(each, sockets))) for each in settings]
        for news in length.news:
            beside = Bystanders(bystanders, replicas, found[news])
            async with news_cut(name, news):
                await end_all(name, victims[news], replicas, length, news)
            await beside.stop()
    return found


def with_sockets(settings: dict[str, Any], sockets: ScriptedUpstream) -> dict[str, Any]:
    """The same configuration with a WebSocket server."""
    socket = {"url": f"ws://127.0.0.1:{sockets.port}/ws", "transport": "websocket"}
    return {**settings, "servers": {**settings["servers"], "ws": socket}}


async def end_all(
    database: str, victims: list[Victim], replicas: Sequence[ProxyProcess], length: Length, news: str
) -> None:
    """Wave after wave."""
    size, spread_s = length.wave[news], length.spread_s[news]
    connection = await asyncpg.connect(owner_dsn(database))
    try:
        for at in range(0, len(victims), size):
            wave = victims[at : at + size]
            async with asyncio.TaskGroup() as suffering:
                for number, each in enumerate(wave):
                    suffering.create_task(each.suffer(replicas, length.connections, socket=not number % 5))
                for each in wave:
                    await asyncio.sleep(random.random() * 2 * spread_s / size)
                    await each.end(connection)
    finally:
        await connection.close()


def figures(short: bool) -> list[Figure]:
    """Credentials that end while they are in use."""
    shown = []
    for news, found in asyncio.run(run(SHORT if short else Length())).items():
        tell(found.notes[:10])
        refused, cut = sorted(found.refused_s), sorted(found.cut_s)
        soon_s = 1 if news == "told" else 5
        shown += [
            Figure(f"{found.victims} ended, replicas {news}: refused, p99", percentile(refused, 99), soon_s, "s"),
            Figure("  refused, worst", refused[-1], 5, "s"),
            Figure(f"  {found.streams} streams and WebSockets cut, worst", cut[-1], 5, "s"),
            Figure(f"  of {found.calls} calls, refused before the end", found.early, 0, ""),
            Figure("  answered again after a refusal", found.again, 0, ""),
            Figure(f"  of {found.bystander_calls} calls of bystanders, refused", found.harmed, 0, ""),
        ]
    return shown
