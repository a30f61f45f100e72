"""What PostgreSQL tells on the channel `mcp_manager`: which rows changed.

Owns one connection of its own, made again with growing delays when it is lost. It says when something may have been
missed; reading everything anew then is the caller's part. It starts no task: `step()` is meant for a loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import orjson

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

CHANNEL: Final = "mcp_manager"
#: The first retry comes after this, each further one twice as late, up to the longest; seconds.
_FIRST_RETRY_S: Final = 0.1
_LONGEST_RETRY_S: Final = 5.0
#: Connecting, and any answer; and how long silence is believed, because a dead peer is silent too; seconds.
_ANSWER_S: Final = 1.0
_SILENCE_S: Final = 2.0
#: More notices than this between two steps are answered by reading everything once.
_MOST: Final = 5000
#: The last one is what asyncpg raises when the server's farewell is there before our next statement.
_LOST: Final = (
    OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Notice:
    """One row changed; what it says now has to be read."""

    table: str
    op: str
    """`insert`, `update`, `delete` or `truncate`."""
    tenant: str
    """'' when the table has none."""
    id: str
    """'' for every row of the table."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What one step brought."""

    notices: tuple[Notice, ...] = ()
    """Each once, in the order of their first arrival."""
    missed: bool = False
    """Something may have been missed, or is too much: read everything."""
    connected: bool = False
    """False: nothing will be heard until further notice, so ask regularly."""


class Notices:
    """The ear of a process."""

    def __init__(self, dsn: str, clock: Callable[[], float], draw: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds, `draw` a number from 0 to 1 that keeps replicas from marching in step.
        The DSN has to lead to the server itself: a pooler in transaction mode lets nobody listen."""
        self._dsn = dsn
        self._clock = clock
        self._draw = draw
        self._connection: Connection | None = None
        self._retry_at = 0.0
        self._retry_s = _FIRST_RETRY_S
        self._heard_at = 0.0
        self._waiting: dict[Notice, None] = {}
        self._missed = False
        self._something = asyncio.Event()
        #: How often the connection was lost, or could not be made.
        self.failures = 0

    @property
    def connected(self) -> bool:
        """Whether we listen, as far as we know."""
        return self._connection is not None and not self._connection.is_closed()

    async def step(self, wait_s: float) -> Heard:
        """Connect if need be, then wait for notices at most `wait_s` seconds. Never raises for a server that is gone.

        Takes no longer than `wait_s` and two seconds. The first step after a connection was made says `missed`.
        """
        if self._connection is not None and self._connection.is_closed():
            self._lost()
        if self._connection is None:
            await self._connect()
        if self._connection is not None:
            await self._wait(wait_s)
        return self._take()

    async def close(self) -> None:
        """Stop listening."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _connect(self) -> None:
        if self._clock() < self._retry_at:
            return
        try:
            connection = await asyncpg.connect(
                self._dsn, timeout=_ANSWER_S, server_settings={"application_name": "mcp-manager listen"}
            )
        except _LOST:
            self._lost()
            return
        self._connection = connection
        connection.add_termination_listener(self._wake)
        if await self._answers(connection.add_listener(CHANNEL, self._hear)):
            self._retry_s = _FIRST_RETRY_S
            self._missed = True
            self._something.set()

    async def _wait(self, wait_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._something.wait()
        if self._clock() - self._heard_at >= _SILENCE_S and self._connection is not None:
            await self._answers(self._connection.execute("/* listen.alive */ SELECT 1"))

    async def _answers(self, answer: Any) -> bool:
        """Await an answer of the server; the connection is given up when it does not come."""
        connection = self._connection
        if connection is None:
            return False
        deadline = asyncio.get_running_loop().call_later(_ANSWER_S, connection.terminate)
        try:
            await answer
        except _LOST:
            connection.terminate()
            self._lost()
            return False
        finally:
            deadline.cancel()
        self._heard_at = self._clock()
        return True

    def _lost(self) -> None:
        self._connection = None
        self.failures += 1
        self._retry_at = self._clock() + self._retry_s * (0.5 + self._draw())
        self._retry_s = min(_LONGEST_RETRY_S, 2 * self._retry_s)

    def _hear(self, _connection: object, _pid: object, _channel: object, payload: object) -> None:
        notice = parse(payload)
        self._heard_at = self._clock()
        if notice is None or len(self._waiting) >= _MOST:
            self._missed = True
        else:
            self._waiting[notice] = None
        self._something.set()

    def _wake(self, _connection: object) -> None:
        self._something.set()

    def _take(self) -> Heard:
        missed, self._missed = self._missed, False
        notices = () if missed else tuple(self._waiting)
        self._waiting.clear()
        self._something.clear()
        return Heard(notices, missed, self.connected)


def parse(payload: object) -> Notice | None:
    """The notice that a payload holds; None when it is not one of ours."""
    try:
        found = orjson.loads(payload if isinstance(payload, str) else "")
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("table"), str):
        return None
    values = [found.get(name) for name in ("table", "op", "tenant", "id")]
    return Notice(*("" if value is None else str(value) for value in values))
