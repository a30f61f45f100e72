"""A very cheap MCP server: it finds the end of each request and writes an answer made beforehand.

python -m benchmarks.upstream PORT

The request says with `X-Answer` what it wants: `json`, `sse` (one event) or `big` (1 MiB). `initialize` is answered
with a session id. `X-Answer: hold` opens an SSE stream that sends one event and then stays silent; `silent` is never
answered; `ticks N MS` sends N events, one every MS milliseconds, each carrying the moment at which it was written
(`time.monotonic_ns`, the same clock in all processes of a machine).
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Final, cast

import uvloop

from benchmarks import messages

_OK: Final = b"HTTP/1.1 200 OK\r\n"
_JSON_HEAD: Final = _OK + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_SSE_HEAD: Final = (
    _OK + b"Content-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_INITIALIZED: Final = (
    b'{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{}}}'
)


def chunk(content: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(content), content)


_JSON: Final = _JSON_HEAD % len(messages.SMALL_JSON) + messages.SMALL_JSON
_ANSWERS: Final = {
    b"json": _JSON,
    b"sse": _SSE_HEAD + chunk(messages.SMALL_EVENT) + b"0\r\n\r\n",
    b"big": _JSON_HEAD % len(messages.BIG_JSON) + messages.BIG_JSON,
    b"hold": _SSE_HEAD + chunk(b"event: message\r\ndata: {}\r\n\r\n"),
    b"silent": b"",
}
_INITIALIZE_ANSWER: Final = (
    _OK + b"Mcp-Session-Id: " + messages.SESSION.encode() + b"\r\n" + (_JSON_HEAD % len(_INITIALIZED))[len(_OK) :]
) + _INITIALIZED


class Upstream(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer once the body is here; only Content-Length framing is known."""
        buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r\n\r\n") + 4
        if end < 4 or len(buffer) < end + self._body_length(buffer[:end]):
            self._buffer = buffer
            return
        self._buffer = b""
        self.answer(buffer[:end], buffer[end:])

    @staticmethod
    def _body_length(head: bytes) -> int:
        at = head.find(b"ontent-Length: ")
        if at < 0:
            at = head.lower().find(b"ontent-length: ")
        return int(head[at + 15 : head.find(b"\r", at)]) if at > 0 else 0

    def answer(self, head: bytes, body: bytes) -> None:
        """Write what the request asks for."""
        at = head.find(b"X-Answer: ")
        wanted = head[at + 10 : head.find(b"\r", at)] if at > 0 else b"json"
        if b'"initialize"' in body:
            self.transport.write(_INITIALIZE_ANSWER)
        elif wanted.startswith(b"ticks "):
            self.transport.write(_SSE_HEAD)
            _, count, pause_ms = wanted.split()
            self._tick(int(count), int(pause_ms) / 1000)
        else:
            self.transport.write(_ANSWERS[wanted])

    def _tick(self, left: int, pause_s: float) -> None:
        if self.transport.is_closing():
            return
        if not left:
            self.transport.write(b"0\r\n\r\n")
            return
        self.transport.write(chunk(b"data: %d\n\n" % time.monotonic_ns()))
        asyncio.get_running_loop().call_later(pause_s, self._tick, left - 1, pause_s)


async def serve(port: int) -> None:
    """Listen on loopback until killed."""
    async with await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096):
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
