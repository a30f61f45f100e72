"""The measurement of what identity costs runs, and measures requests that are let in."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.identity_cost import jobs
from proxy.identity.principal import Source

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.alone
def test_who_asks_is_known_within_microseconds() -> None:
    """The short form ends with `failed: 0`, after a line for each phase."""
    command = [sys.executable, "-m", "benchmarks.identity_cost", "--short"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[-1:] == ["failed: 0"], done.stdout + done.stderr
    assert re.findall(r"^(\w+)_us: \d+\.\d\d$", done.stdout, re.MULTILINE) == [
        "authenticate",
        "authorize",
        "authenticate_bearer",
        "authenticate_cookie",
    ]


def test_every_request_is_somebodys() -> None:
    """A phase that refused would be measured as a raise; here each request ends with its principal, and permitted."""
    for name, job in jobs(3).items():
        source = Source.KEY if name in ("authenticate", "authorize") else Source.SESSION
        assert {ctx.principal.source for ctx in job.requests} == {source}
        assert not any(ctx.denied for ctx in job.requests)
