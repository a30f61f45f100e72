"""A client connection below its requests: who waits to write is woken or told, and every way to end does end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from proxy.config.models import Listen
from proxy.dataplane.connection import CLOSED, LINGER, LINGER_S, Connection
from proxy.dataplane.listener import Listener
from proxy.errors import BadRequest, Overloaded, Refusal
from proxy.mcp.methods import metric_label
from proxy.metrics import Metrics
from tests.unit.dataplane.fakes import PATIENCE_S, Time

#: More than the buffers of both kernels and the high-water mark.
MUCH = b"x" * (8 << 20)


class Probe(Connection):
    """A connection that only keeps what it is told."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener)
        self.refusal: Refusal | None = None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.refusal = self.attach(transport)

    def data_received(self, data: bytes) -> None:
        self.swallow(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.detach()
        self.lost.set()


class Ends:
    """Both ends of a connection, and the listener that counts it."""

    def __init__(self, probe: Probe, far: socket.socket, listener: Listener, metrics: Metrics, time: Time) -> None:
        self.probe, self.far, self.listener, self.metrics, self.time = probe, far, listener, metrics, time
        self.refused: list[tuple[Refusal, str]] = []

    async def read(self, size: int = 1 << 16) -> bytes:
        """What the client reads; ConnectionResetError when it was reset."""
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.get_running_loop().sock_recv(self.far, size)

    async def read_to_end(self) -> int:
        """How much the client reads until the connection ends in order."""
        total = 0
        while piece := await self.read():
            total += len(piece)
        return total

    async def ended(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.probe.lost.wait()


@asynccontextmanager
async def connected(**listen: Any) -> AsyncIterator[Ends]:
    """A TCP connection over loopback whose near end is a `Probe`."""
    loop = asyncio.get_running_loop()
    metrics = Metrics(CollectorRegistry(), 10, metric_label)
    time = Time()
    refused: list[tuple[Refusal, str]] = []
    listener = Listener(Listen.model_validate(listen), metrics, lambda refusal, peer: refused.append((refusal, peer)))
    listener.now = time
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as far:
        far.setblocking(False)
        near, _ = server.accept()
        near.setblocking(False)
        _, probe = await loop.connect_accepted_socket(lambda: Probe(listener), near)
        ends = Ends(probe, far, listener, metrics, time)
        ends.refused = refused
        try:
            yield ends
        finally:
            probe.abort()
            await ends.ended()
            assert not listener.connections
            assert metrics.connections_open == 0


async def test_it_is_counted_while_it_is_open() -> None:
    """And knows who is at the other end."""
    async with connected() as ends:
        assert ends.probe.refusal is None
        assert (ends.probe.peer, ends.probe.secure) == ("127.0.0.1", False)
        assert ends.listener.connections == {ends.probe}
        assert (ends.metrics.connections_open, ends.metrics.connections_accepted) == (1, 1)
        ends.far.close()
        await ends.ended()
        assert ends.probe.state == CLOSED


async def test_one_too_many_is_refused() -> None:
    """The cap is the listener's; the answer and the close come from here."""
    async with connected(limits={"connections": 1}) as first:
        assert isinstance(first.listener.admit(first.probe), Overloaded | None)
        second = Probe(first.listener)
        assert isinstance(first.listener.admit(second), Overloaded)
        first.listener.forget(second)
        first.metrics.connections_open -= 1  # admitted twice above


async def test_writing_waits_for_a_client_that_does_not_read() -> None:
    """Without pressure `drain` returns at once; under pressure it returns when the client has read."""
    async with connected() as ends:
        async with asyncio.timeout(PATIENCE_S):
            await ends.probe.drain()
        ends.probe.transport.write(MUCH)
        assert ends.probe.write_paused
        waiting = [asyncio.ensure_future(ends.probe.drain()) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(each.done() for each in waiting)
        read = 0
        while not all(each.done() for each in waiting):
            read += len(await ends.read())
        assert not ends.probe.write_paused
        assert ends.probe.write_deadline == inf


async def test_who_waits_to_write_learns_that_the_client_is_gone() -> None:
    """As a ConnectionResetError; one that was cancelled meanwhile is left alone."""
    async with connected() as ends:
        ends.probe.transport.write(MUCH)
        waiting, cancelled = (asyncio.ensure_future(ends.probe.drain()) for _ in range(2))
        await asyncio.sleep(0)
        cancelled.cancel()
        ends.probe.abort()
        with pytest.raises(ConnectionResetError):
            await waiting
        assert cancelled.cancelled()


async def test_a_client_that_reads_nothing_is_reset_at_its_deadline() -> None:
    """`stalled_reader` counts from the moment the buffer is full, also while the connection is being closed."""
    async with connected(timeouts={"stalled_reader": "30s"}) as ends:
        ends.probe.transport.write(MUCH)
        assert ends.probe.write_deadline == ends.time.now + 30
        ends.probe.close()
        ends.time.now += 29.9
        ends.listener.tick()
        assert not ends.probe.lost.is_set()
        ends.time.now += 0.1
        ends.listener.tick()
        await ends.ended()


async def test_an_overdue_connection_is_closed_and_then_reset() -> None:
    """Closing comes first and may take a moment; what then still hangs is cut."""
    async with connected() as ends:
        ends.probe.transport.write(MUCH)  # closing waits until it is written
        ends.probe.write_deadline = inf
        ends.probe.deadline = ends.time.now
        ends.listener.tick()
        assert ends.probe.transport.is_closing()
        assert ends.probe.deadline == ends.time.now + LINGER_S
        ends.time.now += LINGER_S
        ends.listener.tick()
        await ends.ended()
        assert await ends.read_to_end() < len(MUCH)


@pytest.mark.parametrize("ends_answer", [False, True])
async def test_an_answer_that_only_the_end_would_end_is_cut_by_a_reset(ends_answer: bool) -> None:
    """The client of such an answer would take an orderly end for its own; others lose nothing that they could read."""
    async with connected() as ends:
        ends.probe.transport.write(b"half")
        ends.probe.ends_answer = ends_answer
        ends.probe.abort()
        await ends.ended()
        ends.probe.abort()
        if ends_answer:
            with pytest.raises(ConnectionResetError):
                await ends.read_to_end()
        else:
            assert await ends.read_to_end() == 4


async def test_a_refusal_is_read_before_the_connection_ends() -> None:
    """Also by a client that goes on sending: the end comes in order, and no reset eats the answer."""
    async with connected() as ends:
        ends.probe.refuse(BadRequest("grammar"))
        await asyncio.get_running_loop().sock_sendall(ends.far, b"y" * 1000)
        answer = b""
        while piece := await ends.read():
            answer += piece
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert answer.count(b"HTTP/1.1") == 1
        assert [(refusal.reason, peer) for refusal, peer in ends.refused] == [("bad_request", "127.0.0.1")]
        assert ends.probe.state == LINGER
        assert ends.probe.deadline == ends.time.now + LINGER_S


async def test_lingering_does_not_swallow_for_ever() -> None:
    """64 KiB is patience enough."""
    async with connected() as ends:
        ends.probe.linger()
        loop = asyncio.get_running_loop()
        with pytest.raises(OSError):
            while not ends.probe.lost.is_set():
                await loop.sock_sendall(ends.far, b"y" * 4096)
                await asyncio.sleep(0)
            raise ConnectionResetError
        await ends.ended()


async def test_lingering_after_the_end_changes_nothing() -> None:
    """A closed connection stays closed."""
    async with connected() as ends:
        ends.probe.abort()
        await ends.ended()
        ends.probe.linger()
        assert ends.probe.state == CLOSED
        assert ends.probe.deadline == inf
