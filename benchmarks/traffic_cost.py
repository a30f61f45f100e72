"""What it costs to count every request: the tuple that it leaves behind, and the sums made of it beside the requests.

    python -m benchmarks.traffic_cost [--short]

Requests of twenty keys in five tenants call twenty servers; their durations are drawn from a wide distribution. Printed
are CPU times: of the tuple, of summing up one request in steps as the loop makes them, of the longest piece that holds
the loop up, and of one value for an alert; and how far the quantiles are from the exact ones. A figure is the best of
several runs. The last line is `failed: N`.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final, cast

from benchmarks import messages
from proxy.background.traffic import ACCURACY, Traffic
from proxy.background.traffic_rows import TrafficRows
from proxy.config.models import Limits
from proxy.dataplane.context import ANONYMOUS, RequestContext
from proxy.dataplane.head import parse_head
from proxy.dataplane.tally import Tally
from proxy.identity.access import Server
from proxy.identity.principal import Source
from proxy.identity.uuid7 import RecordIds
from proxy.mcp.envelope import read_envelope

#: Microseconds of the tuple, milliseconds of a piece: what there may be.
COUNT_US: Final = 0.5
PIECE_MS: Final = 1.0
_SERVERS: Final = 20
_TENANTS: Final = 5
#: Requests between two steps: 600 a second.
_STEP: Final = 300
_BEGIN: Final = 1_800_000_000.0


class _Server:
    """As much of an upstream as sums ask about."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.place = Server(name)
        self.open_streams = 0


class Bench:
    """Requests that are over, and what sums them up."""

    def __init__(self, seed: int = 1) -> None:
        draw = random.Random(seed)
        self.requests = [self._request(number) for number in range(_SERVERS)]
        self.durations_s = [draw.lognormvariate(-5, 1) for _ in range(6000)]
        self.now = 0.0
        self.tally = Tally()
        ids = RecordIds(time.time, random.Random(seed).randbytes)
        rows = TrafficRows(None, ids.new, "bench")
        self.traffic = Traffic(
            self.tally, rows, dict, lambda *tool: True, lambda: self.now, lambda: self.now + _BEGIN
        )  # fmt: skip

    def _request(self, number: int) -> RequestContext:
        headers, body = messages.call("modern")
        raw = messages.request(8080, "/all", headers, body)
        head = parse_head(raw[: raw.index(b"\r\n\r\n") + 4], Limits())
        exchange = SimpleNamespace(head=head, peer="192.0.2.7", secure=False)
        ctx = RequestContext(
            cast(Any, exchange), cast(Any, SimpleNamespace(generation=1, shared=None, flags=None)), 0.0
        )
        tenant = f"018f0000-0000-7000-8000-{number % _TENANTS:012d}"
        ctx.principal = replace(ANONYMOUS, tenant=tenant, key_id=f"key{number:09d}", source=Source.KEY)
        ctx.envelope = read_envelope(body, ctx.fields)
        ctx.upstream = cast(Any, _Server(f"server-{number}"))
        ctx.status, ctx.bytes_in, ctx.bytes_out = 200, len(body), 456
        return ctx

    def count(self, durations_s: list[float]) -> None:
        """Each request of these durations ends now."""
        requests, count = self.requests, self.tally.count
        for number, seconds in enumerate(durations_s):
            ctx = requests[number % _SERVERS]
            ctx.started_at = self.now - seconds
            count(ctx, "ok", seconds)

    def count_us(self) -> float:
        """CPU time of one tuple."""
        ctx, count, repeats = self.requests[0], self.tally.count, range(20_000)
        self.tally.take()
        began = time.thread_time()
        for _ in repeats:
            count(ctx, "ok", 0.1)
        ended = time.thread_time()
        for _ in repeats:
            pass
        empty = time.thread_time() - ended
        self.tally.take()
        return (ended - began - empty) / len(repeats) * 1e6

    async def sum_up(self) -> tuple[float, float]:
        """CPU time of one request's share in the sums (µs), and of the longest piece (ms)."""
        spent = longest = 0.0
        for start in range(0, len(self.durations_s), _STEP):
            self.now += 0.5
            self.count(self.durations_s[start : start + _STEP])
            step = asyncio.ensure_future(self.traffic.step())
            while not step.done():
                began = time.thread_time()
                await asyncio.sleep(0)  # everything that is ready runs once
                piece = time.thread_time() - began
                spent, longest = spent + piece, max(longest, piece)
            await step
        return spent / len(self.durations_s) * 1e6, longest * 1e3

    def value_ms(self) -> float:
        """CPU time of one value of five minutes."""
        began = time.thread_time()
        for _ in range(20):
            self.traffic.value("p99_ms", "", "", 300)
        return (time.thread_time() - began) / 20 * 1e3

    def error(self) -> float:
        """Largest relative error of the quantiles, against the exact ones."""
        exact = sorted(self.durations_s)
        worst = 0.0
        for metric, share in (("p50_ms", 0.50), ("p95_ms", 0.95), ("p99_ms", 0.99)):
            right = exact[math.floor(share * (len(exact) - 1))] * 1e3
            found = self.traffic.value(metric, "", "", 300)
            worst = max(worst, abs((found or 0.0) - right) / right)
        return worst


def measure(runs: int) -> dict[str, float]:
    """Name -> figure, the best of so many runs."""
    best: dict[str, float] = {}
    for _ in range(runs):
        bench = Bench()
        count_us = bench.count_us()
        sum_us, piece_ms = asyncio.run(bench.sum_up())
        found = {
            "count_us": count_us, "sum_up_us": sum_us, "longest_piece_ms": piece_ms,
            "value_ms": bench.value_ms(), "quantile_error": bench.error(),
        }  # fmt: skip
        best = {name: min(figure, best.get(name, figure)) for name, figure in found.items()}
    return best


def main() -> int:
    """Print the figures. 1 when one is worse than it may be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="few runs, for a test that it works")
    figures = measure(3 if parser.parse_args().short else 15)
    for name, figure in figures.items():
        print(f"{name}: {figure:.3f}")
    bounds = {"count_us": COUNT_US, "longest_piece_ms": PIECE_MS, "quantile_error": ACCURACY * 1.001}
    failed = sum(figures[name] > bound for name, bound in bounds.items())
    print(f"failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
