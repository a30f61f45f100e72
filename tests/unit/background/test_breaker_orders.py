"""Orders of operators reach breakers once, whatever changes around them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.background.breaker_orders import BreakerOrders, State
from proxy.identity.access import Server as Place
from proxy.log import logger
from proxy.store.rows import BreakerOrderRow, FlagRow
from tests.unit.background.seen import Server
from tests.unit.dataplane.fakes import Time

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
OPEN = BreakerOrderRow("o1", "t", "7", "open", NOON)


class Told:
    """A breaker that keeps what it is told."""

    def __init__(self) -> None:
        self.orders: list[State] = []

    def force(self, order: State) -> None:
        self.orders.append(order)


class Upstream:
    """A server that has one."""

    def __init__(self, identity: str, breaker: Any = None) -> None:
        self.name = f"server {identity}"
        self.place = Place(self.name, identity)
        self.breaker = breaker or Told()


def test_an_order_opens_a_real_breaker_until_it_ends() -> None:
    """Failures have nothing to do with it; when the order is gone, a trial decides."""
    clock = Time()
    server = Server("search", Place("search", "7"), clock)
    orders = BreakerOrders(logger("breakers"))
    orders.apply([OPEN], [server])
    clock.now += 3600
    assert (server.breaker.state, server.breaker.ready()) == ("open", False)
    orders.apply([], [server])
    assert server.breaker.ready()
    server.breaker.succeeded(server.breaker.admit())
    assert server.breaker.state == "closed"


def test_an_order_to_close_closes_what_failures_opened() -> None:
    """Once: what opens later stays open."""
    server = Server("search", Place("search", "7"), Time())
    server.fail()
    orders = BreakerOrders(logger("breakers"))
    close = replace(OPEN, state="closed")
    orders.apply([close], [server])
    assert server.breaker.state == "closed"
    server.fail()
    orders.apply([close], [server])
    assert server.breaker.state == "open"
    orders.apply([replace(close, updated_at=NOON + timedelta(seconds=1))], [server])
    assert server.breaker.state == "closed"


def test_a_breaker_that_takes_the_place_of_another_obeys_as_well() -> None:
    """A changed configuration brought it; when the order ends, only it is told."""
    first, second = Upstream("7"), Upstream("7")
    orders = BreakerOrders(logger("breakers"))
    orders.apply([OPEN], [first])
    orders.apply([OPEN], [second])
    orders.apply([OPEN], [second])
    orders.apply([], [second])
    assert (first.breaker.orders, second.breaker.orders) == (["open"], ["open", ""])


def test_orders_for_others_and_other_rows_are_passed_over() -> None:
    """A server without a row cannot be meant."""
    upstreams = [Upstream(""), Upstream("8")]
    orders = BreakerOrders(logger("breakers"))
    orders.apply([OPEN, FlagRow("f", "t", "k", True, 100.0, [], {})], upstreams)
    assert all(each.breaker.orders == [] for each in upstreams)


class Orders(RuleBasedStateMachine):
    """Orders come, change and go, as do servers and breakers; after each look every breaker was told what holds."""

    def __init__(self) -> None:
        super().__init__()
        self.orders = BreakerOrders(logger("breakers"))
        self.rows: dict[str, BreakerOrderRow] = {}
        self.upstreams = {identity: Upstream(identity) for identity in "123"}
        self.moment = NOON
        self.given: dict[str, int] = dict.fromkeys("123", 0)

    @rule(identity=st.sampled_from("123"), state=st.sampled_from(["open", "closed"]))
    def give(self, identity: str, state: str) -> None:
        self.moment += timedelta(microseconds=1)
        self.rows[identity] = BreakerOrderRow(f"o{identity}", "t", identity, state, self.moment)
        self.given[identity] += identity in self.upstreams
        self.look()

    @rule(identity=st.sampled_from("123"))
    def end(self, identity: str) -> None:
        if self.rows.pop(identity, None) is not None:
            self.given[identity] += identity in self.upstreams
        self.look()

    @rule(identity=st.sampled_from("123"))
    def remake(self, identity: str) -> None:
        self.upstreams[identity] = Upstream(identity)
        self.given[identity] = int(identity in self.rows)
        self.look()

    @rule(identity=st.sampled_from("123"))
    def remove(self, identity: str) -> None:
        self.upstreams.pop(identity, None)
        self.given[identity] = 0
        self.look()

    @rule()
    def look(self) -> None:
        self.orders.apply(self.rows.values(), self.upstreams.values())

    @invariant()
    def every_breaker_was_told_what_holds_and_nothing_twice(self) -> None:
        for identity, upstream in self.upstreams.items():
            row = self.rows.get(identity)
            told = upstream.breaker.orders
            assert (told[-1] if told else "") == (row.state if row is not None else "")
            assert len(told) == self.given[identity]


TestOrders = Orders.TestCase
