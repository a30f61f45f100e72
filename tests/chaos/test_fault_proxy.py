"""The fault proxy does what it says, in both directions and while connections are open."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from tests.chaos.fault_proxy import FaultProxy, Toxics, fault_proxy


class Echo:
    """A server that sends back what it gets, and remembers how its connections ended."""

    def __init__(self) -> None:
        self.port = 0
        self.ends: asyncio.Queue[str] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        end = "end"
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            end = "reset"
        self.ends.put_nowait(end)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def faulty_echo() -> AsyncIterator[tuple[FaultProxy, Echo]]:
    """An echo behind a fault proxy."""
    echo = Echo()
    async with await asyncio.start_server(echo.serve, "127.0.0.1", 0) as server:
        echo.port = server.sockets[0].getsockname()[1]
        async with fault_proxy(echo.port) as proxy:
            yield proxy, echo


class Caller:
    """A client of it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, text: bytes) -> bytes:
        """What comes back for `text`, up to as many bytes."""
        self.writer.write(text)
        return await asyncio.wait_for(self.reader.readexactly(len(text)), 5)

    async def rest(self) -> tuple[bytes, str]:
        """All that comes, and how it ends."""
        got = b""
        try:
            while piece := await asyncio.wait_for(self.reader.read(65536), 5):
                got += piece
        except ConnectionError:
            return got, "reset"
        return got, "end"


@contextlib.asynccontextmanager
async def calling(proxy: FaultProxy) -> AsyncIterator[Caller]:
    """A connection to it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield Caller(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_without_faults_everything_passes_and_is_counted() -> None:
    """Bytes both ways, connections, the moments of dials, and the end in order."""
    async with faulty_echo() as (proxy, echo):
        before = time.monotonic()
        async with calling(proxy) as caller:
            text = b"x" * 3_000_000
            assert await caller.ask(text) == text
            assert (proxy.connections, proxy.open) == (1, 1)
            assert (proxy.bytes_up, proxy.bytes_down) == (3_000_000, 3_000_000)
            caller.writer.write_eof()
            assert await caller.rest() == (b"", "end")
        assert await echo.ends.get() == "end"
        assert before <= proxy.dials[0] <= time.monotonic()


@pytest.mark.parametrize("way", ["up", "down"])
async def test_latency_holds_pieces_back_and_keeps_their_order(way: str) -> None:
    """Either way, with jitter; ten pieces do not add up to ten latencies. It can be turned off again."""
    async with faulty_echo() as (proxy, _), calling(proxy) as caller:
        setattr(proxy, way, Toxics(latency_s=0.1, jitter_s=0.05))
        before = time.monotonic()
        for number in range(10):
            caller.writer.write(b"%d" % number)
            await asyncio.sleep(0)
        assert await caller.reader.readexactly(10) == b"0123456789"
        assert 0.05 <= time.monotonic() - before < 0.9
        proxy.heal()
        before = time.monotonic()
        assert await caller.ask(b"quick") == b"quick"
        assert time.monotonic() - before < 0.05


async def test_bandwidth_bounds_the_rate() -> None:
    """200 kB at 1 MB a second."""
    async with faulty_echo() as (proxy, _), calling(proxy) as caller:
        proxy.down = Toxics(bandwidth=1e6)
        before = time.monotonic()
        await caller.ask(b"x" * 200_000)
        assert 0.1 < time.monotonic() - before < 2


async def test_slices_are_small_and_apart() -> None:
    """Four bytes arrive one by one."""
    async with faulty_echo() as (proxy, _), calling(proxy) as caller:
        proxy.down = Toxics(slice_bytes=1, slice_pause_s=0.02)
        caller.writer.write(b"1234")
        assert [await caller.reader.read(100) for _ in range(4)] == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("cap", [0, 1, 7, 10])
@pytest.mark.parametrize("kind", ["limit", "reset_after"])
async def test_a_connection_ends_behind_the_given_byte(kind: str, cap: int) -> None:
    """In order, or by a reset, which reaches both ends."""
    async with faulty_echo() as (proxy, echo), calling(proxy) as caller:
        proxy.down = Toxics(**{kind: cap})
        caller.writer.write(b"0123456789")
        assert await caller.rest() == (b"0123456789"[:cap], "reset" if kind == "reset_after" else "end")
        assert await asyncio.wait_for(echo.ends.get(), 5) == ("reset" if kind == "reset_after" else "end")
        assert proxy.open == 0


async def test_half_open_swallows_bytes_and_ends() -> None:
    """Neither side learns anything, until the connection is cut."""
    async with faulty_echo() as (proxy, echo), calling(proxy) as caller:
        assert await caller.ask(b"before") == b"before"
        proxy.up = proxy.down = Toxics(half_open=True)
        caller.writer.write(b"lost")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(caller.reader.read(1), 0.1)
        caller.writer.write_eof()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(echo.ends.get(), 0.1)
        assert proxy.open == 1
        await proxy.cut()
        assert await caller.rest() == (b"", "reset")
        assert await echo.ends.get() == "reset"


async def test_a_slow_close_is_late() -> None:
    """The end, and nothing else."""
    async with faulty_echo() as (proxy, _), calling(proxy) as caller:
        proxy.up = Toxics(slow_close_s=0.15)
        before = time.monotonic()
        assert await caller.ask(b"quick") == b"quick"
        assert time.monotonic() - before < 0.1
        caller.writer.write_eof()
        assert await caller.rest() == (b"", "end")
        assert time.monotonic() - before >= 0.15


async def test_down_refuses_and_comes_back_on_the_same_port() -> None:
    """What was open ends; a later start listens where it did."""
    async with faulty_echo() as (proxy, _):
        port = proxy.port
        async with calling(proxy) as caller:
            await caller.ask(b"x")
            await proxy.stop(reset=True)
            assert await caller.rest() == (b"", "reset")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await proxy.start()
        async with calling(proxy) as caller:
            assert (proxy.port, await caller.ask(b"again")) == (port, b"again")
        proxy.refuses = True
        with contextlib.suppress(ConnectionError):
            async with calling(proxy) as caller:
                assert await caller.rest() == (b"", "reset")
        assert proxy.connections == 3


async def test_a_target_that_is_away_ends_the_connection() -> None:
    """Accepted and closed at once: who dialled learns it."""
    async with fault_proxy(1) as proxy, calling(proxy) as caller:
        got, _ = await caller.rest()
        assert got == b""
