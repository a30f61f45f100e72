"""aiohttp's client bent to a proxy's needs: exact header fields, and no stale connection. Part of the client's door.

Only public API is overridden: `ClientRequest`'s update methods and `TCPConnector.connect`. Used by `client.py` alone.
"""

from __future__ import annotations

import asyncio
import select
import ssl
import time
from collections.abc import AsyncIterator
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp import StreamReader
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace
    from yarl import URL

    from proxy.config.models import Server
    from proxy.dataplane.exchange import Headers
    from proxy.metrics import ServerMetrics

Body = bytes | AsyncIterator[bytes] | None

#: Upstream response heads may be larger than what we accept from clients; still bounded.
PARSER: Final[dict[str, Any]] = {
    "auto_decompress": False,
    "read_bufsize": 64 << 10,
    "max_line_size": 64 << 10,
    "max_field_size": 64 << 10,
    "max_headers": 256,
}


class Keepalive:
    """How long an idle connection to one server may be used again, seconds."""

    __slots__ = ("hasty", "reuse_s")

    def __init__(self, reuse_s: float) -> None:
        self.reuse_s = reuse_s
        #: The server announced that it closes idle connections sooner than our own limit.
        self.hasty = False

    def learn(self, announced: str) -> None:
        """Take a `Keep-Alive: timeout=5`, as Node sends it; half of it leaves room for what is on its way.

        It never grows back: it is a property of the server.
        """
        digits = announced.partition("timeout=")[2].split(",")[0].strip()
        if digits.isdecimal() and len(digits) < 6 and int(digits) / 2 < self.reuse_s:
            self.hasty = True
            self.reuse_s = int(digits) / 2


class Outbound:
    """What one request puts on the wire, carried through aiohttp as its `data`."""

    __slots__ = ("body", "headers")

    def __init__(self, headers: Headers, body: Body) -> None:
        self.headers = headers
        self.body = body


class Request(aiohttp.ClientRequest):
    """aiohttp's request without its opinions: the header fields are ours, to the letter."""

    def __init__(self, method: str, url: URL, *, data: Outbound, **options: Any) -> None:
        self._outbound = data
        super().__init__(method, url, data=data.body, **options)

    def update_headers(self, headers: Any) -> None:
        self.headers = CIMultiDict(self._outbound.headers)

    def update_cookies(self, cookies: Any) -> None:
        return None

    def update_content_encoding(self, data: Any) -> None:
        self.compress = None

    def update_body_from_data(self, body: Any, _stacklevel: int = 3) -> None:
        if body is not None:
            super().update_body_from_data(body, _stacklevel + 1)


class Response(aiohttp.ClientResponse):
    """aiohttp's response, which keeps what tells how its connection ended."""

    protocol: ResponseHandler | None = None

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        self.protocol = connection.protocol
        response = await super().start(connection)
        if self.protocol is not None and not self.content.is_eof():
            watch_end(self.protocol, self.content)
        return response

    @staticmethod
    def ends_with_connection(headers: Mapping[str, str], content: StreamReader) -> bool:
        """Whether a body ends with its connection (RFC 9112 section 6.3), where a broken one is no end."""
        return (
            "Content-Length" not in headers
            and content is not aiohttp.EMPTY_PAYLOAD
            and "chunked" not in headers.get("Transfer-Encoding", "").lower()
        )


class Connector(aiohttp.TCPConnector):
    """aiohttp's pool, which refuses to reuse a connection that the upstream has closed or is about to close."""

    def __init__(self, keepalive: Keepalive, metrics: ServerMetrics, **options: Any) -> None:
        super().__init__(**options)
        self._keepalive = keepalive
        self._metrics = metrics
        self._poll = select.poll()
        #: Connections that are open now, in use or idle.
        self.open = 0

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """A fresh connection, or one that the upstream still holds open."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is None:
                raise aiohttp.ServerDisconnectedError
            state = vars(protocol)
            if "idle_since" not in state:
                state["idle_since"] = -inf  # not known: once the upstream is hasty, that is too long
                self._metrics.pool_connects += 1
                if connection.transport is not None:  # a streamed body waits until all that was written has left
                    connection.transport.set_write_buffer_limits(high=0)
                self._count(protocol)
            elif protocol.should_close or self._expired(state["idle_since"]) or self._readable(protocol):
                connection.close()
                continue
            else:
                self._metrics.pool_reuses += 1
            if self._keepalive.hasty:
                connection.add_callback(partial(_note_idle, state))
            return connection

    def _count(self, protocol: ResponseHandler) -> None:
        """Count a new connection for as long as it is open."""
        closed = protocol.closed
        if closed is not None:
            self.open += 1
            closed.add_done_callback(self._gone)

    def _gone(self, closed: asyncio.Future[None]) -> None:
        self.open -= 1
        if not closed.cancelled():
            closed.exception()  # asyncio logs one that nobody looks at

    def _expired(self, idle_since: float) -> bool:
        """Only an upstream that keeps connections for less than our own limit needs a clock of its own."""
        return self._keepalive.hasty and time.monotonic() - idle_since > self._keepalive.reuse_s

    def _readable(self, protocol: ResponseHandler) -> bool:
        """An idle connection with something to read has its end there, or an answer to nothing.

        What the event loop has read already shows in `should_close`.
        """
        transport = protocol.transport
        sock = transport.get_extra_info("socket") if transport is not None else None
        if sock is None:
            return True
        fd = sock.fileno()
        self._poll.register(fd, select.POLLIN | select.POLLRDHUP)
        try:
            return bool(self._poll.poll(0))
        finally:
            self._poll.unregister(fd)


def _note_idle(state: dict[str, Any]) -> None:
    state["idle_since"] = time.monotonic()


def watch_end(protocol: ResponseHandler, content: StreamReader) -> None:
    """See to it that whoever reads `content`, which is not complete, learns when its connection is gone.

    aiohttp closes the connection on a broken chunk and leaves the reader of the body waiting (3.14).
    """
    state = vars(protocol)
    if "reading" not in state:
        closed = protocol.closed
        if closed is None:
            _fail_reader({"reading": content}, None)
            return
        closed.add_done_callback(partial(_fail_reader, state))
    state["reading"] = content


def _fail_reader(state: dict[str, Any], closed: asyncio.Future[None] | None) -> None:
    content = state["reading"]
    if closed is not None and not closed.cancelled():
        closed.exception()  # asyncio logs one that nobody looks at
    if not content.is_eof() and content.exception() is None:
        content.set_exception(aiohttp.ClientPayloadError("connection lost"))


class Truncated(Exception):
    """The upstream broke off inside a body: what came so far must not look complete."""


class UpstreamResponse:
    """The answer of an upstream: its head, and its body as it arrives."""

    __slots__ = ("_abandon", "_content", "_ends_with", "_release", "connect_s", "headers", "status")

    def __init__(
        self,
        release: Callable[[], None],
        status: int,
        headers: Headers,
        content: StreamReader,
        ends_with: ResponseHandler | None,
        abandon: Callable[[], None],
    ) -> None:
        self.status = status
        self.headers = headers
        self.connect_s = 0.0  # what it took to get a connection, where that is known
        self._content = content
        #: The connection whose end is the end of the body; None for a body that says itself where it ends.
        self._ends_with = ends_with
        self._abandon = abandon
        self._release = release

    @property
    def ended(self) -> bool:
        """The body is complete and all of it was read."""
        return self._content.at_eof()

    def read_nowait(self) -> bytes:
        """What has arrived of the body, b'' for nothing; raises `Truncated`."""
        try:
            chunk = self._content.read_nowait()
        except (aiohttp.ClientError, OSError) as error:
            raise Truncated(type(error).__name__) from None
        if self._ends_with is not None:
            self._check_end(self._ends_with)
        return chunk

    async def read(self) -> bytes:
        """The next piece of the body, b'' at its end; raises `Truncated`."""
        try:
            chunk = await self._content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise Truncated(type(error).__name__) from None
        if self._ends_with is not None:
            self._check_end(self._ends_with)
        return chunk

    def close(self) -> None:
        """Close the connection at once, unless the answer is complete and it has gone back to the pool."""
        if not self._content.is_eof() or self._content.exception() is not None:
            self._abandon()
        self._release()

    def _check_end(self, protocol: ResponseHandler) -> None:
        """A body that ends with the connection is complete only if the connection ended in order."""
        error = protocol.exception() if self._content.at_eof() else None
        if error is not None and not isinstance(error, aiohttp.ServerDisconnectedError):
            raise Truncated(type(error).__name__)


def tls_context(config: Server) -> ssl.SSLContext:
    """Certificates are always checked; `tls.ca` replaces the system's authorities."""
    context = ssl.create_default_context(cafile=config.tls.ca)
    context.set_alpn_protocols(["http/1.1"])
    if config.tls.certificate is not None:
        context.load_cert_chain(config.tls.certificate, config.tls.key)
    return context


def text_of(raw: tuple[tuple[bytes, bytes], ...]) -> Headers:
    """Fields as they came; aiohttp's parsed ones have names in a case of its own."""
    return [(name.decode(), value.decode("utf-8", "surrogateescape")) for name, value in raw]


def path_of(url: str) -> str:
    """The request target in origin form (RFC 9112 section 3.2.1)."""
    parts = urlsplit(url)
    path = parts.path or "/"
    return f"{path}?{parts.query}" if parts.query else path
