"""Maintenance over sockets: what is open ends with the drain, and what comes is told when to come back."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from tests.harness import (
    PATIENCE_S,
    ProxyProcess,
    RawClient,
    ScriptedUpstream,
    Wire,
    json_answer,
    post,
    running_proxy,
    scripted_upstream,
)
from tests.integration.talk import SSE_HEAD, ask, chunk, event, get
from tests.integration.test_sessions import INITIALIZE

KEY = base64.b64encode(bytes(16)).decode()
HANDSHAKE = ("Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13")
ACCEPT = base64.b64encode(hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest())
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
DRAIN_S = 1.0


async def speak(wire: Wire) -> None:
    """A WebSocket that stays open, a session, streams that stay open, and a call that takes until it is let go."""
    while request := await wire.request():
        if b"upgrade: websocket" in request.lower():
            await wire.send(SWITCH + ACCEPT + b"\r\n\r\n")
            await wire.reader.read()
            return
        if request.startswith(b"GET") or b'"stream"' in request:
            await wire.send(SSE_HEAD + chunk(event(0)))
            await wire.reader.read()
            return
        if b'"slow"' in request:
            await asyncio.sleep(DRAIN_S + 1.5)
        answer = json_answer()
        if b'"initialize"' in request:
            answer = answer.replace(b"\r\n\r\n", b"\r\nMcp-Session-Id: mine\r\n\r\n", 1)
        await wire.send(answer)


def call(path: str, tool: str, *fields: str) -> bytes:
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"%b","arguments":{}}}' % tool.encode()
    return post(path, body, *fields)


@dataclass
class World:
    """A proxy in front of two servers, and a path that both serve."""

    proxy: ProxyProcess
    config: dict[str, Any]

    def maintain(self, server: str, begins_in_s: float = 0.0, drain: str = f"{DRAIN_S}s") -> datetime:
        """Put a window of a minute in force, beside those of before; its end."""
        begin = datetime.now(UTC) + timedelta(seconds=begins_in_s)
        end = begin + timedelta(minutes=1)
        window = {"server": server, "title": "New disk", "start": begin.isoformat(), "end": end.isoformat()}
        self.config.setdefault("maintenance", []).append({**window, "drain": drain})
        said = self.proxy.reload(self.config)
        assert said["event"] == "configuration in force", said
        return end


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with scripted_upstream(speak) as each:
        yield each


@pytest.fixture
async def world(upstream: ScriptedUpstream) -> AsyncIterator[World]:
    config: dict[str, Any] = {
        "servers": {
            "one": {"url": upstream.url},
            "two": {"url": upstream.url},
            "ws": {"url": f"ws://127.0.0.1:{upstream.port}/", "transport": "websocket"},
        },
        "routes": [{"name": "both", "path": "/both", "servers": ["one", "two"], "strategy": "priority"}],
    }
    with running_proxy(config) as proxy:
        yield World(proxy, config)


async def opened(port: int, request: bytes) -> RawClient:
    """A client whose stream or tunnel is open."""
    client = await RawClient.connect(port)
    await client.send(request)
    head = await client.head()
    if head.startswith(b"HTTP/1.1 200"):
        assert await client.chunk() == event(0)
    return client


async def rest(client: RawClient) -> str:
    """How what is open ends: `whole`, `cut`, or `open` when it does not."""
    try:
        async with asyncio.timeout(DRAIN_S + 3):
            read = await client.reader.read()
    except TimeoutError:
        return "open"
    except ConnectionError:
        return "cut"
    finally:
        await client.close()
    return "whole" if read.endswith(b"0\r\n\r\n") else "cut"


async def test_what_is_open_ends_with_the_drain(world: World, upstream: ScriptedUpstream) -> None:
    """A listening stream in order; one that owes an answer, and a WebSocket, by reset. Of another server, nothing. A
    call that waits for its answer gets it."""
    port = world.proxy.port
    listening, owing, tunnel, other = [
        await opened(port, request)
        for request in (
            get("/one/mcp", "Connection: close", "Accept: text/event-stream"),
            call("/one/mcp", "stream"),
            get("/ws/mcp", *HANDSHAKE),
            get("/two/mcp", "Accept: text/event-stream"),
        )
    ]
    slow = asyncio.create_task(ask(port, call("/one/mcp", "slow")))
    while not any(b'"slow"' in request for request in upstream.seen):
        await asyncio.sleep(0.01)
    world.maintain("one")
    began = time.monotonic()
    world.maintain("ws")
    ends = await asyncio.gather(*(rest(client) for client in (listening, owing, tunnel, other)))
    assert ends == ["whole", "cut", "cut", "open"]
    assert time.monotonic() - began >= DRAIN_S
    assert (await slow).status == 200
    drained = world.proxy.logged(lambda line: line.get("outcome") == "drained", 3)
    assert sorted(line["server"] for line in drained) == ["one", "one", "ws"]


async def test_who_is_refused_is_told_why_and_until_when(world: World) -> None:
    """New sessions and WebSockets from the begin on, sessions that are there when the drain is over. The begin of each
    window is in the log."""
    port = world.proxy.port
    session = f"Mcp-Session-Id: {(await ask(port, post('/one/mcp', INITIALIZE))).fields['mcp-session-id']}"
    ends = {server: world.maintain(server, drain="5s") for server in ("one", "ws")}

    async def refused(server: str, request: bytes) -> None:
        answered = await ask(port, request)
        assert (answered.status, answered.reason) == (503, "maintenance")
        assert orjson.loads(answered.body)["error"]["data"]["title"] == "New disk"
        until = datetime.now(UTC) + timedelta(seconds=int(answered.fields["retry-after"]))
        assert abs((until - ends[server]).total_seconds()) < 5

    await refused("one", post("/one/mcp", INITIALIZE))
    await refused("ws", get("/ws/mcp", *HANDSHAKE))
    assert (await ask(port, call("/one/mcp", "echo", session))).status == 200
    async with asyncio.timeout(PATIENCE_S):
        while (await ask(port, call("/one/mcp", "echo", session))).status == 200:
            await asyncio.sleep(0.05)
    await refused("one", call("/one/mcp", "echo", session))
    await refused("one", get("/one/mcp", session))
    assert (await ask(port, call("/two/mcp", "echo"))).status == 200
    begins = world.proxy.logged(lambda line: line.get("kind") == "maintenance_begin", 2)
    assert [line["details"]["server"] for line in begins] == ["one", "ws"]


async def test_with_another_server_nobody_is_refused(world: World) -> None:
    """Sessions begin anew once their server is drained; without it they would be told to wait."""
    port = world.proxy.port
    session = f"Mcp-Session-Id: {(await ask(port, post('/both', INITIALIZE))).fields['mcp-session-id']}"
    world.maintain("one", drain="0")
    anew = await ask(port, call("/both", "echo", session))
    assert (anew.status, anew.reason) == (404, "session_gone")
    assert (await ask(port, post("/both", INITIALIZE))).status == 200
    world.maintain("two", drain="0")
    assert (await ask(port, call("/both", "echo", session))).reason == "maintenance"
    assert (await ask(port, post("/both", INITIALIZE))).reason == "maintenance"


async def test_a_window_begins_and_ends_by_the_clock(world: World) -> None:
    """Within a second or so of its begin."""
    port = world.proxy.port
    world.maintain("one", begins_in_s=4.0)
    assert (await ask(port, call("/one/mcp", "echo"))).status == 200
    line = await asyncio.to_thread(world.proxy.wait_for, lambda line: line.get("kind") == "maintenance_begin")
    assert line["details"]["title"] == "New disk"
    assert (await ask(port, call("/one/mcp", "echo"))).reason == "maintenance"
    del world.config["maintenance"]
    world.proxy.reload(world.config)
    assert (await ask(port, call("/one/mcp", "echo"))).status == 200
