"""Every proof of the limits in full length: what was measured against its target; the last line is `failed: N`.

python -m tests.limits.run [--short] [--only NAME]

Takes some minutes. The figures of `cost` want the machine for themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.rig import Figure, raise_file_limit
from tests.limits import cost, exactness, fairness, outages

#: Decisions of a short run that a stall of the machine may take away from Redis.
_STALLED: Final = 1000


def exactness_figures(short: bool) -> list[Figure]:
    """Three times the load that every rule allows, in four processes."""
    length = exactness.SHORT if short else exactness.Length()
    (rules, by_itself), (proxied, errors) = asyncio.run(exactness.run(length))
    under = 3 if short else 1
    stalled = short and bool(by_itself)
    figures = [figure for rule in rules for figure in _exact(rule, under, stalled)]
    figures.append(Figure("  decided without Redis, which was there", by_itself, _STALLED if short else 0, ""))
    figures += [figure for rule in proxied for figure in _exact(rule, 10 if short else 1, short)]
    return [*figures, Figure("  calls answered otherwise than by 200 or 429", errors, 0, "")]


def _exact(rule: exactness.Exact, under: float, stalled: bool) -> list[Figure]:
    """`stalled`: the machine was so busy that Redis may have been taken to be away."""
    print(f"  {rule.name}: {rule.asked} asked, {rule.admitted} admitted of {rule.may:.1f}")
    if rule.alone:
        print(f"  ! {rule.alone} passed without Redis: the machine was so busy that it was taken to be away")
    most = exactness.OUTAGE if rule.alone or stalled else 0
    return [
        Figure(f"{rule.name}: admitted over what it may", max(0.0, rule.admitted - rule.may), most, ""),
        Figure("  admitted under it", (1 - rule.admitted / rule.may) * 100, under, "%"),
        Figure("  tokens that refused requests took elsewhere", max(0.0, rule.drained), 0.01, ""),
    ]


def fairness_figures(short: bool) -> list[Figure]:
    """Tenants of weights 1, 1 and 2, one of which asks for twenty times its share."""
    figures = []
    for scene in asyncio.run(fairness.run(fairness.SHORT if short else fairness.Length())):
        print(f"  {scene.name}: " + ", ".join(map(str, scene.tenants)))
        figures += [
            Figure(f"{scene.name}: refused of those within their share", scene.refused_quiet, 5 if short else 0, ""),
            Figure("  furthest from what is fair", scene.off_share * 100, 30 if short else 5, "%"),
            Figure("  of the global rate, not used", (1 - scene.used) * 100, 15 if short else 5, "%"),
            Figure("  admitted over what the global rule may", max(0.0, scene.over), 0, ""),
        ]
    return figures


def outage_figures(short: bool) -> list[Figure]:
    """Redis killed, frozen, full, read-only and flushed, and clocks that jump."""
    figures = []
    length, loose = (outages.SHORT, 5) if short else (outages.Length(), 1)
    for found in asyncio.run(outages.run(length)):
        p50_ms, longest_ms = found.p50_s * 1e3, found.longest_s * 1e3
        print(f"  {found.kind}: {found.calls} calls, p50 {p50_ms:.1f} ms, longest {longest_ms:.0f} ms")
        print(f"  slower than 50 ms: {found.slow}, and {found.slow_without} of as many without limits")
        figures += [
            Figure(f"{found.kind} for {length.outage_s:g} s: neither 200 nor 429", found.errors, 0, ""),
            Figure("  slower than 50 ms, less those without limits", found.slow - found.slow_without, 5 * loose, ""),
            Figure("  admitted over burst and rate", found.over, outages.MOST_OVER * loose, ""),
            Figure("  admitted under it", found.starved * 100, 5 * loose, "%"),
            Figure("  back on Redis after", found.back_s, 2 * loose, "s"),
        ]
    for where, extra in asyncio.run(outages.jumps()).items():
        figures.append(Figure(f"clock of the {where} jumps by a day: admitted too much", extra, 0, ""))
    return figures


def cost_figures(short: bool) -> list[Figure]:
    """Time, CPU and memory. A short run on a busy machine says little about microseconds."""
    length, loose = (cost.SHORT, 10) if short else (cost.Length(), 1)
    added, forever = asyncio.run(cost.price(length))
    grown = cost.growth(length)
    print(f"  a call without limits takes {added.without_us:.0f} us, a PING of Redis {added.ping_us:.0f} us")
    print(f"  subjects that the process does not remember take {grown.unknown:.2f} times as long")
    flat = 3 if short else 1.05
    return [
        Figure(f"{cost.RULES} rules: finding them and asking Redis, p50", grown.take_us, 60 * loose, "us"),
        Figure("  CPU of the process", grown.take_cpu_us, 40 * loose, "us"),
        Figure("  added to a call through the proxy, p50, one client", added.p50_us, 60 * loose, "us"),
        Figure(f"  CPU of the proxy, {cost.CLIENTS} clients", added.cpu_us, 40 * loose, "us"),
        Figure("  CPU of the proxy, one client", added.cpu_alone_us, 40 * loose, "us"),
        Figure(f"{length.rules:,} rules, by {length.few_rules}", grown.rules, flat, "x"),
        Figure(f"{length.subjects:,} subjects in Redis, by {cost.FEW:,}", grown.stored, flat, "x"),
        Figure(f"  all of which ask, by {cost.SOME:,}", grown.asking, flat, "x"),
        Figure("  memory of Redis for each", grown.bytes_per_subject, 250, "B"),
        Figure("keys that do not expire", forever + grown.forever, 0, ""),
        Figure("keys of buckets that are full again", grown.left, 0, ""),
    ]


PROOFS: Final[dict[str, Callable[[bool], list[Figure]]]] = {
    "exactness": exactness_figures,
    "fairness": fairness_figures,
    "outages": outage_figures,
    "cost": cost_figures,
}


def run_proof(name: str, short: bool) -> int:
    """Run one of `PROOFS`, and print its figures; the number of those that miss their target."""
    load, *_ = os.getloadavg()
    print(f"--- {name} (load of the machine before: {load:.1f})", flush=True)
    figures = PROOFS[name](short)
    for figure in figures:
        print(figure, flush=True)
    return sum(figure.failed for figure in figures)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for, everything by default; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a few seconds each, some targets wider")
    parser.add_argument("--only", choices=PROOFS, help="one of them")
    options = parser.parse_args(arguments)
    raise_file_limit()
    failed = sum(run_proof(name, options.short) for name in ([options.only] if options.only else PROOFS))
    print(f"failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
