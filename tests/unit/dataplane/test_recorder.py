"""Each request leaves one record, and never at the cost of the answer."""

from __future__ import annotations

import os
from typing import Any, cast

import orjson
import pytest

from proxy.batched_stream import BatchedStream
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
from proxy.log import AccessLog
from proxy.mcp.envelope import Kind, Message
from proxy.mcp.methods import Access
from proxy.metrics import OUTCOMES
from tests.unit.dataplane.recording import Desk, answered, request


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


def test_requests_without_a_message_count_under_their_http_method() -> None:
    """A GET stream and a DELETE have no JSON-RPC method; a response that a client posts is called so."""
    desk = Desk()
    desk.record(request(method="GET"))
    desk.record(request(method="DELETE"))
    posted = request()
    posted.message = Message(Kind.RESPONSE, "", None, Access.SESSION, "", "")
    desk.record(posted)
    assert {labels[1] for labels in desk.counted("mcp_proxy_requests_total")} == {"GET", "DELETE", "response"}


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
