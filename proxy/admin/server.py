"""The admin plane's own HTTP server: /livez, /readyz and /metrics, never on the data port.

Owns the admin listener, and the thread in which it runs with a loop of its own: it answers while the main loop is busy
or stands still, and says so. What it shows are plain numbers that the main loop writes; it takes no lock, and reads
again where a table grew while it was read.

Every answer is JSON but the metrics, whatever goes wrong, and none names the software or
repeats the request. The port is meant to be private, yet a browser on the same machine can reach a loopback port, so
there `Host` must name loopback (DNS rebinding); no answer carries a CORS header.
"""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import orjson
from aiohttp import web

from proxy.log import logger

if TYPE_CHECKING:
    from proxy.admin.readiness import Readiness
    from proxy.metrics import Metrics

#: A scrape interval of a minute keeps its connection; the same deadline ends a head that never becomes complete.
_KEEPALIVE_S: Final = 75.0
_MAX_CONNECTIONS: Final = 100
_MAX_LINE_BYTES: Final = 4 << 10
_MAX_HEADERS: Final = 50
_STOP_S: Final = 2.0
#: The main loop is taken for dead when it has not beaten for so long, seconds.
_BEAT_S: Final = 10.0
#: How often a table that grows while it is read is read in all. Tables grow by what is seen for the first time.
_READINGS: Final = 10
_LOOPBACK_NAMES: Final = frozenset(("localhost", "127.0.0.1", "[::1]"))
_NO_DESCRIPTORS: Final = frozenset((errno.EMFILE, errno.ENFILE))
_REASONS: Final = {403: "host_not_allowed", 404: "not_found", 405: "method_not_allowed", 500: "internal"}


T = TypeVar("T")


class _Answer(web.Response):
    """An answer without the `Server` field, which aiohttp adds with its version to every response."""

    async def _prepare_headers(self) -> None:  # no public hook also sees aiohttp's own error answers
        await super()._prepare_headers()
        self.headers.popall("Server", None)


def _json(status: int, content: object, headers: Mapping[str, str] | None = None) -> _Answer:
    fields = {"Content-Type": "application/json", "Cache-Control": "no-store", **(headers or {})}
    return _Answer(status=status, body=orjson.dumps(content), headers=fields)


def _error(status: int, headers: Mapping[str, str] | None = None) -> _Answer:
    return _json(status, {"error": {"status": status, "reason": _REASONS.get(status, "bad_request")}}, headers)


class _Connection(web.RequestHandler):
    """One admin connection: aiohttp's, with our words when a request is malformed or a handler fails."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer instead of aiohttp's, which repeats the input. Only a bug of ours is worth a line in the log."""
        if status >= 500:
            logger("admin").error("admin request failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        answer = _error(status)
        answer.force_close()
        return answer


def _tell_unless_full(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """asyncio reports a hundred times a second that it is out of descriptors; the data port has said so already."""
    error = context.get("exception")
    if not (isinstance(error, OSError) and error.errno in _NO_DESCRIPTORS):
        loop.default_exception_handler(context)


class _Server(web.Server):
    """aiohttp's low-level server, which makes our connections."""

    #: Connections that are accepted and not counted by aiohttp yet: several may be accepted at once.
    coming = 0

    def full(self) -> bool:
        """Whether there are as many connections as there may be."""
        return len(self.connections) + self.coming >= _MAX_CONNECTIONS

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """A connection that this made is there."""
        self.coming -= 1
        super().connection_made(handler, transport)

    def __call__(self) -> web.RequestHandler:
        self.coming += 1
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=_KEEPALIVE_S,
            access_log=None,  # type: ignore[arg-type]  # None turns it off
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_LINE_BYTES,
            max_headers=_MAX_HEADERS,
            lingering_time=0.0,
        )


class _Surplus(asyncio.Protocol):
    """A connection above the cap: cut off before it can ask anything."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()


class AdminServer:
    """The listener of the admin plane. Made, started and stopped by the main loop; `beat` is called there, too."""

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Metrics,
        readiness: Readiness,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._port = port
        self._metrics = metrics
        self._readiness = readiness
        self._clock = clock
        self._hosts = _LOOPBACK_NAMES | {host.lower()} if _is_loopback(host) else None
        self._routes: dict[str, Callable[[web.BaseRequest], _Answer]] = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._show_metrics,
        }
        #: When the main loop last showed that it runs; None until it does so for the first time.
        self._beat_at: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._web: _Server | None = None
        self._listener: asyncio.Server | None = None

    def beat(self) -> None:
        """The main loop runs. Once it has beaten, it has to go on."""
        self._beat_at = self._clock()

    async def start(self) -> int:
        """Bind and accept. Returns the port. Raises OSError when the address is taken or not ours."""
        loop = self._loop = asyncio.new_event_loop()
        loop.set_exception_handler(_tell_unless_full)
        self._thread = threading.Thread(target=loop.run_forever, name="admin", daemon=True)
        self._thread.start()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._listen(), loop))

    async def stop(self) -> None:
        """Stop accepting and end every connection; a scrape under way gets two seconds. May be called at any time."""
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is None or thread is None:
            return
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._close(), loop))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    # --- in the thread --------------------------------------------------------------------------------------------

    async def _listen(self) -> int:
        server = self._web = _Server(self._answer)
        self._listener = await asyncio.get_running_loop().create_server(
            lambda: _Surplus() if server.full() else server(), self._host, self._port
        )
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def _close(self) -> None:
        if self._listener is not None and self._web is not None:
            self._listener.close()
            self._web.pre_shutdown()
            await self._web.shutdown(_STOP_S)
            await asyncio.sleep(0)  # transports tell their protocols a moment later that they are closed

    async def _answer(self, request: web.BaseRequest) -> _Answer:
        if self._hosts is not None and not _names_one_of(request.headers.get("Host", ""), self._hosts):
            return _error(403)
        show = self._routes.get(request.rel_url.raw_path)
        if show is None:
            return _error(404)
        if request.method not in ("GET", "HEAD"):
            return _error(405, {"Allow": "GET, HEAD"})
        return show(request)

    def _livez(self, request: web.BaseRequest) -> _Answer:
        """503 when the main loop stands still: whoever watches is to restart the process."""
        beat_at = self._beat_at
        if beat_at is not None and self._clock() - beat_at > _BEAT_S:
            return _json(503, {"status": "stalled"})
        return _json(200, {"status": "alive"})

    def _readyz(self, request: web.BaseRequest) -> _Answer:
        ready, checks = _settled(self._readiness.ready)
        return _json(200 if ready else 503, {"status": "ready" if ready else "not_ready", "checks": checks})

    def _show_metrics(self, request: web.BaseRequest) -> _Answer:
        accept = request.headers.get("Accept", "")
        content_type, body = _settled(lambda: self._metrics.exposition(accept))
        return _Answer(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})


def _settled(read: Callable[[], T]) -> T:
    """What `read` returns once no table grows while it is read: CPython says so with a RuntimeError."""
    for _ in range(_READINGS - 1):
        try:
            return read()
        except RuntimeError:
            time.sleep(0)  # let the main loop finish what it does
    return read()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _names_one_of(host: str, names: frozenset[str]) -> bool:
    """Whether `Host` (its port aside) is one of `names`; an HTTP/1.0 probe that sends none comes from no browser."""
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    return not host or name.lower() in names
