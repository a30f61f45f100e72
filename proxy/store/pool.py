"""One pool of connections to PostgreSQL in which no wait is without an end.

Owns acquiring, deadlines, transactions and counting; who the transaction is for is `database.py`'s to say. A deadline
that passes cuts the connection instead of asking the server to cancel, because a server that is frozen answers neither
(asyncpg's own time-outs wait for the cancellation). `statement_timeout` ends a statement that is merely slow.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg

from proxy.store.circuit import Circuit

if TYPE_CHECKING:
    Record = asyncpg.Record
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

_Result = TypeVar("_Result")

_NAME: Final = re.compile(r"/\* ([a-z][a-z0-9_.]{0,62}) \*/ ")
#: The server ends a slow statement itself; the connection is cut only if it says nothing for this much longer, seconds.
_GRACE_S: Final = 0.1
#: What asyncpg raises when a connection cannot be had, or is lost; the last one when the server's farewell is there
#: before our next statement.
_LOST: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_SLOW: Final = (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError)


class Unavailable(Exception):
    """PostgreSQL cannot be used just now; whether a commit that was under way took effect is unknown."""


class TooSlow(Unavailable):
    """A statement took longer than it may, or waited too long for a lock or for a connection of the pool."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one pool; times in seconds."""

    connections: int = 10
    connect_s: float = 1.0
    acquire_s: float = 0.5
    statement_s: float = 0.5


@dataclass(slots=True)
class Numbers:
    """What one pool did since the start; the first five are as of now."""

    bound: int
    """Most connections that it may have."""
    connections: int = 0
    idle: int = 0
    wanted: int = 0
    """Transactions that have a connection, or wait for one."""
    circuit_open: bool = False
    circuit_opened: int = 0
    units: int = 0
    """Transactions begun."""
    statements: int = 0
    seconds: float = 0.0
    """Spent in statements."""
    waits: int = 0
    """For a connection, because all were in use."""
    waited_s: float = 0.0
    peak: int = 0
    """Most that were wanted since `demand` was asked for."""
    exhausted: int = 0
    """Nobody gave a connection back in time."""
    unreachable: int = 0
    cut: int = 0
    """Connections cut at a deadline."""
    slow: int = 0
    """Statements that the server ended."""

    def want(self) -> bool:
        """One more is wanted; whether it has to wait."""
        self.wanted += 1
        self.peak = max(self.peak, self.wanted)
        self.waits += self.wanted > self.bound
        return self.wanted > self.bound

    def demand(self) -> int:
        """The most that was in use and waited at once, since this was last asked."""
        demand, self.peak = self.peak, self.wanted
        return demand


class Session:
    """One transaction. Statements begin with their name in a comment, such as `/* keys.by_id */ SELECT`, under which
    the server's own statistics show them."""

    __slots__ = ("_connection", "_numbers", "_statement_s", "stuck")

    def __init__(self, connection: Connection, statement_s: float, numbers: Numbers) -> None:
        self._connection = connection
        self._statement_s = statement_s
        self._numbers = numbers
        #: A deadline passed.
        self.stuck = False

    async def fetch(self, statement: str, *values: object) -> list[Record]:
        """All rows. Raises Unavailable, and asyncpg.PostgresError for what is wrong with the statement or values."""
        return await self._run(self._connection.fetch, statement, *values)

    async def fetch_row(self, statement: str, *values: object) -> Record | None:
        """The first row. Raises as `fetch`."""
        return await self._run(self._connection.fetchrow, statement, *values)

    async def fetch_value(self, statement: str, *values: object) -> Any:
        """The first value of the first row. Raises as `fetch`."""
        return await self._run(self._connection.fetchval, statement, *values)

    async def execute(self, statement: str, *values: object) -> str:
        """The status, such as `INSERT 0 1`. Raises as `fetch`."""
        return await self._run(self._connection.execute, statement, *values)

    async def _run(self, ask: Callable[..., Awaitable[_Result]], statement: str, *values: object) -> _Result:
        """`ask` is called here, because a connection that is gone raises before there is anything to await."""
        if _NAME.match(statement) is None:
            raise ValueError("a statement begins with its name: /* part.what */ SELECT ...")
        loop = asyncio.get_running_loop()
        began = loop.time()
        deadline = loop.call_later(self._statement_s + _GRACE_S, self._cut)
        try:
            return await ask(statement, *values)
        except _SLOW:
            self._numbers.slow += 1
            raise TooSlow("a statement took too long") from None
        except _LOST:
            if _gone(self._connection):
                raise Unavailable("the connection was lost") from None
            raise
        finally:
            deadline.cancel()
            self._numbers.statements += 1
            self._numbers.seconds += loop.time() - began

    def _cut(self) -> None:
        self.stuck = True
        self._numbers.cut += 1
        _terminate(self._connection)


class Pool:
    """Connections to one place. Made without connecting: a server that is down is no reason not to start."""

    def __init__(self, dsn: str, bounds: Bounds, circuit: Circuit, application: str) -> None:
        """`application` is what the server shows as `application_name`."""
        self.circuit = circuit
        self._bounds = bounds
        self._numbers = Numbers(bounds.connections)
        self._settings = {
            "application_name": application,
            "statement_timeout": f"{round(bounds.statement_s * 1000)}ms",
            "lock_timeout": f"{round(bounds.statement_s * 1000)}ms",
            "idle_in_transaction_session_timeout": f"{round(bounds.statement_s * 10_000)}ms",
            "search_path": "public",
        }
        self._dsn = dsn
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self) -> None:
        """Be ready to connect."""
        self._pool = asyncpg.create_pool(
            self._dsn, min_size=0, max_size=self._bounds.connections, timeout=self._bounds.connect_s,
            reset=_nothing_to_reset, max_inactive_connection_lifetime=60.0, server_settings=self._settings,
        )  # fmt: skip
        await self._pool

    def close(self) -> None:
        """Cut every connection."""
        if self._pool is not None:
            self._pool.terminate()

    def numbers(self) -> Numbers:
        """As they are now; the same object each time."""
        now = self._numbers
        if self._pool is not None:
            now.connections, now.idle = self._pool.get_size(), self._pool.get_idle_size()
        now.circuit_open, now.circuit_opened = self.circuit.open, self.circuit.opened
        return now

    @asynccontextmanager
    async def transaction(self, begin: str) -> AsyncIterator[Session]:
        """A transaction that `begin` (one or more statements with a name) opens; committed when the block ends well,
        else rolled back. Raises Unavailable."""
        pool, connection = await self._acquire()
        session = Session(connection, self._bounds.statement_s, self._numbers)
        try:
            await session.execute(begin)
            yield session
            await session.execute("/* transaction.commit */ COMMIT")
        except Exception:
            if not _gone(connection):
                with suppress(Unavailable, *_LOST):
                    await session.execute("/* transaction.rollback */ ROLLBACK")
            raise
        except BaseException:  # cancelled in the middle of something: nobody can wait for the rest of it
            _terminate(connection)
            raise
        finally:
            if session.stuck:
                self.circuit.failed()
            try:
                with suppress(*_LOST):
                    await pool.release(connection, timeout=self._bounds.statement_s)
            finally:
                self._numbers.wanted -= 1

    async def _acquire(self) -> tuple[asyncpg.Pool[asyncpg.Record], Connection]:
        pool, numbers = self._pool, self._numbers
        if pool is None or self.circuit.open:
            raise Unavailable("PostgreSQL does not answer")
        waits, began = numbers.want(), time.monotonic()
        try:
            connection = await pool.acquire(timeout=self._bounds.acquire_s)
        except BaseException as error:
            numbers.wanted -= 1
            if not isinstance(error, (*_LOST, ValueError)):
                raise
            if isinstance(error, TimeoutError) and pool.get_idle_size() == 0 and self._all_in_use(pool):
                numbers.exhausted += 1
                raise TooSlow("every connection of the pool is in use") from None
            numbers.unreachable += 1
            self.circuit.failed()
            raise Unavailable("PostgreSQL cannot be reached") from None
        finally:
            if waits:
                numbers.waited_s += time.monotonic() - began
        numbers.units += 1
        return pool, connection

    def _all_in_use(self, pool: asyncpg.Pool[asyncpg.Record]) -> bool:
        return pool.get_size() >= self._bounds.connections

    async def probe(self) -> bool:
        """Whether the server takes a new connection and answers, with a connection of its own."""
        bounds = self._bounds
        try:
            connection = await asyncpg.connect(self._dsn, timeout=bounds.connect_s, server_settings=self._settings)
        except (*_LOST, ValueError):
            return False
        deadline = asyncio.get_running_loop().call_later(bounds.statement_s, connection.terminate)
        try:
            await connection.execute("/* circuit.probe */ SELECT 1")
            return True
        except _LOST:
            return False
        finally:
            deadline.cancel()
            connection.terminate()


def _gone(connection: Connection) -> bool:
    """Whether a connection is closed, which its place in the pool may have noticed first."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


def _terminate(connection: Connection) -> None:
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _nothing_to_reset(connection: object) -> None:
    """Whatever we set, we set for a transaction (`asyncpg` has rolled back one that was left open)."""
