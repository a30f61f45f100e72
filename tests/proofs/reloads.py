"""Reloads under load: no request fails, none sees two configurations, and streams go on where they began.

The configuration alternates between two servers under one name; each generation has a marker of its own, which the
proxy sends with every request. The server that answered, the marker it was sent and the generation in the log must
belong together.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.rig import Figure
from tests.harness import ProxyProcess, RawClient, ScriptedUpstream, Wire, post, running_proxy, scripted_upstream
from tests.proofs.load import LAST_CHUNK, MARKER, SSE_HEAD, Callers, Outcome, answering, chunk, event, tell

NAMES = ("even", "odd")
FORCED = "configuration in force"


@dataclass
class Length:
    """How much of it."""

    reloads: int = 20
    by_file: int = 5
    """How many of them by changing the file, the others by SIGHUP."""
    clients: int = 32
    streams: int = 50
    pause_s: float = 0.5
    """Between two reloads."""


@dataclass
class Findings:
    """What was seen; everything but the first three should be 0."""

    calls: int
    generations: int
    """Configurations under which requests were served."""
    longest_close_s: float
    """From the end of the last request of a configuration until its connections were closed."""
    failed: int
    mixed: int
    """Requests whose server, marker and generation do not belong together."""
    unlogged: int
    broken_streams: int
    notes: list[str]


def config(number: int, servers: tuple[ScriptedUpstream, ScriptedUpstream]) -> dict[str, Any]:
    """Configuration `number`: its server, and its marker."""
    return {"servers": {"up": {"url": servers[number % 2].url, "headers": {MARKER: f"m{number}"}}}}


class Ticking:
    """An upstream whose streams send an event now and then until they are told to end."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def script(self, wire: Wire) -> None:
        await wire.request()
        await wire.send(SSE_HEAD)
        number = 0
        while not self.ended.is_set():
            await wire.send(chunk(event(number)))
            number += 1
            await asyncio.sleep(0.05)
        await wire.send(chunk(event(number)) + LAST_CHUNK)


async def read_stream(client: RawClient) -> bool:
    """Whether a stream holds event after event, none lost, and ends in order."""
    body = b""
    try:
        while piece := await client.chunk():
            body += piece
    except (OSError, EOFError, TimeoutError):
        return False
    finally:
        await client.close()
    return body == b"".join(event(number) for number in range(body.count(b"\n\n")))


async def reload_by_file(proxy: ProxyProcess, content: dict[str, Any]) -> dict[str, Any]:
    """Change the file and wait until the proxy has noticed by itself."""
    seen = len(proxy.lines)
    proxy.write(content)
    return await asyncio.to_thread(proxy.wait_for, lambda line: line.get("event") == FORCED, 15.0, seen)


async def run(length: Length) -> Findings:
    """Reload under load, count what went wrong."""
    ticking = Ticking()
    async with (
        scripted_upstream(answering("even").script) as even,
        scripted_upstream(answering("odd").script) as odd,
        scripted_upstream(ticking.script) as old,
    ):
        servers = (even, odd)
        start = {"servers": {"up": {"url": old.url, "headers": {MARKER: "m0"}}}}
        with running_proxy(start) as proxy:
            streams = [await RawClient.connect(proxy.port) for _ in range(length.streams)]
            for stream in streams:
                await stream.send(post())
                await stream.head()
            readers = [asyncio.create_task(read_stream(stream)) for stream in streams]
            generations = {(await asyncio.to_thread(proxy.reload, config(1, servers)))["generation"]: 1}
            callers = Callers(proxy.port, length.clients)
            for number in range(2, length.reloads + 2):
                await asyncio.sleep(length.pause_s)
                content = config(number, servers)
                by_file = number < length.by_file + 2
                line = await (reload_by_file(proxy, content) if by_file else asyncio.to_thread(proxy.reload, content))
                generations[line["generation"]] = number
            outcome = await callers.stop()
            left_s = await _closed(servers[(length.reloads + 2) % 2])
            ticking.ended.set()
            whole = await asyncio.gather(*readers)
            left_s = max(left_s, await _closed(old))
        # the proxy has stopped, so its log is complete
        return _findings(outcome, proxy, generations, whole, left_s)


async def _closed(upstream: ScriptedUpstream) -> float:
    """Seconds until every connection to `upstream` is closed; gives up after ten."""
    began = time.monotonic()
    while upstream.open and time.monotonic() - began < 10:
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def _findings(
    outcome: Outcome, proxy: ProxyProcess, generations: dict[int, int], whole: list[bool], left_s: float
) -> Findings:
    logged = {line["target"]: line["generation"] for line in proxy.lines if line.get("rpc_method") == "tools/call"}
    mixed, unlogged = [], 0
    for call in outcome.calls:
        number = int(call.marker[1:])
        unlogged += call.target not in logged
        if call.answered_by != NAMES[number % 2] or generations.get(logged.get(call.target, -1)) != number:
            mixed.append(f"{call} under generation {logged.get(call.target)}")
    return Findings(
        calls=len(outcome.calls),
        generations=len({call.marker for call in outcome.calls}),
        longest_close_s=left_s,
        failed=len(outcome.failures),
        mixed=len(mixed),
        unlogged=unlogged,
        broken_streams=whole.count(False),
        notes=outcome.failures[:5] + mixed[:5],
    )


def figures(short: bool) -> list[Figure]:
    """Twenty reloads under load."""
    length = Length(by_file=1, clients=6, streams=10, pause_s=0.1) if short else Length()
    found = asyncio.run(run(length))
    tell(found.notes)
    what = f"{length.reloads} reloads, {found.calls} calls under {found.generations} generations"
    return [
        Figure(f"{what}: failed", found.failed, 0, ""),
        Figure("  calls that saw two generations", found.mixed, 0, ""),
        Figure("  calls without a line in the log", found.unlogged, 0, ""),
        Figure(f"  streams of {length.streams} that did not go on to their end", found.broken_streams, 0, ""),
        Figure("  connections of old generations closed after", found.longest_close_s, 5, "s"),
    ]
