"""Answers without an end (F6): cut off at `answers.max_body` and `answers.max_event`."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final

from benchmarks.rig import Figure
from tests.chaos.setting import Peak, server
from tests.harness import ProxyProcess, RawClient, Script, Wire, post, running_proxy, scripted_upstream

_MIB: Final = 1 << 20
_CAP: Final = 8 * _MIB
_ENDLESS: Final = 1 << 30
_ZEROS: Final = bytes(64 << 10)
_OK: Final = b"HTTP/1.1 200 OK\r\n"
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n\r\n"
#: The head, what stands in front of and behind each 64 KiB of zeros, and what comes before all of them.
_KINDS: Final = {
    "body in chunks": (_OK + b"Content-Type: application/json\r\n" + _CHUNKED, True, b""),
    "body until the end": (_OK + b"Content-Type: application/json\r\n\r\n", False, b""),
    "event in chunks": (_OK + b"Content-Type: text/event-stream\r\n" + _CHUNKED, True, b"data: 1\n\ndata: "),
    "event until the end": (_OK + b"Content-Type: text/event-stream\r\n\r\n", False, b"data: 1\n\ndata: "),
}
_ANNOUNCED: Final = _OK + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % _ENDLESS


@dataclass
class Cut:
    """How one answer ended."""

    sent: int
    """Bytes that the upstream got rid of."""
    got: int
    """Bytes of the body at the client."""
    complete: bool
    passed: int
    """Bytes that the proxy says have passed."""
    outcome: str
    detail: str


def figures(short: bool) -> list[Figure]:
    """F6: each kind of answer, some times over."""
    return asyncio.run(_measure(1 if short else 5))


async def _measure(rounds: int) -> list[Figure]:
    async with scripted_upstream() as upstream:
        config = {"servers": {"up": server(upstream.port, answers={"max_body": _CAP, "max_event": _CAP})}}
        with running_proxy(config) as proxy:
            upstream.script = _whole
            await _answer(proxy.port)
            await asyncio.to_thread(proxy.wait_for, lambda line: line.get("event") == "request")
            peak = Peak(proxy)
            watching = asyncio.create_task(peak.watch())
            found = {}
            for number in range(rounds):
                for kind in _KINDS:
                    sent = [0]
                    upstream.script = _zeros(kind, sent)
                    found[kind, number] = await _cut(proxy, sent)
            upstream.script = _announced
            refused, *_ = await _answer(proxy.port)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    return [*_told(found), Figure("announced with 1 GiB: not refused", refused != 502, 0, ""),
            Figure("memory grown meanwhile, at most", peak.grown / _MIB, 8, "MiB")]  # fmt: skip


def _told(found: dict[tuple[str, int], Cut]) -> list[Figure]:
    for (kind, number), cut in found.items():
        if not number:
            print(f"  {kind}: {cut}")
    off = [abs(cut.passed - _CAP) for cut in found.values()]
    over = [cut.got - _CAP for cut in found.values()]
    named = [cut for cut in found.values() if cut.outcome == "upstream_error" and "answers.max_" in cut.detail]
    return [
        Figure(f"{len(found)} answers without end, cap 8 MiB: cut off it by", max(off) / 1024, 64, "KiB"),
        Figure("  at the client over the cap", max(0, *over) / 1024, 0.01, "KiB"),
        Figure("  looked complete", sum(cut.complete for cut in found.values()), 0, ""),
        Figure("  without the reason in the log", len(found) - len(named), 0, ""),
        Figure("  taken from the upstream beyond it", max(cut.sent - _CAP for cut in found.values()) / _MIB, 16, "MiB"),
    ]


def _zeros(kind: str, sent: list[int]) -> Script:
    head, chunked, first = _KINDS[kind]

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(head + (_chunk(first) if chunked and first else first))
        piece = _chunk(_ZEROS) if chunked else _ZEROS
        while sent[0] < _ENDLESS:
            await wire.send(piece)
            sent[0] += len(_ZEROS)

    return script


async def _whole(wire: Wire) -> None:
    await wire.request()
    await wire.send(_KINDS["event in chunks"][0] + _chunk(b"data: " + bytes(4 * _MIB) + b"\n\n") + b"0\r\n\r\n")


async def _announced(wire: Wire) -> None:
    await wire.request()
    await wire.send(_ANNOUNCED)
    await wire.reader.read(1)


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


async def _cut(proxy: ProxyProcess, sent: list[int]) -> Cut:
    start = len(proxy.lines)
    _, got, complete = await _answer(proxy.port)
    line = await asyncio.to_thread(proxy.wait_for, lambda line: line.get("event") == "request", 5.0, start)
    return Cut(sent[0], got, complete, line["bytes_out"], line["outcome"], line["detail"] or "")


async def _answer(port: int) -> tuple[int, int, bool]:
    """Status, bytes of the body, and whether it came to its end."""
    client = await RawClient.connect(port)
    got, status = 0, 0
    try:
        await client.send(post())
        head = await client.head()
        status = int(head.split()[1])
        if b"hunked" not in head:
            return status, got, True
        while chunk := await client.chunk():
            got += len(chunk)
        return status, got, True
    except (asyncio.IncompleteReadError, ConnectionError):
        return status, got, False
    finally:
        with contextlib.suppress(ConnectionError):
            await client.close()
