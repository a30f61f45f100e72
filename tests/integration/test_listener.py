"""The listening side: TLS, the cap on connections, and every deadline of a client that is slow, silent or greedy."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import (
    CALL,
    PATIENCE_S,
    RESULT,
    ProxyProcess,
    RawClient,
    ScriptedUpstream,
    Wire,
    free_port,
    json_answer,
    post,
    running_proxy,
    scripted_upstream,
)  # fmt: skip
from tests.proofs.load import SSE_HEAD, Clients, chunk, event
from tests.unit.config.pem import write_pair

PORT = free_port()
BRISK = {"head": "500ms", "body": "500ms", "body_total": "2s", "keepalive": "1s", "stalled_reader": "1s"}


@pytest.fixture(scope="module")
def brisk() -> Iterator[ProxyProcess]:
    """A proxy with short deadlines; `raw` is a route that streams bodies through."""
    config = {
        "listen": {"timeouts": BRISK},
        "servers": {"up": {"url": f"http://127.0.0.1:{PORT}/mcp"}},
        "routes": [{"name": "raw", "path": "/raw", "servers": "up", "inspect": "none", "sessions": "passthrough"}],
    }
    with running_proxy(config) as process:
        yield process


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with scripted_upstream(port=PORT) as each:
        yield each


async def refused(client: RawClient) -> tuple[int, str]:
    """Status and reason of a refusal that must close the connection."""
    status, fields, body = await client.answer()
    assert fields["connection"] == "close"
    assert b'"source":"proxy"' in body
    assert await client.at_end()
    return status, body.partition(b'"reason":"')[2].partition(b'"')[0].decode()


# --- deadlines --------------------------------------------------------------------------------------------------------


@pytest.mark.alone
async def test_a_head_that_never_ends_is_answered_408(brisk: ProxyProcess, clients: Clients) -> None:
    """The clock runs from the first byte and no further byte turns it back."""
    client = await clients.connect(brisk.port)
    began = time.monotonic()
    for byte in b"POST /up/mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: 1":
        if time.monotonic() - began > 0.45:
            break
        await client.send(bytes([byte]))
        await asyncio.sleep(0.03)
    assert await refused(client) == (408, "request_timeout")
    assert 0.4 < time.monotonic() - began < 1.5


async def test_a_head_may_come_byte_by_byte(brisk: ProxyProcess, clients: Clients, upstream: ScriptedUpstream) -> None:
    """In time it is as good as any."""
    client = await clients.connect(brisk.port)
    for byte in post():
        await client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.answer())[::2] == (200, RESULT)


@pytest.mark.alone
async def test_a_connection_that_never_asks_is_closed_without_a_word(brisk: ProxyProcess, clients: Clients) -> None:
    """There is no request to answer, and no line in the log."""
    began = time.monotonic()
    client = await clients.connect(brisk.port)
    assert await client.at_end()
    assert 0.4 < time.monotonic() - began < 1.5


@pytest.mark.alone
async def test_a_connection_is_closed_when_it_stays_idle(
    brisk: ProxyProcess, clients: Clients, upstream: ScriptedUpstream
) -> None:
    """`keepalive` counts from the end of the last answer, anew each time."""
    client = await clients.connect(brisk.port)
    for _ in range(2):
        await client.send(post())
        assert (await client.answer())[0] == 200
        await asyncio.sleep(0.7)
    await client.send(post())
    assert (await client.answer())[0] == 200
    began = time.monotonic()
    assert await client.at_end()
    assert 0.9 < time.monotonic() - began < 2


@pytest.mark.parametrize("path", ["/up/mcp", "/raw"])
@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
@pytest.mark.alone
async def test_a_body_that_stalls_is_answered_408(
    brisk: ProxyProcess, clients: Clients, upstream: ScriptedUpstream, path: str, framing: str
) -> None:
    """Also where the body is streamed to a server that waits for its rest: the server's connection is closed."""
    client = await clients.connect(brisk.port)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
    began = time.monotonic()
    await client.send(head.encode() + (b'{"a":' if "Length" in framing else b'5\r\n{"a":\r\n'))
    assert await refused(client) == (408, "request_timeout")
    assert 0.4 < time.monotonic() - began < 1.5
    async with asyncio.timeout(PATIENCE_S):
        while upstream.open:
            await asyncio.sleep(0.01)


@pytest.mark.alone
async def test_a_body_that_trickles_on_is_cut_by_its_total(
    brisk: ProxyProcess, clients: Clients, upstream: ScriptedUpstream
) -> None:
    """A byte now and then does not keep a request alive for ever."""
    client = await clients.connect(brisk.port)
    await client.send(post(body=CALL.replace(b"hi", b"x" * 100))[:-100])
    began = time.monotonic()
    answer = asyncio.create_task(refused(client))
    while not answer.done() and time.monotonic() - began < 5:
        with contextlib.suppress(ConnectionError):
            await client.send(b"x")
        await asyncio.sleep(0.2)
    assert await answer == (408, "request_timeout")
    assert 1.8 < time.monotonic() - began < 4


@pytest.mark.alone
async def test_a_client_that_stops_reading_is_cut_off(
    brisk: ProxyProcess, clients: Clients, upstream: ScriptedUpstream
) -> None:
    """After `stalled_reader` the connection is reset, and the server's with it."""
    closed_at: list[float] = []

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(SSE_HEAD)
        try:
            while True:
                await wire.send(chunk(b"data: " + b"x" * 65000 + b"\n\n"))
        finally:
            closed_at.append(time.monotonic())

    upstream.script = script
    client = await clients.connect(brisk.port)
    client.stop_reading()
    seen = len(brisk.lines)
    began = time.monotonic()
    await client.send(post())
    line = await asyncio.to_thread(brisk.wait_for, lambda line: line.get("outcome") == "client_gone", start=seen)
    assert line["status"] == 200
    async with asyncio.timeout(PATIENCE_S):
        while not closed_at:
            await asyncio.sleep(0.01)
    assert 0.9 < closed_at[0] - began < 4


async def test_deadlines_do_not_touch_a_stream_that_is_silent(
    brisk: ProxyProcess, clients: Clients, upstream: ScriptedUpstream
) -> None:
    """None of them runs while an answer is open: SSE streams are silent for hours."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(SSE_HEAD + chunk(event(0)))
        await asyncio.sleep(1.8)
        await wire.send(chunk(event(1)) + b"0\r\n\r\n")

    upstream.script = script
    client = await clients.started(brisk.port, post())
    assert await client.chunk() == event(1)


# --- methods and versions ---------------------------------------------------------------------------------------------


async def test_head_and_options_pass_through(brisk: ProxyProcess, clients: Clients, upstream: ScriptedUpstream) -> None:
    """HEAD gets the server's fields and no body, OPTIONS the server's answer; both leave the connection usable."""

    async def script(wire: Wire) -> None:
        while request := await wire.request():
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Own: 1\r\nContent-Length: 36\r\n\r\n"
            await wire.send(head if request.startswith(b"HEAD") else head + RESULT)

    upstream.script = script
    client = await clients.connect(brisk.port)
    await client.send(b"HEAD /up/mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    head = await client.head()
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"X-Own: 1\r\n" in head
    assert b"Content-Length: 36\r\n" in head
    await client.send(b"OPTIONS /up/mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    status, fields, body = await client.answer()
    assert (status, fields["x-own"], body) == (200, "1", RESULT)
    assert [request.split(b" ")[0] for request in upstream.seen] == [b"HEAD", b"OPTIONS"]


@pytest.mark.parametrize("keep", [True, False])
async def test_http_1_0_keeps_its_connection_only_when_asked(
    brisk: ProxyProcess, clients: Clients, upstream: ScriptedUpstream, keep: bool
) -> None:
    """RFC 9112 section 9.3: `Connection: keep-alive` is the only way, and the answer says the same."""
    client = await clients.connect(brisk.port)
    request = post("/up/mcp", CALL, *(["Connection: keep-alive"] if keep else [])).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    await client.send(request)
    status, fields, body = await client.answer()
    assert (status, body, fields["connection"]) == (200, RESULT, "keep-alive" if keep else "close")
    if keep:
        await client.send(request)
        assert (await client.answer())[0] == 200
    else:
        assert await client.at_end()


@pytest.mark.parametrize("path", ["/up/mcp", "/raw"])
async def test_a_client_that_waits_for_100_gets_it(
    brisk: ProxyProcess, clients: Clients, upstream: ScriptedUpstream, path: str
) -> None:
    """Once the body is wanted, and just once (RFC 9110 section 10.1.1)."""
    client = await clients.connect(brisk.port)
    request = post(path, CALL, "Expect: 100-continue")
    await client.send(request[: -len(CALL)])
    interim = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5)
    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(CALL)
    assert (await asyncio.wait_for(client.reader.readline(), 5)) == b"HTTP/1.1 200 OK\r\n"
    assert upstream.seen[0].endswith(CALL)


async def test_a_body_that_nobody_wants_is_not_asked_for(brisk: ProxyProcess, clients: Clients) -> None:
    """A refusal instead of 100; the body could come all the same, so the connection ends."""
    client = await clients.connect(brisk.port)
    await client.send(post("/up/mcp", CALL, "Expect: 100-continue", host="evil.example")[: -len(CALL)])
    assert (await asyncio.wait_for(client.reader.readline(), 5)) == b"HTTP/1.1 403 Forbidden\r\n"
    rest = await asyncio.wait_for(client.reader.read(), 5)
    assert b"Connection: close\r\n" in rest


# --- many connections -------------------------------------------------------------------------------------------------


async def test_above_the_cap_the_answer_is_503_and_the_admin_port_works(clients: Clients) -> None:
    """The refused one is told when to come back; when one leaves, the next is taken."""
    async with scripted_upstream() as upstream:
        config = {"listen": {"limits": {"connections": 3}}, "servers": {"up": {"url": upstream.url}}}
        with running_proxy(config) as proxy:
            inside = [await clients.connect(proxy.port) for _ in range(3)]
            await inside[0].send(post())
            assert (await inside[0].answer())[0] == 200
            surplus = await clients.connect(proxy.port)
            status, fields, body = await surplus.answer()
            assert (status, fields["retry-after"], fields["connection"]) == (503, "1", "close")
            assert b'"reason":"overloaded"' in body
            assert await surplus.at_end()
            await surplus.close()
            assert '"alive"' in proxy.admin("/livez")
            assert proxy.metric("mcp_proxy_connections_refused_total") == 1
            assert proxy.metric("mcp_proxy_connections_accepted_total") >= 4
            await inside[0].send(post())
            assert (await inside[0].answer())[0] == 200  # those inside are not disturbed
            await inside[1].close()
            async with asyncio.timeout(PATIENCE_S):
                while proxy.metric("mcp_proxy_connections_open") > 2:
                    await asyncio.sleep(0.02)
            late = await clients.connect(proxy.port)
            await late.send(post())
            assert (await late.answer())[0] == 200


async def test_a_thousand_idle_connections_cost_little(clients: Clients) -> None:
    """16 KiB each at most, and a call beside them is answered as ever."""
    async with scripted_upstream() as upstream:
        config = {"listen": {"limits": {"connections": 2000}}, "servers": {"up": {"url": upstream.url}}}
        with running_proxy(config) as proxy:
            first = await clients.connect(proxy.port)
            await first.send(post())
            assert (await first.answer())[0] == 200
            before = proxy.rss_bytes()
            opened = await asyncio.gather(*(clients.connect(proxy.port) for _ in range(1000)))
            async with asyncio.timeout(PATIENCE_S):
                while proxy.metric("mcp_proxy_connections_open") < 1001:
                    await asyncio.sleep(0.02)
            assert (proxy.rss_bytes() - before) / 1000 < 16 << 10
            began = time.monotonic()
            await opened[500].send(post())
            assert (await opened[500].answer())[0] == 200
            assert time.monotonic() - began < 5
            await clients.close()
            async with asyncio.timeout(PATIENCE_S):
                while proxy.metric("mcp_proxy_connections_open"):
                    await asyncio.sleep(0.02)


# --- TLS --------------------------------------------------------------------------------------------------------------


class Secured:
    """A TLS listener in front of a scripted upstream."""

    def __init__(self, directory: Path) -> None:
        self.certificate, self.key = directory / "server.pem", directory / "server.key"
        write_pair(self.certificate, self.key)

    def config(self, upstream: ScriptedUpstream, **timeouts: str) -> dict[str, Any]:
        tls = {"certificate": str(self.certificate), "key": str(self.key)}
        return {"listen": {"tls": tls, "timeouts": timeouts}, "servers": {"up": {"url": upstream.url}}}

    def trusting(self) -> ssl.SSLContext:
        """A client's context that trusts the certificate that is on disk now."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.check_hostname = False
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context


async def secure(port: int, context: ssl.SSLContext) -> RawClient:
    return RawClient(*await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=1 << 20))


async def test_tls_carries_calls_and_streams(tmp_path: Path) -> None:
    """ALPN settles on http/1.1; the server is told of https; old versions and plain HTTP are turned away."""
    secured = Secured(tmp_path)
    async with scripted_upstream() as upstream:
        with running_proxy(secured.config(upstream, keepalive="2s")) as proxy:
            client = await secure(proxy.port, secured.trusting())
            assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            for _ in range(2):
                await client.send(post())
                assert (await client.answer())[::2] == (200, RESULT)
            assert b"\r\nX-Forwarded-Proto: https\r\n" in upstream.seen[0]
            assert await client.at_end()  # the idle deadline closes it
            await client.close()

            old = secured.trusting()
            with pytest.warns(DeprecationWarning):
                old.maximum_version = ssl.TLSVersion.TLSv1_1
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await secure(proxy.port, old)

            plain = await RawClient.connect(proxy.port)
            await plain.send(post())
            with contextlib.suppress(ConnectionError):
                assert not (await asyncio.wait_for(plain.reader.read(), 5)).startswith(b"HTTP/1.1 2")
            await plain.close()
            assert len(upstream.seen) == 2


async def test_a_renewed_certificate_is_served_after_a_reload(tmp_path: Path) -> None:
    """New connections get it, open ones go on; a pair that does not fit changes nothing."""
    secured = Secured(tmp_path)
    async with scripted_upstream() as upstream:
        with running_proxy(secured.config(upstream)) as proxy:
            before = await secure(proxy.port, secured.trusting())
            first = before.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            write_pair(secured.certificate, secured.key)
            line = await asyncio.to_thread(proxy.reload, secured.config(upstream))
            assert line["event"] == "configuration in force"
            await before.send(post())
            assert (await before.answer())[0] == 200
            await before.close()
            after = await secure(proxy.port, secured.trusting())
            second = after.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            assert first != second
            await after.close()

            trusting = secured.trusting()
            whole = secured.certificate.read_bytes()
            write_pair(tmp_path / "other.pem", secured.key)  # a key of another certificate
            line = await asyncio.to_thread(proxy.reload, secured.config(upstream))
            assert line["event"] == "configuration refused"
            assert secured.certificate.read_bytes() == whole
            again = await secure(proxy.port, trusting)
            assert again.writer.get_extra_info("ssl_object").getpeercert(binary_form=True) == second
            await again.send(post())
            assert (await again.answer())[0] == 200
            await again.close()


@pytest.mark.alone
async def test_a_handshake_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    """By the deadline of the head: a client that says nothing costs nothing for long."""
    secured = Secured(tmp_path)
    async with scripted_upstream() as upstream:
        with running_proxy(secured.config(upstream, head="500ms")) as proxy:
            began = time.monotonic()
            client = await RawClient.connect(proxy.port)
            assert await client.at_end()
            assert 0.3 < time.monotonic() - began < 2
            await client.close()


async def test_a_tls_answer_larger_than_every_buffer_arrives_whole(tmp_path: Path) -> None:
    """Also when it is the last one on its connection: closing waits for what is still to be written."""
    secured = Secured(tmp_path)
    body = b'{"jsonrpc":"2.0","id":1,"result":"%b"}' % (b"z" * (4 << 20))

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(json_answer(body))

    async with scripted_upstream(script) as upstream:
        with running_proxy(secured.config(upstream)) as proxy:
            client = await secure(proxy.port, secured.trusting())
            await client.send(post("/up/mcp", CALL, "Connection: close"))
            status, _, received = await client.answer()
            assert (status, received == body) == (200, True)
            await client.close()
