"""The measurement of what resilience costs runs, and measures requests that are let through."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.resilience_cost import REQUESTS, SERVERS, jobs

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.alone
def test_protection_costs_microseconds() -> None:
    """The short form ends with `failed: 0`, after a line for all of it together."""
    command = [sys.executable, "-m", "benchmarks.resilience_cost", "--short"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[-1:] == ["failed: 0"], done.stdout + done.stderr
    assert re.search(r"^resilience_us: \d+\.\d\d$", done.stdout, re.MULTILINE)


def test_every_request_passes_every_step() -> None:
    """Nothing is refused, which would cost something else, and what was taken is given back."""
    for name, job in jobs().items():
        job.run()
        if not name.startswith("all_"):
            continue
        bench = job.bench
        queues = [upstream.queue for upstream in bench.upstreams]
        assert len(queues) == SERVERS
        assert sum(queue.admitted for queue in queues if queue is not None) == REQUESTS
        assert [queue.running for queue in queues if queue is not None] == [0] * SERVERS
        assert {upstream.health.status for upstream in bench.upstreams} <= {"healthy", "unknown"}
        assert not any(upstream.in_flight or upstream.breaker.failures for upstream in bench.upstreams)
        assert bench.budget.requests == 0
