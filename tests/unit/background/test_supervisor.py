"""Loops go on whatever their steps do, one-shots stay bounded, and nothing that fails is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.background.supervisor import Clock, Loop, Supervisor


class HandClock(Clock):
    """A clock that is moved by hand; a sleeper wakes when its moment is reached."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        return self.now

    def unix(self) -> float:
        return self.now + 1e9

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, waiter))
        await waiter

    async def advance(self, seconds: float) -> None:
        """Let time pass, and everyone who is due run until all sleep again."""
        until = self.now + seconds
        await settle()
        while due := [sleeper for sleeper in self._sleepers if sleeper[0] <= until]:
            first = min(due, key=lambda sleeper: sleeper[0])
            self._sleepers.remove(first)
            self.now = first[0]
            if not first[1].done():
                first[1].set_result(None)
            await settle()
        self.now = until


async def settle() -> None:
    """Give every ready task its turn."""
    for _ in range(10):
        await asyncio.sleep(0)


class Log:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, dict[str, Any]]] = []

    def error(self, event: str, **fields: Any) -> None:
        self.errors.append((event, fields))


class Office:
    """A supervisor, its clock, its log and what it tells the metrics."""

    def __init__(self, max_one_shots: int = 256, rng: float = 0.5) -> None:
        self.clock = HandClock()
        self.log = Log()
        self.steps: list[tuple[str, float, bool]] = []
        self.supervisor = Supervisor(
            cast(Any, self.log),
            self.clock,
            on_step=lambda name, at, ok: self.steps.append((name, at, ok)),
            max_one_shots=max_one_shots,
            rng=lambda: rng,
        )


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    made = Office()
    yield made
    await made.supervisor.stop(1.0)


# --- loops ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_loop_runs_its_step_every_interval(office: Office, is_async: bool) -> None:
    """First after one interval, then again and again; sync and async steps alike."""
    runs: list[float] = []

    def step() -> None:
        runs.append(office.clock.now)

    async def async_step() -> None:
        await asyncio.sleep(0)
        step()

    office.supervisor.every("tick", 5.0, async_step if is_async else step)
    await office.clock.advance(4.9)
    assert runs == []
    await office.clock.advance(20.1)
    assert runs == [1005.0, 1010.0, 1015.0, 1020.0, 1025.0]
    assert office.steps == [("tick", at + 1e9, True) for at in runs]


async def test_a_failing_step_is_logged_counted_and_backed_off(office: Office) -> None:
    """Each failure doubles the wait, up to a minute; the first success restores the interval."""
    failing = True

    def step() -> None:
        if failing:
            raise ValueError("boom")

    office.supervisor.every("tick", 5.0, step)
    await office.clock.advance(300.0)
    assert office.clock.slept == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0, 60.0]
    assert [ok for _, _, ok in office.steps] == [False] * 7
    event, fields = office.log.errors[-1]
    assert event == "step failed"
    assert (fields["loop"], fields["failures_in_a_row"]) == ("tick", 7)
    assert isinstance(fields["exc_info"], ValueError)
    failing = False
    await office.clock.advance(60.0)
    assert office.clock.slept[-1] == 5.0
    assert office.steps[-1][2]


async def test_a_slow_loop_is_not_hurried_by_failing() -> None:
    """The wait after a failure is never shorter than the interval, however long that is."""
    office = Office()

    def step() -> None:
        raise ValueError("boom")

    office.supervisor.every("daily", 86_400.0, step)
    await office.clock.advance(86_400.0 * 3)
    assert office.clock.slept == [86_400.0] * 4
    await office.supervisor.stop(1.0)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.05, 1e5), st.floats(0, 0.5), st.floats(0, 1, exclude_max=True), st.integers(0, 1000))
async def test_every_delay_lies_between_interval_and_bound(
    interval: float, jitter: float, draw: float, failures: int
) -> None:
    """Whatever the failures, the delay stays within the jitter around [interval, max(interval, 60 s)]."""
    loop = Loop("x", interval, lambda: None, jitter, 0.0)
    loop.failures = failures
    delay = Office(rng=draw).supervisor._delay(loop)
    assert interval * (1 - jitter) - 1e-9 <= delay <= max(interval, 60.0) * (1 + jitter) + 1e-6


async def test_loops_do_not_march_in_step() -> None:
    """Jitter moves each round by its share of the delay."""
    early, late = Office(rng=0.0), Office(rng=0.75)
    for office in (early, late):
        office.supervisor.every("tick", 10.0, lambda: None, jitter=0.2)
        await office.clock.advance(30.0)
        await office.supervisor.stop(1.0)
    assert early.clock.slept[1] == pytest.approx(8.0)
    assert late.clock.slept[1] == pytest.approx(11.0)


async def test_a_cancelled_wait_inside_a_step_does_not_end_the_loop(office: Office) -> None:
    """A CancelledError that leaks out of a step is that step's failure, not the loop's end."""

    async def step() -> None:
        raise asyncio.CancelledError

    office.supervisor.every("tick", 5.0, step)
    await office.clock.advance(16.0)
    assert [ok for _, _, ok in office.steps] == [False, False]
    assert office.log.errors[0][1]["cause"] == "a cancellation of its own"


async def test_a_loop_that_dies_is_named_and_started_again(office: Office) -> None:
    """The watchdog: even one killed from outside comes back."""
    runs: list[float] = []
    office.supervisor.every("tick", 5.0, lambda: runs.append(office.clock.now))
    await settle()
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "tick"]
    task.cancel()
    await settle()
    assert office.log.errors[0][0] == "loop died and is started again"
    assert office.log.errors[0][1]["loop"] == "tick"
    await office.clock.advance(20.0)
    assert runs


async def test_two_loops_cannot_have_one_name(office: Office) -> None:
    """Names are how loops are known in log and metrics."""
    office.supervisor.every("tick", 5.0, lambda: None)
    with pytest.raises(ValueError, match="tick"):
        office.supervisor.every("tick", 1.0, lambda: None)


async def test_a_step_that_hangs_is_noticed(office: Office) -> None:
    """A loop that is silent for several intervals is named, and again well once it goes on."""
    gate = asyncio.Event()
    office.supervisor.every("stuck", 1.0, gate.wait)
    office.supervisor.every("fine", 1.0, lambda: None)
    await office.clock.advance(5.0)
    assert office.supervisor.check() == (True, "")
    await office.clock.advance(10.0)
    assert office.supervisor.check() == (False, "stuck")
    gate.set()
    await settle()
    assert office.supervisor.check() == (True, "")


async def test_a_loop_that_backs_off_does_not_count_as_hanging(office: Office) -> None:
    """It fails, which its own metric tells, but it is alive."""

    def step() -> None:
        raise ValueError("boom")

    office.supervisor.every("tick", 0.1, step)
    for _ in range(500):
        await office.clock.advance(1.0)
        assert office.supervisor.check() == (True, "")


# --- one-shots ------------------------------------------------------------------------------------------------------


async def test_a_one_shot_runs(office: Office) -> None:
    """Beside everything else, without anyone waiting for it."""
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    assert office.supervisor.spawn("mirror", work())
    await settle()
    assert done == [1]


async def test_one_shots_are_bounded_and_the_refused_coroutine_is_closed() -> None:
    """Above the limit nothing is queued, and no 'never awaited' warning remains; a place comes free again."""
    office = Office(max_one_shots=2)
    gate = asyncio.Event()

    async def work() -> None:
        await gate.wait()

    refused = work()
    assert [office.supervisor.spawn("mirror", each) for each in (work(), work(), refused)] == [True, True, False]
    assert refused.cr_frame is None
    gate.set()
    await settle()
    assert office.supervisor.spawn("mirror", work())
    await office.supervisor.stop(1.0)


async def test_a_one_shot_that_fails_is_logged(office: Office) -> None:
    """With its name and its exception."""

    async def work() -> None:
        raise ValueError("boom")

    office.supervisor.spawn("mirror", work())
    await settle()
    ((event, fields),) = office.log.errors
    assert (event, fields["task"]) == ("task failed", "mirror")
    assert isinstance(fields["exc_info"], ValueError)


# --- the end --------------------------------------------------------------------------------------------------------


async def test_stop_ends_everything_and_starts_nothing_more() -> None:
    """Loops and one-shots are cancelled and awaited, also those that have not begun; nothing of it is an error."""
    office = Office()
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("work")

    office.supervisor.every("tick", 5.0, lambda: None)
    office.supervisor.spawn("mirror", work())
    await settle()
    office.supervisor.spawn("fresh", work())
    await office.supervisor.stop(1.0)
    assert ended == ["work"]
    assert office.log.errors == []
    late = work()
    assert not office.supervisor.spawn("late", late)
    assert late.cr_frame is None
    assert {task.get_name() for task in asyncio.all_tasks()}.isdisjoint({"tick", "mirror", "fresh"})
    await office.supervisor.stop(1.0)


async def test_stop_names_what_does_not_end_in_time() -> None:
    """A task that refuses to be cancelled cannot hold the process."""
    office = Office()
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    office.supervisor.spawn("stubborn", stubborn())
    await settle()
    await office.supervisor.stop(0.0)
    assert office.log.errors == [("tasks did not stop", {"tasks": ["stubborn"]})]
    release.set()
    await settle()


async def test_a_step_that_swallows_the_cancellation_still_lets_its_loop_end() -> None:
    """After stop no loop goes into another round."""
    office = Office()
    entered = 0

    async def step() -> None:
        nonlocal entered
        entered += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    office.supervisor.every("tick", 1.0, step)
    await office.clock.advance(1.0)
    await office.supervisor.stop(1.0)
    assert entered == 1
    assert "tick" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_the_real_clock_measures_and_waits() -> None:
    """Monotonic time does not go back, Unix time is today's, and waiting for nothing returns."""
    clock = Clock()
    before = clock.monotonic()
    await clock.sleep(0)
    assert clock.monotonic() >= before
    assert clock.unix() > 1_700_000_000


async def test_whoever_wants_to_know_is_told_what_failed() -> None:
    """Steps by the name of their loop, and one-shots by theirs."""
    told: list[tuple[str, BaseException | str]] = []
    supervisor = Supervisor(cast(Any, Log()), on_failure=lambda name, error: told.append((name, error)))
    ended = asyncio.Event()

    async def fail() -> None:
        ended.set()
        raise ValueError("once")

    assert supervisor.spawn("once", fail())
    await ended.wait()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [(name, str(error)) for name, error in told] == [("once", "once")]
    await supervisor.stop(1.0)
