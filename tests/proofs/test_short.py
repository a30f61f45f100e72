"""`make proofs` counts what misses its target. Proofs run in short form here, in test_isolation.py, and in
tests/test_benchmarks.py, tests/integration/test_reload.py, test_drain.py and test_upstream_connections.py."""

from __future__ import annotations

import pytest

from tests.proofs.run import PROOFS


@pytest.mark.alone
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ["revocation", "outages", "strangers"])
def test_a_proof_meets_its_targets_in_its_short_form(name: str) -> None:
    """A few seconds, or a few for each kind of outage; latencies may be further apart than in full length."""
    assert PROOFS.run(name, short=True) == 0


@pytest.mark.alone
def test_a_proof_runs_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Two drains in short form, one without a delay: figures against targets, nothing failed."""
    assert PROOFS.main(["--short", "--only", "drain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "failed: 0"
    assert sum(" target " in line for line in lines) == 14
