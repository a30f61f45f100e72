"""Each request leaves one record, and never at the cost of the answer."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, cast

import orjson
import pytest

from proxy.batched_stream import BatchedStream
from proxy.config.record import Record
from proxy.dataplane.context import RequestContext
from proxy.dataplane.recorder import Recorder
from proxy.errors import (
    BadRequest,
    Blocked,
    ConnectFailed,
    Forbidden,
    InternalError,
    NoRoute,
    PoolExhausted,
    Refusal,
    Unrecorded,
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


@pytest.mark.parametrize("broken", ["_usage", "tracer", "_access_log", "capture"])
def test_what_was_begun_is_ended_once_whatever_fails(broken: str) -> None:
    """Or its intent would be open until the process dies, and nobody would know how it ended."""
    desk, pages = kept()
    ctx = sent(desk)
    desk.recorder.intend(ctx, cast(Any, ctx.upstream))
    ctx.outcome = "timeout"
    if broken == "capture":
        ctx.capture = cast(Any, Broken())
    else:
        setattr(desk.recorder, broken, Broken())
    desk.record(ctx)
    assert desk.metrics.record_failures == 1
    ((outcome, grade),) = pages.ended.values()
    assert (outcome["kind"], outcome["id"], outcome["outcome"], outcome["tenant_id"], grade, pages.ends) == (
        "outcome", "r1", "timeout", "t1", "standard", 1,
    )  # fmt: skip
    assert (outcome.get("status") == 200) == (broken == "_usage")


class Scrutinised:
    """A scrutiny, or one with a bug where it is asked for it."""

    keeps_arguments = keeps_results = True

    def __init__(self, bug: str = "") -> None:
        self.bug = bug

    def call(self, ctx: RequestContext, upstream: Any) -> None:
        ctx.risk = self.done("call", "low")

    def keep_arguments(self, ctx: RequestContext) -> None:
        ctx.content = {"arguments": self.done("keep_arguments", "kept")}

    def answer(self, ctx: RequestContext, headers: Any) -> None:
        self.done("answer", "")

    def refusal(self, ctx: RequestContext) -> None:
        ctx.risk = self.done("refusal", "high")

    def done(self, what: str, found: str) -> str:
        if what == self.bug:
            raise ZeroDivisionError(what)
        return found


@pytest.mark.parametrize("bug", ["", "call", "keep_arguments", "answer"])
def test_a_bug_in_rating_or_capture_costs_nothing_else(bug: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The call is sent, and both rows are kept without what could not be found out; it is counted and logged."""
    desk, pages = kept()
    desk.recorder.scrutiny = cast(Any, Scrutinised(bug))
    ctx = sent(desk)
    assert desk.recorder.intend(ctx, cast(Any, ctx.upstream)) is False
    desk.recorder.answered(ctx, [])
    desk.record(ctx)
    assert ctx.intended
    (intent, _), (outcome, _) = pages.begun["r1"], pages.ended["r1"]
    risk = None if bug == "call" else "low"
    assert (intent["risk"], outcome["risk"], outcome["outcome"]) == (risk, risk, "ok")
    assert intent.get("arguments") == (None if bug == "keep_arguments" else "kept")
    assert desk.metrics.record_failures == bool(bug)
    assert (f"ZeroDivisionError: {bug}" in capfd.readouterr().out) == bool(bug)


@pytest.mark.parametrize("kept_results", [False, True])
def test_an_answer_is_looked_at_only_where_results_are_kept(kept_results: bool) -> None:
    """Every answer passes here: what is not wanted is not asked for."""
    desk, _ = kept()
    scrutinised = Scrutinised("answer")
    scrutinised.keeps_results = kept_results
    desk.recorder.scrutiny = cast(Any, scrutinised)
    ctx = sent(desk)
    desk.recorder.intend(ctx, cast(Any, ctx.upstream))
    desk.recorder.answered(ctx, [])
    assert desk.metrics.record_failures == kept_results


@pytest.mark.parametrize("bug", ["", "refusal"])
def test_a_refusal_that_cannot_be_rated_is_recorded_all_the_same(bug: str) -> None:
    """Without its risk."""
    desk, pages = kept()
    desk.recorder.scrutiny = cast(Any, Scrutinised(bug))
    ctx = sent(desk)
    ctx.refusal, ctx.status = Forbidden(), 403
    desk.record(ctx)
    ((record, _, _),) = pages.others
    assert (record["reason"], record["risk"]) == ("forbidden", None if bug else "high")
    assert desk.metrics.record_failures == bool(bug)


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


class Pages:
    """A journal in memory, which may be full."""

    def __init__(self, full: bool = False) -> None:
        self.full = full
        self.begun: dict[str, tuple[dict[str, Any], str]] = {}
        self.ended: dict[str, tuple[dict[str, Any], str]] = {}
        self.others: list[tuple[dict[str, Any], str, str]] = []
        self.skipped: list[str] = []
        self.late: bool | None = False
        self.ends = 0

    def begin(self, key: str, record: bytes, grade: str) -> bool:
        if not self.full:
            self.begun[key] = (orjson.loads(record), grade)
        return not self.full

    def end(self, key: str, record: bytes, grade: str) -> bool:
        self.ended[key] = (orjson.loads(record), grade)
        self.ends += 1
        return True

    def append(self, record: bytes, grade: str, tenant: str) -> bool:
        self.others.append((orjson.loads(record), grade, tenant))
        return True

    def skip(self, tenant: str) -> None:
        self.skipped.append(tenant)

    async def durable(self) -> bool:
        if self.late:
            raise TimeoutError
        return self.late is False


def kept(grade: str = "standard", full: bool = False, **config: Any) -> tuple[Desk, Pages]:
    desk, pages = Desk(), Pages(full)
    desk.recorder.config = Record.model_validate({"audit": grade, **config})
    desk.recorder.journal = pages
    return desk, pages


def sent(desk: Desk, name: str = "r1") -> RequestContext:
    """A call that is about to be sent."""
    ctx = answered(desk)
    ctx.intended, ctx.id = False, name
    ctx.principal = replace(ctx.principal, id="key:abc", tenant="t1", tenant_slug="acme")
    return ctx


def test_a_call_leaves_an_intent_before_it_is_sent_and_an_outcome_after() -> None:
    """Both under its name, and the outcome is its line in the log."""
    desk, pages = kept()
    ctx = sent(desk)
    assert desk.recorder.intend(ctx, cast(Any, ctx.upstream)) is False
    intent, grade = pages.begun["r1"]
    assert (intent["kind"], intent["id"], intent["rpc_method"], intent["target"], intent["server"], grade) == (
        "intent", "r1", "tools/call", "search_code", "github", "standard",
    )  # fmt: skip
    desk.record(ctx)
    outcome, _ = pages.ended["r1"]
    assert outcome == desk.lines.only()
    assert (outcome["kind"], outcome["outcome"], outcome["tenant_id"]) == ("outcome", "ok", "t1")
    assert pages.others == []


def test_a_refusal_leaves_one_record() -> None:
    """Nothing was sent, so there was no intent."""
    desk, pages = kept()
    ctx = sent(desk)
    ctx.refusal, ctx.status = Forbidden(), 403
    desk.record(ctx)
    (record, grade, tenant), *others = pages.others
    assert (record["kind"], record["reason"], grade, tenant, others) == ("denied", "forbidden", "standard", "t1", [])
    assert not pages.begun
    assert not pages.ended


def test_refusals_of_strangers_never_take_the_room_of_calls() -> None:
    """Nobody knows who they are; and those of blocked addresses are only counted."""
    desk, pages = kept("strict")
    stranger, blocked = request(), request()
    stranger.principal = replace(stranger.principal, id="")
    stranger.refusal, stranger.status = Forbidden(), 403
    blocked.refusal, blocked.status = Blocked(), 429
    desk.record(stranger)
    desk.record(blocked)
    assert [grade for _, grade, _ in pages.others] == ["usage"]
    assert pages.skipped == [""]


def test_a_call_that_cannot_be_recorded_is_refused() -> None:
    """With a 503 that says so and when to come back."""
    desk, _ = kept(full=True)
    ctx = sent(desk)
    with pytest.raises(Unrecorded) as refused:
        desk.recorder.intend(ctx, cast(Any, ctx.upstream))
    assert dict(refused.value.headers) == {"Retry-After": "1"}
    assert not ctx.intended


@pytest.mark.parametrize("late", [False, True, None])
async def test_a_strict_call_waits_for_the_disk(late: bool | None) -> None:
    """And is refused when that takes too long, or the disk takes nothing."""
    desk, pages = kept("strict")
    ctx = sent(desk)
    assert desk.recorder.intend(ctx, cast(Any, ctx.upstream)) is True
    pages.late = late
    if late is not False:
        with pytest.raises(Unrecorded):
            await desk.recorder.durable()
    else:
        await desk.recorder.durable()


@pytest.mark.parametrize(
    ("general", "tenants", "route", "own", "grade"),
    [
        ("standard", {}, "", False, "standard"),
        ("standard", {"acme": "strict"}, "", False, "strict"),
        ("standard", {"other": "strict"}, "", False, "standard"),
        ("standard", {"acme": "strict"}, "usage", False, "usage"),
        ("standard", {"acme": "strict"}, "usage", True, "strict"),
        ("usage", {}, "strict", True, "strict"),
    ],
)
def test_the_grade_is_that_of_the_route_or_the_tenant(
    general: str, tenants: dict[str, str], route: str, own: bool, grade: str
) -> None:
    """A tenant's own routes can make its record stricter, and no less strict than the operator wants it."""
    desk, pages = kept(general, tenants=tenants)
    ctx = sent(desk)
    assert ctx.route is not None
    ctx.route.audit = cast(Any, route or None)
    if own:
        ctx.routing = cast(Any, object())
    desk.recorder.intend(ctx, cast(Any, ctx.upstream))
    assert pages.begun["r1"][1] == grade


def test_nothing_is_kept_of_a_route_that_wants_no_record() -> None:
    """Its log line stays."""
    desk, pages = kept("none")
    ctx = sent(desk)
    desk.recorder.intend(ctx, cast(Any, ctx.upstream))
    desk.record(ctx)
    assert (pages.begun, pages.ended, pages.others) == ({}, {}, [])
    assert desk.lines.only()["kind"] == "outcome"
