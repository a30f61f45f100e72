"""Each request leaves one record: complete, bounded, free of secrets, and never at the cost of the answer."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from proxy.dataplane.context import RequestContext
from proxy.dataplane.exchange import Head
from proxy.dataplane.recorder import Recorder
from proxy.errors import (
    BadRequest,
    ConnectFailed,
    Forbidden,
    InternalError,
    NoRoute,
    PoolExhausted,
    Refusal,
    UpstreamFailed,
    UpstreamTimeout,
)
from proxy.log import AccessLog, BatchedStream
from proxy.mcp.envelope import Envelope, Kind, Message
from proxy.mcp.methods import Access, metric_label
from proxy.metrics import OUTCOMES, Metrics


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
    ctx.upstream = cast(Any, SimpleNamespace(name="github", metrics=desk.metrics.server("github")))
    ctx.route = cast(Any, SimpleNamespace(name="search-canary"))
    ctx.status, ctx.tries, ctx.bytes_in, ctx.bytes_out, ctx.first_byte_at = status, 1, 345, 4567, 100.25
    return ctx


def test_a_line_tells_the_whole_story_of_a_request() -> None:
    """Every field that docs/operations.md promises is there, with its unit."""
    desk = Desk()
    desk.record(answered(desk))
    line = desk.lines.only()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info", "event": "request", "method": "POST", "path": "/github/mcp", "server": "github",
        "route": "search-canary", "rpc_method": "tools/call", "target": "search_code", "messages": 1, "era": "legacy",
        "revision": "2025-11-25", "status": 200, "outcome": "ok", "reason": None, "detail": None, "shadowed": None,
        "duration_ms": 500.0,
        "first_byte_ms": 250.0, "queue_ms": None, "bytes_in": 345, "bytes_out": 4567, "streamed": False,
        "tries": 1, "client": "192.0.2.7", "tenant": None, "principal": None, "key_id": None,
        "impersonator": None, "generation": 3,
    }  # fmt: skip


def test_a_line_names_who_asked() -> None:
    """By ids that are no secrets."""
    desk = Desk()
    ctx = answered(desk)
    ctx.principal = replace(
        ctx.principal, id="key:abc", tenant="t1", tenant_slug="acme", key_id="def", impersonator="root"
    )
    desk.record(ctx)
    line = desk.lines.only()
    assert [line[name] for name in ("tenant", "principal", "key_id", "impersonator")] == [
        "acme",
        "key:abc",
        "def",
        "root",
    ]


def test_the_fields_and_outcomes_are_documented() -> None:
    """docs/operations.md has a row for each field of the line and for each outcome, and no other."""
    text = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    section = text.partition("### The line of a request")[2].partition("## Metrics")[0]
    rows = [re.findall(r"`(\w+)`", row) for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)]
    words = [word for row in rows for word in row]
    desk = Desk()
    desk.record(answered(desk))
    fields = [name for name in desk.lines.only() if name not in ("timestamp", "level", "event")]
    assert words == [*fields, *OUTCOMES]


def test_the_same_facts_are_counted() -> None:
    """One record is one observation of each metric."""
    desk = Desk()
    desk.record(answered(desk))
    assert desk.counted("mcp_proxy_requests_total") == {("github", "tools/call", "ok"): 1}
    assert desk.counted("mcp_proxy_request_duration_seconds_sum") == {("github",): 0.5}
    assert desk.counted("mcp_proxy_first_byte_seconds_sum") == {("github",): 0.25}
    assert desk.counted("mcp_proxy_bytes_total") == {("github", "in"): 345, ("github", "out"): 4567}


def test_a_request_is_in_flight_from_begin_to_record() -> None:
    """The gauge returns to zero whatever happened between."""
    desk = Desk()
    ctx = request()
    desk.recorder.begin(ctx)
    assert desk.metrics.in_flight == 1
    desk.recorder.record(ctx, 101.0)
    assert desk.metrics.in_flight == 0


@pytest.mark.parametrize(
    ("refusal", "outcome"),
    [
        (NoRoute(), "refused"),
        (Forbidden(), "refused"),
        (PoolExhausted(), "refused"),
        (ConnectFailed(), "upstream_error"),
        (UpstreamFailed(), "upstream_error"),
        (UpstreamTimeout(), "timeout"),
        (InternalError(), "internal"),
    ],
)
def test_a_refusal_says_whose_fault_it_was(refusal: Refusal, outcome: str) -> None:
    """The outcome tells fault, the reason tells which refusal; both are counted."""
    desk = Desk()
    ctx = request()
    ctx.refusal, ctx.status = refusal, refusal.status
    desk.record(ctx)
    line = desk.lines.only()
    assert (line["outcome"], line["reason"], line["status"]) == (outcome, refusal.reason, refusal.status)
    assert desk.counted("mcp_proxy_refusals_total") == {(refusal.reason,): 1}
    assert desk.counted("mcp_proxy_requests_total") == {("-", "POST", outcome): 1}


@pytest.mark.parametrize(
    ("status", "outcome"), [(200, "ok"), (202, "ok"), (404, "ok"), (500, "upstream_error"), (503, "upstream_error")]
)
def test_the_upstreams_own_status_decides_otherwise(status: int, outcome: str) -> None:
    """A 4xx of the upstream is an answer that was relayed; a 5xx is its failure."""
    desk = Desk()
    desk.record(answered(desk, status))
    assert desk.lines.only()["outcome"] == outcome


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_what_a_phase_has_said_stands(outcome: str) -> None:
    """Relay and handler know better than the status how a request ended."""
    desk = Desk()
    ctx = answered(desk)
    ctx.outcome = outcome
    desk.record(ctx)
    assert desk.lines.only()["outcome"] == outcome
    assert desk.counted("mcp_proxy_requests_total") == {("github", "tools/call", outcome): 1}


def test_a_client_that_left_before_any_answer_is_499() -> None:
    """As nginx and Caddy record it; without a first byte there is no time to it."""
    desk = Desk()
    desk.record(request())
    line = desk.lines.only()
    assert (line["status"], line["outcome"], line["first_byte_ms"]) == (499, "client_gone", None)
    assert desk.counted("mcp_proxy_first_byte_seconds_count") == {}


def test_requests_without_a_message_count_under_their_http_method() -> None:
    """A GET stream and a DELETE have no JSON-RPC method; a response that a client posts is called so."""
    desk = Desk()
    desk.record(request(method="GET"))
    desk.record(request(method="DELETE"))
    posted = request()
    posted.message = Message(Kind.RESPONSE, "", None, Access.SESSION, "", "")
    desk.record(posted)
    assert {labels[1] for labels in desk.counted("mcp_proxy_requests_total")} == {"GET", "DELETE", "response"}


def test_a_modern_request_is_named_so() -> None:
    """Era and revision come from the envelope."""
    desk = Desk()
    ctx = request()
    carries(ctx, "tools/call", "tool", "x", modern=True)
    desk.record(ctx)
    line = desk.lines.only()
    assert (line["era"], line["revision"]) == ("modern", "2026-07-28")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("file:///etc/motd", "file:///etc/motd"),
        ("https://user:hunter2@example.com/a@b", "https://example.com/a@b"),
        ("https://example.com/doc?access_token=hunter2", "https://example.com/doc"),
        ("https://example.com/doc#hunter2", "https://example.com/doc"),
        ("https://hunter2@example.com?x", "https://example.com"),
        ("note:7?key=hunter2", "note:7"),
    ],
)
def test_a_resource_loses_what_may_be_secret_in_its_uri(uri: str, shown: str) -> None:
    """User, query and fragment are left out."""
    desk = Desk()
    ctx = request()
    carries(ctx, "resources/read", "resource", uri)
    desk.record(ctx)
    assert desk.lines.only()["target"] == shown


def test_a_task_id_is_not_shown() -> None:
    """Whoever knows a task's id may be able to read its result."""
    desk = Desk()
    ctx = request()
    carries(ctx, "tasks/get", "task", "786512e2-9e0d-44bd-8f29-789f320fe840")
    desk.record(ctx)
    assert desk.lines.only()["target"] is None
    assert b"786512e2" not in desk.lines.written[0]


def test_the_query_is_not_shown() -> None:
    """Tokens travel in queries."""
    desk = Desk()
    desk.record(answered(desk))
    assert b"hidden" not in desk.lines.written[0]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400), st.text(max_size=400), st.text(max_size=400))
def test_hostile_text_stays_inside_its_field(path: str, method: str, target: str) -> None:
    """Whatever a client names things, the record is one line of printable text of bounded length (reliability D4)."""
    desk = Desk()
    ctx = request(path=path)
    carries(ctx, method, "tool", target)
    desk.record(ctx)
    line = desk.lines.only()
    assert desk.metrics.record_failures == 0
    assert desk.lines.written[0].decode().rstrip("\n").isprintable()
    assert len(desk.lines.written[0]) < 12_000
    assert set(line) >= {"timestamp", "status", "outcome", "generation"}


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\nb", "\u009b2J", "\u202egnp.exe", "\ud800", '"}\n{"fake":1}'])
def test_control_characters_are_escaped(text: str) -> None:
    """Line breaks, ANSI and C1 controls, bidirectional overrides and lone surrogates appear as escapes."""
    desk = Desk()
    ctx = request()
    carries(ctx, "tools/call", "tool", text)
    desk.record(ctx)
    assert desk.lines.only()["target"].isprintable()


def test_metrics_go_on_without_the_access_log() -> None:
    """`log.access: false` silences the line only."""
    desk = Desk(enabled=False)
    desk.record(answered(desk))
    desk.recorder.refused_early(BadRequest("bare CR"), "192.0.2.9")
    assert desk.lines.written == []
    assert desk.counted("mcp_proxy_requests_total") == {("github", "tools/call", "ok"): 1}
    assert desk.counted("mcp_proxy_refusals_total") == {("bad_request",): 1}


def test_what_the_gate_refuses_is_recorded_too() -> None:
    """There was no request yet, so the line says who, what status and why."""
    desk = Desk()
    desk.recorder.refused_early(BadRequest("bare CR"), "192.0.2.9")
    line = desk.lines.only()
    assert (line["client"], line["status"], line["outcome"]) == ("192.0.2.9", 400, "refused")
    assert (line["reason"], line["detail"]) == ("bad_request", "bare CR")


class Broken:
    """Raises at every touch."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)


def test_a_record_that_fails_is_counted_and_costs_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    """`record` never raises, and the request is not in flight any more."""
    desk = Desk()
    ctx = answered(desk)
    ctx.snapshot = cast(Any, Broken())
    desk.record(ctx)
    assert desk.metrics.record_failures == 1
    assert desk.metrics.in_flight == 0
    assert "record failed" in capfd.readouterr().out


def test_a_bug_is_logged_with_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    """The client sees nothing of it; the log does."""
    desk = Desk()
    try:
        raise ZeroDivisionError("a bug")
    except ZeroDivisionError as bug:
        desk.recorder.bug(answered(desk), bug)
    shown = capfd.readouterr().out
    assert "ZeroDivisionError: a bug" in shown
    assert "github" in shown


def test_the_access_line_survives_a_real_stream(tmp_path: Any) -> None:
    """From record to file: whole lines, in order."""
    desk = Desk()
    path = tmp_path / "log"
    with path.open("wb") as file:
        stream = BatchedStream(os.dup(file.fileno()))
        recorder = Recorder(desk.metrics, AccessLog(stream, "json"), True)
        for number in range(500):
            ctx = request(path=f"/{number}")
            recorder.begin(ctx)
            recorder.record(ctx, 101.0)
        stream.close()
    lines = path.read_bytes().splitlines()
    assert [orjson.loads(line)["path"] for line in lines] == [f"/{number}" for number in range(500)]
    assert stream.dropped == 0
