"""One of two servers dies and returns every few seconds: what may be repeated hardly notices.

The server is killed under load: its connections are reset and its port is closed. Calls of a tool that both servers
call read-only (learned from lists that passed), and lists of tools, are sent at a steady pace by clients that never
repeat anything themselves. Breakers, pools and the retry budget are as they are by default.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from benchmarks.rig import Figure
from tests.chaos.calling import QUIET, Caller, Seen, p99_ms
from tests.chaos.fault_proxy import FaultProxy, fault_proxy
from tests.harness import RESULT, Wire, json_answer, post, running_proxy, scripted_upstream

_SERVERS: Final = ("one", "two")
#: Calls a second of either kind.
_PER_S: Final = 100.0
#: Part of a round in which the server is away.
_AWAY: Final = 0.5
#: The shortest and the longest that an answer takes; they draw evenly.
_TAKES_S: Final = (0.002, 0.02)
#: What passed is learned in steps.
_LEARNED_S: Final = 2.0
_LIST: Final = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
_CALL: Final = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look","arguments":{"at":1}}}'
_TOOLS: Final = {"tools": [{"name": "look", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}}]}
_OFFER: Final = json.dumps({"jsonrpc": "2.0", "id": 1, "result": _TOOLS}).encode()


@dataclass
class Length:
    """How much of it; seconds."""

    rounds: int = 12
    round_s: float = 5.0


SHORT: Final = Length(2, 2.0)


def figures(short: bool) -> list[Figure]:
    """Both kinds of requests, while the second server comes and goes."""
    length, most = (SHORT, 1.0) if short else (Length(), 0.1)
    found = _told(asyncio.run(_measure(length, _SERVERS[1:])), "one of two servers dies", length, most)
    # in turns, the one that returned may still be left alone when the other dies, for a second at most
    both = _told(asyncio.run(_measure(length, _SERVERS)), "both die in turns", length, 5.0 if short else 2.0)
    return found + both


def _told(seen: dict[str, list[Seen]], what: str, length: Length, most: float) -> list[Figure]:
    found = []
    for name, calls in seen.items():
        failed = [each for each in calls if each.status != 200]
        ends = Counter(f"{each.status} {each.reason}".strip() for each in failed)
        print(f"  {name}, {what}: {len(calls)} requests, p99 {p99_ms(calls):.1f} ms; failed: {dict(ends)}")
        part = len(failed) / len(calls) * 100
        found.append(Figure(f"{name}, {what} every {length.round_s:g} s: failed", part, most, "%"))
    return found


def _script(name: str, draw: random.Random) -> Callable[[Wire], Any]:
    async def script(wire: Wire) -> None:
        while request := await wire.request():
            wire.upstream.seen.clear()
            await asyncio.sleep(draw.uniform(*_TAKES_S))
            await wire.send(json_answer(_OFFER if b'"tools/list"' in request else RESULT))

    return script


async def _measure(length: Length, dying: Sequence[str]) -> dict[str, list[Seen]]:
    draw = random.Random(5)
    async with AsyncExitStack() as stack:
        faults = {}
        for name in _SERVERS:
            upstream = await stack.enter_async_context(scripted_upstream(_script(name, draw)))
            faults[name] = await stack.enter_async_context(fault_proxy(upstream.port))
        proxy = stack.enter_context(running_proxy(_config(faults)))
        caller = Caller(proxy.port)
        for name in _SERVERS:
            assert (await caller.call(post(f"/{name}/mcp", _LIST))).status == 200
        await asyncio.sleep(_LEARNED_S)
        enough = asyncio.Event()
        requests = {"tools/call of a read-only tool": post("/both/mcp", _CALL), "tools/list": post("/both/mcp", _LIST)}
        calling = [caller.keep_pace(_PER_S, partial(bytes, request), enough) for request in requests.values()]
        running = asyncio.gather(*calling)
        for number in range(length.rounds):
            fault = faults[dying[number % len(dying)]]
            await asyncio.sleep(length.round_s * (1 - _AWAY))
            await fault.stop(reset=True)
            await asyncio.sleep(length.round_s * _AWAY)
            await fault.start()
        enough.set()
        seen = dict(zip(requests, await running, strict=True))
        await caller.close()
        return seen


def _config(faults: dict[str, FaultProxy]) -> dict[str, Any]:
    return {
        "servers": {name: {"url": f"http://127.0.0.1:{fault.port}/mcp"} for name, fault in faults.items()},
        "routes": [
            {"name": "both", "path": "/both/mcp", "servers": list(_SERVERS), "retry": {"tools": "hinted"}},
        ],
        **QUIET,
    }
