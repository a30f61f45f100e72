"""Sealed sessions end to end: two stateful servers, each of which knows its own sessions only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import (
    RESULT,
    ProxyProcess,
    ScriptedUpstream,
    Wire,
    free_port,
    post,
    running_proxy,
    scripted_upstream,
)
from tests.integration.talk import SSE_HEAD, Answered, ask, chunk, event, get, values

PORTS = {"a": free_port(), "b": free_port()}
INITIALIZE = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},'
    b'"clientInfo":{"name":"t","version":"1"}}}'
)
MODERN = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{},"_meta":{'
    b'"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t",'
    b'"version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}'
)
MODERN_FIELDS = ("MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call", "Mcp-Name: echo")


def configuration(state_dir: Path, *names: str, **keys: Any) -> dict[str, Any]:
    """Two servers behind one path, each at its own, and one whose ids are shown as they are."""
    names = names or ("a", "b")
    routes: list[dict[str, Any]] = [
        {"name": "pool", "path": "/pool", "servers": list(names)},
        {"name": "other", "path": "/other", "servers": list(names)},
        {"name": "bare", "path": "/bare", "servers": "a", "sessions": "passthrough"},
        {"name": "streamed", "path": "/streamed", "servers": list(names), "inspect": "none"},
    ]
    servers = {name: {"url": f"http://127.0.0.1:{PORTS[name]}/mcp"} for name in names}
    return {"servers": servers, "routes": routes, "state_dir": str(state_dir), **keys}


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the key is kept."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def proxy(state_dir: Path) -> Iterator[ProxyProcess]:
    """The proxy of most tests."""
    with running_proxy(configuration(state_dir)) as process:
        yield process


class Stateful:
    """A server that mints ids with `initialize`, and answers 404 to ids it does not know."""

    def __init__(self, name: str, upstream: ScriptedUpstream) -> None:
        self.name = name
        self.upstream = upstream
        self.known: set[str] = set()
        self.status = b"200 OK"
        upstream.script = self

    @property
    def asked(self) -> list[tuple[str, str]]:
        """Method and session id of each request that came."""
        return [
            (request.split(b" ")[0].decode(), ", ".join(values(request, "mcp-session-id")))
            for request in self.upstream.seen
        ]

    async def __call__(self, wire: Wire) -> None:
        while request := await wire.request():
            await self._answer(wire, request)

    async def _answer(self, wire: Wire, request: bytes) -> None:
        field = b"X-Server: %b\r\n" % self.name.encode()
        session = "".join(values(request, "mcp-session-id"))
        if b'"initialize"' in request and not session:
            session = f"{self.name}-{len(self.known)}"
            self.known.add(session)
            field += b"Mcp-Session-Id: %b\r\n" % session.encode()
        elif session and session not in self.known:
            await wire.send(b"HTTP/1.1 404 Not Found\r\n" + field + b"Content-Length: 4\r\n\r\nlost")
            return
        if request.startswith(b"GET"):
            await wire.send(SSE_HEAD + chunk(event(1)) + b"0\r\n\r\n")
            return
        await wire.send(b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (self.status, field, len(RESULT), RESULT))


@contextlib.asynccontextmanager
async def stateful_pair() -> AsyncIterator[dict[str, Stateful]]:
    """Both servers."""
    async with scripted_upstream(port=PORTS["a"]) as a, scripted_upstream(port=PORTS["b"]) as b:
        yield {"a": Stateful("a", a), "b": Stateful("b", b)}


@pytest.fixture
async def servers(proxy: ProxyProcess) -> AsyncIterator[dict[str, Stateful]]:
    """Both servers, for a test that uses the common proxy."""
    async with stateful_pair() as pair:
        yield pair


async def begin(port: int, path: str = "/pool") -> Answered:
    """Initialize a session."""
    answered = await ask(port, post(path, INITIALIZE))
    assert answered.status == 200
    return answered


async def call(port: int, session: str, path: str = "/pool", *fields: str) -> Answered:
    """A call in a session."""
    return await ask(port, post(path, post().partition(b"\r\n\r\n")[2], f"Mcp-Session-Id: {session}", *fields))


def sealed(answered: Answered) -> str:
    """The id that the client sees."""
    return answered.fields["mcp-session-id"]


async def test_a_session_stays_on_the_server_where_it_began(proxy: ProxyProcess, servers: dict[str, Stateful]) -> None:
    """POST, GET and DELETE, for two sessions on two servers behind one round robin."""
    for answered in (await begin(proxy.port), await begin(proxy.port)):
        mine = servers[answered.fields["x-server"]]
        (own_id,) = mine.known
        client_id = sealed(answered)
        assert client_id.startswith("v1.")
        assert own_id not in client_id
        for _ in range(4):
            assert (await call(proxy.port, client_id)).fields["x-server"] == mine.name
        field = f"Mcp-Session-Id: {client_id}"
        stream = await ask(proxy.port, get("/pool", field, "Accept: text/event-stream"))
        ended = await ask(proxy.port, get("/pool", field, method="DELETE"))
        assert (stream.body, ended.status) == (event(1), 200)
        assert mine.asked == [("POST", ""), *[("POST", own_id)] * 4, ("GET", own_id), ("DELETE", own_id)]
    assert {len(server.known) for server in servers.values()} == {1}


async def test_an_id_that_the_proxy_did_not_make_for_this_url_is_404(
    proxy: ProxyProcess, servers: dict[str, Stateful]
) -> None:
    """Forged, cut, changed in any character, of another path or host, or the server's own: no server is asked."""
    good = sealed(await begin(proxy.port))
    changed = [good[:at] + ("A" if good[at] != "A" else "B") + good[at + 1 :] for at in range(0, len(good), 7)]
    bad = ["x", "v1.", "v1.AAAA", "a-0", good[:-1], good[:-4], good + "AAAA", good.upper(), *changed]
    before = sum(len(server.upstream.seen) for server in servers.values())
    answers = await asyncio.gather(*[call(proxy.port, each) for each in bad])
    answers.append(await call(proxy.port, good, "/other"))
    answers.append(await ask(proxy.port, post("/pool", INITIALIZE, f"Mcp-Session-Id: {good}", host="localhost")))
    assert {(each.status, each.reason) for each in answers} == {(404, "session_gone")}
    assert len({each.body for each in answers}) == 1
    assert sum(len(server.upstream.seen) for server in servers.values()) == before
    assert (await call(proxy.port, good)).status == 200


async def test_a_404_of_the_server_is_the_servers(proxy: ProxyProcess, servers: dict[str, Stateful]) -> None:
    """A session that the server has forgotten: its own answer passes."""
    answered = await begin(proxy.port)
    servers[answered.fields["x-server"]].known.clear()
    lost = await call(proxy.port, sealed(answered))
    assert (lost.status, lost.body, lost.reason) == (404, b"lost", "")


@pytest.mark.parametrize(
    "status", [b"400 Bad Request", b"401 Unauthorized", b"302 Found", b"500 Internal Server Error"]
)
async def test_only_success_begins_a_session(proxy: ProxyProcess, servers: dict[str, Stateful], status: bytes) -> None:
    """An id on another answer is dropped."""
    for server in servers.values():
        server.status = status
    answered = await ask(proxy.port, post("/pool", INITIALIZE))
    assert answered.status == int(status[:3])
    assert "mcp-session-id" not in answered.fields


async def test_a_passthrough_route_shows_the_servers_own_ids(proxy: ProxyProcess, servers: dict[str, Stateful]) -> None:
    """And forwards whatever the client says."""
    answered = await begin(proxy.port, "/bare")
    assert sealed(answered) == "a-0"
    assert (await call(proxy.port, "a-0", "/bare")).status == 200
    assert (await call(proxy.port, "nonsense", "/bare")).body == b"lost"


async def test_a_route_that_inspects_nothing_seals_all_the_same(
    proxy: ProxyProcess, servers: dict[str, Stateful]
) -> None:
    """Sessions are in the header, which is read everywhere."""
    answered = await begin(proxy.port, "/streamed")
    assert sealed(answered).startswith("v1.")
    for _ in range(3):
        again = await call(proxy.port, sealed(answered), "/streamed")
        assert (again.status, again.fields["x-server"]) == (200, answered.fields["x-server"])
    assert (await call(proxy.port, "forged", "/streamed")).reason == "session_gone"


async def test_modern_requests_have_no_sessions(proxy: ProxyProcess, servers: dict[str, Stateful]) -> None:
    """The field is forwarded as it is, and binds nothing."""
    good = sealed(await begin(proxy.port))
    servers["a"].known |= {good, "anything"}
    servers["b"].known |= {good, "anything"}
    names = []
    for text in ("anything", "anything", good, good):
        answered = await ask(proxy.port, post("/pool", MODERN, *MODERN_FIELDS, f"Mcp-Session-Id: {text}"))
        assert answered.status == 200
        names.append(answered.fields["x-server"])
    assert set(names) == {"a", "b"}
    assert [("POST", good) in server.asked for server in servers.values()] == [True, True]


async def test_sessions_survive_a_restart_and_are_known_to_every_replica(state_dir: Path, proxy: ProxyProcess) -> None:
    """All that is needed is the key, which is in `state_dir`."""
    async with stateful_pair():
        first = await begin(proxy.port)
        with running_proxy(configuration(state_dir)) as replica:
            assert (await call(replica.port, sealed(first))).fields["x-server"] == first.fields["x-server"]
            second = await begin(replica.port)
        assert (await call(proxy.port, sealed(second))).fields["x-server"] == second.fields["x-server"]
        with running_proxy(configuration(state_dir)) as restarted:
            assert (await call(restarted.port, sealed(second))).status == 200
    assert (state_dir / "session.key").stat().st_mode & 0o077 == 0


async def test_reloads_rotate_keys_and_remove_servers(tmp_path: Path) -> None:
    """A new first key ends no session, an old key that goes ends its own; a server that goes takes its sessions."""
    old, new = "an old secret for sessions", "a new secret for sessions"

    def keyed(*keys: str, **more: Any) -> dict[str, Any]:
        return configuration(tmp_path, sessions={"keys": list(keys), **more})

    with running_proxy(keyed(old)) as proxy:
        async with stateful_pair():
            before = sealed(await begin(proxy.port))
            assert proxy.reload(keyed(new, old))["event"] == "configuration in force"
            answers = [await begin(proxy.port), await begin(proxy.port)]
            assert (await call(proxy.port, before)).status == 200
            proxy.reload(keyed(new))
            assert (await call(proxy.port, before)).reason == "session_gone"
            assert [(await call(proxy.port, sealed(each))).status for each in answers] == [200, 200]

            proxy.reload(configuration(tmp_path, "a", sessions={"keys": [new]}))
            outcome = {each.fields["x-server"]: await call(proxy.port, sealed(each)) for each in answers}
            assert outcome["a"].status == 200
            assert (outcome["b"].status, outcome["b"].reason) == (404, "session_gone")

            proxy.reload(keyed(new, ttl="4s"))
            brief = sealed(await begin(proxy.port))
            assert (await call(proxy.port, brief)).status == 200
            await asyncio.sleep(4.1)
            assert (await call(proxy.port, brief)).reason == "session_gone"


async def test_a_session_whose_server_refuses_connections_is_404(proxy: ProxyProcess) -> None:
    """The client starts again, on a server that lives; 502 would make it give up."""
    async with scripted_upstream(port=PORTS["a"]) as a:
        Stateful("a", a)
        async with scripted_upstream(port=PORTS["b"]) as b:
            Stateful("b", b)
            answers = {each.fields["x-server"]: each for each in (await begin(proxy.port), await begin(proxy.port))}
        lost = await call(proxy.port, sealed(answers["b"]))
        assert (lost.status, lost.reason) == (404, "session_gone")
        assert (await begin(proxy.port)).fields["x-server"] == "a"
        assert (await call(proxy.port, sealed(answers["a"]))).status == 200
