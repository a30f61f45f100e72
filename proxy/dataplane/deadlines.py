"""Deadlines for whoever waits on an upstream, kept in one table that a tick looks through.

A timer of its own for each request costs as much as parsing it (3 us with `asyncio.timeout`); an entry in a table costs
0.3 us, and the table holds only requests that wait for an answer to begin. The price is the tick's precision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadlines:
    """Cancels tasks that wait too long; each waits for one thing at a time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._due: dict[asyncio.Task[object], float] = {}
        self._missed: set[asyncio.Task[object]] = set()

    def start(self, seconds: float) -> asyncio.Task[object]:
        """Give the current task `seconds` from now. `end` must follow in any case."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - only tasks wait
        self._due[task] = self._clock() + seconds
        return task

    def end(self, task: asyncio.Task[object]) -> bool:
        """Take the deadline off; whether it was missed, in which case the task's cancellation was that and no other."""
        self._due.pop(task, None)
        if task not in self._missed:
            return False
        self._missed.discard(task)
        return task.uncancel() == 0

    def tick(self) -> None:
        """Cancel what is overdue; called every tenth of a second."""
        now = self._clock()
        for task in [task for task, due in self._due.items() if now >= due]:
            del self._due[task]
            self._missed.add(task)
            task.cancel()
