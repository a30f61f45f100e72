"""What connections give up when the process is short of memory, and who still answers when its loop stands still."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import AsyncIterator
from math import inf
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from proxy.config.models import Listen
from proxy.dataplane.connection import STARVED
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.gate import Gate
from proxy.dataplane.lane_aiohttp import AiohttpLane
from proxy.dataplane.listener import Listener
from proxy.dataplane.shedding import EVERYONE, NOBODY, Load
from proxy.errors import Refusal, Shed
from proxy.mcp.methods import metric_label
from proxy.metrics import Metrics
from proxy.protection import Protection
from tests.chaos.stall import probing
from tests.harness import PATIENCE_S, RawClient, free_port, post, scripted_upstream
from tests.inprocess import running_app
from tests.unit.dataplane.fakes import Time, proxying

MIB = 1 << 20


class Front:
    """A listener with its gates and a lane; behind it each answer is the size of its body."""

    def __init__(self) -> None:
        self.load = Load()
        self.time = Time()
        listen = Listen.model_validate({"port": 0, "limits": {"body": 32 * MIB}})
        self.listen = listen
        self.listener = Listener(
            listen, Metrics(CollectorRegistry(), 10, metric_label), lambda refusal, peer: None, self.load
        )
        self.listener.now = self.time
        self.port = 0
        self.clients: list[RawClient] = []

    async def pipeline(self, exchange: Exchange) -> None:
        size = 0
        try:
            if exchange.head.path == "/passed":
                while piece := await exchange.read_chunk():
                    size += len(piece)
            else:
                size = len(await exchange.read_body())
        except Refusal as refusal:
            exchange.respond(refusal.status, list(refusal.headers), b"")
        else:
            exchange.respond(200, [], b"%d" % size)

    async def client(self) -> RawClient:
        client = await RawClient.connect(self.port)
        self.clients.append(client)
        return client

    async def uploading(self, size: int, whole: int = 16 * MIB, path: str = "/kept") -> tuple[RawClient, Gate]:
        """A client that has sent so much of a body, and its gate, which has it."""
        known = set(self.listener.connections)
        client = await self.client()
        head, _, _ = post(path, b"").partition(b"Content-Length")
        await client.send(head + b"Content-Length: %d\r\n\r\n" % whole + bytes(size))
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for gate in self.listener.connections - known:
                    if isinstance(gate, Gate) and gate.arrived >= size:
                        return client, gate
                await asyncio.sleep(0)


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    made = Front()
    made.port = await made.listener.start(made.listen, AiohttpLane(made.pipeline))
    yield made
    await made.listener.stop_accepting()
    made.listener.abort_all()
    for client in made.clients:
        await client.close()


async def closes(client: RawClient) -> bool:
    """Whether the answer to another request is the last one."""
    await client.send(post())
    status, fields, _ = await client.answer()
    assert status == 200
    return fields.get("connection") == "close"


async def test_answers_are_the_last_on_their_connections_while_memory_is_short(front: Front) -> None:
    """And those afterwards are not."""
    client, other = await front.client(), await front.client()
    assert not await closes(client)
    front.load.closing_keepalive = True
    front.listener.relieve()
    assert await closes(client)
    assert await client.at_end()
    front.load.closing_keepalive = False
    front.listener.relieve()
    assert not await closes(other)


async def test_while_memory_is_short_what_waits_for_servers_is_refused_with_what_arrives(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each look; uploads that still arrive come first."""
    async with proxying({"a": {"url": "http://127.0.0.1:9/", "queue": {"max_concurrent": 1}}}) as proxy:
        protection = Protection(proxy.live.snapshot.config)
        protection.begin(proxy.live, proxy.streams, cast(Any, None), lambda: 0.0)
        monkeypatch.setattr(protection, "_watch", SimpleNamespace(step=lambda: None))
        name, _, look, _ = next(protection.steps(front.listener, lambda: None))
        assert name == "load"
        front.listener.load = load = protection.load
        queue = proxy.live.snapshot.upstreams["a"].queue
        assert queue is not None
        assert queue.try_enter()
        waiting = asyncio.ensure_future(queue.enter("", 1.0, 1, 60.0, 3 * MIB))
        client, _ = await front.uploading(2 * MIB)
        load.refused_from, load.excess = EVERYONE, 2 * MIB
        look()
        assert (await client.answer())[0] == 503
        assert queue.pending == 1
        load.excess = MIB
        look()
        with pytest.raises(Shed):
            await asyncio.wait_for(waiting, 5)
        queue.leave()


async def test_a_draining_process_stays_so_whatever_its_load(front: Front) -> None:
    """The end of the one reason does not end the other."""
    client = await front.client()
    front.listener.draining = True
    front.listener.relieve()
    assert await closes(client)


async def test_idle_connections_have_a_second_while_memory_is_short(front: Front) -> None:
    """Those that are idle already, and those that become so."""
    idle, late = await front.client(), await front.client()
    assert not await closes(idle)
    front.load.shrinking = True
    front.listener.relieve()
    assert not await closes(late)
    front.time.now += 0.9
    front.listener.tick()
    assert not await closes(late)
    front.time.now += 0.2
    front.listener.tick()
    assert await idle.at_end()
    assert not await closes(late)
    front.load.shrinking = False
    front.listener.relieve()
    assert not await closes(late)
    front.time.now += 5
    front.listener.tick()
    assert not await closes(late)


async def test_new_connections_are_refused_at_the_last(front: Front) -> None:
    """503 with Retry-After, and the end; those that are open go on."""
    old = await front.client()
    assert not await closes(old)
    front.load.refusing = True
    new = await front.client()
    status, fields, _ = await new.answer()
    assert (status, fields["retry-after"], fields["connection"]) == (503, "1", "close")
    assert await new.at_end()
    assert not await closes(old)


async def test_bodies_wait_when_there_is_no_room_and_go_on_when_there_is(front: Front) -> None:
    """All of them at once, also those that have only begun; each arrives whole in the end."""
    first, gate = await front.uploading(MIB)
    second, other = await front.uploading(1000)
    front.load.room = 300_000.0
    await first.send(bytes(MIB))
    async with asyncio.timeout(PATIENCE_S):
        while not gate.unread & STARVED:
            await asyncio.sleep(0)
    assert other.unread & STARVED
    begun, new = await front.uploading(1000)
    assert new.unread & STARVED
    assert not await closes(await front.client())  # a request that comes in one piece takes no room
    arrived = gate.arrived
    front.listener.relieve()  # there is still none
    await asyncio.sleep(0.05)
    assert gate.arrived == arrived
    front.load.room = inf
    front.listener.relieve()
    for client, sent in ((first, 2 * MIB), (second, 1000), (begun, 1000)):
        await client.send(bytes(16 * MIB - sent))
        assert (await client.answer())[2] == b"%d" % (16 * MIB)


async def test_the_largest_uploads_are_refused_until_that_is_enough(front: Front) -> None:
    """503 with Retry-After; smaller ones and bodies that are passed on as they come go on."""
    small, _ = await front.uploading(100_000, MIB)
    large, _ = await front.uploading(8 * MIB)
    passed, _ = await front.uploading(12 * MIB, path="/passed")
    front.load.refused_from, front.load.excess = EVERYONE, 5 * MIB
    front.listener.relieve()
    status, fields, _ = await large.answer()
    assert (status, fields["retry-after"], fields["connection"]) == (503, "1", "close")
    front.load.refused_from, front.load.excess = NOBODY, 0
    front.listener.relieve()
    await small.send(bytes(MIB - 100_000))
    assert (await small.answer())[0] == 200
    await passed.send(bytes(4 * MIB))
    assert (await passed.answer())[2] == b"%d" % (16 * MIB)


async def test_a_refused_upload_gives_its_memory_back_at_once(front: Front) -> None:
    """No traceback keeps it until the garbage collector comes."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        client, _ = await front.uploading(12 * MIB)
        held, _ = tracemalloc.get_traced_memory()
        assert held > 12 * MIB
        front.load.refused_from, front.load.excess = EVERYONE, 1
        front.listener.relieve()
        assert (await client.answer())[0] == 503
        left, _ = tracemalloc.get_traced_memory()
        assert left < 2 * MIB
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.alone
async def test_the_admin_port_answers_while_the_main_loop_stands_still() -> None:
    """The whole proxy is in this loop, which stands still for two seconds: every answer comes within 200 ms."""
    admin_port = free_port()
    async with (
        scripted_upstream() as upstream,
        running_app({"admin": {"port": admin_port}, "servers": {"up": {"url": upstream.url}}}),
    ):
        with probing(admin_port) as prober:
            time.sleep(2)
    assert len(prober.answers) >= 30
    assert {(path, status) for path, status, _ in prober.answers} == {
        ("/livez", 200),
        ("/metrics", 200),
        ("/readyz", 200),
    }
    assert max(seconds for _, _, seconds in prober.answers) < 0.2
