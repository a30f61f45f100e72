"""The gate: nothing behind it sees a byte that it did not accept.

An asyncio protocol in front of the lanes (design section 3). It finds each request head, has it parsed once by the
strict grammar of `head.py`, finds the end of the body, holds pipelined requests back until the answer is out, and
keeps the deadlines of head and body. The lane is fed a canonical head (method, target, framing) and the plain body, so
there is nothing left that two parsers could read differently.

States of a connection:

    HEAD -> BODY -> ANSWER -> HEAD ...        (no body: HEAD -> ANSWER)
      \\       \\        \\-> TUNNEL            after an accepted upgrade
       \\-------\\-------> LINGER -> CLOSED     after a refusal or a last answer
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Final

from proxy.dataplane.connection import ANSWER, BODY, CLOSED, FULL, HEAD, HELD, LINGER, LINGER_S, TUNNEL, Connection
from proxy.dataplane.framing import ChunkedReader
from proxy.dataplane.head import early_refusal, parse_head
from proxy.errors import BadRequest, Refusal, RequestTimeout

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Head
    from proxy.dataplane.lane_aiohttp import AiohttpExchange
    from proxy.dataplane.listener import Listener

#: Pipelined bytes kept while an answer is under way; above this the socket is not read.
_HELD_BYTES: Final = 64 << 10


class Gate(Connection):
    """One client connection and the requests on it."""

    __slots__ = (
        "_body_ends_by", "_buffer", "_chunked", "_held", "_left", "answer", "arrived", "fault", "gathers", "head",
        "lane", "tunnel",
    )  # fmt: skip

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener)
        self.lane: asyncio.Protocol | None = None
        self.head: Head | None = None
        self.answer: AiohttpExchange | None = None
        #: What is wrong with the body that was arriving.
        self.fault: Refusal | None = None
        self.tunnel: asyncio.StreamReader | None = None
        #: The body under way is kept until it is whole, rather than passed on; its bytes that are here.
        self.gathers = False
        self.arrived = 0
        self._buffer = bytearray()
        self._held = b""
        self._left = 0
        self._chunked: ChunkedReader | None = None
        self._body_ends_by = inf

    # --- what the transport tells ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it when the cap is reached."""
        refusal = self.attach(transport)
        if refusal is not None:
            self.refuse(refusal)
            return
        self.lane = self.listener.lane.connect(self)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client; what they are depends on the state."""
        state = self.state
        if state == HEAD:
            self._read_head(data)
        elif state == BODY:
            self._read_body(data)
        elif state == ANSWER:
            self._hold(data)
        elif state == TUNNEL and self.tunnel is not None:
            self.tunnel.feed_data(data)
        elif state == LINGER:
            self.swallow(data)

    def eof_received(self) -> bool:
        """A client that stops sending has left: closing the stream is how MCP cancels (2026-07-28, "Cancellation").

        TCP cannot tell a half-close from a close, so a request whose sender half-closes gets no answer.
        """
        if self.state == TUNNEL and self.tunnel is not None:
            self.tunnel.feed_eof()
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: the lane cancels its handler, a tunnel ends."""
        self.detach()
        if self.tunnel is not None:
            self.tunnel.set_exception(ConnectionResetError("client gone"))
        if self.lane is not None:
            self.lane.connection_lost(exc)
        self.lane = self.answer = None

    # --- requests -------------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Between two requests, with nothing of the next one here."""
        return self.state == HEAD and not self._buffer

    def _read_head(self, data: bytes) -> None:
        buffer: bytes | bytearray = data
        searched = 0
        if self._buffer:
            searched = max(0, len(self._buffer) - 3)
            self._buffer += data
            buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", searched)
        limits = self.listener.limits
        try:
            if end < 0:
                self._await_head(data)
                return
            head = parse_head(bytes(buffer[: end + 4]), limits)
        except Refusal as refusal:
            self.refuse(refusal)
            return
        rest = bytes(buffer[end + 4 :])
        if self._buffer:
            self._buffer = bytearray()
        self._begin(head, rest)

    def _await_head(self, data: bytes) -> None:
        """Keep an unfinished head, unless it is clear already that it will be refused."""
        seen = len(self._buffer) - len(data)
        if not self._buffer:
            seen = 0
            self._buffer += data
            self.deadline = self.listener.now() + self.listener.timeouts.head
        refusal = early_refusal(self._buffer, self.listener.limits, seen)
        if refusal is not None:
            raise refusal

    def _begin(self, head: Head, rest: bytes) -> None:
        """Hand an accepted head to the lane, and what is here of its body."""
        lane = self.lane
        assert lane is not None  # noqa: S101 - only an admitted connection reads heads
        self.head = head
        canonical = head.canonical()
        length = head.content_length or 0
        if not head.chunked and len(rest) == length:  # the whole request in one read: the common case
            self.state = ANSWER
            self.deadline = inf
            lane.data_received(canonical + rest)
            return
        if head.chunked or length:
            now = self.listener.now()
            self.state = BODY
            self.gathers = False
            self.arrived = 0
            self._left = length
            self._chunked = ChunkedReader(self.listener.limits.body) if head.chunked else None
            self._body_ends_by = now + self.listener.timeouts.body_total
            self.deadline = min(now + self.listener.timeouts.body, self._body_ends_by)
            self.listener.take_room(self, 0)
        else:
            self.state = ANSWER
            self.deadline = inf
        lane.data_received(canonical)
        if rest:
            self.data_received(rest)

    def _read_body(self, data: bytes) -> None:
        self.arrived += len(data)
        self.listener.take_room(self, len(data))
        if self._chunked is not None:
            self._read_chunks(data, self._chunked)
            return
        rest = data[self._left :]
        data = data[: self._left]
        self._left -= len(data)
        self._progress(complete=not self._left)
        self._feed(data)
        if rest:
            self._hold(rest)

    def _read_chunks(self, data: bytes, reader: ChunkedReader) -> None:
        try:
            pieces, consumed = reader.feed(data)
        except Refusal as refusal:
            self.fail_body(refusal)
            return
        self._progress(complete=reader.done)
        for piece in pieces:
            self._feed(b"%x\r\n%b\r\n" % (len(piece), piece))
        if reader.done:
            self._feed(b"0\r\n\r\n")
            if consumed < len(data):
                self._hold(data[consumed:])

    def _progress(self, *, complete: bool) -> None:
        if complete:
            self.state = ANSWER
            self.deadline = inf
        else:
            self.deadline = min(self.listener.now() + self.listener.timeouts.body, self._body_ends_by)

    def _feed(self, data: bytes) -> None:
        if self.lane is not None:
            self.lane.data_received(data)

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > _HELD_BYTES and not self.unread & HELD:
            self.stop_reading(HELD)

    def fail_body(self, refusal: Refusal) -> None:
        """The body is bad, late or too much: the handler that waits for it answers; if it has done so, just close."""
        self.fault = refusal
        self.state = LINGER
        self.deadline = self.listener.now() + LINGER_S
        self.stop_reading(HELD)  # until the answer is out: `swallow` would close before it
        if self.answer is None:  # the handler has not begun yet: it will find `fault`
            return
        if self.answer.finished:
            self.close()
        elif self.answer.started:
            self.abort()
        else:
            self.answer.fail(refusal)

    # --- what the lane tells --------------------------------------------------------------------------------------

    def must_close(self) -> bool:
        """Whether the answer that begins now has to be the last one on this connection.

        A lane that is still full holds a body that nobody has read: it closes when its handler is done.
        """
        return self.state != ANSWER or self.unread & FULL != 0 or self.listener.last_answers

    def answered(self) -> None:
        """The handler is done with the current request: go on with the next one, or close."""
        answer, self.answer, self.head = self.answer, None, None
        if self.state == CLOSED or self.transport.is_closing():
            return
        if answer is None or not answer.finished or answer.closing or self.state != ANSWER:
            self.go_on_reading()
            self.linger()
            return
        self.state = HEAD
        self.deadline = self.listener.now() + self.listener.idle_s
        held, self._held = self._held, b""
        if self.unread & HELD:
            self.go_on_reading(HELD)
        if held:
            self._read_head(held)

    def lane_full(self, full: bool) -> None:
        """The lane's body buffer is full, or has room again."""
        if full:
            self.stop_reading(FULL)
        else:
            self.go_on_reading(FULL)

    def lane_broke(self) -> None:
        """The lane wants to write or close by itself: it refused what the grammar accepted. 400, in our words."""
        if self.state in (LINGER, CLOSED, TUNNEL):
            return
        if self.answer is None and self.head is not None:
            self.refuse(BadRequest("lane"))
        else:
            self.linger()

    def enter_tunnel(self) -> None:
        """From now on bytes are raw; what came behind the handshake comes first."""
        self.state = TUNNEL
        self.deadline = inf
        self.go_on_reading(HELD)
        self.tunnel = asyncio.StreamReader(limit=_HELD_BYTES)
        self.tunnel.set_transport(self.transport)
        if self._held:
            self.tunnel.feed_data(self._held)
            self._held = b""

    # --- deadlines ------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """A deadline has passed (the listener's tick): 408 where a request is half here, else close."""
        if now < self.write_deadline:
            if self.state == BODY:
                self.fail_body(RequestTimeout("body"))
                return
            if self.state == HEAD and self._buffer:
                self.refuse(RequestTimeout("head"))
                return
        super().expire(now)
