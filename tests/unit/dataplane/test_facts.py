"""The line of a request is complete, bounded, and free of secrets."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        "span_id": None, "risk": None, "risk_reasons": None, "auth_ms": None, "limit_ms": None, "generation": 3,
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
