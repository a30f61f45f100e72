"""A process that runs out of file descriptors (F28): who is served goes on, the others are refused, and it recovers."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.rig import Figure
from tests.chaos.setting import open_files, server
from tests.harness import ProxyProcess, RawClient, Wire, post, scripted_upstream

#: `prlimit --nofile`. The proxy's own cap is 40 % of it.
_MOST: Final = 128
_EVENTS: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT: Final = b"data: 1\n\n"
_LIVE: Final = 20


def figures(short: bool) -> list[Figure]:
    """F28: many connections at a time, again and again: below the limit by the proxy's own cap, and beyond it."""
    found = []
    for title, limits in (("its own cap", {}), ("no cap of its own", {"limits": {"connections": 10_000}})):
        found += asyncio.run(_measure(title, limits, 2.0 if short else 10.0))
    return found


async def _measure(title: str, limits: dict[str, object], seconds: float) -> list[Figure]:
    going = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(_EVENTS)
        while not going.is_set():
            await wire.send(b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT))
            await asyncio.sleep(0.1)
        await wire.send(b"0\r\n\r\n")

    async with scripted_upstream(script) as upstream:
        with contextlib.ExitStack() as stack:
            with _few_descriptors():
                proxy = stack.enter_context(_proxy({"listen": limits, "servers": {"up": server(upstream.port)}}))
            live = [await RawClient.connect(proxy.port) for _ in range(_LIVE)]
            for client in live:
                await client.send(post())
                await client.head()
            start = len(proxy.lines)
            ends, health, most = await _crowd(proxy, 150 if limits else 60, seconds)
            lines = [line for line in proxy.lines[start:] if line.get("level") in ("warning", "error")]
            going.set()
            broken = sum([not await _ends_well(client) for client in live])
            await asyncio.sleep(0.3)
            again = await RawClient.connect(proxy.port)
            await again.send(post())
            served = b" 200 " in (await again.head())[:15]
            await again.close()
    print(f"  {title}: {dict(ends)}; {most} descriptors in use")
    return [
        Figure(f"{title}, {_MOST} descriptors: of {_LIVE} streams, broken", broken, 0, ""),
        Figure("  connections over the cap, not refused with 503", 0 if limits else ends["closed"], 0, ""),
        Figure("  times that the health port did not answer", sum(not good for good in health), 0, ""),
        Figure("  warnings and errors in the log, each second", len(lines) / seconds, 2, ""),
        Figure("  not served when there is room again", not served, 0, ""),
    ]


@contextlib.contextmanager
def _proxy(config: dict[str, Any]) -> Iterator[ProxyProcess]:
    """A proxy that may log what `running_proxy` of the harness takes for a bug: here lines are counted."""
    with tempfile.TemporaryDirectory(prefix="mcp-manager-") as directory:
        proxy = ProxyProcess(config, Path(directory))
        try:
            yield proxy
        finally:
            proxy.stop()


@contextlib.contextmanager
def _few_descriptors() -> Iterator[None]:
    """What is started in the block may have `_MOST` descriptors; this process takes its own back behind it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def _crowd(proxy: ProxyProcess, at_once: int, seconds: float) -> tuple[Counter[str], list[bool], int]:
    """Waves of idle connections; how they ended, whether the health port answered meanwhile, descriptors in use."""
    ends: Counter[str] = Counter()
    health, most, until = [], 0, time.monotonic() + seconds
    while time.monotonic() < until:
        wave = [asyncio.create_task(_stand(proxy.port)) for _ in range(at_once)]
        await asyncio.sleep(0.2)
        health.append(await asyncio.to_thread(_healthy, proxy))
        most = max(most, open_files(proxy.pid))
        ends.update(await asyncio.gather(*wave))
    return ends, health, most


async def _stand(port: int) -> str:
    """Connect and say nothing for half a second: `503`, `closed`, or `held` while nothing comes."""
    client = await RawClient.connect(port)
    try:
        async with asyncio.timeout(0.5):
            got = await client.reader.read(100)
        return "503" if got.startswith(b"HTTP/1.1 503 ") else "closed"
    except TimeoutError:
        return "held"
    except ConnectionError:
        return "closed"
    finally:
        await client.close()


def _healthy(proxy: ProxyProcess) -> bool:
    try:
        return bool(proxy.admin("/livez"))
    except OSError:
        return False


async def _ends_well(client: RawClient) -> bool:
    """Whether a stream goes on to its end."""
    try:
        while await client.chunk():
            pass
    except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
        return False
    finally:
        await client.close()
    return True
