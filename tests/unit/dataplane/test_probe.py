"""Each kind of check asks what it should, knows a living server by its answer, and leaves no connection behind."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
import ssl
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.config.models import Server
from proxy.config.reachable import Reachable
from proxy.dataplane import tcp
from proxy.dataplane.connector import tls_context
from proxy.dataplane.probe import Probe, Result, kind_of
from proxy.dataplane.resolver import Resolver
from tests.harness import Script, ScriptedUpstream, Wire, free_port, json_answer, scripted_upstream
from tests.unit.config.pem import write_pair

MODERN = b'{"jsonrpc":"2.0","id":"health-check","result":{"supportedVersions":["2026-07-28"],"resultType":"complete"}}'
GONE = b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Session not found"}}'
NEWER = b'{"jsonrpc":"2.0","id":"health-check","error":{"code":-32022,"message":"x","data":{"supported":[]}}}'
NO_METHOD = b'{"jsonrpc":"2.0","id":"health-check","error":{"code":-32601,"message":"Method not found"}}'
EVENT = b"event: message\r\ndata: " + MODERN + b"\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def probe(url: str, new: tcp.NewSocket = tcp.new_socket, **check: Any) -> Probe:
    """A probe of a server with these keys of `health_check`; some are the server's own."""
    keys = {key: check.pop(key) for key in ("transport", "headers", "host") if key in check}
    server = Server.model_validate({"url": url, "health_check": {"timeout": "5s", **check}, **keys})
    assert server.health_check is not None
    return Probe(server, server.health_check, new, None)


def saying(*answers: bytes, stay: bool = False) -> Script:
    """A server that gives one answer per connection, the last one again and again; `stay` keeps the connection."""
    left = list(answers)

    async def script(wire: Wire) -> None:
        if await wire.request():
            await wire.send(left.pop(0) if len(left) > 1 else left[0])
            if stay:
                await wire.reader.read()

    return script


def short(result: Result) -> tuple[bool, int | None, str]:
    return result.ok, result.code, result.error


def fields(request: bytes) -> dict[str, str]:
    """Lower-case names of the fields of a request, with their values."""
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def status(code: int, body: bytes = b"") -> bytes:
    return json_answer(body, f"{code} X".encode())


async def closed(upstream: ScriptedUpstream) -> None:
    """Wait until no connection is open."""
    async with asyncio.timeout(5):
        while upstream.open:
            await asyncio.sleep(0)


# --- MCP ------------------------------------------------------------------------------------------------------------


async def test_a_modern_server_is_asked_what_it_supports() -> None:
    """Headers and `_meta` as 2026-07-28 wants them; once it is known, without a session id."""
    async with scripted_upstream(saying(status(200, MODERN))) as upstream:
        asked = probe(upstream.url, headers={"Authorization": "Bearer s", "Accept": "application/json"})
        for _ in range(2):
            assert short(await asked.ask()) == (True, 200, "")
            assert asked.era == "modern"
        await closed(upstream)
        first, second = upstream.seen
        assert upstream.connections == 2
    assert first.startswith(b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:")
    sent = fields(second)
    assert sent["mcp-method"] == "server/discover"
    assert (sent["authorization"], sent["accept"]) == ("Bearer s", "application/json")
    message = orjson.loads(second.partition(b"\r\n\r\n")[2])
    assert message["method"] == sent["mcp-method"]
    assert message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == sent["mcp-protocol-version"]
    assert "mcp-session-id" in fields(first)
    assert "mcp-session-id" not in sent


async def test_a_legacy_server_is_asked_for_a_session_that_it_does_not_have() -> None:
    """Its refusal of `server/discover` tells the era, and its refusal of the session that it lives."""
    async with scripted_upstream(saying(status(404, GONE))) as upstream:
        asked = probe(upstream.url)
        for _ in range(2):
            assert short(await asked.ask()) == (True, 404, "")
            assert asked.era == "legacy"
        first, second = upstream.seen
    assert fields(first)["mcp-session-id"] == fields(second)["mcp-session-id"]
    assert b"initialize" not in first + second
    assert "mcp-protocol-version" not in fields(second)
    assert orjson.loads(second.partition(b"\r\n\r\n")[2])["method"] == "ping"


@pytest.mark.parametrize(
    ("answer", "era"),
    [
        (status(400, NEWER), "modern"),
        (status(200, NO_METHOD), "legacy"),
        (status(400), "legacy"),
        (status(405), ""),
        (status(401), ""),
        (status(403, b"no"), ""),
        (status(429), ""),
        (status(406), "legacy"),
        (b"HTTP/1.1 202 Accepted\r\n\r\n", "legacy"),
        (b"HTTP/1.1 307 X\r\nLocation: /mcp/\r\nContent-Length: 0\r\n\r\n", ""),
        (CHUNKED + b"%x\r\n%b\r\n" % (len(EVENT), EVENT), "modern"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + MODERN, "modern"),
        (status(200, MODERN[:-1] + b" " * 200_000 + b"}"), "modern"),
    ],
)
async def test_every_answer_that_is_not_the_servers_fault_is_a_sign_of_life(answer: bytes, era: str) -> None:
    """And tells the era, or nothing of it."""
    async with scripted_upstream(saying(answer)) as upstream:
        asked = probe(upstream.url)
        result = await asked.ask()
        assert (result.ok, result.error, asked.era) == (True, "", era)
        assert 0 < result.seconds < 5


@pytest.mark.parametrize("answer", [CHUNKED + b"%x\r\n%b\r\n" % (len(EVENT), EVENT), CHUNKED + b"0\r\n\r\n"])
async def test_a_stream_is_not_waited_for(answer: bytes) -> None:
    """The first event, or the end of the body, is enough; the connection is closed then."""
    async with scripted_upstream(saying(answer, stay=True)) as upstream:
        assert (await probe(upstream.url).ask()).ok
        await closed(upstream)


@pytest.mark.parametrize("code", [500, 502, 503, 504])
async def test_what_is_the_servers_fault_is_bad(code: int) -> None:
    """For every kind that asks over HTTP; it says nothing of the era."""
    async with scripted_upstream(saying(status(code))) as upstream:
        asked = probe(upstream.url)
        assert short(await asked.ask()) == (False, code, "status")
        assert asked.era == ""
        assert short(await probe(upstream.url, kind="http").ask()) == (False, code, "status")
        url = upstream.url.replace("http", "ws")
        assert short(await probe(url, transport="websocket").ask()) == (False, code, "status")


async def test_a_modern_server_that_is_replaced_by_something_else_is_noticed() -> None:
    """By a 404 without an error of the protocol in it; another era is learned anew."""
    answers = [status(200, MODERN), status(404, b"404 page not found"), status(404, GONE), status(400, NEWER)]
    async with scripted_upstream(saying(*answers)) as upstream:
        asked = probe(upstream.url)
        seen = [((await asked.ask()).error, asked.era) for _ in answers]
    assert seen == [("", "modern"), ("not_mcp", "modern"), ("", "legacy"), ("", "modern")]


async def test_the_stream_of_2024_is_never_opened() -> None:
    """Its URL gets a POST, which it refuses, or OPTIONS."""
    async with scripted_upstream(saying(status(405))) as upstream:
        assert (await probe(upstream.url, transport="sse").ask()).ok
        assert (await probe(upstream.url, transport="sse", kind="http").ask()).ok
        assert [request.split()[0] for request in upstream.seen] == [b"POST", b"OPTIONS"]


# --- HTTP -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "own_page", "mcp"), [
    (200, True, True), (204, True, True), (302, True, True), (401, True, True), (403, True, True), (405, True, True),
    (429, True, True), (400, False, True), (404, False, True), (406, False, True), (501, False, False),
])  # fmt: skip
async def test_a_page_of_its_own_must_be_there(code: int, own_page: bool, mcp: bool) -> None:
    """The URL of MCP may answer a plain GET as it likes."""
    async with scripted_upstream(saying(status(code))) as upstream:
        assert (await probe(upstream.url, kind="http", path="/healthz").ask()).ok is own_page
        assert (await probe(upstream.url + "?a=b", kind="http", method="HEAD").ask()).ok is mcp
        lines = [request.partition(b" HTTP")[0] for request in upstream.seen]
    assert lines == [b"GET /healthz", b"HEAD /mcp?a=b"]


# --- TCP, and what goes wrong ---------------------------------------------------------------------------------------


async def test_a_connection_is_enough_for_tcp() -> None:
    """Nothing is sent."""
    async with scripted_upstream(saying(b"")) as upstream:
        assert short(await probe(upstream.url, kind="tcp").ask()) == (True, None, "")
        await closed(upstream)
        assert upstream.seen == []


@pytest.mark.parametrize("kind", ["http", "mcp", "tcp"])
async def test_nobody_listens(kind: str) -> None:
    """Neither there, nor at an address that the server may not have, nor at a name that is none."""
    port = free_port()
    refused = [
        probe(f"http://127.0.0.1:{port}/", kind=kind),
        probe(f"http://127.0.0.1:{port}/", tcp.guarded(Reachable()), kind=kind),
        probe(f"http://{'a' * 64}.test/", kind=kind),
    ]
    assert [short(await each.ask()) for each in refused] == [(False, None, "connect")] * 3


async def test_an_address_that_tenants_may_not_have_is_not_dialled() -> None:
    """The same guard as for requests."""
    async with scripted_upstream() as upstream:
        guarded = probe(upstream.url, tcp.guarded(Reachable()), kind="tcp")
        assert short(await guarded.ask()) == (False, None, "connect")
        assert upstream.connections == 0


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "reset"),
        (b"HTTP/1.1 200 OK\r\nContent-", "reset"),
        (b"SSH-2.0-x\r\n\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, "malformed"),
    ],
)
async def test_what_is_no_answer_is_bad(answer: bytes, error: str) -> None:
    """Each fault has its name."""
    async with scripted_upstream(saying(answer)) as upstream:
        assert short(await probe(upstream.url).ask()) == (False, None, error)
        await closed(upstream)


async def test_a_server_that_hangs_is_given_up() -> None:
    """After `timeout`, with the connection."""
    async with scripted_upstream(saying(b"", stay=True)) as upstream:
        assert short(await probe(upstream.url, timeout="50ms").ask()) == (False, None, "timeout")
        await closed(upstream)


async def test_a_cancelled_check_leaves_no_connection() -> None:
    """As at the end of the process."""
    async with scripted_upstream(saying(b"", stay=True)) as upstream:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(probe(upstream.url).ask(), 0.05)
        await closed(upstream)


@pytest.mark.parametrize("kind", ["mcp", "tcp"])
async def test_tls_is_checked_as_for_requests(tmp_path: Path, kind: str) -> None:
    """A certificate that is not trusted, or no TLS at all, is a fault of its own."""
    write_pair(tmp_path / "up.pem", tmp_path / "up.key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "up.pem", tmp_path / "up.key")

    here = Resolver(lambda name: [(socket.AF_INET, "127.0.0.1")])

    async def ask(upstream: ScriptedUpstream, host: str = "localhost", **tls: str) -> Result:
        url = f"https://{host}:{upstream.port}/mcp"
        server = Server.model_validate({"url": url, "tls": tls, "health_check": {"kind": kind}})
        assert server.health_check is not None
        return await Probe(server, server.health_check, tcp.new_socket, tls_context(server), here).ask()

    async with scripted_upstream(saying(status(200, MODERN)), tls=context) as upstream:
        assert (await ask(upstream, ca=str(tmp_path / "up.pem"))).ok
        assert (await ask(upstream, "localhost.", ca=str(tmp_path / "up.pem"))).ok
        assert short(await ask(upstream)) == (False, None, "tls")
    async with scripted_upstream(lambda wire: wire.send(status(400))) as plain:
        assert (await ask(plain)).error == "tls"


# --- WebSocket ------------------------------------------------------------------------------------------------------


def switching(*frames: bytes, accept: str | None = None, pong: bool = True) -> tuple[Script, list[bytes]]:
    """A WebSocket server that sends `frames` before its pong, and what it got after the handshake."""
    got: list[bytes] = []

    async def script(wire: Wire) -> None:
        key = fields(await wire.request())["sec-websocket-key"]
        digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        head = "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        await wire.send(f"{head}{accept or base64.b64encode(digest).decode()}\r\n\r\n".encode() + b"".join(frames))
        ping = await wire.reader.readexactly(14)
        mask = ping[2:6] * 2
        if pong:
            await wire.send(b"\x8a\x08" + bytes(a ^ b for a, b in zip(ping[6:], mask, strict=True)))
        got.extend((ping[:2], await wire.reader.read()))

    return script, got


def websocket(upstream: ScriptedUpstream, **check: Any) -> Probe:
    return probe(upstream.url.replace("http", "ws"), transport="websocket", **check)


@pytest.mark.parametrize("before", [b"", b"\x81\x02{}", b"\x82\x7e\x01\x00" + b"x" * 256, b"\x8a\x01x"])
async def test_a_websocket_is_opened_pinged_and_closed(before: bytes) -> None:
    """Whatever the server says before its pong."""
    script, got = switching(before)
    async with scripted_upstream(script) as upstream:
        assert short(await websocket(upstream).ask()) == (True, 101, "")
        await closed(upstream)
    assert got == [b"\x89\x88", b"\x88\x82\0\0\0\0\x03\xe8"]


@pytest.mark.parametrize("frames", [b"\x81\x00" * 20, b"\x82\x7f" + b"\0\0\0\0\x7f\xff\xff\xff"])
async def test_a_websocket_that_does_not_pong_is_bad(frames: bytes) -> None:
    """Neither endless frames nor one that is too long are read to their end."""
    script, _ = switching(frames, pong=False)
    async with scripted_upstream(script) as upstream:
        assert (await websocket(upstream).ask()).error == "malformed"


async def test_a_websocket_that_hangs_or_shakes_the_wrong_hand_is_bad() -> None:
    """The handshake is checked, and the time is bounded."""
    async with scripted_upstream(switching(accept="bm90IHRoaXM=")[0]) as upstream:
        assert (await websocket(upstream).ask()).error == "malformed"
    async with scripted_upstream(switching(pong=False)[0]) as upstream:
        assert (await websocket(upstream, timeout="100ms").ask()).error == "timeout"


@pytest.mark.parametrize(("code", "ok"), [(400, True), (401, True), (403, True), (404, False), (429, True)])
async def test_a_refused_handshake_may_be_a_sign_of_life(code: int, ok: bool) -> None:
    """A URL that is not there is none."""
    async with scripted_upstream(saying(status(code))) as upstream:
        assert (await websocket(upstream).ask()).ok is ok


@pytest.mark.parametrize(
    ("transport", "kind", "asked"),
    [
        ("streamable_http", None, "mcp"),
        ("sse", None, "mcp"),
        ("websocket", None, "websocket"),
        ("websocket", "mcp", "websocket"),
        ("websocket", "tcp", "tcp"),
        ("streamable_http", "http", "http"),
    ],
)
def test_how_a_server_is_asked(transport: str, kind: str | None, asked: str) -> None:
    """As configured, else by its transport."""
    server = Server.model_validate({"url": "http://up/", "transport": transport, "health_check": {"kind": kind}})
    assert server.health_check is not None
    assert kind_of(server, server.health_check) == asked
