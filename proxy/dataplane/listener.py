"""The data plane's listening socket: accepting, the connection cap, the tick that keeps deadlines, draining, and what
connections give up when memory is short.

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
from proxy.dataplane.connection import BODY, HIGH_WATER, LINGER_S, LOW_WATER, QUIET_S, STARVED, Connection
from proxy.dataplane.gate import Gate
from proxy.dataplane.reject import refusal_bytes
from proxy.dataplane.shedding import EVERYONE, Load, refusal
from proxy.errors import Overloaded, Refusal, retry_after

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.config.models import Listen
    from proxy.dataplane.exchange import Lane
    from proxy.metrics import Metrics

#: How often deadlines are looked at, seconds: the precision of every downstream deadline.
TICK_S: Final = 0.1
_BACKLOG: Final = 4096
#: How long handshakes that have begun may take when no new ones begin any more, seconds: a round trip.
_SETTLE_S: Final = 0.05
#: How long a connection may be idle while memory is short, seconds.
_SHRUNK_IDLE_S: Final = 1.0


class Listener:
    """All client connections of one listening socket."""

    def __init__(
        self,
        listen: Listen,
        metrics: Metrics,
        on_refused: Callable[[Refusal, str], None],
        load: Load | None = None,
    ) -> None:
        self.lane: Lane
        self.load = load or Load()
        #: Each answer that begins is the last one on its connection: the process drains, or is short of memory.
        self.last_answers = False
        #: How long a connection that becomes idle now stays, seconds.
        self.idle_s = 0.0
        #: Bytes of answers that wait in a connection before its relay does.
        self.high_water = HIGH_WATER
        self._draining = False
        self._accepting = True
        self._starving = False
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
        self._set_endings()

    @property
    def draining(self) -> bool:
        """The process is going away."""
        return self._draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._draining = draining
        self._set_endings()

    def _set_endings(self) -> None:
        """What gates read after each request, worked out beforehand."""
        shrunk = self.high_water == LOW_WATER
        self.last_answers = self._draining or self.load.closing_keepalive
        self.idle_s = min(self.timeouts.keepalive, _SHRUNK_IDLE_S) if shrunk else self.timeouts.keepalive
        if self._draining:
            self.idle_s = QUIET_S

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
        if len(self.connections) <= self._cap and not self.load.refusing:
            return None
        self._metrics.connections_refused += 1
        return Overloaded("memory" if self.load.refusing else "connections", headers=retry_after())

    def take_room(self, gate: Gate, size: int) -> None:
        """So many bytes of a body were read. When that was the last room, no body is read until there is some again."""
        self.load.room -= size
        if self.load.room >= 0:
            return
        gate.stop_reading(STARVED)
        if not self._starving:
            self._starving = True
            for other in self._arriving():
                other.stop_reading(STARVED)

    def _arriving(self) -> list[Gate]:
        return [gate for gate in self.connections if gate.state == BODY and isinstance(gate, Gate)]

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

    def relieve(self) -> None:
        """Do what the load asks for; called after each look at it."""
        shrinking = self.load.shrinking
        if shrinking != (self.high_water == LOW_WATER):
            self.high_water = LOW_WATER if shrinking else HIGH_WATER
            for gate in self.connections:
                gate.transport.set_write_buffer_limits(high=self.high_water)
            if shrinking:
                self._hurry_idle(_SHRUNK_IDLE_S)
        self._set_endings()
        if self.load.refused_from == EVERYONE:
            self._refuse_uploads()
        if self._starving and self.load.room > 0:
            self._starving = False
            for gate in self.connections:
                if gate.unread & STARVED:
                    gate.go_on_reading(STARVED)

    def _refuse_uploads(self) -> None:
        """Refuse the largest requests that are still arriving, until what they hold is enough.

        A body that is passed on while it arrives holds next to nothing, and its request is no longer new.
        """
        load = self.load
        gathering = [gate for gate in self._arriving() if gate.gathers]
        for gate in sorted(gathering, key=lambda gate: gate.arrived, reverse=True):
            if load.excess <= 0:
                break
            load.excess -= gate.arrived
            gate.fail_body(refusal(load))

    def _hurry_idle(self, seconds: float) -> None:
        """Idle connections end within `seconds`."""
        until = self.now() + seconds
        for gate in self.connections:
            if gate.idle:
                gate.deadline = min(gate.deadline, until)

    async def stop_accepting(self) -> None:
        """Close the listening socket, and soon idle connections; each answer from now on closes its connection.

        Who is connected by now is served, also when the kernel alone knows of it: closing would reset it.
        """
        server, self._server = self._server, None
        if server is None:
            return
        self.draining = True
        self._accepting = False
        self._hurry_idle(QUIET_S)
        if tcp.ignore_new(self._sock):
            await asyncio.sleep(_SETTLE_S)
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
