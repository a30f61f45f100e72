"""One connection to Redis on which any number of requests wait at once, without a task or a stream in between.

Owns the bytes in both directions, the order of replies, and the clock of those that wait: when one waited too long,
those behind it are told as well, for they stand in the same line. A reply that comes late is read and dropped.
It must not know what is asked; who asks hands over packed bytes and is called back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis
from hiredis import ReplyError

__all__ = ["LATE_S", "Answer", "Lane", "ReplyError", "pack"]

Answer = Callable[[list[Any] | None], None]
"""Called once: with a reply for each command (`ReplyError` for those that failed), or None: no answer."""

#: A timer that comes later than this finds a loop that was busy: answers may be there unread; seconds.
LATE_S: Final = 0.005


def pack(arguments: Sequence[Any]) -> bytes:
    """A command in bytes. `SCRIPT LOAD` is one argument to redis-py, and two to Redis."""
    packed: bytes = hiredis.pack_command((*arguments[0].split(), *arguments[1:]))
    return packed


class _Waiting:
    """One batch of commands that was sent."""

    __slots__ = ("answer", "budget_s", "count", "due", "replies")

    def __init__(self, count: int, answer: Answer, budget_s: float, due: float) -> None:
        self.count = count
        #: None: already told that there is no answer.
        self.answer: Answer | None = answer
        self.budget_s = budget_s
        self.due = due
        self.replies: list[Any] = []


class Lane(asyncio.Protocol):
    """A connection that is signed in. `failed(lost)` is called for each wait that was in vain, and when it is lost."""

    def __init__(self, writer: asyncio.StreamWriter, failed: Callable[[bool], None]) -> None:
        """Takes the transport of `writer` over, which is kept only because it closes what it is not kept for."""
        self._writer = writer
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._waiting: deque[_Waiting] = deque()
        self._timer: asyncio.Handle | None = None
        #: When it is; uvloop's handle of a timer that is due already does not say.
        self._timer_at = 0.0
        self._closed = False
        writer.transport.set_protocol(self)

    def send(self, packed: bytes, count: int, answer: Answer, budget_s: float) -> None:
        """Send `count` commands; `answer` is called within `budget_s` seconds or so, never from within this call."""
        if self._closed:
            self._loop.call_soon(answer, None)
            return
        due = self._loop.time() + budget_s
        self._waiting.append(_Waiting(count, answer, budget_s, due))
        self._writer.transport.write(packed)
        if self._timer is None:
            self._arm(due)
        elif due < self._timer_at:
            self._timer.cancel()
            self._arm(due)

    def close(self) -> None:
        """End the connection now; whoever waits is told."""
        if not self._closed:
            self._closed = True
            self._writer.transport.abort()
            self._give_up(lambda waiting: True)

    def data_received(self, data: bytes) -> None:
        """Replies, in the order of the commands."""
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                if not self._waiting:
                    continue  # said without being asked
                first = self._waiting[0]
                first.replies.append(reply)
                if len(first.replies) == first.count:
                    self._waiting.popleft()
                    if first.answer is not None:
                        first.answer(first.replies)
        except hiredis.ProtocolError:
            self._lost()

    def connection_lost(self, error: Exception | None) -> None:
        """It ended, or we ended it."""
        self._lost()

    def _lost(self) -> None:
        if not self._closed:
            self.close()
            self._failed(True)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, when: float) -> None:
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._overdue, when)

    def _overdue(self, when: float) -> None:
        """The first is due. All that asked for no more patience than is over by now are told with it."""
        self._timer = None
        now = self._loop.time()
        if now > when + LATE_S:
            self._arm(now + LATE_S)
            return
        late = [waiting for waiting in self._waiting if waiting.answer is not None and waiting.due <= now]
        if late:
            patience_s = max(waiting.budget_s for waiting in late)
            self._give_up(lambda waiting: waiting.budget_s <= patience_s)
            self._failed(False)
        due = min((waiting.due for waiting in self._waiting if waiting.answer is not None), default=None)
        if due is not None and not self._closed and self._timer is None:
            self._arm(due)

    def _give_up(self, whom: Callable[[_Waiting], bool]) -> None:
        for waiting in tuple(self._waiting):
            if waiting.answer is not None and whom(waiting):
                answer, waiting.answer = waiting.answer, None
                answer(None)
