"""Clients that leave at any moment (F31): afterwards everything is as it was before."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from typing import Final

from benchmarks.rig import Figure
from tests.chaos.setting import open_files, server, sockets_to, within
from tests.harness import (
    ProxyProcess,
    RawClient,
    ScriptedUpstream,
    Wire,
    json_answer,
    post,
    running_proxy,
    scripted_upstream,
)

_AT_ONCE: Final = 50
_CONNECTIONS: Final = 40
#: Longest that the upstream takes, and longest that a client stays; both draw evenly.
_LONGEST_S: Final = 0.02
_STAYS_S: Final = 0.15
_EVENTS: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def figures(short: bool) -> list[Figure]:
    """F31: so many calls, of which most are left alone in the middle."""
    return asyncio.run(_measure(1000 if short else 20_000))


async def _measure(calls: int) -> list[Figure]:
    draw = random.Random(31)

    async def script(wire: Wire) -> None:
        while await wire.request():
            await asyncio.sleep(draw.uniform(0, _LONGEST_S))
            if draw.random() < 0.5:
                await wire.send(json_answer())
                continue
            await wire.send(_EVENTS)
            for _ in range(5):
                await wire.send(b"9\r\ndata: 1\n\n\r\n")
                await asyncio.sleep(draw.uniform(0, _LONGEST_S / 5))
            await wire.send(b"0\r\n\r\n")

    async with scripted_upstream(script) as upstream:
        options = {"pool": {"max_connections": _CONNECTIONS, "keepalive": "0.2s"}}
        with running_proxy({"servers": {"up": server(upstream.port, **options)}}) as proxy:
            await _storm(proxy.port, 100, draw)
            await _rest(proxy, upstream)
            before = open_files(proxy.pid)
            ends = await _storm(proxy.port, calls, draw)
            rested_s = await _rest(proxy, upstream)
            await within(2, lambda: open_files(proxy.pid) <= before)
            figures = [
                Figure(f"{calls} calls of which {ends['left']} were left: at rest after", rested_s, 3, "s"),
                Figure("  descriptors more than before", open_files(proxy.pid) - before, 0, ""),
                Figure("  slots of the pool still taken", proxy.metric("mcp_proxy_pool_connections_in_use"), 0, ""),
                Figure("  requests still in flight", proxy.metric("mcp_proxy_requests_in_flight"), 0, ""),
                Figure("  streams still open", proxy.metric("mcp_proxy_open_streams"), 0, ""),
                Figure("  answered neither well nor not at all", ends["otherwise"], 0, ""),
                Figure("  of as many calls as the pool is large, failed", await _all_slots(proxy.port), 0, ""),
            ]
    print(f"  {dict(ends)}")
    return figures


async def _storm(port: int, calls: int, draw: random.Random) -> Counter[str]:
    """All calls, `_AT_ONCE` at a time; how they ended for the client."""
    ends: Counter[str] = Counter()
    left = iter(range(calls))

    async def one_by_one() -> None:
        for _ in left:
            ends[await _call(port, draw.uniform(0, _STAYS_S), abort=draw.random() < 0.5)] += 1

    await asyncio.gather(*(one_by_one() for _ in range(_AT_ONCE)))
    return ends


async def _call(port: int, stays_s: float, *, abort: bool) -> str:
    client = await RawClient.connect(port)
    try:
        async with asyncio.timeout(stays_s):
            await client.send(post())
            status, _, _ = await client.answer()
        return "answered" if status == 200 else "otherwise"
    except TimeoutError:
        return "left"
    except (asyncio.IncompleteReadError, ConnectionError):
        return "otherwise"
    finally:
        if abort:
            client.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await client.close()


async def _rest(proxy: ProxyProcess, upstream: ScriptedUpstream) -> float:
    """Until no connection is left on either side and nothing is in flight."""
    return await within(
        10,
        lambda: (
            not upstream.open
            and not sockets_to(proxy.pid, upstream.port)
            and not proxy.metric("mcp_proxy_requests_in_flight")
        ),
    )


async def _all_slots(port: int) -> int:
    """Calls that fail when as many come at once as the pool may hold: none is lost for good."""
    return sum(end != "answered" for end in
               await asyncio.gather(*(_call(port, 5, abort=False) for _ in range(_CONNECTIONS))))  # fmt: skip
