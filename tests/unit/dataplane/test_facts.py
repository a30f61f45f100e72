"""The line of a request is complete, bounded, and free of secrets."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.dataplane.facts import Facts
from proxy.errors import Forbidden
from proxy.mcp.envelope import Envelope, Kind, Message
from proxy.mcp.methods import Access
from proxy.metrics import OUTCOMES
from tests.unit.dataplane.recording import Desk, answered, carries, request


def test_a_line_tells_the_whole_story_of_a_request() -> None:
    """Every field that docs/operations.md promises is there, with its unit."""
    desk = Desk()
    desk.record(answered(desk))
    line = desk.lines.only()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info", "event": "request", "kind": "outcome", "server": "github", "server_id": None, "status": 200,
        "outcome": "ok", "reason": None, "error_code": None, "detail": None, "shadowed": None, "duration_ms": 500.0,
        "first_byte_ms": 250.0, "queue_ms": None, "connect_ms": None, "bytes_in": 345, "bytes_out": 4567,
        "streamed": False, "tries": 1, "id": None, "method": "POST", "path": "/github/mcp", "route": "search-canary",
        "rpc_method": "tools/call", "target": "search_code", "target_kind": "tool", "messages": 1, "era": "legacy",
        "revision": "2025-11-25", "client": "192.0.2.7", "session": None, "user_agent": None, "trace_id": None,
        "span_id": None, "risk": None, "risk_reasons": None, "auth_ms": 0.0, "limit_ms": None, "generation": 3,
        "tenant": None, "tenant_id": None, "principal": None, "key_id": None, "user_id": None, "impersonator": None,
        "source": "anonymous", "instance": None,
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


def test_a_client_that_left_before_any_answer_is_499() -> None:
    """As nginx and Caddy record it; without a first byte there is no time to it."""
    desk = Desk()
    desk.record(request())
    line = desk.lines.only()
    assert (line["status"], line["outcome"], line["first_byte_ms"]) == (499, "client_gone", None)
    assert desk.counted("mcp_proxy_first_byte_seconds_count") == {}


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


def parts_of_a_line() -> st.SearchStrategy[dict[str, object]]:
    """What a request may or may not have."""
    text = st.text(max_size=40)
    return st.fixed_dictionaries(
        {
            "id": st.sampled_from(("", "018f0000-0000-7000-8000-000000000001")),
            "trace_id": st.sampled_from(("", "a" * 32)),
            "risk": st.sampled_from((None, "low", "critical")), "risk_reasons": st.sampled_from(((), ("denied",))),
            "limited_s": st.sampled_from((0.0, 0.0123)), "authenticated_s": st.floats(0, 100),
            "shadowed": st.sampled_from(((), ("a rule",))), "revision": text, "client_ip": st.just("192.0.2.1"),
        }
    )  # fmt: skip


@settings(deadline=None)
@given(parts_of_a_line(), st.booleans(), st.booleans())
def test_every_line_has_the_same_fields(parts: dict[str, object], refused: bool, batch: bool) -> None:
    """Whichever way it was put together, and again for a request that is alike."""
    desk, lines = Desk(), []
    for _ in range(2):
        ctx = answered(desk)
        for name, value in parts.items():
            setattr(ctx, name, value)
        if refused:
            ctx.refusal = Forbidden("why")
        if batch:
            assert ctx.envelope is not None
            ctx.envelope.batch = True
        desk.record(ctx)
        lines.append(orjson.loads(desk.lines.written[-1]))
    first, second = lines
    assert desk.metrics.record_failures == 0
    plain = Desk()
    plain.record(answered(plain))
    assert set(first) == set(plain.lines.only())
    assert {**first, "timestamp": ""} == {**second, "timestamp": ""}
    assert [first[name] or None for name in ("id", "trace_id", "risk")] == [
        parts[n] or None for n in ("id", "trace_id", "risk")
    ]
    assert first["auth_ms"] == pytest.approx(float(str(parts["authenticated_s"])) * 1e3, abs=1e-3)
    assert (first["reason"], first["error_code"]) == (("forbidden", 403) if refused else (None, None))


def test_a_batch_names_what_each_message_asks() -> None:
    """The first may be harmless."""
    desk = Desk()
    ctx = answered(desk)
    calls = [Message(Kind.REQUEST, "tools/call", number, Access.EXECUTE, "tool", f"t{number}") for number in range(10)]
    ctx.envelope = Envelope((Message(Kind.NOTIFICATION, "ping", None, Access.SESSION, "", ""), *calls), True, False, "")
    ctx.message = ctx.envelope.first
    desk.record(ctx)
    named = "ping; " + "; ".join(f"tools/call t{number}" for number in range(7)) + "; and 3 more"
    assert desk.lines.only()["target"] == named


def test_requests_that_are_alike_but_for_one_thing_are_not_told_alike() -> None:
    """Whatever is kept from the request before, only what is the same is repeated."""
    desk = Desk()
    desk.record(answered(desk))
    for change in ("path", "revision", "client_ip"):
        ctx = answered(desk)
        setattr(ctx, change, "other")
        desk.record(ctx)
    other = answered(desk)
    other.principal = replace(other.principal, id="user:2")
    desk.record(other)
    lines = [orjson.loads(line) for line in desk.lines.written]
    told = [(line["path"], line["revision"], line["client"], line["principal"]) for line in lines]
    assert len(set(told)) == len(told) == 5


@given(st.lists(st.integers(0, 4_000_000_000_000_000), min_size=1, max_size=5))
def test_a_record_tells_its_moment_to_the_microsecond(moments_us: list[int]) -> None:
    """Also when the clock is set back; at the limit of what a float can tell, one microsecond less."""
    now = 0.0
    facts = Facts("", lambda: now)
    for moment_us in moments_us:
        now = moment_us / 1e6
        told = orjson.loads(facts.ending(answered(Desk()), "ok", 0.1, b'"id":null'))["timestamp"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", told)
        began = datetime(1970, 1, 1, tzinfo=UTC)
        assert (datetime.fromisoformat(told) - began) // timedelta(microseconds=1) - moment_us in (-1, 0)


def test_what_is_kept_of_requests_has_a_bound() -> None:
    """In number and in size: names are the clients'."""
    facts, desk = Facts(), Desk()
    for number in range(9000):
        ctx = answered(desk)
        ctx.path = f"/{number}"
        facts.known(ctx)
    assert len(facts._alike) <= 8192
    before = len(facts._alike)
    ctx.path = "/" + "x" * 4000
    assert b'"path":"/xxx' in facts.known(ctx)
    assert len(facts._alike) == before
