"""The queue before one server: who gets a slot, who waits, and who is told at once to come back later.

Slots go to the highest class that waits, but every 16th to the class that has had none for longest, so that no class
starves; inside a class tenants take turns (`turns.py`). How long a place in the queue takes follows from how fast slots
came free lately while none was: whoever could not be served in time is refused at once. Nobody starts a task or a timer
of his own here: one timer ends what has waited too long. Nothing is known of servers, routes and requests.
"""

from __future__ import annotations

import asyncio
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final

from proxy.dataplane.turns import Turns, Waiter
from proxy.errors import QueueFull, QueueTimeout, retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxy.config.resilience import Queue
    from proxy.errors import Refusal

_CLASSES: Final = 3
#: Every so many slots one goes to the class that has had none for longest.
_GUARANTEE: Final = 16
_MOST_OFTEN: Final = 1 - 1 / _GUARANTEE
#: The pace is an average of so many slots that came free, of two rounds of all, or of so many seconds.
_LEAST_MEMORY: Final = 64
_MEMORY_S: Final = 0.5
#: Weights beyond these count as these.
_LEAST_WEIGHT, _MOST_WEIGHT = 1e-6, 1e6
#: Longest time that anyone is told to stay away, seconds: nobody knows what is after that.
_LONGEST_S: Final = 60
#: The timer fires no more often than this, seconds; so much longer may a wait be.
_TIMER_S: Final = 0.005


class RequestQueue:
    """One server's slots, and those who wait for them. The public attributes are for records; only `resize` sets any.

    Of those who came, each is counted once: `admitted`, `rejected` (QueueFull, or sent away), `expired` (QueueTimeout)
    or `abandoned` (left by itself).
    """

    __slots__ = (
        "_classes", "_clock", "_deadlines", "_gap_s", "_gaps", "_handed", "_mark", "_memory", "_numbers", "_overtaken",
        "_served_at", "_timer", "_timer_at", "abandoned", "admitted", "expired", "max_concurrent", "max_pending",
        "max_wait_s", "pending", "rejected", "running", "waited_s",
    )  # fmt: skip

    def __init__(self, config: Queue, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.max_concurrent = config.max_concurrent
        self.max_pending = config.max_pending
        self.max_wait_s = config.max_wait
        self.running = self.pending = 0
        self.admitted = self.rejected = self.expired = self.abandoned = 0
        #: Seconds that all admitted have waited together.
        self.waited_s = 0.0
        self._classes = tuple(Turns() for _ in range(_CLASSES))
        #: Slots handed to somebody who waited.
        self._handed = 0
        #: By class: which of these was its last, and the part of them that went to higher ones lately.
        self._served_at = [0] * _CLASSES
        self._overtaken = [0.0] * _CLASSES
        #: Average time between two slots that come free while none is; of so many.
        self._gap_s = 0.0
        self._gaps = 0
        self._memory = max(_LEAST_MEMORY, 2 * config.max_concurrent)
        #: Since when the next one is awaited; means something while no slot is free.
        self._mark = 0.0
        #: (until when, number, who), some of whom wait no more.
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    # --- slots --------------------------------------------------------------------------------------------------------

    def try_enter(self) -> bool:
        """Take a slot when one is free, which none is while somebody waits."""
        if self.running >= self.max_concurrent:
            return False
        self.running += 1
        if self.running == self.max_concurrent:
            self._mark = self._clock()
        self.admitted += 1
        return True

    async def enter(self, tenant: str, weight: float, priority: int, patience_s: float, size: int = 0) -> None:
        """Take a slot, in turn. `priority`: 0 high, 1 normal, 2 low; `patience_s`: how long it is worth waiting;
        `size`: bytes that are held meanwhile.

        Raises QueueFull or QueueTimeout, with `Retry-After` in whole seconds, at least 1; and what `send_away` gives.
        """
        if self.try_enter():
            return
        weight = min(max(_LEAST_WEIGHT, weight), _MOST_WEIGHT)
        waiter = self._join(tenant, weight, priority, patience_s)
        waiter.size = size
        try:
            refusal = await waiter.future
        except asyncio.CancelledError:
            self._abandon(waiter)
            raise
        if refusal is None:
            self.admitted += 1
            self.waited_s += waiter.ended_at - waiter.since
            return
        if isinstance(refusal, QueueTimeout):
            self.expired += 1
        else:
            self.rejected += 1
        raise refusal

    def leave(self) -> None:
        """Give a slot back; it goes to the next who waits."""
        if self.running < self.max_concurrent:
            self.running -= 1
            return
        now = self._clock()
        self._gaps += 1
        if self._gaps > self._memory:
            self._gaps = min(self._gaps, max(self._memory, int(_MEMORY_S / (self._gap_s + 1e-6))))
        self._gap_s += (now - self._mark - self._gap_s) / self._gaps
        self._mark = now
        self._pass_on(now)

    def resize(self, max_concurrent: int) -> None:
        """Another number of slots; what runs beyond it goes on."""
        self.max_concurrent = max_concurrent
        self._memory = max(_LEAST_MEMORY, 2 * max_concurrent)
        self._gaps = min(self._gaps, self._memory)
        now = self._mark = self._clock()
        while self.pending and self.running < max_concurrent:
            self.running += 1
            self._pass_on(now)

    @property
    def oldest_wait_s(self) -> float:
        """How long the first of those who wait has waited."""
        oldest = [next(iter(each.waiting)).since for each in self._classes if each.waiting]
        return self._clock() - min(oldest) if oldest else 0.0

    @property
    def drained_per_s(self) -> float:
        """Slots that come free in a second while none is; 0 as long as that is not known."""
        gap_s = self._pace_s(self._clock())
        return 1 / gap_s if self._gaps and gap_s > 0 else 0.0

    # --- waiting ------------------------------------------------------------------------------------------------------

    def _join(self, tenant: str, weight: float, priority: int, patience_s: float) -> Waiter:
        now, turns = self._clock(), self._classes[priority]
        wait_s, limit_s = self._wait_s(priority, tenant, weight, now), min(self.max_wait_s, patience_s)
        if wait_s > limit_s or (self.pending >= self.max_pending and not self._make_room(priority, tenant, weight)):
            self.rejected += 1
            raise QueueFull("too long" if wait_s > limit_s else "full", headers=retry_after(min(wait_s, _LONGEST_S)))
        loop = asyncio.get_running_loop()
        waiter = Waiter(loop.create_future(), now, turns)
        turns.add(tenant, weight, waiter)
        self.pending += 1
        if len(self._deadlines) > 2 * self.pending + 64:
            self._deadlines = [each for each in self._deadlines if each[2].line is not None]
            heapify(self._deadlines)
        heappush(self._deadlines, (now + limit_s, next(self._numbers), waiter))
        if self._timer is None or now + limit_s < self._timer_at - _TIMER_S:
            self._set_timer(loop, now, now + limit_s)
        return waiter

    def _make_room(self, priority: int, tenant: str, weight: float) -> bool:
        """Whether somebody could be sent away: one of the lowest class that waits, if that is lower; else one of a
        tenant of the same class that has more waiting by its weight."""
        lowest = max((number for number, each in enumerate(self._classes) if each.waiting), default=-1)
        if lowest < priority:
            return False
        turns = self._classes[lowest]
        waiter = turns.youngest() if lowest > priority else turns.outnumbering(tenant, weight)
        if waiter is None or waiter.line is None:
            return False
        line = waiter.line
        self._remove(waiter)
        wait_s = self._wait_s(lowest, line.tenant, line.weight, self._clock())
        if not waiter.future.done():
            waiter.future.set_result(QueueFull("another has its place", headers=retry_after(min(wait_s, _LONGEST_S))))
        return True

    def waiting(self) -> Iterator[Waiter]:
        """Everyone who waits."""
        return (waiter for each in self._classes for waiter in each.waiting)

    def send_away(self, waiter: Waiter, refusal: Refusal) -> None:
        """End the wait of one of those who wait."""
        self._remove(waiter)
        if not waiter.future.done():
            waiter.future.set_result(refusal)

    def _remove(self, waiter: Waiter) -> None:
        waiter.turns.remove(waiter)
        self.pending -= 1
        if not self.pending:
            self._overtaken = [0.0] * _CLASSES

    def _abandon(self, waiter: Waiter) -> None:
        """Its client has left: it waits no more, and a slot that it was just given goes to the next."""
        self.abandoned += 1
        if waiter.line is not None:
            self._remove(waiter)
        elif not waiter.future.cancelled() and waiter.future.result() is None:
            self._pass_on(self._clock())

    def _pass_on(self, now: float) -> None:
        """A slot that is taken goes to whose turn it is, or comes free."""
        while self.pending and self.running <= self.max_concurrent:
            waiter = self._next()
            if not waiter.future.done():  # else its client is just leaving
                waiter.ended_at = now
                waiter.future.set_result(None)
                return
        self.running -= 1

    def _next(self) -> Waiter:
        """Take out whose turn it is; somebody waits."""
        self._handed += 1
        waiting = [number for number, each in enumerate(self._classes) if each.waiting]
        chosen, overtaken = waiting[0], self._overtaken
        if not self._handed % _GUARANTEE:
            chosen = min(waiting, key=self._served_at.__getitem__)
        self._served_at[chosen] = self._handed
        if len(waiting) > 1 or overtaken[chosen]:
            part = 1 / max(self._gaps, self._memory)
            for number in waiting:
                overtaken[number] += ((chosen < number) - overtaken[number]) * part
        waiter = self._classes[chosen].next()
        self.pending -= 1
        if not self.pending:
            self._overtaken = [0.0] * _CLASSES
        return waiter

    # --- how long it takes --------------------------------------------------------------------------------------------

    def _pace_s(self, now: float) -> float:
        """Seconds between two slots that come free. Until as many have as there are, a whole round is taken to end now;
        later two rounds, when none has come free for that long."""
        current = now - self._mark if self.running >= self.max_concurrent else 0.0
        if self._gaps < self.max_concurrent:
            return (self._gap_s * self._gaps + current) / self.max_concurrent
        return max(self._gap_s, current / self.max_concurrent / 2)

    def _wait_s(self, priority: int, tenant: str, weight: float, now: float) -> float:
        """Until one more request would have its slot: everyone of higher classes before it, and those that will still
        come as often as they did lately."""
        turns = self._classes[priority].until(tenant, weight)
        if priority:
            turns = max(
                self._waiting_above(priority) + turns, turns / (1 - min(self._overtaken[priority], _MOST_OFTEN))
            )
        return self._pace_s(now) * turns

    def _waiting_above(self, priority: int) -> int:
        high, normal, _ = self._classes
        return len(high.waiting) if priority == 1 else len(high.waiting) + len(normal.waiting)

    # --- the end of patience ------------------------------------------------------------------------------------------

    def _set_timer(self, loop: asyncio.AbstractEventLoop, now: float, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = max(at, now + _TIMER_S)
        self._timer = loop.call_later(self._timer_at - now, self._expire)

    def _expire(self) -> None:
        """End the wait of those whose time is over."""
        self._timer, now, deadlines = None, self._clock(), self._deadlines
        while deadlines and (deadlines[0][2].line is None or deadlines[0][0] <= now):
            _, _, waiter = heappop(deadlines)
            line = waiter.line
            if line is None:
                continue
            priority = self._classes.index(waiter.turns)
            self._remove(waiter)
            if not waiter.future.done():
                wait_s = self._wait_s(priority, line.tenant, line.weight, now)
                waiter.future.set_result(QueueTimeout(headers=retry_after(min(wait_s, _LONGEST_S))))
        if deadlines:
            self._set_timer(asyncio.get_running_loop(), now, deadlines[0][0])
