"""The door to upstream servers: one HTTP/1.1 client and connection pool per server. aiohttp's client is
imported here and in `connector.py` only.

Sends exactly the header fields and body bytes it is given and hands back the same of the answer: no redirects, no
cookies, no decompression, no automatic headers. It never sends a request twice: a connection that may be stale is not
used at all, rather than tried and repeated.

It raises `ConnectFailed` (nothing was sent), `PoolExhausted`, `UpstreamTimeout` and `UpstreamFailed`; while a body is
read, `Truncated`.

A request whose body is at hand takes aiohttp's connection pool and response parser, and not its `ClientSession`:
building `ClientRequest` and `ClientResponse`, copying the fields twice and a task for the body cost more than
everything else on the way (benchmarks/README.md has the figures). A streamed body goes through the session.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

import aiohttp
from aiohttp.http import HttpProcessingError
from yarl import URL

from proxy.dataplane import tcp
from proxy.dataplane.connector import (
    PARSER,
    Body,
    Connector,
    Keepalive,
    Outbound,
    Request,
    Response,
    Truncated,
    UpstreamResponse,
    path_of,
    text_of,
    tls_context,
    watch_end,
)
from proxy.dataplane.resolver import Resolver
from proxy.dataplane.slots import Slots
from proxy.errors import ConnectFailed, PoolExhausted, UpstreamFailed, UpstreamTimeout, retry_after

if TYPE_CHECKING:
    from aiohttp.connector import Connection

    from proxy.config.models import Server
    from proxy.config.reachable import Reachable
    from proxy.dataplane.deadlines import Deadlines
    from proxy.dataplane.exchange import Headers
    from proxy.metrics import ServerMetrics

__all__ = ["Origin", "Truncated", "UpstreamClient", "UpstreamResponse", "origin_of"]

#: Fields that aiohttp would add to a streamed request.
_AUTOMATIC: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
#: Interim answers (1xx) that are read before the real one is given up.
_MOST_INTERIM: Final = 8
_HTTP_SCHEME: Final = {"ws": "http", "wss": "https"}


Origin = Literal["connect", "tls", "timeout", "reset"]
"""Where a request failed: no connection, no TLS, no answer in time, or the connection lost before the answer."""


def origin_of(error: ConnectFailed | UpstreamFailed | UpstreamTimeout) -> Origin:
    """What kind of failure it was; of connections, the name of the library's exception tells."""
    if isinstance(error, UpstreamTimeout):
        return "timeout"
    if isinstance(error, UpstreamFailed):
        return "reset"
    if "Timeout" in error.detail:
        return "timeout"
    return "tls" if "SSL" in error.detail or "Certificate" in error.detail else "connect"


class UpstreamClient:
    """Sends requests to one server. Made without I/O; connects with the first request."""

    def __init__(
        self,
        config: Server,
        metrics: ServerMetrics,
        deadlines: Deadlines,
        reachable: Reachable | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        """`reachable`: where the server may stand; None: anywhere. `resolver`: that of all servers."""
        self.reachable = reachable
        self.resolver = resolver or Resolver()
        self.new_socket = tcp.new_socket if reachable is None else tcp.guarded(reachable)
        self.metrics = metrics
        self._config = config
        self._deadlines = deadlines
        self._keepalive = Keepalive(config.pool.keepalive)
        pool = config.pool
        #: The places in the pool, for whoever watches and sizes it.
        self.slots = self._slots = Slots(pool.min_connections or pool.max_connections, pool.max_connections)
        #: Connections that could not be made, by `origin_of`.
        self.connect_errors: dict[Origin, int] = {"connect": 0, "tls": 0, "timeout": 0}
        self._in_service = False
        self._counted = 0
        parts = urlsplit(config.url)
        parts = parts._replace(scheme=_HTTP_SCHEME.get(parts.scheme, parts.scheme))
        self._url = URL(parts.geturl(), encoded=True)
        self._path = path_of(config.url)
        self.tls = tls_context(config) if parts.scheme == "https" else None
        self._timeout = aiohttp.ClientTimeout(total=None, connect=config.timeouts.connect)
        self._connector: Connector | None = None
        self._session: aiohttp.ClientSession | None = None
        #: Says where to connect to; every request may use the same one.
        self._address: aiohttp.ClientRequest

    async def send(self, method: str, target: str, headers: Headers, body: Body) -> UpstreamResponse:
        """Send one request and wait for the head of its answer.

        `target` is an absolute URL of this server, or '' for the configured one. `headers` start with Host and go out
        as they are. Whoever gets the response must `close` it.
        """
        slots, timeouts, metrics = self._slots, self._config.timeouts, self.metrics
        if slots.used < slots.peak:
            slots.used += 1
        elif not slots.take():
            metrics.pool_waits += 1
            try:
                await slots.wait(timeouts.connect)
            except TimeoutError:
                raise PoolExhausted("pool", headers=retry_after()) from None
        metrics.pool_in_use += 1
        task = self._deadlines.start(timeouts.first_byte)
        try:
            response = await self._send(method, target, headers, body)
        except BaseException as error:
            self.release()
            if self._deadlines.end(task):
                raise UpstreamTimeout("first_byte") from None
            if isinstance(error, aiohttp.ClientError | HttpProcessingError | OSError | ValueError):
                raise UpstreamFailed(type(error).__name__) from None
            raise
        self._deadlines.end(task)
        return response

    async def _send(self, method: str, target: str, headers: Headers, body: Body) -> UpstreamResponse:
        if self._connector is None:
            self._connector = self._open()
        if body is None or isinstance(body, bytes):
            return await self._send_whole(method, target, headers, body or b"", self._connector)
        return await self._send_streamed(method, target, headers, body, self._connector)

    async def _send_whole(
        self, method: str, target: str, headers: Headers, body: bytes, connector: Connector
    ) -> UpstreamResponse:
        """Head and body in one write, then the head of the answer."""
        lines = [f"{method} {path_of(target) if target else self._path} HTTP/1.1\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in headers]
        lines.append("\r\n")
        head = "".join(lines).encode()
        began = monotonic()
        connection = await self._connect(connector)
        connect_s = monotonic() - began
        protocol, transport = connection.protocol, connection.transport
        try:
            if protocol is None or transport is None:
                raise UpstreamFailed("connection lost")
            protocol.set_response_params(skip_payload=method == "HEAD", read_until_eof=True, **PARSER)
            transport.write(head + body)
            for _ in range(_MOST_INTERIM):
                message, content = await protocol.read()
                if not 100 <= message.code < 200 or message.code == 101:
                    break
            if not 200 <= message.code <= 599 or message.version[0] != 1:
                raise UpstreamFailed("status line")
        except BaseException:
            connection.close()
            raise
        announced = message.headers.get("Keep-Alive")
        if announced is not None:
            self._keepalive.learn(announced)
        if not content.is_eof():
            watch_end(protocol, content)
        ends_with = protocol if Response.ends_with_connection(message.headers, content) else None
        response = UpstreamResponse(
            self.release, message.code, text_of(message.raw_headers), content, ends_with, connection.close
        )
        response.connect_s = connect_s
        content.on_eof(connection.release)
        return response

    async def _connect(self, connector: Connector) -> Connection:
        try:
            return await connector.connect(self._address, [], self._timeout)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # whatever it was, nothing has been sent
            raise self._unreachable(error) from None

    async def _send_streamed(
        self, method: str, target: str, headers: Headers, body: AsyncIterator[bytes], connector: Connector
    ) -> UpstreamResponse:
        """The body goes up as it comes, beside the answer coming down; aiohttp runs both."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=connector,
                connector_owner=False,
                request_class=Request,
                response_class=Response,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=_AUTOMATIC,
                timeout=self._timeout,
                **PARSER,
            )
        url = URL(target, encoded=True) if target else self._url
        try:
            response = await self._session.request(method, url, data=Outbound(headers, body), allow_redirects=False)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise self._unreachable(error) from None
        if not 200 <= response.status <= 599 or response.version is None or response.version[0] != 1:
            response.close()
            raise UpstreamFailed("status line")
        self._keepalive.learn(response.headers.get("Keep-Alive", ""))
        fields, content = text_of(response.raw_headers), response.content
        assert isinstance(response, Response)  # noqa: S101 - the session makes no others
        ends_with = response.protocol if Response.ends_with_connection(response.headers, content) else None
        return UpstreamResponse(self.release, response.status, fields, content, ends_with, response.close)

    def release(self) -> None:
        """An exchange is over."""
        self.metrics.pool_in_use -= 1
        self._slots.release()

    @property
    def idle(self) -> int:
        """Open connections that nobody uses now."""
        return max(0, self._connector.open - self._slots.used) if self._connector is not None else 0

    def count_pool(self) -> None:
        """Count the pool in the metrics as large as it is now; a snapshot that names this server is in force."""
        self._in_service = True
        self._count(self._slots.limit)

    def resize(self, limit: int) -> None:
        """Change the size of the pool; who waits goes on when there is room."""
        self._slots.resize(limit)
        if self._in_service and self._slots.limit != self._counted:
            self._count(self._slots.limit)

    def _count(self, limit: int) -> None:
        self.metrics.pool_limit += limit - self._counted
        self._counted = limit

    def _unreachable(self, error: Exception) -> ConnectFailed:
        failed = ConnectFailed(type(error).__name__)
        self.connect_errors[origin_of(failed)] += 1
        return failed

    async def close(self) -> None:
        """Close all connections and take the pool out of the metrics."""
        self._in_service = False
        self._count(0)
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._connector is not None:
            await self._connector.close()
            self._connector = None

    def _open(self) -> Connector:
        tls = self.tls if self.tls is not None else True
        self._address = aiohttp.ClientRequest("GET", self._url, loop=asyncio.get_running_loop(), ssl=tls)
        return Connector(
            self._keepalive,
            self.metrics,
            limit=0,
            keepalive_timeout=max(self._config.pool.keepalive, 0.001),
            ssl=tls,
            resolver=self.resolver,
            use_dns_cache=False,  # the resolver has its own
            socket_factory=self.new_socket,
        )
