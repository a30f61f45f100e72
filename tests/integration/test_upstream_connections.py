"""Connections that the upstream closes: no call fails because of one, and no call arrives twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from tests.harness import (
    RESULT,
    UNENFORCED,
    ProxyProcess,
    RawClient,
    Wire,
    free_port,
    json_answer,
    post,
    running_proxy,
    scripted_upstream,
)
from tests.integration.talk import ask, id_of, numbered

#: Ports of the upstreams that announce how long they keep a connection, that do not, and that follow a script.
ANNOUNCING, SILENT, SCRIPTED = free_port(), free_port(), free_port()
#: How long they keep an idle connection, seconds. The silent one is like Node and uvicorn.
ANNOUNCED_S, SILENT_S = 1.0, 5.0
#: What the proxy makes of that: half of what was announced, else `pool.keepalive`.
REUSED_S, DEFAULT_S = 0.5, 3.0


@pytest.fixture(scope="module")
def proxy() -> Iterator[ProxyProcess]:
    """A proxy in front of the three upstreams, with pools as they are by default but larger. One breaks connections
    on purpose, and its breaker must not refuse what comes next."""
    ports = {"announcing": ANNOUNCING, "silent": SILENT, "up": SCRIPTED}
    servers = {
        name: {"url": f"http://127.0.0.1:{port}/mcp", "pool": {"max_connections": 2000}, "breaker": UNENFORCED}
        for name, port in ports.items()
    }
    raw = {"name": "raw", "path": "/raw", "servers": "announcing", "inspect": "none", "sessions": "passthrough"}
    with running_proxy({"servers": servers, "routes": [raw], "log": {"access": False}}) as process:
        yield process


class IdleCloser(asyncio.Protocol):
    """An upstream's connection that is closed `idle_s` after the last answer, whatever may be on its way by then."""

    def __init__(self, upstream: IdleUpstream) -> None:
        self._upstream = upstream
        self._loop = asyncio.get_running_loop()
        self._closing: asyncio.TimerHandle | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._upstream.transports.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream.transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        if self._closing is not None:
            self._closing.cancel()
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        chunked = b"chunked" in head
        if end and (body.endswith(b"0\r\n\r\n") if chunked else body.endswith(b"}}}")):
            self._upstream.arrived[id_of(self._received)] += 1
            self._received = b""
            self._loop.call_later(self._upstream.answer_after_s, self._answer)

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._upstream.answer)
            self._closing = self._loop.call_later(self._upstream.idle_s, self._transport.close)


class IdleUpstream:
    """What an upstream that closes idle connections has seen."""

    def __init__(self, idle_s: float, answer: bytes) -> None:
        self.idle_s = idle_s
        self.answer = answer
        self.answer_after_s = 0.0
        self.arrived: Counter[int] = Counter()
        self.transports: set[asyncio.Transport] = set()


@contextlib.asynccontextmanager
async def idle_upstream(port: int, idle_s: float, *fields: bytes) -> AsyncIterator[IdleUpstream]:
    """An upstream that keeps idle connections for `idle_s` seconds, and sends `fields` with each answer."""
    upstream = IdleUpstream(idle_s, json_answer().replace(b"\r\n\r\n", b"\r\n" + b"".join(fields) + b"\r\n", 1))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: IdleCloser(upstream), "127.0.0.1", port, backlog=4096)
    try:
        yield upstream
    finally:
        server.close()
        for transport in list(upstream.transports):
            transport.abort()
        await asyncio.sleep(0)


async def sweep(port: int, path: str, upstream: IdleUpstream, gaps_s: Sequence[float]) -> tuple[int, int]:
    """How many of two calls per gap fail, and how many arrive more than once.

    The first calls run at the same time, so that as many connections become idle together; the second one of each gap
    then finds one that has been idle for just that long.
    """
    upstream.answer_after_s = 0.3
    clients = await asyncio.gather(*[RawClient.connect(port) for _ in gaps_s])
    first = max(upstream.arrived, default=0) + 1
    second = first + len(gaps_s)

    async def call(client: RawClient, number: int) -> bool:
        chunked = path == "/raw"
        request = numbered(number, path)
        if chunked:
            head, _, body = request.partition(b"\r\n\r\n")
            head = head.replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked")
            request = head + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        await client.send(request)
        status, _, body = await client.answer()
        return (status, body) == (200, RESULT)

    good = await asyncio.gather(*[call(client, first + number) for number, client in enumerate(clients)])
    upstream.answer_after_s = 0.0
    start = asyncio.get_running_loop().time()

    async def call_after(client: RawClient, gap_s: float, number: int) -> bool:
        await asyncio.sleep(start + gap_s - asyncio.get_running_loop().time())
        return await call(client, number)

    good += await asyncio.gather(*[
        call_after(client, gap_s, second + number)
        for number, (client, gap_s) in enumerate(zip(clients, gaps_s, strict=True))
    ])  # fmt: skip
    await asyncio.gather(*[client.close() for client in clients])
    mine = [upstream.arrived[number] for number in range(first, second + len(gaps_s))]
    return good.count(False), sum(count > 1 for count in mine)


def around(middle_s: float, steps: int = 40, step_s: float = 0.001) -> list[float]:
    """Gaps before and after a moment."""
    return [middle_s + step * step_s for step in range(-steps, steps + 1)]


@pytest.mark.alone
async def test_no_call_meets_a_connection_that_is_about_to_close(proxy: ProxyProcess) -> None:
    """Gaps in steps of 1 ms around the moment at which an upstream closes, and around our own limit."""
    async with (
        idle_upstream(ANNOUNCING, ANNOUNCED_S, b"Keep-Alive: timeout=1\r\n") as announcing,
        idle_upstream(SILENT, SILENT_S) as silent,
    ):
        outcomes = await asyncio.gather(
            sweep(proxy.port, "/announcing/mcp", announcing, around(REUSED_S) + around(ANNOUNCED_S)),
            sweep(proxy.port, "/silent/mcp", silent, around(DEFAULT_S) + around(SILENT_S)),
        )
    assert outcomes == [(0, 0), (0, 0)]


@pytest.mark.alone
async def test_streamed_bodies_meet_no_such_connection_either(proxy: ProxyProcess) -> None:
    """A route that inspects nothing takes another way through the client."""
    async with idle_upstream(ANNOUNCING, ANNOUNCED_S, b"Keep-Alive: timeout=1\r\n") as announcing:
        assert await sweep(proxy.port, "/raw", announcing, around(REUSED_S) + around(ANNOUNCED_S)) == (0, 0)


async def test_connections_are_reused_where_that_is_safe(proxy: ProxyProcess) -> None:
    """Twenty calls one after the other take one connection."""
    async with scripted_upstream(port=SCRIPTED) as upstream:
        client = await RawClient.connect(proxy.port)
        for number in range(20):
            await client.send(numbered(number))
            assert (await client.answer())[0] == 200
        assert upstream.connections == 1
        await client.close()


async def test_an_upstream_may_restart_between_two_calls(proxy: ProxyProcess) -> None:
    """The next call finds the new process; while there is none it is 502."""
    client = await RawClient.connect(proxy.port)
    statuses = []
    for _ in range(5):
        async with scripted_upstream(port=SCRIPTED) as upstream:
            await client.send(numbered(1))
            statuses.append((await client.answer())[0])
            assert len(upstream.seen) == 1
    await client.send(numbered(1))
    assert statuses == [200] * 5
    assert (await client.answer())[0] == 502
    await client.close()


async def _answer_and_close(wire: Wire) -> None:
    await wire.request()
    await wire.send(json_answer())


async def _announce_close(wire: Wire) -> None:
    await wire.request()
    await wire.send(json_answer().replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    await wire.reader.read()  # the proxy closes


async def _answer_and_reset(wire: Wire) -> None:
    await wire.request()
    await wire.send(json_answer())
    await asyncio.sleep(0.005)
    wire.reset()


@pytest.mark.parametrize("script", [_answer_and_close, _announce_close, _answer_and_reset])
async def test_a_connection_that_ends_after_each_answer_costs_nothing_but_time(proxy: ProxyProcess, script) -> None:
    """With an announcement, without one, and by a reset: the client's own connection stays."""
    async with scripted_upstream(script, SCRIPTED) as upstream:
        client = await RawClient.connect(proxy.port)
        for number in range(40):
            await client.send(numbered(number))
            status, fields, _ = await client.answer()
            assert (status, fields.get("connection")) == (200, None)
            if script is _answer_and_reset:
                await asyncio.sleep(0.02)
        assert [id_of(request) for request in upstream.seen] == list(range(40))
        await client.close()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Le"])
@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("reused", [True, False])
async def test_a_call_that_may_have_arrived_is_never_sent_again(
    proxy: ProxyProcess, sent: bytes, reset: bool, reused: bool
) -> None:
    """The upstream reads it and breaks off before its answer begins: 502, and it has arrived once."""

    async def script(wire: Wire) -> None:
        if reused:
            await wire.request()
            await wire.send(json_answer())
        await wire.request()
        await wire.send(sent)
        if reset:
            wire.reset()

    async with scripted_upstream(script, SCRIPTED) as upstream:
        if reused:
            assert (await ask(proxy.port, numbered(1))).status == 200
        answered = await ask(proxy.port, numbered(2))
        assert (answered.status, answered.reason) == (502, "upstream_failed")
        assert [id_of(request) for request in upstream.seen] == ([1, 2] if reused else [2])
        await asyncio.sleep(0.05)
        assert len(upstream.seen) == 1 + reused


@pytest.mark.parametrize(
    ("message", "times"),
    [
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}', 2),
        (b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///a"}}', 2),
        (b'{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"file:///a"}}', 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"something/else"}', 1),
        (b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}', 1),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', 1),
    ],
)
async def test_what_only_reads_is_sent_once_more_and_nothing_else_is(
    proxy: ProxyProcess, message: bytes, times: int
) -> None:
    """The only server breaks off before each answer: `retry.attempts`, which is 2, counts them all."""

    async def script(wire: Wire) -> None:
        await wire.request()
        wire.reset()

    async with scripted_upstream(script, SCRIPTED) as upstream:
        answered = await ask(proxy.port, post(body=message))
        assert (answered.status, answered.reason) == (502, "upstream_failed")
        await asyncio.sleep(0.05)
        assert [request.rpartition(b"\r\n\r\n")[2] for request in upstream.seen] == [message] * times


@pytest.mark.parametrize("later_s", [0.0, 0.05])
async def test_an_answer_to_nothing_reaches_nobody(proxy: ProxyProcess, later_s: float) -> None:
    """A second answer to one request must not become the answer to the next, whoever sends that."""

    async def script(wire: Wire) -> None:
        while request := await wire.request():
            extra = json_answer(b'{"stolen":%d}' % id_of(request))
            await wire.send(json_answer() + (b"" if later_s else extra))
            if later_s:
                await asyncio.sleep(later_s)
                await wire.send(extra)

    async with scripted_upstream(script, SCRIPTED):
        for number in range(5):
            assert (await ask(proxy.port, numbered(number))).body == RESULT
            await asyncio.sleep(later_s * 2)
