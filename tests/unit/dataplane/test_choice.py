"""What outranks a route's strategy, and what a client is told when nobody is left."""

from __future__ import annotations

import time
from typing import Any

import pytest

from proxy.dataplane.choice import answer_to, nobody, pick
from proxy.dataplane.context import RequestContext
from proxy.dataplane.maintenance import Active
from proxy.dataplane.upstream import Upstream
from proxy.errors import (
    CircuitOpen,
    ConnectFailed,
    NoServer,
    PoolExhausted,
    QueueFull,
    Refusal,
    SessionGone,
    UnderMaintenance,
    UpstreamFailed,
    UpstreamTimeout,
)
from tests.harness import CALL
from tests.unit.dataplane.asked import ask
from tests.unit.dataplane.fakes import Proxy
from tests.unit.dataplane.walking import open_breaker, route

URL = "http://127.0.0.1:9/mcp"
CHECKED = {"url": URL, "health_check": {"unhealthy_after": 1, "healthy_after": 1, "slow_start": "10s"}}


class Bench:
    """A route over servers, in the order written, on the test's time."""

    def __init__(self, *names: str, **servers: dict[str, Any]) -> None:
        names = names or ("a", "b")
        every = {name: servers.get(name, {"url": URL}) for name in names}
        self.proxy = Proxy({"servers": every, "routes": [route(*names)]})
        self.servers = self.proxy.live.snapshot.upstreams

    def ask(self, session: str = "", path: str = "/all") -> RequestContext:
        """A request, of a session at that server if one is named."""
        snapshot = self.proxy.live.snapshot
        ctx = ask(snapshot, path, body=CALL)
        ctx.upstream = None
        if session:
            ctx.session = snapshot.sealer.begin(ctx, session, "id")
            ctx.pinned = self.servers[session]
        return ctx

    def chosen(self, *tried: str, session: str = "") -> str:
        """Name of the server that a request goes to, '' for none."""
        upstream = pick(self.ask(session), tried)
        return upstream.name if upstream is not None else ""


def maintain(upstream: Upstream, title: str = "disk", lasts_s: float = 600.5, drains_s: float = 30.0) -> None:
    """It is in a window that ends then, and that has drained it by then."""
    now = time.time()
    upstream.window = Active(title, now + lasts_s, now + drains_s)


# --- who takes it ---------------------------------------------------------------------------------------------------


def test_without_a_reason_the_strategy_chooses_among_those_untried() -> None:
    """One after the other, each once."""
    bench = Bench("a", "b", "c")
    assert [bench.chosen(), bench.chosen("a"), bench.chosen("a", "b"), bench.chosen("a", "b", "c")] == [
        "a", "b", "c", "",
    ]  # fmt: skip


def test_a_session_goes_to_its_server_and_nowhere_else() -> None:
    """However it stands there: whoever asks it will see."""
    bench = Bench()
    assert (bench.chosen(session="b"), bench.chosen("b", session="b")) == ("b", "")
    open_breaker(bench.servers["b"])
    assert bench.chosen(session="b") == "b"


def test_an_open_breaker_is_passed_over_and_is_no_last_resort() -> None:
    """Until its trial is due, of which there is one."""
    bench = Bench()
    open_breaker(bench.servers["a"])
    assert (bench.chosen(), bench.chosen("b")) == ("b", "")
    bench.proxy.time.now += 7
    assert bench.chosen() == "a"
    bench.servers["a"].breaker.admit()
    assert bench.chosen() == "b"


def test_when_all_breakers_are_open_each_is_tried_a_second_later() -> None:
    """Servers that failed in turns, as in a rolling restart, are not left alone together; an only one is."""
    bench, alone = Bench(), Bench("a")
    for server in (*bench.servers.values(), *alone.servers.values()):
        open_breaker(server)
    assert (bench.chosen(), alone.chosen()) == ("", "")
    bench.proxy.time.now += 1.1
    alone.proxy.time.now += 1.1
    assert (bench.chosen(), alone.chosen()) == ("a", "")


def test_a_server_that_is_said_to_be_down_is_passed_over_but_better_than_none() -> None:
    """Checks may err: the least busy of those is asked."""
    bench = Bench("a", "b", "c", a=CHECKED, b=CHECKED)
    for name in "ab":
        bench.servers[name].health.checked(False, 0.1)
    assert bench.chosen() == "c"
    bench.servers["a"].in_flight = 1
    assert bench.chosen("c") == "b"
    assert bench.chosen("c", "b") == "a"
    open_breaker(bench.servers["b"])
    assert bench.chosen("c") == "a"


def test_after_a_recovery_the_share_grows() -> None:
    """A tenth at first, all of it after `slow_start`; whoever is left over goes to the others."""
    bench = Bench(a=CHECKED)
    health = bench.servers["a"].health
    health.checked(False, 0.1)
    health.checked(True, 0.1)
    bench.proxy.drawn = 0.11
    assert bench.chosen() == "b"
    bench.proxy.drawn = 0.09
    assert bench.chosen() == "a"
    bench.proxy.drawn = 0.56
    bench.proxy.time.now += 5
    assert bench.chosen() == "b"
    bench.proxy.drawn = 0.54
    assert bench.chosen() == "a"
    bench.proxy.drawn = 0.99
    assert bench.chosen("b") == "a"
    bench.proxy.time.now += 5
    assert bench.chosen() == "a"


def test_a_server_that_asked_for_rest_gets_what_nobody_else_can_take() -> None:
    """For as long as it said."""
    bench = Bench()
    bench.servers["a"].breaker.rest(20)
    assert (bench.chosen(), bench.chosen("b")) == ("b", "a")
    bench.proxy.time.now += 20
    assert bench.chosen() == "a"


# --- maintenance ----------------------------------------------------------------------------------------------------


def test_under_maintenance_a_server_takes_nothing_new_not_even_as_a_last_resort() -> None:
    """From the begin of the window on."""
    bench = Bench()
    maintain(bench.servers["a"])
    assert (bench.chosen(), bench.chosen("b")) == ("b", "")


def test_a_window_that_is_over_keeps_nobody_away() -> None:
    """Although nobody has taken it down yet."""
    bench = Bench("a")
    maintain(bench.servers["a"], lasts_s=-1, drains_s=-2)
    assert bench.chosen() == "a"
    assert bench.chosen(session="a") == "a"


def test_sessions_go_on_while_a_server_is_drained() -> None:
    """Others of the same server do not begin."""
    bench = Bench()
    maintain(bench.servers["a"])
    assert (bench.chosen(session="a"), bench.chosen()) == ("a", "b")


def test_after_the_drain_a_session_begins_anew_elsewhere() -> None:
    """404 makes its client do so."""
    bench = Bench()
    maintain(bench.servers["a"], drains_s=-1)
    with pytest.raises(SessionGone):
        bench.chosen(session="a")
    assert bench.chosen(session="b") == "b"


def _elsewhere_is_maintained(bench: Bench) -> None:
    maintain(bench.servers["b"])


def _elsewhere_fails(bench: Bench) -> None:
    open_breaker(bench.servers["b"])


@pytest.mark.parametrize("elsewhere", [_elsewhere_is_maintained, _elsewhere_fails])
def test_after_the_drain_a_session_that_would_find_nobody_waits(elsewhere: Any) -> None:
    """Its client must not lose its session for nothing."""
    bench = Bench()
    elsewhere(bench)
    maintain(bench.servers["a"], drains_s=-1)
    with pytest.raises(UnderMaintenance) as refused:
        bench.chosen(session="a")
    assert (refused.value.title, refused.value.headers) == ("disk", (("Retry-After", "601"),))


def test_a_discovery_document_of_a_server_under_maintenance_is_refused() -> None:
    """It is new, and no other server has it."""
    bench = Bench()
    ctx = bench.ask()
    ctx.route, ctx.pinned = None, bench.servers["a"]
    assert pick(ctx, ()) is bench.servers["a"]
    maintain(bench.servers["a"])
    with pytest.raises(UnderMaintenance):
        pick(ctx, ())


# --- nobody ---------------------------------------------------------------------------------------------------------


def test_when_all_are_under_maintenance_the_first_to_be_back_is_told_of() -> None:
    """With its title and its end."""
    bench = Bench()
    maintain(bench.servers["a"], "disk", 600.5)
    maintain(bench.servers["b"], "network", 60.5)
    refusal = nobody(bench.ask())
    assert isinstance(refusal, UnderMaintenance)
    assert (refusal.title, refusal.headers) == ("network", (("Retry-After", "61"),))


def test_servers_that_a_principal_may_not_use_do_not_count() -> None:
    """To it, all are under maintenance."""
    bench = Bench()
    maintain(bench.servers["a"])
    ctx = bench.ask()
    assert isinstance(nobody(ctx), NoServer)
    ctx.denied = ["b"]
    assert isinstance(nobody(ctx), UnderMaintenance)


def test_when_breakers_are_open_the_first_trial_is_told_of() -> None:
    """Also while another server is under maintenance."""
    bench = Bench("a", "b", "c", a={"url": URL, "breaker": {"open_for": "20s"}})
    for name in "ab":
        open_breaker(bench.servers[name])
    maintain(bench.servers["c"])
    refusal = nobody(bench.ask())
    assert isinstance(refusal, CircuitOpen)
    assert refusal.headers == (("Retry-After", "6"),)


def test_a_trial_that_is_due_by_now_is_told_of_too() -> None:
    """Nobody was to be asked a moment ago, and that was why."""
    bench = Bench()
    for upstream in bench.servers.values():
        open_breaker(upstream)
        upstream.breaker.next_attempt_at = 0.0
        assert upstream.breaker.ready()
    refusal = nobody(bench.ask())
    assert isinstance(refusal, CircuitOpen)
    assert refusal.headers == (("Retry-After", "1"),)


def test_without_any_reason_one_may_come_back_soon() -> None:
    """All servers were denied, or take nothing by configuration; and a document has one server only."""
    bench = Bench()
    ctx = bench.ask()
    ctx.denied = ["a", "b"]
    refusal = nobody(ctx)
    assert isinstance(refusal, NoServer)
    assert refusal.headers == (("Retry-After", "1"),)
    ctx.route = None
    assert isinstance(nobody(ctx), NoServer)


# --- the last failure -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure", [ConnectFailed(), CircuitOpen(), QueueFull(), UpstreamFailed(), UpstreamTimeout(), PoolExhausted()]
)
def test_without_a_session_the_failure_is_the_answer(failure: Refusal) -> None:
    """As it is; also for a document, which is bound but no session."""
    bench = Bench()
    ctx = bench.ask()
    assert answer_to(ctx, failure) is failure
    ctx.pinned = bench.servers["a"]
    assert answer_to(ctx, failure) is failure


@pytest.mark.parametrize("failure", [QueueFull(), UpstreamFailed(), UpstreamTimeout(), PoolExhausted()])
def test_a_session_outlives_what_passes(failure: Refusal) -> None:
    """A busy server, a lost connection and a late answer are no end of it."""
    assert answer_to(Bench().ask("a"), failure) is failure


def test_a_session_whose_server_cannot_be_reached_is_gone() -> None:
    """Its state went with the process."""
    assert isinstance(answer_to(Bench().ask("a"), ConnectFailed()), SessionGone)


def test_a_session_whose_server_fails_is_gone_when_another_server_can_take_it() -> None:
    """Else it is told when to come back, and keeps its session."""
    failure = CircuitOpen(headers=(("Retry-After", "6"),))
    bench = Bench()
    assert isinstance(answer_to(bench.ask("a"), failure), SessionGone)
    maintain(bench.servers["b"])
    assert answer_to(bench.ask("a"), failure) is failure
    alone = Bench("a")
    assert answer_to(alone.ask("a"), failure) is failure
