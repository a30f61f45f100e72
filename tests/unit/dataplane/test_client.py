"""What is given goes out to the letter, what comes back is handed on as it came, and each failure has its name."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.models import Server
from proxy.dataplane.client import Origin, Truncated, UpstreamClient, UpstreamResponse, origin_of
from proxy.dataplane.connector import Body
from proxy.dataplane.deadlines import Deadlines
from proxy.dataplane.exchange import Headers
from proxy.dataplane.resolver import Resolver
from proxy.errors import ConnectFailed, PoolExhausted, Refusal, UpstreamFailed, UpstreamTimeout
from proxy.metrics import ServerMetrics
from tests.harness import RESULT, ScriptedUpstream, Wire, answer_json, free_port, json_answer, scripted_upstream
from tests.unit.dataplane.fakes import PATIENCE_S, Time

HOST: Headers = [("Host", "up.test")]


class Sender:
    """A client, and the time and the figures that it goes by."""

    def __init__(self, url: str, **server: Any) -> None:
        self.time = Time()
        self.deadlines = Deadlines(self.time)
        self.metrics = ServerMetrics("up", str)
        self.client = UpstreamClient(Server.model_validate({"url": url, **server}), self.metrics, self.deadlines)

    async def post(self, body: Body = b"{}", *fields: tuple[str, str], target: str = "") -> UpstreamResponse:
        length = [("Content-Length", str(len(body)))] if isinstance(body, bytes) else []
        return await self.client.send("POST", target, [*HOST, *length, *fields], body)

    def idle(self) -> bool:
        """Whether nothing is in use."""
        return self.metrics.pool_in_use == 0


@asynccontextmanager
async def sending(
    script: Callable[[Wire], Awaitable[None]] = answer_json, **server: Any
) -> AsyncIterator[tuple[Sender, ScriptedUpstream]]:
    """A client of a scripted upstream; at the end nothing of it may be in use."""
    async with scripted_upstream(script) as upstream:
        sender = Sender(upstream.url, **server)
        try:
            yield sender, upstream
            assert sender.idle()
        finally:
            await sender.client.close()
            await asyncio.sleep(0)


def saying(*pieces: bytes, reset: bool = False) -> Callable[[Wire], Awaitable[None]]:
    """Answers one request with these bytes and ends the connection, in order or by a reset."""

    async def script(wire: Wire) -> None:
        await wire.request()
        for piece in pieces:
            await wire.send(piece)
        if reset:
            wire.reset()

    return script


async def whole(response: UpstreamResponse) -> bytes:
    """The body to its end, and the response closed."""
    try:
        body = response.read_nowait()
        while not response.ended:
            body += await response.read()
        return body
    finally:
        response.close()


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    """A body that comes piece by piece."""
    for piece in given:
        yield piece


# --- what goes out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("", b"POST /mcp HTTP/1.1"),
        ("http://127.0.0.1:{port}", b"POST / HTTP/1.1"),
        ("http://127.0.0.1:{port}/a%2Fb/%7Ec?x=%20&y", b"POST /a%2Fb/%7Ec?x=%20&y HTTP/1.1"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_request_goes_out_to_the_letter(target: str, line: bytes, streamed: bool) -> None:
    """Target, fields with their case, order and repeats, body; nothing is added and nothing encoded anew."""
    fields = [("x-Odd", "1"), ("ACCEPT", "a"), ("X-Odd", "2"), ("accept", "b"), ("X-Text", "\u4e2d")]
    async with sending() as (sender, upstream):
        body = pieces(b"{", b"}") if streamed else b"{}"
        response = await sender.post(body, *fields, target=target.format(port=upstream.port))
        assert await whole(response) == RESULT
        head, _, sent = upstream.seen[0].partition(b"\r\n\r\n")
        given = [f"{name}: {value}" for name, value in fields]
        if streamed:  # its framing belongs to this connection
            written = ["Host: up.test", *given, "Transfer-Encoding: chunked"]
        else:
            written = ["Host: up.test", "Content-Length: 2", *given]
        assert head.split(b"\r\n") == [line, *[each.encode() for each in written]]
        assert sent == (b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n" if streamed else b"{}")


async def test_a_request_without_a_body_has_no_framing() -> None:
    """A GET is its head and nothing else."""
    async with sending() as (sender, upstream):
        assert await whole(await sender.client.send("GET", "", HOST, None)) == RESULT
        assert upstream.seen == [b"GET /mcp HTTP/1.1\r\nHost: up.test\r\n\r\n"]


# --- what comes back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_fields_of_an_answer_are_handed_on_as_they_came(streamed: bool) -> None:
    """Case, order, repeats, and bytes that are no UTF-8."""
    lines = [b"HTTP/1.1 201 Whatever", b"x-ODD: 1", b"Set-Cookie: a", b"X-Odd: \xff", b"set-cookie: b"]
    raw = b"\r\n".join([*lines, b"Content-Length: 0", b"", b""])
    async with sending(saying(raw)) as (sender, _):
        response = await sender.post(pieces(b"{}") if streamed else b"{}")
        assert await whole(response) == b""
    assert response.status == 201
    assert response.headers == [
        ("x-ODD", "1"), ("Set-Cookie", "a"), ("X-Odd", "\udcff"), ("set-cookie", "b"), ("Content-Length", "0"),
    ]  # fmt: skip


@pytest.mark.parametrize("status", [b"301 Moved", b"401 Unauthorized", b"404 Not Found", b"500 Oops", b"599 Own"])
async def test_every_status_is_an_answer(status: bytes) -> None:
    """Redirects are not followed, errors are not raised: they are the client's to see."""
    raw = b"HTTP/1.1 %b\r\nLocation: /other\r\nContent-Length: 1\r\n\r\nx" % status
    async with sending(saying(raw)) as (sender, upstream):
        assert await whole(await sender.post()) == b"x"
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(
    ("method", "raw"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("GET", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
async def test_an_answer_without_a_body_leaves_its_connection_for_the_next(method: str, raw: bytes) -> None:
    """Each is over with its head, whatever that says about a length; interim answers are skipped."""

    async def script(wire: Wire) -> None:
        while await wire.request():
            await wire.send(raw)

    async with sending(script) as (sender, upstream):
        for _ in range(2):
            assert await whole(await sender.client.send(method, "", HOST, None)) == b""
        assert upstream.connections == 1


def framed(body: bytes, framing: str) -> bytes:
    """A whole answer."""
    if framing == "length":
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    if framing == "chunked":
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % chunk
    return b"HTTP/1.1 200 OK\r\n\r\n" + body


@given(
    st.binary(max_size=200),
    st.sampled_from(("length", "chunked", "until close")),
    st.lists(st.integers(0, 300), max_size=4),
)
def test_any_body_in_any_framing_cut_anywhere_comes_back_whole(body: bytes, framing: str, cuts: list[int]) -> None:
    """Content-Length, chunked, or until the connection ends in order."""
    raw = framed(body, framing)
    edges = sorted({0, len(raw), *[cut for cut in cuts if cut < len(raw)]})
    parts = [raw[start:end] for start, end in pairwise(edges)]

    async def fetch() -> None:
        async with sending(saying(*parts)) as (sender, _):
            assert await whole(await sender.post()) == body

    asyncio.run(fetch())


UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nhalf of"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("raw", "reset"), [(UNTIL_CLOSE, True), (CHUNKED, False), (CHUNKED, True), (LENGTH, False), (LENGTH, True)]
)
async def test_a_body_that_breaks_off_is_truncated(raw: bytes, reset: bool, streamed: bool) -> None:
    """By its framing, or by a reset where the end of the connection is its only end."""
    async with sending(saying(raw, reset=reset)) as (sender, _):
        with pytest.raises(Truncated):
            await whole(await sender.post(pieces(b"{}") if streamed else b"{}"))


async def left(upstream: ScriptedUpstream) -> None:
    """Wait until the upstream has left every connection, and what it sent is here."""
    async with asyncio.timeout(PATIENCE_S):
        while upstream.open:
            await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_reset_is_no_end_even_when_all_came_before_anyone_read(streamed: bool) -> None:
    """Body and reset are both here before the first read, as behind a client that reads slowly."""
    async with sending(saying(UNTIL_CLOSE, reset=True)) as (sender, upstream):
        response = await sender.post(pieces(b"{}") if streamed else b"{}")
        await left(upstream)
        with pytest.raises(Truncated):
            await whole(response)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_reset_behind_a_whole_answer_changes_nothing(streamed: bool) -> None:
    """A body that says where it ends is complete, whatever becomes of its connection."""
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n"
    async with sending(saying(raw, reset=True)) as (sender, upstream):
        response = await sender.post(pieces(b"{}") if streamed else b"{}")
        await left(upstream)
        assert await whole(response) == b"whole"


async def test_closing_an_answer_that_goes_on_ends_its_connection() -> None:
    """The upstream learns at once that nobody listens any more."""
    ended = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        await wire.reader.read()
        ended.set()

    async with sending(script) as (sender, _):
        response = await sender.post()
        assert await response.read() == b"half"
        response.close()
        async with asyncio.timeout(PATIENCE_S):
            await ended.wait()


# --- what fails -----------------------------------------------------------------------------------------------------


async def test_a_server_that_is_not_there_was_sent_nothing() -> None:
    """Whoever asks may try another."""
    sender = Sender(f"http://127.0.0.1:{free_port()}/mcp")
    for body in (b"{}", pieces(b"{}")):
        with pytest.raises(ConnectFailed):
            await sender.post(body)
    assert sender.idle()
    await sender.client.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nX: ", b"not HTTP at all\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", b"HTTP/1.1 600 What\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_that_never_begins_or_breaks_the_rules_is_a_failure(
    raw: bytes, reset: bool, streamed: bool
) -> None:
    """It is sent once: a byte may have left, so nothing is tried again."""
    async with sending(saying(raw, reset=reset)) as (sender, upstream):
        with pytest.raises(UpstreamFailed):
            await sender.post(pieces(b"{}") if streamed else b"{}")
        assert upstream.connections == 1


class Silent:
    """An upstream that says nothing, and tells when it was asked and when it was left."""

    def __init__(self) -> None:
        self.asked = asyncio.Semaphore(0)
        self.left = asyncio.Semaphore(0)

    async def __call__(self, wire: Wire) -> None:
        await wire.request()
        self.asked.release()
        await wire.reader.read()
        self.left.release()


async def until_asked(silent: Silent, sender: Sender) -> asyncio.Task[UpstreamResponse]:
    """A request that waits for its answer."""
    task = asyncio.ensure_future(sender.post())
    async with asyncio.timeout(PATIENCE_S):
        await silent.asked.acquire()
    return task


async def test_an_answer_that_does_not_begin_in_time_is_a_timeout() -> None:
    """`first_byte` counts from the request; the connection is closed, since the answer may still come."""
    silent = Silent()
    async with sending(silent, timeouts={"first_byte": "5s"}) as (sender, _):
        task = await until_asked(silent, sender)
        sender.time.now += 4.9
        sender.deadlines.tick()
        await asyncio.sleep(0)
        assert not task.done()
        sender.time.now += 0.1
        sender.deadlines.tick()
        with pytest.raises(UpstreamTimeout):
            await task
        async with asyncio.timeout(PATIENCE_S):
            await silent.left.acquire()


async def test_a_client_that_leaves_takes_its_request_along() -> None:
    """The cancellation stays one, also when the deadline passes in the same turn."""
    silent = Silent()
    async with sending(silent, timeouts={"first_byte": "5s"}) as (sender, _):
        for overdue in (False, True):
            task = await until_asked(silent, sender)
            task.cancel()
            if overdue:
                sender.time.now += 5
                sender.deadlines.tick()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with asyncio.timeout(PATIENCE_S):
                await silent.left.acquire()


async def test_a_full_pool_refuses_after_its_patience_and_serves_who_waits() -> None:
    """Nothing was sent for the refused one; the one that waits goes on when a place is free."""
    async with sending(timeouts={"connect": "500ms"}, pool={"max_connections": 1}) as (sender, upstream):
        first = await sender.post()
        with pytest.raises(PoolExhausted) as refused:
            await sender.post()
        assert refused.value.headers == (("Retry-After", "1"),)
        waiting = asyncio.ensure_future(sender.post())
        await asyncio.sleep(0)
        assert await whole(first) == RESULT
        assert await whole(await waiting) == RESULT
        assert len(upstream.seen) == 2
        assert sender.metrics.pool_waits == sender.client.slots.waits == 2
        assert sender.client.slots.waited_s >= 0.5


@pytest.mark.parametrize("fault", [ValueError("a body that breaks off"), Refusal("too late")])
async def test_a_streamed_body_that_breaks_off_fails_the_request(fault: Exception) -> None:
    """The upstream never sees it end as if it were complete."""
    broken = asyncio.Event()

    async def script(wire: Wire) -> None:
        read = await wire.reader.read()
        assert not read.endswith(b"0\r\n\r\n")
        broken.set()

    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        raise fault

    async with sending(script) as (sender, _):
        with pytest.raises(UpstreamFailed):
            await sender.post(body())
        async with asyncio.timeout(PATIENCE_S):
            await broken.wait()


async def test_an_answer_may_begin_before_the_body_has_ended() -> None:
    """Up and down run beside each other."""
    seen = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.reader.readuntil(b"1\r\n{\r\n")
        await wire.send(json_answer())
        seen.set()
        await wire.reader.read()

    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await seen.wait()

    async with sending(script) as (sender, _):
        assert await whole(await sender.post(body())) == RESULT


async def test_the_size_of_a_pool_is_counted_while_it_is_in_service() -> None:
    """Once, however often a snapshot that knows it comes into force, and no more after it is closed."""
    async with sending(pool={"max_connections": 7}) as (sender, _):
        figures = [sender.metrics.pool_limit]
        for change in (sender.client.count_pool, sender.client.count_pool):
            change()
            figures.append(sender.metrics.pool_limit)
        await whole(await sender.post(pieces(b"{}")))
        for _ in range(2):
            await sender.client.close()
            figures.append(sender.metrics.pool_limit)
        assert figures == [0, 7, 7, 0, 0]


async def test_a_pool_with_a_lower_bound_starts_there_and_is_counted_as_large_as_it_is() -> None:
    """It grows before anyone waits; closed, it counts for nothing."""
    async with sending(pool={"max_connections": 7, "min_connections": 2}) as (sender, _):
        client, figures = sender.client, [sender.client.slots.limit]
        client.count_pool()
        answers = [await sender.post() for _ in range(3)]
        assert sender.metrics.pool_waits == 0
        figures.append(sender.client.slots.limit)
        for limit in (client.slots.limit, 4):
            client.resize(limit)
            figures.append(sender.metrics.pool_limit)
        for answer in answers:
            await whole(answer)
        await client.close()
        figures.append(sender.metrics.pool_limit)
        client.resize(5)
        figures.append(sender.metrics.pool_limit)
        assert figures == [2, 5, 5, 4, 0, 0]


@pytest.mark.parametrize(
    ("error", "origin"),
    [
        (ConnectFailed("ClientConnectorError"), "connect"),
        (ConnectFailed("ClientConnectorDNSError"), "connect"),
        (ConnectFailed("ConnectionRefusedError"), "connect"),
        (ConnectFailed("ClientConnectorSSLError"), "tls"),
        (ConnectFailed("ClientConnectorCertificateError"), "tls"),
        (ConnectFailed("SSLError"), "tls"),
        (ConnectFailed("ConnectionTimeoutError"), "timeout"),
        (ConnectFailed("TimeoutError"), "timeout"),
        (UpstreamTimeout("first_byte"), "timeout"),
        (UpstreamFailed("ServerDisconnectedError"), "reset"),
    ],
)
def test_a_failure_says_where_it_happened(error: Refusal, origin: Origin) -> None:
    """For those who count failures apart."""
    assert isinstance(error, ConnectFailed | UpstreamFailed | UpstreamTimeout)
    assert origin_of(error) == origin


@pytest.mark.parametrize("streamed", [False, True])
async def test_connections_that_cannot_be_made_are_counted_by_kind(streamed: bool) -> None:
    """Nobody listens, and somebody does who speaks no TLS."""

    async def no_tls(wire: Wire) -> None:
        await wire.send(b"220 no TLS here\r\n")
        await wire.reader.read()

    async with scripted_upstream(no_tls) as upstream:
        for url, kind in (
            (f"http://127.0.0.1:{free_port()}/", "connect"),
            (f"https://127.0.0.1:{upstream.port}/", "tls"),
        ):
            sender = Sender(url)
            with pytest.raises(ConnectFailed) as refused:
                await sender.post(pieces(b"{}") if streamed else b"{}")
            assert origin_of(refused.value) == kind
            assert sender.client.connect_errors == {"connect": 0, "tls": 0, "timeout": 0, kind: 1}
            await sender.client.close()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("host", ["nowhere.test", "nowhere.test.", "a..b"])
async def test_a_host_that_is_nowhere_is_a_connection_that_could_not_be_made(host: str, streamed: bool) -> None:
    """However it is written: nothing was sent, so that another server may be asked."""

    def nowhere(name: str) -> list[tuple[int, str]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    sender = Sender(f"http://{host}/mcp")
    sender.client.resolver = Resolver(nowhere)
    with pytest.raises(ConnectFailed):
        await sender.post(pieces(b"{}") if streamed else b"{}")
    assert sender.client.connect_errors == {"connect": 1, "tls": 0, "timeout": 0}
    assert sender.idle()
    await sender.client.close()
