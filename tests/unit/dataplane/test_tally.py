"""A request leaves one tuple behind; there is room for many, not for any number."""

from __future__ import annotations

import pytest

from proxy.dataplane import tally as module
from proxy.dataplane.tally import Tally
from tests.unit.dataplane.asked import ask, snapshot

SNAPSHOT = snapshot({"up": "http://up.test/mcp"})
BODY = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}'


def test_a_request_is_noted_with_what_its_sums_need() -> None:
    """As it is when it ends, in the order of the type."""
    tally = Tally()
    ctx = ask(SNAPSHOT, "/up/mcp", body=BODY)
    ctx.upstream = SNAPSHOT.upstreams["up"]
    ctx.started_at, ctx.status, ctx.bytes_in, ctx.bytes_out, ctx.streaming = 10.0, 200, 72, 9, True
    tally.count(ctx, "ok", 0.5)
    expected = (ctx.principal, ctx.upstream, ctx.envelope, "ok", "POST", True, 200, 10.5, 0.5, 72, 9)
    assert tally.take() == [expected]
    assert tally.take() == []


def test_nothing_of_what_was_asked_is_kept() -> None:
    """No argument, no header, no credential."""
    tally = Tally()
    ctx = ask(SNAPSHOT, "/up/mcp", body=BODY.replace(b'"echo"', b'"echo","arguments":{"s":"hidden"}'))
    tally.count(ctx, "ok", 0.5)
    assert "hidden" not in repr(tally.take())


def test_beyond_the_bound_requests_are_counted_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody took them away: the sums are late, the memory is not theirs."""
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    tally = Tally()
    for _ in range(5):
        tally.count(ask(SNAPSHOT, "/up/mcp", body=BODY), "ok", 0.5)
    assert tally.overflowed == 3
    assert len(tally.take()) == 2
    tally.count(ask(SNAPSHOT, "/up/mcp", body=BODY), "ok", 0.5)
    assert (len(tally.take()), tally.overflowed) == (1, 3)
