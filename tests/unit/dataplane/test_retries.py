"""A request is sent twice only if that is harmless, and never so often that it adds much to the traffic."""

from __future__ import annotations

from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.config.resilience import Retry
from proxy.config.resilience import RetryBudget as Settings
from proxy.dataplane.catalogue import Catalogue
from proxy.dataplane.context import RequestContext
from proxy.dataplane.list_pages import Page
from proxy.dataplane.retries import REPEATABLE, RetryBudget, may_follow, may_repeat, was_sent
from proxy.errors import (
    BodyTooLarge,
    CircuitOpen,
    ConnectFailed,
    NoServer,
    PoolExhausted,
    QueueFull,
    QueueTimeout,
    Refusal,
    Shed,
    UnderMaintenance,
    UpstreamFailed,
    UpstreamTimeout,
)
from proxy.identity.access import Server as Place
from proxy.mcp.methods import METHODS, Access
from tests.unit.dataplane.asked import ask, snapshot

HINTED = Retry(tools="hinted")
READ_ONLY, IDEMPOTENT = {"readOnlyHint": True, "destructiveHint": True}, {"idempotentHint": True}
TARGETS = {"tools/call": {"name": "t"}, "prompts/get": {"name": "p"}, "completion/complete": {"ref": {}}}


class Exchange:
    """Whether the answer has begun."""

    started = False


def request(method: str, *, identity: int | None = 1, **options: Any) -> RequestContext:
    """A POST of one message."""
    params = TARGETS.get(method, {"uri": "file:///a"} if METHODS[method].kind == "resource" else {})
    message = {"jsonrpc": "2.0", "method": method, "params": params} | ({} if identity is None else {"id": identity})
    return posted(message, **options)


def posted(body: Any, **options: Any) -> RequestContext:
    """A POST of a JSON document."""
    return ask(snapshot({"up": "http://up.test/mcp"}), "/up/mcp", body=orjson.dumps(body), **options)


def at_rest(ctx: RequestContext) -> RequestContext:
    """Its answer has not begun."""
    ctx.exchange = cast("Any", Exchange())
    return ctx


def knowing(**annotations: dict[str, bool] | None) -> Catalogue:
    """A catalogue of servers that each have the tool `t`, with these annotations."""
    catalogue = Catalogue()
    for server, said in annotations.items():
        tool = {"name": "t", "inputSchema": {}} | ({} if said is None else {"annotations": said})
        catalogue.learn(server, Place(server), [Page("tool", [tool], None, None)], 0.0)
    return catalogue


NOBODY = knowing()


# --- which requests -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(METHODS))
def test_only_what_reads_may_be_repeated_without_further_ado(method: str) -> None:
    """Lists, gets, reads, completions, discover and ping; nothing that stays open or changes what a session is told."""
    reads = METHODS[method].access is Access.READ
    stays = method in ("subscriptions/listen", "resources/subscribe", "resources/unsubscribe")
    asked = request(method, identity=None if method.startswith("notifications/") else 1)
    assert may_repeat(asked, HINTED, NOBODY, "a", "b") == (reads and not stays)
    assert (method in REPEATABLE) == (reads and not stays)


@pytest.mark.parametrize("method", ["tools/list", "ping", "notifications/progress"])
def test_a_notification_is_sent_once(method: str) -> None:
    """Nobody would know whether it had come twice."""
    assert not may_repeat(request(method, identity=None), HINTED, NOBODY, "a")


def test_an_answer_to_the_server_is_sent_once() -> None:
    """Its request was another server's."""
    assert not may_repeat(posted({"jsonrpc": "2.0", "id": 1, "result": {}}), HINTED, NOBODY, "a")


def test_an_unknown_method_is_sent_once() -> None:
    """It may do anything."""
    assert not may_repeat(posted({"jsonrpc": "2.0", "id": 1, "method": "x/list"}), HINTED, NOBODY, "a")


@pytest.mark.parametrize(("last", "safe"), [("tools/list", True), ("tools/call", False), ("initialize", False)])
def test_a_batch_is_as_safe_as_its_worst_message(last: str, safe: bool) -> None:
    """One call makes all of it a call."""
    methods = ["ping", "resources/list", last]
    batch = [
        {"jsonrpc": "2.0", "id": number, "method": method, "params": TARGETS.get(method, {})}
        for number, method in enumerate(methods)
    ]
    assert may_repeat(posted(batch), HINTED, NOBODY, "a", "b") == safe
    batch.append({"jsonrpc": "2.0", "method": "notifications/progress"})
    assert not may_repeat(posted(batch), HINTED, NOBODY, "a", "b")


def test_what_nobody_has_read_is_sent_once() -> None:
    """A streamed body is gone, and of one that is not inspected nothing is known; a GET is a stream."""
    streamed = request("tools/list")
    streamed.body = None
    unread = request("tools/list")
    unread.envelope = None
    stream = ask(snapshot({"up": "http://up.test/mcp"}), "/up/mcp", method="GET")
    for ctx in (streamed, unread, stream):
        assert not may_repeat(ctx, HINTED, NOBODY, "a")
        assert not may_follow(at_rest(ctx), UpstreamFailed(), 1, HINTED)


# --- tools ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "safe"),
    [
        (READ_ONLY, True),
        (IDEMPOTENT, True),
        ({"readOnlyHint": False, "idempotentHint": True}, True),
        ({"readOnlyHint": False}, False),
        ({"idempotentHint": False, "destructiveHint": False}, False),
        ({}, False),
        (None, False),
    ],
)
def test_a_tool_may_be_called_twice_when_its_server_says_so(said: dict[str, bool] | None, safe: bool) -> None:
    """Read-only or idempotent; that it destroys nothing is not enough, and no word is a no."""
    assert may_repeat(request("tools/call"), HINTED, knowing(a=said), "a") == safe


@pytest.mark.parametrize(
    ("one", "other", "safe"),
    [(READ_ONLY, READ_ONLY, True), (READ_ONLY, IDEMPOTENT, True), (READ_ONLY, {}, False), ({}, READ_ONLY, False)],
)
def test_both_servers_must_say_so(one: dict[str, bool], other: dict[str, bool], safe: bool) -> None:
    """The one that may have done it, and the one that would do it again."""
    assert may_repeat(request("tools/call"), HINTED, knowing(a=one, b=other), "a", "b") == safe


def test_a_tool_that_is_not_known_is_called_once() -> None:
    """Its server's list has not passed; nor is there anything to go by without a server."""
    assert not may_repeat(request("tools/call"), HINTED, knowing(a=READ_ONLY), "a", "b")
    assert not may_repeat(request("tools/call"), HINTED, knowing(a=READ_ONLY))


def test_hints_count_only_where_the_route_wants_them() -> None:
    """They are a server's word, no promise."""
    assert not may_repeat(request("tools/call"), Retry(), knowing(a=READ_ONLY), "a")


# --- which failures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure", [ConnectFailed(), PoolExhausted(), QueueFull(), CircuitOpen(), UnderMaintenance("disk")]
)
def test_what_was_not_sent_goes_to_the_next_server(failure: Refusal) -> None:
    """Whatever it is, and however often it may be sent."""
    ctx = at_rest(request("tools/call"))
    assert may_follow(ctx, failure, 0, Retry(attempts=1))
    assert not was_sent(failure)
    stream = at_rest(ask(snapshot({"up": "http://up.test/mcp"}), "/up/mcp", method="GET"))
    assert may_follow(stream, failure, 0, Retry(attempts=1))


@pytest.mark.parametrize("failure", [QueueTimeout(), Shed()])
def test_who_was_sent_away_while_it_waited_was_not_sent(failure: Refusal) -> None:
    """Though nothing follows: what another server may have got stays the answer."""
    assert not was_sent(failure)


@pytest.mark.parametrize("failure", [UpstreamTimeout(), QueueTimeout(), Shed(), NoServer(), BodyTooLarge()])
def test_after_other_failures_nothing_follows(failure: Refusal) -> None:
    """A deadline that was missed is missed."""
    assert not may_follow(at_rest(request("tools/list")), failure, 1, Retry(attempts=10))


@pytest.mark.parametrize(("attempts", "sent", "follows"), [(1, 1, False), (2, 1, True), (2, 2, False), (3, 2, True)])
def test_a_broken_connection_leaves_as_many_tries_as_the_route_allows(attempts: int, sent: int, follows: bool) -> None:
    """Counting every time that it may have left."""
    assert may_follow(at_rest(request("tools/list")), UpstreamFailed(), sent, Retry(attempts=attempts)) == follows
    assert was_sent(UpstreamFailed())


@pytest.mark.parametrize("failure", [ConnectFailed(), UpstreamFailed()])
def test_nothing_follows_an_answer_that_has_begun(failure: Refusal) -> None:
    """The client would get two."""
    ctx = at_rest(request("tools/list"))
    cast("Exchange", ctx.exchange).started = True
    assert not may_follow(ctx, failure, 1, Retry())


# --- the budget -----------------------------------------------------------------------------------------------------


def test_a_few_retries_are_possible_without_any_traffic() -> None:
    """And the next when one is over."""
    budget = RetryBudget(Settings(percent=20, minimum=3))
    assert [budget.take() for _ in range(4)] == [True, True, True, False]
    budget.give_back()
    assert budget.take()
    assert (budget.taken, budget.refused, budget.retrying) == (4, 1, 3)


@given(st.integers(0, 2000), st.sampled_from([0, 1, 12.5, 20, 100]), st.integers(0, 5))
def test_no_more_than_its_share_of_the_traffic(requests: int, percent: float, minimum: int) -> None:
    """All that is allowed is granted, and nothing beyond."""
    budget = RetryBudget(Settings(percent=percent, minimum=minimum))
    for _ in range(requests):
        budget.begin()
    while budget.take():
        pass
    assert budget.retrying == max(minimum, int(requests * percent / 100))


class Retrying(RuleBasedStateMachine):
    """Requests that come and go, and retries of them, against a list of everything that is under way."""

    @initialize(percent=st.integers(0, 100), minimum=st.integers(0, 3))
    def begin(self, percent: int, minimum: int) -> None:
        self.budget = RetryBudget(Settings(percent=percent, minimum=minimum))
        self.under_way: list[str] = []
        self.log: list[bool] = []

    @rule(count=st.integers(1, 12))
    def requests_come(self, count: int) -> None:
        for _ in range(count):
            self.budget.begin()
        self.under_way += ["request"] * count

    @precondition(lambda self: "request" in self.under_way)
    @rule()
    def a_request_ends(self) -> None:
        self.budget.end()
        self.under_way.remove("request")

    @rule()
    def a_retry_is_wanted(self) -> None:
        retries, requests = self.under_way.count("retry"), self.under_way.count("request")
        config = self.budget.config
        room = retries < config.minimum or 100 * (retries + 1) <= requests * config.percent
        self.log.append(self.budget.take())
        assert self.log[-1] == room
        if room:
            self.under_way.append("retry")

    @precondition(lambda self: "retry" in self.under_way)
    @rule()
    def a_retry_ends(self) -> None:
        self.budget.give_back()
        self.under_way.remove("retry")

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "budget"):
            return
        assert self.budget.retrying == self.under_way.count("retry")
        assert self.budget.requests == self.under_way.count("request")
        assert (self.budget.taken, self.budget.refused) == (self.log.count(True), self.log.count(False))


TestRetrying = Retrying.TestCase
