"""A recorder with its metrics, lines and records, and requests for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from proxy.batched_stream import BatchedStream
from proxy.dataplane.context import RequestContext
from proxy.dataplane.exchange import Head
from proxy.dataplane.recorder import Recorder
from proxy.identity.access import Server
from proxy.log import AccessLog
from proxy.mcp.envelope import Envelope, Kind, Message
from proxy.mcp.methods import Access, metric_label
from proxy.metrics import Metrics


class Lines:
    """A stream that keeps what is written."""

    terminal = False

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, line: bytes) -> None:
        self.written.append(line)

    def only(self) -> dict[str, Any]:
        assert len(self.written) == 1, self.written
        line = self.written[0]
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        return cast("dict[str, Any]", orjson.loads(line))


class Desk:
    """A recorder with its metrics and its lines."""

    def __init__(self, enabled: bool = True) -> None:
        self.metrics = Metrics(CollectorRegistry(), 10, metric_label)
        self.lines = Lines()
        self.recorder = Recorder(self.metrics, AccessLog(cast(BatchedStream, self.lines), "json"), enabled)

    def record(self, ctx: RequestContext, now: float = 100.5) -> None:
        self.recorder.begin(ctx)
        self.recorder.record(ctx, now)

    def counted(self, name: str) -> dict[tuple[str, ...], float]:
        """Label values, in the order shown, and the value of each sample of `name`."""
        families = text_string_to_metric_families(self.metrics.exposition("")[1].decode())
        found = [sample for family in families for sample in family.samples if sample.name == name]
        return {tuple(sample.labels.values()): sample.value for sample in found}


def request(path: str = "/github/mcp", method: str = "POST", query: str = "") -> RequestContext:
    head = Head(method, path, query, 1, [], {}, "localhost", None, False, True, "", False)
    exchange = SimpleNamespace(head=head, peer="192.0.2.7", secure=False)
    return RequestContext(cast(Any, exchange), cast(Any, SimpleNamespace(generation=3, shared=None, flags=None)), 100.0)


def carries(ctx: RequestContext, method: str, target_kind: str = "", target: str = "", modern: bool = False) -> None:
    message = Message(Kind.REQUEST, method, 1, Access.SESSION, target_kind, target)
    ctx.message = message
    ctx.revision = "2026-07-28" if modern else "2025-11-25"
    ctx.envelope = Envelope((message,), False, modern, ctx.revision)


def answered(desk: Desk, status: int = 200) -> RequestContext:
    ctx = request(query="token=hidden")
    carries(ctx, "tools/call", "tool", "search_code")
    ctx.upstream = cast(
        Any, SimpleNamespace(name="github", metrics=desk.metrics.server("github"), place=Server("github"))
    )
    ctx.route = cast(Any, SimpleNamespace(name="search-canary", audit=None))
    ctx.status, ctx.tries, ctx.bytes_in, ctx.bytes_out, ctx.first_byte_at = status, 1, 345, 4567, 100.25
    ctx.intended = True
    return ctx
