"""`make conformance`: the official suite against the fixture server, direct and through the proxy.

Prints one row per revision and every difference; the last line is `differences: N`, and the exit code is 0 only for 0.
A check that comes out better behind the proxy is a difference too, unless `ALLOWED` names it with a reason.

    python -m tests.conformance.run            all revisions
    python -m tests.conformance.run --short    a handful of scenarios, for `make test`
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.conformance.npm import Node, NpmUnavailable, ensure
from tests.conformance.processes import NotStarted, fixture_server, proxy
from tests.conformance.suite import Difference, Run, Selection, SuiteFailed, compare, count, run_suite

#: Checks that may improve behind the proxy: (scenario, check id) to the reason. None is needed now: the proxy trims
#: blanks around header values (RFC 9110 section 5.5), and so does the fixture's own HTTP parser.
ALLOWED: Final[Mapping[tuple[str, str], str]] = {}

EVERYTHING: Final = (
    Selection("2025-03-26", ("--suite", "all", "--spec-version", "2025-03-26")),
    Selection("2025-06-18", ("--suite", "all", "--spec-version", "2025-06-18")),
    Selection("2025-11-25", ("--requirements", "2025-11-25")),
    Selection("2026-07-28", ("--requirements", "2026-07-28")),
)
#: What a proxy breaks most easily: sessions, streams, requests of the server, header checks, the modern lifecycle.
SHORT: Final = (
    Selection("2025-03-26", ("--suite", "all", "--spec-version", "2025-03-26")),
    *(
        Selection(scenario, ("--scenario", scenario, "--spec-version", revision))
        for scenario, revision in (
            ("server-sse-polling", "2025-11-25"),
            ("tools-call-elicitation", "2025-11-25"),
            ("dns-rebinding-protection", "2026-07-28"),
            ("http-header-validation", "2026-07-28"),
            ("server-stateless", "2026-07-28"),
        )
    ),
)


def _unexplained(differences: Sequence[Difference]) -> list[Difference]:
    return [
        difference
        for difference in differences
        if not (difference.improves and (difference.scenario, difference.check) in ALLOWED)
    ]


def _row(selection: Selection, direct: Run, proxied: Run, differences: int) -> str:
    (passed, failed), (passed_too, failed_too) = count(direct), count(proxied)
    checks = sum(len(checks) for checks in direct.values())
    return (
        f"{selection.title:<26}{len(direct):>9}{checks:>8}{f'{passed}/{failed}':>14}"
        f"{f'{passed_too}/{failed_too}':>14}{differences:>13}"
    )


def _compare_selection(
    node: Node, selection: Selection, urls: tuple[str, str], directory: Path
) -> tuple[str, list[Difference]]:
    direct = run_suite(node, urls[0], selection, directory / f"direct-{selection.title}")
    proxied = run_suite(node, urls[1], selection, directory / f"proxied-{selection.title}")
    differences = compare(direct, proxied)
    return _row(selection, direct, proxied, len(differences)), differences


def run(selections: Sequence[Selection], directory: Path) -> int:
    """Run and compare every selection, printing as it goes; the number of unexplained differences."""
    node = ensure()
    found: list[Difference] = []
    print(f"{'set':<26}{'scenarios':>9}{'checks':>8}{'direct +/-':>14}{'proxied +/-':>14}{'differences':>13}")
    with (
        fixture_server(directory) as fixture,
        proxy(directory, {"fixture": {"url": f"{fixture.origin}/mcp"}}) as started,
    ):
        # The suite insists on the name localhost: it tests the guard against DNS rebinding.
        urls = (f"http://localhost:{fixture.port}/mcp", f"http://localhost:{started.port}/fixture/mcp")
        for selection in selections:
            row, differences = _compare_selection(node, selection, urls, directory)
            print(row, flush=True)
            found += differences
    for difference in found:
        reason = ALLOWED.get((difference.scenario, difference.check))
        print(f"  {difference}{f'  (allowed: {reason})' if reason and difference.improves else ''}")
    return len(_unexplained(found))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: no difference; 1: differences; 2: the suite could not run."""
    parser = argparse.ArgumentParser(description="The official conformance suite, direct against proxied.")
    parser.add_argument("--short", action="store_true", help="only a handful of scenarios")
    parser.add_argument("--keep", type=Path, help="keep the suite's results and the logs in this directory")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="conformance-") as temporary:
            directory: Path = options.keep or Path(temporary)
            directory.mkdir(parents=True, exist_ok=True)
            differences = run(SHORT if options.short else EVERYTHING, directory)
    except (NpmUnavailable, NotStarted, SuiteFailed) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"differences: {differences}")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
