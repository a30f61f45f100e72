"""The places in a connection pool: who has one, who waits, and how many there are.

Owns their order, and the growth of their number before anyone waits; `pool_size.py` says by how much. It knows no
connection and no server.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from proxy.dataplane.pool_size import grown


class Slots:
    """At most `limit` exchanges at a time; the others wait in order. The limit grows up to `most` before anyone waits.

    Who comes takes a place with `used += 1` while `used < peak`, else asks `take`, and if that fails `wait`s: so the
    highest use is known, and costs nothing but to those who raise it.
    """

    __slots__ = ("_most_waiting", "_waiters", "limit", "most", "peak", "used", "waited_s", "waits")

    def __init__(self, limit: int, most: int = 0) -> None:
        """`most` is what the limit may grow to by itself, if that is more than `limit`."""
        self.limit = limit
        self.most = max(limit, most)
        self.used = 0
        #: The highest use since `demand` was asked for; never above the limit.
        self.peak = 0
        #: How often, and for how long, anybody waited.
        self.waits = 0
        self.waited_s = 0.0
        self._most_waiting = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._waiters)

    def take(self) -> bool:
        """Take a slot if one is free or the limit can grow."""
        used = self.used + 1
        if used > self.limit:
            if used > self.most:
                return False
            self.limit = max(used, grown(used, self.most))
        self.used = used
        self.peak = max(self.peak, used)
        return True

    async def wait(self, timeout_s: float) -> None:
        """Take a slot when none is free at once. Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append(waiter)
        self._most_waiting = max(self._most_waiting, len(self._waiters))
        self.waits += 1
        began = loop.time()
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self.release()
            else:
                with suppress(ValueError):  # `release` drops those who gave up
                    self._waiters.remove(waiter)
            raise
        finally:
            self.waited_s += loop.time() - began

    def release(self) -> None:
        """Give a slot back, to the one who waits longest."""
        if not (self._waiters and self._hand_over()):
            self.used -= 1

    def resize(self, limit: int) -> None:
        """Change the limit; above `most` it takes that along, and who waits goes on. It does not shrink while anybody
        waits. What is in use above it stays until it is given back."""
        if self._waiters:
            limit = max(limit, self.limit)
        self.limit = limit
        self.most = max(self.most, limit)
        self.peak = min(self.peak, limit)
        while self.used < limit and self._hand_over():
            self.used += 1
            self.peak = max(self.peak, self.used)

    def demand(self) -> int:
        """The highest that was in use and waited at once, since this was last asked."""
        demand = max(self.peak, self.used) + max(self._most_waiting, len(self._waiters))
        self.peak, self._most_waiting = min(self.used, self.limit), len(self._waiters)
        return demand

    def _hand_over(self) -> bool:
        """Whether anybody took the slot."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return True
        return False
