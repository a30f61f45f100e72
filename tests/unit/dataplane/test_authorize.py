"""What a principal may not use is passed over, and refused when nothing else is left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from proxy.dataplane.authorize import authorize
from proxy.dataplane.context import PREFLIGHT, RequestContext
from proxy.errors import Forbidden, NoRoute
from proxy.identity.access import Server
from proxy.identity.patterns import read_grants
from proxy.identity.principal import Principal, Scope, Source
from proxy.identity.records import AccessRule
from tests.unit.dataplane.admitted import admitting
from tests.unit.dataplane.asked import ask, snapshot
from tests.unit.identity.rows import NOW

TWO = {"one": "http://one.test/mcp", "two": "http://two.test/mcp"}
ROUTE = {"name": "both", "path": "/both", "servers": ["one", "two"]}
CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{}}}'
LIST = b'{"jsonrpc":"2.0","id":2,"method":"tools/list"}'
WRITER = Principal(
    "key:k", "t1", "acme", "", "user", frozenset((Scope.PROXY, Scope.READ, Scope.WRITE)), Source.KEY, key_id="k"
)
READER = replace(WRITER, scopes=frozenset((Scope.PROXY, Scope.READ)))


def request(
    body: bytes | None = CALL, principal: Principal = WRITER, path: str = "/both", **options: Any
) -> RequestContext:
    """A request that has its route; the servers are of tenant t1, with rows s1 and s2."""
    snap = snapshot(TWO, routes=[{**ROUTE, **options}])
    for number, name in enumerate(TWO, 1):
        snap.upstreams[name].place = Server(name, f"s{number}", "t1")
    return ask(snap, path, body=body, principal=principal)


def deny(server: str, **keys: Any) -> AccessRule:
    """A rule against everyone on one server."""
    return AccessRule("r", "t1", "deny", server, **keys)


def test_a_server_that_is_denied_is_passed_over() -> None:
    """The other one of the route takes the request."""
    ctx = request()
    authorize(ctx, admitting(deny("s1")), NOW)
    assert list(ctx.denied) == ["one"]
    authorize(ctx := request(), admitting(), NOW)
    assert not ctx.denied


def test_when_all_are_denied_the_request_is() -> None:
    """Also when the only one left is another tenant's: nobody learns that it exists."""
    with pytest.raises(Forbidden):
        authorize(request(), admitting(deny("s1"), replace(deny("s2"), id="r2")), NOW)
    with pytest.raises(NoRoute):
        authorize(request(principal=replace(WRITER, tenant="t2")), admitting(), NOW)


def test_a_preflight_passes_where_it_has_a_route() -> None:
    """Whatever rules say about calls."""
    authorize(request(principal=PREFLIGHT), admitting(deny("s1"), replace(deny("s2"), id="r2")), NOW)


def test_every_message_of_a_batch_counts() -> None:
    """One that may not be sent holds back all."""
    authorize(request(LIST, READER), admitting(), NOW)
    with pytest.raises(Forbidden):
        authorize(request(b"[" + LIST + b"," + CALL + b"]", READER), admitting(), NOW)


def test_what_nobody_reads_may_be_anything() -> None:
    """A body that is not inspected takes the scope to write, and a key for some tools is not enough."""
    authorize(request(None, inspect="none"), admitting(), NOW)
    for principal in (READER, replace(WRITER, allowed=read_grants((), ("search",)))):
        with pytest.raises(Forbidden):
            authorize(request(None, principal, inspect="none"), admitting(), NOW)


def test_a_session_and_a_discovery_document_have_one_server() -> None:
    """It is that one which must be allowed."""
    ctx = request()
    ctx.pinned = ctx.snapshot.upstreams["one"]
    with pytest.raises(Forbidden):
        authorize(ctx, admitting(deny("s1")), NOW)
    ctx.route = None
    authorize(ctx, admitting(deny("s2")), NOW)
