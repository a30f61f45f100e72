"""How soon the upstream learns that the client is gone: its connection must be closed, or it works for nobody.

python -m benchmarks.disconnect [--short]

Client and upstream live in this process, the proxy in another. The last line printed is `failed: N`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks import rig
from benchmarks.load import percentile
from benchmarks.streams import Stream, open_many
from benchmarks.upstream import Upstream

SINGLE_TARGET_MS: Final = 50.0
CROWD_TARGET_MS: Final = 1000.0
#: (title, what the upstream does, how the client leaves)
CASES: Final = [
    ("waiting for an answer, closed", "silent", "close"),
    ("waiting for an answer, reset", "silent", "abort"),
    ("in an idle stream, closed", "hold", "close"),
    ("in an idle stream, reset", "hold", "abort"),
]


class Watched(Upstream):
    """An upstream connection that tells when it was asked something and when it ended."""

    asked: asyncio.Queue[Watched]
    """Connections on which a request has arrived; set by `listen`."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def answer(self, head: bytes, body: bytes) -> None:
        """As the cheap upstream does, but known to the test."""
        super().answer(head, body)
        self.asked.put_nowait(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the moment."""
        if not self.ended.done():
            self.ended.set_result(time.perf_counter())


async def single(port: int, answer: str, leave: str) -> float:
    """One client leaves; milliseconds until the upstream's connection is closed."""
    stream = await Stream.open(port, answer)
    connection = await asyncio.wait_for(Watched.asked.get(), 10)
    if answer == "hold":
        await asyncio.wait_for(stream.first, 10)
    left_at = time.perf_counter()
    getattr(stream.transport, leave)()
    return (await asyncio.wait_for(connection.ended, 30) - left_at) * 1000


async def crowd(port: int, count: int) -> float:
    """All clients leave at once; milliseconds until the last upstream connection is closed."""
    streams = await open_many(port, count)
    connections = [Watched.asked.get_nowait() for _ in streams]
    left_at = time.perf_counter()
    for stream in streams:
        stream.transport.abort()
    ends = await asyncio.wait_for(asyncio.gather(*(connection.ended for connection in connections)), 60)
    return (max(ends) - left_at) * 1000


async def measure(directory: Path, times: int, count: int) -> list[rig.Figure]:
    """Every case, then the crowd."""
    Watched.asked = asyncio.Queue()
    server = await asyncio.get_running_loop().create_server(Watched, "127.0.0.1", 0, backlog=4096)
    _, own = rig.two_cores()
    config: dict[str, Any] = rig.demo_config(server.sockets[0].getsockname()[1], pool={"max_connections": 10_000})
    figures = []
    with await asyncio.to_thread(rig.start_proxy, directory, config, own) as proxy:
        for title, answer, leave in CASES:
            delays = sorted([await single(proxy.port, answer, leave) for _ in range(times)])
            name = f"client gone {title}: p99 of {times}"
            figures.append(rig.Figure(name, percentile(delays, 99), SINGLE_TARGET_MS, "ms"))
        figures.append(
            rig.Figure(
                f"{count} idle streams reset at once: the last", await crowd(proxy.port, count), CROWD_TARGET_MS, "ms"
            )
        )
    server.close()
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="10 clients of each kind and 200 streams; targets doubled")
    short = parser.parse_args(arguments).short
    rig.raise_file_limit()
    times, count = (10, 200) if short else (100, 1000)
    with tempfile.TemporaryDirectory() as scratch:
        figures = uvloop.run(measure(Path(scratch), times, count))
    for figure in figures:
        figure.target *= 2 if short else 1
    return rig.conclude(figures)


if __name__ == "__main__":
    sys.exit(main())
