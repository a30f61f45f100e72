"""A TCP proxy that breaks things: what stands between the proxy and an upstream when that upstream is to fail.

The faults are Toxiproxy's: latency (with jitter), down, bandwidth, slow_close, timeout (half open), reset_peer, slicer
and limit_data. Each way has its own, and all may be changed while connections are open. It counts connections, bytes
and the moments of all dials. Bytes wait in small bounded buffers only, so that back-pressure passes through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

_PIECE: Final = 64 << 10
#: Pieces that may wait for their time in one direction.
_WAITING: Final = 16


@dataclass
class Toxics:
    """What is done to one direction. Nothing by default."""

    latency_s: float = 0.0
    """Each piece arrives so much later; the order is kept."""
    jitter_s: float = 0.0
    """Up to so much more, or less."""
    bandwidth: float = 0.0
    """Bytes a second; 0: no limit."""
    slow_close_s: float = 0.0
    """The end arrives so much later."""
    half_open: bool = False
    """Bytes and ends vanish; nothing is closed."""
    slice_bytes: int = 0
    """Pieces are cut into such small ones; 0: left whole."""
    slice_pause_s: float = 0.0
    """Between two slices."""
    limit: int | None = None
    """After so many bytes of a connection it is closed in order, both ways."""
    reset_after: int | None = None
    """After so many bytes of a connection it is reset, both ways. 0: as soon as there is a byte."""


class _Over(Exception):
    """A connection ends now; `reset`: by RST."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__()
        self.reset = reset


@dataclass(eq=False)
class _Link:
    """One connection and the one behind it."""

    near: socket.socket
    far: socket.socket | None = None
    task: asyncio.Task[None] | None = None
    reset: bool = False
    passed: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})


class FaultProxy:
    """Listens on a port of its own and passes connections on to `target`."""

    def __init__(self, target: int, seed: int = 1) -> None:
        self.target = target
        self.port = 0
        self.up = Toxics()
        """From whoever dials to the target."""
        self.down = Toxics()
        self.refuses = False
        """Every connection is reset as it is accepted: a target that accepts and dies."""
        self.connections = 0
        """Accepted so far."""
        self.dials: deque[float] = deque(maxlen=100_000)
        """When, by the monotonic clock."""
        self.bytes_up = 0
        self.bytes_down = 0
        self._links: set[_Link] = set()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._draw = random.Random(seed)

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._links)

    async def start(self) -> None:
        """Listen; again on the same port after `stop`."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(4096)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._accepting = asyncio.create_task(self._accept(listener))

    async def stop(self, *, reset: bool = False) -> None:
        """Down: the port is closed, dials are refused, and what is open is closed or reset."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            self._accepting = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self.cut(reset=reset)

    async def cut(self, *, reset: bool = True) -> None:
        """End what is open now."""
        tasks = []
        for link in list(self._links):
            link.reset = reset
            if link.task is not None:
                link.task.cancel()
                tasks.append(link.task)
        await asyncio.gather(*tasks, return_exceptions=True)

    def heal(self) -> None:
        """No faults from now on; a direction that swallowed bytes stays without them."""
        self.up, self.down, self.refuses = Toxics(), Toxics(), False

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            near, _ = await loop.sock_accept(listener)
            self.connections += 1
            self.dials.append(time.monotonic())
            link = _Link(near, reset=self.refuses)
            if self.refuses:
                _end(link)
                continue
            self._links.add(link)
            link.task = loop.create_task(self._serve(link))

    async def _serve(self, link: _Link) -> None:
        loop = asyncio.get_running_loop()
        near = link.near
        far = link.far = socket.socket()
        try:
            for sock in (near, far):
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(far, ("127.0.0.1", self.target))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(link, near, far, "up"))
                group.create_task(self._pass(link, far, near, "down"))
        except* _Over:
            pass
        except* ConnectionResetError:
            link.reset = True  # who resets one end has reset the other
        except* OSError:
            pass
        finally:
            self._links.discard(link)
            _end(link)

    async def _pass(self, link: _Link, source: socket.socket, sink: socket.socket, way: str) -> None:
        """One direction: pieces wait for their time in a queue, so that latency costs no bandwidth."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_WAITING)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(source, waiting, way))
            group.create_task(self._write(link, sink, waiting, way))

    async def _read(self, source: socket.socket, waiting: asyncio.Queue[tuple[float, bytes]], way: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            piece = await loop.sock_recv(source, _PIECE)
            toxics: Toxics = getattr(self, way)
            late_s = toxics.latency_s + self._draw.uniform(-toxics.jitter_s, toxics.jitter_s)
            await waiting.put((time.monotonic() + max(0.0, late_s), piece))
            if not piece:
                return

    async def _write(
        self, link: _Link, sink: socket.socket, waiting: asyncio.Queue[tuple[float, bytes]], way: str
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, piece = await waiting.get()
            if (left_s := due - time.monotonic()) > 0:
                await asyncio.sleep(left_s)
            toxics: Toxics = getattr(self, way)
            if toxics.half_open:
                if not piece:
                    await asyncio.Event().wait()  # the end vanished: until somebody cuts
                continue
            if not piece:
                await asyncio.sleep(toxics.slow_close_s)
                with contextlib.suppress(OSError):
                    sink.shutdown(socket.SHUT_WR)
                return
            piece, over = _within(toxics, link.passed[way], piece)
            for part in _sliced(piece, toxics):
                await loop.sock_sendall(sink, part)
                link.passed[way] += len(part)
                self._count(way, len(part))
                if pause_s := toxics.slice_pause_s + (len(part) / toxics.bandwidth if toxics.bandwidth else 0):
                    await asyncio.sleep(pause_s)
            if over is not None:
                link.reset = over.reset
                raise over

    def _count(self, way: str, size: int) -> None:
        if way == "up":
            self.bytes_up += size
        else:
            self.bytes_down += size


def _within(toxics: Toxics, passed: int, piece: bytes) -> tuple[bytes, _Over | None]:
    """What may pass of a piece, and whether the connection ends behind it."""
    over = None
    for cap, reset in ((toxics.limit, False), (toxics.reset_after, True)):
        if cap is not None and passed + len(piece) >= cap:
            piece, over = piece[: max(0, cap - passed)], _Over(reset=reset)
    return piece, over


def _sliced(piece: bytes, toxics: Toxics) -> list[bytes]:
    """A piece in the sizes it is sent in: slices, or a twentieth of a second's worth."""
    size = toxics.slice_bytes or (max(1, int(toxics.bandwidth / 20)) if toxics.bandwidth else max(1, len(piece)))
    return [piece[at : at + size] for at in range(0, len(piece), size)]


def _end(link: _Link) -> None:
    for sock in (link.near, link.far):
        if sock is None:
            continue
        if link.reset:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


@contextlib.asynccontextmanager
async def fault_proxy(target: int) -> AsyncIterator[FaultProxy]:
    """A fault proxy for the length of an `async with`."""
    proxy = FaultProxy(target)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop(reset=True)
