"""The measurement of the record does what it says: every part is called, and both rows are really written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.record_cost import REQUESTS, jobs

ROOT = Path(__file__).resolve().parent.parent


def test_what_is_measured_really_happens(tmp_path: Path) -> None:
    """Two records and a line for each request."""
    measured = jobs(tmp_path)
    for job in measured.values():
        job.run()
    whole = measured["rows_line_and_metrics"].bench
    journal = whole.recorder.journal
    assert journal is not None
    assert journal.numbers().written == 2 * REQUESTS  # type: ignore[attr-defined]
    assert whole.metrics.in_flight == 0
    assert whole.metrics.record_failures == 0
    assert measured["rows_line_and_metrics"].best_us > measured["nothing"].best_us


@pytest.mark.alone
def test_the_short_measurement_prints_its_figures() -> None:
    """Each part by its name, and the verdict last."""
    command = [sys.executable, "-m", "benchmarks.record_cost", "--short"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert "rows_line_and_metrics_us: " in done.stdout
    assert done.stdout.splitlines()[-1].startswith("failed: ")
