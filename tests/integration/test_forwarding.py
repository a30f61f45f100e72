"""Forwarding: the next server, deadlines, pools, broken answers, and what becomes of header fields on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, get_args

import pytest

from proxy.config.models import Strategy
from tests.harness import (
    CALL,
    PATIENCE_S,
    RESULT,
    UNENFORCED,
    ProxyProcess,
    RawClient,
    ScriptedUpstream,
    Wire,
    answer_json,
    free_port,
    json_answer,
    post,
    running_proxy,
    scripted_upstream,
)
from tests.integration.talk import (
    SSE_HEAD,
    Answered,
    ask,
    chunk,
    event,
    fields_of,
    get,
    id_of,
    numbered,
    soon,
    values,
)

PORT = free_port()
DEAD = free_port()
#: How late a deadline may be on a busy machine, seconds: those that nobody has set here are later by much more.
LATE_S = 5.0
STRATEGIES: tuple[str, ...] = get_args(Strategy)


def _server(path: str = "/mcp", port: int = PORT, **keys: Any) -> dict[str, Any]:
    return {"url": f"http://127.0.0.1:{port}{path}", "breaker": UNENFORCED, **keys}


@pytest.fixture(scope="module")
def proxy() -> Iterator[ProxyProcess]:
    """One server for each way to be configured, all of them the same scripted upstream, and dead ones."""
    servers = {
        "up": _server(),
        "dead": _server(port=DEAD),
        "dead-too": _server(port=DEAD),
        "slow": _server(timeouts={"first_byte": "500ms"}),
        "quiet": _server(timeouts={"idle": "300ms"}),
        "brief": _server(timeouts={"total": "500ms"}),
        "small": _server(pool={"max_connections": 2}, timeouts={"connect": "2s"}),
        "keyed": _server(headers={"Authorization": "Bearer operator", "X-Extra": "1", "Via": "1.1 ours"}),
        "preserve": _server(host="preserve"),
        "bare": _server(forwarded=False),
        "query": _server("/mcp?key=1"),
    }
    routes: list[dict[str, Any]] = [
        {"name": f"s-{each}", "path": f"/s/{each}", "servers": ["dead", "dead-too", "up"], "strategy": each}
        for each in STRATEGIES
    ]
    routes += [
        {"name": "none", "path": "/none", "servers": ["dead", "dead-too"]},
        {"name": "drained", "path": "/drained", "servers": [{"name": "up", "weight": 0}]},
        {"name": "raw", "path": "/raw", "servers": "up", "inspect": "none", "sessions": "passthrough"},
    ]
    listen = {"limits": {"body": "64KiB"}, "timeouts": {"body": "500ms"}, "drain": {"grace": "1s"}}
    budget = {"minimum": 100}  # of retries: as many calls as are made at once may need another server
    with running_proxy({"servers": servers, "routes": routes, "listen": listen, "retry_budget": budget}) as process:
        yield process


@pytest.fixture
async def upstream(proxy: ProxyProcess) -> AsyncIterator[ScriptedUpstream]:
    """The upstream behind them."""
    async with scripted_upstream(port=PORT) as each:
        yield each


def answering(answer: bytes) -> Any:
    """A script that answers every request with these bytes."""

    async def script(wire: Wire) -> None:
        while await wire.request():
            await wire.send(answer)

    return script


class Ending:
    """A script's end: tells when the proxy has closed the connection."""

    def __init__(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        self.pieces = pieces
        self.pause_s = pause_s
        self.closed = asyncio.Event()

    async def __call__(self, wire: Wire) -> None:
        try:
            await wire.request()
            for piece in self.pieces:
                await wire.send(piece)
                await asyncio.sleep(self.pause_s)
            await wire.reader.read()
        finally:
            self.closed.set()


# --- the next server --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_server_that_refuses_connections_costs_nothing(
    proxy: ProxyProcess, upstream: ScriptedUpstream, strategy: str
) -> None:
    """Whatever the strategy, each call reaches the server that lives, once."""
    answers = await asyncio.gather(*[ask(proxy.port, numbered(number, f"/s/{strategy}")) for number in range(12)])
    assert {each.status for each in answers} == {200}
    assert sorted(id_of(request) for request in upstream.seen) == list(range(12))


async def test_without_a_living_server_it_is_502_and_without_any_503(
    proxy: ProxyProcess, upstream: ScriptedUpstream
) -> None:
    """The client learns whether a server is broken or none takes traffic."""
    none, drained = await ask(proxy.port, post("/none")), await ask(proxy.port, post("/drained"))
    assert (none.status, none.reason) == (502, "connect_failed")
    assert (drained.status, drained.reason, drained.fields["retry-after"]) == (503, "no_server", "1")
    assert not upstream.seen


# --- deadlines --------------------------------------------------------------------------------------------------------


async def _timed_cut(proxy: ProxyProcess, path: str) -> tuple[bytes, float]:
    """What came of a body before the connection ended without its last chunk, and after how many seconds."""
    client = await RawClient.connect(proxy.port)
    start = time.monotonic()
    await client.send(post(path))
    await client.head()
    came = await client.reader.read()
    assert not came.endswith(b"0\r\n\r\n")
    await client.close()
    return came, time.monotonic() - start


@pytest.mark.parametrize(("path", "deadline_s"), [("/slow/mcp", 0.5), ("/brief/mcp", 0.5)])
async def test_a_server_that_does_not_begin_to_answer_is_504(
    proxy: ProxyProcess, upstream: ScriptedUpstream, path: str, deadline_s: float
) -> None:
    """`first_byte` and `total`, each on time, and the connection upstream is closed."""
    upstream.script = ending = Ending()
    start = time.monotonic()
    answered = await ask(proxy.port, post(path))
    assert (answered.status, answered.reason) == (504, "upstream_timeout")
    assert -0.05 < time.monotonic() - start - deadline_s < LATE_S
    await soon(ending.closed)
    assert proxy.wait_for(lambda line: line.get("outcome") == "timeout")["status"] == 504


@pytest.mark.parametrize("head", [SSE_HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"], ids=["sse", "json"])
async def test_a_silence_longer_than_idle_cuts_the_answer(
    proxy: ProxyProcess, upstream: ScriptedUpstream, head: bytes
) -> None:
    """What came before arrives, and then the connection breaks: it does not end."""
    upstream.script = ending = Ending(head + chunk(event(1)))
    came, took_s = await _timed_cut(proxy, "/quiet/mcp")
    assert came == chunk(event(1))
    assert -0.05 < took_s - 0.3 < LATE_S
    await soon(ending.closed)


async def test_a_cut_answer_whose_end_is_the_connections_end_is_reset(
    proxy: ProxyProcess, upstream: ScriptedUpstream
) -> None:
    """HTTP/1.0 knows no other sign."""
    upstream.script = Ending(SSE_HEAD + chunk(event(1)))
    client = await RawClient.connect(proxy.port)
    await client.send(post("/quiet/mcp").replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1))
    with pytest.raises(ConnectionResetError):
        await client.reader.read()
    await client.close()


async def test_an_exchange_longer_than_total_is_cut_though_it_is_never_silent(
    proxy: ProxyProcess, upstream: ScriptedUpstream
) -> None:
    """Events every 50 ms go on for 500 ms and no longer."""
    closed = asyncio.Event()

    async def script(wire: Wire) -> None:
        try:
            await wire.request()
            await wire.send(SSE_HEAD)
            for number in range(1000):
                await wire.send(chunk(event(number)))
                await asyncio.sleep(0.05)
        finally:
            closed.set()

    upstream.script = script
    came, took_s = await _timed_cut(proxy, "/brief/mcp")
    assert -0.05 < took_s - 0.5 < LATE_S
    assert came.count(b"data: ") > 1
    await soon(closed)
    line = proxy.wait_for(lambda line: line.get("server") == "brief" and line.get("outcome") == "timeout")
    assert line["bytes_out"] > 0


async def test_an_answer_in_time_is_left_alone_by_total(proxy: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """Also on a connection that lives on for longer than the deadline."""
    client = await RawClient.connect(proxy.port)
    for _ in range(3):
        await client.send(post("/brief/mcp"))
        assert (await client.answer())[0] == 200
        await asyncio.sleep(0.3)
    await client.close()


# --- pools ------------------------------------------------------------------------------------------------------------


class Held:
    """A script that holds each answer until it is let go."""

    def __init__(self) -> None:
        self.order: list[int] = []
        self.gates: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def __call__(self, wire: Wire) -> None:
        while request := await wire.request():
            self.order.append(id_of(request))
            gate = asyncio.Event()
            await self.gates.put(gate)
            await gate.wait()
            await wire.send(json_answer())

    async def let_go(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            (await self.gates.get()).set()


class Crowd:
    """Calls to the server with the small pool, which come one after the other."""

    def __init__(self, proxy: ProxyProcess, held: Held) -> None:
        self.proxy = proxy
        self.held = held
        self.waits = self._waits()

    def _waits(self) -> float:
        return self.proxy.metric("mcp_proxy_pool_waits_total", server="small")

    async def runs(self, number: int) -> asyncio.Task[Answered]:
        """A call that the server has."""
        task = asyncio.create_task(ask(self.proxy.port, numbered(number, "/small/mcp")))
        async with asyncio.timeout(PATIENCE_S):
            while number not in self.held.order:
                await asyncio.sleep(0.005)
        return task

    async def waiting(self) -> None:
        """Until one more waits."""
        self.waits += 1
        async with asyncio.timeout(PATIENCE_S):
            while self._waits() < self.waits:
                await asyncio.sleep(0.005)

    async def waits_for(self, number: int) -> asyncio.Task[Answered]:
        """A call that waits for a connection."""
        task = asyncio.create_task(ask(self.proxy.port, numbered(number, "/small/mcp")))
        await self.waiting()
        return task


async def test_a_full_pool_takes_waiters_in_order_and_refuses_those_that_wait_too_long(
    proxy: ProxyProcess, upstream: ScriptedUpstream
) -> None:
    """Two run, three wait; when those two do not end in time the others get 503 and a Retry-After."""
    upstream.script = held = Held()
    crowd = Crowd(proxy, held)
    tasks = [await crowd.runs(number) for number in range(2)] + [await crowd.waits_for(number) for number in (2, 3, 4)]
    for _ in range(5):
        await held.let_go()
    assert {(await task).status for task in tasks} == {200}
    assert held.order == [0, 1, 2, 3, 4]

    tasks = [await crowd.runs(number) for number in (5, 6)]
    start = time.monotonic()
    refused = await ask(proxy.port, numbered(7, "/small/mcp"))
    assert (refused.status, refused.reason, refused.fields["retry-after"]) == (503, "pool_exhausted", "1")
    assert -0.05 < time.monotonic() - start - 2 < LATE_S
    for _ in range(2):
        await held.let_go()
    assert {(await task).status for task in tasks} == {200}
    assert 7 not in held.order


async def test_a_client_that_stops_waiting_for_a_connection_gives_up_its_place(
    proxy: ProxyProcess, upstream: ScriptedUpstream
) -> None:
    """The next in line gets it, and the call of the one who left is never sent."""
    upstream.script = held = Held()
    crowd = Crowd(proxy, held)
    running = [await crowd.runs(number) for number in range(2)]
    leaver = await RawClient.connect(proxy.port)
    await leaver.send(numbered(7, "/small/mcp"))
    await crowd.waiting()
    running.append(await crowd.waits_for(8))
    seen = len(proxy.lines)
    await leaver.close()
    left = "small", "client_gone"
    await asyncio.to_thread(proxy.wait_for, lambda line: (line.get("server"), line.get("outcome")) == left, start=seen)
    for _ in range(3):
        await held.let_go()
    assert {(await task).status for task in running} == {200}
    assert sorted(held.order) == [0, 1, 8]


async def test_a_server_that_hangs_does_not_slow_another(proxy: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """Fifty calls wait on one server while twenty to another are answered at once."""

    let_go = asyncio.Event()

    async def script(wire: Wire) -> None:
        if id_of(await wire.request()) >= 100:
            await let_go.wait()
        await wire.send(json_answer())
        await answer_json(wire)

    upstream.script = script
    hung = [asyncio.create_task(ask(proxy.port, numbered(100 + number, "/query/mcp"))) for number in range(50)]
    async with asyncio.timeout(PATIENCE_S):
        while len(upstream.seen) < 50:
            await asyncio.sleep(0.005)
    for number in range(20):
        assert (await ask(proxy.port, numbered(number))).status == 200
    let_go.set()
    assert {(await task).status for task in hung} == {200}


# --- answers that break the protocol ----------------------------------------------------------------------------------

MARK = b"K7SECRETMARK"
GARBAGE = {
    "no status line": MARK + b" hello\r\n\r\n",
    "another protocol": b"SSH-2.0-" + MARK + b"\r\n",
    "HTTP/2": b"HTTP/2 200 OK\r\nX: " + MARK + b"\r\nContent-Length: 0\r\n\r\n",
    "a status of letters": b"HTTP/1.1 " + MARK + b" OK\r\n\r\n",
    "status 999": b"HTTP/1.1 999 " + MARK + b"\r\nContent-Length: 0\r\n\r\n",
    "status 600": b"HTTP/1.1 600 " + MARK + b"\r\nContent-Length: 0\r\n\r\n",
    "status 099": b"HTTP/1.1 099 " + MARK + b"\r\nContent-Length: 0\r\n\r\n",
    "huge field": b"HTTP/1.1 200 OK\r\nX: " + MARK * 10000 + b"\r\nContent-Length: 0\r\n\r\n",
    "many fields": b"HTTP/1.1 200 OK\r\n" + b"X: " + b"\r\nX: ".join([MARK] * 400) + b"\r\nContent-Length: 0\r\n\r\n",
    "field without a colon": b"HTTP/1.1 200 OK\r\n" + MARK + b"\r\nContent-Length: 0\r\n\r\n",
    "NUL in a field": b"HTTP/1.1 200 OK\r\nX: " + MARK + b"\0\r\nContent-Length: 0\r\n\r\n",
    "not UTF-8": b"HTTP/1.1 200 OK\r\nX: \xff" + MARK + b"\r\nContent-Length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 12\r\n\r\n" + MARK,
    "length of letters": b"HTTP/1.1 200 OK\r\nContent-Length: " + MARK + b"\r\n\r\n",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nTransfer-Encoding: chunked\r\n\r\n" + MARK,
    "101 unasked": b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" + MARK,
    "interim answers without end": (b"HTTP/1.1 103 Early Hints\r\nX: " + MARK + b"\r\n\r\n") * 500,
}


#: Their framing is sound: on the way for streamed bodies the connection may have gone back to the pool by then.
SOUND = frozenset(("status 999", "status 600", "status 099", "not UTF-8"))


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/up/mcp", kind) for kind in GARBAGE] + [("/raw", kind) for kind in GARBAGE if "interim" not in kind],
)
async def test_an_answer_that_breaks_the_protocol_is_502(
    proxy: ProxyProcess, upstream: ScriptedUpstream, kind: str, path: str
) -> None:
    """Nothing of it is shown, its connection is closed, and the pool goes on."""
    upstream.script = ending = Ending(GARBAGE[kind])
    answered = await ask(proxy.port, post(path))
    assert (answered.status, answered.reason) == (502, "upstream_failed")
    assert MARK not in answered.body + repr(answered.fields).encode()
    if kind in SOUND:
        await upstream.close()
    await soon(ending.closed)
    upstream.script = answer_json
    assert (await ask(proxy.port, post(path))).status == 200


@pytest.mark.parametrize("bad", [b"zz\r\n", b"5\r\nabcdefgh\r\n", b"-1\r\n", b"11111111111111111\r\n"])
@pytest.mark.parametrize("head", [SSE_HEAD, SSE_HEAD.replace(b"text/event-stream", b"application/json")])
@pytest.mark.parametrize("path", ["/up/mcp", "/raw"])
@pytest.mark.parametrize("later_s", [0.0, 0.03])
async def test_a_broken_chunk_never_looks_complete(
    proxy: ProxyProcess, upstream: ScriptedUpstream, bad: bytes, head: bytes, path: str, later_s: float
) -> None:
    """The client's connection breaks where the answer did, be it long after its head."""
    upstream.script = ending = Ending(head + chunk(event(1)), bad, pause_s=later_s)
    client = await RawClient.connect(proxy.port)
    await client.send(post(path))
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        status, _, _ = await client.answer()
        assert status == 502, "complete"
        raise ConnectionError
    await soon(ending.closed)
    await client.close()


async def test_a_few_interim_answers_are_left_out(proxy: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """100 and 103 are not passed on; the answer behind them is."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    upstream.script = answering(interim + json_answer())
    client = await RawClient.connect(proxy.port)
    for _ in range(3):
        await client.send(post())
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert await client.reader.readexactly(len(RESULT)) == RESULT
    await client.close()


async def test_broken_exchanges_leave_no_connection_behind(proxy: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """After all of them the pool is empty of users."""
    upstream.script = Ending(b"garbage\r\n\r\n")
    await asyncio.gather(*[ask(proxy.port, post()) for _ in range(20)])
    async with asyncio.timeout(PATIENCE_S):
        while upstream.open or proxy.metric("mcp_proxy_pool_connections_in_use"):
            await asyncio.sleep(0.01)
    assert "mcp_proxy_pool_connections_in_use" in proxy.admin("/metrics")


# --- bodies that stream through ---------------------------------------------------------------------------------------


async def test_an_answer_may_come_before_the_body_is_complete(proxy: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """An upstream that refuses a large upload at once is heard at once."""

    async def script(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        await wire.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")

    upstream.script = script
    client = await RawClient.connect(proxy.port)
    await client.send(b"POST /raw HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n" + b"x" * 1000)
    status, _, body = await client.answer()
    assert (status, body) == (413, b"no")  # and not our own 408, which is later
    await client.close()


async def _upload(upstream: ScriptedUpstream) -> tuple[asyncio.Event, list[bytes]]:
    """Make the upstream take an upload and never answer; when it ended, and what came."""
    ended, came = asyncio.Event(), []

    async def script(wire: Wire) -> None:
        try:
            while piece := await wire.reader.read(1 << 16):
                came.append(piece)
        finally:
            ended.set()

    upstream.script = script
    return ended, came


CHUNKED_HEAD = b"POST /raw HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
LENGTH_HEAD = b"POST /raw HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n"


@pytest.mark.parametrize("head", [CHUNKED_HEAD, LENGTH_HEAD])
@pytest.mark.alone
async def test_an_upload_that_its_client_gives_up_never_looks_complete(
    proxy: ProxyProcess, upstream: ScriptedUpstream, head: bytes
) -> None:
    """The connection upstream ends at once, without a last chunk."""
    ended, came = await _upload(upstream)
    client = await RawClient.connect(proxy.port)
    await client.send(head + chunk(b"x" * 1000))
    async with asyncio.timeout(PATIENCE_S):
        while b"xxx" not in b"".join(came):
            await asyncio.sleep(0.005)
    await client.close()
    await soon(ended, 0.5)
    assert not b"".join(came).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("head", "body", "status", "reason"),
    [
        (CHUNKED_HEAD, chunk(b"x" * 40000) * 2, 413, "body_too_large"),
        (CHUNKED_HEAD, chunk(b"x" * 40) + b"zz\r\n", 400, "bad_request"),
        (CHUNKED_HEAD, chunk(b"x" * 40), 408, "request_timeout"),
        (LENGTH_HEAD, b"x" * 40, 408, "request_timeout"),
    ],
)
async def test_a_fault_in_a_body_that_streams_is_the_clients(
    proxy: ProxyProcess, upstream: ScriptedUpstream, head: bytes, body: bytes, status: int, reason: str
) -> None:
    """It is answered as on routes that inspect, the connection closes, and the upstream sees no end of the body."""
    ended, came = await _upload(upstream)
    client = await RawClient.connect(proxy.port)
    await client.send(head + body[:20])
    while not came:  # the upload has begun upstream
        await asyncio.sleep(0.001)
    await client.send(body[20:])
    answered = Answered(*await client.answer())
    assert (answered.status, answered.reason, answered.fields["connection"]) == (status, reason, "close")
    await soon(ended)
    assert came
    assert not b"".join(came).endswith(b"0\r\n\r\n")
    assert await client.at_end()
    await client.close()


async def test_a_streamed_body_arrives_as_it_was_sent(proxy: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """With a length it has that length, chunked it is chunked, empty it is empty."""
    client = await RawClient.connect(proxy.port)
    await client.send(LENGTH_HEAD + b"x" * 5000)
    await client.answer()
    await client.send(CHUNKED_HEAD + chunk(b"y" * 5000) + b"0\r\n\r\n")
    await client.answer()
    await client.send(LENGTH_HEAD.replace(b"5000", b"0"))
    await client.answer()
    with_length, chunked, empty = upstream.seen
    assert values(with_length, "content-length") == ["5000"]
    assert with_length.endswith(b"\r\n\r\n" + b"x" * 5000)
    assert (values(chunked, "transfer-encoding"), values(chunked, "content-length")) == (["chunked"], [])
    assert chunked.count(b"y") == 5000
    assert (values(empty, "content-length"), values(empty, "transfer-encoding")) == (["0"], [])
    await client.close()


# --- header fields and targets ----------------------------------------------------------------------------------------


async def _seen(proxy: ProxyProcess, upstream: ScriptedUpstream, request: bytes) -> bytes:
    """The request as the upstream saw it."""
    upstream.seen.clear()
    assert (await ask(proxy.port, request)).status == 200
    (seen,) = upstream.seen
    return seen


async def test_the_servers_own_headers_win_over_the_clients(proxy: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """In any case of letters, and however often the client sends them."""
    mine = ("authorization: Bearer client", "x-extra: 2", "X-EXTRA: 3", "X-Other: kept", "via: 1.0 theirs")
    seen = await _seen(proxy, upstream, post("/keyed/mcp", CALL, *mine))
    assert values(seen, "authorization") == ["Bearer operator"]
    assert (values(seen, "x-extra"), values(seen, "x-other"), values(seen, "via")) == (["1"], ["kept"], ["1.1 ours"])
    plain = await _seen(proxy, upstream, post("/up/mcp", CALL, *mine[:1]))
    assert values(plain, "authorization") == ["Bearer client"]


async def test_the_host_is_the_upstreams_unless_it_is_preserved(
    proxy: ProxyProcess, upstream: ScriptedUpstream
) -> None:
    """It comes first in either case."""
    rewritten = await _seen(proxy, upstream, post("/up/mcp", host="localhost:1234"))
    kept = await _seen(proxy, upstream, post("/preserve/mcp", host="localhost:1234"))
    assert fields_of(rewritten)[0] == ("Host", f"127.0.0.1:{PORT}")
    assert fields_of(kept)[0] == ("Host", "localhost:1234")
    assert len(values(kept, "host")) == 1


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/up/mcp", b"/mcp"),
        ("/up/mcp?a=1&b=%20c", b"/mcp?a=1&b=%20c"),
        ("/query/mcp", b"/mcp?key=1"),
        ("/query/mcp?key=2", b"/mcp?key=1"),
        ("/raw?x", b"/mcp?x"),
    ],
)
async def test_the_clients_query_goes_along_unless_the_url_has_one(
    proxy: ProxyProcess, upstream: ScriptedUpstream, target: str, sent: bytes
) -> None:
    """As it was written, and the path is the configured one."""
    assert (await _seen(proxy, upstream, post(target))).startswith(b"POST " + sent + b" HTTP/1.1\r\n")


FORGED = ("X-Forwarded-For: 6.6.6.6", "X-Forwarded-Host: evil", "X-Forwarded-User: root", "Forwarded: for=6.6.6.6",
          "X-Real-IP: 6.6.6.6", "Via: 1.0 client")  # fmt: skip


async def test_forwarding_fields_are_the_proxys_own(proxy: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """A client's are dropped; `forwarded: false` adds none."""
    seen = await _seen(proxy, upstream, post("/up/mcp", CALL, *FORGED, host="localhost:1"))
    bare = await _seen(proxy, upstream, post("/bare/mcp", CALL, *FORGED))
    ours = [
        pair for pair in fields_of(seen) if pair[0].lower().startswith(("x-forwarded", "via", "forwarded", "x-real"))
    ]
    assert ours == [("Via", "1.0 client"), ("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-Host", "localhost:1"),
                    ("X-Forwarded-Proto", "http"), ("Via", "1.1 mcp-manager")]  # fmt: skip
    assert not any(name.lower().startswith(("x-forwarded", "forwarded", "x-real")) for name, _ in fields_of(bare))
    assert values(bare, "via") == ["1.0 client"]
    assert (await ask(proxy.port, post("/up/mcp"))).fields["via"] == "1.1 mcp-manager"
    assert "via" not in (await ask(proxy.port, post("/bare/mcp"))).fields


async def test_hop_by_hop_fields_stop_here(proxy: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """Those of the list, and those that Connection names, in both directions."""
    upstream.script = answering(
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=60\r\n"
        b"Proxy-Authenticate: x\r\nTrailer: y\r\nX-End: 1\r\nContent-Length: 0\r\n\r\n"
    )
    request = post(
        "/up/mcp", CALL, "Connection: X-Mine", "X-Mine: 1", "TE: trailers", "Proxy-Authorization: x", "X-B: 1"
    )
    answered = await ask(proxy.port, request)
    (seen,) = upstream.seen
    names = {name.lower() for name, _ in fields_of(seen)}
    assert names.isdisjoint({"connection", "x-mine", "te", "proxy-authorization"})
    assert "x-b" in names
    assert set(answered.fields) == {"x-end", "content-length", "via", "x-request-id"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_never_followed(proxy: ProxyProcess, upstream: ScriptedUpstream, status: int) -> None:
    """To the same URL: passed on in our terms. To anywhere else: 502, and that place is not asked."""

    async def script(wire: Wire) -> None:
        while request := await wire.request():
            (place,) = values(request, "x-place")
            await wire.send(b"HTTP/1.1 %d X\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (status, place.encode()))

    upstream.script = script
    for place in ("/mcp?again=1", f"http://127.0.0.1:{PORT}/mcp?again=1"):
        same = await ask(proxy.port, post("/up/mcp", CALL, f"X-Place: {place}"))
        assert (same.status, same.fields["location"]) == (status, "/up/mcp?again=1")
    for place in ("/elsewhere", "http://169.254.169.254/latest", f"//127.0.0.1:{DEAD}/mcp"):
        other = await ask(proxy.port, post("/up/mcp", CALL, f"X-Place: {place}"))
        assert (other.status, other.reason) == (502, "upstream_failed")
        assert "location" not in other.fields
    assert len(upstream.seen) == 5


async def test_fields_that_speak_of_the_upstreams_origin_are_brought_to_ours(
    proxy: ProxyProcess, upstream: ScriptedUpstream
) -> None:
    """Cookies keep to the endpoint's path, Alt-Svc goes, a Location without a redirect passes."""
    upstream.script = answering(
        b"HTTP/1.1 201 Created\r\nSet-Cookie: a=1; Path=/; Domain=example.com; HttpOnly\r\n"
        b"set-cookie: __Host-b=2; Path=/\r\n"
        b'Alt-Svc: h3=":443"\r\nLocation: http://elsewhere.example/x\r\nWWW-Authenticate: Bearer realm="up"\r\n'
        b"Content-Length: 0\r\n\r\n"
    )
    answered = await ask(proxy.port, post())
    assert answered.status == 201
    assert answered.fields["set-cookie"] == "a=1; HttpOnly; Path=/up/mcp"
    assert answered.fields["location"] == "http://elsewhere.example/x"
    assert answered.fields["www-authenticate"] == 'Bearer realm="up"'
    assert "alt-svc" not in answered.fields


async def test_head_and_options_pass_without_bodies(proxy: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """A HEAD answer has a length and no body, and the connection stays usable."""

    async def script(wire: Wire) -> None:
        while request := await wire.request():
            head = b"200 OK\r\nContent-Length: 50" if request.startswith(b"HEAD") else b"204 No Content\r\nAllow: GET"
            await wire.send(b"HTTP/1.1 " + head + b"\r\n\r\n")

    upstream.script = script
    client = await RawClient.connect(proxy.port)
    for _ in range(2):
        await client.send(get("/up/mcp", method="HEAD"))
        assert b"Content-Length: 50\r\n" in await client.head()
    await client.send(get("/up/mcp", method="OPTIONS"))
    status, fields, _ = await client.answer()
    assert (status, fields["allow"]) == (204, "GET")
    assert [request.split()[0] for request in upstream.seen] == [b"HEAD", b"HEAD", b"OPTIONS"]
    assert upstream.connections == 1
    await client.close()


async def test_a_server_that_hangs_up_on_a_waiting_client_is_502(
    proxy: ProxyProcess, upstream: ScriptedUpstream
) -> None:
    """Also when it never reads the request."""

    async def script(wire: Wire) -> None:
        wire.reset()

    upstream.script = script
    answered = await ask(proxy.port, post())
    assert answered.status == 502
    assert answered.reason in ("upstream_failed", "connect_failed")  # the reset may come before the connection is ours
    assert not upstream.seen
