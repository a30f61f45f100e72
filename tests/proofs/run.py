"""Every proof in full length: what was measured against its target; the last line printed is `failed: N`.

python -m tests.proofs.run [--short] [--only NAME]

Takes half an hour and wants the machine for itself.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.load import percentile
from benchmarks.rig import Figure, raise_file_limit
from tests.proofs import alerts, drain, isolation, outages, record_size, reloads, revocation, stale, strangers

ROOT: Final = Path(__file__).resolve().parent.parent.parent
#: Measurements that are scripts of their own and end with `failed: N`.
SCRIPTS: Final = ("latency", "idle_streams", "disconnect", "key_timing", "identity_cost")


def reload_figures(short: bool) -> list[Figure]:
    """Twenty reloads under load."""
    length = reloads.Length(by_file=1, clients=6, streams=10, pause_s=0.1) if short else reloads.Length()
    found = asyncio.run(reloads.run(length))
    _tell(found.notes)
    what = f"{length.reloads} reloads, {found.calls} calls under {found.generations} generations"
    return [
        Figure(f"{what}: failed", found.failed, 0, ""),
        Figure("  calls that saw two generations", found.mixed, 0, ""),
        Figure("  calls without a line in the log", found.unlogged, 0, ""),
        Figure(f"  streams of {length.streams} that did not go on to their end", found.broken_streams, 0, ""),
        Figure("  connections of old generations closed after", found.longest_close_s, 5, "s"),
    ]


def drain_figures(short: bool) -> list[Figure]:
    """SIGTERM under load, with and without a delay."""
    figures = []
    for delay_s in (0.0, 1.0):
        length = drain.Length(clients=8, warm_s=0.5, answer_s=0.5) if short else drain.Length()
        length.delay_s = delay_s
        found = asyncio.run(drain.run(length))
        _tell(found.notes)
        streams = length.listening + length.answering
        what = f"SIGTERM, delay {delay_s:g} s, {streams} streams, {found.calls} calls"
        figures += [
            Figure(f"{what}: failed", found.failed, 0, ""),
            Figure("  listening streams torn inside an event", found.torn, 0, ""),
            Figure("  streams that owed an answer and were cut", found.cut, 0, ""),
            Figure("  calls without exactly one line in the log", found.unlogged, 0, ""),
            Figure("  ended after the signal", found.ended_s, delay_s + length.grace_s + 2, "s"),
            Figure("  exit code", found.exit_code, 0, ""),
        ]
        if delay_s:
            figures.append(Figure("  not ready after", found.not_ready_s, 0.5, "s"))
            figures.append(Figure("  new calls refused in the delay", not found.accepted_late, 0, ""))
    return figures


def stale_figures(short: bool) -> list[Figure]:
    """Calls around the moment at which upstreams close idle connections."""
    found = asyncio.run(stale.run(stale.Length(rounds=1, steps=20, step_s=0.002) if short else stale.Length()))
    return [
        Figure(f"{found.calls} calls around idle closes: failed", found.failed, 0, ""),
        Figure("  sent twice", found.sent_twice, 0, ""),
    ]


def isolation_figures(short: bool) -> list[Figure]:
    """Tenants on pooled connections, with every function of the store in every order."""
    found = isolation.run(isolation.Length(steps=300) if short else isolation.Length())
    _tell(found.notes)
    print(f"steps: {found.steps} foreign_rows: {found.foreign_rows}")
    return [
        Figure(f"{found.steps} steps of tenants on pooled connections: foreign rows", found.foreign_rows, 0, ""),
        Figure("  examples that failed", len(found.notes), 0, ""),
    ]


def revocation_figures(short: bool) -> list[Figure]:
    """Credentials that end while they are in use."""
    figures = []
    for news, found in asyncio.run(revocation.run(revocation.SHORT if short else revocation.Length())).items():
        _tell(found.notes[:10])
        refused, cut = sorted(found.refused_s), sorted(found.cut_s)
        soon_s = 1 if news == "told" else 5
        figures += [
            Figure(f"{found.victims} ended, replicas {news}: refused, p99", percentile(refused, 99), soon_s, "s"),
            Figure("  refused, worst", refused[-1], 5, "s"),
            Figure(f"  {found.streams} streams and WebSockets cut, worst", cut[-1], 5, "s"),
            Figure(f"  of {found.calls} calls, refused before the end", found.early, 0, ""),
            Figure("  answered again after a refusal", found.again, 0, ""),
            Figure(f"  of {found.bystander_calls} calls of bystanders, refused", found.harmed, 0, ""),
        ]
    return figures


def outage_figures(short: bool) -> list[Figure]:
    """PostgreSQL stopped, frozen and slow, and not there at the start."""
    length, figures = outages.SHORT if short else outages.Length(), []
    for kind, found in asyncio.run(outages.run(length)).items():
        _tell(found.notes[:10])
        here, there = found.slowest_ms
        print(f"  slowest call while it was {kind}: {here:.0f} ms, at the other proxy {there:.0f} ms")
        figures += [
            Figure(f"{kind} for {length.outage_s:g} s, {found.calls} calls: failed", found.failed, 0, ""),
            Figure("  p99, by that before", found.p99_ratio, 5 if short else 1.1, "x"),
            Figure("  unknown credentials are 503 after", found.noticed_s, 4, "s"),
            Figure("  unknown credentials that were answered otherwise", found.let_slip, 0, ""),
            Figure("  well-known refusals that changed", found.changed, 0, ""),
            Figure("  unknown credentials are 401 again after", found.healed_s, 2, "s"),
            Figure("  a new key is accepted after", found.new_key_s, 2, "s"),
        ]
    cold = asyncio.run(outages.start_cold())
    return [
        *figures,
        Figure("started without PostgreSQL: serves after", cold.started_s, 10, "s"),
        Figure("  known credentials refused, with a copy", cold.known_refused, 0, ""),
        Figure("  other credentials not answered 503", cold.unknown_wrong, 0, ""),
        Figure("  well after the return in", cold.healed_s, 2, "s"),
    ]


def stranger_figures(short: bool) -> list[Figure]:
    """A thousand unknown credentials a second."""
    found = asyncio.run(strangers.run(strangers.SHORT if short else strangers.Length()))
    shown = ", ".join(f"{place} {p99_ms:.2f}" for place, p99_ms in found.p99_ms.items())
    print(f"  p99 of good calls in ms with strangers {shown}")
    print(f"  statements a second: {found.statements_without:.1f} without strangers, {found.statements_with:.1f} with")
    return [
        Figure(f"{found.strangers} strangers, {found.per_second:.0f} a second: not answered 401", found.wrong, 0, ""),
        Figure(f"  of {found.calls} good calls, failed", found.failed, 0, ""),
        Figure("  statements for each stranger", found.statements_per_stranger, 0.1 if short else 0.01, ""),
        Figure("  p99 of good calls, by that with strangers elsewhere", found.p99_ratio, 5 if short else 1.2, "x"),
        Figure("  memory grown by", found.grown_kib / 1024, 4, "MiB"),
    ]


def record_figures(short: bool) -> list[Figure]:
    """Millions of rows searched and dropped; a million verified, and again with rows that were forged."""
    return asyncio.run(record_size.run(record_size.SHORT if short else record_size.Length()))


PROOFS: Final[dict[str, Callable[[bool], list[Figure]]]] = {
    "reloads": reload_figures,
    "drain": drain_figures,
    "stale": stale_figures,
    "isolation": isolation_figures,
    "revocation": revocation_figures,
    "outages": outage_figures,
    "strangers": stranger_figures,
    "alerts": alerts.figures,
    "record-size": record_figures,
}


def run_script(name: str, short: bool) -> int:
    """Run one of `benchmarks`, pass on what it prints; the number of figures that miss their target."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *(["--short"] if short else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    *lines, last = done.stdout.splitlines() or [""]
    print("\n".join(lines), flush=True)
    count = last.removeprefix("failed: ")
    if count.isdigit():
        return int(count)
    print(f"{name} ended with {done.returncode}: {last}\n{done.stderr}", flush=True)
    return 1


def run_proof(name: str, short: bool) -> int:
    """Run one of `PROOFS`; the number of figures that miss their target."""
    figures = PROOFS[name](short)
    for figure in figures:
        print(figure, flush=True)
    return sum(figure.failed for figure in figures)


def _tell(notes: list[str]) -> None:
    for note in notes:
        print(f"  ! {note}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for, everything by default; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a few seconds each, some targets wider")
    parser.add_argument("--only", choices=(*SCRIPTS, *PROOFS), help="one of them")
    options = parser.parse_args(arguments)
    raise_file_limit()
    failed = 0
    for name in [options.only] if options.only else (*SCRIPTS, *PROOFS):
        print(f"--- {name}", flush=True)
        failed += run_script(name, options.short) if name in SCRIPTS else run_proof(name, options.short)
    print(f"failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
