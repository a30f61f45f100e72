"""Places in a pool are given out in order and none is lost, and nobody waits below the bound."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.dataplane.slots import Slots
from tests.unit.dataplane.fakes import PATIENCE_S

LIMIT, MOST = 1, 3
WAIT_S = 10.0


class TimedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock only the test moves."""

    now = 1000.0

    def time(self) -> float:
        return self.now


class Exchange:
    """Somebody who wants a slot, as `UpstreamClient.send` does, and holds it until told to let go."""

    def __init__(self, loop: asyncio.AbstractEventLoop, slots: Slots, admitted: list[Exchange]) -> None:
        self._slots = slots
        self._admitted = admitted
        self.letting_go = asyncio.Event()
        self.task = loop.create_task(self._run())

    async def _run(self) -> None:
        if self._slots.used < self._slots.peak:
            self._slots.used += 1
        elif not self._slots.take():
            await self._slots.wait(WAIT_S)
        self._admitted.append(self)
        try:
            await self.letting_go.wait()
        finally:
            self._slots.release()


class SlotsMachine(RuleBasedStateMachine):
    """Exchanges come, go, give up and run out of time in any order, several of it in one turn of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = TimedLoop()
        self.slots = Slots(LIMIT, MOST)
        self.arrived: list[Exchange] = []
        self.admitted: list[Exchange] = []
        self.settled = True

    @property
    def holding(self) -> list[Exchange]:
        return [each for each in self.admitted if not each.task.done()]

    @property
    def waiting(self) -> list[Exchange]:
        return [each for each in self.arrived if not each.task.done() and each not in self.admitted]

    @rule()
    def arrives(self) -> None:
        self.turn()
        self.arrived.append(Exchange(self.loop, self.slots, self.admitted))
        self.turn()

    @precondition(lambda self: self.holding)
    @rule(draw=st.integers(0, MOST))
    def lets_go(self, draw: int) -> None:
        self.holding[draw % len(self.holding)].letting_go.set()
        self.settled = False

    @precondition(lambda self: self.waiting or self.holding)
    @rule(draw=st.integers(0, 9))
    def is_cancelled(self, draw: int) -> None:
        alive = [*self.waiting, *self.holding]
        alive[draw % len(alive)].task.cancel()
        self.settled = False

    @rule(seconds=st.sampled_from((4.0, 10.0)))
    def time_passes(self, seconds: float) -> None:
        self.loop.now += seconds
        self.settled = False

    @rule(limit=st.integers(1, MOST))
    def is_resized(self, limit: int) -> None:
        self.turn()
        self.slots.resize(limit)
        self.settled = False

    @rule()
    def is_asked_for_its_demand(self) -> None:
        self.turn()
        demand, now = self.slots.demand(), len(self.holding) + len(self.waiting)
        assert now <= demand <= len(self.arrived)
        assert self.slots.demand() == now

    @rule()
    def turn(self) -> None:
        for _ in range(6):
            self.loop.run_until_complete(asyncio.sleep(0))
        self.settled = True

    @invariant()
    def never_more_than_the_limit(self) -> None:
        assert len(self.holding) <= MOST
        assert self.slots.peak <= self.slots.limit <= MOST

    @invariant()
    def in_the_order_of_arrival(self) -> None:
        places = [self.arrived.index(each) for each in self.admitted]
        assert places == sorted(places)

    @invariant()
    def no_slot_is_lost(self) -> None:
        if self.settled:
            assert self.slots.used == len(self.holding)
            assert len(self.holding) == MOST or not self.waiting
            assert self.slots.waiting == len(self.waiting)

    @invariant()
    def whoever_ended_knows_why(self) -> None:
        for each in self.arrived:
            if each.task.done() and not each.task.cancelled():
                assert each.task.exception() is None or isinstance(each.task.exception(), TimeoutError)

    def teardown(self) -> None:
        for _ in self.arrived:
            for each in self.holding:
                each.letting_go.set()
            self.turn()
        left = self.waiting
        for each in left:
            each.task.cancel()
        self.turn()
        self.loop.close()
        assert left == []
        assert self.slots.used == 0


TestSlots = SlotsMachine.TestCase


async def test_one_who_gives_up_while_another_lets_go_takes_nothing() -> None:
    """Cancelled and passed over in the same turn: the cancellation stays what it is, and the slot is free."""
    slots = Slots(1)
    assert slots.take()
    waiter = asyncio.ensure_future(slots.wait(PATIENCE_S))
    await asyncio.sleep(0)
    waiter.cancel()
    slots.release()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert slots.used == 0


async def test_whoever_waits_goes_on_when_the_limit_is_raised() -> None:
    """In order, and as many as there is room for."""
    slots = Slots(1)
    assert slots.take()
    waiting = [asyncio.ensure_future(slots.wait(PATIENCE_S)) for _ in range(3)]
    await asyncio.sleep(0)
    slots.resize(3)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [each.done() for each in waiting] == [True, True, False]
    assert (slots.used, slots.waiting, slots.most) == (3, 1, 3)
    slots.release()
    await asyncio.wait(waiting)
    assert slots.waits == 3


async def test_a_limit_does_not_shrink_while_anybody_waits() -> None:
    """Who comes next would overtake them."""
    slots = Slots(1)
    assert slots.take()
    waiter = asyncio.ensure_future(slots.wait(PATIENCE_S))
    await asyncio.sleep(0)
    slots.resize(0)
    assert slots.limit == 1
    slots.release()
    await waiter


@given(coming=st.lists(st.booleans(), max_size=60), limit=st.integers(1, 5))
def test_a_pool_that_grows_keeps_nobody_waiting_whom_a_fixed_one_would_serve(coming: list[bool], limit: int) -> None:
    """It grows before anyone waits, and only ends at the bound."""
    growing, fixed = Slots(limit, 20), Slots(20)
    for comes in coming:
        if comes:
            assert growing.take() == fixed.take()
        elif fixed.used:
            growing.release()
            fixed.release()
        assert growing.used == fixed.used <= growing.limit <= 20
