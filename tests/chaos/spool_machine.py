"""The journal's whole life at length: requests, deaths of processes and hosts, shipping and adoption, at random (D6).

The machine of states is that of the unit tests, with real files. Here it runs longer, and what it did is counted: a run
in which nothing died before a checkpoint has shown nothing.
"""

from __future__ import annotations

import os
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import Final
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import precondition, run_state_machine_as_test

from benchmarks.rig import Figure
from proxy.spool.kinds import fields_of
from proxy.spool.quarantine import Quarantine
from tests.unit.spool.test_journal_machine import Life

_LIVES: Final = 1_500
_FEW: Final = 25
_STEPS: Final = 60
#: Between two deaths.
_REQUESTS: Final = 6
#: Files in memory: what is shown is the order of things, and a sync of a disk takes fifty times as long.
_MEMORY: Final = "/dev/shm"
#: What has to happen in a long run; a life ends with all that was acknowledged looked for.
_WANTED: Final = (
    "deaths", "deaths before the checkpoint", "rows offered again", "rows: intent",
    "rows: outcome", "rows: denied", "rows: summary", "rows: unknown", "set aside by the database",
)  # fmt: skip


def figures(short: bool) -> list[Figure]:
    """D6."""
    seen: Counter[str] = Counter()

    class Counted(Life):
        """The same life, counted, and long enough to have something to lose; the other rules are inherited."""

        born = 0
        dies = precondition(lambda self: self.count >= self.born + _REQUESTS)(Life.dies)
        host_dies = precondition(lambda self: self.count >= self.born + _REQUESTS)(Life.host_dies)

        def new_process(self) -> None:
            """Of the process, or of its host."""
            seen["deaths"] += 1
            self.born = self.count
            super().new_process()

        def ship(self, path: Path, most: int, fault: bool) -> bool:
            """What is left behind, or of the living."""
            done = super().ship(path, most, fault)
            seen["shipments"] += 1
            seen["deaths before the checkpoint"] += fault and not done
            return done

        def insert(self, record: bytes, quarantine: Quarantine, place: str) -> None:
            """One row, perhaps once more."""
            about = fields_of(record)
            seen["rows offered again"] += (about.get("id"), about.get("kind")) in self.rows
            super().insert(record, quarantine, place)

        def everything_is_found(self) -> None:
            """The end of a life."""
            super().everything_is_found()
            seen["lives"] += 1
            seen["acknowledged, and found"] += len(self.kept)
            seen["set aside by the database"] += len(self.refused_by_database)
            for record in self.rows.values():
                about = fields_of(record)
                seen[f"rows: {'unknown' if about.get('outcome') == 'unknown' else about['kind']}"] += 1

    lives = _FEW if short else _LIVES
    wrong = _run(Counted, lives)
    print("  " + ", ".join(f"{name}: {count}" for name, count in sorted(seen.items())))
    missing = [name for name in _WANTED if not seen[name]] if not short else []
    return [
        Figure(f"lives in which something was lost, doubled or made up, of {seen['lives']}", wrong, 0, ""),
        Figure("lives that ended, by those asked for", lives / max(seen["lives"], 1), 1, "x"),
        Figure("things that had to happen and did not" + "".join(f"; {name}" for name in missing), len(missing), 0, ""),
    ]


def _run(machine: type[Life], lives: int) -> int:
    """1 when a life went wrong; how is printed, in as few steps as were found."""
    at_length = settings(
        max_examples=lives, stateful_step_count=_STEPS, deadline=None, database=None, derandomize=False,
        phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    try:
        with patch.object(tempfile, "tempdir", _MEMORY if os.access(_MEMORY, os.W_OK) else None):
            run_state_machine_as_test(machine, settings=at_length)
    except Exception:
        traceback.print_exc()
        return 1
    return 0
