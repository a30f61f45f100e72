"""Without keys everyone is the same anonymous principal, at the address that the connection comes from."""

from __future__ import annotations

from proxy.dataplane.context import ANONYMOUS, Principal, RequestContext
from proxy.dataplane.identity import authenticate
from tests.unit.dataplane.asked import snapshot
from tests.unit.dataplane.fakes import Client


def test_nobody_can_claim_to_be_someone() -> None:
    """Neither fields of the request nor an earlier phase decide."""
    raw = b"GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer x\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n"
    ctx = RequestContext(Client(raw, peer="2001:db8::7"), snapshot({"up": "http://up.test/mcp"}), 0.0)
    ctx.principal, ctx.client_ip = Principal("root", "acme"), "10.0.0.1"
    authenticate(ctx)
    assert ctx.principal is ANONYMOUS
    assert ctx.principal.tenant == ""
    assert ctx.client_ip == "2001:db8::7"
