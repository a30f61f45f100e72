"""The link of this process to Redis: one connection, a time budget, and a breaker that only a probe closes.

Owns the connection and whether Redis is worth asking. Redis is *gone* when it cannot be reached, does not answer within
the budget three times in a second, is not the master, or refuses to write (out of memory, loading, read-only). While it
is gone nobody waits for it: requests never probe. It must not know what Redis is asked for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from proxy.dataplane.redis_lane import Answer, Lane, ReplyError, pack

__all__ = ["BUDGET_S", "RedisGone", "RedisLink"]

#: What a request waits at most, so that what is decided without Redis is decided within 50 ms: a late timer and the
#: rest of a call take their part of these; seconds.
BUDGET_S: Final = 0.04
#: So many failures within so many seconds, and Redis is gone.
_FAILURES: Final = 3
_WITHIN_S: Final = 1.0
#: From one probe of a Redis that is gone to the next, and how much of that is drawn; seconds. No doubling: a probe
#: costs nothing, and Redis must be in use again 2 s after its return.
_PROBE_S: Final = 1.0
_JITTER: Final = 0.2
#: Connecting, TLS and signing in may take longer than a question; seconds.
_CONNECT_S: Final = 0.5
_MAY_NOT: Final = "refused: NOPERM"
_PROBE_KEY: Final = "{mcpm}:p"
_PROBE_MS: Final = 1000


class RedisGone(Exception):
    """Redis cannot be asked now, or did not do as asked. Says why in a word, never with what."""


class RedisLink:
    """Asks Redis in one round trip, or says at once that it cannot."""

    def __init__(
        self, url: str, clock: Callable[[], float], draw: Callable[[], float], budget_s: float = BUDGET_S
    ) -> None:
        """`url` as redis-py reads it (redis, rediss, unix); `clock` gives monotonic seconds, `draw` a number in [0, 1).

        Raises ValueError for a URL that is none.
        """
        self._client: Redis = Redis.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0))
        self._clock = clock
        self._draw = draw
        self._budget_s = budget_s
        self._lane: Lane | None = None
        self._failed_at: deque[float] = deque(maxlen=_FAILURES)
        self._probe_at = 0.0
        #: Whether Redis is worth asking.
        self.available = False
        #: Questions without an answer, or with an error for one; times it was found gone; connections made.
        self.failures = 0
        self.opened = 0
        self.connected = 0

    async def open(self) -> None:
        """Connect. A Redis that is gone is no error: the probes go on."""
        await self.probe()

    async def close(self) -> None:
        """End the connection."""
        self._drop()
        await self._client.aclose()

    async def run(self, ask: Callable[[Pipeline], object], budget_s: float | None = None) -> list[Any]:
        """The replies to the commands that `ask` puts into the pipeline, read as redis-py does, in one round trip.

        Raises RedisGone for whatever goes wrong; what was asked may have been done then. There are no retries.
        """
        if not self.available:
            raise RedisGone("gone")
        return await self._run(ask, self._budget_s if budget_s is None else budget_s)

    def send(self, packed: bytes, count: int, answer: Answer) -> None:
        """For the path of requests: `count` packed commands; `answer` gets the raw replies, or None. Only if available.

        Errors among the replies are the caller's to find, and to count with `refused`.
        """
        if self._lane is None:
            answer(None)
        else:
            self._lane.send(packed, count, answer, self._budget_s)

    def refused(self) -> None:
        """Redis answered, but with an error. Counts like no answer."""
        self._failure(lost=False)

    async def probe(self) -> None:
        """A background step, a few times a second: whether Redis answers, writes and is the master."""
        if self.available:
            await self._ping()
        elif self._clock() >= self._probe_at:
            self.available = await self._connect()
            if not self.available:
                self._postpone()

    async def _ping(self) -> None:
        """Finds out that Redis is gone before a request does."""
        with suppress(RedisGone):
            await self._run(lambda pipeline: pipeline.set(_PROBE_KEY, 1, px=_PROBE_MS), self._budget_s)

    async def _connect(self) -> bool:
        """Make a new connection and ask for everything that is needed. Whether all of it is there."""
        self._drop()
        try:
            async with asyncio.timeout(_CONNECT_S):
                connection = self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
                await connection.connect()
        except (OSError, TimeoutError, RedisError):
            self.failures += 1
            return False
        # The connection signs in; from here on the lane reads and writes, and nobody else knows of the transport.
        self._lane = Lane(connection._writer, lambda lost: self._failure(lost=lost))
        connection._reader = connection._writer = None
        self.connected += 1
        try:
            await self._run(lambda pipeline: pipeline.set(_PROBE_KEY, 1, px=_PROBE_MS), self._budget_s)
            leads = await self._leads()
        except RedisGone:
            return False
        self._failed_at.clear()
        return leads and self._lane is not None

    async def _leads(self) -> bool:
        """Whether it is the master. A user who may not ask that is believed to have been sent to it."""
        try:
            [role] = await self._run(lambda pipeline: pipeline.execute_command("ROLE"), self._budget_s)
        except RedisGone as error:
            if str(error) == _MAY_NOT:
                return True
            raise
        return bool(role[0] == b"master")

    async def _run(self, ask: Callable[[Pipeline], object], budget_s: float) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        ask(pipeline)
        commands = pipeline.command_stack
        future: asyncio.Future[list[Any] | None] = asyncio.get_running_loop().create_future()
        if self._lane is None:
            raise RedisGone("not connected")
        packed = b"".join(pack(arguments) for arguments, _ in commands)
        self._lane.send(packed, len(commands), lambda replies: _tell(future, replies), budget_s)
        replies = await future
        if replies is None:
            raise RedisGone("no answer")
        return [self._read(reply, *command) for reply, command in zip(replies, commands, strict=True)]

    def _read(self, reply: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        if isinstance(reply, ReplyError):
            self.refused()
            raise RedisGone("refused: " + str(reply).split(" ", 1)[0][:20])
        read = self._client.response_callbacks.get(arguments[0])
        kept = {name: value for name, value in options.items() if name != "keys"}  # those are for client-side caches
        return reply if read is None else read(reply, **kept)

    def _failure(self, *, lost: bool) -> None:
        """No answer, or an error for one; `lost`: the connection is gone, which leaves nothing to try."""
        self.failures += 1
        now = self._clock()
        self._failed_at.append(now)
        if lost or (len(self._failed_at) == _FAILURES and now - self._failed_at[0] <= _WITHIN_S):
            was_available, self.available = self.available, False
            if was_available:
                self.opened += 1
                self._probe_at = now  # a server that restarts is back sooner than in a second
            if not lost:
                self._postpone()
                self._drop()

    def _postpone(self) -> None:
        self._probe_at = self._clock() + _PROBE_S * (1 + _JITTER * (2 * self._draw() - 1))

    def _drop(self) -> None:
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.close()


def _tell(future: asyncio.Future[list[Any] | None], replies: list[Any] | None) -> None:
    if not future.done():
        future.set_result(replies)
