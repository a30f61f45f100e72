"""Every request counts once, for its credential and for what it used; nothing grows without end, nothing is lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane import usage as module
from proxy.dataplane.context import RequestContext
from proxy.dataplane.usage import Usage, Uses
from proxy.identity.principal import Principal, Source
from tests.unit.dataplane.asked import ask, snapshot, somebody

SNAPSHOT = snapshot({"up": "http://up.test/mcp", "other": "http://other.test/mcp"})
ADA = replace(somebody("key:ada", "t-acme"), key_id="adaadaadaada", source=Source.KEY)
BOB = replace(somebody("token:bob", "t-acme"), key_id="bob", source=Source.BEARER)


def usage(*names: tuple[str, str, str]) -> Usage:
    """A counter that knows these names, else every one of the server `up`."""
    return Usage(lambda *key: key in names if names else key[0] == "up")


def call(
    method: str = "tools/call", target: str = "echo", *, server: str = "up", principal: Principal = ADA, s: float = 0.5
) -> RequestContext:
    """A request that took `s` seconds and ended at 10."""
    member = "uri" if method.startswith("resources/") else "name"
    body = b'{"jsonrpc":"2.0","id":1,"method":"%b","params":{"%b":"%b"}}'
    ctx = ask(SNAPSHOT, f"/{server}/mcp", body=body % (method.encode(), member.encode(), target.encode()))
    ctx.principal = principal
    ctx.started_at = 10 - s
    ctx.status = 200
    return ctx


def test_a_credential_is_counted_with_its_last_use() -> None:
    """Where from, when, and in which table and tenant it stands."""
    counter = usage()
    ctx = call("ping")
    counter.count(ctx, 10.0)
    ctx.client_ip = "2001:db8::1"
    counter.count(ctx, 11.0)
    counter.count(call(principal=BOB), 12.0)
    uses = counter.take().credentials
    assert uses.keys() == {"adaadaadaada", "bob"}
    ada, bob = uses["adaadaadaada"], uses["bob"]
    assert (ada.source, ada.tenant, ada.calls, ada.at, ada.ip) == (Source.KEY, "t-acme", 2, 11.0, "2001:db8::1")
    assert (bob.source, bob.calls, bob.at) == (Source.BEARER, 1, 12.0)


def test_sessions_and_anonymous_clients_have_no_counters() -> None:
    """Their tables have no such columns."""
    counter = usage()
    counter.count(call(principal=replace(ADA, source=Source.SESSION)), 10.0)
    counter.count(call(principal=replace(ADA, key_id="", source=Source.ANONYMOUS)), 10.0)
    assert counter.take().credentials == {}


@pytest.mark.parametrize(
    ("method", "kind"), [("tools/call", "tool"), ("prompts/get", "prompt"), ("resources/read", "resource")]
)
def test_what_is_used_is_counted(method: str, kind: str) -> None:
    """By server, kind and name, with how long it took."""
    counter = usage()
    for seconds in (0.5, 0.25):
        counter.count(call(method, "x:y", s=seconds), 10.0)
    uses = counter.take().items
    assert uses.keys() == {("up", kind, "x:y")}
    item = uses["up", kind, "x:y"]
    assert (item.calls, item.errors, item.seconds, item.at) == (2, 0, 0.75, 10.0)
    assert item.place is SNAPSHOT.upstreams["up"].place


@pytest.mark.parametrize("method", ["resources/subscribe", "tools/list", "ping", "completion/complete"])
def test_what_is_no_use_of_something_is_not_counted(method: str) -> None:
    """Though it may name something."""
    counter = usage()
    counter.count(call(method), 10.0)
    assert counter.take().items == {}


@pytest.mark.parametrize(
    ("status", "outcome", "errors"),
    [(200, "", 0), (404, "", 1), (502, "", 1), (200, "timeout", 1), (200, "upstream_truncated", 1),
     (200, "client_gone", 0), (0, "client_gone", 0), (200, "drained", 0), (200, "revoked", 0)],
)  # fmt: skip
def test_a_use_fails_when_the_server_does(status: int, outcome: str, errors: int) -> None:
    """Not when the client leaves, or is made to."""
    counter = usage()
    ctx = call()
    ctx.status, ctx.outcome = status, outcome
    counter.count(ctx, 10.0)
    assert counter.take().items["up", "tool", "echo"].errors == errors


def test_a_request_that_reached_no_server_used_nothing() -> None:
    """Its credential was used all the same; a request without a message uses nothing either."""
    counter = usage()
    refused, stream = call(), call()
    refused.upstream, stream.message = None, None
    counter.count(refused, 10.0)
    counter.count(stream, 10.0)
    uses = counter.take()
    assert (uses.items, uses.credentials["adaadaadaada"].calls) == ({}, 2)


def test_each_message_of_a_batch_counts() -> None:
    """The credential once: it was one request."""
    counter = usage()
    body = b",".join(
        b'{"jsonrpc":"2.0","id":%d,"method":"%b","params":{"name":"%b"}}' % (number, method, name)
        for number, (method, name) in enumerate(
            [(b"ping", b""), (b"tools/call", b"a"), (b"tools/call", b"a"), (b"prompts/get", b"b")]
        )
    )
    ctx = ask(SNAPSHOT, "/up/mcp", ("MCP-Protocol-Version", "2025-03-26"), body=b"[" + body + b"]")
    ctx.principal = ADA
    counter.count(ctx, 1.0)
    uses = counter.take()
    assert {key: item.calls for key, item in uses.items.items()} == {("up", "tool", "a"): 2, ("up", "prompt", "b"): 1}
    assert uses.credentials["adaadaadaada"].calls == 1


def test_names_that_no_list_has_named_have_no_counter() -> None:
    """Whoever makes up names fills nothing."""
    counter = usage(("up", "tool", "known"))
    for name in ("known", "made up", "made up too"):
        counter.count(call(target=name), 10.0)
    counter.count(call(target="known", server="other"), 10.0)
    assert counter.take().items.keys() == {("up", "tool", "known")}
    assert (counter.unknown, counter.overflowed) == (3, 0)


def test_counters_do_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has one goes on counting; the rest is counted together; what comes back finds the same bounds."""
    monkeypatch.setattr(module, "MAX_KEYS", 2)
    counter = usage()
    for name in ("a", "b", "c", "a"):
        counter.count(call(target=name, principal=replace(ADA, key_id=name)), 10.0)
    assert counter.overflowed == 2
    uses = counter.take()
    assert {key[2]: item.calls for key, item in uses.items.items()} == {"a": 2, "b": 1}
    assert {key: use.calls for key, use in uses.credentials.items()} == {"a": 2, "b": 1}
    counter.count(call(target="c", principal=replace(ADA, key_id="c")), 10.0)
    counter.give_back(uses)
    kept = counter.take()
    assert len(kept.items) == len(kept.credentials) == 2
    assert counter.overflowed == 2 + 2  # `b`, twice: as a tool and as a credential


def test_taking_leaves_nothing() -> None:
    """And says so."""
    counter = usage()
    assert not counter.take()
    counter.count(call(), 10.0)
    assert counter.take()
    assert counter.take() == Uses()


STEPS = st.one_of(st.sampled_from(["take", "back", "back first"]), st.tuples(st.sampled_from("abc"), st.booleans()))


@given(st.lists(STEPS))
def test_nothing_is_lost_however_often_it_comes_back(steps: list[str | tuple[str, bool]]) -> None:
    """Calls, failures and seconds add up, over any order of counting, taking and giving back."""
    counter = usage()
    taken: list[Uses] = []
    expected: Counter[str] = Counter()
    last = 0.0
    for now, step in enumerate(steps, 10):
        if step == "take":
            taken.append(counter.take())
        elif isinstance(step, str):
            if taken:
                counter.give_back(taken.pop(0 if step == "back first" else -1))
        else:
            name, fails = step
            ctx = call(target=name)
            ctx.status, ctx.started_at, last = 500 if fails else 200, now - 0.25, float(now)
            counter.count(ctx, float(now))
            expected[name] += 1
            expected[f"{name} failed"] += fails
    while taken:
        counter.give_back(taken.pop())
    uses = counter.take()
    found: Counter[str] = Counter()
    for (_, _, name), item in uses.items.items():
        found[name] += item.calls
        found[f"{name} failed"] += item.errors
        assert item.seconds == 0.25 * item.calls
    assert +found == +expected
    if last:
        assert uses.credentials["adaadaadaada"].calls == sum(expected[name] for name in "abc")
        assert max(item.at for item in uses.items.values()) == uses.credentials["adaadaadaada"].at == last
