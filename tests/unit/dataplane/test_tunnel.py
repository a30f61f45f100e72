"""WebSockets pass as raw bytes: real clients and servers through a tunnel, and ends that break off or go silent."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proxy.config.models import Limits, Server
from proxy.dataplane import tcp
from proxy.dataplane.client import UpstreamClient
from proxy.dataplane.exchange import Headers
from proxy.dataplane.head import parse_head
from proxy.dataplane.resolver import Resolver
from proxy.dataplane.rewrite import request_headers, response_headers
from proxy.dataplane.tunnel import Relayed, Tunnel, open_tunnel, relay
from proxy.dataplane.upstream import Upstream
from proxy.errors import ConnectFailed, UpstreamFailed, UpstreamTimeout
from proxy.metrics import ServerMetrics
from tests.unit.dataplane.asked import ask, snapshot

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
HOST: Headers = [("Host", "live.test")]
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def upstream_at(
    port: int, scheme: str = "ws", tls: ssl.SSLContext | None = None, connect: str = "5s", host: str = "127.0.0.1"
) -> Upstream:
    config = Server.model_validate(
        {"url": f"{scheme}://{host}:{port}/ws", "transport": "websocket", "timeouts": {"connect": connect}}
    )
    here = Resolver(lambda name: [(socket.AF_INET, "127.0.0.1")])
    client = cast("UpstreamClient", SimpleNamespace(tls=tls, new_socket=tcp.new_socket, resolver=here))
    return Upstream("live", config, client, ServerMetrics("live", str))


@asynccontextmanager
async def listening(serve: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A TCP server that runs `serve` for each connection; gives its port, and waits at the end until all are over."""
    running = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal running
        running += 1
        try:
            await serve(reader, writer)
        except (OSError, EOFError):
            pass
        finally:
            writer.transport.abort()
            running -= 1

    server = await asyncio.start_server(count, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
        await until(lambda: not running)
    finally:
        server.close()
        await asyncio.sleep(0)  # transports close in the next turn


@asynccontextmanager
async def scripted(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that runs `script` once the head of a request is there; gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await script(reader, writer)

    async with listening(serve, tls) as port:
        yield port


def answers(raw: bytes) -> Script:
    """Sends `raw` and then nothing, until the other side ends."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await reader.read()

    return script


class Client:
    """The client's end of a tunnel without a socket: what it sends is fed, what it gets is kept."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader()
        self.got = bytearray()
        self.paused = False
        self.resumed = asyncio.Event()
        self.end = ""

    async def read_chunk(self) -> bytes:
        return await self.reader.read(65536)

    def write(self, chunk: bytes) -> None:
        self.got += chunk

    async def drain(self) -> None:
        await self.resumed.wait()

    def finish(self) -> None:
        self.end = "finished"

    def abort(self) -> None:
        self.end = "aborted"


async def opened(port: int, **options: Any) -> Tunnel:
    return await open_tunnel(upstream_at(port, **options), HOST, "", 5.0)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something holds; the test's own deadline bounds it."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


# --- real WebSockets ------------------------------------------------------------------------------------------------


class StreamEnd:
    """The client's end of a tunnel on a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.read_chunk = lambda: reader.read(65536)
        self.write = writer.write
        self.drain = writer.drain
        self.finish = writer.close
        self.abort = writer.transport.abort

    @property
    def paused(self) -> bool:
        return self._writer.transport.get_write_buffer_size() > 0


class Bridge:
    """A proxy of nothing but the tunnel: rewrites and forwards the handshake, then relays."""

    def __init__(self, upstream_port: int) -> None:
        self.ends: list[Relayed] = []
        self._snapshot = snapshot({"live": {"url": f"ws://127.0.0.1:{upstream_port}/ws", "transport": "websocket"}})

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = parse_head(await reader.readuntil(b"\r\n\r\n"), Limits())
        assert head.upgrade == "websocket"
        ctx = ask(self._snapshot, "/live/mcp", method="GET")
        ctx.head, ctx.fields = head, head.fields
        assert ctx.upstream is not None
        client = SimpleNamespace(tls=None, new_socket=tcp.new_socket, resolver=None)
        ctx.upstream.client = cast("UpstreamClient", client)
        tunnel = await open_tunnel(ctx.upstream, request_headers(ctx, ctx.upstream), "", 5.0)
        fields = [
            *response_headers(ctx, tunnel.status, tunnel.headers),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
        ]
        lines = [f"HTTP/1.1 {tunnel.status} \r\n", *[f"{name}: {value}\r\n" for name, value in fields], "\r\n"]
        writer.write("".join(lines).encode() + tunnel.body)
        self.ends.append(await relay(StreamEnd(reader, writer), tunnel, 0))


GONE = web.AppKey("gone", asyncio.Event)


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Sends back what it gets, and says which fields the handshake had."""
    socket = web.WebSocketResponse(protocols=("mcp",), max_msg_size=0)
    await socket.prepare(request)
    try:
        async for message in socket:
            if message.data == "fields":
                await socket.send_json(sorted(name.lower() for name in request.headers))
            elif message.data == "bye":
                await socket.close(code=4001, message=b"done")
            elif message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data)
            else:
                await socket.send_bytes(message.data)
    finally:
        request.app[GONE].set()
    return socket


@asynccontextmanager
async def bridged() -> AsyncIterator[tuple[Bridge, int, asyncio.Event]]:
    """A real echo server behind a bridge: the bridge, its port, and an event for the server's end."""
    app = web.Application()
    app[GONE] = asyncio.Event()
    app.router.add_get("/ws", echo)
    async with TestServer(app) as server:
        assert server.port is not None
        bridge = Bridge(server.port)
        async with listening(bridge) as port:
            yield bridge, port, app[GONE]


@pytest.mark.parametrize("compress", [0, 15])
async def test_a_real_client_talks_to_a_real_server(compress: int) -> None:
    """Text, bytes, a mebibyte, with and without compression, and the close code with its reason."""
    async with bridged() as (bridge, port, _), aiohttp.ClientSession() as session:
        options: Any = {"protocols": ("mcp",), "compress": compress, "max_msg_size": 0}
        async with session.ws_connect(f"http://127.0.0.1:{port}/live/mcp", **options) as socket:
            assert socket.protocol == "mcp"
            await socket.send_str("grüße")
            assert await socket.receive_str() == "grüße"
            for size in (0, 1, 65535, 1 << 20):
                await socket.send_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
                assert len(await socket.receive_bytes()) == size
            await socket.send_str("fields")
            assert {"x-forwarded-for", "via", "sec-websocket-key"} <= set(await socket.receive_json())
            await socket.send_str("bye")
            end = await socket.receive()
            assert (end.type, end.data, end.extra) == (aiohttp.WSMsgType.CLOSE, 4001, "done")
        await until(lambda: bool(bridge.ends))
        assert bridge.ends[0].bytes_out > (0 if compress else 1 << 20)


async def test_a_client_that_vanishes_ends_the_server_side_at_once() -> None:
    """Its connection is cut without a Close frame; the server learns within a moment."""
    async with bridged() as (bridge, port, gone), aiohttp.ClientSession() as session:
        socket = await session.ws_connect(f"http://127.0.0.1:{port}/live/mcp")
        await socket.send_str("x")
        await socket.receive_str()
        connection = socket._response.connection
        assert connection is not None
        cast("asyncio.WriteTransport", connection.transport).abort()
        async with asyncio.timeout(20):
            await gone.wait()
        await until(lambda: bool(bridge.ends))
        await socket.close()


# --- the pump -------------------------------------------------------------------------------------------------------


async def test_what_came_with_the_switch_reaches_the_client() -> None:
    """A server may speak in the same packet as its 101; its end is the tunnel's end, in order."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH + b"first")
        writer.write_eof()
        await reader.read()

    async with scripted(script) as port:
        client = Client()
        assert await relay(client, await opened(port), 0) == Relayed(0, 5, "")
    assert (bytes(client.got), client.end) == (b"first", "finished")


async def test_bytes_pass_unchanged_both_ways() -> None:
    """Whatever they are and however they are cut."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH)
        while len(received) < 70000:
            received.extend(await reader.read(999))
        writer.write(bytes(received)[::-1])
        writer.write_eof()
        await reader.read()

    received = bytearray()
    async with scripted(script) as port:
        client = Client()
        client.reader.feed_data(bytes(range(250)) * 280)
        assert await relay(client, await opened(port), 0) == Relayed(70000, 70000, "")
    assert bytes(received) == bytes(range(250)) * 280
    assert bytes(client.got) == bytes(received)[::-1]


async def test_a_client_that_stops_sending_still_gets_the_last_words() -> None:
    """Its end is passed on as a half-close, and the server may answer and end in order."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH)
        writer.write(b"you said " + await reader.read())
        await writer.drain()
        writer.write_eof()
        await asyncio.sleep(0.05)

    async with scripted(script) as port:
        client = Client()
        client.reader.feed_data(b"bye")
        client.reader.feed_eof()
        assert await relay(client, await opened(port), 0) == Relayed(3, 12, "")
    assert (bytes(client.got), client.end) == (b"you said bye", "finished")


async def test_a_server_that_ignores_the_end_of_its_client_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets a moment for its last words, not the rest of its life."""
    monkeypatch.setattr("proxy.dataplane.tunnel._AFTER_CLIENT_S", 0.02)
    over = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH)
        assert await reader.read() == b""
        try:
            while True:
                writer.write(b"still here ")
                await writer.drain()
                await asyncio.sleep(0.005)
        except ConnectionError:
            over.set()

    async with scripted(script) as port:
        client = Client()
        client.reader.feed_eof()
        ended = await relay(client, await opened(port), 0)
        async with asyncio.timeout(20):
            await over.wait()
    assert (ended.outcome, client.end) == ("client_gone", "aborted")


async def test_a_client_that_is_gone_resets_the_server() -> None:
    """A reset on one side is a reset on the other."""
    over = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH)
        await reader.read()
        over.set()

    async with scripted(script) as port:
        client = Client()
        client.reader.set_exception(ConnectionResetError())
        ended = await relay(client, await opened(port), 0)
        async with asyncio.timeout(20):
            await over.wait()
    assert (ended.outcome, client.end) == ("client_gone", "aborted")


async def test_a_server_that_resets_resets_the_client() -> None:
    """What broke off must not look as if it had ended."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH + b"half a fra")
        await reader.readexactly(2)
        writer.transport.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0: reset

    async with scripted(script) as port:
        client = Client()
        tunnel = await opened(port)
        client.reader.feed_data(b"go")
        ended = await relay(client, tunnel, 0)
    assert (ended.outcome, client.end) == ("upstream_truncated", "aborted")


async def test_silence_of_both_sides_ends_the_tunnel() -> None:
    """`idle` counts from the last byte in either direction."""
    async with scripted(answers(SWITCH)) as port:
        client = Client()
        client.reader.feed_data(b"x")
        started = asyncio.get_running_loop().time()
        ended = await relay(client, await opened(port), 0.05)
        assert asyncio.get_running_loop().time() - started >= 0.05
    assert (ended, client.end) == (Relayed(1, 0, "timeout"), "aborted")


async def test_one_side_that_speaks_keeps_the_tunnel_open() -> None:
    """A server that streams to a silent client is not idle."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH)
        for _ in range(12):
            writer.write(b".")
            await asyncio.sleep(0.06)
        writer.write_eof()
        await reader.read()

    async with scripted(script) as port:
        assert (await relay(Client(), await opened(port), 0.5)) == Relayed(0, 12, "")


async def test_a_client_that_does_not_read_holds_the_server_back() -> None:
    """Nothing is piled up in between beyond what the sockets hold."""
    sent = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(SWITCH)
        while sent < 64 << 20:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536
        writer.write_eof()
        await reader.read()

    async with scripted(script) as port:
        client = Client()
        client.paused = True
        tunnel = await opened(port)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            relaying = group.create_task(relay(client, tunnel, 0))
            await until(lambda: sent > 0 and len(client.got) > 0)
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.05)
            assert sent < 16 << 20
            assert len(client.got) <= 65536
            client.paused = False
            client.resumed.set()
        assert relaying.result() == Relayed(0, 64 << 20, "")


async def test_a_server_that_does_not_read_holds_the_client_back() -> None:
    """The next piece is asked for only when the last one fits."""
    asked = 0
    goes_on = asyncio.Event()

    class Flood(Client):
        async def read_chunk(self) -> bytes:
            nonlocal asked
            asked += 1
            return b"x" * 65536 if asked <= 1024 else await super().read_chunk()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH)
        await goes_on.wait()
        await reader.readexactly(64 << 20)

    async with scripted(script) as port:
        tunnel = await opened(port)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            relaying = group.create_task(relay(Flood(), tunnel, 0))
            before = -1
            while asked != before:
                before = asked
                await asyncio.sleep(0.05)
            assert 0 < asked < 256
            goes_on.set()
        assert relaying.result().bytes_in == 64 << 20


async def test_a_cancelled_tunnel_resets_the_server() -> None:
    """A drain, or a client of which the lane already knows that it left."""
    over = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH)
        await reader.read()
        over.set()

    async with scripted(script) as port:
        tunnel = await opened(port)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await relay(Client(), tunnel, 0)
        async with asyncio.timeout(20):
            await over.wait()


# --- opening --------------------------------------------------------------------------------------------------------


async def test_the_handshake_goes_out_as_it_was_given() -> None:
    """The fields in order, then the two that ask for the switch; path and query of the target."""
    seen = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen = await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH)
        await reader.read()

    fields = [*HOST, ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="), ("X-Text", "grün")]
    async with listening(serve) as port:
        tunnel = await open_tunnel(upstream_at(port), fields, f"ws://127.0.0.1:{port}/ws?a=%2F", 5.0)
        tunnel.writer.transport.abort()
    assert tunnel.status == 101
    assert seen.decode() == (
        "GET /ws?a=%2F HTTP/1.1\r\nHost: live.test\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nX-Text: grün\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )


async def test_a_refusal_of_the_handshake_is_an_answer() -> None:
    """Status, fields and body come back whole, and the connection is closed."""
    raw = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 3\r\n\r\nno!"
    async with scripted(answers(raw)) as port:
        tunnel = await opened(port)
        assert tunnel[:3] == (401, [("WWW-Authenticate", "Bearer"), ("Content-Length", "3")], b"no!")
        assert tunnel.writer.transport.is_closing()


@pytest.mark.parametrize(
    "raw", [b"", b"HTTP/1.1 101", b"garbage\r\n\r\n", b"HTTP/1.1 403 x\r\nContent-Length: 5\r\n\r\nno!", b"x" * 70000]
)
async def test_an_answer_that_breaks_off_or_breaks_the_rules_is_a_failure(raw: bytes) -> None:
    """The request may have arrived, so no other server is tried: 502, without a byte of what came."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        writer.write_eof()
        await reader.read()

    async with scripted(script) as port:
        with pytest.raises(UpstreamFailed):
            await opened(port)


async def test_a_server_that_does_not_answer_in_time_is_a_timeout() -> None:
    """The deadline covers the whole answer, a body that trickles included."""
    for raw in (b"", b"HTTP/1.1 403 x\r\nContent-Length: 5\r\n\r\nn"):
        async with scripted(answers(raw)) as port:
            with pytest.raises(UpstreamTimeout):
                await open_tunnel(upstream_at(port), HOST, "", 0.05)


async def test_a_server_that_is_not_there_lets_another_be_tried() -> None:
    """Nothing was sent: refused, unresolvable, or silent while connecting."""
    async with scripted(answers(b"")) as port:
        pass
    with pytest.raises(ConnectFailed):
        await opened(port)
    with pytest.raises(ConnectFailed):
        await open_tunnel(upstream_at(port), HOST, "ws://nowhere.invalid/ws", 5.0)


# --- TLS ------------------------------------------------------------------------------------------------------------


def certificate(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server at 127.0.0.1 and of a client that trusts it."""
    secret = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")]), datetime.now(UTC)
    builder = x509.CertificateBuilder(
        name, name, secret.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1)
    )
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("up.test")]), critical=False
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = directory / "pair.pem"
    pem.write_bytes(
        builder.sign(secret, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        + secret.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


async def test_a_name_with_a_dot_at_its_end_is_that_of_the_certificate(tmp_path: Path) -> None:
    """Where certificates have none (RFC 6066 section 3)."""
    server_tls, client_tls = certificate(tmp_path)
    async with scripted(answers(SWITCH), server_tls) as port:
        tunnel = await opened(port, scheme="wss", tls=client_tls, host="up.test.")
        assert tunnel.status == 101
        client = Client()
        client.reader.feed_eof()
        async with asyncio.timeout(20):
            assert (await relay(client, tunnel, 0)).outcome == "client_gone"


async def test_a_tunnel_over_tls_carries_bytes_and_checks_the_certificate(tmp_path: Path) -> None:
    """With the right authority it opens; with the system's it does not, and nothing was sent."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCH + await reader.readexactly(4))
        await writer.drain()
        writer.close()

    server_tls, client_tls = certificate(tmp_path)
    async with scripted(script, server_tls) as port:
        with pytest.raises(ConnectFailed):
            await opened(port, scheme="wss", tls=ssl.create_default_context())
    async with scripted(answers(SWITCH + b"hi"), server_tls) as port:
        client = Client()
        tunnel = await opened(port, scheme="wss", tls=client_tls)
        assert tunnel.status == 101
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            relaying = group.create_task(relay(client, tunnel, 0))
            await until(lambda: bytes(client.got) == b"hi")
            client.reader.feed_eof()
        assert relaying.result().outcome == "client_gone"
