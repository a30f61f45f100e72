"""The first lane: aiohttp's low-level server behind the gate. The only importer of aiohttp's server side.

aiohttp parses the canonical head again, keeps the body with back-pressure, runs the handler as a task and cancels it
when the client leaves (`handler_cancellation=True`: without it an upstream never learns that its client is gone).
Answers do not pass through aiohttp: `answer.py` writes them to the transport, so that no header is added or changed.
Only public API is used: `web.Server`, its protocol's methods, and `StreamReader`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from proxy.dataplane.answer import Answer
from proxy.dataplane.connection import BUSY
from proxy.errors import Refusal

if TYPE_CHECKING:
    from aiohttp import StreamReader
    from aiohttp.abc import AbstractStreamWriter

    from proxy.dataplane.exchange import Pipeline
    from proxy.dataplane.gate import Gate

#: aiohttp's own limits and timers stand back: the gate has the stricter ones.
_NO_LIMIT: Final = 1 << 30
_NO_TIMER_S: Final = 10 * 365 * 86400.0
#: Body bytes that wait for the handler before the socket is no longer read.
_READ_BUFFER_BYTES: Final = 64 << 10


class AiohttpExchange(Answer):
    """One request carried by aiohttp: the body from its `StreamReader`, the answer straight to the transport."""

    __slots__ = ("_content",)

    def __init__(self, gate: Gate, content: StreamReader) -> None:
        assert gate.head is not None  # noqa: S101 - the gate feeds the lane only when it has a head
        super().__init__(gate, gate.head)
        self._content = content
        gate.answer = self
        if gate.fault is not None:
            self.fail(gate.fault)

    async def read_body(self) -> bytes:
        """The whole body; raises the gate's `Refusal` when it is late, too large or badly framed."""
        self._continue()
        content = self._content
        if content.is_eof() and content.exception() is None:
            return content.read_nowait()
        self.gate.gathers = True
        try:
            return await content.read()
        except BaseException as error:  # whose traceback would keep what was read until the garbage collector comes
            raise error.with_traceback(None) from None

    async def read_chunk(self) -> bytes:
        """The next piece, b'' at the end; in a tunnel, the next raw bytes."""
        if self.upgraded:
            tunnel = self.gate.tunnel
            return await tunnel.read(_READ_BUFFER_BYTES) if tunnel is not None else b""
        self._continue()
        gate, content = self.gate, self._content
        if gate.unread & BUSY:
            gate.go_on_reading(BUSY)
        chunk = await content.readany()
        if not content.is_eof():
            gate.stop_reading(BUSY)
        return chunk

    def fail(self, refusal: Refusal) -> None:
        """Make the reader of the body raise `refusal`."""
        self._content.set_exception(refusal)

    def _continue(self) -> None:
        if self.head.expects_continue and not self.started and not self._content.total_bytes:
            self.head.expects_continue = False
            self.gate.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


class _Answered(web.StreamResponse):
    """What aiohttp gets as the response: one that was already sent."""

    @property
    def keep_alive(self) -> bool | None:
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes | bytearray | memoryview = b"") -> None:
        return None


class _LaneTransport(asyncio.Transport):
    """The transport as aiohttp sees it: it may pause reading; writing and closing are the gate's."""

    __slots__ = ("gate",)

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.gate.transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self.gate.transport.is_closing()

    def pause_reading(self) -> None:
        self.gate.lane_full(True)

    def resume_reading(self) -> None:
        self.gate.lane_full(False)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.gate.lane_broke()

    def close(self) -> None:
        self.gate.lane_broke()

    abort = close


def _silence() -> logging.Logger:
    """aiohttp quotes requests in what it logs; all that is worth saying is in our own record."""
    logger = logging.getLogger("proxy.lane.aiohttp")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


class AiohttpLane:
    """Makes one aiohttp protocol per connection and hands each request to the pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._answered = _Answered()
        self._server = web.Server(
            self._serve,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=_NO_TIMER_S,
            lingering_time=0,
            logger=_silence(),
            max_field_size=_NO_LIMIT,
            max_line_size=_NO_LIMIT,
            read_bufsize=_READ_BUFFER_BYTES,
            tcp_keepalive=False,
        )

    def connect(self, gate: Gate) -> asyncio.Protocol:
        """The protocol for a new connection; from now on it is fed by `gate`."""
        protocol: asyncio.Protocol = self._server()
        protocol.connection_made(_LaneTransport(gate))
        return protocol

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        if not isinstance(transport, _LaneTransport):  # the client left before the task began
            raise asyncio.CancelledError
        exchange = AiohttpExchange(transport.gate, request.content)
        try:
            await self._pipeline(exchange)
        finally:
            transport.gate.answered()
        return self._answered
