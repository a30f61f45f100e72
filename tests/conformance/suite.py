"""Runs the official conformance suite against one URL and compares two runs.

A run is reduced to what must not differ between a server and the same server behind the proxy: for every scenario the
ordered (check id, status) pairs of its `checks.json`. Exit codes are not enough, since failures of scenarios that do
not count towards a revision leave them at 0.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.conformance.npm import Node

Check = tuple[str, str]
Run = dict[str, tuple[Check, ...]]
"""Scenario name to its checks in order."""

_PACKAGE: Final = "@modelcontextprotocol/conformance"
_RUN_S: Final = 300
#: `server-SCENARIO-2026-11-22T03-03-48-044Z`, the directory of one scenario.
_DIRECTORY: Final = re.compile(r"server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z")
#: The suite calls these a pass; everything but a failure is one.
_FAILURE: Final = "FAILURE"


class SuiteFailed(Exception):
    """The suite itself did not run: nothing can be compared."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which scenarios to run: a title for people and the suite's own arguments."""

    title: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """One check that came out otherwise behind the proxy; '' where it is missing."""

    scenario: str
    check: str
    direct: str
    proxied: str

    @property
    def improves(self) -> bool:
        """It failed direct and succeeds proxied."""
        return self.direct == _FAILURE and self.proxied == "SUCCESS"

    def __str__(self) -> str:
        return f"{self.scenario} / {self.check}: {self.direct or 'missing'} -> {self.proxied or 'missing'}"


def run_suite(node: Node, url: str, selection: Selection, output: Path) -> Run:
    """Run the selected scenarios against `url`. Raises `SuiteFailed` when not one scenario left a result."""
    command = node.script(_PACKAGE, "dist/index.js", "server", "--url", url, "-o", str(output), *selection.arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=_RUN_S, check=False)
    run = read_run(output)
    if not run:
        raise SuiteFailed(
            f"no scenario ran against {url} ({selection.title}):\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return run


def read_run(output: Path) -> Run:
    """The results below `output`, one directory per scenario."""
    run: Run = {}
    for path in sorted(output.glob("*/checks.json")):
        match = _DIRECTORY.fullmatch(path.parent.name)
        if match is not None:
            checks = json.loads(path.read_bytes())
            run[match["scenario"]] = tuple((check["id"], check["status"]) for check in checks)
    return run


def count(run: Run) -> tuple[int, int]:
    """Checks that passed and checks that failed."""
    statuses = Counter(status for checks in run.values() for _, status in checks)
    return statuses["SUCCESS"], statuses[_FAILURE]


def compare(direct: Run, proxied: Run) -> list[Difference]:
    """Every place where the ordered checks of two runs are not the same."""
    found: list[Difference] = []
    for scenario in sorted({*direct, *proxied}):
        before, after = direct.get(scenario, ()), proxied.get(scenario, ())
        if [name for name, _ in before] != [name for name, _ in after]:
            found += _unequal_sequences(scenario, before, after)
        else:
            found += [
                Difference(scenario, name, was, now)
                for (name, was), (_, now) in zip(before, after, strict=True)
                if was != now
            ]
    return found


def _unequal_sequences(scenario: str, before: tuple[Check, ...], after: tuple[Check, ...]) -> list[Difference]:
    """Checks appeared, vanished or changed places: report each that one side has more often, or else the order."""
    lost, gained = Counter(before) - Counter(after), Counter(after) - Counter(before)
    found = [Difference(scenario, name, status, "") for name, status in lost.elements()]
    found += [Difference(scenario, name, "", status) for name, status in gained.elements()]
    return found or [Difference(scenario, "order of checks", "as listed", "another order")]
