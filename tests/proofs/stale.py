"""Pooled connections that the upstream closes: calls swept around that moment, none failed, none sent twice.

The sweep itself is that of tests/integration/test_upstream_connections.py, here with more rounds and finer steps.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from benchmarks.rig import Figure
from tests.harness import free_port, running_proxy
from tests.integration.test_upstream_connections import around, idle_upstream, sweep


@dataclass
class Length:
    """How much of it."""

    rounds: int = 5
    steps: int = 150
    """Gaps before and after each moment."""
    step_s: float = 0.0004


@dataclass
class Findings:
    """What was seen."""

    calls: int
    failed: int
    sent_twice: int


async def run(length: Length) -> Findings:
    """Sweep around the moment at which the upstream closes, and around that at which the proxy stops reusing.

    One upstream announces a second and is used again for half of it; the other says nothing and closes after five
    seconds, as Node and uvicorn do, while the proxy uses it again for three.
    """
    ports = {"announcing": free_port(), "silent": free_port()}
    config = {
        "servers": {
            name: {"url": f"http://127.0.0.1:{port}/mcp", "pool": {"max_connections": 5000}}
            for name, port in ports.items()
        },
        "log": {"access": False},
    }
    found = Findings(0, 0, 0)
    with running_proxy(config) as proxy:
        for _ in range(length.rounds):
            async with (
                idle_upstream(ports["announcing"], 1.0, b"Keep-Alive: timeout=1\r\n") as announcing,
                idle_upstream(ports["silent"], 5.0) as silent,
            ):
                gaps = [[*around(mine, length.steps, length.step_s), *around(its, length.steps, length.step_s)]
                        for mine, its in ((0.5, 1.0), (3.0, 5.0))]  # fmt: skip
                outcomes = await asyncio.gather(
                    sweep(proxy.port, "/announcing/mcp", announcing, gaps[0]),
                    sweep(proxy.port, "/silent/mcp", silent, gaps[1]),
                )
            found.calls += 2 * sum(map(len, gaps))
            found.failed += sum(failed for failed, _ in outcomes)
            found.sent_twice += sum(twice for _, twice in outcomes)
    return found


def figures(short: bool) -> list[Figure]:
    """Calls around the moment at which upstreams close idle connections."""
    found = asyncio.run(run(Length(rounds=1, steps=20, step_s=0.002) if short else Length()))
    return [
        Figure(f"{found.calls} calls around idle closes: failed", found.failed, 0, ""),
        Figure("  sent twice", found.sent_twice, 0, ""),
    ]
