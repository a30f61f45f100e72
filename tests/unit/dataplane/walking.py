"""Requests that walk as far as their answer, past everything that is real: what the tests of forwarding are made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from proxy.dataplane.affinity import Session
from proxy.dataplane.forward import forward
from proxy.dataplane.inspect import read_message
from proxy.dataplane.list_pages import Page
from proxy.dataplane.match import match_route
from proxy.dataplane.upstream import Upstream
from proxy.identity.access import Server as Place
from tests.harness import Wire, free_port, json_answer
from tests.unit.dataplane.fakes import PATIENCE_S, Client, Proxy, Request

#: Each may be sent again.
READS = {
    "tools/list": b"{}",
    "resources/templates/list": b"{}",
    "resources/read": b'{"uri":"file:///a"}',
    "prompts/get": b'{"name":"p"}',
    "completion/complete": b'{"ref":{}}',
    "server/discover": b"{}",
    "ping": b"{}",
}


def message(method: str, params: bytes = b"{}") -> bytes:
    """A request as JSON-RPC."""
    return b'{"jsonrpc":"2.0","id":1,"method":"%b","params":%b}' % (method.encode(), READS.get(method, params))


LIST = message("tools/list")


def answering(raw: bytes, reset: bool = False) -> Callable[[Wire], Awaitable[None]]:
    """Answers one request and ends the connection."""

    async def script(wire: Wire) -> None:
        await wire.request()
        if raw:
            await wire.send(raw)
        if reset:
            wire.reset()

    return script


#: A server that reads the request and loses the connection.
LOSES = answering(b"", reset=True)


class Held:
    """A server that has the request and answers when the test says so."""

    def __init__(self, answer: bytes = b"") -> None:
        self.asked = asyncio.Event()
        self.left = asyncio.Event()
        """The proxy has closed the connection."""
        self.go = asyncio.Event()
        self._answer = answer or json_answer()

    async def __call__(self, wire: Wire) -> None:
        while await wire.request():
            self.asked.set()
            ends = asyncio.ensure_future(wire.reader.read(1))
            goes = asyncio.ensure_future(self.go.wait())
            await asyncio.wait((ends, goes), return_when=asyncio.FIRST_COMPLETED)
            if not self.go.is_set():
                goes.cancel()
                self.left.set()
                return
            ends.cancel()
            await asyncio.wait((ends,))
            await wire.send(self._answer)


async def send(proxy: Proxy, request: Request) -> Client:
    """Take a request through its phases."""
    await read_message(request.ctx)
    match_route(request.ctx)
    await forward(request.ctx, proxy.parts)
    return request.client


def check_rest(proxy: Proxy) -> None:
    """Nothing is held anywhere, and no trial is under way."""
    for upstream in proxy.live.snapshot.upstreams.values():
        queue, breaker = upstream.queue, upstream.breaker
        assert (upstream.in_flight, upstream.open_streams, upstream.metrics.pool_in_use) == (0, 0, 0)
        assert queue is None or (queue.running, queue.pending) == (0, 0)
        assert breaker.state != "half_open" or breaker.ready()
    assert (proxy.parts.budget.requests, proxy.parts.budget.retrying) == (0, 0)
    assert not len(proxy.streams)


async def walk(proxy: Proxy, request: Request) -> Client:
    """Take the only request through its phases; afterwards everything is at rest."""
    try:
        return await send(proxy, request)
    finally:
        check_rest(proxy)


@asynccontextmanager
async def under_way(proxy: Proxy, request: Request) -> AsyncIterator[asyncio.Task[Client]]:
    """A request that goes on beside the test; one that is not awaited there is cancelled."""
    task = asyncio.ensure_future(send(proxy, request))
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield task
    finally:
        task.cancel()
        await asyncio.wait((task,))


def gone() -> str:
    """The URL of a server that is not there."""
    return f"http://127.0.0.1:{free_port()}/mcp"


def route(*servers: str, **options: Any) -> dict[str, Any]:
    """A route `/all` that takes its servers in order."""
    return {"name": "all", "path": "/all", "servers": list(servers), "strategy": "priority", **options}


async def bound(proxy: Proxy, request: Request, server: str) -> Upstream:
    """The request has found its route, and belongs to a session at `server`."""
    await read_message(request.ctx)
    match_route(request.ctx)
    ctx, upstream = request.ctx, proxy.live.snapshot.upstreams[server]
    session: Session = ctx.snapshot.sealer.begin(ctx, server, "upstream's id")
    ctx.session, ctx.pinned = session, upstream
    return upstream


def hint(proxy: Proxy, server: str, **annotations: bool) -> None:
    """A list passed in which the server says this of its tool `echo`."""
    tool = {"name": "echo", "inputSchema": {}, "annotations": annotations}
    tools: Any = proxy.parts.tools
    tools.learn(server, Place(server), [Page("tool", [tool], None, None)], 0.0)


def open_breaker(upstream: Upstream) -> None:
    """Let it fail until its breaker opens."""
    while upstream.breaker.state == "closed":
        upstream.breaker.failed(upstream.breaker.admit(), "connect")
