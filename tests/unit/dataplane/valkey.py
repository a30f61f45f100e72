"""One real Redis (Valkey) for every test of a process, and others for tests that stop it."""

from __future__ import annotations

import asyncio
import atexit
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Final

import hiredis
from redis.asyncio import Redis

from proxy.dataplane.redis_link import RedisLink
from proxy.store.embedded import EmbeddedRedis
from tests.unit.store.engine import aside, folder

#: What a link of a test waits for an answer, seconds, unless that is what is tested: 40 ms are little on a machine that
#: is busy.
PATIENCE_S: Final = 20.0


@cache
def server() -> EmbeddedRedis:
    """The server that is shared; it ends with the process."""
    engine = EmbeddedRedis(folder() / "redis")
    aside(engine.start)
    atexit.register(lambda: asyncio.run(engine.stop()))
    return engine


@asynccontextmanager
async def own_server() -> AsyncIterator[EmbeddedRedis]:
    """A server that may be stopped, frozen and broken."""
    engine = EmbeddedRedis(folder() / "redis")
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


@asynccontextmanager
async def link_to(
    engine: EmbeddedRedis, clock: Callable[[], float] = time.monotonic, budget_s: float = PATIENCE_S
) -> AsyncIterator[RedisLink]:
    """An open link. Opening it may take longer than answers."""
    link = RedisLink(engine.url, clock, random.random, PATIENCE_S)
    await link.open()
    link._budget_s = budget_s
    try:
        yield link
    finally:
        await link.close()


@asynccontextmanager
async def client_of(engine: EmbeddedRedis) -> AsyncIterator[Redis]:
    """redis-py itself, to look at and to change what the server has."""
    async with Redis.from_url(engine.url, protocol=2) as client:
        yield client


class Wire:
    """A plain connection that takes commands as bytes, and waits."""

    def __init__(self, engine: EmbeddedRedis) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(engine.sockets / "redis"))
        self._reader = hiredis.Reader()
        self.run("AUTH", Redis.from_url(engine.url).connection_pool.connection_kwargs["password"])

    def run(self, *arguments: str | int | float | bytes) -> Any:
        """The reply to a command; raises what Redis answers as an error."""
        return self.send(hiredis.pack_command(arguments))

    def send(self, packed: bytes) -> Any:
        """The reply to a packed command."""
        self._socket.sendall(packed)
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(65536))
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def close(self) -> None:
        """End it."""
        self._socket.close()


@asynccontextmanager
async def empty_server() -> AsyncIterator[EmbeddedRedis]:
    """The shared server with nothing in it."""
    async with client_of(server()) as client:
        await client.flushall()
    yield server()
