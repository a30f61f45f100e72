"""The data plane's listening socket: accepting, the connection cap, the tick that keeps deadlines, and draining.

Owns the set of open connections. It knows nothing of requests; those are the gate's and the pipeline's.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from typing import TYPE_CHECKING, Final

from proxy.dataplane import tcp
from proxy.dataplane.connection import LINGER_S, QUIET_S, Connection
from proxy.dataplane.gate import Gate
from proxy.dataplane.reject import refusal_bytes
from proxy.errors import Overloaded, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.config.models import Listen
    from proxy.dataplane.exchange import Lane
    from proxy.metrics import Metrics

#: How often deadlines are looked at, seconds: the precision of every downstream deadline.
TICK_S: Final = 0.1
_BACKLOG: Final = 4096


class Listener:
    """All client connections of one listening socket."""

    def __init__(self, listen: Listen, metrics: Metrics, on_refused: Callable[[Refusal, str], None]) -> None:
        self.lane: Lane
        #: Each answer that begins is the last one on its connection.
        self.draining = False
        self._accepting = True
        self.connections: set[Connection] = set()
        self._metrics = metrics
        self._on_refused = on_refused
        self._server: asyncio.Server | None = None
        self._sock: socket.socket
        self._tls: ssl.SSLContext | None = None
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.configure(listen)

    def configure(self, listen: Listen) -> None:
        """Take limits and deadlines of a (new) configuration; they hold for what is read from now on."""
        self.limits = listen.limits
        self.timeouts = listen.timeouts
        if self._tls is not None and listen.tls is not None:  # a renewed certificate holds for new connections
            self._tls.load_cert_chain(listen.tls.certificate, listen.tls.key)
        self._cap = listen.limits.connections or int(resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 0.4)

    async def start(self, listen: Listen, lane: Lane) -> int:
        """Bind and accept. Returns the port. Raises OSError when the address is taken or not ours."""
        self.lane = lane
        family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.set_options(sock)
            sock.bind((listen.host, listen.port))
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        self._tls = _tls_context(listen)
        handshake_s = listen.timeouts.head if self._tls is not None else None  # no gate watches over it yet
        self._server = await self._loop.create_server(
            lambda: Gate(self), sock=sock, ssl=self._tls, backlog=_BACKLOG, ssl_handshake_timeout=handshake_s
        )
        port: int = sock.getsockname()[1]
        return port

    # --- what gates ask -------------------------------------------------------------------------------------------

    def admit(self, gate: Connection) -> Refusal | None:
        """Count a new connection and set its first deadline; a `Refusal` when there are too many."""
        gate.deadline = self.now() + (self.timeouts.head if self._accepting else QUIET_S)
        self.connections.add(gate)
        self._metrics.connections_open += 1
        self._metrics.connections_accepted += 1
        if len(self.connections) <= self._cap:
            return None
        self._metrics.connections_refused += 1
        return Overloaded("connections", headers=(("Retry-After", "1"),))

    def forget(self, gate: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(gate)
        self._metrics.connections_open -= 1

    def refusal_bytes(self, refusal: Refusal, peer: str) -> bytes:
        """The answer to a request that never became one; counted and logged here."""
        self._on_refused(refusal, peer)
        return refusal_bytes(refusal)

    # --- what the application asks --------------------------------------------------------------------------------

    def tick(self) -> None:
        """Expire what is overdue; called every `TICK_S`."""
        now = self.now()
        due = [gate for gate in self.connections if now >= gate.deadline or now >= gate.write_deadline]
        for gate in due:
            gate.expire(now)

    async def stop_accepting(self) -> None:
        """Close the listening socket, and soon idle connections; each answer from now on closes its connection.

        What the kernel has accepted by now is served: its client is connected, and closing would reset it.
        """
        server, self._server = self._server, None
        if server is None:
            return
        self.draining = True
        self._accepting = False
        quiet_until = self.now() + QUIET_S
        for gate in self.connections:
            if gate.idle:
                gate.deadline = min(gate.deadline, quiet_until)
        waiting = _accepted(self._sock)
        server.close()
        await asyncio.gather(*map(self._adopt, waiting), return_exceptions=True)

    async def _adopt(self, sock: socket.socket) -> None:
        handshake_s = LINGER_S if self._tls is not None else None
        await self._loop.connect_accepted_socket(
            lambda: Gate(self), sock, ssl=self._tls, ssl_handshake_timeout=handshake_s
        )

    def abort_all(self) -> None:
        """Reset whatever is left."""
        for gate in list(self.connections):
            gate.abort()


def _accepted(listening: socket.socket) -> list[socket.socket]:
    """Connections that wait in the kernel's backlog."""
    found: list[socket.socket] = []
    with contextlib.suppress(OSError):  # BlockingIOError: there are no more
        while True:
            sock = listening.accept()[0]
            sock.setblocking(False)
            found.append(sock)
    return found


def _tls_context(listen: Listen) -> ssl.SSLContext | None:
    if listen.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(listen.tls.certificate, listen.tls.key)
    return context
