"""A request learns its class, and under overload the lowest classes go no further."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.dataplane.classify import classify
from proxy.dataplane.context import RequestContext
from proxy.dataplane.priority import HIGH, LOW, NORMAL
from proxy.dataplane.shedding import EVERYONE, Load
from proxy.errors import Shed
from tests.harness import CALL
from tests.unit.dataplane.asked import ask, snapshot, somebody

DISCOVER = b'{"jsonrpc":"2.0","id":1,"method":"server/discover"}'


def asked(tier: str, body: bytes | None = CALL) -> RequestContext:
    """A request of somebody of this tier; without a body it is a GET."""
    principal = replace(somebody("x"), tier=tier)
    method = "GET" if body is None else "POST"
    return ask(snapshot({"up": "http://127.0.0.1:9/mcp"}), "/up/mcp", method=method, body=body, principal=principal)


@pytest.mark.parametrize(("tier", "number"), [("admin", HIGH), ("user", NORMAL), ("anonymous", LOW)])
def test_a_request_has_the_class_of_whoever_asks(tier: str, number: int) -> None:
    """By the snapshot that it began with."""
    ctx = asked(tier)
    classify(ctx, Load())
    assert ctx.priority == number


def test_a_reload_changes_the_classes_of_what_comes_then() -> None:
    """They are the configuration's."""
    changed = snapshot({"up": "http://127.0.0.1:9/mcp"}, priorities={"tiers": {"user": "low"}})
    ctx = ask(changed, "/up/mcp", body=CALL, principal=replace(somebody("x"), tier="user"))
    classify(ctx, Load())
    assert ctx.priority == LOW


@pytest.mark.parametrize("body", [CALL, None])
def test_under_overload_the_lowest_class_is_refused_and_the_others_pass(body: bytes | None) -> None:
    """Streams like calls; the class is known also of those who are refused."""
    load = Load()
    load.refused_from = LOW
    ctx = asked("anonymous", body)
    with pytest.raises(Shed) as refused:
        classify(ctx, load)
    assert (ctx.priority, load.shed) == (LOW, [0, 0, 1])
    assert dict(refused.value.headers)["Retry-After"] == "1"
    for tier in ("user", "admin"):
        classify(asked(tier, body), load)
    assert load.shed == [0, 0, 1]


def test_who_asks_whether_the_server_is_there_always_passes() -> None:
    """A client that is refused this takes another protocol."""
    load = Load()
    load.refused_from = EVERYONE
    classify(asked("anonymous", DISCOVER), load)
    with pytest.raises(Shed):
        classify(asked("admin"), load)
