"""Calls that are told apart afterwards: when each was sent, how it ended, and what it was told."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.load import percentile
from tests.harness import RawClient

#: Part of a configuration: no lines about requests, and nobody is refused because the machine is busy with something
#: else, which is another scenario's (F30).
QUIET: Final[dict[str, Any]] = {"log": {"access": False}, "overload": {"loop_lag": "60s"}}
#: No answer in this time is none, seconds.
_PATIENCE_S: Final = 15.0


@dataclass(slots=True)
class Seen:
    """One call as its client saw it; monotonic seconds."""

    sent_at: float
    ended_at: float = 0.0
    status: int = 0
    """0: the connection was cut, or nothing came in time."""
    reason: str = ""
    """Of a refusal of the proxy."""
    retry_after: str = ""
    request_id: str = ""
    """Name of the record."""
    body: bytes = b""

    @property
    def took_s(self) -> float:
        return self.ended_at - self.sent_at


class Caller:
    """Calls on connections that are kept; one for each call under way."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: deque[RawClient] = deque()

    async def call(self, request: bytes) -> Seen:
        """One call; waits for its end."""
        seen = Seen(time.monotonic())
        try:
            client = self._idle.pop() if self._idle else await RawClient.connect(self._port)
        except OSError:
            seen.ended_at = time.monotonic()
            return seen
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await client.send(request)
                seen.status, fields, seen.body = await client.answer()
        except (OSError, EOFError, TimeoutError):
            client.writer.transport.abort()
        else:
            self._idle.append(client)
            seen.request_id = fields.get("x-request-id", "")
            seen.retry_after = fields.get("retry-after", "")
            seen.reason = reason_of(seen.body) if seen.status >= 400 else ""
        seen.ended_at = time.monotonic()
        return seen

    async def keep_pace(self, per_s: float, request: Callable[[], bytes], ended: asyncio.Event) -> list[Seen]:
        """So many calls a second until `ended`, whether or not the ones before were answered."""
        calls, due_at = [], time.monotonic()
        async with asyncio.TaskGroup() as group:
            while not ended.is_set():
                calls.append(group.create_task(self.call(request())))
                due_at += 1 / per_s
                await asyncio.sleep(max(0.0, due_at - time.monotonic()))
        return [call.result() for call in calls]

    async def close(self) -> None:
        """Close every connection."""
        for client in self._idle:
            await client.close()


def reason_of(body: bytes) -> str:
    """Why the proxy refused; '' for what a server answered itself."""
    try:
        reason = json.loads(body)["error"]["data"]["reason"]
    except (ValueError, LookupError, TypeError):
        return ""
    return str(reason)


def p99_ms(seen: Sequence[Seen]) -> float:
    """Of what these calls took; not a number when there are none."""
    return percentile(sorted(each.took_s for each in seen), 99) * 1e3
