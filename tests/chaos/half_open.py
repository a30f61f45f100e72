"""Peers that vanish without a word (F26): both sides of the proxy notice, and give up what they held.

The short form looks at the clocks that the kernel runs for each connection. The full one lets a client, and then an
upstream, vanish: each stands in a network namespace of its own, whose link goes down. That needs root.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.rig import Figure
from tests.chaos.fault_proxy import Toxics, fault_proxy
from tests.chaos.setting import server, within
from tests.harness import ProxyProcess, RawClient, ScriptedUpstream, Wire, post, running_proxy, scripted_upstream

_FREED_S: Final = 75.0
_EVENTS: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT: Final = b"data: 1\n\n"
_STREAMS: Final = 10
_NAME: Final = f"mcpchaos{os.getpid()}"
_HERE, _THERE = "198.18.77.1", "198.18.77.2"


def figures(short: bool) -> list[Figure]:
    """F26: the clocks; then, at full length, that they strike."""
    found = asyncio.run(_clocks())
    if short or os.geteuid():
        print("  nobody vanishes: " + ("short" if short else "network namespaces need root"))
        return found
    return [*found, *asyncio.run(_vanish())]


async def _idle(wire: Wire) -> None:
    """One event, and silence."""
    await wire.request()
    await wire.send(_EVENTS + b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT))
    await wire.reader.read(1)


async def _clocks() -> list[Figure]:
    """Idle streams through a half-open path: every connection of the proxy has its clock, and no event is torn."""
    async with scripted_upstream(_idle) as upstream, fault_proxy(upstream.port) as fault:
        with running_proxy({"servers": {"up": server(fault.port)}}) as proxy:
            clients = await _open(proxy.port, "127.0.0.1")
            fault.up = fault.down = Toxics(half_open=True)
            await asyncio.sleep(1)
            timers = _timers(proxy, {proxy.port, fault.port})
            torn = 0
            for client in clients:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        torn += await client.reader.read(100) != b""
                await client.close()
            left_s = await within(5, lambda: not fault.open or (fault.open == _STREAMS and not _to(proxy, fault.port)))
    without = sum(timer is None for timer in timers)
    return [
        Figure(f"{len(timers)} connections of {_STREAMS} idle streams: without keep-alive", without, 0, ""),
        Figure("  next probe within, at most", max((timer or 1e9 for timer in timers), default=1e9), 30, "s"),
        Figure("  connections that were not found", 2 * _STREAMS - len(timers), 0, ""),
        Figure("  bytes of ours in a stream that is silent", torn, 0, ""),
        Figure("  clients leave: upstream connections closed after", left_s, 1, "s"),
    ]


async def _vanish() -> list[Figure]:
    """A client and an upstream behind a link that goes down; when the proxy has given up the streams."""
    figures = []
    async with scripted_upstream(_idle) as upstream:
        for who in ("clients", "upstream"):
            with _namespace(), contextlib.ExitStack() as stack:
                place = f"http://{_THERE}:8899/mcp" if who == "upstream" else upstream.url
                listen = {"host": "0.0.0.0", "allowed_hosts": [_HERE, "127.0.0.1"]}
                config = {
                    "listen": listen,
                    "auth": {"anonymous": True},
                    "servers": {"up": {**server(1), "url": place}},
                }
                if who == "upstream":
                    stack.enter_context(_inside("upstream", "8899"))
                    await asyncio.sleep(1)
                proxy = stack.enter_context(running_proxy(config))
                if who == "clients":
                    stack.enter_context(_inside("clients", str(proxy.port)))
                else:
                    clients = await _open(proxy.port, "127.0.0.1")
                await within(10, lambda proxy=proxy: proxy.metric("mcp_proxy_open_streams") == _STREAMS)
                before = proxy.metric("mcp_proxy_open_streams")
                subprocess.run(["ip", "link", "set", f"{_NAME[:10]}a", "down"], check=True)
                down_at = time.monotonic()
                await within(120, lambda proxy=proxy: not proxy.metric("mcp_proxy_open_streams"))
                freed_s = time.monotonic() - down_at
                if who == "upstream":
                    for client in clients:
                        await client.close()
            figures += [
                Figure(f"{before:.0f} streams whose {who} vanished: freed after", freed_s, _FREED_S, "s"),
                Figure("  streams that were not there to begin with", _STREAMS - before, 0, ""),
            ]
    return figures


async def _open(port: int, host: str) -> list[RawClient]:
    """Streams that have had their only event."""
    clients = []
    for _ in range(_STREAMS):
        client = RawClient(*await asyncio.open_connection(host, port))
        await client.send(post(host=host))
        await client.head()
        assert await client.chunk() == _EVENT
        clients.append(client)
    return clients


def _timers(proxy: ProxyProcess, ports: set[int]) -> list[float | None]:
    """For each established connection of the proxy: seconds to its next keep-alive probe, None where there is none."""
    inodes = set()
    for entry in Path(f"/proc/{proxy.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(re.sub(r"\D", "", os.readlink(entry)))
    found: list[float | None] = []
    for row in Path(f"/proc/{proxy.pid}/net/tcp").read_text().splitlines()[1:]:
        fields = row.split()
        ends = {int(fields[at].partition(":")[2], 16) for at in (1, 2)}
        if fields[3] == "01" and fields[9] in inodes and ends & ports:
            kind, _, ticks = fields[5].partition(":")
            found.append(int(ticks, 16) / os.sysconf("SC_CLK_TCK") if kind == "02" else None)
    return found


def _to(proxy: ProxyProcess, port: int) -> int:
    return len(_timers(proxy, {port}))


@contextlib.contextmanager
def _namespace() -> Iterator[None]:
    """A network namespace and a link to it."""
    link = _NAME[:10]
    commands = (
        f"ip netns add {_NAME}",
        f"ip link add {link}a type veth peer name {link}b netns {_NAME}",
        f"ip address add {_HERE}/30 dev {link}a",
        f"ip link set {link}a up",
        f"ip -n {_NAME} address add {_THERE}/30 dev {link}b",
        f"ip -n {_NAME} link set {link}b up",
    )
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        yield
    finally:
        subprocess.run(["ip", "netns", "delete", _NAME], check=False)
        subprocess.run(["ip", "link", "delete", f"{link}a"], check=False, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def _inside(part: str, argument: str) -> Iterator[None]:
    """This module, run in the namespace as `part`."""
    command = ["ip", "netns", "exec", _NAME, sys.executable, "-m", "tests.chaos.half_open", part, argument]
    child = subprocess.Popen(command)
    try:
        yield
    finally:
        child.kill()
        child.wait()


async def _play(part: str, port: int) -> None:
    """In the namespace: clients with streams, or an upstream."""
    if part == "clients":
        clients = await _open(port, _HERE)
        await asyncio.Event().wait()
        del clients
    upstream = ScriptedUpstream()
    upstream.script = _idle
    async with await asyncio.start_server(upstream._serve, _THERE, port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_play(sys.argv[1], int(sys.argv[2])))
