"""What the scenarios share: servers to configure, and looking at the process of the proxy."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.harness import ProxyProcess


def server(port: int, **options: Any) -> dict[str, Any]:
    """A server behind `port` that is asked however often it fails: what is measured is not its breaker."""
    return {"url": f"http://127.0.0.1:{port}/mcp", "breaker": {"enforce": False}, **options}


def open_files(pid: int) -> int:
    """Descriptors of a process."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def sockets_to(pid: int, port: int) -> int:
    """Established TCP connections of a process whose other end is `port` on this machine."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            inodes.add(os.readlink(entry).removeprefix("socket:[").removesuffix("]"))
    rows = [row.split() for row in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "01" and row[9] in inodes for row in rows)


async def within(seconds: float, condition: Callable[[], bool]) -> float:
    """Seconds until `condition` holds; infinity when it does not in time."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            return float("inf")
        await asyncio.sleep(0.01)
    return time.monotonic() - start


class Peak:
    """The most memory that a proxy had while somebody looked, over what it had before; bytes."""

    def __init__(self, proxy: ProxyProcess) -> None:
        self._proxy = proxy
        self._before = proxy.rss_bytes()
        self.grown = 0

    def look(self) -> None:
        """Look now."""
        self.grown = max(self.grown, self._proxy.rss_bytes() - self._before)

    async def watch(self) -> None:
        """Look all the time, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(0.005)
