"""A loop that stands still, and memory that runs short: F30 and F29 of the failure matrix.

Stalls are `time.sleep` (waiting) and a busy loop (computing) inside the proxy's own loop: the whole proxy runs in this
process, so that nothing has to be built into it. Memory runs short by uploads that are nearly finished and never end.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection

from benchmarks.rig import Figure
from tests.harness import CALL, ProxyProcess, RawClient, free_port, post, running_proxy, scripted_upstream
from tests.inprocess import running_app

MIB = 1 << 20
PATHS = ("/livez", "/readyz", "/metrics")


@dataclass
class Length:
    """How much of it."""

    stall_s: float = 2.0
    dead_s: float = 10.8
    """A stall after which the process counts as dead; 0: leave it out."""
    storm_s: float = 6.0
    """Stalls of 0.3 s, one after the other."""
    memory_mib: int = 300
    body_mib: int = 8
    uploads: int = 100
    upload_s: float = 10.0


SHORT = Length(dead_s=0, storm_s=3.0, memory_mib=200, body_mib=4, uploads=60, upload_s=3.0)


# --- F30: stalls ------------------------------------------------------------------------------------------------------


@dataclass
class Stalls:
    """What was seen while the loop stood still; seconds."""

    slowest_s: dict[str, float] = field(default_factory=dict)
    """Slowest answer of the admin port, by the kind of stall."""
    asked: int = 0
    wrong: int = 0
    """Answers of the admin port that were not 200, while the process was alive."""
    called_dead: bool = False
    shed_after_s: float = float("nan")
    """From the first of many stalls until class low is refused."""
    served_after_s: float = float("nan")
    """From the last of them until it is served again."""
    vital_failed: int = 0
    """Calls of class high that got no good answer meanwhile."""
    vital: int = 0
    unsaid: int = 0
    """Refusals without Retry-After."""


class Prober(threading.Thread):
    """Asks the admin port again and again from a thread, as an orchestrator would from outside."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._ended = threading.Event()
        self.answers: list[tuple[str, int, float]] = []
        """Path, status and seconds."""

    def run(self) -> None:
        number = 0
        while not self._ended.is_set():
            path = PATHS[number % len(PATHS)]
            number += 1
            began = time.monotonic()
            self.answers.append((path, self._ask(path), time.monotonic() - began))
            self._ended.wait(0.01)

    def _ask(self, path: str) -> int:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except OSError:
            return 0
        finally:
            connection.close()

    def end(self) -> None:
        self._ended.set()
        self.join(25)


@contextlib.contextmanager
def probing(port: int) -> Iterator[Prober]:
    prober = Prober(port)
    prober.start()
    try:
        yield prober
    finally:
        prober.end()


def compute(seconds: float) -> None:
    """Hold the interpreter as a computation does."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))


STALLS: dict[str, Callable[[float], None]] = {"waiting": time.sleep, "computing": compute}


async def stalls(length: Length) -> Stalls:
    """Stall the proxy's loop in every way, and ask it from outside meanwhile."""
    found = Stalls()
    admin_port = free_port()
    async with scripted_upstream() as upstream:
        config = {
            "admin": {"port": admin_port},
            "servers": {"up": {"url": upstream.url}},
            "routes": [{"name": "vital", "path": "/vital", "servers": "up", "priority_class": "high"}],
        }
        async with running_app(config) as (_, port):
            await asyncio.sleep(0.3)
            for kind, stall in STALLS.items():
                with probing(admin_port) as prober:
                    stall(length.stall_s)
                found.asked += len(prober.answers)
                found.wrong += sum(status != 200 for _, status, _ in prober.answers)
                found.slowest_s[kind] = max(seconds for _, _, seconds in prober.answers)
                await asyncio.sleep(1.2)
            if length.dead_s:
                with probing(admin_port) as prober:
                    time.sleep(length.dead_s)
                found.called_dead = any(path == "/livez" and status == 503 for path, status, _ in prober.answers)
                await asyncio.sleep(1.2)
            await storm(port, length, found)
    return found


async def storm(port: int, length: Length, found: Stalls) -> None:
    """One stall after the other, with calls of class high and low in between."""
    low, high = await RawClient.connect(port), await RawClient.connect(port)
    began = time.monotonic()
    while time.monotonic() < began + length.storm_s:
        await asyncio.sleep(0.01)
        time.sleep(0.3)
        found.vital += 1
        found.vital_failed += await call(high, "/vital", found) != 200
        if await call(low, "/up/mcp", found) == 503 and math.isnan(found.shed_after_s):
            found.shed_after_s = time.monotonic() - began
    ended = time.monotonic()
    while await call(low, "/up/mcp", found) != 200 and time.monotonic() < ended + 20:
        await asyncio.sleep(0.02)
    found.served_after_s = time.monotonic() - ended
    await low.close()
    await high.close()


async def call(client: RawClient, path: str, found: Stalls) -> int:
    """Status of one call; a refusal has to say when to come back."""
    await client.send(post(path))
    status, fields, body = await client.answer()
    if status == 503:
        assert b'"reason":"shed"' in body, body
        found.unsaid += "retry-after" not in fields
    return status


def figures(short: bool) -> list[Figure]:
    """F30: the admin port answers, the lowest class is refused first, and all is as before soon afterwards."""
    length = SHORT if short else Length()
    found = asyncio.run(stalls(length))
    shown = [
        Figure(f"loop {kind} for {length.stall_s:g} s: slowest answer of the admin port", seconds, 0.2, "s")
        for kind, seconds in found.slowest_s.items()
    ]
    if length.dead_s:
        shown.append(Figure(f"  /livez still well after {length.dead_s:g} s", not found.called_dead, 0, ""))
    return [
        *shown,
        Figure(f"  of {found.asked} answers, not 200", found.wrong, 0, ""),
        Figure("stalls of 0.3 s, one after the other: class low refused after", found.shed_after_s, 3, "s"),
        Figure(f"  of {found.vital} calls of class high, failed", found.vital_failed, 0, ""),
        Figure("  refusals without Retry-After", found.unsaid, 0, ""),
        Figure("  class low served again after", found.served_after_s, 5, "s"),
    ]


# --- F29: memory ------------------------------------------------------------------------------------------------------


@dataclass
class Pressure:
    """What was seen while uploads took memory; shares of the limit."""

    peak: float = 0.0
    calm_after_s: float = float("nan")
    """From the end of the uploads until less than 85 % is used."""
    uploads: int = 0
    refused: int = 0
    """Uploads and connections that were answered 503."""
    unsaid: int = 0
    probes_failed: int = 0
    failed_afterwards: int = 0
    slowest_s: float = 0.0
    """Slowest answer of the admin port."""


class Scale(threading.Thread):
    """Weighs a process every few milliseconds."""

    def __init__(self, proxy: ProxyProcess) -> None:
        super().__init__(daemon=True)
        self._proxy = proxy
        self._ended = threading.Event()
        self.peak_bytes = 0

    def run(self) -> None:
        while not self._ended.wait(0.005):
            self.peak_bytes = max(self.peak_bytes, self._proxy.rss_bytes())

    def end(self) -> None:
        self._ended.set()
        self.join(5)


async def upload(port: int, length: Length, found: Pressure, until: float) -> None:
    """Uploads that are never finished, one after the other."""
    piece = b"x" * (256 << 10)
    size = length.body_mib * MIB
    head, _, _ = post("/up/mcp", b"").partition(b"Content-Length")
    while time.monotonic() < until:
        found.uploads += 1
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            client = await RawClient.connect(port)
            try:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    await client.send(head + b"Content-Length: %d\r\n\r\n" % size)
                    for _ in range(size // len(piece) - 1):
                        await client.send(piece)
                    status, fields, _ = await client.answer()
                found.refused += status == 503
                found.unsaid += status == 503 and "retry-after" not in fields
            finally:
                client.writer.transport.abort()
        await asyncio.sleep(0.01)


async def good_calls(port: int, count: int) -> int:
    """How many of so many calls get no good answer."""
    failed = 0
    for number in range(count):
        body = CALL if number % 5 else CALL.replace(b"hi", b"h" * (1 << 20))
        try:
            client = await RawClient.connect(port)
            await client.send(post("/up/mcp", body))
            failed += (await client.answer())[0] != 200
            await client.close()
        except (OSError, EOFError):
            failed += 1
    return failed


async def pressure(length: Length) -> Pressure:
    """Uploads that hold on to all they can get, and what is left of it afterwards."""
    found = Pressure()
    async with scripted_upstream() as upstream:
        config = {
            "listen": {"limits": {"body": length.body_mib * MIB}},
            "overload": {"memory": length.memory_mib * MIB},
            "servers": {"up": {"url": upstream.url}},
        }
        with running_proxy(config) as proxy:
            limit = length.memory_mib * MIB
            scale = Scale(proxy)
            scale.start()
            until = time.monotonic() + length.upload_s
            with probing(proxy.admin_port) as prober:
                await asyncio.gather(*(upload(proxy.port, length, found, until) for _ in range(length.uploads)))
            ended = time.monotonic()
            while proxy.rss_bytes() >= 0.85 * limit and time.monotonic() < ended + 20:
                await asyncio.sleep(0.01)
            found.calm_after_s = time.monotonic() - ended
            found.failed_afterwards = await good_calls(proxy.port, 100)
            scale.end()
            found.peak = scale.peak_bytes / limit
            found.probes_failed = sum(status != 200 for _, status, _ in prober.answers)
            found.slowest_s = max(seconds for _, _, seconds in prober.answers)
    return found


def memory_figures(short: bool) -> list[Figure]:
    """F29: uploads that never end take no more than there is, and what they took comes back."""
    length = SHORT if short else Length()
    found = asyncio.run(pressure(length))
    what = f"{length.uploads} clients with uploads of {length.body_mib} MiB that never end, {length.memory_mib} MiB"
    print(f"  {found.uploads} uploads, {found.refused} answered 503; slowest probe {found.slowest_s * 1000:.0f} ms")
    return [
        Figure(f"{what}: most memory used", found.peak * 100, 98, "%"),
        Figure("  below 85 % again after", found.calm_after_s, 5, "s"),
        Figure("  of 100 calls afterwards, failed", found.failed_afterwards, 0, ""),
        Figure("  no upload was refused", not found.refused, 0, ""),
        Figure("  refusals without Retry-After", found.unsaid, 0, ""),
        Figure("  probes of the admin port that failed", found.probes_failed, 0, ""),
    ]
