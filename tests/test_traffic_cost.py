"""The measurement of what counting costs runs, and sums up what it says."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.traffic_cost import Bench

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.alone
def test_a_request_is_counted_within_half_a_microsecond() -> None:
    """The short form ends with `failed: 0`, after its figures."""
    command = [sys.executable, "-m", "benchmarks.traffic_cost", "--short"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[-1:] == ["failed: 0"], done.stdout + done.stderr
    names = re.findall(r"^(\w+): \d+\.\d{3}$", done.stdout, re.MULTILINE)
    assert names == ["count_us", "sum_up_us", "longest_piece_ms", "value_ms", "quantile_error"]


def test_every_request_of_the_measurement_is_in_the_sums() -> None:
    """For its tenant, its server and its key."""
    bench = Bench()
    asyncio.run(bench.sum_up())
    every = len(bench.durations_s)
    assert sum(own.requests for own in bench.traffic._of_keys.values()) == every
    asyncio.run(bench.traffic.finish())
    recent = bench.traffic.recent.total("", "", 0, 1 << 40)
    assert (recent.requests, recent.tool_calls, recent.timed) == (every, every, every)
