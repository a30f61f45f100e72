"""What an idle SSE stream costs: memory of the proxy, and what many of them do to the calls beside them.

python -m benchmarks.idle_streams [--short]

Two proxies run: one holds the streams, one holds none; calls to both are measured in turn. The last line printed is
`failed: N`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks import rig
from benchmarks.load import Order, Report
from benchmarks.streams import Stream, open_many

RSS_TARGET_KIB: Final = 32.0
P99_TARGET: Final = 1.5


def call(load: rig.Load, proxy: rig.Process, seconds: float) -> Report:
    """Small calls over eight connections."""
    return load.run(Order(proxy.port, connections=8, seconds=seconds))


def still_open(streams: list[Stream]) -> int:
    """How many were not closed by anybody."""
    return sum(not stream.ended.done() for stream in streams)


async def measure(
    proxies: tuple[rig.Process, rig.Process], load: rig.Load, count: int, rounds: int
) -> tuple[float, float, int]:
    """KiB of resident memory per stream, ratio of the calls' p99 with streams to without, streams lost meanwhile."""
    empty, full = proxies
    for proxy in proxies:
        call(load, proxy, 1)
    (await open_many(full.port, 20))[0].transport.abort()  # first use of every code path
    before = full.rss_kib()
    streams = await open_many(full.port, count)
    per_stream = (full.rss_kib() - before) / count
    ratios = []
    for number in range(rounds):
        order = (empty, full) if number % 2 else (full, empty)
        p99 = {proxy.pid: call(load, proxy, 1).p99_ms for proxy in order}
        ratios.append(p99[full.pid] / p99[empty.pid])
    return per_stream, statistics.median(ratios), len(streams) - still_open(streams)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="500 streams, 2 rounds, ratio's target twice as wide")
    short = parser.parse_args(arguments).short
    rig.raise_file_limit()
    count, rounds = (500, 2) if short else (5000, 15)
    others, own = rig.two_cores()
    with (
        tempfile.TemporaryDirectory() as scratch,
        rig.start_upstream(others) as upstream,
        rig.start_proxy(Path(scratch, "empty"), config(upstream.port), own) as empty,
        rig.start_proxy(Path(scratch, "full"), config(upstream.port), own) as full,
        rig.Load(others) as load,
    ):
        per_stream, ratio, lost = uvloop.run(measure((empty, full), load, count, rounds))
    return rig.conclude(
        [
            rig.Figure(f"resident memory per idle stream, {count} open", per_stream, RSS_TARGET_KIB, "KiB"),
            rig.Figure("p99 of calls beside them, ratio to without", ratio, P99_TARGET * (2 if short else 1), "x"),
            rig.Figure("streams lost meanwhile", lost, 0, ""),
        ]
    )


def config(upstream_port: int) -> dict[str, Any]:
    """One server that may have all those connections."""
    return rig.demo_config(upstream_port, pool={"max_connections": 10_000})


if __name__ == "__main__":
    sys.exit(main())
