"""Runs measurements by name, and counts the figures that miss their targets. What they measure it must not know.

A name stands for a function that, told whether it is to be short, measures and returns figures, or for a script of
`benchmarks`. When more than one is run each has a process of its own: one that raises, or is killed, has failed, and
the others run all the same.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Final

from benchmarks.rig import Figure, raise_file_limit

ROOT: Final = Path(__file__).resolve().parent.parent
_FAILED: Final = "failed: "


@dataclass(frozen=True, slots=True)
class Proofs:
    """What can be run, in the order in which it is."""

    module: str
    """Whose `main` is this one's, for `python -m`."""
    about: str
    functions: Mapping[str, str]
    """Name: `module:function`, loaded when it runs."""
    scripts: Mapping[str, str] = field(default_factory=dict)
    """Name: a module that is a program, takes `--short`, and ends with `failed: N`."""

    def function(self, name: str) -> Callable[[bool], list[Figure]]:
        """What measures `name`."""
        module, _, function = self.functions[name].partition(":")
        found: Callable[[bool], list[Figure]] = getattr(import_module(module), function)
        return found

    def run(self, name: str, short: bool) -> int:
        """Run one of `functions` in this process and print its figures; how many miss their target."""
        print(f"--- {name} (load of the machine before: {os.getloadavg()[0]:.1f})", flush=True)
        began = time.monotonic()
        figures = self.function(name)(short)
        for figure in figures:
            print(figure)
        print(f"  {name} took {time.monotonic() - began:.0f} s", flush=True)
        return sum(figure.failed for figure in figures)

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run what is asked for, everything by default; 1 when a target is missed."""
        parser = argparse.ArgumentParser(description=self.about, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--short", action="store_true", help="a few seconds each, some targets wider")
        parser.add_argument("--only", choices=(*self.functions, *self.scripts), nargs="+", help="some of them")
        options = parser.parse_args(arguments)
        names = options.only or [*self.functions, *self.scripts]
        if len(names) == 1 and names[0] in self.functions:
            failed = self._here(names[0], options.short)
        else:
            began = time.monotonic()
            failed = sum(self._apart(name, options.short) for name in names)
            print(f"all took {(time.monotonic() - began) / 60:.1f} minutes")
        print(f"{_FAILED}{failed}")
        return 1 if failed else 0

    def _here(self, name: str, short: bool) -> int:
        raise_file_limit()
        try:
            return self.run(name, short)
        except Exception:
            traceback.print_exc(file=sys.stdout)
            return 1

    def _apart(self, name: str, short: bool) -> int:
        """Run one as a process, pass on what it prints; how many figures miss their target, one if it does not say."""
        what = [self.scripts[name]] if name in self.scripts else [self.module, "--only", name]
        if name in self.scripts:
            print(f"--- {name} (load of the machine before: {os.getloadavg()[0]:.1f})", flush=True)
        command = [sys.executable, "-u", "-m", *what, *(["--short"] if short else [])]
        began, said = time.monotonic(), ""
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                said = line.removeprefix(_FAILED).strip() if line.startswith(_FAILED) else ""
                if not said:
                    print(line, end="", flush=True)
        if name in self.scripts:
            print(f"  {name} took {time.monotonic() - began:.0f} s", flush=True)
        if said.isdigit():
            return int(said)
        print(f"  {name} ended with {child.returncode}, and did not say what failed", flush=True)
        return 1
