"""A handshake opens a tunnel or brings the upstream's refusal; anything else is told what the server speaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.dataplane.upstream import Upstream
from proxy.dataplane.websocket import forward_websocket
from proxy.errors import ConnectFailed, UpgradeRequired, UpstreamFailed
from tests.harness import Wire, free_port, scripted_upstream
from tests.unit.dataplane.asked import somebody
from tests.unit.dataplane.fakes import PATIENCE_S, Proxy, Request, proxying

HANDSHAKE = (
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-A: 1\r\n\r\n"


@asynccontextmanager
async def before(
    script: Callable[[Wire], Awaitable[None]], query: str = "", **server: Any
) -> AsyncIterator[tuple[Proxy, Upstream]]:
    """A WebSocket server, and the proxy before it."""
    async with scripted_upstream(script) as upstream:
        url = f"ws://127.0.0.1:{upstream.port}/ws{query}"
        async with proxying({"ws": {"url": url, "transport": "websocket", **server}}) as proxy:
            yield proxy, proxy.live.snapshot.upstreams["ws"]


def handshake(proxy: Proxy, target: str = "/ws/mcp", body: tuple[bytes, ...] = ()) -> Request:
    """What a client sends to open a WebSocket, and the raw bytes behind it; then it only listens."""
    request = proxy.request(target, *HANDSHAKE, method="GET", body=body)
    request.client.stays = True
    return request


async def test_bytes_pass_both_ways_until_the_server_ends() -> None:
    """The answer has the server's fields and the two of the upgrade; every byte is counted."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(SWITCH + b"hello")
        assert await wire.reader.readexactly(6) == b"framed"
        await wire.send(b" bye")

    async with before(script) as (proxy, upstream):
        request = handshake(proxy, body=(b"fra", b"med"))
        await forward_websocket(request.ctx, upstream, proxy.streams)
        assert request.client.status == 101
        assert request.client.headers[:1] == [("X-A", "1")]
        assert request.client.headers[-2:] == [("Upgrade", "websocket"), ("Connection", "Upgrade")]
        assert (request.client.got, request.client.end) == (b"hello bye", "finish")
        assert (request.ctx.bytes_in, request.ctx.bytes_out, request.ctx.outcome) == (6, 9, "")
        assert request.ctx.streaming
        assert upstream.metrics.open_streams == 0


async def test_an_open_tunnel_is_counted_and_silence_ends_it() -> None:
    """After `timeouts.idle` of both sides."""
    opened = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(SWITCH)
        opened.set()
        await wire.reader.read()

    async with before(script, timeouts={"idle": "30ms"}) as (proxy, upstream):
        request = handshake(proxy)
        task = asyncio.ensure_future(forward_websocket(request.ctx, upstream, proxy.streams))
        await request.client.until(lambda: request.client.status == 101)
        assert (upstream.metrics.open_streams, len(proxy.streams)) == (1, 1)
        async with asyncio.timeout(PATIENCE_S):
            await task
        assert (request.ctx.outcome, request.client.end, upstream.metrics.open_streams) == ("timeout", "abort", 0)
        assert len(proxy.streams) == 0


async def test_a_tunnel_ends_with_the_credential_that_opened_it() -> None:
    """By reset on both sides."""
    left = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(SWITCH)
        try:
            await wire.reader.read()
        finally:
            left.set()

    async with before(script) as (proxy, upstream):
        request = handshake(proxy)
        request.ctx.principal = somebody("key:ada", "acme")
        task = asyncio.ensure_future(forward_websocket(request.ctx, upstream, proxy.streams))
        await request.client.until(lambda: request.client.status == 101)
        assert proxy.streams.open_of("key:ada") == proxy.streams.open_of_tenant("acme") == 1
        assert proxy.streams.cut_unless(lambda principal: False) == 1
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(asyncio.CancelledError):
                await task
            await left.wait()
        assert (request.ctx.outcome, request.client.end, len(proxy.streams)) == ("revoked", "abort", 0)


async def test_a_client_that_leaves_is_counted_out() -> None:
    """Its cancellation passes."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(SWITCH)
        await wire.reader.read()

    async with before(script) as (proxy, upstream):
        request = handshake(proxy)
        task = asyncio.ensure_future(forward_websocket(request.ctx, upstream, proxy.streams))
        await request.client.until(lambda: request.client.status == 101)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert upstream.metrics.open_streams == 0


@pytest.mark.parametrize("revoked", [False, True])
async def test_what_has_passed_is_known_however_the_tunnel_ends(revoked: bool) -> None:
    """Its end may be that of the credential, or a cancellation: the client's connection is lost, or time is up."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(SWITCH)
        assert await wire.reader.readexactly(6) == b"framed"
        await wire.send(b"hello")
        await wire.reader.read()

    async with before(script) as (proxy, upstream):
        request = handshake(proxy, body=(b"fra", b"med"))
        task = asyncio.ensure_future(forward_websocket(request.ctx, upstream, proxy.streams))
        await request.client.until(lambda: request.client.got == b"hello")
        if revoked:
            proxy.streams.cut_unless(lambda principal: False)
        else:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (request.ctx.bytes_in, request.ctx.bytes_out) == (6, 5)


async def test_a_refusal_of_the_handshake_is_the_clients_to_see() -> None:
    """Status, fields and body; its length is counted anew."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 403 No\r\nX-A: 1\r\nContent-Length: 6\r\n\r\nno way")

    async with before(script) as (proxy, upstream):
        request = handshake(proxy)
        await forward_websocket(request.ctx, upstream, proxy.streams)
        assert (request.client.status, request.client.got, request.client.steps) == (403, b"no way", ["respond"])
        names = [name for name, _ in request.client.headers]
        assert names[0] == "X-A"
        assert "Content-Length" not in names
        assert (request.ctx.status, request.ctx.bytes_out, request.ctx.streaming) == (403, 6, False)


@pytest.mark.parametrize(("own", "asked", "sent"), [("", "", ""), ("", "?a=1", "?a=1"), ("?k=1", "?a=1", "?k=1")])
async def test_the_clients_query_goes_along_unless_the_url_has_its_own(own: str, asked: str, sent: str) -> None:
    """As for every other request."""
    seen: list[bytes] = []

    async def script(wire: Wire) -> None:
        seen.append(await wire.request())
        await wire.send(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")

    async with before(script, own) as (proxy, upstream):
        await forward_websocket(handshake(proxy, f"/ws/mcp{asked}").ctx, upstream, proxy.streams)
        assert seen[0].startswith(f"GET /ws{sent} HTTP/1.1\r\n".encode())
        assert b"\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" in seen[0]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_plain_request_is_told_what_is_spoken_here(method: str) -> None:
    """426 with the field that RFC 9110 section 15.5.22 asks for; the server is not asked."""
    async with proxying({"ws": {"url": "ws://127.0.0.1:9/ws", "transport": "websocket"}}) as proxy:
        with pytest.raises(UpgradeRequired) as refused:
            await forward_websocket(
                proxy.request("/ws/mcp", method=method).ctx, proxy.live.snapshot.upstreams["ws"], proxy.streams
            )
        assert refused.value.headers == (("Upgrade", "websocket"), ("Connection", "Upgrade"))


async def test_a_server_that_is_not_there_or_says_nothing_is_a_failure() -> None:
    """Before the client has an answer, so that it gets one."""

    async def script(wire: Wire) -> None:
        await wire.request()

    async with before(script) as (proxy, upstream):
        request = handshake(proxy)
        with pytest.raises(UpstreamFailed):
            await forward_websocket(request.ctx, upstream, proxy.streams)
        assert not request.client.started
    async with proxying({"ws": {"url": f"ws://127.0.0.1:{free_port()}/ws", "transport": "websocket"}}) as proxy:
        with pytest.raises(ConnectFailed):
            await forward_websocket(handshake(proxy).ctx, proxy.live.snapshot.upstreams["ws"], proxy.streams)
