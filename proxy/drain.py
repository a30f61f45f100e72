"""The end of serving, in good order: not ready, stop accepting, let what runs finish, end streams between events.

Owns the waiting and the two signals: the first drains, the second ends at once. What is closed afterwards, and in which
order, is the composition root's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.admin.readiness import Readiness
    from proxy.config.models import Drain as Periods
    from proxy.dataplane.listener import Listener
    from proxy.dataplane.streams import Streams

#: How often it is looked whether all is done, and how long the last writes may take once the grace is over, seconds.
_STEP_S: Final = 0.02
_LAST_WRITES_S: Final = 1.0


class Drain:
    """What waits for a signal, and then for the last request."""

    def __init__(self, listener: Listener, streams: Streams, readiness: Readiness) -> None:
        self._listener = listener
        self._streams = streams
        self._readiness = readiness
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()

    def signalled(self) -> None:
        """The first signal drains, the second ends now."""
        if self._stopping.is_set():
            self._hurried.set()
        self._stopping.set()

    async def signal(self) -> None:
        """Wait for the first signal."""
        await self._stopping.wait()

    async def run(self, periods: Periods) -> None:
        """Turn not ready, let the load balancer notice, then stop accepting and let what runs finish. From the first
        moment on each answer is the last one on its connection.

        Streams on which nobody waits for an answer are ended between two events at once; the others, and calls, have
        until the grace is over. Then streams end at their next event boundary, and the rest is left to be reset.
        """
        self._readiness.set("listener", False, "draining")
        self._listener.draining = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurried.wait(), periods.delay)
        await self._listener.stop_accepting()
        self._streams.end_listening()
        if not await self._idle_within(periods.grace):
            self._streams.end_all()
            await self._idle_within(_LAST_WRITES_S)

    async def _idle_within(self, seconds: float) -> bool:
        """Whether every connection ended in time; a second signal ends the waiting."""
        until = time.monotonic() + seconds
        while self._listener.connections and time.monotonic() < until and not self._hurried.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), _STEP_S)
        return not self._listener.connections
