"""WebSockets between a real client and a real server: frames pass, and each end learns what became of the other."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from tests.harness import CALL, PATIENCE_S, ProxyProcess, RawClient, Wire, free_port, json_answer, post, running_proxy
from tests.harness import scripted_upstream as scripted
from tests.integration.talk import Answered, ask, get, soon, values

PORT, SCRIPTED, DEAD = free_port(), free_port(), free_port()
KEY = base64.b64encode(bytes(16)).decode()
HANDSHAKE = ("Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13")
ACCEPT = base64.b64encode(hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()
SWITCH = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
).encode()


@pytest.fixture(scope="module")
def proxy() -> Iterator[ProxyProcess]:
    """A WebSocket server, scripted ones with and without deadlines, a dead one, and one that is no WebSocket server."""

    def ws(port: int, **timeouts: str) -> dict[str, object]:
        return {"url": f"ws://127.0.0.1:{port}/ws", "transport": "websocket", "timeouts": timeouts}

    servers = {
        "ws": ws(PORT),
        "odd": ws(SCRIPTED),
        "quiet": ws(SCRIPTED, idle="300ms"),
        "brief": ws(SCRIPTED, total="300ms"),
        "slow": ws(SCRIPTED, first_byte="300ms"),
        "dead": ws(DEAD),
        "plain": {"url": f"http://127.0.0.1:{SCRIPTED}/mcp"},
    }
    routes = [{"name": "pool", "path": "/pool", "servers": ["dead", "ws"], "strategy": "priority"}]
    with running_proxy({"servers": servers, "routes": routes}) as process:
        yield process


class Echo:
    """A WebSocket server that echoes, and does what a few words tell it to."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.code: int | None = None
        self.received = 0

    async def serve(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=0, protocols=("mcp",))
        await socket.prepare(request)
        try:
            async for message in socket:
                self.received += len(message.data)
                if message.type is WSMsgType.BINARY:
                    await socket.send_bytes(message.data)
                elif message.data == "vanish":
                    assert request.transport is not None
                    request.transport.abort()
                elif message.data == "close":
                    await socket.close(code=4001, message=b"because")
                else:
                    await socket.send_str(message.data)
        finally:
            self.code = socket.close_code
            self.closed.set()
        return socket


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    """The real server."""
    each = Echo()
    app = web.Application()
    app.router.add_get("/ws", each.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", PORT).start()
    yield each
    await runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A real client."""
    async with aiohttp.ClientSession() as each:
        yield each


def url(proxy: ProxyProcess, path: str = "/ws/mcp") -> str:
    return f"ws://127.0.0.1:{proxy.port}{path}"


@pytest.mark.parametrize("compress", [0, 15])
@pytest.mark.parametrize("path", ["/ws/mcp", "/pool"])
async def test_messages_of_every_kind_come_back(
    proxy: ProxyProcess, echo: Echo, session: aiohttp.ClientSession, compress: int, path: str
) -> None:
    """Text, binary, empty and large ones, pings, and the close with its code; also after a server that is dead."""
    async with session.ws_connect(url(proxy, path), compress=compress, protocols=("mcp",), max_msg_size=0) as socket:
        assert socket.protocol == "mcp"
        assert bool(socket.compress) == bool(compress)
        for text in ("hello", "", "ü" * 1000, "x" * 200_000):
            await socket.send_str(text)
            assert await socket.receive_str(timeout=PATIENCE_S) == text
        blob = os.urandom(3 << 20)
        await socket.send_bytes(blob)
        assert await socket.receive_bytes(timeout=PATIENCE_S) == blob
        await socket.ping(b"are you there")
        await socket.send_str("still")
        assert await socket.receive_str(timeout=PATIENCE_S) == "still"
        await socket.close(code=4000)
    await soon(echo.closed)
    assert echo.code == 4000


async def test_the_servers_close_arrives_with_its_code(
    proxy: ProxyProcess, echo: Echo, session: aiohttp.ClientSession
) -> None:
    """And the tunnel is over in order."""
    socket = await session.ws_connect(url(proxy))
    await socket.send_str("close")
    message = await socket.receive(timeout=PATIENCE_S)
    assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 4001, "because")
    await soon(echo.closed)
    assert proxy.wait_for(lambda line: line.get("server") == "ws" and line.get("bytes_out"))["status"] == 101


@pytest.mark.alone
async def test_whoever_vanishes_is_missed_within_a_second(
    proxy: ProxyProcess, echo: Echo, session: aiohttp.ClientSession
) -> None:
    """The server's end by a reset towards the client, the client's towards the server."""
    socket = await session.ws_connect(url(proxy))
    start = time.monotonic()
    await socket.send_str("vanish")
    message = await socket.receive(timeout=PATIENCE_S)
    assert message.type in (WSMsgType.CLOSED, WSMsgType.ERROR)
    assert time.monotonic() - start < 1
    await socket.close()
    await soon(echo.closed)

    echo.closed.clear()
    client = await RawClient.connect(proxy.port)
    await client.send(get("/ws/mcp", *HANDSHAKE))
    assert b" 101 " in await client.head()
    client.writer.transport.abort()
    await soon(echo.closed, 1)


async def test_a_reader_that_stalls_holds_fifty_mebibytes_back(
    proxy: ProxyProcess, echo: Echo, session: aiohttp.ClientSession
) -> None:
    """They pass in the end; meanwhile the proxy keeps little of them."""
    blob = os.urandom(1 << 20)
    before = proxy.rss_bytes()
    async with session.ws_connect(url(proxy), max_msg_size=0) as socket:

        async def send() -> None:
            for _ in range(50):
                await socket.send_bytes(blob)

        sending = asyncio.create_task(send())
        stalled_at = -1
        while stalled_at != echo.received:
            stalled_at = echo.received
            await asyncio.sleep(0.3)
        assert not sending.done()
        assert proxy.rss_bytes() - before < 8 << 20
        for _ in range(50):
            assert await socket.receive_bytes(timeout=PATIENCE_S) == blob
        await sending
    assert echo.received == 50 << 20


async def _echo_raw(wire: Wire) -> None:
    await wire.request()
    await wire.send(SWITCH)
    while piece := await wire.reader.read(1 << 16):
        await wire.send(piece)


async def test_bytes_right_behind_the_handshake_are_not_lost(proxy: ProxyProcess) -> None:
    """In one packet with it, on either side."""
    async with scripted(_echo_raw, SCRIPTED) as upstream:
        for size in (5, 40_000):
            client = await RawClient.connect(proxy.port)
            await client.send(get("/odd/mcp", *HANDSHAKE) + b"z" * size)
            assert b" 101 " in await client.head()
            assert await asyncio.wait_for(client.reader.readexactly(size), PATIENCE_S) == b"z" * size
            await client.close()

        async def greet(wire: Wire) -> None:
            await wire.request()
            await wire.send(SWITCH + b"welcome")

        upstream.script = greet
        client = await RawClient.connect(proxy.port)
        await client.send(get("/odd/mcp", *HANDSHAKE))
        head = await client.head()
        assert f"Sec-WebSocket-Accept: {ACCEPT}\r\n".encode() in head
        assert await asyncio.wait_for(client.reader.read(), PATIENCE_S) == b"welcome"
        await client.close()


async def test_the_handshake_reaches_the_server_as_a_handshake(proxy: ProxyProcess) -> None:
    """With the client's query and fields, and one Connection and Upgrade."""
    async with scripted(_echo_raw, SCRIPTED) as upstream:
        client = await RawClient.connect(proxy.port)
        await client.send(get("/odd/mcp?a=1", *HANDSHAKE, "Sec-WebSocket-Protocol: mcp", "Authorization: Bearer x"))
        await client.head()
        (seen,) = upstream.seen
        assert seen.startswith(f"GET /ws?a=1 HTTP/1.1\r\nHost: 127.0.0.1:{SCRIPTED}\r\n".encode())
        for name, value in (("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", KEY),
                            ("sec-websocket-protocol", "mcp"), ("authorization", "Bearer x")):  # fmt: skip
            assert values(seen, name) == [value]
        await client.close()


async def test_an_upgrade_to_a_plain_server_is_a_plain_request(proxy: ProxyProcess) -> None:
    """The server does not see the wish, so it cannot answer 101 to it."""

    async def script(wire: Wire) -> None:
        while await wire.request():
            await wire.send(json_answer())

    async with scripted(script, SCRIPTED) as upstream:
        client = await RawClient.connect(proxy.port)
        for _ in range(2):
            await client.send(get("/plain/mcp", *HANDSHAKE))
            assert (await client.answer())[0] == 200
        for seen in upstream.seen:
            assert not values(seen, "upgrade")
            assert not values(seen, "connection")
        await client.close()


async def test_a_plain_request_to_a_websocket_server_is_426(proxy: ProxyProcess) -> None:
    """GET and POST, without asking the server."""
    async with scripted(port=SCRIPTED) as upstream:
        for request in (get("/odd/mcp"), post("/odd/mcp", CALL)):
            answered = await ask(proxy.port, request)
            assert (answered.status, answered.reason, answered.fields["upgrade"]) == (
                426,
                "upgrade_required",
                "websocket",
            )
        assert not upstream.seen


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 4\r\n\r\nnope", b"Transfer-Encoding: chunked\r\n\r\n4\r\nnope\r\n0\r\n\r\n"]
)
@pytest.mark.parametrize("status", [b"401 Unauthorized", b"403 Forbidden", b"404 Not Found", b"200 OK", b"500 Oops"])
async def test_a_refused_handshake_passes_with_its_status(proxy: ProxyProcess, status: bytes, framing: bytes) -> None:
    """Fields and body included; the client's connection stays usable."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(b'HTTP/1.1 %b\r\nWWW-Authenticate: Bearer realm="ws"\r\n%b' % (status, framing))

    async with scripted(script, SCRIPTED):
        client = await RawClient.connect(proxy.port)
        for _ in range(2):
            await client.send(get("/odd/mcp", *HANDSHAKE))
            answered = Answered(*await client.answer())
            assert (answered.status, answered.body) == (int(status[:3]), b"nope")
            assert answered.fields["www-authenticate"] == 'Bearer realm="ws"'
        await client.close()


@pytest.mark.parametrize(
    ("path", "sent", "status", "reason"),
    [
        ("/dead/mcp", b"", 502, "connect_failed"),
        ("/odd/mcp", b"garbage\r\n\r\n", 502, "upstream_failed"),
        ("/odd/mcp", SWITCH.replace(b"websocket", b"h2c"), 502, "upstream_failed"),
        ("/slow/mcp", b"", 504, "upstream_timeout"),
        ("/brief/mcp", b"", 504, "upstream_timeout"),
    ],
)
async def test_a_handshake_that_fails_is_an_ordinary_refusal(
    proxy: ProxyProcess, path: str, sent: bytes, status: int, reason: str
) -> None:
    """As for any other request."""
    ended = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(sent)
        await wire.reader.read()
        ended.set()

    async with scripted(script, SCRIPTED):
        answered = await ask(proxy.port, get(path, *HANDSHAKE))
        assert (answered.status, answered.reason) == (status, reason)
        if path != "/dead/mcp":
            await soon(ended)


@pytest.mark.parametrize(("path", "steady"), [("/quiet/mcp", False), ("/brief/mcp", True)])
async def test_a_tunnel_ends_with_its_deadlines(proxy: ProxyProcess, path: str, steady: bool) -> None:
    """`idle` ends one without traffic, `total` also one with; both ends are closed."""
    ended = asyncio.Event()

    async def script(wire: Wire) -> None:
        try:
            await wire.request()
            await wire.send(SWITCH)
            while steady:
                await wire.send(b"tick")
                await asyncio.sleep(0.02)
            await wire.reader.read()
        finally:
            ended.set()

    async with scripted(script, SCRIPTED):
        client = await RawClient.connect(proxy.port)
        start = time.monotonic()
        await client.send(get(path, *HANDSHAKE))
        assert b" 101 " in await client.head()
        with contextlib.suppress(ConnectionError):  # a reset is as good
            await asyncio.wait_for(client.reader.read(), 2)
        assert 0.25 < time.monotonic() - start < 5  # nobody has set another deadline as short
        await soon(ended)
        line = proxy.wait_for(lambda line: line.get("server") == path[1:-4] and line.get("status") == 101)
        assert line["outcome"] == "timeout"
        await client.close()


async def test_tunnels_leave_nothing_behind(proxy: ProxyProcess, echo: Echo, session: aiohttp.ClientSession) -> None:
    """After twenty of them, closed in every way, no socket is left open."""
    await asyncio.sleep(0.1)
    before = proxy.sockets()
    for number in range(20):
        socket = await session.ws_connect(url(proxy))
        await socket.send_str(("vanish", "close", "hello")[number % 3])
        await socket.receive(timeout=PATIENCE_S)
        await socket.close()
    async with asyncio.timeout(PATIENCE_S):
        while proxy.sockets() > before or proxy.metric("mcp_proxy_open_streams"):
            await asyncio.sleep(0.02)
    assert "mcp_proxy_open_streams" in proxy.admin("/metrics")
