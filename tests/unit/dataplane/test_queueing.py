"""The queue before a server: single cases, and any sequence of events against a plain model of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.config.resilience import Queue
from proxy.dataplane.queueing import RequestQueue
from proxy.errors import QueueFull, QueueTimeout, Shed
from tests.unit.dataplane.virtual_time import VirtualLoop

HIGH, NORMAL, LOW = range(3)
FOREVER_S = 1e9


@dataclass(eq=False)
class Request:
    """Somebody who wants a slot."""

    tenant: str
    priority: int
    task: asyncio.Task[None]
    came_at: float = 0.0
    left: bool = False


@dataclass
class Scene:
    """A queue, and everyone who came to it, in a loop whose time the test moves."""

    queue: RequestQueue
    loop: VirtualLoop
    came: list[Request] = field(default_factory=list)

    def come(
        self, tenant: str = "a", priority: int = NORMAL, weight: float = 1.0, patience_s: float = FOREVER_S
    ) -> Request:
        task = self.loop.create_task(self.queue.enter(tenant, weight, priority, patience_s))
        request = Request(tenant, priority, task, self.loop.time())
        self.came.append(request)
        self.loop.settle()
        return request

    def leave(self) -> None:
        self.queue.leave()
        self.loop.settle()

    def served(self) -> list[Request]:
        """Everyone who got a slot."""
        return [each for each in self.came if admitted(each)]


def admitted(request: Request) -> bool:
    task = request.task
    return task.done() and not task.cancelled() and task.exception() is None


def refusal_of(request: Request) -> QueueFull:
    """Why it was refused, with a sensible Retry-After."""
    error = request.task.exception()
    assert isinstance(error, QueueFull)
    assert 1 <= retry_after(error) <= 60
    return error


def retry_after(error: QueueFull) -> int:
    (name, value), *_ = error.headers
    assert name == "Retry-After"
    return int(value)


Make = Callable[..., Scene]


@pytest.fixture
def scene() -> Iterator[Make]:
    loop = VirtualLoop()

    def make(**keys: float) -> Scene:
        config = Queue.model_construct(**{"max_concurrent": 1, "max_pending": 10, "max_wait": 100.0, **keys})
        return Scene(RequestQueue(config, loop.time), loop)

    yield make
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.settle()
    loop.close()


def test_who_is_sent_away_is_told_why_and_the_others_wait_on(scene: Make) -> None:
    """Also when it has just left by itself; each is counted once."""
    here = scene()
    here.come()
    away, leaves, stays = here.come("a"), here.come("b"), here.come("c")
    first, second, third = here.queue.waiting()
    leaves.task.cancel()
    for waiter in (first, second):
        here.queue.send_away(waiter, Shed())
    here.loop.settle()
    with pytest.raises(Shed):
        away.task.result()
    assert leaves.task.cancelled()
    assert list(here.queue.waiting()) == [third]
    here.leave()
    assert admitted(stays)
    queue = here.queue
    assert (queue.admitted, queue.rejected, queue.abandoned, queue.pending, queue.running) == (2, 1, 1, 0, 1)


# --- slots ----------------------------------------------------------------------------------------------------------


def test_slots_are_taken_and_given_back(scene: Make) -> None:
    """Without a wait as long as there are any."""
    queue = scene(max_concurrent=2).queue
    assert queue.try_enter() and queue.try_enter() and not queue.try_enter()
    queue.leave()
    assert queue.try_enter()
    assert (queue.running, queue.pending, queue.admitted) == (2, 0, 3)
    for _ in range(2):
        queue.leave()
    assert queue.running == 0


def test_whoever_waits_gets_the_slot_that_comes_free(scene: Make) -> None:
    """And nobody who comes later goes before it."""
    here = scene()
    first, second, third = here.come(), here.come(), here.come()
    assert here.served() == [first]
    here.loop.advance(2.5)
    assert here.queue.oldest_wait_s == pytest.approx(2.5)
    here.leave()
    assert not here.queue.try_enter()
    assert here.served() == [first, second]
    assert here.queue.waited_s == pytest.approx(2.5)
    here.leave()
    assert admitted(third)
    assert here.queue.oldest_wait_s == 0


def test_more_slots_are_given_to_those_who_wait_and_fewer_to_nobody(scene: Make) -> None:
    """What runs beyond the new number goes on."""
    here = scene()
    for _ in range(6):
        here.come()
    here.queue.resize(4)
    here.loop.settle()
    assert len(here.served()) == here.queue.running == 4
    here.queue.resize(2)
    here.leave()
    here.leave()
    assert len(here.served()) == 4
    here.leave()
    assert len(here.served()) == 5
    assert here.queue.running == 2


# --- order ----------------------------------------------------------------------------------------------------------


def test_a_higher_class_goes_first(scene: Make) -> None:
    """Whenever it came."""
    here = scene()
    here.come()
    low, normal, high = here.come(priority=LOW), here.come(), here.come(priority=HIGH)
    order = []
    for _ in range(3):
        here.leave()
        order.append(next(each for each in (high, normal, low) if admitted(each) and each not in order))
    assert order == [high, normal, low]


def test_the_lowest_class_gets_a_sixteenth_of_the_slots_at_least(scene: Make) -> None:
    """However many of the highest keep coming."""
    here = scene(max_pending=100)
    here.come()
    waiting = [here.come(priority=LOW) for _ in range(4)]
    here.loop.advance(0.1)
    for _ in range(48):
        here.come(priority=HIGH)
        here.come(priority=HIGH)
        here.leave()
    assert sum(map(admitted, waiting)) == 3


def test_lower_classes_take_turns_with_what_is_guaranteed(scene: Make) -> None:
    """The one that has had nothing for longer is first."""
    here = scene(max_pending=200)
    here.come()
    normal, low = ([here.come(priority=number) for _ in range(10)] for number in (NORMAL, LOW))
    for _ in range(64):
        here.come(priority=HIGH)
        here.come(priority=HIGH)
        here.leave()
    assert sum(map(admitted, normal)) == sum(map(admitted, low)) == 2


# --- no room --------------------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_at_once(scene: Make) -> None:
    """With nothing to wait for when there is no queue at all."""
    here = scene(max_pending=1)
    here.come(), here.come()
    assert refusal_of(here.come()).reason == "queue_full"
    nothing = scene(max_pending=0)
    nothing.come()
    assert refusal_of(nothing.come()).reason == "queue_full"
    assert here.queue.rejected == nothing.queue.rejected == 1


def test_a_higher_class_takes_the_place_of_the_youngest_of_the_lowest(scene: Make) -> None:
    """Which is told to come back."""
    here = scene(max_pending=3)
    here.come()
    normal, older, youngest = here.come(), here.come(priority=LOW), here.come(priority=LOW)
    high = here.come(priority=HIGH)
    assert type(refusal_of(youngest)) is QueueFull
    assert not any(each.task.done() for each in (normal, older, high))
    assert refusal_of(here.come(priority=LOW)).reason == "queue_full"
    assert here.queue.pending == 3


def test_a_class_that_is_lower_than_all_that_wait_finds_no_place(scene: Make) -> None:
    """It does not push anyone out, whatever its tenant has."""
    here = scene(max_pending=2)
    here.come(), here.come("b"), here.come("b")
    refusal_of(here.come("a", LOW))


def test_a_tenant_with_less_than_its_share_takes_the_place_of_one_with_more(scene: Make) -> None:
    """Until they have the same; then the one that comes is refused."""
    here = scene(max_pending=4)
    here.come()
    flood = [here.come("a") for _ in range(4)]
    one, two = here.come("b"), here.come("b")
    refusal_of(flood[3]), refusal_of(flood[2])
    assert not one.task.done() and not two.task.done()
    refusal_of(here.come("b")), refusal_of(here.come("a"))


# --- time -----------------------------------------------------------------------------------------------------------


def test_whoever_waited_for_the_longest_time_is_sent_away(scene: Make) -> None:
    """Or as long as it had patience."""
    here = scene(max_wait=10.0)
    here.come()
    patient, hurried = here.come(), here.come(patience_s=3.0)
    here.loop.advance(2.9)
    assert not hurried.task.done()
    here.loop.advance(0.11)
    assert refusal_of(hurried).reason == "queue_timeout"
    here.loop.advance(6.9)
    assert not patient.task.done()
    here.loop.advance(0.2)
    assert refusal_of(patient).reason == "queue_timeout"
    assert (here.queue.expired, here.queue.rejected, here.queue.pending) == (2, 0, 0)


def test_what_could_not_be_served_in_time_is_refused_at_once(scene: Make) -> None:
    """One slot that takes a second each: the sixth would wait six seconds, and is told so."""
    here = scene(max_wait=5.0, max_pending=100)
    here.come()
    for _ in range(20):
        here.come()
        here.loop.advance(1.0)
        here.leave()
    assert here.queue.drained_per_s == pytest.approx(1.0)
    waiting = [here.come() for _ in range(5)]
    assert not any(each.task.done() for each in waiting)
    refused = refusal_of(here.come())
    assert refused.reason == "queue_full"
    assert retry_after(refused) == 6
    assert retry_after(refusal_of(here.come(patience_s=1.5))) == 6


def test_nobody_waits_for_a_server_that_hangs(scene: Make) -> None:
    """Slots come free no more: the pace falls, and soon a place is worth nothing."""
    here = scene(max_wait=5.0, max_pending=1000, max_concurrent=4)
    for _ in range(5):
        here.come()
    for _ in range(64):
        here.come()
        here.loop.advance(0.01)
        here.leave()
    assert here.queue.drained_per_s == pytest.approx(100, rel=0.1)
    assert not here.come().task.done()
    here.loop.advance(60)
    assert here.queue.pending == 0
    assert refusal_of(here.come()).reason == "queue_full"
    for _ in range(4):
        here.leave()
    assert here.queue.try_enter()


def test_a_burst_is_let_in_before_anything_is_known_of_the_pace(scene: Make) -> None:
    """At the start all slots come free together: the pace of the first is not that of all."""
    here = scene(max_wait=5.0, max_pending=100, max_concurrent=8)
    for _ in range(8):
        here.come()
    here.loop.advance(1.5)
    assert not any(here.come().task.done() for _ in range(20))


def test_a_low_class_is_told_of_those_who_will_overtake_it(scene: Make) -> None:
    """Nine of ten slots go to others, so that a place takes ten times as long."""
    here = scene(max_wait=8.0, max_pending=100)
    here.come(), here.come()
    for number in range(200):
        here.come(priority=HIGH if number % 10 else LOW)
        here.loop.advance(0.1)
        here.leave()
    while here.queue.pending > 1:
        here.leave()
    here.come(priority=LOW)
    low = [here.come(priority=LOW) for _ in range(20)]
    refused = sum(each.task.done() for each in low)
    assert 0 < refused < 20


# --- leaving --------------------------------------------------------------------------------------------------------


def test_a_client_that_leaves_leaves_the_queue(scene: Make) -> None:
    """The next gets its turn."""
    here = scene()
    here.come()
    gone, stays = here.come(), here.come()
    gone.task.cancel()
    here.loop.settle()
    assert here.queue.pending == here.queue.abandoned == 1
    here.leave()
    assert admitted(stays)


@pytest.mark.parametrize("cancel_first", [True, False])
def test_a_slot_given_to_somebody_who_just_leaves_is_not_lost(scene: Make, cancel_first: bool) -> None:
    """Both happen before the loop turns, in either order."""
    here = scene()
    here.come()
    gone, stays = here.come(), here.come()
    if cancel_first:
        gone.task.cancel()
    here.queue.leave()
    gone.task.cancel()
    here.loop.settle()
    assert gone.task.cancelled()
    assert admitted(stays)
    assert (here.queue.running, here.queue.pending, here.queue.abandoned, here.queue.admitted) == (1, 0, 1, 2)
    here.leave()
    assert here.queue.running == 0


def test_the_slot_of_somebody_who_just_leaves_comes_free_when_nobody_else_waits(scene: Make) -> None:
    """Nothing is left over."""
    here = scene()
    here.come()
    gone = here.come()
    here.queue.leave()
    gone.task.cancel()
    here.loop.settle()
    assert here.queue.running == here.queue.pending == 0


def test_whoever_leaves_when_it_is_sent_away_is_counted_once(scene: Make) -> None:
    """Its place is another's already."""
    here = scene(max_pending=1)
    here.come()
    gone = here.come(priority=LOW)
    high = here.loop.create_task(here.queue.enter("b", 1.0, HIGH, FOREVER_S))
    here.loop.call_soon(gone.task.cancel)
    here.loop.settle()
    assert gone.task.cancelled() and not high.done()
    assert (here.queue.abandoned, here.queue.rejected, here.queue.pending) == (1, 0, 1)


def test_deadlines_of_those_who_left_are_forgotten(scene: Make) -> None:
    """A hanging server and clients that come and go leave nothing behind."""
    here = scene()
    here.come()
    for _ in range(1000):
        here.come().task.cancel()
        here.loop.settle()
    assert len(here.queue._deadlines) < 100


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 0.0, -1.0, 1e-320])
def test_no_weight_breaks_it(scene: Make, weight: float) -> None:
    """The database allows odd ones."""
    here = scene()
    here.come()
    odd, plain = here.come("b", weight=weight), here.come("a")
    here.leave(), here.leave()
    assert admitted(odd) and admitted(plain)


# --- anything in any order ------------------------------------------------------------------------------------------


class QueueMachine(RuleBasedStateMachine):
    """Against lists of who runs and who waits. Time passes by less than makes anyone hopeless, or by more than all
    have patience for."""

    @initialize(slots=st.integers(1, 3), places=st.integers(0, 6))
    def begin(self, slots: int, places: int) -> None:
        self.loop = VirtualLoop()
        config = Queue.model_construct(max_concurrent=slots, max_pending=places, max_wait=100_000.0)
        self.scene = Scene(RequestQueue(config, self.loop.time), self.loop)
        self.running = 0
        self.waiting: list[Request] = []
        self.weights = {"a": 1.0, "b": 1.0, "c": 2.5}
        self.high_in_a_row = 0

    @property
    def queue(self) -> RequestQueue:
        return self.scene.queue

    def crowd(self, tenant: str, priority: int, more: int = 0) -> float:
        count = sum(each.tenant == tenant and each.priority == priority for each in self.waiting)
        return (count + more) / self.weights[tenant]

    @rule(tenant=st.sampled_from("abc"), priority=st.integers(0, 2))
    def come(self, tenant: str, priority: int) -> None:
        request = self.scene.come(tenant, priority, self.weights[tenant])
        if self.running < self.queue.max_concurrent:
            assert admitted(request)
            self.running += 1
        elif len(self.waiting) < self.queue.max_pending:
            assert not request.task.done()
            self.waiting.append(request)
        else:
            self.came_to_a_full_one(request)

    def came_to_a_full_one(self, request: Request) -> None:
        lowest = max((each.priority for each in self.waiting), default=-1)
        crowds = {each.tenant: self.crowd(each.tenant, lowest) for each in self.waiting if each.priority == lowest}
        most = max(crowds.values(), default=0.0)
        displaced = [each for each in self.waiting if each.task.done()]
        if lowest < request.priority or (
            lowest == request.priority and self.crowd(request.tenant, lowest, 1) >= most - 1e-12
        ):
            refusal_of(request)
            assert not displaced
            return
        (gone,) = displaced
        refusal_of(gone)
        assert gone.priority == lowest and crowds[gone.tenant] == most
        assert gone is [each for each in self.waiting if (each.tenant, each.priority) == (gone.tenant, lowest)][-1]
        self.waiting.remove(gone)
        assert not request.task.done()
        self.waiting.append(request)

    @precondition(lambda self: self.running)
    @rule()
    def leave(self) -> None:
        self.scene.leave()
        self.running -= 1
        self.take_up()

    def take_up(self) -> None:
        """Exactly as many as there are slots got one, in an order that is allowed."""
        served = [each for each in self.waiting if each.task.done()]
        assert len(served) == min(len(self.waiting), max(0, self.queue.max_concurrent - self.running))
        left = list(self.waiting)
        for request in sorted(served, key=lambda each: each.priority):  # several at once: higher ones were first
            assert admitted(request)
            highest, oldest = min(each.priority for each in left), left[0]
            assert request.priority in (highest, oldest.priority)
            left.remove(request)
            self.high_in_a_row = 0 if request.priority == oldest.priority else self.high_in_a_row + 1
            assert self.high_in_a_row < 16
        for request in served:
            self.waiting.remove(request)
            line = [each for each in self.waiting if (each.tenant, each.priority) == (request.tenant, request.priority)]
            assert all(each in served or self.scene.came.index(each) > self.scene.came.index(request) for each in line)
        self.running += len(served)

    @precondition(lambda self: self.waiting)
    @rule(draw=st.data())
    def give_up(self, draw: st.DataObject) -> None:
        request = self.waiting.pop(draw.draw(st.integers(0, len(self.waiting) - 1)))
        request.task.cancel()
        self.loop.settle()
        assert request.task.cancelled()

    @precondition(lambda self: self.waiting and self.running)
    @rule(draw=st.data(), first=st.booleans())
    def give_up_just_as_a_slot_comes_free(self, draw: st.DataObject, first: bool) -> None:
        request = self.waiting.pop(draw.draw(st.integers(0, len(self.waiting) - 1)))
        if first:
            request.task.cancel()
        self.queue.leave()
        request.task.cancel()
        self.loop.settle()
        assert request.task.cancelled()
        self.running -= 1
        self.take_up()

    @rule(slots=st.integers(1, 4))
    def resize(self, slots: int) -> None:
        self.queue.resize(slots)
        self.loop.settle()
        self.take_up()

    @rule(seconds=st.floats(0, 1))
    def wait(self, seconds: float) -> None:
        self.loop.advance(seconds)

    @rule()
    def wait_too_long(self) -> None:
        self.loop.advance(100_001)
        for request in self.waiting:
            assert type(refusal_of(request)) is QueueTimeout
        self.waiting.clear()
        while self.running:  # so that the pace is one of before
            self.scene.leave()
            self.running -= 1
        self.queue._gaps = 0

    @invariant()
    def nobody_is_lost(self) -> None:
        if not hasattr(self, "scene"):
            return
        queue, came = self.queue, self.scene.came
        assert (queue.running, queue.pending) == (self.running, len(self.waiting))
        assert queue.pending <= queue.max_pending
        assert not queue.pending or queue.running >= queue.max_concurrent
        assert not any(each.task.done() for each in self.waiting)
        ended = queue.admitted + queue.rejected + queue.expired + queue.abandoned
        assert ended + queue.pending == len(came)
        assert queue.admitted == sum(map(admitted, came))

    def teardown(self) -> None:
        if hasattr(self, "scene"):
            for request in self.waiting:
                request.task.cancel()
            self.loop.settle()
            for request in self.scene.came:
                _ = request.task.cancelled() or request.task.exception()
            self.loop.close()


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
