"""Calls of a tool that writes, with faults at every stage: executed once at most, and what the client is told is true.

Two servers stand behind one route whose retries and hedges go as far as they can be configured; one of them has a
breaker and a short queue besides. The tool says nothing of repetitions, so it must not be repeated once it may have
been received. Each call carries an id, by which the servers count what they executed and the client knows its answer.

What a client may conclude: from its complete answer, that the call was executed, once; from a refusal for which nothing
was sent, that it was not; from everything else, nothing but that it was not executed twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.rig import Figure
from tests.chaos.calling import QUIET, reason_of
from tests.chaos.fault_proxy import FaultProxy, fault_proxy
from tests.harness import RawClient, Wire, json_answer, post, running_proxy, scripted_upstream

_AT_ONCE: Final = 32
_DEADLINE_S: Final = 0.25
#: Later than the deadline.
_SLOW_S: Final = 0.4
#: A client that leaves does so within this.
_STAYS_S: Final = 0.01
_LEARNED_S: Final = 2.0
_SERVERS: Final = ("one", "two")
_LIST: Final = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
_TOOLS: Final = {"tools": [{"name": "write", "inputSchema": {"type": "object"}}]}
_OFFER: Final = json.dumps({"jsonrpc": "2.0", "id": 1, "result": _TOOLS}).encode()
#: For these nothing was sent.
_UNSENT: Final = ("circuit_open", "connect_failed", "no_server", "pool_exhausted", "queue_full", "queue_timeout")
#: What the servers do, and how often.
_FAULTS: Final = {
    "none": 55,
    "reset before it was read": 5,
    "reset while it was read": 5,
    "503 instead": 4,
    "reset after it was executed": 6,
    "closed after it was executed": 4,
    "part of the head": 4,
    "part of the body": 5,
    "too slow": 4,
    "503 after it was executed": 3,
    "in many pieces": 5,
}


@dataclass
class Ledger:
    """What all servers did, and what all clients were told."""

    executed: Counter[int] = field(default_factory=Counter)
    """By id."""
    faults: Counter[str] = field(default_factory=Counter)
    ends: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Ids by how the call ended for its client."""
    strangers: int = 0
    """Answers that belong to another call."""
    unknown: int = 0
    """Calls without any end."""


def figures(short: bool) -> list[Figure]:
    """So many calls; the table says what became of them."""
    calls = 500 if short else 10_000
    ledger = asyncio.run(_measure(calls))
    print(f"  {'how it ended for the client':<44} {'calls':>6} {'not':>6} {'once':>6} {'twice':>6} executed")
    for end, numbers in sorted(ledger.ends.items()):
        times = Counter(min(2, ledger.executed[number]) for number in numbers)
        print(f"  {end:<44} {len(numbers):>6} {times[0]:>6} {times[1]:>6} {times[2]:>6}")
    print("  " + ", ".join(f"{name}: {count}" for name, count in sorted(ledger.faults.items())))
    twice = sum(times > 1 for times in ledger.executed.values())
    lost = sum(not ledger.executed[number] for number in ledger.ends["answered"])
    unsent = [number for reason in _UNSENT for number in ledger.ends.get(f"refused: {reason}", ())]
    ended = sum(len(numbers) for numbers in ledger.ends.values())
    return [
        Figure(f"{calls} calls that write, faults at every stage: executed twice", twice, 0, ""),
        Figure("  answered, but not executed", lost, 0, ""),
        Figure("  told that nothing was sent, but executed", sum(ledger.executed[number] for number in unsent), 0, ""),
        Figure("  answers that belong to another call", ledger.strangers, 0, ""),
        Figure("  calls without an end", ledger.unknown + calls - ended, 0, ""),
        Figure("  kinds of faults that did not happen", len(_FAULTS) - len(ledger.faults), 0, ""),
        Figure("  ends that did not happen: answered, nothing sent, unknown", _missing(ledger, unsent), 0, ""),
    ]


def _missing(ledger: Ledger, unsent: list[int]) -> int:
    unknown = ("refused: upstream_failed", "refused: upstream_timeout", "cut", "left")
    return (not ledger.ends["answered"]) + (not unsent) + sum(not ledger.ends.get(end) for end in unknown)


# --- servers --------------------------------------------------------------------------------------------------------


class Server:
    """Executes calls, and fails in every way."""

    def __init__(self, ledger: Ledger, draw: random.Random) -> None:
        self._ledger = ledger
        self._draw = draw
        self._after: dict[str, Callable[[Wire, bytes], Awaitable[None]]] = {
            "none": self._answer,
            "reset after it was executed": self._reset,
            "closed after it was executed": self._close,
            "part of the head": self._cut_head,
            "part of the body": self._cut_body,
            "too slow": self._dawdle,
            "503 after it was executed": self._deny,
            "in many pieces": self._drip,
        }

    async def script(self, wire: Wire) -> None:
        """One connection, until a fault ends it."""
        while not wire.writer.is_closing():
            (fault,) = self._draw.choices(list(_FAULTS), list(_FAULTS.values()))
            if fault == "reset while it was read":
                if await wire.reader.read(40):
                    self._ledger.faults[fault] += 1
                _reset(wire)
                return
            if fault == "reset before it was read":  # bytes that nobody reads make the kernel reset it
                await asyncio.sleep(self._draw.uniform(0, 0.02))
                self._ledger.faults[fault] += 1
                _reset(wire)
                return
            request = await wire.request()
            wire.upstream.seen.clear()
            if not request:
                return
            await self._serve(wire, request.partition(b"\r\n\r\n")[2], fault)

    async def _serve(self, wire: Wire, body: bytes, fault: str) -> None:
        if b'"tools/list"' in body:
            await wire.send(json_answer(_OFFER))
            return
        self._ledger.faults[fault] += 1
        if fault == "503 instead":
            await wire.send(json_answer(b"{}", b"503 Service Unavailable"))
            return
        number = json.loads(body)["params"]["arguments"]["number"]
        self._ledger.executed[number] += 1
        await asyncio.sleep(self._draw.uniform(0, 0.01))
        answer = json_answer(json.dumps({"jsonrpc": "2.0", "id": number, "result": {"number": number}}).encode())
        await self._after[fault](wire, answer)

    async def _answer(self, wire: Wire, answer: bytes) -> None:
        await wire.send(answer)

    async def _reset(self, wire: Wire, answer: bytes) -> None:
        _reset(wire)

    async def _close(self, wire: Wire, answer: bytes) -> None:
        wire.writer.close()

    async def _cut_head(self, wire: Wire, answer: bytes) -> None:
        await wire.send(answer[: self._draw.randrange(1, answer.index(b"\r\n\r\n"))])
        wire.writer.close()

    async def _cut_body(self, wire: Wire, answer: bytes) -> None:
        await wire.send(answer[: self._draw.randrange(answer.index(b"\r\n\r\n") + 4, len(answer))])
        wire.writer.close()

    async def _dawdle(self, wire: Wire, answer: bytes) -> None:
        await asyncio.sleep(_SLOW_S)
        await wire.send(answer)

    async def _deny(self, wire: Wire, answer: bytes) -> None:
        await wire.send(json_answer(b"{}", b"503 Service Unavailable"))

    async def _drip(self, wire: Wire, answer: bytes) -> None:
        for at in range(0, len(answer), 20):
            await wire.send(answer[at : at + 20])
            await asyncio.sleep(0.001)


def _reset(wire: Wire) -> None:
    """Unless it is gone already."""
    with contextlib.suppress(OSError):
        wire.reset()


# --- clients --------------------------------------------------------------------------------------------------------


class Clients:
    """Call one after the other; some leave in the middle."""

    def __init__(self, port: int, ledger: Ledger, draw: random.Random) -> None:
        self._port = port
        self._ledger = ledger
        self._draw = draw

    async def call_all(self, calls: int) -> None:
        """Every number once, `_AT_ONCE` at a time."""
        numbers = iter(range(calls))

        async def one_by_one() -> None:
            for number in numbers:
                self._ledger.ends[await self._call(number)].append(number)

        await asyncio.gather(*(one_by_one() for _ in range(_AT_ONCE)))

    async def _call(self, number: int) -> str:
        params = {"name": "write", "arguments": {"number": number}}
        body = json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).encode()
        leaves = self._draw.random() < 0.05
        client = await RawClient.connect(self._port)
        try:
            async with asyncio.timeout(self._draw.uniform(0, _STAYS_S) if leaves else 15):
                await client.send(post("/both/mcp", body))
                status, _, content = await client.answer()
        except TimeoutError:
            self._ledger.unknown += not leaves
            return "left"
        except (OSError, EOFError):
            return "cut"
        finally:
            client.writer.transport.abort()
        if status != 200:
            reason = reason_of(content)
            return f"refused: {reason}" if reason else f"the server's own {status}"
        self._ledger.strangers += json.loads(content)["result"]["number"] != number
        return "answered"


async def _come_and_go(fault: FaultProxy, draw: random.Random) -> None:
    """A server whose port is closed now and then, and which resets dials as it accepts them at other times."""
    while True:
        await asyncio.sleep(draw.uniform(0.3, 0.8))
        await fault.stop(reset=draw.random() < 0.5)
        await asyncio.sleep(draw.uniform(0.02, 0.2))
        await fault.start()
        await asyncio.sleep(draw.uniform(0.1, 0.3))
        fault.refuses = True
        await asyncio.sleep(draw.uniform(0.02, 0.1))
        fault.refuses = False


async def _measure(calls: int) -> Ledger:
    draw, ledger = random.Random(4), Ledger()
    server = Server(ledger, draw)
    async with AsyncExitStack() as stack:
        faults = {}
        for name in _SERVERS:
            upstream = await stack.enter_async_context(scripted_upstream(server.script))
            faults[name] = await stack.enter_async_context(fault_proxy(upstream.port))
        proxy = stack.enter_context(running_proxy(_config(faults)))
        for name in _SERVERS:
            await _teach(proxy.port, name)
        await asyncio.sleep(_LEARNED_S)
        async with asyncio.TaskGroup() as group:
            going = [group.create_task(_come_and_go(fault, draw)) for fault in faults.values()]
            await Clients(proxy.port, ledger, draw).call_all(calls)
            for each in going:
                each.cancel()
        await asyncio.sleep(2 * _SLOW_S)  # what still runs
    return ledger


async def _teach(port: int, server: str) -> None:
    """Let a list of tools pass; as often as it takes."""
    for _ in range(100):
        client = await RawClient.connect(port)
        await client.send(post(f"/{server}/mcp", _LIST))
        status, _, _ = await client.answer()
        await client.close()
        if status == 200:
            return
    raise AssertionError(f"no list of {server} passed")


def _config(faults: dict[str, FaultProxy]) -> dict[str, Any]:
    common: dict[str, Any] = {"timeouts": {"first_byte": f"{_DEADLINE_S:g}s"}}
    options: dict[str, dict[str, Any]] = {
        "one": {"breaker": {"enforce": False}},
        "two": {
            "breaker": {"open_for": "100ms", "max_open_for": "200ms"},
            "queue": {"max_concurrent": 8, "max_pending": 8, "max_wait": "20ms"},
        },
    }
    retry = {"attempts": 5, "tools": "hinted", "hedge": {"after": "5ms"}}
    return {
        "servers": {
            name: {"url": f"http://127.0.0.1:{fault.port}/mcp", **common, **options[name]}
            for name, fault in faults.items()
        },
        "routes": [{"name": "both", "path": "/both/mcp", "servers": list(_SERVERS), "retry": retry}],
        "retry_budget": {"percent": 100, "minimum": 100},
        **QUIET,
    }
