"""Clients that are slow on purpose (F24): they are cut off at their deadlines, and the others do not notice them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import statistics
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from math import inf
from typing import Any, Final

from benchmarks import rig
from benchmarks.load import Order
from benchmarks.rig import Figure
from tests.chaos.setting import Peak, server
from tests.harness import CALL, ProxyProcess, RawClient, Wire, json_answer, post, running_proxy, scripted_upstream

#: One slow client: how it ended, and after how long.
Kind = Callable[[int], Coroutine[None, None, tuple[str, float]]]

#: What the proxy grants; short, so that a run is short. Defaults are 10, 30 and 30 s.
_DEADLINE_S: Final = 3.0
#: The same for those who do not read: it begins when buffers are full, and good clients are watched after that.
_STALLED_S: Final = 6.0
_FILLED_S: Final = 3.5
#: Seconds that a deadline may be late: the machine is busy with a thousand of them.
_LATE_S: Final = 2.0
#: A client that does not read is only noticed when the kernel's buffers are full, which takes longer still.
_FILLING_S: Final = 6.0
_HEAD: Final = b"POST /up/mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
_PIECE: Final = bytes(64 << 10)
#: More than the kernel holds for a client with a small buffer.
_MUCH: Final = 8 << 20


def figures(short: bool) -> list[Figure]:
    """F24: each kind of slow client, many at a time, beside a few good ones."""
    return asyncio.run(_measure(100 if short else 1000, 3.0 if short else 1.2))


async def _measure(count: int, ratio: float) -> list[Figure]:
    timeouts = {"head": f"{_DEADLINE_S:g}s", "body": f"{_DEADLINE_S:g}s", "stalled_reader": f"{_STALLED_S:g}s"}
    with rig.start_upstream() as demo, rig.Load() as load:
        return await _beside(demo, load, count, ratio, timeouts)


async def _beside(
    demo: rig.Process, load: rig.Load, count: int, ratio: float, timeouts: dict[str, str]
) -> list[Figure]:
    figures = []
    async with scripted_upstream(_script) as upstream:
        config = {
            "listen": {"timeouts": timeouts, "limits": {"connections": 5000}},
            "servers": {"up": server(upstream.port, pool={"max_connections": 5000}), "demo": server(demo.port)},
        }
        with running_proxy(config) as proxy, running_proxy(config) as other:
            await asyncio.to_thread(_good, load, proxy.port)
            for kind in (_slow_head, _slow_body, _slow_read):
                many = count // 5 if kind is _slow_read else count  # of these each fills megabytes of the kernel's
                # the same at another proxy first: slow clients take their part of the machine wherever they are
                async with _attacked(kind, other.port, many):
                    quiet = await asyncio.to_thread(_good, load, proxy.port)
                peak = Peak(proxy)
                async with _attacked(kind, proxy.port, many) as slow:
                    beside = await asyncio.to_thread(_good, load, proxy.port)
                    ends = await (_seen_by(proxy, many) if kind is _slow_read else asyncio.gather(*slow))
                    peak.look()
                name = getattr(kind, "__name__", "").strip("_").replace("_", " ")
                figures += _told(f"{many} x {name}", ends, beside / quiet, ratio)
                print(f"  {name}: memory grown by {peak.grown / many / 1024:.1f} KiB for each")
    return figures


@contextlib.asynccontextmanager
async def _attacked(kind: Kind, port: int, many: int) -> AsyncIterator[list[asyncio.Task[tuple[str, float]]]]:
    """While so many are slow; those that still are at the end go away."""
    slow = [asyncio.create_task(kind(port)) for _ in range(many)]
    try:
        await asyncio.sleep(_FILLED_S if kind is _slow_read else 0.5)
        yield slow
    finally:
        for each in slow:
            each.cancel()
        await asyncio.gather(*slow, return_exceptions=True)


def _told(name: str, ends: list[tuple[str, float]], slower: float, ratio: float) -> list[Figure]:
    late_s, deadline_s = (_FILLING_S, _STALLED_S) if "read" in name else (_LATE_S, _DEADLINE_S)
    took = sorted(seconds for _, seconds in ends)
    print(f"  {name}: ended after {took[0]:.2f} to {took[-1]:.2f} s, median {statistics.median(took):.2f} s")
    return [
        Figure(f"{name}: p99 of good clients, by that with these elsewhere", slower, ratio, "x"),
        Figure("  not cut off as they should be", sum(not how for how, _ in ends), 0, ""),
        Figure("  cut off late, at most by", max(0.0, took[-1] - deadline_s), late_s, "s"),
        Figure("  cut off early, at most by", max(0.0, deadline_s - took[0]), 0.1, "s"),
    ]


async def _script(wire: Wire) -> None:
    """A result for good clients, megabytes for those who ask for them."""
    while request := await wire.request():
        if b"much" not in request:
            await wire.send(json_answer())
            continue
        await wire.send(json_answer(bytes(_MUCH))[:-_MUCH])
        for _ in range(_MUCH // len(_PIECE)):
            await wire.send(_PIECE)


def _good(load: rig.Load, port: int) -> float:
    """Calls of a few good clients, from a process of their own: p99 in milliseconds."""
    return load.run(Order(port, connections=4, seconds=2, per_second=200)).p99_ms


async def _slow_head(port: int) -> tuple[str, float]:
    """A byte of the head now and then."""
    return await _dribble(port, _HEAD)


async def _slow_body(port: int) -> tuple[str, float]:
    """A body that stops in the middle."""
    client = await RawClient.connect(port)
    try:
        await client.send(post()[: -len(CALL)] + CALL[:3])
        return await _ended(client)
    finally:
        await client.close()


async def _slow_read(port: int) -> tuple[str, float]:
    """An answer that is not read."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.sock_sendall(sock, post(body=CALL.replace(b"echo", b"much")))
        await asyncio.sleep(inf)
    return "", inf


async def _seen_by(proxy: ProxyProcess, count: int) -> list[tuple[str, float]]:
    """The same of those that did not read: to them the end shows only when they do."""
    until, lines = time.monotonic() + _STALLED_S + _FILLING_S, list[dict[str, Any]]()
    while len(lines) < count and time.monotonic() < until:
        await asyncio.sleep(0.3)  # the log is written in batches
        lines = [line for line in proxy.lines if line.get("event") == "request" and line.get("target") == "much"]
    ends = [("cut" if line["bytes_out"] < _MUCH else "", line["duration_ms"] / 1000) for line in lines]
    return ends + [("", inf)] * (count - len(ends))


async def _dribble(port: int, text: bytes) -> tuple[str, float]:
    client = await RawClient.connect(port)
    await client.send(text)
    ending = asyncio.create_task(_ended(client))
    try:
        while not ending.done():
            with contextlib.suppress(ConnectionError):
                await client.send(b"a")
            await asyncio.wait([ending], timeout=random.uniform(0.3, 0.7))
        return ending.result()
    finally:
        ending.cancel()
        await client.close()


async def _ended(client: RawClient) -> tuple[str, float]:
    """`408` when that is how it ended, and after how long."""
    before = time.monotonic()
    try:
        status, _, _ = await client.answer()
    except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
        status = 0
    seconds = time.monotonic() - before
    return "408" if status == 408 else "", seconds
