"""Calls are rated by what is known of their tool and of who asks, and only what is wanted is kept of them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from proxy.config.record import Record
from proxy.dataplane.context import RequestContext
from proxy.dataplane.offers import Hints
from proxy.dataplane.scrutiny import Scrutiny
from proxy.errors import Forbidden, UpstreamFailed
from proxy.identity.principal import Scope
from proxy.mcp.envelope import Envelope, Kind, Message
from proxy.mcp.methods import Access
from tests.unit.dataplane.recording import Desk, answered

#: A Tuesday at noon, UTC.
NOON = 1_700_568_000.0
BODY = orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "t", "arguments": {"a": 1}}})


class Catalogue:
    """Knows one tool."""

    def __init__(self, **hints: bool | None) -> None:
        self.hints = Hints(**{"read_only": None, "destructive": None, "idempotent": None, "open_world": None, **hints})

    def tool(self, server: str, name: str) -> Any:
        return SimpleNamespace(hints=self.hints) if name == "search_code" else None


def scrutiny(tools: Catalogue | None = None, **config: Any) -> Scrutiny:
    return Scrutiny(Record.model_validate(config), cast(Any, tools or Catalogue()), b"k" * 32, lambda: NOON)


def called(**principal: Any) -> RequestContext:
    ctx = answered(Desk())
    ctx.body = BODY
    ctx.principal = replace(ctx.principal, id="key:1", **principal)
    return ctx


def test_a_destructive_tool_is_a_risk_and_somebody_hears_of_it() -> None:
    """As its server says."""
    heard: list[tuple[str, tuple[str, ...]]] = []
    looked = scrutiny(Catalogue(destructive=True))
    looked.risky = lambda ctx, level, reasons: heard.append((level, reasons))
    ctx = called()
    looked.call(ctx, cast(Any, ctx.upstream))
    assert (ctx.risk, ctx.risk_reasons) == ("high", ("destructive",))
    assert heard == [("high", ("destructive",))]


def test_a_call_of_a_harmless_tool_is_none() -> None:
    """And of what is not known nothing is said."""
    for tools in (Catalogue(read_only=True), Catalogue()):
        looked, ctx = scrutiny(tools), called()
        looked.call(ctx, cast(Any, ctx.upstream))
        assert (ctx.risk, ctx.risk_reasons) == ("low", ())


def test_who_may_administer_is_a_risk() -> None:
    """A stolen key of theirs opens more than one door."""
    looked, ctx = scrutiny(), called(scopes=frozenset(Scope))
    looked.call(ctx, cast(Any, ctx.upstream))
    assert (ctx.risk, ctx.risk_reasons) == ("medium", ("admin",))


@pytest.mark.parametrize(("refusal", "risk"), [(Forbidden(), "high"), (UpstreamFailed(), "low")])
def test_a_refusal_is_rated_by_its_reason(refusal: Any, risk: str) -> None:
    """What a server did wrong is no risk of who asked."""
    looked, ctx = scrutiny(), called()
    ctx.refusal = refusal
    looked.refusal(ctx)
    assert ctx.risk == risk


@pytest.mark.parametrize(("kept", "value"), [("none", None), ("hashed", None), ("sanitised", {"a": 1})])
def test_arguments_are_kept_as_configured(kept: str, value: Any) -> None:
    """Not at all, as a digest, or without secrets besides."""
    looked, ctx = scrutiny(arguments=kept), called()
    looked.keep_arguments(ctx)
    assert looked.keeps_arguments == (kept != "none")
    assert ctx.content.get("arguments") == value
    assert bool(ctx.content.get("arguments_hash")) == (kept != "none")


def test_results_are_overheard_only_where_they_are_kept() -> None:
    """And a reload changes that for the next call."""
    looked, ctx = scrutiny(), called()
    looked.answer(ctx, [("Content-Type", "application/json")])
    assert (ctx.capture, looked.keeps_results) == (None, False)
    looked.configure(Record(results="sanitised"))
    looked.answer(ctx, [("Content-Type", "application/json")])
    assert ctx.capture is not None
    assert looked.keeps_results


def test_a_batch_is_as_risky_as_the_worst_of_its_messages() -> None:
    """The first may be harmless."""
    looked, ctx = scrutiny(Catalogue(destructive=True)), called()
    calls = [Message(Kind.REQUEST, "tools/call", 1, Access.EXECUTE, "tool", name) for name in ("other", "search_code")]
    ctx.envelope = Envelope(tuple(calls), True, False, "2025-03-26")
    ctx.message = ctx.envelope.first
    looked.call(ctx, cast(Any, ctx.upstream))
    assert (ctx.risk, ctx.risk_reasons) == ("high", ("destructive",))
