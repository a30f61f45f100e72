"""Syncing in groups: whoever needs records on the disk waits together for one `fdatasync(2)`.

Owns the one thread that syncs, how far the disk has got, and how far it has failed: what a failed sync was to put there
never counts as being there, because the next one would say so without it (fsync(2), errors are reported once).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from proxy.spool.writer import Unsynced, Writer


_R = TypeVar("_R")


class Groups:
    """The syncs of one journal, one at a time."""

    def __init__(self, writer: Writer, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds."""
        self._writer = writer
        self._clock = clock
        self._running: asyncio.Future[str] | None = None
        self._began = 0.0
        #: For everything that blocks on the disk of the spool, and nothing else.
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        #: Mark up to which a sync succeeded.
        self.done = 0
        #: Marks past the first and up to the second are those of a sync that failed.
        self._lost = (0, 0)
        #: Syncs that were made and that failed; seconds of all and of the last.
        self.count = self.failures = 0
        self.seconds = self.last_s = 0.0
        #: Name of the error of the last sync; '' for none.
        self.error = ""

    @property
    def waiting_s(self) -> float:
        """Seconds since the running sync began; 0 when none runs."""
        return self._clock() - self._began if self._running is not None else 0.0

    async def through(self, mark: int) -> bool:
        """Return when everything up to `mark` is on the disk; False when a sync of it failed. May wait for ever: the
        deadline is the caller's."""
        while not self._lost[0] < mark <= self._lost[1]:
            if mark <= self.done:
                return True
            await self.again()
        return False

    async def again(self) -> None:
        """Return when the running sync, or else a new one, has ended. May wait for ever."""
        running = self._running if self._running is not None else self._begin()
        await asyncio.shield(running)
        if self._running is running:  # it ended a moment ago, and who notes that comes next: waiting took no time
            await asyncio.sleep(0)

    async def aside(self, call: Callable[[], _R]) -> _R:
        """Do something that blocks on the disk. May wait for ever."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, call)

    def close(self) -> None:
        """Wait for nothing: a sync that hangs ends when the disk lets it."""
        self.thread.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> asyncio.Future[str]:
        what = self._writer.unsynced()
        self._began = self._clock()
        running = asyncio.get_running_loop().run_in_executor(self.thread, what.sync)
        self._running = running
        running.add_done_callback(partial(self._over, what))
        return running

    def _over(self, what: Unsynced, ended: asyncio.Future[str]) -> None:
        """A sync has ended; whoever waits for it is woken after this."""
        self.last_s = self.waiting_s
        self._running = None
        self.seconds += self.last_s
        self.count += 1
        self.error = "cancelled" if ended.cancelled() else ended.result()
        if self.error:
            self.failures += 1
            self._lost = (self._lost[0] if self.done <= self._lost[1] else self.done, what.mark)
            return
        self._writer.synced(what)
        self.done = what.mark
