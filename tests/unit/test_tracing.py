"""Spans reach a real receiver of OTLP over HTTP, which decodes them."""

from __future__ import annotations

import asyncio
import gzip
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from proxy.config.tracing import Tracing
from proxy.dataplane.context import RequestContext
from proxy.dataplane.tracer import Tracer
from proxy.errors import ConnectFailed
from proxy.tracing import TracingUnavailable, name_of, open_spans
from tests.unit.dataplane.asked import ask, snapshot
from tests.unit.dataplane.fakes import PATIENCE_S

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo"}}
SERVER, CLIENT = 2, 3


class Collector:
    """Takes spans, and answers as it is told."""

    def __init__(self) -> None:
        self.status = 200
        self.hangs = False
        self.spans: list[Any] = []
        self.resource: dict[str, str] = {}
        self.fields: dict[str, str] = {}
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        """One batch."""
        if self.hangs:
            await asyncio.sleep(PATIENCE_S)
        self.fields = dict(request.headers)
        body = await request.read()
        batch = ExportTraceServiceRequest.FromString(
            gzip.decompress(body)
            if request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b"
            else body
        )
        if self.status == 200:
            for of_resource in batch.resource_spans:
                self.resource = {each.key: each.value.string_value for each in of_resource.resource.attributes}
                self.spans += [span for scope in of_resource.scope_spans for span in scope.spans]
        return web.Response(status=self.status)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    """Listens on a port of its own."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    collector.url = f"http://{host}:{port}/v1/traces"
    yield collector
    await runner.cleanup()


class Traced:
    """A tracer that sends to a collector."""

    def __init__(self, collector: Collector, **more: object) -> None:
        settings = Tracing.model_validate({"endpoint": collector.url, "timeout": "1s", **more})
        self.spans = open_spans(settings, "host-1")
        self.tracer = Tracer(settings, self.spans.add, time.monotonic)
        self.snapshot = snapshot({"up": "http://up.example:81/mcp", "other": "https://other.example/mcp"})

    def ask(self, *fields: tuple[str, str], call: object = CALL, method: str = "POST") -> RequestContext:
        """A call of a tool, as far as its route."""
        body = orjson.dumps(call) if method == "POST" else None
        ctx = ask(self.snapshot, "/up/mcp?secret=1", *fields, method=method, body=body)
        ctx.started_at, ctx.status, ctx.id = time.monotonic() - 0.5, 200, "the request"
        return ctx


def attributes(span: Any) -> dict[str, Any]:
    """Of a span as it arrived."""
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


async def test_spans_of_a_request_and_its_tries_arrive(collector: Collector) -> None:
    """One for the request, one for each try, each the child of the one before; with the collector's credential."""
    traced = Traced(collector, headers={"Authorization": "Bearer s3cret"})
    ctx = traced.ask(("traceparent", f"00-{TRACE}-{SPAN}-01"))
    first = traced.tracer.attempt(ctx, traced.snapshot.upstreams["up"])
    first.failed(ConnectFailed("refused"))
    second = traced.tracer.attempt(ctx, traced.snapshot.upstreams["other"])
    second.answered(200)
    began = time.time_ns()
    traced.tracer.end(ctx, "ok")
    await traced.spans.close(PATIENCE_S)
    request, *tries = sorted(collector.spans, key=lambda span: span.kind)
    assert (request.kind, [each.kind for each in tries]) == (SERVER, [CLIENT, CLIENT])
    assert {each.trace_id.hex() for each in collector.spans} == {TRACE}
    assert (request.parent_span_id.hex(), request.span_id.hex()) == (SPAN, ctx.span_id)
    assert [each.span_id.hex() for each in sorted(tries, key=lambda span: span.start_time_unix_nano)] == [
        f"{first.span_id:016x}", f"{second.span_id:016x}"
    ]  # fmt: skip
    assert {each.parent_span_id.hex() for each in tries} == {ctx.span_id}
    assert {each.name for each in collector.spans} == {"tools/call echo"}
    assert abs(request.end_time_unix_nano - began) < 5e9
    assert 0.4e9 < request.end_time_unix_nano - request.start_time_unix_nano < 5e9
    assert collector.fields["Authorization"] == "Bearer s3cret"
    assert collector.resource["service.name"] == "mcp-manager"
    assert collector.resource["service.instance.id"] == "host-1"
    assert collector.resource["service.version"]
    assert traced.spans.counts == {"made": 3, "sent": 3, "failed": 0}


async def test_spans_tell_what_the_record_tells_and_no_secret(collector: Collector) -> None:
    """By the names of OpenTelemetry's conventions where there are any."""
    traced = Traced(collector)
    ctx = traced.ask(("Authorization", "Bearer mine"))
    ctx.revision = "2025-03-26"
    ctx.status, ctx.refusal, ctx.outcome = 502, ConnectFailed("to 10.0.0.1"), "upstream_error"
    traced.tracer.attempt(ctx, traced.snapshot.upstreams["up"]).failed(ctx.refusal)
    traced.tracer.attempt(ctx, traced.snapshot.upstreams["other"])
    traced.tracer.end(ctx)
    await traced.spans.close(PATIENCE_S)
    request, first, second = sorted(collector.spans, key=lambda span: (span.kind, span.start_time_unix_nano))
    assert attributes(request) == {
        "http.request.method": "POST", "url.path": "/up/mcp", "client.address": "192.0.2.7",
        "http.response.status_code": 502, "mcp.method.name": "tools/call", "gen_ai.tool.name": "echo",
        "mcp.protocol.version": "2025-03-26", "mcp_manager.request_id": "the request",
        "mcp_manager.principal": "anonymous", "mcp_manager.route": "up", "mcp_manager.server": "up",
        "mcp_manager.outcome": "upstream_error", "error.type": ctx.refusal.reason,
    }  # fmt: skip
    assert attributes(first) == {
        "http.request.method": "POST", "server.address": "up.example", "server.port": 81, "mcp_manager.server": "up",
        "error.type": ctx.refusal.reason,
    }  # fmt: skip
    assert attributes(second) == {
        "http.request.method": "POST", "server.address": "other.example", "server.port": 443,
        "mcp_manager.server": "other", "http.request.resend_count": 1, "error.type": "given_up",
    }  # fmt: skip
    assert [each.status.code for each in (request, first, second)] == [2, 2, 0]
    everything = repr(collector.spans)
    assert not any(secret in everything for secret in ("mine", "secret=1", "10.0.0.1"))


async def test_text_that_no_collector_takes_is_mended(collector: Collector) -> None:
    """One odd name must not cost its batch; long ones are cut."""
    traced = Traced(collector)
    for name in ("a\ud800b", "x" * 5000, "\x07bell"):
        ctx = traced.ask()
        assert ctx.message is not None
        ctx.message.target = name
        traced.tracer.end(ctx)
    await traced.spans.close(PATIENCE_S)
    assert len(collector.spans) == 3
    assert all(len(each.name) < 200 and each.name.isprintable() for each in collector.spans)


async def test_a_collector_that_fails_or_hangs_costs_spans_and_nothing_else(collector: Collector) -> None:
    """They are counted; closing waits no longer than it may."""
    traced = Traced(collector)
    collector.status = 400
    traced.tracer.end(traced.ask())
    await traced.spans.close(PATIENCE_S)
    assert traced.spans.counts == {"made": 1, "sent": 0, "failed": 1}
    [family] = traced.spans.families()
    assert dict(family.rows) == {'{result="made"}': 1, '{result="sent"}': 0, '{result="failed"}': 1}
    hanging = Traced(collector)
    collector.hangs = True
    hanging.tracer.end(hanging.ask())
    began, waited_for = time.monotonic(), {each for each in threading.enumerate() if not each.daemon}
    await hanging.spans.close(0.2)
    assert time.monotonic() - began < PATIENCE_S / 2
    assert {each for each in threading.enumerate() if not each.daemon} <= waited_for, "the process waits for it, too"


async def test_what_waits_is_bounded(collector: Collector) -> None:
    """Beyond the queue the oldest are lost."""
    traced = Traced(collector, queue=100)
    collector.hangs = True
    ctx = traced.ask()
    tracemalloc.start()
    for _ in range(3000):
        traced.tracer.end(ctx)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < 2_000_000
    assert traced.spans.counts["made"] == 3000
    await traced.spans.close(0.1)


async def test_names_have_few_values(collector: Collector) -> None:
    """No URI, no id: only names of tools and prompts; without a message the route."""
    traced = Traced(collector)
    assert name_of(traced.ask()) == "tools/call echo"
    read = {"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": "file:///1"}}
    assert name_of(traced.ask(call=read)) == "resources/read"
    stream = traced.ask(method="GET")
    assert name_of(stream) == (f"GET {stream.route.name}" if stream.route is not None else "GET")
    stream.route = None
    assert name_of(stream) == "GET"
    await traced.spans.close(PATIENCE_S)


def test_without_the_extra_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, in a sentence."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(TracingUnavailable, match=r"pip install 'mcp-manager-proxy\[otel\]'"):
        open_spans(Tracing(endpoint="http://x/v1/traces"), "")
