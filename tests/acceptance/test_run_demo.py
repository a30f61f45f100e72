"""`make run` as a user sees it: it works at once, says where things are, and leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance.processes import ROOT, free_port

pytestmark = pytest.mark.timeout(180)

_DEMO = [sys.executable, "examples/run_demo.py"]


@pytest.fixture(autouse=True)
def one_at_a_time() -> Iterator[None]:
    """The demo looks for ports that are free, and takes them a moment later: two at a time would take the same."""
    with open(Path(tempfile.gettempdir(), "mcp-manager-demo.lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _serving(port: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The demo on this port, and what it printed until it began to serve."""
    process = subprocess.Popen([*_DEMO, "--port", str(port)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        printed = ""
        assert process.stdout is not None
        for line in process.stdout:
            printed += line
            if "Serving until Ctrl-C" in line:
                break
        yield process, printed
    finally:
        process.kill()
        process.communicate()


def test_one_call_through_the_proxy_is_made_and_shown():
    """The official client reaches the tool through the proxy, and the user is told every URL."""
    port = free_port()
    began = time.monotonic()
    done = subprocess.run(
        [*_DEMO, "--once", "--port", str(port)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 30
    assert "add(19, 23)    42" in done.stdout
    assert f"http://127.0.0.1:{port}/demo/mcp" in done.stdout
    assert re.search(r"http://127\.0\.0\.1:\d+/metrics", done.stdout)
    assert re.search(r"http://127\.0\.0\.1:\d+/readyz", done.stdout)
    assert "client-config demo" in done.stdout
    assert "audit search" in done.stdout
    assert not _listens(port)


def test_a_taken_port_is_named_and_nothing_is_started():
    """The message says which port and what to do, without a traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*_DEMO, "--once", "--port", str(port)], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
        )

    assert done.returncode == 1
    assert f"Port {port} is taken" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_the_demo_stops_the_proxy_and_the_server(number: signal.Signals):
    """Ctrl-C or a polite kill ends both children: no port stays taken, the exit code is 0."""
    port = free_port()
    with _serving(port) as (process, printed):
        assert _listens(port)
        match = re.search(rf"port {port}, in front of an MCP server on port (\d+)", printed)
        assert match is not None, printed
        process.send_signal(number)
        assert process.wait(20) == 0
        assert not _listens(port)
        assert not _listens(int(match[1]))


def test_a_proxy_that_dies_is_reported_with_what_it_said_last():
    """When the proxy ends by itself the demo ends too, with exit code 1, and stops the server."""
    port = free_port()
    with _serving(port) as (process, printed):
        match = re.search(r"pid (\d+)", printed)
        assert match is not None, printed
        os.kill(int(match[1]), signal.SIGKILL)
        assert process.wait(20) == 1
        assert not _listens(port)
