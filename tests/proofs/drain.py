"""SIGTERM under load: short requests do not fail, streams end between two events, and the process ends in time.

Listening streams (GET) end at once, but never inside an event: the upstream has written half of one when the signal
comes, and finishes it later. Streams that answer a call (POST) come to their end within the grace.
"""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError

from benchmarks.rig import Figure
from tests.harness import ProxyProcess, RawClient, Wire, post, running_proxy, scripted_upstream
from tests.proofs.load import LAST_CHUNK, SSE_HEAD, Callers, answering, chunk, event, get, tell

#: Parts of the event in which the drain begins.
HALF, OTHER_HALF = event(1)[:20], event(1)[20:]


@dataclass
class Length:
    """How much of it."""

    listening: int = 150
    """Streams on which nobody waits for an answer; every third is inside an event when the signal comes."""
    answering: int = 50
    """Streams that answer a call."""
    clients: int = 32
    warm_s: float = 3.0
    """Load before the signal."""
    delay_s: float = 1.0
    grace_s: float = 5.0
    answer_s: float = 2.0
    """From the signal until the upstream ends the streams that answer a call."""


@dataclass
class Findings:
    """What was seen; times are seconds after the signal."""

    calls: int
    calls_after_signal: int
    failed: int
    """Short requests on an open connection that got no good answer."""
    torn: int
    """Listening streams that did not end in order, after a whole event."""
    cut: int
    """Streams that answer a call and did not come to their end."""
    unlogged: int
    """Requests without exactly one line in the log."""
    not_ready_s: float
    accepted_late: bool
    """A new connection was accepted and served after the process had turned not ready."""
    ended_s: float
    over_grace_s: float
    """How much longer than delay and grace the process took; below 0: it was faster."""
    exit_code: int
    notes: list[str]


class Upstream:
    """GET opens a stream that stands still inside or behind an event, POST one that ends when told to."""

    def __init__(self) -> None:
        self.finish_event = asyncio.Event()
        self.finish_answers = asyncio.Event()
        self._listening = 0

    async def script(self, wire: Wire) -> None:
        request = await wire.request()
        if request.startswith(b"GET"):
            self._listening += 1
            await self._listen(wire, inside=self._listening % 3 == 0)
        elif request:
            await wire.send(SSE_HEAD + chunk(event(0)) + chunk(HALF))
            await self.finish_answers.wait()
            await wire.send(chunk(OTHER_HALF) + LAST_CHUNK)

    async def _listen(self, wire: Wire, *, inside: bool) -> None:
        await wire.send(SSE_HEAD + chunk(event(0)))
        if inside:
            await wire.send(chunk(HALF))
            await self.finish_event.wait()
            await wire.send(chunk(OTHER_HALF))
        await wire.reader.read()


async def read_stream(port: int, request: bytes) -> bytes:
    """The body of a stream up to its end; b'cut' when it did not end in order."""
    client = await RawClient.connect(port)
    body = b""
    try:
        await client.send(request)
        await client.head()
        while piece := await asyncio.wait_for(client.chunk(), 60):
            body += piece
    except (OSError, EOFError, TimeoutError):
        return b"cut"
    finally:
        await client.close()
    return body


def readiness(proxy: ProxyProcess) -> int:
    """Status of /readyz; 0 when the admin port is closed."""
    try:
        proxy.admin("/readyz")
    except HTTPError as error:
        return error.code
    except OSError:
        return 0
    return 200


async def run(length: Length) -> Findings:
    """Drain under load, count what went wrong."""
    streaming = Upstream()
    async with (
        scripted_upstream(answering("up").script) as short,
        scripted_upstream(streaming.script) as long,
    ):
        config: dict[str, Any] = {
            "listen": {"drain": {"delay": f"{length.delay_s}s", "grace": f"{length.grace_s}s"}},
            "servers": {"up": {"url": short.url}, "long": {"url": long.url, "pool": {"max_connections": 1000}}},
        }
        with running_proxy(config) as proxy:
            return await _drain(proxy, length, streaming)


async def _drain(proxy: ProxyProcess, length: Length, streaming: Upstream) -> Findings:
    listening = [asyncio.create_task(read_stream(proxy.port, get("/long/mcp"))) for _ in range(length.listening)]
    answers = [asyncio.create_task(read_stream(proxy.port, post("/long/mcp"))) for _ in range(length.answering)]
    callers = Callers(proxy.port, length.clients)
    await asyncio.sleep(length.warm_s)
    while proxy.metric("mcp_proxy_open_streams") < length.listening + length.answering:
        await asyncio.sleep(0.05)
    before = len(callers.outcome.calls)
    began = time.monotonic()
    proxy.process.send_signal(signal.SIGTERM)
    while await asyncio.to_thread(readiness, proxy) == 200:
        await asyncio.sleep(0.005)
    not_ready_s = time.monotonic() - began
    accepted_late = await _call_anew(proxy.port)
    asyncio.get_running_loop().call_at(
        asyncio.get_running_loop().time() + length.delay_s + 0.3, streaming.finish_event.set
    )
    asyncio.get_running_loop().call_at(
        asyncio.get_running_loop().time() + length.delay_s + length.answer_s, streaming.finish_answers.set
    )
    heard = await asyncio.gather(*listening)
    outcome = await callers.wait()
    answered = await asyncio.gather(*answers)
    exit_code = await asyncio.to_thread(proxy.process.wait, length.delay_s + length.grace_s + 10)
    ended_s = time.monotonic() - began
    proxy.stop()  # it has ended; its log is read to the end
    logged = [line["target"] for line in proxy.lines if line.get("server") == "up" and "target" in line]
    whole = (event(0), event(0) + event(1))
    return Findings(
        calls=len(outcome.calls),
        calls_after_signal=len(outcome.calls) - before,
        failed=len(outcome.failures),
        torn=sum(body not in whole for body in heard),
        cut=sum(body != event(0) + event(1) for body in answered),
        unlogged=abs(len(logged) - len(set(logged))) + sum(call.target not in logged for call in outcome.calls),
        not_ready_s=not_ready_s,
        accepted_late=accepted_late,
        ended_s=ended_s,
        over_grace_s=ended_s - length.delay_s - length.grace_s,
        exit_code=exit_code,
        notes=outcome.failures[:5] + [repr(body) for body in heard if body not in whole][:5],
    )


async def _call_anew(port: int) -> bool:
    """Whether a new connection is accepted and a call on it answered."""
    try:
        client = await RawClient.connect(port)
        await client.send(post())
        status = (await client.answer())[0]
        await client.close()
    except (OSError, EOFError):
        return False
    return status == 200


def figures(short: bool) -> list[Figure]:
    """SIGTERM under load, with and without a delay."""
    shown = []
    for delay_s in (0.0, 1.0):
        length = Length(clients=8, warm_s=0.5, answer_s=0.5) if short else Length()
        length.delay_s = delay_s
        found = asyncio.run(run(length))
        tell(found.notes)
        streams = length.listening + length.answering
        what = f"SIGTERM, delay {delay_s:g} s, {streams} streams, {found.calls} calls"
        shown += [
            Figure(f"{what}: failed", found.failed, 0, ""),
            Figure("  listening streams torn inside an event", found.torn, 0, ""),
            Figure("  streams that owed an answer and were cut", found.cut, 0, ""),
            Figure("  calls without exactly one line in the log", found.unlogged, 0, ""),
            Figure("  ended after the signal", found.ended_s, delay_s + length.grace_s + 2, "s"),
            Figure("  exit code", found.exit_code, 0, ""),
        ]
        if delay_s:
            shown.append(Figure("  not ready after", found.not_ready_s, 0.5, "s"))
            shown.append(Figure("  new calls refused in the delay", not found.accepted_late, 0, ""))
    return shown
