"""The only place that starts tasks: it names them, holds them, logs how they fail, and ends them all.

Owns two kinds. A *loop* runs a step every so often for as long as the process lives; a step that fails is logged,
counted and tried again later, and the loop is started anew should it ever die. A *one-shot* runs once beside the
requests, in bounded number. It knows nothing of what a step or a one-shot does.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from proxy.log import Logger

#: A failing loop waits twice as long each time, up to this, or up to its interval if that is longer; seconds.
_MAX_BACKOFF_S: Final = 60.0
#: A step is overdue when nothing was heard of its loop for this many intervals, and for `_GRACE_S` besides.
_MISSED: Final = 3
_GRACE_S: Final = 10.0
#: One-shots that run at the same time.
_MAX_ONE_SHOTS: Final = 256

Step = Callable[[], Awaitable[object] | object]
"""One round of a loop; async, or sync if it is over within a millisecond or so."""


class Clock:
    """Monotonic seconds, Unix seconds and waiting; tests bring their own."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        return time.monotonic()

    def unix(self) -> float:
        """Seconds since 1970."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class Loop:
    """State of one loop, for whoever wants to know how it does. Times are the clock's monotonic seconds."""

    __slots__ = ("beat_at", "due_in_s", "failures", "interval_s", "jitter", "name", "step")

    def __init__(self, name: str, interval_s: float, step: Step, jitter: float, now: float) -> None:
        self.name = name
        self.interval_s = interval_s
        self.step = step
        #: Share of the delay by which each round comes earlier or later, so that replicas do not march in step.
        self.jitter = jitter
        #: Failed steps in a row.
        self.failures = 0
        #: When a step last ended, well or not.
        self.beat_at = now
        #: The delay chosen then.
        self.due_in_s = interval_s

    def overdue(self, now: float) -> bool:
        """Whether a step hangs, or the loop is gone without a word."""
        return now - self.beat_at > self.due_in_s + _MISSED * self.interval_s + _GRACE_S


class Supervisor:
    """Starts, watches and stops every task of the process."""

    def __init__(
        self,
        log: Logger,
        clock: Clock | None = None,
        *,
        on_step: Callable[[str, float, bool], None] = lambda name, at, ok: None,
        on_failure: Callable[[str, BaseException | str], None] = lambda name, error: None,
        max_one_shots: int = _MAX_ONE_SHOTS,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """`on_step(loop, unix time, success)` is told of every step: the metrics; `on_failure(name, error)` of
        steps and one-shots that fail."""
        self._log = log
        self._clock = clock or Clock()
        self._on_step = on_step
        self._on_failure = on_failure
        self._max_one_shots = max_one_shots
        self._rng = rng
        self._loops: dict[str, Loop] = {}
        self._loop_tasks: dict[str, asyncio.Task[None]] = {}
        self._one_shots: set[asyncio.Task[object]] = set()
        self._stopping = False

    def every(self, name: str, interval_s: float, step: Step, jitter: float = 0.1) -> None:
        """Run `step` every `interval_s` seconds, first after one interval. Raises ValueError if `name` is taken."""
        if name in self._loops:
            raise ValueError(f"loop {name!r} runs already")
        self._loops[name] = Loop(name, interval_s, step, jitter, self._clock.monotonic())
        self._start_loop(name)

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, object]) -> bool:
        """Run `coroutine` once, beside everything else. False when too many run or all ends; it is closed then."""
        if self._stopping or len(self._one_shots) >= self._max_one_shots:
            coroutine.close()
            return False
        task = asyncio.create_task(coroutine, name=name)  # noqa: TID251 - the one place
        self._one_shots.add(task)
        task.add_done_callback(self._one_shot_ended)
        return True

    def check(self) -> tuple[bool, str]:
        """Whether every loop is alive; else the names of those that hang. Meant for readiness."""
        now = self._clock.monotonic()
        late = [loop.name for loop in self._loops.values() if loop.overdue(now)]
        return (not late), ", ".join(late)

    async def stop(self, deadline_s: float) -> None:
        """Cancel everything and wait for it, at most `deadline_s` seconds; what still runs then is named in the log."""
        self._stopping = True
        tasks: set[asyncio.Task[Any]] = {*self._loop_tasks.values(), *self._one_shots}
        tasks.discard(cast("asyncio.Task[Any]", asyncio.current_task()))
        for task in tasks:
            task.cancel()
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=deadline_s)
        if late:
            self._log.error("tasks did not stop", tasks=sorted(task.get_name() for task in late))

    def _start_loop(self, name: str) -> None:
        task = asyncio.create_task(self._run_loop(self._loops[name]), name=name)  # noqa: TID251 - the one place
        self._loop_tasks[name] = task
        task.add_done_callback(self._loop_ended)

    async def _run_loop(self, loop: Loop) -> None:
        while not self._stopping:
            await self._clock.sleep(loop.due_in_s)
            await self._run_step(loop)
            loop.due_in_s = self._delay(loop)
            loop.beat_at = self._clock.monotonic()

    async def _run_step(self, loop: Loop) -> None:
        """One step. What it raises ends here, but for a cancellation that is meant for the loop."""
        task = asyncio.current_task()
        try:
            result = loop.step()
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError:
            if task is None or task.cancelling():
                raise
            self._step_failed(loop, "a cancellation of its own")
        except Exception as error:
            self._step_failed(loop, error)
        else:
            loop.failures = 0
            self._on_step(loop.name, self._clock.unix(), True)

    def _step_failed(self, loop: Loop, error: Exception | str) -> None:
        loop.failures += 1
        self._on_step(loop.name, self._clock.unix(), False)
        self._on_failure(loop.name, error)
        cause: dict[str, object] = {"cause": error} if isinstance(error, str) else {"exc_info": error}
        self._log.error("step failed", loop=loop.name, failures_in_a_row=loop.failures, **cause)

    def _delay(self, loop: Loop) -> float:
        longest = max(_MAX_BACKOFF_S, loop.interval_s)
        delay = min(longest, loop.interval_s * 2.0 ** min(loop.failures, 30))
        return delay * (1 + loop.jitter * (2 * self._rng() - 1))

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        """The watchdog: no loop ends while the process lives. One that did is named and started again."""
        name = task.get_name()
        if self._stopping:
            return
        error = None if task.cancelled() else task.exception()
        self._log.error("loop died and is started again", loop=name, exc_info=error)
        loop = self._loops[name]
        loop.failures += 1
        loop.due_in_s = self._delay(loop)
        self._start_loop(name)

    def _one_shot_ended(self, task: asyncio.Task[object]) -> None:
        self._one_shots.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("task failed", task=task.get_name(), exc_info=error)
            self._on_failure(task.get_name(), error)
