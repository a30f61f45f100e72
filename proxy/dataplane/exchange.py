"""One request and its answer, as every phase sees them, whichever lane carries them.

Owns two shapes: `Head`, the request head that the gate has accepted, and `Exchange`, what a lane must offer.
No phase knows a socket or a library behind them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from proxy.dataplane.gate import Gate
    from proxy.errors import Refusal

Headers = list[tuple[str, str]]
"""Header fields in the order received, case and repeats kept. Values are text decoded from UTF-8 (the grammar admits
nothing else), so encoding them again gives the bytes that came."""


@dataclass(slots=True)
class Head:
    """A request head that passed the strict grammar of `head.py`. Its repr shows nothing that may be a secret."""

    method: str
    """GET, HEAD, POST, DELETE or OPTIONS."""
    path: str
    """Path of the target as sent: never decoded, free of dot segments, empty segments and encoded slashes or dots."""
    query: str = field(repr=False)
    """What follows the first '?', as sent; '' when there is none."""
    minor: int
    """0 for HTTP/1.0, 1 for HTTP/1.1."""
    headers: Headers = field(repr=False)
    """Every field."""
    fields: dict[str, str] = field(repr=False)
    """Lower-case name to value; repeats of a field that may repeat are joined with ', ' (RFC 9110 section 5.3)."""
    host: str
    """`Host` without its port, lower-case; IPv6 keeps its brackets."""
    content_length: int | None
    """Body length in bytes; None without Content-Length (then `chunked` tells whether there is a body)."""
    chunked: bool
    """The body is chunked."""
    keep_alive: bool
    """The client keeps the connection for another request (RFC 9112 section 9.3)."""
    upgrade: str
    """`websocket` when the client asks for just that in a valid handshake (RFC 6455 section 4.1), else ''."""
    expects_continue: bool
    """The client waits for 100 before it sends the body."""

    def canonical(self) -> bytes:
        """The head as a lane sees it: method, target and framing, and nothing that the gate has not decided."""
        target = f"{self.path}?{self.query}" if self.query else self.path
        if self.chunked:
            framing = "Transfer-Encoding: chunked\r\n"
        elif self.content_length is not None:
            framing = f"Content-Length: {self.content_length}\r\n"
        else:
            framing = ""
        return f"{self.method} {target} HTTP/1.1\r\nHost: lane\r\n{framing}\r\n".encode()


class Exchange(Protocol):
    """What a lane offers to the pipeline: read the request, write one answer."""

    head: Head
    peer: str
    """Address of the other end of the connection, without port."""
    secure: bool
    """The request came over TLS."""
    started: bool
    """The head of the answer was handed over: from now on only `write`, `finish` and `abort` make sense."""
    closing: bool
    """The connection ends after this answer."""

    @property
    def paused(self) -> bool:
        """The client does not read: `await drain()` before the next `write`."""
        ...

    @property
    def gone(self) -> bool:
        """The client has left."""
        ...

    @property
    def fault(self) -> Refusal | None:
        """What is wrong with the body, once that is known."""
        ...

    async def read_body(self) -> bytes:
        """The whole body. Raises the `Refusal` of a body that is late, too large or badly framed."""
        ...

    async def read_chunk(self) -> bytes:
        """The next piece of the body as it arrived, b'' at its end. Raises as `read_body` does."""
        ...

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """The whole answer at once; adds Content-Length."""
        ...

    def start(self, status: int, headers: Headers) -> None:
        """Begin an answer. Its length is a Content-Length in `headers`, else the lane frames it (chunked, or by close
        for HTTP/1.0). Nothing is sent before the first `write`, `flush` or `finish`."""
        ...

    def flush(self) -> None:
        """Send the head now, without waiting for the first piece of the body."""
        ...

    def write(self, chunk: bytes) -> None:
        """Send a piece of the body at once."""
        ...

    async def drain(self) -> None:
        """Wait until the client reads again; its deadline is the gate's `stalled_reader`."""
        ...

    def finish(self, last: bytes = b"") -> None:
        """End the answer as complete; `last` is its last piece."""
        ...

    def upgrade(self, status: int, headers: Headers) -> None:
        """Answer 101 with exactly these fields; from now on `read_chunk` and `write` carry raw bytes."""
        ...

    def abort(self) -> None:
        """Reset the connection, so that what was sent so far cannot pass for a complete answer."""
        ...


Pipeline = Callable[[Exchange], Awaitable[None]]
"""What answers one request: the handler."""


class Lane(Protocol):
    """What carries accepted requests from the gate to the pipeline."""

    def connect(self, gate: Gate) -> asyncio.Protocol:
        """The protocol for a new connection: the gate feeds it canonical heads and plain bodies. It makes an
        `Exchange` of each request, sets `gate.answer` to it, runs the pipeline, and calls `gate.answered()`."""
        ...
