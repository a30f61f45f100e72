"""Requests in a trace: identities, parents, sampling, and what servers are told."""

from __future__ import annotations

import random
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.tracing import Tracing
from proxy.dataplane.context import RequestContext
from proxy.dataplane.tracer import Followed, Moments, Tracer
from proxy.errors import UpstreamFailed
from proxy.mcp.trace import parse
from tests.unit.dataplane.asked import ask, snapshot
from tests.unit.dataplane.fakes import Time

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x"}}
ENDPOINT = "http://collector:4318/v1/traces"
WALL_NS = 1_800_000_000_000_000_000


class Traced:
    """A tracer, its clock, and what ended."""

    def __init__(self, bits: Callable[[int], int] | None = None, **settings: object) -> None:
        self.time = Time()
        self.over: list[tuple[Followed, str, Moments]] = []
        self.tracer = Tracer(
            Tracing.model_validate({"endpoint": ENDPOINT, **settings}),
            lambda ctx, request, outcome, at: self.over.append((request, outcome, at)),
            self.time, lambda: WALL_NS, bits or random.Random(1).getrandbits,
        )  # fmt: skip
        self.snapshot = snapshot({"up": "http://up.example:81/mcp", "other": "https://other.example/mcp"})

    def ask(self, *fields: tuple[str, str], meta: object = None) -> RequestContext:
        """A call of a tool."""
        body = orjson.dumps(CALL if meta is None else CALL | {"params": {"name": "x", "_meta": meta}})
        ctx = ask(self.snapshot, "/up/mcp", *fields, body=body)
        ctx.started_at = self.time.now
        return ctx


def traceparent(sampled: bool = True) -> tuple[str, str]:
    """The client's field."""
    return ("Traceparent", f"00-{TRACE}-{SPAN}-{'01' if sampled else '00'}")


def test_a_request_of_a_trace_goes_on_as_its_child() -> None:
    """The record names our span; the server is told of the try, in the same trace."""
    traced = Traced()
    ctx = traced.ask(traceparent(), ("Tracestate", "a=b"))
    traced.tracer.begin(ctx)
    assert ctx.trace_id == TRACE
    assert ctx.span_id not in ("", SPAN)
    attempt = traced.tracer.attempt(ctx, traced.snapshot.upstreams["up"])
    headers = attempt.fields(list(ctx.head.headers))
    told = parse(dict(headers)["traceparent"])
    assert told is not None
    assert (told.trace_id, told.sampled, told.span_id == f"{attempt.span_id:016x}") == (TRACE, True, True)
    assert told.span_id != ctx.span_id
    assert dict(headers)["Tracestate"] == "a=b"
    assert len(headers) == len(ctx.head.headers)
    traced.tracer.end(ctx, "ok")
    [(request, outcome, _)] = traced.over
    assert (request.parent, request.attempts, outcome) == (int(SPAN, 16), [attempt], "ok")
    assert traced.tracer.open == 0


def test_a_trace_of_the_message_is_followed_where_the_header_has_none() -> None:
    """The body passes as it is."""
    traced = Traced()
    ctx = traced.ask(meta={"traceparent": traceparent()[1]})
    traced.tracer.begin(ctx)
    assert ctx.trace_id == TRACE


def test_a_request_without_a_trace_begins_one() -> None:
    """A state without a trace belongs to nobody and goes no further."""
    traced = Traced()
    ctx, other = traced.ask(("tracestate", "a=b"), ("traceparent", "nonsense")), traced.ask()
    traced.tracer.begin(ctx)
    traced.tracer.begin(other)
    assert parse(f"00-{ctx.trace_id}-{ctx.span_id}-01") is not None
    assert ctx.trace_id != other.trace_id
    headers = traced.tracer.attempt(ctx, traced.snapshot.upstreams["up"]).fields(list(ctx.head.headers))
    assert [name for name, _ in headers if name.lower().startswith("trace")] == ["traceparent"]
    traced.tracer.end(ctx)
    assert traced.over[0][0].parent == 0


def test_identities_are_never_zero() -> None:
    """Zero would be none (W3C Trace Context, section 3.2.2.3)."""
    traced = Traced(bits=lambda count: 0)
    ctx = traced.ask()
    attempt = traced.tracer.attempt(ctx, traced.snapshot.upstreams["up"])
    assert parse(attempt.traceparent) is not None
    assert int(ctx.span_id, 16) == 1


@pytest.mark.parametrize(
    ("sample", "follows", "client", "recorded"),
    [
        (0.0, True, True, True), (1.0, True, False, False), (0.0, False, True, False), (1.0, False, False, True),
        (1.0, True, None, True), (0.0, True, None, False),
    ],
)  # fmt: skip
def test_who_decides_what_is_recorded(sample: float, follows: bool, client: bool | None, recorded: bool) -> None:
    """The client, if it is followed; else the share. What is not recorded is followed all the same, and told so."""
    traced = Traced(sample=sample, follow_clients=follows)
    ctx = traced.ask(*(() if client is None else (traceparent(client),)))
    told = parse(traced.tracer.attempt(ctx, traced.snapshot.upstreams["up"]).traceparent)
    assert told is not None
    assert told.sampled is recorded
    traced.tracer.end(ctx)
    assert len(traced.over) == recorded
    assert traced.tracer.open == 0


def test_a_share_of_traces_is_recorded() -> None:
    """As many as there should be, and a trace always or never."""
    traced = Traced(sample=0.25)
    for _ in range(4000):
        ctx = traced.ask()
        traced.tracer.end(ctx)
    assert 850 < len(traced.over) < 1150
    for request, _, _ in traced.over:
        assert request.trace_id & (1 << 64) - 1 < 1 << 62


def test_a_try_lasts_until_it_failed_or_the_request_is_over() -> None:
    """Times are those of the wall, counted back from the end."""
    traced = Traced()
    ctx = traced.ask()
    traced.time.now += 1
    first = traced.tracer.attempt(ctx, traced.snapshot.upstreams["up"])
    traced.time.now += 1
    first.failed(UpstreamFailed("x"))
    first.end()
    second = traced.tracer.attempt(ctx, traced.snapshot.upstreams["other"])
    second.answered(200)
    traced.time.now += 2
    traced.tracer.end(ctx)
    [(request, _, at)] = traced.over
    assert request.attempts == [first, second]
    assert (first.error, second.error, second.status) == ("upstream_failed", "", 200)
    moments = (ctx.started_at, first.started_at, first.ended_at, second.started_at, second.ended_at)
    assert [(at.ns(moment) - WALL_NS) / 1e9 for moment in moments] == [-4, -3, -2, -2, 0]


def test_a_request_that_was_never_begun_can_end() -> None:
    """It was refused before anybody asked; and its record names it."""
    traced = Traced()
    ctx = traced.ask(traceparent())
    traced.tracer.end(ctx, "refused")
    assert (ctx.trace_id, len(traced.over), traced.tracer.open) == (TRACE, 1, 0)


@given(steps=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["begin", "attempt", "end"])), max_size=40))
def test_every_request_that_ends_is_forgotten(steps: list[tuple[int, str]]) -> None:
    """In whatever order things happen, and as often as they do."""
    traced = Traced()
    requests = [traced.ask() for _ in range(4)]
    for number, step in steps:
        ctx = requests[number]
        if step == "begin":
            traced.tracer.begin(ctx)
        elif step == "attempt":
            traced.tracer.attempt(ctx, traced.snapshot.upstreams["up"])
        else:
            traced.tracer.end(ctx)
    before = traced.tracer.open
    for ctx in requests:
        traced.tracer.end(ctx)
    assert before <= 4
    assert traced.tracer.open == 0
