"""A request takes its tokens or is told when to come back; what is free does not wait."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from proxy.dataplane.allowance import Allowance, allowance_of
from proxy.dataplane.context import RequestContext
from proxy.dataplane.ratelimit import Limiter
from proxy.dataplane.tokens import take_tokens
from proxy.errors import RateLimited, TooManyStreams
from proxy.limits.rules import Rule
from tests.harness import CALL
from tests.unit.dataplane.admitted import configuration
from tests.unit.dataplane.asked import ask, snapshot, somebody
from tests.unit.dataplane.fakes import Proxy

UP = {"up": "http://up.test/mcp"}
DISCOVER = b'{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{}}'
TWO: Any = {"routes": [{"name": "both", "path": "/both", "servers": ["up", "next"]}]}


class Desk:
    """A limiter of this process, on the test's time, and rules."""

    def __init__(self, *rules: dict[str, Any], **limits: Any) -> None:
        self.proxy = Proxy({"servers": {"up": {"url": UP["up"]}}})
        self.told: list[tuple[str, str, str, str, float]] = []
        self.parts = self.proxy.parts._replace(limiter=Limiter(None, self.proxy.time, "here"), violated=self._violated)
        self.allowance: Allowance = allowance_of(
            configuration(limits={"preset": "none", "rules": list(rules), **limits}), {}
        )

    def _violated(self, rule: Rule, subject: str, tenant: str, ip: str, limit: float, wait_s: float) -> None:
        assert limit == rule.capacity
        self.told.append((rule.name, subject, tenant, ip, wait_s))

    async def take(self, ctx: RequestContext) -> None:
        """Take what the request needs."""
        await take_tokens(ctx, self.allowance, self.parts)


def call(**options: Any) -> RequestContext:
    """A tool call that has its route."""
    return ask(snapshot(UP), "/up/mcp", body=CALL, **options)


def rule(**keys: Any) -> dict[str, Any]:
    """Two at once, one more each second, for each address."""
    return {"name": "addresses", "level": "client_address", "rate": "60/min", "burst": 2, **keys}


async def test_who_has_used_everything_is_told_when_to_come_back() -> None:
    """With the rule's name, how much it holds, how fast it fills, and what is left (none)."""
    desk = Desk(rule())
    await desk.take(call())
    await desk.take(call())
    with pytest.raises(RateLimited) as caught:
        await desk.take(call())
    assert caught.value.rule == "addresses"
    assert dict(caught.value.headers) == {
        "Retry-After": "1", "RateLimit-Policy": '"addresses";q=2;w=2', "RateLimit": '"addresses";r=0;t=1',
    }  # fmt: skip
    assert [(name, ip) for name, _, _, ip, _ in desk.told] == [("addresses", "192.0.2.7")]
    assert 0 < desk.told[0][4] <= 1
    await desk.take(call(peer="192.0.2.8"))
    desk.proxy.time.now += 1
    await desk.take(call())


async def test_discovery_is_never_refused() -> None:
    """A refusal would make clients speak an older protocol."""
    desk = Desk(rule(burst=1))
    for _ in range(5):
        await desk.take(ask(snapshot(UP), "/up/mcp", body=DISCOVER))
    assert not desk.told


async def test_a_rule_that_is_not_enforced_is_told_of_and_lets_pass() -> None:
    """The request names it for the log."""
    desk = Desk(rule(burst=1, enforce=False))
    await desk.take(call())
    ctx = call()
    await desk.take(ctx)
    assert ctx.shadowed == ("addresses",)
    assert [(name, wait_s) for name, *_, wait_s in desk.told] == [("addresses", 0.0)]


async def test_every_message_of_a_batch_counts() -> None:
    """Three calls do not fit where two do, and take nothing."""
    desk = Desk(rule())
    with pytest.raises(RateLimited):
        await desk.take(ask(snapshot(UP), "/up/mcp", body=b"[" + b",".join([CALL] * 3) + b"]"))
    await desk.take(ask(snapshot(UP), "/up/mcp", body=b"[" + b",".join([CALL] * 2) + b"]"))


async def test_a_server_is_limited_by_its_name_and_several_by_the_route_s() -> None:
    """Which of them it will be is not known yet."""
    desk = Desk(rule(name="servers", level="server", burst=1))
    snap = snapshot({**UP, "next": "http://next.test/mcp"}, **TWO)
    await desk.take(ask(snap, "/up/mcp", body=CALL))
    await desk.take(ask(snap, "/both", body=CALL))
    for path, subject in (("/up/mcp", "up"), ("/both", "both")):
        with pytest.raises(RateLimited):
            await desk.take(ask(snap, path, body=CALL))
        assert desk.told[-1][1] == subject
    pinned = ask(snap, "/both", body=CALL)
    pinned.pinned = snap.upstreams["next"]
    await desk.take(pinned)


async def test_streams_have_an_end_of_their_own() -> None:
    """So many for a client, so many for its tenant; calls go on."""
    desk = Desk(streams={"per_principal": 1, "per_tenant": 2})
    one, other = somebody("key:1", "t1"), somebody("key:2", "t1")

    def stream(principal: Any) -> RequestContext:
        return ask(snapshot(UP), "/up/mcp", method="GET", principal=principal)

    streams = desk.parts.streams
    streams.open(stream(one))
    with pytest.raises(TooManyStreams) as caught:
        await desk.take(stream(one))
    assert dict(caught.value.headers)["Retry-After"]
    await desk.take(stream(other))
    await desk.take(call(principal=one))
    streams.open(stream(other))
    with pytest.raises(TooManyStreams):
        await desk.take(stream(somebody("key:3", "t1")))
    await desk.take(stream(somebody("key:3", "t2")))


async def test_anonymous_clients_are_told_apart_by_their_address() -> None:
    """One of them does not use up the streams of all."""
    desk = Desk(streams={"per_principal": 1})
    desk.parts.streams.open(ask(snapshot(UP), "/up/mcp", method="GET", peer="192.0.2.1"))
    await desk.take(ask(snapshot(UP), "/up/mcp", method="GET", peer="192.0.2.2"))
    with pytest.raises(TooManyStreams):
        await desk.take(ask(snapshot(UP), "/up/mcp", method="GET", peer="192.0.2.1"))


async def test_without_a_limiter_or_rules_nothing_is_taken() -> None:
    """Whatever is asked."""
    desk = Desk()
    await desk.take(call())
    limited = Desk(rule(burst=1))
    for _ in range(3):
        await take_tokens(call(), limited.allowance, limited.parts._replace(limiter=None))
    assert replace(limited.allowance, streams_of_client=1).limits_streams
