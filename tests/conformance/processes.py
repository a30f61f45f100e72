"""Starts real servers and the real proxy as processes, waits until they answer, and stops them.

Knows how to run things, not what they are for; the conformance runner and the acceptance tests share it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.harness import free_port

ROOT: Final = Path(__file__).resolve().parents[2]
_READY_S: Final = 30.0
_STOP_S: Final = 10.0
_POLL_S: Final = 0.02


class NotStarted(Exception):
    """A process ended, or did not answer in time; the text holds the end of its output."""


@dataclass(frozen=True, slots=True)
class Running:
    """One process that answers on a loopback port."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def origin(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    def output(self) -> str:
        """The end of what it wrote so far."""
        return self.log.read_text(errors="replace")[-4000:]


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _wait(started: Running, name: str) -> None:
    deadline = time.monotonic() + _READY_S
    while not _answers(started.port):
        if started.process.poll() is not None:
            raise NotStarted(f"{name} ended with {started.process.returncode}:\n{started.output()}")
        if time.monotonic() > deadline:
            raise NotStarted(f"{name} did not answer within {_READY_S:.0f} s:\n{started.output()}")
        time.sleep(_POLL_S)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def running(
    name: str, command: Sequence[str], port: int, directory: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Run `command` from the project's root until the block ends; its output goes to `directory/NAME.log`."""
    log = directory / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
    started = Running(process, port, log)
    try:
        _wait(started, name)
        yield started
    finally:
        _stop(process)


@contextlib.contextmanager
def fixture_server(directory: Path) -> Iterator[Running]:
    """The fixture server of `server.py`."""
    port = free_port()
    command = [sys.executable, "-m", "tests.conformance.server", "--port", str(port)]
    with running("fixture", command, port, directory) as started:
        yield started


@contextlib.contextmanager
def proxy(directory: Path, servers: Mapping[str, Mapping[str, Any]], **sections: Any) -> Iterator[Running]:
    """The proxy as a user runs it, `python -m proxy serve -c FILE`, with only `servers` and free ports configured."""
    port = free_port()
    config = {
        "listen": {"port": port},
        "admin": {"port": free_port()},
        "servers": {name: dict(server) for name, server in servers.items()},
        **sections,
    }
    path = directory / "proxy.yaml"
    path.write_text(yaml.safe_dump(config))
    with running("proxy", [sys.executable, "-m", "proxy", "serve", "-c", str(path)], port, directory) as started:
        yield started
