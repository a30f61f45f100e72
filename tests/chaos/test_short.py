"""`make chaos` counts what misses its target; here each scenario runs in its short form."""

from __future__ import annotations

import subprocess

import pytest

from benchmarks.rig import Figure
from tests.chaos import run


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", run.SCENARIOS)
def test_a_scenario_meets_its_targets_in_its_short_form(name: str) -> None:
    """A few seconds; what the noise of a machine spoils has wider targets there."""
    assert run.run_scenario(name, short=True) == 0


def test_every_figure_over_its_target_counts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all scenarios together; the exit status is 1, and the last line says how many."""
    found = {
        "one": lambda short: [Figure("good", 1, 1, "s"), Figure("late", 2, 1, "s")],
        "two": lambda short: [Figure("no number", float("nan"), 1, "s")],
    }
    monkeypatch.setattr(run, "SCENARIOS", found)
    monkeypatch.setattr(run, "SCRIPTS", {})
    monkeypatch.setattr(run, "scenario", found.__getitem__)
    assert run.main([]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "failed: 2"
    assert run.main(["--only", "one"]) == 1


@pytest.mark.parametrize("name", [*run.SCENARIOS])
def test_every_scenario_is_there(name: str) -> None:
    """Its module can be loaded, and has the function that is named."""
    assert callable(run.scenario(name))


@pytest.mark.parametrize(
    ("printed", "code", "failed"), [("a figure\nfailed: 3\n", 1, 3), ("a figure\nfailed: 0\n", 0, 0), ("", 1, 1)]
)
def test_a_script_that_dies_has_failed(monkeypatch: pytest.MonkeyPatch, printed: str, code: int, failed: int) -> None:
    """Its own count is taken where there is one."""
    done = subprocess.CompletedProcess([], code, printed, "Traceback")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: done)
    assert run.run_script("disconnect", short=True) == failed
