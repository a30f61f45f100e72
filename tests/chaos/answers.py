"""Answers that break off (F3)."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from benchmarks.rig import Figure
from tests.chaos.fault_proxy import FaultProxy, Toxics, fault_proxy
from tests.chaos.setting import server
from tests.harness import RawClient, answer_in_pieces, post, running_proxy, scripted_upstream

_EVENT: Final = b'event: message\ndata: {"jsonrpc":"2.0","id":1,"result":{}}\n\n'
_BODY: Final = b'{"jsonrpc":"2.0","id":1,"result":{"text":"' + b"x" * 700 + b'"}}'
_OK: Final = b"HTTP/1.1 200 OK\r\n"
#: By kind: whether a close in order is an end in order, and the whole answer.
_ANSWERS: Final = {
    "events": (
        False,
        _OK
        + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT) * 12
        + b"0\r\n\r\n",
    ),
    "body": (False, _OK + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_BODY) + _BODY),
    "until the end": (True, _OK + b"Content-Type: text/event-stream\r\n\r\n" + _EVENT * 12),
}
#: Every place of the first 600 bytes.
_PLACES: Final = 601
_LANES: Final = 12


def truncation(short: bool) -> list[Figure]:
    """F3: the upstream is cut off behind every byte, in order and by a reset."""
    return asyncio.run(_truncation(range(0, _PLACES, 17 if short else 1)))


async def _truncation(places: Iterable[int]) -> list[Figure]:
    figures = []
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(scripted_upstream(answer_in_pieces))
        faults = [await stack.enter_async_context(fault_proxy(upstream.port)) for _ in range(_LANES)]
        servers = {f"up{n}": server(f.port) for n, f in enumerate(faults)}
        proxy = stack.enter_context(running_proxy({"servers": servers}))
        for kind, (ends_in_order, whole) in _ANSWERS.items():
            upstream.answer = [whole]
            toxics = [Toxics(reset_after=place) for place in places]
            head = whole.index(b"\r\n\r\n") + 4
            toxics += [Toxics(limit=place) for place in places if not ends_in_order or place < head]
            lanes = await asyncio.gather(
                *(_cut(proxy.port, f"/up{n}/mcp", fault, toxics[n::_LANES]) for n, fault in enumerate(faults))
            )
            seen = sum(lanes, Counter[str]())
            print(f"  {kind}: {dict(seen)}")
            figures += [
                Figure(f"{kind}, cut at {len(toxics)} places: looked complete", seen["complete"], 0, ""),
                Figure("  neither refused with 502 nor broken off", seen["otherwise"], 0, ""),
            ]
    return figures


async def _cut(port: int, path: str, fault: FaultProxy, toxics: Iterable[Toxics]) -> Counter[str]:
    """One call for each of `toxics`, each on a connection of its own, and how it looked to the client."""
    seen: Counter[str] = Counter()
    for toxic in toxics:
        await fault.cut()
        fault.down = replace(toxic)
        client = await RawClient.connect(port)
        try:
            await client.send(post(path))
            status, _, _ = await client.answer()
            seen[{200: "complete", 502: "502"}.get(status, "otherwise")] += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            seen["broken"] += 1
        except TimeoutError:
            seen["otherwise"] += 1
        finally:
            await client.close()
    return seen
