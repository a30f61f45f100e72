"""The two-endpoint transport of 2024-11-05 end to end: the endpoint event names our URL, and its POSTs arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.harness import (
    CALL,
    ProxyProcess,
    RawClient,
    ScriptedUpstream,
    Wire,
    free_port,
    running_proxy,
    scripted_upstream,
)
from tests.harness import post as request_of
from tests.integration.talk import SSE_HEAD, Answered, ask, chunk, event, get, soon, values

PORTS = {"a": free_port(), "b": free_port()}


@pytest.fixture(scope="module")
def proxy() -> Iterator[ProxyProcess]:
    """Two legacy servers, each at its own path and both behind one, and one server of the newer transport."""
    servers: dict[str, Any] = {
        name: {"url": f"http://127.0.0.1:{port}/sse", "transport": "sse"} for name, port in PORTS.items()
    }
    servers["new"] = {"url": f"http://127.0.0.1:{PORTS['a']}/mcp"}
    routes = [
        {"name": "pool", "path": "/pool/sse", "servers": ["a", "b"]},
        {"name": "raw", "path": "/raw/sse", "servers": ["a", "b"], "inspect": "none"},
        {"name": "mixed", "path": "/mixed", "servers": ["new", "a"], "strategy": "priority"},
    ]
    with running_proxy({"servers": servers, "routes": routes}) as process:
        yield process


class Legacy:
    """A server that names its endpoint on the stream, takes POSTs there, and refuses them anywhere else."""

    def __init__(self, name: str, upstream: ScriptedUpstream) -> None:
        self.name = name
        self.upstream = upstream
        self.endpoint = f"/messages/?session_id={name}-5f3c"
        self.left = asyncio.Event()
        upstream.script = self

    @property
    def lines(self) -> list[bytes]:
        """The request lines that came."""
        return [request.split(b" HTTP")[0] for request in self.upstream.seen]

    async def __call__(self, wire: Wire) -> None:
        while request := await wire.request():
            if request.startswith(b"GET"):
                await self._stream(wire)
            elif request.startswith(b"POST /sse"):
                await wire.send(b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Length: 2\r\n\r\nno")
            else:
                accepted = f"HTTP/1.1 202 Accepted\r\nX-Server: {self.name}\r\nContent-Length: 0\r\n\r\n"
                await wire.send(accepted.encode())

    async def _stream(self, wire: Wire) -> None:
        first = f"event: endpoint\r\ndata: {self.endpoint}\r\n\r\n".encode()
        await wire.send(SSE_HEAD + chunk(first[:20]))
        await asyncio.sleep(0.01)
        await wire.send(chunk(first[20:] + event(1)))
        try:
            await wire.reader.read(1)
        finally:
            self.left.set()


@pytest.fixture
async def servers(proxy: ProxyProcess) -> AsyncIterator[dict[str, Legacy]]:
    """Both servers."""
    async with scripted_upstream(port=PORTS["a"]) as a, scripted_upstream(port=PORTS["b"]) as b:
        yield {"a": Legacy("a", a), "b": Legacy("b", b)}


class Stream:
    """A client's open stream and the endpoint that it was told."""

    def __init__(self, client: RawClient, endpoint: str) -> None:
        self.client = client
        self.endpoint = endpoint

    @classmethod
    async def open(cls, proxy: ProxyProcess, path: str, *fields: str) -> Stream:
        client = await RawClient.connect(proxy.port)
        await client.send(get(path, "Accept: text/event-stream", *fields))
        assert b"200 OK" in await client.head()
        came = b""
        while not came.endswith(event(1)):
            came += await client.chunk()
        first, _, rest = came.partition(b"\r\n\r\n")
        assert rest == event(1)
        kind, _, told = first.partition(b"\r\ndata: ")
        assert kind == b"event: endpoint"
        return cls(client, told.decode())


async def post(proxy: ProxyProcess, target: str) -> Answered:
    """A call to an endpoint."""
    return await ask(proxy.port, request_of(target))


@pytest.mark.parametrize("path", ["/pool/sse", "/raw/sse"])
async def test_each_stream_gets_an_endpoint_that_leads_to_its_own_server(
    proxy: ProxyProcess, servers: dict[str, Legacy], path: str
) -> None:
    """Two streams on two servers behind one round robin; the POSTs reach the path and query that the server named."""
    streams = [await Stream.open(proxy, path), await Stream.open(proxy, path)]
    reached = []
    for stream in streams:
        assert stream.endpoint.startswith(f"{path}?session_id=v1.")
        assert "5f3c" not in stream.endpoint
        answers = [await post(proxy, stream.endpoint) for _ in range(3)]
        assert {each.status for each in answers} == {202}
        (name,) = {each.fields["x-server"] for each in answers}
        reached.append(name)
        assert servers[name].lines == [b"GET /sse", *[f"POST /messages/?session_id={name}-5f3c".encode()] * 3]
        assert servers[name].upstream.seen[-1].endswith(CALL)
    assert sorted(reached) == ["a", "b"]
    for stream, name in zip(streams, reached, strict=True):
        await stream.client.close()
        await soon(servers[name].left)


@pytest.mark.parametrize("path", ["/a/mcp", "/a/sse"])
@pytest.mark.parametrize(
    ("endpoint", "sent"),
    [
        ("/messages?sessionId=1&x=%20", b"POST /messages?sessionId=1&x=%20"),
        ("messages/7", b"POST /messages/7"),
        (f"http://127.0.0.1:{PORTS['a']}/abs?session_id=9", b"POST /abs?session_id=9"),
        ("?session_id=3", b"POST /sse?session_id=3"),
        ("/", b"POST /"),
    ],
)
async def test_every_form_of_endpoint_on_the_servers_origin_works(
    proxy: ProxyProcess, servers: dict[str, Legacy], path: str, endpoint: str, sent: bytes
) -> None:
    """Relative, absolute, with any query; on both built-in paths."""
    servers["a"].endpoint = endpoint
    stream = await Stream.open(proxy, path)
    assert stream.endpoint.startswith(f"{path}?session_id=v1.")
    await post(proxy, stream.endpoint)
    assert servers["a"].lines[-1] == sent
    await stream.client.close()


@pytest.mark.parametrize(
    "endpoint",
    [f"http://127.0.0.1:{PORTS['b']}/messages", "https://evil.example/m", "//evil.example/m", f"http://x@127.0.0.1:{PORTS['a']}/"],
)  # fmt: skip
async def test_an_endpoint_on_another_origin_is_never_told(
    proxy: ProxyProcess, servers: dict[str, Legacy], endpoint: str
) -> None:
    """The stream ends before anything of it reached the client, and never looks complete."""
    servers["a"].endpoint = endpoint
    client = await RawClient.connect(proxy.port)
    await client.send(get("/a/sse", "Accept: text/event-stream"))
    try:
        answered = Answered(*await client.answer())
        assert (answered.status, answered.reason) == (502, "upstream_failed")
    except (ConnectionError, asyncio.IncompleteReadError) as cut:
        assert not getattr(cut, "partial", b"")
    await soon(servers["a"].left)
    await client.close()


async def test_an_endpoint_that_was_not_sealed_here_is_404(proxy: ProxyProcess, servers: dict[str, Legacy]) -> None:
    """Forged, changed, extended, the server's own, or of another path."""
    stream = await Stream.open(proxy, "/pool/sse")
    good = stream.endpoint
    _, _, seal = good.partition("=")
    before = sum(len(server.lines) for server in servers.values())
    bad = ["/pool/sse?session_id=a-5f3c", "/pool/sse?session_id=", good[:-1], good + "A", good + "&x=1",
           f"/pool/sse?x=1&session_id={seal}", f"/a/sse?session_id={seal}", f"/raw/sse?session_id={seal}"]  # fmt: skip
    for target in bad:
        answered = await post(proxy, target)
        assert (answered.status, answered.reason) == (404, "session_gone"), target
    as_header = await ask(proxy.port, request_of("/pool/sse", CALL, f"Mcp-Session-Id: {seal}"))
    assert as_header.reason == "session_gone"
    assert sum(len(server.lines) for server in servers.values()) == before
    assert (await post(proxy, good)).status == 202
    await stream.client.close()


async def test_a_post_to_the_streams_own_url_gets_the_servers_refusal(
    proxy: ProxyProcess, servers: dict[str, Legacy]
) -> None:
    """405 is how newer clients learn that a server speaks the old transport."""
    answered = await post(proxy, "/a/mcp")
    assert (answered.status, answered.body, answered.fields["allow"]) == (405, b"no", "GET")
    assert servers["a"].lines == [b"POST /sse"]


async def test_the_stream_is_asked_for_without_coding(proxy: ProxyProcess, servers: dict[str, Legacy]) -> None:
    """It has to be read; a client that names no coding gets none either way."""
    stream = await Stream.open(proxy, "/a/sse", "Accept-Encoding: gzip, br", "Last-Event-ID: 7")
    other = await Stream.open(proxy, "/a/sse")
    with_coding, without = servers["a"].upstream.seen
    assert values(with_coding, "accept-encoding") == ["identity"]
    assert values(with_coding, "last-event-id") == ["7"]
    assert values(without, "accept-encoding") == []
    await stream.client.close()
    await other.client.close()


async def test_a_server_of_the_newer_transport_is_left_alone(proxy: ProxyProcess, servers: dict[str, Legacy]) -> None:
    """Its stream may begin with any event, and its query is the client's."""
    client = await RawClient.connect(proxy.port)
    await client.send(get("/new/mcp?session_id=mine"))
    await client.head()
    told = b"event: endpoint\r\ndata: /messages/?session_id=a-5f3c\r\n\r\n"
    came = b""
    while len(came) < len(told + event(1)):
        came += await client.chunk()
    assert came == told + event(1)
    assert servers["a"].lines == [b"GET /mcp?session_id=mine"]
    await client.close()
