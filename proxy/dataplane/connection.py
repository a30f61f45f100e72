"""One client connection below its requests: reading and writing with pauses, deadlines and the ways it can end.

Owns the transport and the state. What the bytes mean is `gate.py`, which builds on this class.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from math import inf
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from proxy.dataplane.listener import Listener
    from proxy.errors import Refusal

# The states of a connection; gate.py draws how they follow each other.
#: Waiting for a request head, or between two requests.
HEAD: Final = 0
#: The head is with the lane, the body still arrives.
BODY: Final = 1
#: The request is complete, its answer is not; further bytes are held back.
ANSWER: Final = 2
#: The last answer is out: swallow a little, then close.
LINGER: Final = 3
#: Raw bytes both ways after an accepted upgrade.
TUNNEL: Final = 4
CLOSED: Final = 5

#: What is read and dropped after a last answer, so that the client can read it before a reset (RFC 9112 section 9.6).
_LINGER_BYTES: Final = 64 << 10
#: How long a connection may take to end once it is to end, seconds.
LINGER_S: Final = 2.0
#: How long an idle connection stays when the proxy is going away, seconds: a request may be on its way already, and
#: closing on it would fail it. It gets its answer, with `Connection: close`.
QUIET_S: Final = 0.5
#: Write buffer above which the relay waits, bytes. Small, because each stalled reader may hold this much.
HIGH_WATER: Final = 64 << 10
#: The same while memory is short.
LOW_WATER: Final = 16 << 10
# Why a connection is not read; each ends by itself.
#: Bytes are held back until the answer is out.
HELD: Final = 1
#: The lane has no room for more of the body.
FULL: Final = 2
#: The process has no room for more of the body.
STARVED: Final = 4
#: A piece of the body is on its way to the upstream: one read alone may be 256 KiB.
BUSY: Final = 8
#: Linger on, for no time: closing sends RST.
_RST: Final = struct.pack("ii", 1, 0)


class Connection(asyncio.Protocol):
    """The transport's side of a client connection."""

    __slots__ = (
        "_drain_waiters", "_lingered", "deadline", "ends_answer", "listener", "peer", "secure", "state", "transport",
        "unread", "write_deadline", "write_paused",
    )  # fmt: skip

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.state = HEAD
        #: Loop time at which `expire` is due, and the same for a client that does not read.
        self.deadline = inf
        self.write_deadline = inf
        self.write_paused = False
        #: Its end is the end of the answer under way, so that a broken one must end in no other way than by RST.
        self.ends_answer = False
        #: Why it is not read, as a sum; 0: it is.
        self.unread = 0
        self._lingered = 0
        self._drain_waiters: list[asyncio.Future[None]] = []

    def attach(self, transport: asyncio.BaseTransport) -> Refusal | None:
        """Take the transport; a `Refusal` when there are too many connections."""
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer: str = peer[0] if isinstance(peer, tuple) else "local"
        self.secure = transport.get_extra_info("sslcontext") is not None
        self.transport.set_write_buffer_limits(high=self.listener.high_water)
        return self.listener.admit(self)

    def detach(self) -> None:
        """The transport is gone: whoever waits to write learns so."""
        self.state = CLOSED
        self.deadline = self.write_deadline = inf
        for waiter in self._drain_waiters:
            if not waiter.done():
                waiter.set_exception(ConnectionResetError("client gone"))
        self._drain_waiters.clear()
        self.listener.forget(self)

    @property
    def idle(self) -> bool:
        """Between two requests."""
        return self.state == HEAD

    # --- reading --------------------------------------------------------------------------------------------------

    def stop_reading(self, why: int) -> None:
        """Leave what comes in the kernel's buffer, until `go_on_reading` takes back every reason."""
        self.unread |= why
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def go_on_reading(self, why: int = HELD | FULL | STARVED | BUSY) -> None:
        """These reasons not to read are gone."""
        self.unread &= ~why
        if not self.unread and not self.transport.is_closing():
            self.transport.resume_reading()

    # --- writing --------------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client does not read: the relay waits, and the clock for stalled readers runs."""
        self.write_paused = True
        self.write_deadline = self.listener.now() + self.listener.timeouts.stalled_reader

    def resume_writing(self) -> None:
        """The client reads again."""
        self.write_paused = False
        self.write_deadline = inf
        for waiter in self._drain_waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._drain_waiters.clear()

    async def drain(self) -> None:
        """Wait until writing may go on. Raises ConnectionResetError when the client leaves."""
        if self.write_paused:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._drain_waiters.append(waiter)
            await waiter

    # --- endings --------------------------------------------------------------------------------------------------

    def refuse(self, refusal: Refusal) -> None:
        """Answer a request that never reached the pipeline, and close."""
        self.transport.write(self.listener.refusal_bytes(refusal, self.peer))
        self.linger()

    def linger(self) -> None:
        """Stop sending, swallow a little so that the answer survives, then close."""
        if self.state == CLOSED:
            return
        self.state = LINGER
        self.deadline = self.listener.now() + LINGER_S
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.close()

    def swallow(self, data: bytes) -> None:
        """Drop what still comes after the last answer; close when it is too much."""
        self._lingered += len(data)
        if self._lingered > _LINGER_BYTES:
            self.close()

    def close(self) -> None:
        """Close after what is buffered is written; the clock for stalled readers still runs."""
        self.transport.close()

    def abort(self) -> None:
        """End at once; what is not written yet is dropped. RST only where it must be: clients lose what is unread."""
        if self.ends_answer:
            with contextlib.suppress(OSError):  # closed already
                self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        self.transport.abort()

    def expire(self, now: float) -> None:
        """A deadline has passed and nothing is owed to the client: close, and reset when even that takes too long."""
        if now >= self.write_deadline:
            self.ends_answer = True  # it lost what it does not read: the kernel need not keep that for a minute
            self.abort()
        elif self.transport.is_closing():
            self.abort()
        else:
            self.close()
            self.deadline = now + LINGER_S
