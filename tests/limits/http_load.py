"""Calls through real proxies at a steady pace, and what each was answered; a call that is sent late because the answer
before it was late counts from when it was due."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import cast

from benchmarks import messages

#: Calls a second on each connection.
PER_CONNECTION = 10.0


@dataclass
class Kind:
    """Calls of one kind."""

    name: str
    per_s: float
    tool: str = "get_weather"
    path: str = "/up/mcp"
    headers: dict[str, str] = field(default_factory=dict)

    def request(self, port: int) -> bytes:
        """One of them, as it goes over the wire."""
        headers, body = messages.call("modern", self.tool)
        return messages.request(port, self.path, headers | self.headers, body)


@dataclass
class Answers:
    """What calls of one kind were answered; status 0: nothing, the connection was lost."""

    statuses: Counter[int] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)

    @property
    def admitted(self) -> int:
        """Calls that passed."""
        return self.statuses[200]

    @property
    def errors(self) -> int:
        """Calls that were neither let through nor refused for a limit."""
        return self.statuses.total() - self.statuses[200] - self.statuses[429]


class Caller(asyncio.Protocol):
    """One kept connection with a call every so often."""

    def __init__(self, request: bytes, answers: Answers, due_at: float, pause_s: float) -> None:
        self._request = request
        self._answers = answers
        self._due_at = due_at
        self._pause_s = pause_s
        self._sent_due_at = 0.0
        self._on_time = True
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self.waiting = False
        self.over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send when the first is due."""
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        """An answer, or a part of one; all have a Content-Length."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        at = self._buffer.lower().find(b"content-length:", 0, end)
        length = int(self._buffer[at + 15 : self._buffer.find(b"\r", at)])
        if len(self._buffer) < end + length:
            return
        self._count(int(self._buffer[9:12]))
        self._buffer = b""
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        """Only after the end is that no error."""
        if self.waiting or not self.over:
            self._count(0)
        self.over = True

    def stop(self) -> None:
        """No more calls; the last answer is waited for."""
        self.over = True
        if not self.waiting and self._transport is not None:
            self._transport.close()

    def _count(self, status: int) -> None:
        self._answers.statuses[status] += 1
        self._answers.took_s.append(time.monotonic() - self._sent_due_at)
        self.waiting = False

    def _next(self) -> None:
        if self.over:
            self.stop()
            return
        wait_s = self._due_at - time.monotonic()
        self._on_time = wait_s > 0  # a timer's own lateness is nobody's fault
        asyncio.get_running_loop().call_later(max(0.0, wait_s), self._send)

    def _send(self) -> None:
        if not self.over and self._transport is not None:
            self._sent_due_at = time.monotonic() if self._on_time else self._due_at
            self._due_at += self._pause_s
            self.waiting = True
            self._transport.write(self._request)


async def call(ports: Sequence[int], kinds: Sequence[Kind], seconds: float) -> dict[str, Answers]:
    """Calls of all kinds at once, spread evenly over the proxies; returns what each kind was answered."""
    loop, found, callers = asyncio.get_running_loop(), {kind.name: Answers() for kind in kinds}, []
    began = time.monotonic() + 0.05
    turn = cycle(ports)
    for kind in kinds:
        count = max(len(ports), round(kind.per_s / PER_CONNECTION))
        for number in range(count):
            port = next(turn)
            due_at = began + number / kind.per_s
            caller = Caller(kind.request(port), found[kind.name], due_at, count / kind.per_s)
            await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", port)  # type: ignore[misc]
            callers.append(caller)
    await asyncio.sleep(began + seconds - time.monotonic())
    for caller in callers:
        caller.stop()
    async with asyncio.timeout(10):
        while any(caller.waiting for caller in callers):
            await asyncio.sleep(0.002)
    return found
