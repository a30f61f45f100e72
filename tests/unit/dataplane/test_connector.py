"""Places in the pool are given out in order and none is lost; a connection that may be stale is never used again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.config.models import Server
from proxy.dataplane.client import UpstreamClient, UpstreamResponse
from proxy.dataplane.connector import Keepalive, Slots
from proxy.dataplane.deadlines import Deadlines
from proxy.metrics import ServerMetrics
from tests.harness import Wire, json_answer, scripted_upstream
from tests.unit.dataplane.fakes import PATIENCE_S, Time

# --- slots ----------------------------------------------------------------------------------------------------------

LIMIT = 2
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
        if self._slots.used < self._slots.limit:
            self._slots.used += 1
        else:
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
        self.slots = Slots(LIMIT)
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
    @rule(draw=st.integers(0, LIMIT - 1))
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

    @rule()
    def turn(self) -> None:
        for _ in range(6):
            self.loop.run_until_complete(asyncio.sleep(0))
        self.settled = True

    @invariant()
    def never_more_than_the_limit(self) -> None:
        assert len(self.holding) <= LIMIT

    @invariant()
    def in_the_order_of_arrival(self) -> None:
        places = [self.arrived.index(each) for each in self.admitted]
        assert places == sorted(places)

    @invariant()
    def no_slot_is_lost(self) -> None:
        if self.settled:
            assert self.slots.used == len(self.holding)
            assert len(self.holding) == LIMIT or not self.waiting

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
    slots.used = 1
    waiter = asyncio.ensure_future(slots.wait(PATIENCE_S))
    await asyncio.sleep(0)
    waiter.cancel()
    slots.release()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert slots.used == 0


# --- keep-alive -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("announced", "reuse_s"),
    [
        ("timeout=5", 2.5), ("timeout=5, max=100", 2.5), ("max=100, timeout=4", 2.0), ("timeout=0", 0.0),
        ("timeout=6", 3.0), ("timeout=60", 3.0), ("max=100", 3.0), ("", 3.0), ("timeout=", 3.0), ("timeout=-1", 3.0),
        ("timeout=1.5", 3.0), ("timeout=999999999999", 3.0),
    ],
)  # fmt: skip
def test_half_of_what_the_server_announces_is_used_when_that_is_less(announced: str, reuse_s: float) -> None:
    """What cannot be read changes nothing."""
    keepalive = Keepalive(3.0)
    keepalive.learn(announced)
    assert keepalive.reuse_s == reuse_s
    assert keepalive.hasty == (reuse_s < 3.0)


@given(st.lists(st.text() | st.integers(0, 20).map("timeout={}".format)))
def test_the_time_never_grows(announcements: list[str]) -> None:
    """Whatever is announced in whatever order: the least counts."""
    keepalive = Keepalive(3.0)
    for announced in announcements:
        before = keepalive.reuse_s
        keepalive.learn(announced)
        assert 0.0 <= keepalive.reuse_s <= before


# --- connections ----------------------------------------------------------------------------------------------------


class Sender:
    """A client of one scripted upstream."""

    def __init__(self, url: str) -> None:
        self.metrics = ServerMetrics("up", str)
        self.client = UpstreamClient(Server.model_validate({"url": url}), self.metrics, Deadlines(Time()))

    async def call(self) -> int:
        """One whole round trip; the status."""
        headers = [("Host", "up.test"), ("Content-Length", "0")]
        response = await self.client.send("POST", "", headers, b"")
        await drained(response)
        return response.status

    @property
    def connections(self) -> tuple[int, int]:
        """New ones, and uses of old ones."""
        return self.metrics.pool_connects, self.metrics.pool_reuses


async def drained(response: UpstreamResponse) -> bytes:
    """The whole body, and the response closed."""
    body = response.read_nowait()
    while not response.ended:
        body += await response.read()
    response.close()
    return body


async def test_a_connection_is_used_again() -> None:
    """Many calls one after the other go over one connection."""
    async with scripted_upstream() as upstream:
        sender = Sender(upstream.url)
        assert [await sender.call() for _ in range(5)] == [200] * 5
        assert sender.connections == (1, 4)
        assert upstream.connections == 1
        await sender.client.close()


def once_then(leave: Callable[[Wire], None], left: asyncio.Semaphore) -> Callable[[Wire], asyncio.Future[None]]:
    """A script that answers once and then leaves its connection in some way."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(json_answer())
        leave(wire)
        await asyncio.sleep(0)
        left.release()
        await wire.reader.read()

    return script  # type: ignore[return-value]


@pytest.mark.parametrize(
    "leave",
    [
        lambda wire: wire.writer.write_eof(),
        lambda wire: wire.reset(),
        lambda wire: wire.writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"),
        lambda wire: wire.writer.write(json_answer(b'"an answer to nothing"')),
    ],
    ids=["closed", "reset", "refused when idle", "an answer to nothing"],
)
async def test_a_connection_that_was_left_is_not_used_again(leave: Callable[[Wire], None]) -> None:
    """However the upstream left it while it was idle: the next request finds a new one and its own answer."""
    left = asyncio.Semaphore(0)
    async with scripted_upstream(once_then(leave, left)) as upstream:
        sender = Sender(upstream.url)
        for count in range(1, 4):
            assert await sender.call() == 200
            await left.acquire()
            assert sender.connections[0] == count
        assert sender.connections == (3, 0)
        await sender.client.close()


async def test_a_server_that_keeps_no_connection_gets_a_new_one_each_time() -> None:
    """`Keep-Alive: timeout=0` holds from the first connection on, on which it was announced."""

    async def script(wire: Wire) -> None:
        while await wire.request():
            await wire.send(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=0\r\nContent-Length: 2\r\n\r\n{}")

    async with scripted_upstream(script) as upstream:
        sender = Sender(upstream.url)
        assert [await sender.call() for _ in range(3)] == [200] * 3
        assert sender.connections == (3, 0)
        await sender.client.close()
