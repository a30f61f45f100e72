"""A refusal says what it has to, to whom it concerns, and nothing of what it was given."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane.context import RequestContext
from proxy.dataplane.reject import refusal_body, refusal_bytes, refusal_headers, reject
from proxy.errors import BadRequest, Forbidden, HeaderMismatch, InternalError, NoRoute, NoServer, ParseError, Refusal
from proxy.mcp.envelope import read_envelope
from tests.harness import CALL
from tests.unit.dataplane.asked import snapshot
from tests.unit.dataplane.fakes import Client, Request

SNAPSHOT = snapshot({"up": "http://up.test/mcp"})
RAW = b"POST /up/mcp HTTP/1.1\r\nHost: h\r\n\r\n"


def request() -> Request:
    return Request(Client(RAW), SNAPSHOT, 0.0)


def answered(ctx: RequestContext, client: Client, refusal: Refusal) -> dict[str, Any]:
    """The body that a client gets."""
    reject(ctx, refusal)
    assert ctx.refusal is refusal
    assert (client.status, ctx.status) == (refusal.status, refusal.status)
    assert ctx.bytes_out == len(client.got)
    body: dict[str, Any] = orjson.loads(client.got)
    return body


@pytest.mark.parametrize("kind", [ParseError, Forbidden, NoServer, InternalError])
@given(request_id=st.none() | st.integers(-(2**53), 2**53) | st.text(), detail=st.text(min_size=1))
def test_the_body_has_exactly_these_members(kind: type[Refusal], request_id: str | int | None, detail: str) -> None:
    """JSON-RPC 2.0 section 5.1; the id is left out when it is not known, and the detail always."""
    known = {} if request_id is None else {"id": request_id}
    assert orjson.loads(refusal_body(kind(detail, request_id=request_id))) == {
        "jsonrpc": "2.0",
        **known,
        "error": {
            "code": kind.code,
            "message": kind.message,
            "data": {"source": "proxy", "reason": kind.reason},
        },
    }


def test_the_fields_are_few() -> None:
    """Type, no caching, and what the refusal carries; never who we are."""
    fields = refusal_headers(NoServer(headers=(("Retry-After", "1"),)))
    assert fields == [("Content-Type", "application/json"), ("Cache-Control", "no-store"), ("Retry-After", "1")]


def test_the_id_of_the_message_is_the_id_of_its_refusal() -> None:
    """Unless the refusal knows it better: the body may have been refused before there was a message."""
    for refusal, expected in ((NoRoute(), 1), (HeaderMismatch(request_id="seven"), "seven")):
        each = request()
        each.ctx.message = read_envelope(CALL, {}).first
        assert answered(each.ctx, each.client, refusal)["id"] == expected
    each = request()
    assert "id" not in answered(each.ctx, each.client, NoRoute())


@pytest.mark.parametrize(("refusal", "closes"), [(BadRequest(), True), (NoRoute(), False)])
@pytest.mark.parametrize("closing", [False, True])
def test_the_connection_ends_when_it_must(refusal: Refusal, closes: bool, closing: bool) -> None:
    """By the refusal, or because it would have ended anyway."""
    each = request()
    each.client.closing = closing
    answered(each.ctx, each.client, refusal)
    assert each.client.closing == (closes or closing)


def test_an_answer_that_has_begun_is_broken_off() -> None:
    """Two answers to one request would be worse than none."""
    each = request()
    each.client.start(200, [])
    each.ctx.status = 200
    refusal = InternalError()
    reject(each.ctx, refusal)
    assert each.client.steps == ["start", "abort"]
    assert (each.ctx.refusal, each.ctx.status, each.client.got) == (refusal, 200, b"")


def test_the_gates_own_answer_is_whole() -> None:
    """It was never a request: one write, and the connection ends."""
    head, _, body = refusal_bytes(BadRequest("seen")).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 400 Bad Request"
    assert sorted(lines[1:]) == [
        "Cache-Control: no-store",
        "Connection: close",
        f"Content-Length: {len(body)}",
        "Content-Type: application/json",
    ]
    assert orjson.loads(body)["error"]["data"]["reason"] == "bad_request"
