"""The door to upstream servers: one HTTP/1.1 client and connection pool per server. aiohttp's client is
imported here and in `connector.py` only.

Sends exactly the header fields and body bytes it is given and hands back the same of the answer: no redirects, no
cookies, no decompression, no automatic headers. It never sends a request with a body twice: a connection that may be
stale is not used at all, rather than tried and repeated.

It raises `ConnectFailed` (nothing was sent), `PoolExhausted`, `UpstreamTimeout` and `UpstreamFailed`; while a body is
read, `Truncated`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from proxy.dataplane.connector import Body, Connector, Keepalive, Outbound, Request, Slots
from proxy.errors import ConnectFailed, PoolExhausted, UpstreamFailed, UpstreamTimeout

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler

    from proxy.config.models import Server
    from proxy.dataplane.exchange import Headers
    from proxy.metrics import ServerMetrics

#: Upstream response heads may be larger than what we accept from clients; still bounded.
_MAX_HEAD_LINE: Final = 64 << 10
_MAX_HEADERS: Final = 256
_READ_BUFFER_BYTES: Final = 64 << 10
#: A body in one piece up to here; above, aiohttp writes it in pieces so that the loop is not held.
_ONE_PIECE_BYTES: Final = 512 << 10
_HTTP_SCHEME: Final = {"ws": "http", "wss": "https"}


class Truncated(Exception):
    """The upstream broke off inside a body: what came so far must not look complete."""


class UpstreamResponse:
    """The answer of an upstream: its head, and its body as it arrives."""

    __slots__ = ("_client", "_content", "_protocol", "_response", "headers", "status")

    def __init__(self, client: UpstreamClient, response: aiohttp.ClientResponse) -> None:
        self._client = client
        self._response = response
        self._content = response.content
        connection = response.connection
        #: None once the whole answer is here: aiohttp has given the connection back already.
        self._protocol = connection.protocol if connection is not None else None
        self.status = response.status
        self.headers: Headers = list(response.headers.items())

    @property
    def ended(self) -> bool:
        """The body is complete and all of it was read."""
        return self._content.at_eof()

    def read_nowait(self) -> bytes:
        """What has arrived of the body, b'' for nothing; raises `Truncated`."""
        try:
            return self._content.read_nowait()
        except (aiohttp.ClientError, OSError) as error:
            raise Truncated(type(error).__name__) from None

    async def read(self) -> bytes:
        """The next piece of the body, b'' at its end; raises `Truncated`."""
        try:
            chunk = await self._content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise Truncated(type(error).__name__) from None
        if not chunk and self._protocol is not None:
            self._check_end(self._protocol)
        return chunk

    def close(self) -> None:
        """Give the connection back when the answer is complete, else close it at once."""
        self._response.close() if not self._content.is_eof() else self._response.release()
        self._client.release()

    def _check_end(self, protocol: ResponseHandler) -> None:
        """A body that ends with the connection is complete only if the connection ended in order."""
        error = protocol.exception()
        if error is not None and not isinstance(error, aiohttp.ServerDisconnectedError):
            raise Truncated(type(error).__name__)


class UpstreamClient:
    """Sends requests to one server. Made without I/O; connects with the first request."""

    def __init__(self, config: Server, metrics: ServerMetrics) -> None:
        self.metrics = metrics
        self._config = config
        self._keepalive = Keepalive(config.pool.keepalive)
        self._slots = Slots(config.pool.max_connections)
        self._session: aiohttp.ClientSession | None = None
        parts = urlsplit(config.url)
        self._url = URL(parts._replace(scheme=_HTTP_SCHEME.get(parts.scheme, parts.scheme)).geturl(), encoded=True)
        self.tls = _tls_context(config) if self._url.scheme == "https" else None

    @property
    def in_use(self) -> int:
        """Exchanges that hold a connection now."""
        return self._slots.used

    @property
    def limit(self) -> int:
        """`pool.max_connections`."""
        return self._slots.limit

    async def send(self, method: str, target: str, headers: Headers, body: Body) -> UpstreamResponse:
        """Send one request and wait for the head of its answer.

        `target` is an absolute URL of this server, or '' for the configured one. `headers` start with Host and go out
        as they are. Whoever gets the response must `close` it.
        """
        slots, timeouts, metrics = self._slots, self._config.timeouts, self.metrics
        if slots.used < slots.limit:
            slots.used += 1
        else:
            metrics.pool_waits += 1
            try:
                await slots.wait(timeouts.connect)
            except TimeoutError:
                raise PoolExhausted("pool", headers=(("Retry-After", "1"),)) from None
        metrics.pool_in_use += 1
        try:
            async with asyncio.timeout(timeouts.first_byte):
                return await self._round_trip(method, target, headers, body)
        except BaseException as error:
            self.release()
            if isinstance(error, TimeoutError):
                raise UpstreamTimeout("first_byte") from None
            raise

    async def _round_trip(self, method: str, target: str, headers: Headers, body: Body) -> UpstreamResponse:
        session = self._session or self._open()
        url = URL(target, encoded=True) if target else self._url
        if isinstance(body, bytes) and len(body) > _ONE_PIECE_BYTES:
            body = _pieces(body)
        try:
            response = await session.request(method, url, data=Outbound(headers, body), allow_redirects=False)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorDNSError) as error:
            raise ConnectFailed(type(error).__name__) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpstreamFailed(f"{type(error).__name__}") from None
        if not 200 <= response.status <= 599:
            response.close()
            raise UpstreamFailed("status")
        announced = response.headers.get("Keep-Alive")
        if announced is not None:
            self._keepalive.learn(announced)
        return UpstreamResponse(self, response)

    def release(self) -> None:
        """An exchange is over."""
        self.metrics.pool_in_use -= 1
        self._slots.release()

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        timeouts = self._config.timeouts
        connector = Connector(
            self._keepalive,
            self.metrics,
            limit=0,
            keepalive_timeout=max(self._config.pool.keepalive, 0.001),
            force_close=False,
            ssl=self.tls if self.tls is not None else True,
            ttl_dns_cache=10,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            request_class=Request,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect),
            read_bufsize=_READ_BUFFER_BYTES,
            max_line_size=_MAX_HEAD_LINE,
            max_field_size=_MAX_HEAD_LINE,
            max_headers=_MAX_HEADERS,
        )
        return self._session


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _READ_BUFFER_BYTES):
        yield body[start : start + _READ_BUFFER_BYTES]


def _tls_context(config: Server) -> ssl.SSLContext:
    """Certificates are always checked; `tls.ca` replaces the system's authorities."""
    context = ssl.create_default_context(cafile=config.tls.ca)
    context.set_alpn_protocols(["http/1.1"])
    if config.tls.certificate is not None:
        context.load_cert_chain(config.tls.certificate, config.tls.key)
    return context
