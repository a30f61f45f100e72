"""The load generator: keep-alive connections that each send the next call when the last answer is complete,
or at a steady pace.

As a process (`python -m benchmarks.load`) it reads one JSON order a line and prints one JSON report a line, so that it
is started once and warm for every round. Every answer is checked: status, and the whole body.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from itertools import cycle
from typing import cast

import uvloop

from benchmarks import messages


@dataclass
class Target:
    """One place to call."""

    path: str
    tool: str = "get_weather"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Order:
    """What to send, where to and for how long."""

    port: int
    targets: list[Target] = field(default_factory=lambda: [Target("/demo/mcp")])
    """Taken in turn by each connection."""
    era: str = "legacy"
    """`legacy` (a call within a session) or `modern`."""
    answer: str = "json"
    """`json`, `sse` or `big`."""
    connections: int = 32
    seconds: float = 1.0
    per_second: float = 0.0
    """Calls of all connections together, evenly spread; 0: each sends the next call when the last answer is there."""
    status: int = 200
    """What all of them are answered; bodies are looked at when it is 200."""

    @classmethod
    def parse(cls, line: str) -> Order:
        """From the JSON that `dataclasses.asdict` gave."""
        fields = json.loads(line)
        return cls(**fields | {"targets": [Target(**target) for target in fields["targets"]]})


@dataclass
class Report:
    """What came back."""

    calls: int
    errors: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    seconds: float


class Connection(asyncio.Protocol):
    """Send, wait for the complete answer, check it, send the next when it is due.

    A call that is sent late because the answer before it was late counts from when it was due.
    """

    def __init__(self, requests: list[bytes], order: Order, first_s: float, done: asyncio.Future[None]) -> None:
        """`first_s`: how long to wait with the first call."""
        self._requests = cycle(requests)
        self._body = messages.ANSWERS[order.answer]
        self._status = b"HTTP/1.1 %d " % order.status
        self._pause_s = order.connections / order.per_second if order.per_second else 0.0
        self._due_at = time.perf_counter() + first_s
        self._done = done
        self._buffer = b""
        self._sent_at = 0.0
        self.latencies_s: list[float] = []
        self.errors = 0
        self.stopping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start at once."""
        self.transport = cast(asyncio.Transport, transport)
        self._send_when_due()

    def _send_when_due(self) -> None:
        if self.stopping:
            self.transport.close()
            return
        now = time.perf_counter()
        if not self._pause_s:
            self._due_at = now
        if self._due_at > now:
            asyncio.get_running_loop().call_later(self._due_at - now, self._send)
        else:
            self._send()

    def _send(self) -> None:
        if self.stopping:
            self.transport.close()
            return
        self._sent_at = self._due_at
        self._due_at += self._pause_s
        self.transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        """Collect the answer; at its end check it and go on."""
        if self._buffer:
            data = self._buffer + data
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 or not self._complete(data, end):
            self._buffer = data
            return
        self._buffer = b""
        self.latencies_s.append(time.perf_counter() - self._sent_at)
        wanted = data.startswith(self._status)
        if not wanted or (self._status == b"HTTP/1.1 200 " and content(data, end) != self._body):
            self.errors += 1
        self._send_when_due()

    def _complete(self, data: bytes, end: int) -> bool:
        if len(data) - end < len(self._body) and data.startswith(b"HTTP/1.1 200"):
            return False
        at = data.find(b"ontent-Length: ", 0, end)
        return data.endswith(b"0\r\n\r\n") if at < 0 else len(data) - end >= int(data[at + 15 : data.find(b"\r", at)])

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection that ends early is an error."""
        if not self.stopping:
            self.errors += 1
        if not self._done.done():
            self._done.set_result(None)


def content(answer: bytes, end: int) -> bytes:
    """The body of a complete answer whose head is `end` bytes long, chunked or not."""
    if b"\r\nTransfer-Encoding: chunked\r\n" not in answer[:end]:
        return answer[end:]
    pieces: list[bytes] = []
    while True:
        line_end = answer.index(b"\r\n", end)
        length = int(answer[end:line_end], 16)
        if not length:
            return b"".join(pieces)
        pieces.append(answer[line_end + 2 : line_end + 2 + length])
        end = line_end + 2 + length + 2


async def _session_id(port: int, target: Target) -> str:
    """Open a session as a legacy client does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    headers, body = messages.initialize()
    writer.write(messages.request(port, target.path, headers | target.headers, body))
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.close()
    for line in head.split("\r\n"):
        name, _, value = line.partition(": ")
        if name.lower() == "mcp-session-id":
            return value
    raise RuntimeError(f"no session id in {head!r}")


async def _request(order: Order, target: Target) -> bytes:
    headers, body = messages.call(order.era, target.tool)
    headers |= {"X-Answer": order.answer} | target.headers
    if order.era == "legacy":
        headers["Mcp-Session-Id"] = await _session_id(order.port, target)
    return messages.request(order.port, target.path, headers, body)


async def run(order: Order) -> Report:
    """Carry one order out."""
    requests = [await _request(order, target) for target in order.targets]
    loop = asyncio.get_running_loop()
    connections, ends = [], []
    started = time.perf_counter()
    for number in range(order.connections):
        done: asyncio.Future[None] = loop.create_future()
        turn = number * len(requests) // order.connections
        first_s = number / order.per_second if order.per_second else 0.0
        mine = Connection(requests[turn:] + requests[:turn], order, first_s, done)
        await loop.create_connection(lambda mine=mine: mine, "127.0.0.1", order.port)  # type: ignore[misc]
        connections.append(mine)
        ends.append(done)
    await asyncio.sleep(max(0.0, started + order.seconds - time.perf_counter()))
    for connection in connections:
        connection.stopping = True
    _, late = await asyncio.wait(ends, timeout=10)
    elapsed = time.perf_counter() - started
    latencies = sorted(second for connection in connections for second in connection.latencies_s)
    errors = sum(connection.errors for connection in connections) + len(late)
    p50_ms, p99_ms, max_ms = (percentile(latencies, percent) * 1e3 for percent in (50, 99, 100))
    return Report(len(latencies), errors, p50_ms, p99_ms, max_ms, elapsed)


def percentile(ordered: list[float], percent: float) -> float:
    """Nearest-rank percentile of an ordered list; nan when it is empty."""
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def main() -> None:
    """Carry out the orders on standard input."""
    for line in sys.stdin:
        report = uvloop.run(run(Order.parse(line)))
        print(json.dumps(asdict(report)), flush=True)


if __name__ == "__main__":
    main()
