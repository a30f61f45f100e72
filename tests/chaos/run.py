"""Every fault in full length: what the proxy did against its target; the last line printed is `failed: N`.

python -m tests.chaos.run [--short] [--only NAME ...]

Takes some minutes and wants the machine for itself.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

from benchmarks.rig import Figure, raise_file_limit

ROOT: Final = Path(__file__).resolve().parent.parent.parent
#: Name: the module and the function that, told whether it is to be short, measures and returns figures. Loaded when it
#: runs, so that one more is one more line here.
SCENARIOS: Final[dict[str, str]] = {
    "dead-server": "tests.chaos.dead_server:figures",  # F1
    "hung-server": "tests.chaos.hung_server:figures",  # F2
    "truncation": "tests.chaos.answers:truncation",  # F3
    "stale": "tests.chaos.answers:stale_connections",  # F4
    "malformed": "tests.chaos.malformed:figures",  # F5
    "endless": "tests.chaos.endless:figures",  # F6
    "upload": "tests.chaos.upload:figures",  # F7
    "names": "tests.chaos.names:figures",  # F16
    "slow-clients": "tests.chaos.slow_clients:figures",  # F24
    "half-open": "tests.chaos.half_open:figures",  # F26
    "descriptors": "tests.chaos.descriptors:figures",  # F28
    "memory": "tests.chaos.stall:memory_figures",  # F29
    "stall": "tests.chaos.stall:figures",  # F30
    "overload": "tests.chaos.overload_proof:figures",  # F30
    "cancel-storm": "tests.chaos.cancel_storm:figures",  # F31
    "herd": "tests.chaos.herd:figures",  # F32
    "exactly-once": "tests.chaos.exactly_once:figures",
    "two-servers": "tests.chaos.two_servers:figures",
    "health-loops": "tests.chaos.health_loops:figures",
    "maintenance": "tests.chaos.maintenance_proof:figures",
    "record-stopped": "tests.chaos.durability:stopped",  # D1, D7
    "record-frozen": "tests.chaos.durability:held",  # D2, D7
    "record-torn": "tests.chaos.torn:figures",  # D3
    "record-small-disk": "tests.chaos.small_disk:figures",  # D4
    "record-replay": "tests.chaos.replay:figures",  # D5
    "record-machine": "tests.chaos.spool_machine:figures",  # D6
}
#: Measurements of `benchmarks` that belong here.
SCRIPTS: Final[dict[str, str]] = {
    "disconnect": "benchmarks.disconnect",  # F25
    "idle-streams": "benchmarks.idle_streams",  # F27
    "resilience-cost": "benchmarks.resilience_cost",
}


def scenario(name: str) -> Callable[[bool], list[Figure]]:
    """What measures `name`."""
    module, _, function = SCENARIOS[name].partition(":")
    found: Callable[[bool], list[Figure]] = getattr(import_module(module), function)
    return found


def run_scenario(name: str, short: bool) -> int:
    """Run one of `SCENARIOS` and print its figures; the number of those that miss their target."""
    figures = scenario(name)(short)
    for figure in figures:
        print(figure, flush=True)
    return sum(figure.failed for figure in figures)


def run_script(name: str, short: bool) -> int:
    """Run one of `SCRIPTS`, pass on what it prints; the number of figures that miss their target."""
    command = [sys.executable, "-m", SCRIPTS[name], *(["--short"] if short else [])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    *lines, last = done.stdout.splitlines() or [""]
    print("\n".join(lines), flush=True)
    count = last.removeprefix("failed: ")
    if count.isdigit():
        return int(count)
    print(f"{name} ended with {done.returncode}: {last}\n{done.stderr}", flush=True)
    return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for, everything by default; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a few seconds each, some targets wider")
    parser.add_argument("--only", choices=(*SCENARIOS, *SCRIPTS), nargs="+", help="some of them")
    options = parser.parse_args(arguments)
    raise_file_limit()
    failed = 0
    for name in options.only or (*SCENARIOS, *SCRIPTS):
        print(f"--- {name} (load of the machine before: {os.getloadavg()[0]:.1f})", flush=True)
        failed += run_script(name, options.short) if name in SCRIPTS else run_scenario(name, options.short)
    print(f"failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
