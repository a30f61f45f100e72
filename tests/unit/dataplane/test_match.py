"""A request finds its route, unless it is bound to a server already: by discovery, or by its session."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.dataplane.context import RequestContext
from proxy.dataplane.match import match_route
from proxy.dataplane.snapshot import Snapshot
from proxy.errors import InvalidRequest, MethodNotAllowed, NoRoute, SessionGone
from tests.unit.dataplane.asked import ask, sealer, snapshot

SERVERS: dict[str, Any] = {"a": "http://a.test/mcp", "b": "http://b.test/mcp"}


def call(tool: str, number: int = 1) -> bytes:
    return b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"%b"}}' % (number, tool.encode())


def matched(snap: Snapshot, target: str, *fields: tuple[str, str], **options: Any) -> RequestContext:
    """A request after the phase."""
    ctx = ask(snap, target, *fields, **options)
    ctx.route = ctx.upstream = None
    match_route(ctx)
    return ctx


def route(name: str, *servers: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "path": "/all", "servers": list(servers), **options}


def test_a_path_finds_its_route() -> None:
    """And nothing binds it."""
    ctx = matched(snapshot(SERVERS), "/b/mcp", body=call("x"))
    assert ctx.route is not None
    assert (ctx.route.name, ctx.pinned, ctx.session, ctx.target, ctx.affinity_key) == ("b", None, None, "", "")


@pytest.mark.parametrize("target", ["/", "/c/mcp", "/a/sse", "/.well-known/oauth-protected-resource/a/mcp"])
def test_what_nobody_serves_is_not_found(target: str) -> None:
    """Discovery documents need a `public_url`."""
    with pytest.raises(NoRoute):
        matched(snapshot(SERVERS), target, method="GET")


def test_a_discovery_document_is_its_servers() -> None:
    """The request is bound to that server and to the document's place there."""
    snap = snapshot(SERVERS, listen={"public_url": "https://mcp.test"})
    target = "/.well-known/oauth-protected-resource/b/mcp"
    ctx = matched(snap, target, method="GET")
    assert ctx.pinned is snap.upstreams["b"]
    assert ctx.target == "http://b.test/.well-known/oauth-protected-resource/mcp"
    with pytest.raises(MethodNotAllowed) as refused:
        matched(snap, target, method="DELETE")
    assert refused.value.headers == (("Allow", "GET, HEAD, OPTIONS"),)


def session_id(snap: Snapshot, server: str, target: str = "/all") -> tuple[str, str]:
    """The field of a client in a session on `server`."""
    begun = snap.sealer.begin(ask(snap, target), server, "upstream-id")
    return "Mcp-Session-Id", snap.sealer.seal(begun)


def test_a_session_outranks_the_routes_choice() -> None:
    """Also where the route would spread requests over several servers, and where it has an affinity."""
    snap = snapshot(SERVERS, routes=[route("r", "a", "b", affinity={"by": "client_address"})])
    for server in ("a", "b"):
        ctx = matched(snap, "/all", session_id(snap, server), body=call("x"))
        assert ctx.pinned is snap.upstreams[server]
        assert ctx.session is not None
        assert ctx.session.upstream_id == "upstream-id"
        assert ctx.affinity_key == ""


def test_a_session_whose_server_is_gone_is_gone() -> None:
    """404, on which clients begin anew."""
    before = snapshot(SERVERS, sealer(), routes=[route("r", "a", "b")])
    after = snapshot({"a": SERVERS["a"]}, sealer(), routes=[route("r", "a")])
    with pytest.raises(SessionGone):
        matched(after, "/all", session_id(before, "b"), body=call("x"))


@pytest.mark.parametrize("text", ["forged", "v1.AAAA"])
def test_a_session_that_we_did_not_seal_is_gone(text: str) -> None:
    """Whatever it says."""
    with pytest.raises(SessionGone):
        matched(snapshot(SERVERS), "/a/mcp", ("Mcp-Session-Id", text), body=call("x"))


def test_without_a_session_the_affinity_decides() -> None:
    """Its key is what the route's choice goes by."""
    snap = snapshot(SERVERS, routes=[route("r", "a", "b", affinity={"by": "header", "header": "X-Team"})])
    keys = [matched(snap, "/all", ("X-Team", team), body=call("x")).affinity_key for team in ("red", "blue", "red")]
    assert keys[0] == keys[2] != keys[1]


def batch(*calls: bytes) -> bytes:
    return b"[" + b",".join(calls) + b"]"


OLD = ("MCP-Protocol-Version", "2025-03-26")
BY_TOOL = [route("x", "a", when={"tool": "x*"}), route("rest", "b")]


def test_a_batch_of_one_route_goes_there_whole() -> None:
    """Its first message stays the one that counts."""
    ctx = matched(snapshot(SERVERS, routes=BY_TOOL), "/all", OLD, body=batch(call("x1"), call("x2", 2)))
    assert ctx.route is not None
    assert ctx.message is not None
    assert (ctx.route.name, ctx.message.target) == ("x", "x1")


def test_a_batch_of_several_routes_is_refused() -> None:
    """It could only go to one server, past the conditions of the other's route."""
    snap = snapshot(SERVERS, routes=BY_TOOL)
    for tools in (("x1", "y"), ("y", "x1"), ("x1", "x2", "y")):
        with pytest.raises(InvalidRequest):
            matched(snap, "/all", OLD, body=batch(*[call(tool, place) for place, tool in enumerate(tools)]))
