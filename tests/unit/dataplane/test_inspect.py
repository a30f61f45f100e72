"""What can be refused from the head alone is refused before the body is read; what is read is what is forwarded."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.dataplane.context import RequestContext
from proxy.dataplane.inspect import read_message
from proxy.errors import BodyTooLarge, NoRoute, ParseError, Refusal, UnsupportedMediaType
from tests.harness import CALL
from tests.unit.dataplane.asked import snapshot
from tests.unit.dataplane.fakes import Client

SNAPSHOT = snapshot(
    {"up": "http://up.test/mcp"},
    listen={"public_url": "https://mcp.test"},
    routes=[{"name": "raw", "path": "/raw", "servers": "up", "inspect": "none"}],
)
JSON = ("Content-Type", "application/json")


def request(
    *fields: tuple[str, str], method: str = "POST", path: str = "/up/mcp", body: tuple[Any, ...] = (CALL,)
) -> RequestContext:
    """A request whose body tells when it is read: it is an iterator."""
    lines = [f"{name}: {value}\r\n" for name, value in (("Host", "h"), *fields)]
    return RequestContext(Client(f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode(), body), SNAPSHOT, 0.0)


async def refused(ctx: RequestContext) -> Refusal:
    """The refusal, of which the body had no part."""
    with pytest.raises(Refusal) as caught:
        await read_message(ctx)
    assert await ctx.exchange.read_body() == CALL
    return caught.value


async def test_a_call_is_read_and_understood() -> None:
    """Body, envelope, first message, revision, and the count of its bytes."""
    ctx = request(JSON, ("MCP-Protocol-Version", "2025-06-18"), body=(CALL[:9], CALL[9:]))
    await read_message(ctx)
    assert ctx.body == CALL
    assert ctx.bytes_in == len(CALL)
    assert ctx.envelope is not None
    assert ctx.message is ctx.envelope.first
    assert (ctx.message.method, ctx.message.target) == ("tools/call", "echo")
    assert ctx.revision == "2025-06-18"


async def test_a_path_that_nobody_serves_is_not_read() -> None:
    """Its body is not worth reading, nor its media type."""
    assert isinstance(await refused(request(path="/nothing")), NoRoute)


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "HEAD"])
async def test_requests_without_a_message_have_a_revision_only(method: str) -> None:
    """Their field says which."""
    ctx = request(("MCP-Protocol-Version", "2025-11-25"), method=method, body=())
    await read_message(ctx)
    assert (ctx.body, ctx.envelope, ctx.message, ctx.revision) == (None, None, None, "2025-11-25")


async def test_a_discovery_document_is_served_without_a_route() -> None:
    """Its path is not a route's."""
    path = "/.well-known/oauth-protected-resource/up/mcp"
    ctx = request(method="GET", path=path, body=())
    await read_message(ctx)
    assert ctx.body is None


async def test_a_route_that_inspects_nothing_reads_nothing() -> None:
    """Neither media type nor body are looked at."""
    ctx = request(("Content-Type", "text/plain"), path="/raw", body=(b"not JSON",))
    await read_message(ctx)
    assert (ctx.body, ctx.message) == (None, None)
    assert await ctx.exchange.read_body() == b"not JSON"


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;charset=UTF-8",
        'application/json ; charset="utf-8"', "application/json;", "application/json; charset=utf8",
    ],
)  # fmt: skip
async def test_json_in_utf8_may_be_named_in_many_ways(content_type: str) -> None:
    """Clients write it differently, and mean the same."""
    ctx = request(("Content-Type", content_type), ("Content-Encoding", "Identity"))
    await read_message(ctx)
    assert ctx.message is not None


@pytest.mark.parametrize(
    "fields",
    [
        [], [("Content-Type", "text/plain")], [("Content-Type", "application/json-rpc")],
        [("Content-Type", "application/json; charset=latin-1")], [("Content-Type", "application/json; charset=utf-16")],
        [("Content-Type", "application/json; boundary=x")], [JSON, ("Content-Encoding", "gzip")],
        [JSON, ("Content-Encoding", "identity, br")],
    ],
)  # fmt: skip
async def test_what_an_upstream_might_read_differently_is_not_read(fields: list[tuple[str, str]]) -> None:
    """Other types, charsets and content codings."""
    assert isinstance(await refused(request(*fields)), UnsupportedMediaType)


@pytest.mark.parametrize("fault", [BodyTooLarge(), ParseError()])
async def test_a_faulty_body_is_refused_as_such(fault: Refusal) -> None:
    """What the gate finds wrong, and what the envelope does."""
    body = (b"{", fault) if isinstance(fault, BodyTooLarge) else (b"{",)
    ctx = request(JSON, body=body)
    with pytest.raises(type(fault)):
        await read_message(ctx)
    assert ctx.message is None
