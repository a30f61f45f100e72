"""`make proofs` counts what misses its target. Proofs run in short form here, in test_isolation.py, and in
tests/test_benchmarks.py, tests/integration/test_reload.py, test_drain.py and test_upstream_connections.py."""

from __future__ import annotations

import subprocess

import pytest

from benchmarks.rig import Figure
from tests.proofs import run


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ["revocation", "outages", "strangers"])
def test_a_proof_meets_its_targets_in_its_short_form(name: str) -> None:
    """A few seconds, or a few for each kind of outage; latencies may be further apart than in full length."""
    assert run.run_proof(name, short=True) == 0


@pytest.mark.slow
def test_a_proof_runs_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Two drains in short form, one without a delay: figures against targets, nothing failed."""
    assert run.main(["--short", "--only", "drain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "--- drain"
    assert lines[-1] == "failed: 0"
    assert sum(" target " in line for line in lines) == 14


def test_every_figure_over_its_target_counts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all proofs together; the exit status is 1."""
    monkeypatch.setattr(run, "SCRIPTS", ())
    monkeypatch.setattr(
        run,
        "PROOFS",
        {
            "one": lambda short: [Figure("good", 1, 1, "s"), Figure("late", 2, 1, "s")],
            "two": lambda short: [Figure("no number", float("nan"), 1, "s")],
        },
    )
    assert run.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[1:3]] == ["ok", "MISSED"]
    assert lines[-1] == "failed: 2"


@pytest.mark.parametrize(
    ("printed", "code", "failed"), [("a figure\nfailed: 3\n", 1, 3), ("a figure\nfailed: 0\n", 0, 0), ("", 1, 1)]
)
def test_a_script_that_dies_has_failed(monkeypatch: pytest.MonkeyPatch, printed: str, code: int, failed: int) -> None:
    """Its own count is taken where there is one."""
    done = subprocess.CompletedProcess([], code, printed, "Traceback")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: done)
    assert run.run_script("latency", short=True) == failed
