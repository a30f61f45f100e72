"""Writing one HTTP/1.1 answer straight to the transport: the half of an `Exchange` that all lanes share.

Owns response framing (RFC 9112 section 6): Content-Length as given, else chunked, else (HTTP/1.0) by closing. It knows
the transport and nothing about requests but their head. Headers arrive ready from `rewrite.py`.

The head waits for the first piece of the body, so that a small answer leaves in one write; `flush` sends it alone.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from proxy.dataplane.connection import CLOSED

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Head, Headers
    from proxy.dataplane.gate import Gate
    from proxy.errors import Refusal

_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
#: Statuses that never have a body (RFC 9110 section 6.4.1).
_BODILESS: Final = frozenset((204, 304))


def head_bytes(status: int, headers: Headers, connection: str = "") -> bytes:
    """A response head in bytes; `connection` is the value of a Connection field to add, if any."""
    line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n"
    lines = [line, *[f"{name}: {value}\r\n" for name, value in headers]]
    if connection:
        lines.append(f"Connection: {connection}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode()


class Answer:
    """Framing state of one answer on one connection."""

    __slots__ = ("_chunked", "_pending", "closing", "finished", "gate", "head", "peer", "secure", "started", "upgraded")

    def __init__(self, gate: Gate, head: Head) -> None:
        self.gate = gate
        self.head = head
        self.peer = gate.peer
        self.secure = gate.secure
        self.started = False
        self.finished = False
        self.upgraded = False
        #: The connection ends after this answer.
        self.closing = not head.keep_alive
        self._pending = b""
        self._chunked = False

    @property
    def paused(self) -> bool:
        """The client does not read fast enough: the transport's buffer is over its high-water mark."""
        return self.gate.write_paused

    @property
    def gone(self) -> bool:
        """The client's connection is closed."""
        return self.gate.state == CLOSED

    @property
    def fault(self) -> Refusal | None:
        """What the gate found wrong with the body."""
        return self.gate.fault

    async def drain(self) -> None:
        """Wait until the transport's buffer is below its low-water mark; the gate cuts a reader that stalls."""
        await self.gate.drain()

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Send the whole answer in one write, with its Content-Length."""
        self.start(status, headers if status in _BODILESS else [*headers, ("Content-Length", str(len(body)))])
        self.finish(b"" if self.head.method == "HEAD" else body)

    def start(self, status: int, headers: Headers) -> None:
        """Take the head of an answer; it leaves with the first piece of the body."""
        self.started = True
        gate = self.gate
        if gate.must_close():
            self.closing = True
        connection = "close" if self.closing else ""
        if status not in _BODILESS and self.head.method != "HEAD" and not _has_length(headers):
            if self.head.minor == 0:
                self.closing, connection = True, "close"
                gate.ends_answer = True
            else:
                self._chunked = True
                headers = [*headers, ("Transfer-Encoding", "chunked")]
        if self.head.minor == 0 and not self.closing:
            connection = "keep-alive"
        self._pending = head_bytes(status, headers, connection)

    def flush(self) -> None:
        """Send the head now."""
        if self._pending:
            self.gate.transport.write(self._pending)
            self._pending = b""

    def write(self, chunk: bytes) -> None:
        """Send a piece of the body, and the head before it if that still waits."""
        if not chunk:
            return
        if self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(chunk), chunk)
        if self._pending:
            chunk, self._pending = self._pending + chunk, b""
        self.gate.transport.write(chunk)

    def finish(self, last: bytes = b"") -> None:
        """End the answer as complete, with a last piece of the body in the same write."""
        self.finished = True
        if self._chunked:
            last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last) if last else b"0\r\n\r\n"
        if self._pending:
            last, self._pending = self._pending + last, b""
        if last:
            self.gate.transport.write(last)

    def abort(self) -> None:
        """Reset the connection; whatever was sent cannot be taken for a complete answer."""
        self.closing = True
        self.gate.abort()

    def upgrade(self, status: int, headers: Headers) -> None:
        """Answer 101 and hand the connection over to raw bytes (RFC 6455 section 4.2.2)."""
        self.started = self.upgraded = self.closing = True
        self.gate.transport.write(head_bytes(status, headers))
        self.gate.enter_tunnel()


def _has_length(headers: Headers) -> bool:
    return any(len(name) == 14 and name.lower() == "content-length" for name, _ in headers)
