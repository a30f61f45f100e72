"""Routing through the real process: each kind of condition, batches, shares, and what sticks to one server."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from proxy.identity.keys import PepperRing, mint
from proxy.identity.records import SYSTEM_TENANT
from tests.harness import (
    CALL,
    PATIENCE_S,
    ProxyProcess,
    Wire,
    free_port,
    json_answer,
    post,
    running_proxy,
    scripted_upstream,
)
from tests.integration.talk import Answered, ask, get
from tests.unit.store.engine import execute, login_dsn, migrated_database, owner_dsn

NAMES = ("a", "b", "c")
PORTS = {name: free_port() for name in NAMES}
NOW = datetime.now(UTC)
#: Windows around now and far from it; the tests take much less than the hour on either side.
OPEN = f"{NOW - timedelta(hours=1):%H:%M}-{NOW + timedelta(hours=1):%H:%M}"
SHUT = f"{NOW + timedelta(hours=3):%H:%M}-{NOW + timedelta(hours=5):%H:%M}"

CONDITIONS: dict[str, dict[str, Any]] = {
    "host": {"host": "localhost"},
    "method": {"method": ["tools/list", "ping"]},
    "tool": {"tool": ["echo", "search_*"]},
    "prompt": {"prompt": "greet*"},
    "resource": {"resource": "file:///*"},
    "protocol": {"protocol": ">=2025-06-18"},
    "header": {"header": {"X-Env": ["staging", "test"]}},
    "near": {"client_ip": "127.0.0.0/8"},
    "far": {"client_ip": "10.0.0.0/8"},
    "open": {"between": OPEN},
    "shut": {"between": SHUT},
    "anyone": {"tier": ["anonymous", "user"], "scope": "read"},
    "admin": {"scope": "admin"},
    "acme": {"tenant": ["acme", "system"]},
    "keyed": {"key": "0123456789aB"},
    "always": {"percent": 100},
    "never": {"percent": 0},
    "both": {"tool": "echo", "header": {"X-Env": "test"}},
    "chance": {"percent": 50},
}


@pytest.fixture(scope="module")
def proxy() -> Iterator[ProxyProcess]:
    """For each condition a path that leads to `b` where it holds, and to `a` where not; and pools of all three."""
    routes: list[dict[str, Any]] = []
    for name, when in CONDITIONS.items():
        routes.append({"name": f"{name}-yes", "path": f"/{name}", "servers": "b", "when": when})
        routes.append({"name": f"{name}-no", "path": f"/{name}", "servers": "a"})
    weights = [{"name": name, "weight": weight} for name, weight in zip(NAMES, (5, 1, 2), strict=True)]
    routes += [
        {"name": "weighted", "path": "/weighted", "servers": weights, "strategy": "weighted"},
        {
            "name": "by-header",
            "path": "/by-header",
            "servers": list(NAMES),
            "affinity": {"by": "header", "header": "X-User"},
        },
        {"name": "by-task", "path": "/by-task", "servers": list(NAMES), "affinity": {"by": "task"}},
        {"name": "hash", "path": "/hash", "servers": list(NAMES), "strategy": "consistent_hash"},
        {"name": "late", "path": "/first", "servers": "b"},
        {"name": "early", "path": "/first", "servers": "c", "priority": 5, "when": {"tool": "echo"}},
        {"name": "below", "path": "/team/*", "servers": "c"},
    ]
    servers = {name: {"url": f"http://127.0.0.1:{port}/mcp"} for name, port in PORTS.items()}
    with running_proxy({"servers": servers, "routes": routes}) as process:
        yield process


@pytest.fixture(autouse=True)
async def _servers(proxy: ProxyProcess) -> AsyncIterator[None]:
    def naming(name: str) -> Any:
        async def script(wire: Wire) -> None:
            while await wire.request():
                await wire.send(json_answer(name.encode()))

        return script

    async with (
        scripted_upstream(naming("a"), PORTS["a"]),
        scripted_upstream(naming("b"), PORTS["b"]),
        scripted_upstream(naming("c"), PORTS["c"]),
    ):
        yield


def message(method: str, **params: Any) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


def batch(*messages: bytes) -> bytes:
    return b"[" + b",".join(messages) + b"]"


ECHO = message("tools/call", name="echo", arguments={})
SEARCH = message("tools/call", name="search_web", arguments={})
OTHER = message("tools/call", name="other", arguments={})
LIST = message("tools/list")


@pytest.mark.parametrize(
    ("path", "body", "fields", "server"),
    [
        ("/method", LIST, (), b"b"),
        ("/method", ECHO, (), b"a"),
        ("/tool", ECHO, (), b"b"),
        ("/tool", SEARCH, (), b"b"),
        ("/tool", OTHER, (), b"a"),
        ("/tool", LIST, (), b"a"),
        ("/prompt", message("prompts/get", name="greeting"), (), b"b"),
        ("/prompt", message("prompts/get", name="farewell"), (), b"a"),
        ("/resource", message("resources/read", uri="file:///x"), (), b"b"),
        ("/resource", message("resources/read", uri="http://x/"), (), b"a"),
        ("/protocol", ECHO, ("MCP-Protocol-Version: 2025-11-25",), b"b"),
        ("/protocol", ECHO, ("MCP-Protocol-Version: 2025-03-26",), b"a"),
        ("/header", ECHO, ("x-env: test",), b"b"),
        ("/header", ECHO, ("X-Env: Test",), b"a"),
        ("/header", ECHO, (), b"a"),
        ("/near", ECHO, (), b"b"),
        ("/far", ECHO, ("X-Forwarded-For: 10.1.1.1",), b"a"),
        ("/open", ECHO, (), b"b"),
        ("/shut", ECHO, (), b"a"),
        ("/anyone", ECHO, (), b"b"),
        ("/admin", ECHO, (), b"a"),
        ("/acme", ECHO, (), b"a"),
        ("/keyed", ECHO, (), b"a"),
        ("/always", ECHO, (), b"b"),
        ("/never", ECHO, (), b"a"),
        ("/both", ECHO, ("X-Env: test",), b"b"),
        ("/both", ECHO, (), b"a"),
        ("/both", OTHER, ("X-Env: test",), b"a"),
        ("/first", ECHO, (), b"c"),
        ("/first", OTHER, (), b"b"),
        ("/team/x/y", ECHO, (), b"c"),
        ("/a/mcp", ECHO, (), b"a"),
    ],
)
async def test_a_condition_decides_where_a_request_goes(
    proxy: ProxyProcess, path: str, body: bytes, fields: tuple[str, ...], server: bytes
) -> None:
    """To the route's server where it holds, to the next route's where not."""
    assert (await ask(proxy.port, post(path, body, *fields))).body == server


async def test_the_host_decides_without_its_port(proxy: ProxyProcess) -> None:
    """And without regard to case."""
    assert (await ask(proxy.port, post("/host", host="LocalHost:1"))).body == b"b"
    assert (await ask(proxy.port, post("/host", host="127.0.0.1:1"))).body == b"a"


async def test_a_get_has_headers_but_no_message(proxy: ProxyProcess) -> None:
    """Conditions about messages never hold for it."""
    assert (await ask(proxy.port, get("/tool"))).body == b"a"
    assert (await ask(proxy.port, get("/header", "X-Env: test"))).body == b"b"
    assert (await ask(proxy.port, get("/protocol", "MCP-Protocol-Version: 2025-11-25"))).body == b"b"


@pytest.mark.parametrize("path", ["/team", "/teams/x", "/A/mcp", "/a/mcp/", "/a", "/"])
async def test_another_path_is_404(proxy: ProxyProcess, path: str) -> None:
    """Paths are exact, case included."""
    assert (await ask(proxy.port, post(path))).reason == "no_route"


@pytest.mark.parametrize(
    ("messages", "server"),
    [
        ((ECHO, SEARCH), b"b"),
        ((OTHER, LIST), b"a"),
        ((ECHO, OTHER), None),
        ((OTHER, ECHO), None),
        ((ECHO, SEARCH, SEARCH, LIST), None),
        ((ECHO,), b"b"),
    ],
)
async def test_a_batch_goes_where_all_its_messages_go(
    proxy: ProxyProcess, messages: tuple[bytes, ...], server: bytes | None
) -> None:
    """Or nowhere: 400."""
    answered = await ask(proxy.port, post("/tool", batch(*messages)))
    if server is None:
        assert (answered.status, answered.reason) == (400, "invalid_request")
    else:
        assert (answered.status, answered.body) == (200, server)


async def test_chance_sends_a_batch_to_one_server_whole(proxy: ProxyProcess) -> None:
    """Ten messages on a route of half the requests: each batch is taken, by either server."""
    answers = await asyncio.gather(*[ask(proxy.port, post("/chance", batch(*[ECHO] * 10))) for _ in range(60)])
    assert {each.status for each in answers} == {200}
    assert {each.body for each in answers} == {b"a", b"b"}


async def _bodies(proxy: ProxyProcess, path: str, count: int, *fields: str, body: bytes = CALL) -> Counter[bytes]:
    return Counter([(await ask(proxy.port, post(path, body, *fields))).body for _ in range(count)])


async def test_weights_are_exact_over_a_cycle(proxy: ProxyProcess) -> None:
    """5 : 1 : 2 of every eight, and not bunched."""
    for _ in range(3):
        assert await _bodies(proxy, "/weighted", 8) == {b"a": 5, b"b": 1, b"c": 2}


@pytest.mark.parametrize("kind", ["header", "task"])
async def test_affinity_keeps_a_key_on_one_server_and_spreads_the_keys(proxy: ProxyProcess, kind: str) -> None:
    """By a header's value, and by the task that a message is about; without either the strategy chooses."""

    async def call(key: str) -> Answered:
        if kind == "header":
            return await ask(proxy.port, post("/by-header", CALL, f"X-User: {key}"))
        return await ask(proxy.port, post("/by-task", message("tasks/get", taskId=key)))

    used: set[bytes] = set()
    for number in range(20):
        answers = {(await call(f"key-{number}")).body for _ in range(3)}
        assert len(answers) == 1
        used |= answers
    assert used == {b"a", b"b", b"c"}
    assert await _bodies(proxy, f"/by-{kind}", 9, body=ECHO) == {b"a": 3, b"b": 3, b"c": 3}


async def test_a_consistent_hash_without_a_key_of_its_own_takes_the_address(proxy: ProxyProcess) -> None:
    """One client, one server."""
    assert len(await _bodies(proxy, "/hash", 9)) == 1


async def test_a_route_of_two_kinds_of_servers_is_refused_and_the_old_one_goes_on(proxy: ProxyProcess) -> None:
    """A reload that mixes WebSocket servers with others says so and changes nothing."""
    servers: dict[str, Any] = {name: {"url": f"http://127.0.0.1:{port}/mcp"} for name, port in PORTS.items()}
    servers["ws"] = {"url": "ws://127.0.0.1:1/ws", "transport": "websocket"}
    before = proxy.path.read_text()
    line = proxy.reload({"servers": servers, "routes": [{"name": "m", "path": "/m", "servers": ["a", "ws"]}]})
    assert line["event"] == "configuration refused"
    assert "either WebSocket servers or others" in line["problems"][0]
    assert (await ask(proxy.port, post("/a/mcp"))).body == b"a"
    assert (await ask(proxy.port, post("/m"))).reason == "no_route"
    proxy.path.write_text(before)


# --- servers and routes of the database -----------------------------------------------------------------------------

PEPPER = "the pepper of this test"
ACME, OTHER = f"{SYSTEM_TENANT[:-1]}a", f"{SYSTEM_TENANT[:-1]}b"
KEYS = {who: mint(PepperRing({1: PEPPER.encode()})) for who in ("acme", "reader", "other")}
#: Conditions about who asks; each path leads to `b` where its condition holds, and to `a` where not.
WHO: dict[str, dict[str, Any]] = {
    "tenant": {"tenant": "acme"},
    "key": {"key": [KEYS["other"].id, KEYS["reader"].id]},
    "scope": {"scope": "write"},
    "tier": {"tier": ["admin", "anonymous"]},
    "scoped": {"tenant": "acme", "scope": ["admin", "write"]},
}


def _server(tenant: str, name: str, to: str) -> tuple[str, tuple[object, ...]]:
    url = f"http://127.0.0.1:{PORTS[to]}/mcp"
    return "INSERT INTO mcp_servers (tenant_id, name, endpoint_url) VALUES ($1, $2, $3)", (tenant, name, url)


def _route(tenant: str, path: str, *servers: str) -> tuple[str, tuple[object, ...]]:
    statement = "INSERT INTO routing_rules (tenant_id, name, path, target_servers) VALUES ($1, $2, $3, $4)"
    return statement, (tenant, path.strip("/"), path, json.dumps(servers))


def _key(tenant: str, who: str, *scopes: str) -> tuple[str, tuple[object, ...]]:
    minted = KEYS[who]
    statement = """INSERT INTO enhanced_api_keys (tenant_id, name, id, secret_hmac, pepper_version, scopes)
        VALUES ($1, $2, $3, $4, $5, $6)"""
    return statement, (tenant, who, minted.id, minted.secret_hmac, minted.pepper_version, ["proxy", *scopes])


@pytest.fixture
async def registered() -> AsyncIterator[tuple[ProxyProcess, str]]:
    """A proxy with the rows of two tenants, and how the owner reaches its database."""
    async with migrated_database() as name:
        rows = [
            ("INSERT INTO tenants (id, slug, name) VALUES ($1, 'acme', 'A'), ($2, 'other', 'O')", (ACME, OTHER)),
            _key(ACME, "acme", "read", "write"),
            _key(ACME, "reader", "read"),
            _key(OTHER, "other", "read", "write"),
            _server(ACME, "own", "c"),
            _server(ACME, "a", "b"),
            _server(ACME, "Bad", "b"),
            _server(SYSTEM_TENANT, "common", "c"),
            _route(ACME, "/mine", "own", "gone"),
            _route(ACME, "/theirs", "common"),
            _route(OTHER, "/theirs", "a"),
            _route(OTHER, "/stolen", "own"),
            _route(SYSTEM_TENANT, "/everyones", "common"),
        ]
        for statement, values in rows:
            await execute(owner_dsn(name), statement, *values)
        routes = []
        for path, when in WHO.items():
            routes.append({"name": f"{path}-yes", "path": f"/{path}", "servers": "b", "when": when})
            routes.append({"name": f"{path}-no", "path": f"/{path}", "servers": "a"})
        config = {
            "servers": {each: {"url": f"http://127.0.0.1:{port}/mcp"} for each, port in PORTS.items()},
            "routes": routes,
            "auth": {"peppers": {1: PEPPER}},
            "postgres": {"dsn": login_dsn(name)},
            "registry": {"private_networks": ["127.0.0.0/8"]},
        }
        with running_proxy(config) as process:
            yield process, owner_dsn(name)


async def _asked(proxy: ProxyProcess, path: str, who: str) -> str:
    """Which server answered, or the reason why none did. `who`: '' for nobody."""
    fields = (f"X-API-Key: {KEYS[who].text}",) if who else ()
    answered = await ask(proxy.port, post(path, LIST, *fields))
    return answered.body.decode() if answered.status == 200 else str(answered.reason)


async def test_who_asks_decides_where_a_request_goes(registered: tuple[ProxyProcess, str]) -> None:
    """By conditions, and by rows that exist for one tenant only; a row that cannot be used costs no other."""
    proxy, dsn = registered
    expected = {
        # path: acme, a reader of acme, another tenant, nobody
        "/tenant": "b b a a",
        "/key": "a b b a",
        "/scope": "b a b b",
        "/tier": "a a a b",
        "/scoped": "b a a a",
        "/a/mcp": "b b a a",
        "/own/mcp": "c c no_route no_route",
        "/mine": "c c no_route no_route",
        "/theirs": "c c a no_route",
        "/stolen": "no_route no_route no_route no_route",
        "/everyones": "c c c c",
        "/common/mcp": "c c c c",
        "/Bad/mcp": "no_route no_route no_route no_route",
    }
    await _until(proxy, "/mine", "c")
    found = {
        path: " ".join([await _asked(proxy, path, who) for who in ("acme", "reader", "other", "")]) for path in expected
    }
    assert found == expected
    problems = proxy.wait_for(lambda line: line["event"] == "rows of the registry left out")["problems"]
    assert [problem.split(": ")[0] for problem in problems] == [
        "tenant acme, server Bad",
        "tenant acme, route mine",
        "tenant other, route stolen",
        "tenant other, route stolen",
    ]
    await execute(dsn, "UPDATE routing_rules SET is_enabled = false WHERE name = 'mine'")
    await _until(proxy, "/mine", "no_route")


async def _until(proxy: ProxyProcess, path: str, answer: str) -> None:
    """Wait until the proxy knows of what was committed."""
    async with asyncio.timeout(PATIENCE_S):
        while await _asked(proxy, path, "acme") != answer:
            await asyncio.sleep(0.05)
