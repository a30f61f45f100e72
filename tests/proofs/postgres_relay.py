"""A Unix socket in front of a PostgreSQL's: it counts the statements that pass, and holds each up if told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import quote

from proxy.store.embedded import EmbeddedPostgres
from tests.unit.store.engine import folder

_SOCKET: Final = ".s.PGSQL.5432"
#: Messages of a client that make the server do something: Query and Execute are a statement each, Parse and Bind come
#: before (PostgreSQL, "Message Formats").
_STATEMENTS: Final = frozenset(b"QE")
_WORK: Final = frozenset(b"QEPB")


class Relay:
    """Passes bytes both ways."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server
        self._folder = folder()
        self._tasks: set[asyncio.Task[None]] = set()
        self.delay_s = 0.0
        """How long each statement is held up on its way to the server."""
        self.statements = 0
        """How many have come."""

    def dsn(self, direct: str) -> str:
        """The same DSN through this relay."""
        return direct.replace(quote(str(self._server.sockets), safe="/"), quote(str(self._folder), safe="/"))

    async def start(self) -> asyncio.Server:
        """Listen."""
        return await asyncio.start_unix_server(self._serve, self._folder / _SOCKET)

    async def stop(self) -> None:
        """Break every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        ends = [writer]
        with suppress(OSError, EOFError, asyncio.CancelledError):
            theirs, mine = await asyncio.open_unix_connection(self._server.sockets / _SOCKET)
            ends.append(mine)
            up, down = asyncio.create_task(self._up(reader, mine)), asyncio.create_task(_down(theirs, writer))
            try:
                await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            finally:
                up.cancel()
                down.cancel()
                await asyncio.gather(up, down, return_exceptions=True)
        for end in ends:
            end.close()
        self._tasks.discard(task)

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Whole messages, all that have come together; the first one, which starts the connection, has no type."""
        length = await reader.readexactly(4)
        writer.write(length + await reader.readexactly(int.from_bytes(length, "big") - 4))
        rest = b""
        while data := await reader.read(1 << 16):
            kinds, whole, rest = split(rest + data)
            self.statements += sum(kind in _STATEMENTS for kind in kinds)
            if self.delay_s and not _WORK.isdisjoint(kinds):
                await asyncio.sleep(self.delay_s)
            writer.write(whole)
            await writer.drain()


def split(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Types of the whole messages in front, these messages, and what is left."""
    kinds, at = bytearray(), 0
    while len(data) >= at + 5 and len(data) > at + (size := int.from_bytes(data[at + 1 : at + 5], "big")):
        kinds.append(data[at])
        at += 1 + size
    return bytes(kinds), data[:at], data[at:]


async def _down(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def relayed(server: EmbeddedPostgres) -> AsyncIterator[Relay]:
    """A relay for the length of a block."""
    relay = Relay(server)
    listening = await relay.start()
    try:
        yield relay
    finally:
        listening.close()
        await relay.stop()
