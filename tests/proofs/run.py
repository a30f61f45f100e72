"""Every proof in full length: what was measured against its target; the last line printed is `failed: N`.

python -m tests.proofs.run [--short] [--only NAME]

Takes some minutes and wants the machine for itself.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.rig import Figure, raise_file_limit
from tests.proofs import drain, isolation, reloads, stale

ROOT: Final = Path(__file__).resolve().parent.parent.parent
#: Measurements that are scripts of their own and end with `failed: N`.
SCRIPTS: Final = ("latency", "idle_streams", "disconnect")


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


PROOFS: Final[dict[str, Callable[[bool], list[Figure]]]] = {
    "reloads": reload_figures,
    "drain": drain_figures,
    "stale": stale_figures,
    "isolation": isolation_figures,
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
