"""A call through the whole proxy leaves its spans with the collector, and its server is told of them."""

from __future__ import annotations

import re

import pytest

from proxy.mcp.trace import Trace, parse
from tests.harness import CALL, RawClient, answer_json, post, scripted_upstream
from tests.inprocess import running_app
from tests.unit.test_tracing import CLIENT, SERVER, SPAN, TRACE, Collector, attributes, collector

__all__ = ["collector"]

FIELDS = (f"traceparent: 00-{TRACE}-{SPAN}-01", "tracestate: a=b")


def told(seen: bytes) -> Trace | None:
    """What a server was told of the trace."""
    match = re.search(rb"\r\ntraceparent: (.*)\r\n", seen, re.IGNORECASE)
    return parse(match[1].decode()) if match is not None else None


async def test_a_call_is_followed_to_the_server_that_answers(collector: Collector) -> None:
    """Three spans in the client's trace: the request, a try without connection, and the one that the server knows."""
    async with scripted_upstream(answer_json) as upstream:
        config = {
            "servers": {"gone": {"url": "http://127.0.0.1:9/"}, "up": {"url": upstream.url}},
            "routes": [{"name": "both", "path": "/x", "servers": ["gone", "up"], "strategy": "priority"}],
            "tracing": {"endpoint": collector.url},
        }
        async with running_app(config) as (_, port):
            client = await RawClient.connect(port)
            await client.send(post("/x", CALL, *FIELDS))
            assert (await client.answer())[0] == 200
            await client.close()
        [seen] = upstream.seen
    at_server = told(seen)
    assert at_server is not None
    request, *tries = sorted(collector.spans, key=lambda span: span.kind)
    assert (request.kind, [each.kind for each in tries]) == (SERVER, [CLIENT, CLIENT])
    assert request.parent_span_id.hex() == SPAN
    by_server = {attributes(each)["mcp_manager.server"]: each for each in tries}
    assert at_server == Trace(TRACE, by_server["up"].span_id.hex(), True)
    assert attributes(by_server["gone"])["error.type"] == "connect_failed"
    assert attributes(by_server["up"])["http.response.status_code"] == 200
    assert attributes(request)["mcp_manager.outcome"] == "ok"
    assert b"tracestate: a=b" in seen


@pytest.mark.parametrize("target", ["/nowhere", "/up/mcp"])
async def test_a_refusal_is_followed_too(collector: Collector, target: str) -> None:
    """With what was wrong, and without a try where nothing was sent."""
    config = {"servers": {"up": {"url": "http://127.0.0.1:9/"}}, "tracing": {"endpoint": collector.url}}
    async with running_app(config) as (_, port):
        client = await RawClient.connect(port)
        await client.send(post(target))
        assert (await client.answer())[0] in (404, 502)
        await client.close()
    [request] = [span for span in collector.spans if span.kind == SERVER]
    assert attributes(request)["error.type"]
    assert len(collector.spans) == (1 if target == "/nowhere" else 2)


async def test_without_tracing_the_fields_pass_as_they_came() -> None:
    """Byte for byte."""
    async with scripted_upstream(answer_json) as upstream:
        async with running_app({"servers": {"up": {"url": upstream.url}}}) as (_, port):
            client = await RawClient.connect(port)
            await client.send(post("/up/mcp", CALL, *FIELDS))
            assert (await client.answer())[0] == 200
            await client.close()
        [seen] = upstream.seen
    for field in FIELDS:
        assert field.encode() in seen
