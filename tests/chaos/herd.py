"""Everyone comes back at once (F32): a server restarts under its streams, and one of two returns to its share.

Thousands of clients listen on streams of one server. It restarts: all of them reconnect at once, and again as soon as a
refusal lets them. However many they are, the server is shown no more of them at a time than its queue allows, its
breaker opens once, and everyone is served in the end. Of two servers, the one that returns begins with little.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, cast

import uvloop

from benchmarks.rig import Figure, raise_file_limit
from tests.chaos.calling import QUIET, Caller, Seen, reason_of
from tests.chaos.fault_proxy import fault_proxy
from tests.harness import Wire, json_answer, post, running_proxy, scripted_upstream

#: Streams that the server may be opening at once.
_SLOTS: Final = 50
_PENDING: Final = 500
#: What it takes to open one.
_OPENING_S: Final = 0.03
_OPEN_FOR_S: Final = 1.0
_LISTEN: Final = b"GET /up/mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
_STREAM: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT: Final = b"9\r\ndata: 1\n\n\r\n"


@dataclass
class Length:
    """How much of it; seconds."""

    clients: int = 2000
    away_s: float = 0.5
    back_s: float = 15.0
    """All clients are to be back in this time."""
    slow_start_s: float = 10.0
    per_s: float = 200.0
    afterwards_s: float = 5.0
    dips: float = 0.05
    """By so much a share may be less than the one before: it is by chance."""
    failed: int = 3
    """Calls, of those that one server held as it died."""


SHORT: Final = Length(300, slow_start_s=3.0, afterwards_s=2.0, per_s=150.0, dips=0.15, failed=10)


def figures(short: bool) -> list[Figure]:
    """F32."""
    raise_file_limit()
    length = SHORT if short else Length()
    return [*uvloop.run(_herd(length)), *uvloop.run(_slow_start(length))]


# --- a server restarts under its streams ----------------------------------------------------------------------------


class Restarting:
    """A server of streams, which can be restarted; it counts those that it is opening."""

    def __init__(self) -> None:
        self.port = 0
        self.opening = 0
        self.most_opening = 0
        self.connections: set[Connection] = set()
        self.most_connections = 0
        self.arrivals: list[float] = []
        """When each request came."""
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; again on the same port after `stop`."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), "127.0.0.1", self.port, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Its port is closed, and every connection with it."""
        assert self._server is not None
        self._server.close()
        for connection in list(self.connections):
            connection.transport.abort()


class Connection(asyncio.Protocol):
    """One connection to it, for one stream."""

    def __init__(self, server: Restarting) -> None:
        self._server = server
        self._opening = False
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)
        self._server.most_connections = max(self._server.most_connections, len(self._server.connections))

    def data_received(self, data: bytes) -> None:
        self._read += data
        if self._opening or not self._read.endswith(b"\r\n\r\n"):
            return
        server = self._server
        self._opening = True
        server.opening += 1
        server.most_opening = max(server.most_opening, server.opening)
        server.arrivals.append(time.monotonic())
        asyncio.get_running_loop().call_later(_OPENING_S, self._open)

    def _open(self) -> None:
        if self._opening:
            self._opening = False
            self._read = b""
            self._server.opening -= 1
            self.transport.write(_STREAM + _EVENT)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._server.opening -= self._opening
        self._opening = False


@dataclass
class Listeners:
    """Clients that want a stream each, and come back as soon as they may."""

    port: int
    listening: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    untold: int = 0
    """Refusals with 503 that did not say when to come back."""

    async def listen(self) -> None:
        """For ever."""
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                await asyncio.sleep(await self._once(reader, writer))
            except (OSError, EOFError):
                self.refused["cut"] += 1
            finally:
                writer.transport.abort()

    async def _once(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
        """One stream, to its end, or one refusal; the seconds after which to come again."""
        writer.write(_LISTEN)
        head = await reader.readuntil(b"\r\n\r\n")
        status = head[9:12].decode()
        if status != "200":
            body = await reader.readexactly(int(_field(head, b"content-length")))
            self.refused[reason_of(body)] += 1
            wait_s = _field(head, b"retry-after")
            self.untold += status == "503" and not wait_s.isdigit()
            return float(wait_s or 0)
        await reader.readexactly(len(_EVENT))
        self.listening += 1
        try:
            await reader.read(1)
        finally:
            self.listening -= 1
        return 0.0


def _field(head: bytes, name: bytes) -> bytes:
    return head.lower().partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0]


async def _herd(length: Length) -> list[Figure]:
    upstream, most = Restarting(), length.clients + _SLOTS
    await upstream.start()
    server = {
        "url": f"http://127.0.0.1:{upstream.port}/mcp",
        "pool": {"max_connections": most},
        "queue": {"max_concurrent": _SLOTS, "max_pending": _PENDING},
        "breaker": {"open_for": f"{_OPEN_FOR_S:g}s"},
    }
    with running_proxy({"servers": {"up": server}, **QUIET}) as proxy:
        herd = Listeners(proxy.port)
        clients = [asyncio.create_task(herd.listen()) for _ in range(length.clients)]
        came_s = await _all_of(herd, length, 60)
        herd.refused.clear()
        upstream.most_opening = upstream.most_connections = 0
        upstream.stop()
        upstream.arrivals.clear()
        await asyncio.sleep(length.away_s)
        await upstream.start()
        back_s = await _all_of(herd, length, 60)
        trips = await asyncio.to_thread(proxy.metric, "mcp_proxy_breaker_trips_total")
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        upstream.stop()
    print(f"  all there at first after {came_s:.1f} s; refused then: {dict(herd.refused)}")
    print(f"  most streams in a second {_busiest(upstream.arrivals)}, most connections {upstream.most_connections}")
    return [
        Figure(
            f"{length.clients} clients reconnect: streams that are opened at once", upstream.most_opening, _SLOTS, ""
        ),
        Figure("  connections at once", upstream.most_connections, most, ""),
        Figure("  times that the breaker opened", trips, 1, ""),
        Figure("  all of them back after", back_s, length.back_s, "s"),
        Figure("  refusals without a time to come back", herd.untold, 0, ""),
    ]


async def _all_of(herd: Listeners, length: Length, patience_s: float) -> float:
    began = time.monotonic()
    while herd.listening < length.clients:
        if time.monotonic() > began + patience_s:
            return float("inf")
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def _busiest(moments: list[float]) -> int:
    """The most within one second."""
    most = first = 0
    for last, moment in enumerate(moments):
        while moments[first] < moment - 1:
            first += 1
        most = max(most, last - first + 1)
    return most


# --- one of two returns ---------------------------------------------------------------------------------------------


async def _slow_start(length: Length) -> list[Figure]:
    """What part of the calls it gets, fifth by fifth of its slow start."""
    served: dict[str, list[float]] = {"one": [], "two": []}

    def script(name: str) -> Any:
        async def answer(wire: Wire) -> None:
            while request := await wire.request():
                wire.upstream.seen.clear()
                if b'"tools/call"' in request:
                    served[name].append(time.monotonic())
                await wire.send(json_answer())

        return answer

    check = {"kind": "tcp", "interval": "300ms", "timeout": "1s", "slow_start": f"{length.slow_start_s:g}s"}
    async with (
        scripted_upstream(script("one")) as one,
        scripted_upstream(script("two")) as two,
        fault_proxy(two.port) as fault,
    ):
        ports = {"one": one.port, "two": fault.port}
        breaker = {"open_for": "500ms", "max_open_for": "500ms"}
        servers = {
            name: {"url": f"http://127.0.0.1:{port}/mcp", "health_check": check, "breaker": breaker}
            for name, port in ports.items()
        }
        routes = [{"name": "both", "path": "/both/mcp", "servers": ["one", "two"]}]
        with running_proxy({"servers": servers, "routes": routes, **QUIET}) as proxy:
            caller, enough, request = Caller(proxy.port), asyncio.Event(), post("/both/mcp")
            calling = asyncio.create_task(caller.keep_pace(length.per_s, lambda: request, enough))
            await asyncio.sleep(1)
            await fault.stop(reset=True)
            await asyncio.sleep(2)
            await fault.start()
            back_at = time.monotonic()
            while not served["two"] or served["two"][-1] < back_at:
                await asyncio.sleep(0.01)
            first_at = next(at for at in served["two"] if at >= back_at)
            await asyncio.sleep(length.slow_start_s + length.afterwards_s)
            enough.set()
            seen = await calling
            await caller.close()
    return _judge(served, seen, first_at, length)


def _judge(served: dict[str, list[float]], seen: list[Seen], first_at: float, length: Length) -> list[Figure]:
    step_s = length.slow_start_s / 5
    edges = [first_at + number * step_s for number in range(6)]
    ends_at = edges[-1] + length.afterwards_s
    shares = [_share(served, begin, end) for begin, end in pairwise([*edges, ends_at])]
    failed = [each for each in seen if each.status != 200]
    since_s = [each.sent_at - first_at for each in failed]
    ends = Counter(f"{each.status} {each.reason}" for each in failed)
    print(
        f"  its share, fifth by fifth of its slow start, and afterwards: {', '.join(f'{each:.0%}' for each in shares)}"
    )
    if failed:
        print(f"  failed, {min(since_s):.1f} to {max(since_s):.1f} s after it came back: {dict(ends)}")
    return [
        Figure("one of two returns: its part of the calls in the first fifth", shares[0] * 100, 25, "%"),
        Figure("  what it gets too little or too much afterwards", abs(shares[-1] - 0.5) * 100, 5, "%"),
        Figure(
            "  fifths in which it got much less than in the one before",
            sum(b < a - length.dips for a, b in pairwise(shares)),
            0,
            "",
        ),
        Figure("  calls that failed: those that it held as it died, at most", len(failed), length.failed, ""),
    ]


def _share(served: dict[str, list[float]], begin: float, end: float) -> float:
    counts = {name: sum(begin <= at < end for at in moments) for name, moments in served.items()}
    return counts["two"] / max(1, sum(counts.values()))
