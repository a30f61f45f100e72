"""Who ends in time is left alone, who does not is told once, and a client's cancellation stays one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.dataplane.deadlines import Deadlines
from tests.unit.dataplane.fakes import Time


class Waiter:
    """A task that waits under a deadline of 10 s, as `UpstreamClient.send` does, and notes what it is told."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.told: list[str] = []
        self.task = asyncio.ensure_future(self._wait())

    async def _wait(self) -> None:
        task = self._deadlines.start(10.0)
        try:
            await self.answer
        except asyncio.CancelledError:
            if not self._deadlines.end(task):
                self.told.append("cancelled")
                raise
            self.told.append("missed")
            assert task.cancelling() == 0
        else:
            assert not self._deadlines.end(task)
            self.told.append("answered")
        await asyncio.Event().wait()  # a deadline that still held would end this, too


async def turn() -> None:
    """Let every task that can go on do so."""
    for _ in range(3):
        await asyncio.sleep(0)


STEP = st.one_of(
    st.tuples(st.sampled_from(("answer", "cancel", "begin")), st.integers(0, 3)),
    st.tuples(st.just("tick"), st.sampled_from((0, 4, 10))),
    st.tuples(st.just("turn"), st.just(0)),
)


@given(st.lists(STEP, max_size=30))
@example([("begin", 0), ("tick", 10), ("tick", 10), ("turn", 0)])
def test_each_task_is_told_what_happened_to_it(steps: list[tuple[str, int]]) -> None:
    """In any order of answers, cancellations, ticks and turns of the loop; several may fall into one turn."""
    asyncio.run(play(steps))


async def play(steps: list[tuple[str, int]]) -> None:
    """Do what the steps say, and foretell what each task is told: the client's word counts most, then the clock's."""
    time = Time()
    deadlines = Deadlines(time)
    waiters: list[Waiter] = []
    waiting: dict[Waiter, tuple[float, set[str]]] = {}
    expected: dict[Waiter, str] = {}

    async def settle() -> None:
        await turn()
        for waiter, (_, happened) in list(waiting.items()):
            if happened:
                expected[waiter] = next(word for word in ("cancelled", "missed", "answered") if word in happened)
                del waiting[waiter]

    for word, number in [*steps, ("turn", 0)]:
        if word == "begin":
            waiters.append(Waiter(deadlines))
            waiting[waiters[-1]] = (time.now + 10.0, set())
            await settle()
        elif word == "tick":
            time.now += number
            deadlines.tick()
            for due, happened in waiting.values():
                if time.now >= due:
                    happened.add("missed")
        elif word == "turn":
            await settle()
        elif number < len(waiters) and waiters[number] in waiting:
            waiter = waiters[number]
            happened = waiting[waiter][1]
            if word == "cancel":
                waiter.task.cancel()
                happened.add("cancelled")
            elif not waiter.answer.done():
                waiter.answer.set_result(None)
                happened.add("answered")
    time.now += 100
    deadlines.tick()
    for _, happened in waiting.values():
        happened.add("missed")
    await settle()
    assert [waiter.told for waiter in waiters] == [[expected[waiter]] for waiter in waiters]
    for waiter in waiters:
        assert waiter.task.done() == (waiter.told == ["cancelled"])
        waiter.task.cancel()
    await asyncio.gather(*[waiter.task for waiter in waiters], return_exceptions=True)


async def test_a_task_may_wait_many_times() -> None:
    """Each wait has its own deadline; one that was missed says nothing about the next."""
    time = Time()
    deadlines = Deadlines(time)
    told = []

    async def waits() -> None:
        for _ in range(3):
            task = deadlines.start(1.0)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told.append(deadlines.end(task))

    waiter = asyncio.ensure_future(waits())
    for count in range(3):
        await turn()
        time.now += 0.5
        deadlines.tick()
        await turn()
        assert len(told) == count
        time.now += 0.5
        deadlines.tick()
    await waiter
    assert told == [True, True, True]


async def test_a_deadline_is_kept_apart_from_a_timeout_around_it() -> None:
    """When `asyncio.timeout` fires in the same turn, the timeout is what ends the task."""
    time = Time()
    deadlines = Deadlines(time)
    seen: list[Any] = []

    async def waits() -> None:
        async with asyncio.timeout(None) as patience:
            timeouts.append(patience)
            task = deadlines.start(1.0)
            try:
                await asyncio.Event().wait()
            finally:
                seen.append(deadlines.end(task))

    timeouts: list[asyncio.Timeout] = []
    waiter = asyncio.ensure_future(waits())
    await turn()
    timeouts[0].reschedule(0.0)  # long ago
    time.now += 1
    deadlines.tick()
    with pytest.raises(TimeoutError):
        await waiter
    assert seen == [False]
    assert waiter.cancelling() == 0
