"""A thousand servers under health checks: what the loops cost, and how soon a change is known.

The loops run here as in the proxy, on uvloop and under its supervisor; the servers answer in processes of their own.
Servers are killed, come back, and hang.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import uvloop

from benchmarks.rig import Figure, Process, start_upstream
from proxy.background.health_checks import STEP_S, HealthChecks
from proxy.background.supervisor import Supervisor
from proxy.config.models import Server
from proxy.dataplane import tcp
from proxy.dataplane.health import Health, Status
from proxy.log import logger


@dataclass
class Length:
    """How much of it."""

    servers: int = 1000
    """Those whose checks are measured."""
    changing: int = 100
    """Those that die, come back, and hang."""
    interval_s: float = 10.0
    timeout_s: float = 2.0
    measured_s: float = 30.0


#: As many checks a second.
SHORT = Length(servers=200, changing=20, interval_s=2.0, timeout_s=0.5, measured_s=4.0)


@dataclass
class Findings:
    """What was seen; times are seconds after the event until the last of the servers was known to have changed."""

    checks: int = 0
    """Made while CPU time was measured."""
    cpu_share: float = 0.0
    """Of one core."""
    cpu_us: float = 0.0
    """For each check, in microseconds."""
    bad: int = 0
    """Checks of servers that were well, and found not to be."""
    dead_s: float = 0.0
    back_s: float = 0.0
    hung_s: float = 0.0
    ill: int = 0
    """Servers that were well all the time and are not known to be, in the end."""


class Up:
    """A server as the checks see it."""

    def __init__(self, name: str, port: int, length: Length) -> None:
        check = {"interval": f"{length.interval_s}s", "timeout": f"{length.timeout_s}s"}
        self.name = name
        self.config = Server.model_validate({"url": f"http://127.0.0.1:{port}/mcp", "health_check": check})
        self.client: Any = SimpleNamespace(new_socket=tcp.new_socket, tls=None, resolver=None)
        self.health = Health(self.config.health_check, time.monotonic, name)
        self.window: object = None


async def run(length: Length) -> Findings:
    """Measure the loops, then let servers die, come back, and hang."""
    found = Findings()
    supervisor = Supervisor(logger("health"))
    with start_upstream() as steady:
        changing = start_upstream()
        steady_ups = [Up(f"up{number}", steady.port, length) for number in range(length.servers)]
        others = [Up(f"other{number}", changing.port, length) for number in range(length.changing)]
        quiet: Any = _Quiet()
        checks = HealthChecks(lambda: servers, supervisor.spawn, quiet, time.monotonic, random.random)
        servers = {up.name: up for up in steady_ups}
        supervisor.every("health checks", STEP_S, checks.step)
        try:
            await _all(steady_ups, "healthy", length.interval_s * 3)
            before, cpu, began = checks.made, time.process_time(), time.monotonic()
            await asyncio.sleep(length.measured_s)
            used_s = time.process_time() - cpu
            found.checks = checks.made - before
            found.cpu_share, found.cpu_us = used_s / (time.monotonic() - began), used_s / max(found.checks, 1) * 1e6
            found.bad = sum(up.health.failures for up in steady_ups)
            servers = {up.name: up for up in (*steady_ups, *others)}
            await _changes(changing, others, length, found)
        finally:
            changing.stop()
            await supervisor.stop(5)
        found.ill = sum(up.health.status != "healthy" for up in steady_ups)
        return found


async def _changes(server: Process, ups: list[Up], length: Length, found: Findings) -> None:
    patience_s = length.interval_s * 2 + 5
    await _all(ups, "healthy", length.interval_s * 3)
    server.stop()
    found.dead_s = await _all(ups, "unhealthy", patience_s)
    again = Process("benchmarks.upstream", str(server.port), port=server.port)
    try:
        await asyncio.to_thread(again.wait_listening)
        found.back_s = await _all(ups, "healthy", patience_s)
        os.kill(again.pid, signal.SIGSTOP)
        found.hung_s = await _all(ups, "unhealthy", patience_s + 3 * length.timeout_s)
        os.kill(again.pid, signal.SIGCONT)
    finally:
        again.stop()


async def _all(ups: list[Up], status: Status, patience_s: float) -> float:
    """Seconds until all of them have this status; infinity when that takes too long."""
    return await _until(lambda: all(up.health.status == status for up in ups), patience_s)


async def _until(condition: Callable[[], bool], patience_s: float) -> float:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > patience_s:
            return float("inf")
        await asyncio.sleep(0.02)
    return time.monotonic() - began


class _Quiet:
    """A log that nobody reads: it costs the loops nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **fields: None


def figures(short: bool) -> list[Figure]:
    """What the loops cost and how soon they know, against the targets."""
    length = SHORT if short else Length()
    found = uvloop.run(run(length))
    print(f"  {found.checks} checks in {length.measured_s:g} s, {found.cpu_us:.0f} us of CPU each")
    soon_s = length.interval_s + 1
    return [
        Figure(f"{length.servers} servers every {length.interval_s:g} s: of one core", found.cpu_share, 0.05, ""),
        Figure("  checks of good servers that found them bad", found.bad, 0, ""),
        Figure("  good servers not healthy in the end", found.ill, 0, ""),
        Figure(f"  {length.changing} servers killed: all known after", found.dead_s, soon_s, "s"),
        Figure("  back: all known after", found.back_s, soon_s, "s"),
        Figure("  hung: all known after, with three time-outs", found.hung_s, soon_s + 3 * length.timeout_s, "s"),
    ]
