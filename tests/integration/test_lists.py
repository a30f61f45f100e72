"""Lists over real sockets: each client sees what it may use, the proxy learns what there is; a revoked credential loses
its streams.
"""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import orjson
import pytest

from proxy.app import App
from proxy.background.learning import Learning
from proxy.identity.records import SYSTEM_TENANT, AccessRule
from tests.harness import PATIENCE_S, RawClient, ScriptedUpstream, Wire, json_answer, post, scripted_upstream
from tests.inprocess import running_app
from tests.integration.talk import SSE_HEAD, Answered, ask, chunk, get
from tests.unit.dataplane.admitted import admitting
from tests.unit.identity.rows import KEY, MINTED, MOMENT, ROWS, TOKEN_TEXT
from tests.unit.store.engine import execute, login_dsn, migrated_database, owner_dsn

ASK = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
OPEN = {"name": "open", "annotations": {"readOnlyHint": True}}
SECRET = {"name": "secret", "description": "for others"}
WS_KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
#: Who is limited by the rule, and who is not.
LIMITED, FREE = f"X-API-Key: {MINTED.text}", f"Authorization: Bearer {TOKEN_TEXT}"
RULE = AccessRule("r1", SYSTEM_TENANT, "deny", subject_type="api_key", subject_id=KEY.id, tools=("secret",))


def answer(*tools: Any, **result: Any) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools, **result}})


def event(body: bytes, number: int = 1) -> bytes:
    return b"id: %d\nevent: message\ndata: %b\n\n" % (number, body)


class Bench(NamedTuple):
    """A proxy in front of one scripted upstream, reached at /f (filtered), /p (not) and /s (legacy SSE, filtered)."""

    app: App
    port: int
    upstream: ScriptedUpstream

    @property
    def learning(self) -> Learning:
        learning = self.app._backend._learning
        assert learning is not None
        return learning

    async def list(self, path: str, who: str, body: bytes = ASK) -> Answered:
        return await ask(self.port, post(path, body, who))

    @asynccontextmanager
    async def stream(self, request: bytes) -> AsyncIterator[RawClient]:
        """A client that has the head of an event stream."""
        client = await RawClient.connect(self.port)
        try:
            await client.send(request)
            head = await client.head()
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"content-length" not in head.lower()
            yield client
        finally:
            await client.close()


def config_of(upstream: ScriptedUpstream) -> dict[str, Any]:
    return {
        "servers": {
            "up": {"url": upstream.url},
            "legacy": {"url": f"http://127.0.0.1:{upstream.port}/sse", "transport": "sse"},
            "ws": {"url": f"ws://127.0.0.1:{upstream.port}/ws", "transport": "websocket"},
        },
        "routes": [
            {"name": "filtered", "path": "/f", "servers": "up", "filter_lists": True},
            {"name": "plain", "path": "/p", "servers": "up"},
            {"name": "legacy", "path": "/s", "servers": "legacy", "filter_lists": True},
        ],
    }


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Its rules and credentials are in memory, as they are when they were read from the database."""
    async with scripted_upstream() as upstream, running_app(config_of(upstream)) as (app, port):
        app.live.admission = admitting(*ROWS, RULE)
        yield Bench(app, port, upstream)


def answering(body: bytes, *fields: str, content_type: str = "application/json") -> Any:
    """A script that gives one answer to everything, each on a connection of its own."""
    head = "".join(f"{field}\r\n" for field in (f"Content-Type: {content_type}", "Connection: close", *fields))

    async def script(wire: Wire) -> None:
        if await wire.request():
            await wire.send(f"HTTP/1.1 200 OK\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    return script


# --- filtered -------------------------------------------------------------------------------------------------------


async def test_each_client_sees_what_it_may_use(bench: Bench) -> None:
    """One of them without the tool that a rule denies it; a route that does not filter shows everything."""
    whole = answer(OPEN, SECRET)
    bench.upstream.script = answering(whole, 'ETag: "1"')
    limited = await bench.list("/f", LIMITED)
    assert (limited.status, limited.body) == (200, answer(OPEN))
    assert limited.fields["content-length"] == str(len(limited.body))
    assert "etag" not in limited.fields
    for path, who in (("/f", FREE), ("/p", LIMITED), ("/p", FREE)):
        passed = await bench.list(path, who)
        assert (passed.body, passed.fields["etag"]) == (whole, '"1"')


async def test_a_modern_list_is_for_one_client_from_then_on(bench: Bench) -> None:
    """Nobody may keep it for others."""
    bench.upstream.script = answering(answer(OPEN, SECRET, resultType="complete", ttlMs=60_000, cacheScope="public"))
    limited = await bench.list("/f", LIMITED)
    result = orjson.loads(limited.body)["result"]
    assert result == {"tools": [OPEN], "resultType": "complete", "ttlMs": 60_000, "cacheScope": "private"}


async def test_a_connection_goes_on_after_a_filtered_list(bench: Bench) -> None:
    """And after one that could not be filtered, of which nothing was sent."""
    client = await RawClient.connect(bench.port)
    bodies = [answer(OPEN, SECRET), b"{", answer(SECRET)]

    async def script(wire: Wire) -> None:
        while await wire.request():
            await wire.send(json_answer(bodies.pop(0)))

    bench.upstream.script = script
    got = []
    for _ in range(3):
        await client.send(post("/f", ASK, LIMITED))
        got.append(await client.answer())
    await client.close()
    assert [status for status, _, _ in got] == [200, 502, 200]
    assert (got[0][2], got[2][2]) == (answer(OPEN), answer())
    assert b"secret" not in b"".join(body for _, _, body in got)


async def test_an_answer_with_a_coding_never_passes(bench: Bench) -> None:
    """Neither as JSON nor as events; elsewhere it does, byte for byte."""
    for body, content_type in ((answer(SECRET), "application/json"), (event(answer(SECRET)), "text/event-stream")):
        packed = gzip.compress(body)
        bench.upstream.script = answering(packed, "Content-Encoding: gzip", content_type=content_type)
        refused = await bench.list("/f", LIMITED)
        assert (refused.status, refused.reason) == (502, "upstream_failed")
        assert (await bench.list("/p", LIMITED)).body == packed


async def test_an_answer_in_events_is_filtered_as_it_comes(bench: Bench) -> None:
    """Each event is at the client before the next is sent; cut anywhere, it stays in one piece."""
    step = asyncio.Event()
    pieces = [
        b": hello\n\n",
        event(answer(OPEN, SECRET))[:50],
        event(answer(OPEN, SECRET))[50:] + event(answer(SECRET), 2),
    ]

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(SSE_HEAD)
        for piece in pieces:
            await wire.send(chunk(piece))
            await step.wait()
            step.clear()
        await wire.send(b"0\r\n\r\n")

    bench.upstream.script = script
    async with bench.stream(post("/f", ASK, LIMITED)) as client:
        assert await client.chunk() == b": hello\n\n"
        step.set()
        while step.is_set():  # the upstream has taken it
            await asyncio.sleep(0.001)
        step.set()
        got = await client.chunk()
        while len(got) < len(event(answer(OPEN)) + event(answer(), 2)):
            got += await client.chunk()
        assert got == event(answer(OPEN)) + event(answer(), 2)
        step.set()
        assert await client.chunk() == b""


@pytest.mark.parametrize("path", ["/f", "/s"])
async def test_a_stream_that_brings_answers_to_other_requests_is_filtered(bench: Bench, path: str) -> None:
    """One that is taken up again, and that of legacy SSE, on which all answers come."""
    legacy = path == "/s"

    async def script(wire: Wire) -> None:
        request = await wire.request()
        assert legacy or b"Last-Event-ID: 7\r\n" in request
        await wire.send(SSE_HEAD + (chunk(b"event: endpoint\ndata: /messages?id=1\n\n") if legacy else b""))
        await wire.send(chunk(event(answer(OPEN, SECRET), 8)))
        await wire.reader.read(1)

    bench.upstream.script = script
    async with bench.stream(get(path, LIMITED, "Accept: text/event-stream", "Last-Event-ID: 7")) as client:
        got = await client.chunk()
        while len(got.split(b"\n\n")) < 2 + legacy:
            got += await client.chunk()
    assert got.endswith(event(answer(OPEN), 8))
    assert b"secret" not in got
    assert got.startswith(b"event: endpoint\ndata: /s?session_id=") == legacy


# --- learned --------------------------------------------------------------------------------------------------------


async def test_what_passes_is_learned_as_the_server_said_it(bench: Bench) -> None:
    """Filtered or not, as JSON, compressed, or as events."""
    whole = answer(OPEN, SECRET)
    catalogue, lessons = bench.app._backend.catalogue, bench.app._backend.lessons
    forms = [
        ("/f", LIMITED, answering(whole)),
        ("/p", FREE, answering(gzip.compress(whole), "Content-Encoding: gzip")),
        ("/p", FREE, answering(event(whole), content_type="text/event-stream")),
        ("/f", LIMITED, answering(event(whole), content_type="text/event-stream")),
    ]
    for number, (path, who, script) in enumerate(forms):
        bench.upstream.script = script
        request = ASK.replace(b'"id":1', b'"id":1,"params":{"n":%d}' % number)
        assert (await bench.list(path, who, request)).status == 200
        await bench.learning.learn()
        for name, read_only in (("open", True), ("secret", None)):
            item = catalogue.tool("up", name)
            assert item is not None
            assert item.hints.read_only is read_only
        catalogue.learn("up", bench.app.live.snapshot.upstreams["legacy"].place, [], 0.0)  # forget it
    assert (lessons.skipped, bench.learning.unreadable) == (0, 0)


# --- revoked --------------------------------------------------------------------------------------------------------


async def test_a_revoked_credential_loses_its_streams(bench: Bench) -> None:
    """By reset, within a moment; those of others go on; the upstream learns of it."""
    left: list[bytes] = []

    async def script(wire: Wire) -> None:
        request = await wire.request()
        await wire.send(SSE_HEAD + chunk(event(answer(OPEN))))
        try:
            while not await wire.reader.read(1):
                break
            await wire.send(chunk(b": more\n\n"))
        finally:
            left.append(request)

    bench.upstream.script = script
    app = bench.app
    async with (
        bench.stream(get("/p", LIMITED)) as mine,
        bench.stream(post("/p", ASK, LIMITED)) as calls,
        bench.stream(get("/p", FREE)) as others,
    ):
        for client in (mine, calls, others):
            await client.chunk()
        assert app._streams.open_of_tenant("t1") == 3
        app._cut_revoked()
        assert len(app._streams) == 3
        revoked = [replace(row, revoked_at=MOMENT) if row is KEY else row for row in ROWS]
        app.live.admission = admitting(*revoked, RULE)
        began = time.monotonic()
        app._cut_revoked()
        for client in (mine, calls):
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await client.chunk()
        assert time.monotonic() - began < 5
        while len(left) < 2:
            await asyncio.sleep(0.001)
        assert (len(app._streams), app._streams.open_of_tenant("t1")) == (1, 1)
        assert not others.reader.at_eof()
    _, text = app.metrics.exposition("")
    revoked_lines = [line for line in text.decode().splitlines() if 'outcome="revoked"' in line]
    assert sum(float(line.rsplit(" ", 1)[1]) for line in revoked_lines) == 2


async def test_a_revoked_credential_loses_its_tunnels(bench: Bench) -> None:
    """Whatever is under way in them."""
    left = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
        try:
            await wire.reader.read()
        finally:
            left.set()

    bench.upstream.script = script
    handshake = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {WS_KEY}",
    )
    client = await RawClient.connect(bench.port)
    await client.send(get("/ws/mcp", LIMITED, *handshake))
    assert (await client.head()).startswith(b"HTTP/1.1 101 ")
    assert await client.reader.readexactly(5) == b"hello"
    assert bench.app._streams.open_of_tenant("t1") == 1
    bench.app.live.admission = admitting(*[row for row in ROWS if row is not KEY])
    bench.app._cut_revoked()
    assert await client.at_end()
    async with asyncio.timeout(PATIENCE_S):
        await left.wait()
    assert len(bench.app._streams) == 0
    await client.close()


# --- with a database ------------------------------------------------------------------------------------------------

ACME = "11111111-1111-1111-1111-111111111111"
SETTINGS: dict[str, Any] = {"auth": {"peppers": {1: "a pepper of sixteen or more"}, "anonymous": False}}
KEY_ROW = "INSERT INTO enhanced_api_keys (id, tenant_id, name, scopes, secret_hmac) VALUES ($1, $2, 'k', $3, $4)"
RULE_ROW = """INSERT INTO server_access_control (tenant_id, subject_type, subject_id, effect, tools)
    VALUES ($1, 'api_key', $2, 'deny', '{secret}')"""


async def becomes(name: str, statement: str, wanted: tuple[Any, ...]) -> None:
    """Fail unless the loops of the process make the first row this one."""
    until = time.monotonic() + PATIENCE_S
    while (found := tuple((await execute(owner_dsn(name), statement))[0])) != wanted:
        assert time.monotonic() < until, found
        await asyncio.sleep(0.05)


async def test_from_the_database_and_back() -> None:
    """A key and its rule come from PostgreSQL, what was learned and counted goes there, and a key that is revoked there
    loses its stream."""
    async with migrated_database() as name, scripted_upstream() as upstream:
        await execute(owner_dsn(name), "INSERT INTO tenants (id, slug, name) VALUES ($1, 'acme', 'A')", ACME)
        await execute(owner_dsn(name), KEY_ROW, MINTED.id, ACME, ["proxy", "read", "write"], MINTED.secret_hmac)
        await execute(owner_dsn(name), RULE_ROW, ACME, MINTED.id)
        config = config_of(upstream) | SETTINGS | {"postgres": {"dsn": login_dsn(name)}}
        async with running_app(config) as (app, port):
            bench = Bench(app, port, upstream)
            async with asyncio.timeout(PATIENCE_S):
                while not app.live.snapshot.upstreams["up"].place.id:
                    await asyncio.sleep(0.02)
            upstream.script = answering(answer(OPEN, SECRET))
            assert (await bench.list("/f", LIMITED)).body == answer(OPEN)
            await becomes(name, "SELECT count(*) FROM server_tools", (2,))
            for tool, status in (("open", 200), ("secret", 403), ("unheard of", 200)):
                call = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"%b"}}' % tool.encode()
                assert (await bench.list("/f", LIMITED, call)).status == status
            tools = "SELECT array_agg((name, is_available, usage_count)::text ORDER BY name) FROM server_tools"
            await becomes(name, tools, (["(open,t,1)", "(secret,t,0)"],))
            used = (
                "SELECT usage_count, host(last_used_ip), last_used_at > now() - interval '1 min' FROM enhanced_api_keys"
            )
            await becomes(name, used, (4, "127.0.0.1", True))
            upstream.script = holding
            async with bench.stream(get("/f", LIMITED)) as client:
                assert await client.chunk() == b": here\n\n"
                await execute(owner_dsn(name), "UPDATE enhanced_api_keys SET revoked_at = now()")
                began = time.monotonic()
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await client.chunk()
                assert time.monotonic() - began < 5
            assert (await bench.list("/f", LIMITED)).status == 401


async def holding(wire: Wire) -> None:
    """An event stream on which nothing happens."""
    await wire.request()
    await wire.send(SSE_HEAD + chunk(b": here\n\n"))
    await wire.reader.read(1)
