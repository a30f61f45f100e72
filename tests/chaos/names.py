"""Name look-ups that hang and fail (F16): other servers do not notice, and good addresses stay in use.

The proxy asks a name server of our own, at an address that only this machine has: its /etc/resolv.conf is another
one, in a mount namespace. That, and port 53, need root.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from benchmarks.rig import Figure
from tests.chaos.setting import server
from tests.harness import ProxyProcess, RawClient, post, running_proxy, scripted_upstream

_NAME_SERVER: Final = "127.0.0.77"
#: Fewer than the threads that the resolver has.
_HUNG: Final = 12
_FRESH: Final = 24


def figures(short: bool) -> list[Figure]:
    """F16: names that hang, names that are unknown, and a name server that is gone."""
    if os.geteuid() or subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        print("  not measured: a name server of our own needs root and mount namespaces")
        return []
    return asyncio.run(_measure(12 if short else 75))


class _NameServer(asyncio.DatagramProtocol):
    """Every name under `here.test` is this machine, `hung.test` is never answered, others are unknown (RFC 1035)."""

    def __init__(self) -> None:
        self.silent = False
        self.asked: list[str] = []

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        """Keep the transport."""
        self._transport = transport

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        """One question."""
        labels, at = [], 12
        while size := data[at]:
            labels.append(data[at + 1 : at + 1 + size].decode())
            at += 1 + size
        name, kind = ".".join(labels), int.from_bytes(data[at + 1 : at + 3], "big")
        self.asked.append(name)
        if self.silent or name.endswith("hung.test"):
            return
        here = name.endswith("here.test")
        answers = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f\0\0\1" if here and kind == 1 else b""
        flags = b"\x81\x80" if here else b"\x81\x83"
        counts = b"\0\1" + (b"\0\1" if answers else b"\0\0") + bytes(4)
        self._transport.sendto(data[:2] + flags + counts + data[12 : at + 5] + answers, peer)


async def _measure(silent_s: float) -> list[Figure]:
    loop = asyncio.get_running_loop()
    transport, names = await loop.create_datagram_endpoint(_NameServer, local_addr=(_NAME_SERVER, 53))
    try:
        async with scripted_upstream() as upstream:
            with _resolving(), running_proxy({"servers": _servers(upstream.port)}) as proxy:
                await _call(proxy, "good")
                quiet = await _slowest(proxy, range(_FRESH))
                hanging = [asyncio.create_task(_call(proxy, f"hung{n % _HUNG}")) for n in range(4 * _HUNG)]
                await asyncio.sleep(0.5)
                beside = await _slowest(proxy, range(_FRESH, 2 * _FRESH))
                hung = await asyncio.gather(*hanging)
                unknown = await _call(proxy, "unknown")
                names.silent = True
                kept = await _while_silent(proxy, silent_s)
    finally:
        transport.close()
    times = sum(name.endswith("hung.test") for name in names.asked) / _HUNG
    print(
        f"  slowest first call of {_FRESH}: {quiet * 1e3:.0f} ms, beside {_HUNG} names that hang {beside * 1e3:.0f} ms"
    )
    print(
        f"  each of those was asked for {times:.1f} times, by {4 * _HUNG} calls; slowest later {kept[1] * 1e3:.0f} ms"
    )
    return [
        Figure(f"{_HUNG} names hang: added to first calls to others, at most", (beside - quiet) * 1e3, 50, "ms"),
        Figure("  calls to them not refused with 502 or 504", sum(code not in (502, 504) for code, _ in hung), 0, ""),
        Figure("  refused after", max(seconds for _, seconds in hung), 3.5, "s"),
        Figure("an unknown name: not refused with 502", unknown[0] != 502, 0, ""),
        Figure("  refused after", unknown[1], 1, "s"),
        Figure(f"name server silent for {silent_s:g} s: calls to a known name, failed", kept[0], 0, ""),
        Figure("  slowest of them", kept[1], 1.5, "s"),
    ]


def _servers(port: int) -> dict[str, Any]:
    """Known and fresh ones, those whose names hang, and one without a name. No connection is used twice."""
    hosts = {"good": "good.here.test", "unknown": "unknown.test"}
    hosts |= {f"fresh{n}": f"fresh{n}.here.test" for n in range(2 * _FRESH)}
    hosts |= {f"hung{n}": f"n{n}.hung.test" for n in range(_HUNG)}
    return {
        name: server(port, pool={"keepalive": 0}, timeouts={"connect": "3s"}) | {"url": f"http://{host}:{port}/mcp"}
        for name, host in hosts.items()
    }


@contextlib.contextmanager
def _resolving() -> Iterator[None]:
    """What is started in the block as this interpreter asks our name server."""
    with tempfile.TemporaryDirectory(prefix="mcp-manager-") as directory:
        conf, start = Path(directory, "resolv.conf"), Path(directory, "start")
        conf.write_text(f"nameserver {_NAME_SERVER}\noptions timeout:10 attempts:1\n")
        mount = f'mount --bind {conf} /etc/resolv.conf && exec {sys.executable} "$@"'
        start.write_text(f"#!/bin/sh\nexec unshare --mount sh -c '{mount}' -- \"$@\"\n")
        start.chmod(0o755)
        with patch.object(sys, "executable", str(start)):
            yield


async def _call(proxy: ProxyProcess, name: str) -> tuple[int, float]:
    """Status and seconds of one call."""
    client = await RawClient.connect(proxy.port)
    before = time.perf_counter()
    await client.send(post(f"/{name}/mcp"))
    status, _, _ = await client.answer()
    await client.close()
    return status, time.perf_counter() - before


async def _slowest(proxy: ProxyProcess, numbers: range) -> float:
    """Of first calls to servers whose names are looked up for them, one after the other."""
    slowest = 0.0
    for number in numbers:
        status, seconds = await _call(proxy, f"fresh{number}")
        if status != 200:
            return inf
        slowest = max(slowest, seconds)
    return slowest


async def _while_silent(proxy: ProxyProcess, seconds: float) -> tuple[int, float]:
    """Calls to a name that was known: how many failed, and the slowest."""
    failed, slowest, until = 0, 0.0, time.monotonic() + seconds
    while time.monotonic() < until:
        status, took = await _call(proxy, "good")
        failed += status != 200
        slowest = max(slowest, took)
        await asyncio.sleep(0.1)
    return failed, slowest
