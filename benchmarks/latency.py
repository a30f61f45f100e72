"""How late an SSE event is: from the upstream's write to the client's read, direct and through the proxy.

python -m benchmarks.latency [--short]

Every event carries the moment at which it was written, on the clock that all processes of the machine share. Direct and
proxied streams take turns. The last line printed is `failed: N`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvloop

from benchmarks import rig
from benchmarks.load import percentile
from benchmarks.streams import Stream

P99_TARGET_MS: Final = 2.0
PAUSE_MS: Final = 5


async def delays_ms(port: int, events: int) -> list[float]:
    """Open one stream, read its events to the end; the delay of each."""
    delays: list[float] = []
    complete = asyncio.Event()

    def on_data(data: bytes) -> None:
        now = time.monotonic_ns()
        delays.extend((now - int(part[: part.index(b"\n")])) / 1e6 for part in data.split(b"data: ")[1:])
        if len(delays) >= events:
            complete.set()

    stream = await Stream.open(port, f"ticks {events} {PAUSE_MS}", on_data)
    await asyncio.wait_for(complete.wait(), events * PAUSE_MS / 1000 * 5 + 10)
    stream.transport.abort()
    return delays


async def measure(direct: int, proxied: int, rounds: int, events: int) -> tuple[list[float], list[float]]:
    """Sorted delays of both ways, after a warm-up."""
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(-1, rounds):
        for port, delays in zip((direct, proxied), found, strict=True):
            new = await delays_ms(port, events)
            if number >= 0:
                delays += new
    return sorted(found[0]), sorted(found[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="200 events, target five times as wide")
    short = parser.parse_args(arguments).short
    others, own = rig.two_cores()
    rounds, events = (2, 100) if short else (20, 200)
    with (
        tempfile.TemporaryDirectory() as scratch,
        rig.start_upstream(others) as upstream,
        rig.start_proxy(Path(scratch), rig.demo_config(upstream.port), own) as proxy,
    ):
        direct, proxied = uvloop.run(measure(upstream.port, proxy.port, rounds, events))
    for name, delays in (("direct", direct), ("proxied", proxied)):
        p50, p99 = percentile(delays, 50), percentile(delays, 99)
        print(f"{name:<8} {len(delays)} events: p50 {p50:.3f} ms, p99 {p99:.3f} ms, longest {delays[-1]:.3f} ms")
    target = P99_TARGET_MS * (5 if short else 1)
    return rig.conclude(
        [rig.Figure("event through the proxy, p99 after the upstream's write", percentile(proxied, 99), target, "ms")]
    )


if __name__ == "__main__":
    sys.exit(main())
