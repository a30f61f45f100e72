"""Two servers are asked, one answer is taken, and nothing of the other is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane.hedge import first_of
from proxy.errors import ConnectFailed, Refusal, UpstreamFailed, UpstreamTimeout

#: Long past, and never to come.
AT_ONCE, NEVER = 0.0, 1000.0
PATIENCE_S = 10.0


class Server:
    """Answers when the test says so, and keeps what happened to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.asked = asyncio.Event()
        self.ended = ""
        self.stubborn = False
        """It gets its answer in the very moment in which it is cancelled."""

    async def send(self) -> str:
        self.asked.set()
        try:
            answer = await self.answer
        except asyncio.CancelledError:
            self.ended = "cancelled"
            if self.stubborn:
                return f"late {self.name}"
            raise
        except Exception:
            self.ended = "failed"
            raise
        self.ended = "answered"
        return answer

    def respond(self) -> None:
        self.answer.set_result(self.name)

    def fail(self, error: Exception) -> None:
        self.answer.set_exception(error)


class Race:
    """One call of `first_of`: its two servers, its outcome, and the answers that were closed."""

    def __init__(self, after_s: float, has_spare: bool = True) -> None:
        self.first, self.second = Server("first"), Server("second")
        self.closed: list[str] = []
        self.after_s = after_s
        self.has_spare = has_spare

    async def run(self) -> str:
        return await first_of(self.first.send(), self.spare, self.after_s, self.closed.append)

    def spare(self) -> Coroutine[Any, Any, str] | None:
        return self.second.send() if self.has_spare else None


@asynccontextmanager
async def racing(after_s: float = AT_ONCE, has_spare: bool = True) -> AsyncIterator[tuple[Race, asyncio.Task[str]]]:
    """A race that both have entered, if both can; afterwards no task is left."""
    before = asyncio.all_tasks()
    async with asyncio.timeout(PATIENCE_S):
        race = Race(after_s, has_spare)
        task = asyncio.create_task(race.run())
        await race.first.asked.wait()
        if has_spare and after_s == AT_ONCE:
            await race.second.asked.wait()
        yield race, task
    assert asyncio.all_tasks() == before


async def test_a_quick_answer_needs_no_second_server() -> None:
    """It is never asked."""
    async with racing(NEVER) as (race, task):
        race.first.respond()
        assert await task == "first"
        assert not race.second.asked.is_set()


async def test_the_second_server_wins_when_it_is_first() -> None:
    """And the other is ended before the answer is used."""
    async with racing() as (race, task):
        race.second.respond()
        assert await task == "second"
        assert (race.first.ended, race.closed) == ("cancelled", [])


async def test_the_first_server_may_win_yet() -> None:
    """Then the second is ended."""
    async with racing() as (race, task):
        race.first.respond()
        assert await task == "first"
        assert (race.second.ended, race.closed) == ("cancelled", [])


async def test_of_two_answers_at_once_one_is_closed() -> None:
    """The first server's is taken, each time."""
    for _ in range(20):
        async with racing() as (race, task):
            race.second.respond()
            race.first.respond()
            assert await task == "first"
            assert race.closed == ["second"]


async def test_an_answer_that_comes_with_the_cancellation_is_closed() -> None:
    """It holds a connection."""
    async with racing() as (race, task):
        race.first.stubborn = True
        race.second.respond()
        assert await task == "second"
        assert race.closed == ["late first"]


async def test_without_a_second_server_the_first_is_waited_for() -> None:
    """There was none, or no budget."""
    async with racing(has_spare=False) as (race, task):
        race.first.respond()
        assert await task == "first"


async def test_a_failure_before_the_time_is_told_at_once() -> None:
    """What follows is a retry, and no hedge."""
    async with racing(NEVER) as (race, task):
        race.first.fail(ConnectFailed())
        with pytest.raises(ConnectFailed):
            await task
        assert not race.second.asked.is_set()


@pytest.mark.parametrize("failing", ["first", "second"])
async def test_a_failure_waits_for_the_other(failing: str) -> None:
    """Whose answer counts."""
    async with racing() as (race, task):
        bad, good = (race.first, race.second) if failing == "first" else (race.second, race.first)
        bad.fail(UpstreamFailed())
        while bad.ended != "failed":
            await asyncio.sleep(0)
        assert not task.done()
        good.respond()
        assert await task == good.name


async def test_when_both_fail_the_first_says_why() -> None:
    """It was the one that the route chose."""
    async with racing() as (race, task):
        race.second.fail(ConnectFailed())
        race.first.fail(UpstreamTimeout())
        with pytest.raises(UpstreamTimeout):
            await task


async def test_who_cancels_the_caller_cancels_both() -> None:
    """And both have ended."""
    async with racing() as (race, task):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (race.first.ended, race.second.ended) == ("cancelled", "cancelled")


async def test_an_answer_is_closed_when_the_caller_is_cancelled_meanwhile() -> None:
    """Nobody would use it."""
    async with racing() as (race, task):
        race.second.respond()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert race.closed == ["second"]


async def test_a_deadline_of_the_caller_ends_both() -> None:
    """As `timeouts.total` is one."""
    async with asyncio.timeout(PATIENCE_S):
        race = Race(AT_ONCE)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await race.run()
        assert (race.first.ended, race.second.ended) == ("cancelled", "cancelled")


async def test_a_bug_in_one_of_them_is_raised_as_it_is() -> None:
    """And ends the other."""
    race = Race(AT_ONCE)
    async with asyncio.timeout(PATIENCE_S):
        race.second.fail(ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            await race.run()
    assert race.first.ended == "cancelled"


async def test_a_second_server_that_cannot_be_chosen_ends_the_first() -> None:
    """What the choice raises is raised."""

    def no_choice() -> Coroutine[Any, Any, str] | None:
        raise ZeroDivisionError

    race = Race(AT_ONCE)
    with pytest.raises(ZeroDivisionError):
        await first_of(race.first.send(), no_choice, AT_ONCE, race.closed.append)
    assert race.first.ended == "cancelled"


Step = Callable[[Race, "asyncio.Task[str]"], object]
STEPS: dict[str, Step] = {
    "first answers": lambda race, task: race.first.answer.done() or race.first.respond(),
    "second answers": lambda race, task: race.second.answer.done() or race.second.respond(),
    "first fails": lambda race, task: race.first.answer.done() or race.first.fail(ConnectFailed()),
    "second fails": lambda race, task: race.second.answer.done() or race.second.fail(UpstreamFailed()),
    "caller leaves": lambda race, task: task.cancel(),
    "a turn": lambda race, task: None,
}


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=8), st.booleans())
def test_every_answer_is_either_used_or_closed(steps: list[str], together: bool) -> None:
    """In whatever order things happen: both end, and one answer at most is used."""
    asyncio.run(play(steps, together))


async def play(steps: list[str], together: bool) -> None:
    """Take the steps, each in a turn of its own or all in one, and look at what is left."""
    async with racing() as (race, task):
        for step in steps:
            STEPS[step](race, task)
            if not together or step == "a turn":
                await asyncio.sleep(0)
        STEPS["first answers"](race, task)
        STEPS["second answers"](race, task)
        [outcome] = await asyncio.gather(task, return_exceptions=True)
        answers = [server.name for server in (race.first, race.second) if server.ended == "answered"]
        used = [outcome] if isinstance(outcome, str) else []
        assert sorted(used + race.closed) == sorted(answers)
        assert race.first.ended
        assert race.second.ended
        assert used or isinstance(outcome, asyncio.CancelledError | Refusal)
        for server in (race.first, race.second):
            server.answer.cancel()
            if server.answer.done() and not server.answer.cancelled():
                server.answer.exception()
