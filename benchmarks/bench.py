"""What one proxied `tools/call` costs: CPU microseconds of the proxy, next to a bare aiohttp pass-through.

python -m benchmarks.bench [--short | --rounds N]

All contenders run at the same time and are measured in turn, in short rounds whose order alternates, so that whatever
else the machine does falls on all of them alike. A ratio is the median of the ratios of the rounds. Writes its table
into benchmarks/README.md; the last line printed is `ratio_to_bare_aiohttp: X.XX`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import math
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from benchmarks import record_cost, rig
from benchmarks.load import Order, Target

RATIO_TARGET: Final = 1.35
SCALE_TARGET: Final = 1.05
WORKLOADS: Final = [(era, answer) for era in ("legacy", "modern") for answer in ("json", "sse")]
README: Final = Path(__file__).with_name("README.md")
BEGIN: Final = "<!-- figures: written by make bench -->"
END: Final = "<!-- end of figures -->"


@dataclass
class Sample:
    """One round of one contender."""

    cpu_us: float
    """CPU time of the proxy per call."""
    instructions: float
    """User instructions per call; nan where the machine does not count them."""
    p50_ms: float
    p99_ms: float


@dataclass
class Contest:
    """Two contenders under one workload; the second is measured against the first."""

    title: str
    contenders: tuple[rig.Process, rig.Process]
    orders: tuple[Order, Order]
    samples: tuple[list[Sample], list[Sample]] = field(default_factory=lambda: ([], []))

    def round(self, load: rig.Load, perf: bool) -> None:
        """Measure both once; who is first alternates."""
        for side in (0, 1) if len(self.samples[0]) % 2 else (1, 0):
            self.samples[side].append(measure(self.contenders[side], load, self.orders[side], perf))

    def ratio(self) -> float:
        """Median of the ratios; each is of two rounds, one with either first, because the second has it easier."""
        ratios = [after.cpu_us / before.cpu_us for before, after in zip(*self.samples, strict=True)]
        pairs = list(zip(ratios[::2], ratios[1::2], strict=False))
        return statistics.median(math.sqrt(one * other) for one, other in pairs) if pairs else ratios[0]

    def row(self) -> str:
        """This contest's row of the table."""
        before, after = (Typical(samples) for samples in self.samples)
        instructions = f"{before.kilo_instructions} | {after.kilo_instructions}"
        latency = f"{before.latency} | {after.latency}"
        return f"| {self.title} | {before.cpu} | {after.cpu} | **{self.ratio():.2f}** | {instructions} | {latency} |"


class Typical:
    """Medians of a contender's rounds, as text."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.cpu = f"{statistics.median(sample.cpu_us for sample in samples):.1f}"
        instructions = statistics.median(sample.instructions for sample in samples)
        self.kilo_instructions = "n/a" if instructions != instructions else f"{instructions / 1000:.0f}"
        p50, p99 = (statistics.median(getattr(sample, name) for sample in samples) for name in ("p50_ms", "p99_ms"))
        self.latency = f"{p50:.1f} / {p99:.1f}"


def measure(process: rig.Process, load: rig.Load, order: Order, perf: bool) -> Sample:
    """One round; what goes before it opens the connections to the upstream again, which the proxy has closed."""
    load.run(replace(order, seconds=order.seconds / 5))
    with rig.user_instructions(process.pid, perf) as counted:
        before = process.cpu_ns()
        report = load.run(order)
        spent = process.cpu_ns() - before
    instructions = counted[0] / report.calls if counted else float("nan")
    return Sample(spent / 1000 / report.calls, instructions, report.p50_ms, report.p99_ms)


def many(count: int, upstream_port: int) -> dict[str, Any]:
    """`count` servers and `count` routes: a fifth each told apart by path, by path prefix, and on one shared path by
    tool, by tool prefix and by header."""
    url = f"http://127.0.0.1:{upstream_port}/mcp"
    return {
        "servers": {f"s{number}": {"url": url} for number in range(count)},
        "routes": [_route(number) for number in range(count)],
    }


def _route(number: int) -> dict[str, Any]:
    kinds: list[dict[str, Any]] = [
        {"path": f"/exact{number}/mcp"},
        {"path": f"/below{number}/*"},
        {"path": "/shared/mcp", "when": {"tool": f"tool_{number}"}},
        {"path": "/shared/mcp", "when": {"tool": f"family_{number}_*"}},
        {"path": "/shared/mcp", "when": {"header": {"X-Team": f"team{number}"}}},
    ]
    return {"name": f"r{number}", "servers": f"s{number}", **kinds[number % len(kinds)]}


def targets(count: int) -> list[Target]:
    """Ten calls, spread evenly over the routes of `many(count)`, two of each kind."""
    return [_target(number * (count // 10) + number % 5 if count > 10 else number) for number in range(10)]


def _target(number: int) -> Target:
    kinds = [
        Target(f"/exact{number}/mcp"),
        Target(f"/below{number}/mcp"),
        Target("/shared/mcp", f"tool_{number}"),
        Target("/shared/mcp", f"family_{number}_get"),
        Target("/shared/mcp", headers={"X-Team": f"team{number}"}),
    ]
    return kinds[number % len(kinds)]


def run(rounds: int, seconds: float, many_routes: int, pairs: int) -> tuple[list[Contest], list[Contest]]:
    """All contests: against the yardstick (one per workload), and few routes against many (one per pair of processes,
    because two processes of the same program differ by some percent through where their memory happens to lie)."""
    perf = rig.perf_works()
    core = rig.two_cores()[
        1
    ]  # one for all: on two, the figures flip with where a virtual machine's host puts the cores
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(rig.start_upstream(core))

        def start(name: str, config: dict[str, Any]) -> rig.Process:
            return stack.enter_context(rig.start_proxy(scratch / name, config, core))

        bare = stack.enter_context(rig.start_bare(upstream.port, core))
        proxy = start("one", rig.demo_config(upstream.port))
        scale = []
        for number in range(1, pairs + 1):
            few = start(f"few{number}", many(10, upstream.port))
            crowd = start(f"many{number}", many(many_routes, upstream.port))
            orders = (
                Order(few.port, targets(10), era="modern", seconds=seconds),
                Order(crowd.port, targets(many_routes), era="modern", seconds=seconds),
            )
            scale.append(Contest(f"10 routes and servers against {many_routes:,}, pair {number}", (few, crowd), orders))
        against_bare = [
            Contest(
                f"{era} call, {answer} answer",
                (bare, proxy),
                (
                    Order(bare.port, era=era, answer=answer, seconds=seconds),
                    Order(proxy.port, era=era, answer=answer, seconds=seconds),
                ),
            )
            for era, answer in WORKLOADS
        ]
        load = stack.enter_context(rig.Load(core))
        for number in range(-1, rounds):
            for contest in (*against_bare, *scale):
                contest.round(load, perf)
                if number < 0:  # the warm-up
                    contest.samples = ([], [])
        return against_bare, scale


def table(against_bare: list[Contest], scale: list[Contest]) -> str:
    """The figures in Markdown; `kinstr` is thousand user instructions per call."""
    lines = []
    for workload, first, second, contests in (
        ("32 connections, small call", "bare", "proxy", against_bare),
        ("modern call, json answer", "few", "many", scale),
    ):
        quantities = ("us per call", "kinstr", "p50 / p99 ms")
        columns = [f"{name}: {quantity}" for quantity in quantities for name in (first, second)]
        lines += [f"| {' | '.join([workload, *columns[:2], 'ratio', *columns[2:]])} |", "|---" * 8 + "|"]
        lines += [contest.row() for contest in contests]
        lines.append("")
    return "\n".join(lines[:-1])


def machine() -> str:
    """What was measured on, in one line."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("aiohttp", "uvloop"))
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    model = names[0] if names else platform.machine()
    cpu = f"{len(names) or 1} x {model}"
    return f"{today}, {cpu}, Linux {platform.release()}, Python {platform.python_version()}, {versions}."


def publish(figures: str) -> None:
    """Replace what stands between the markers of benchmarks/README.md."""
    page = README.read_text()
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n{figures}\n{END}{after}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a few seconds, figures too coarse to publish")
    parser.add_argument("--rounds", type=int, default=24, help="rounds of one second for each contender and workload")
    options = parser.parse_args(arguments)
    against_bare, scale = run(2, 0.2, 200, 1) if options.short else run(options.rounds, 1.0, 10_000, 3)
    # The dearest of the workloads speaks for all of them.
    ratio = max(contest.ratio() for contest in against_bare)
    growth = statistics.geometric_mean(contest.ratio() for contest in scale)
    figures = f"{machine()}\n\n{table(against_bare, scale)}"
    print(figures)
    if not options.short:
        publish(figures)
    cost = record_cost.measure(10 if options.short else 60)
    with_it = cost["rows_line_and_metrics"]
    print(f"record_us_per_call: {cost['nothing']:.2f} without, {with_it:.2f} with (target {record_cost.TARGET_US:g})")
    print(f"ratio_of_many_to_few_routes: {growth:.2f} (target {SCALE_TARGET})")
    print(f"target for the next line: {RATIO_TARGET}")
    print(f"ratio_to_bare_aiohttp: {ratio:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
