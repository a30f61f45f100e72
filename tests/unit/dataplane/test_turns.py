"""Turns of one class: order, shares, and who has to go."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.dataplane.turns import Turns, Waiter

WEIGHTS = st.sampled_from((0.25, 1.0, 2.0, 5.0))


class Crowd:
    """Turns, and who stands in them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.turns = Turns()
        self.whose: dict[Waiter, str] = {}

    def come(self, tenant: str, weight: float = 1.0) -> Waiter:
        waiter = Waiter(self._loop.create_future(), 0.0, self.turns)
        self.turns.add(tenant, weight, waiter)
        self.whose[waiter] = tenant
        return waiter

    def go(self, times: int) -> str:
        """Whose turns come next."""
        return "".join(self.whose[self.turns.next()] for _ in range(times))


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    loop = asyncio.new_event_loop()
    yield Crowd(loop)
    loop.close()


def test_tenants_take_turns_however_many_they_have_waiting(crowd: Crowd) -> None:
    """The flood of one is no reason for another to wait."""
    for _ in range(20):
        crowd.come("a")
    for _ in range(3):
        crowd.come("b")
    assert crowd.go(8) == "abababaa"


def test_a_weight_of_three_is_three_turns_of_four(crowd: Crowd) -> None:
    """They are spread, but for one that rounding may move."""
    for _ in range(40):
        crowd.come("a", 3.0)
        crowd.come("b", 1.0)
    order = crowd.go(16)
    assert Counter(order) == {"a": 12, "b": 4}
    assert "aaaaa" not in order


def test_whoever_comes_late_has_no_turns_to_catch_up(crowd: Crowd) -> None:
    """Time in which a tenant wanted nothing is nobody's debt."""
    for _ in range(100):
        crowd.come("a")
    crowd.go(50)
    for _ in range(50):
        crowd.come("b")
    assert crowd.go(6) in ("ababab", "bababa")


def test_whoever_brings_one_at_a_time_gets_no_more_than_its_share(crowd: Crowd) -> None:
    """To be never seen waiting does not help."""
    for _ in range(100):
        crowd.come("a")
    crowd.come("b")
    order = ""
    for _ in range(40):
        order += crowd.go(1)
        if order[-1] == "b":
            crowd.come("b")
    assert order.count("b") <= 21


def test_the_youngest_of_the_longest_line_has_to_go(crowd: Crowd) -> None:
    """By weight: two of weight 1 are more than three of weight 2."""
    mine = [crowd.come("a", 1.0) for _ in range(2)]
    for _ in range(3):
        crowd.come("b", 2.0)
    assert crowd.turns.youngest() is mine[1]
    assert crowd.turns.outnumbering("b", 2.0) is None
    assert crowd.turns.outnumbering("c", 1.0) is mine[1]
    crowd.turns.remove(mine[1])
    assert crowd.whose[crowd.turns.youngest()] == "b"


def test_nobody_outnumbers_an_empty_class(crowd: Crowd) -> None:
    """There is nobody to send away."""
    assert crowd.turns.outnumbering("a", 1.0) is None


def test_lines_of_tenants_that_left_are_forgotten(crowd: Crowd) -> None:
    """A thousand tenants that come and go leave nothing behind."""
    for number in range(1000):
        crowd.turns.remove(crowd.come(str(number)))
    assert not crowd.turns._lines and not crowd.turns._order


def test_the_order_of_lines_is_rebuilt_before_it_grows(crowd: Crowd) -> None:
    """One line that grows and shrinks while somebody asks for the longest."""
    crowd.come("b")
    for _ in range(100):
        ones = [crowd.come("a") for _ in range(5)]
        assert crowd.whose[crowd.turns.youngest()] == "a"
        for each in ones:
            crowd.turns.remove(each)
        assert crowd.whose[crowd.turns.youngest()] == "b"
    assert crowd.turns._crowds is not None and len(crowd.turns._crowds) < 100


def test_a_line_that_has_gone_slowly_is_expected_to_go_on_so(crowd: Crowd) -> None:
    """Others come and go before it, of whom nobody waits at any one time."""
    for _ in range(100):
        crowd.come("a")
    others = [str(number) for number in range(9)]
    assert crowd.turns.until("a", 1.0) == 101
    for _ in range(10):
        for other in others:
            crowd.come(other)
        crowd.go(10)
    assert len(crowd.turns.waiting) in range(88, 94)
    assert crowd.turns.until("a", 1.0) <= 101  # alone in the line, it can have no less than its share
    for other in others:
        crowd.come(other)
    assert crowd.turns.until("a", 1.0) == pytest.approx(910, rel=0.1)


def test_a_tenant_whose_requests_have_all_left_has_no_turn(crowd: Crowd) -> None:
    """And begins anew when it comes again."""
    crowd.come("a")
    crowd.turns.remove(crowd.come("b"))
    crowd.come("c")
    assert crowd.go(1) == "a"
    crowd.come("b")
    assert sorted(crowd.go(2)) == ["b", "c"]


def test_the_longest_line_is_found_when_others_were_longer_before(crowd: Crowd) -> None:
    """What was noted of a line that shrank, or left and came again, misleads nobody."""
    lines = {tenant: [crowd.come(tenant) for _ in range(size)] for tenant, size in (("a", 5), ("b", 4), ("c", 1))}
    assert crowd.whose[crowd.turns.youngest()] == "a"
    for waiter in lines["a"]:
        crowd.turns.remove(waiter)
    assert crowd.whose[crowd.turns.youngest()] == "b"
    for waiter in lines["b"][1:]:
        crowd.turns.remove(waiter)
    crowd.come("c")
    assert crowd.whose[crowd.turns.youngest()] == "c"
    for _ in range(3):
        crowd.come("a")
    assert crowd.whose[crowd.turns.youngest()] == "a"


class TurnsMachine(RuleBasedStateMachine):
    """Against plain lists: in each line the first goes first, and of the longest line the last has to go."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.turns = Turns()
        self.lines: dict[str, list[Waiter]] = {}
        self.weights: dict[str, float] = {}

    @rule(tenant=st.sampled_from("abcd"), weight=WEIGHTS)
    def come(self, tenant: str, weight: float) -> None:
        weight = self.weights.setdefault(tenant, weight)
        waiter = Waiter(self.loop.create_future(), 0.0, self.turns)
        before = self.turns.until(tenant, weight)
        self.turns.add(tenant, weight, waiter)
        assert 1 <= before <= len(self.turns.waiting)
        self.lines.setdefault(tenant, []).append(waiter)

    @precondition(lambda self: self.turns.waiting)
    @rule()
    def next(self) -> None:
        waiter = self.turns.next()
        tenant = next(tenant for tenant, line in self.lines.items() if waiter in line)
        assert self.lines[tenant].pop(0) is waiter

    @precondition(lambda self: self.turns.waiting)
    @rule(draw=st.data())
    def remove(self, draw: st.DataObject) -> None:
        tenant = draw.draw(st.sampled_from(sorted(tenant for tenant, line in self.lines.items() if line)))
        waiter = self.lines[tenant].pop(draw.draw(st.integers(0, len(self.lines[tenant]) - 1)))
        self.turns.remove(waiter)

    @precondition(lambda self: self.turns.waiting)
    @rule(tenant=st.sampled_from("abcde"))
    def ask_who_has_to_go(self, tenant: str) -> None:
        crowds = {each: len(line) / self.weights[each] for each, line in self.lines.items() if line}
        youngest = self.turns.youngest()
        assert youngest in [self.lines[each][-1] for each, crowd in crowds.items() if crowd == max(crowds.values())]
        weight = self.weights.get(tenant, 1.0)
        one_more = (len(self.lines.get(tenant, ())) + 1) / weight
        assert (self.turns.outnumbering(tenant, weight) is not None) == (one_more < max(crowds.values()))

    @invariant()
    def nobody_is_lost(self) -> None:
        assert set(self.turns.waiting) == {each for line in self.lines.values() for each in line}
        assert len(self.turns._lines) <= 4

    def teardown(self) -> None:
        while self.turns.waiting:
            waiter = self.turns.next()
            assert any(waiter in line for line in self.lines.values())
        self.loop.close()


TestTurns = TurnsMachine.TestCase
TestTurns.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)


@given(weights=st.lists(st.floats(0.01, 100), min_size=2, max_size=6), turns=st.integers(1, 300))
@settings(max_examples=150, deadline=None)
def test_shares_are_never_off_by_more_than_one_request_of_each(weights: list[float], turns: int) -> None:
    """Whatever the weights, at any moment, among tenants that always have something waiting."""
    loop = asyncio.new_event_loop()
    crowd = Crowd(loop)
    for tenant, weight in enumerate(weights):
        for _ in range(turns):
            crowd.come(str(tenant), weight)
    served = [0] * len(weights)
    for _ in range(turns):
        served[int(crowd.go(1))] += 1
        for one, his in enumerate(weights):
            for other, its in enumerate(weights):
                assert served[one] / his - served[other] / its <= (1 / his + 1 / its) * (1 + 1e-9)
    loop.close()
