"""How late an SSE event is: from the upstream's write to the client's read, direct and through the proxy.

python -m benchmarks.latency [--short]

Every event carries the moment at which it was written, on the clock that all processes of the machine share. Direct and
proxied streams take turns, in rounds; a round in which other programs kept the machine busy is done again. The last
line printed is `failed: N`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from benchmarks import rig
from benchmarks.load import percentile
from benchmarks.streams import Stream

P99_TARGET_MS: Final = 2.0
PAUSE_MS: Final = 5
#: The target is for an idle machine: others use at most this share of one core.
IDLE: Final = 0.05


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


@dataclass
class Round:
    """The delays of one round, in milliseconds, and how much of the machine was not ours while it ran."""

    direct: list[float]
    proxied: list[float]
    disturbance: float
    """CPU time of others as a share of one core."""


async def one_round(upstream: rig.Process, proxy: rig.Process, events: int) -> Round:
    """Direct, then proxied."""
    began, before = time.monotonic(), rig.foreign_cpu_s(upstream, proxy)
    direct = await delays_ms(upstream.port, events)
    proxied = await delays_ms(proxy.port, events)
    others_s = rig.foreign_cpu_s(upstream, proxy) - before
    return Round(direct, proxied, others_s / (time.monotonic() - began))


async def measure(upstream: rig.Process, proxy: rig.Process, rounds: int, events: int) -> list[Round]:
    """So many rounds on an idle machine, or the quietest of four times as many when it is not idle so often."""
    await one_round(upstream, proxy, events)  # the warm-up
    done: list[Round] = []
    while len(done) < rounds * 4 and sum(one.disturbance <= IDLE for one in done) < rounds:
        done.append(await one_round(upstream, proxy, events))
    return sorted(done, key=lambda one: one.disturbance)[:rounds]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="200 events, target five times as wide")
    short = parser.parse_args(arguments).short
    rounds, events = (2, 100) if short else (20, 200)
    with (
        tempfile.TemporaryDirectory() as scratch,
        rig.start_upstream() as upstream,
        rig.start_proxy(Path(scratch), rig.demo_config(upstream.port)) as proxy,
    ):
        kept = uvloop.run(measure(upstream, proxy, rounds, events))
    busiest = max(one.disturbance for one in kept)
    print(f"{len(kept)} rounds; other programs used up to {busiest:.0%} of a core meanwhile")
    ways = {name: sorted(delay for one in kept for delay in getattr(one, name)) for name in ("direct", "proxied")}
    for name, delays in ways.items():
        p50, p99 = percentile(delays, 50), percentile(delays, 99)
        print(f"{name:<8} {len(delays)} events: p50 {p50:.3f} ms, p99 {p99:.3f} ms, longest {delays[-1]:.3f} ms")
    name = "event through the proxy, p99 after the upstream's write"
    return rig.conclude([rig.Figure(name, percentile(ways["proxied"], 99), P99_TARGET_MS * (5 if short else 1), "ms")])


if __name__ == "__main__":
    sys.exit(main())
