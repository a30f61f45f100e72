"""Spans of requests and of their tries, sent to a collector: the only place that knows OpenTelemetry (extra `otel`).

Owns names and attributes of the spans (OpenTelemetry's semantic conventions for HTTP and MCP) and the kept SDK, which
batches and sends them in a thread of its own: no request waits for a collector. Which requests are recorded, and as
whose children, is `dataplane/tracer.py`'s.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from proxy.dataplane.facts import target_of
from proxy.log import printable
from proxy.metrics import Family

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from proxy.config.tracing import Tracing
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.tracer import AttemptSpan, Followed, Moments

#: Spans sent at once. Turning them into bytes holds the interpreter: the fewer, the sooner a request goes on.
_BATCH: Final = 64
_SERVER_ERROR: Final = 500
#: Characters of a text from outside, and servers whose addresses are kept.
_LONGEST: Final = 128
_MOST_ADDRESSES: Final = 1000
#: What the target of a message is called (semantic conventions for MCP), and whether it belongs into the name.
_TARGETS: Final = {
    "tool": "gen_ai.tool.name", "prompt": "gen_ai.prompt.name", "resource": "mcp.resource.uri"
}  # fmt: skip
_NAMED: Final = frozenset(("tool", "prompt"))


class TracingUnavailable(Exception):
    """Tracing is configured and cannot be had; the text is for people."""


class Spans:
    """Makes spans of the SDK and gives them to its batch processor. Its `add` is for `Tracer`."""

    def __init__(self, processor: BatchSpanProcessor, resource: Resource, counts: dict[str, int]) -> None:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        self._processor = processor
        self._resource = resource
        #: Spans by what became of them: made, sent, failed.
        self.counts = counts
        self._span, self._context = ReadableSpan, SpanContext
        self._server, self._client = SpanKind.SERVER, SpanKind.CLIENT
        self._flags = TraceFlags(TraceFlags.SAMPLED)
        self._scope = InstrumentationScope("mcp-manager")
        self._fine, self._failed = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
        self._addresses: dict[str, tuple[str, int]] = {}

    def add(self, ctx: RequestContext, request: Followed, outcome: str, at: Moments) -> None:
        """A request is over."""
        name = name_of(ctx)
        self._add_request(request, name, at, ctx, outcome)
        for number, attempt in enumerate(request.attempts):
            self._add_attempt(request, attempt, name, at, ctx, number)

    def _add_request(self, request: Followed, name: str, at: Moments, ctx: RequestContext, outcome: str) -> None:
        parent = self._context(request.trace_id, request.parent, True, self._flags) if request.parented else None
        self._add(
            self._span(
                name,
                context=self._context(request.trace_id, request.span_id, False, self._flags),
                parent=parent,
                resource=self._resource,
                attributes=_of_request(ctx, outcome),
                kind=self._server,
                status=self._failed if ctx.status >= _SERVER_ERROR else self._fine,
                start_time=at.ns(ctx.started_at),
                end_time=at.now_ns,
                instrumentation_scope=self._scope,
            )
        )

    def _add_attempt(
        self, request: Followed, attempt: AttemptSpan, name: str, at: Moments, ctx: RequestContext, number: int
    ) -> None:
        self._add(
            self._span(
                name,
                context=self._context(request.trace_id, attempt.span_id, False, self._flags),
                parent=self._context(request.trace_id, request.span_id, False, self._flags),
                resource=self._resource,
                attributes=self._of_attempt(attempt, ctx, number),
                kind=self._client,
                status=self._failed if attempt.error or attempt.status >= _SERVER_ERROR else self._fine,
                start_time=at.ns(attempt.started_at),
                end_time=at.ns(attempt.ended_at),
                instrumentation_scope=self._scope,
            )
        )

    def _add(self, span: ReadableSpan) -> None:
        self.counts["made"] += 1
        self._processor.on_end(span)

    def _of_attempt(self, attempt: AttemptSpan, ctx: RequestContext, number: int) -> Mapping[str, Any]:
        upstream = attempt.upstream
        host, port = self._addresses.get(upstream.target) or self._address(upstream.target)
        told: dict[str, Any] = {
            "http.request.method": ctx.head.method, "server.address": host, "server.port": port,
            "mcp_manager.server": upstream.name,
        }  # fmt: skip
        if number:
            told["http.request.resend_count"] = number
        if attempt.status:
            told["http.response.status_code"] = attempt.status
        if attempt.error:
            told["error.type"] = attempt.error
        elif not attempt.status:
            told["error.type"] = "given_up"
        return told

    def _address(self, url: str) -> tuple[str, int]:
        """Host and port; kept, as there are few servers."""
        if len(self._addresses) >= _MOST_ADDRESSES:
            self._addresses.clear()
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme in ("https", "wss") else 80)
        self._addresses[url] = host, port = parts.hostname or "", port
        return host, port

    async def close(self, deadline_s: float) -> None:
        """Send what waits; a collector that does not answer is not waited for, nor at the end of the
        process: the thread is neither the loop's nor one that the interpreter joins."""
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(sent.set)

        threading.Thread(target=shut_down, name="last-spans", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await sent.wait()

    def families(self) -> Iterator[Family]:
        """The metrics of tracing; what was made and neither sent nor failed waits, or was lost for want of room."""
        rows = [(f'{{result="{result}"}}', count) for result, count in self.counts.items()]
        yield Family("counter", "mcp_proxy_trace_spans", "Spans by what became of them", rows)


def _of_request(ctx: RequestContext, outcome: str) -> Mapping[str, Any]:
    """What is absent is left out. No query, no header, no argument."""
    head, message, principal = ctx.head, ctx.message, ctx.principal
    told: dict[str, Any] = {
        "http.request.method": head.method, "url.path": printable(head.path, _LONGEST), "client.address": ctx.client_ip,
        "http.response.status_code": ctx.status,
    }  # fmt: skip
    if message is not None and message.method:
        told["mcp.method.name"] = printable(message.method, _LONGEST)
        target = target_of(message)
        if target is not None and message.target_kind in _TARGETS:
            told[_TARGETS[message.target_kind]] = target
    more = {
        "mcp.protocol.version": ctx.revision,
        "mcp_manager.request_id": ctx.id,
        "mcp_manager.tenant": principal.tenant_slug,
        "mcp_manager.principal": principal.id,
        "mcp_manager.route": ctx.route.name if ctx.route is not None else "",
        "mcp_manager.server": ctx.upstream.name if ctx.upstream is not None else "",
        "mcp_manager.outcome": outcome or ctx.outcome,
        "error.type": ctx.refusal.reason if ctx.refusal is not None else "",
    }
    told.update((key, value) for key, value in more.items() if value)
    return told


def name_of(ctx: RequestContext) -> str:
    """`tools/call echo`; without a message the HTTP method and the route. Few values: no URI, no id."""
    message = ctx.message
    if message is not None and message.method:
        text = f"{message.method} {message.target}" if message.target_kind in _NAMED else message.method
        return printable(text, _LONGEST)
    return f"{ctx.head.method} {ctx.route.name}" if ctx.route is not None else ctx.head.method


def open_spans(settings: Tracing, instance: str) -> Spans:
    """Begin to send spans. Raises TracingUnavailable without the extra `otel`. Starts a thread, connects to nothing."""
    try:
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    except ImportError:
        raise TracingUnavailable("'tracing' needs the extra 'otel': pip install 'mcp-manager-proxy[otel]'") from None
    counts = {"made": 0, "sent": 0, "failed": 0}

    class Counting(SpanExporter):
        """Counts what becomes of spans, in the thread of the batch processor."""

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = inner.export(spans)
            counts["sent" if result is SpanExportResult.SUCCESS else "failed"] += len(spans)
            return result

        def shutdown(self) -> None:
            inner.shutdown()  # type: ignore[no-untyped-call]

    inner = OTLPSpanExporter(
        endpoint=settings.endpoint,
        headers={name: value.get_secret_value() for name, value in settings.headers.items()},
        timeout=settings.timeout,
        compression=Compression.Gzip,
    )
    processor = BatchSpanProcessor(
        Counting(),
        max_queue_size=max(settings.queue, _BATCH),
        schedule_delay_millis=settings.every * 1000,
        max_export_batch_size=_BATCH,
    )
    about = {"service.name": settings.service_name, "service.version": _version(), "service.instance.id": instance}
    return Spans(processor, Resource.create(about), counts)


def _version() -> str:
    try:
        return importlib.metadata.version("mcp-manager-proxy")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
