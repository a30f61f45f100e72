"""Clients that call without a pause and say what went wrong, and an upstream that says who answered what."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

from tests.harness import CALL, RawClient, ScriptedUpstream, Wire, json_answer, post

SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
#: Sent by the proxy with every request to a server; names the configuration that the server belongs to.
MARKER = "X-Marker"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(number: int) -> bytes:
    return b'event: message\nid: %d\ndata: {"n":%d}\n\n' % (number, number)


def get(path: str = "/up/mcp") -> bytes:
    """The request for a stream on which nobody waits for an answer."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".encode()


def tell(notes: list[str]) -> None:
    """Print what went wrong, for whoever has to find out why."""
    for note in notes:
        print(f"  ! {note}")


def marker_of(request: bytes) -> str:
    """The marker that a request carries, '' for none."""
    found = request.lower().partition(b"\r\n" + MARKER.lower().encode() + b": ")[2]
    return found.partition(b"\r\n")[0].decode()


@dataclass
class Call:
    """One call that was answered."""

    target: str
    """Name of the tool, different for each call."""
    answered_by: str
    marker: str
    closing: bool
    """The answer announced the end of its connection."""


@dataclass
class Outcome:
    """What all clients saw."""

    calls: list[Call] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def answering(name: str, pause_s: float = 0.0) -> ScriptedUpstream:
    """An upstream that answers a call with its own name and the marker it was sent."""
    upstream = ScriptedUpstream()

    async def script(wire: Wire) -> None:
        while request := await wire.request():
            wire.upstream.seen.clear()
            if pause_s:
                await asyncio.sleep(pause_s)
            result = json.dumps({"name": name, "marker": marker_of(request)})
            await wire.send(json_answer(b'{"jsonrpc":"2.0","id":1,"result":%b}' % result.encode()))

    upstream.script = script
    return upstream


class Callers:
    """Clients that call one after the other, each on a connection of its own that it keeps as long as it may."""

    def __init__(self, port: int, count: int, path: str = "/up/mcp", pause_s: float = 0.0) -> None:
        self.outcome = Outcome()
        self._port = port
        self._path = path
        self._pause_s = pause_s
        self._stopped = False
        self._tasks = [asyncio.create_task(self._run(number)) for number in range(count)]

    async def stop(self) -> Outcome:
        """Let the calls under way end; what all of them came to."""
        self._stopped = True
        return await self.wait()

    async def wait(self) -> Outcome:
        """Until every client has stopped, because it was told to or because nobody accepts its connection."""
        await asyncio.gather(*self._tasks)
        return self.outcome

    async def _run(self, number: int) -> None:
        """A connection that cannot be opened ends the client; whatever happens on an open one is a failure."""
        client: RawClient | None = None
        made = 0
        while not self._stopped:
            if client is None:
                try:
                    client = await RawClient.connect(self._port)
                except OSError:
                    return
            made += 1
            call = await self._call(client, f"c{number}_{made}")
            if call is None or call.closing:
                await client.close()
                client = None
            await asyncio.sleep(self._pause_s)
        if client is not None:
            await client.close()

    async def _call(self, client: RawClient, target: str) -> Call | None:
        try:
            await client.send(post(self._path, CALL.replace(b"echo", target.encode())))
            status, fields, body = await client.answer()
        except (OSError, EOFError, TimeoutError) as error:
            self.outcome.failures.append(f"{target}: {type(error).__name__}")
            return None
        if status != 200:
            self.outcome.failures.append(f"{target}: {status} {body[:200]!r}")
            return None
        result = json.loads(body)["result"]
        call = Call(target, result["name"], result["marker"], fields.get("connection") == "close")
        self.outcome.calls.append(call)
        return call


class Clients:
    """Opens connections and closes all of them in the end."""

    def __init__(self) -> None:
        self._opened: list[RawClient] = []

    async def connect(self, port: int) -> RawClient:
        """A new connection to the proxy."""
        client = await RawClient.connect(port)
        self._opened.append(client)
        return client

    async def started(self, port: int, request: bytes) -> RawClient:
        """A client whose stream has sent its head and its first event."""
        client = await self.connect(port)
        await client.send(request)
        await client.head()
        assert await client.chunk() == event(0)
        return client

    async def close(self) -> None:
        """Close every connection that was opened."""
        for client in self._opened:
            await client.close()
