"""A client without a socket, and everything behind it as it really is: upstream clients that send, on the test's time.

`Client` is an `Exchange` that keeps what it is told; `Proxy` is what the composition root builds, without listener and
loops. Upstreams are `tests.harness.scripted_upstream`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry

from proxy.config.models import Config, Limits
from proxy.config.models import RetryBudget as RetryBudgetSettings
from proxy.dataplane.admission import AdmissionBuilder, Freshness
from proxy.dataplane.allowance import allowance_of
from proxy.dataplane.catalogue import Catalogue
from proxy.dataplane.context import ANONYMOUS, RequestContext
from proxy.dataplane.deadlines import Deadlines
from proxy.dataplane.estates import estates_of
from proxy.dataplane.exchange import Exchange, Headers
from proxy.dataplane.head import parse_head
from proxy.dataplane.mirror import Mirrors
from proxy.dataplane.parts import Parts
from proxy.dataplane.retries import RetryBudget
from proxy.dataplane.shedding import Load
from proxy.dataplane.snapshot import Live, Snapshot, SnapshotBuilder
from proxy.dataplane.streams import Streams
from proxy.dataplane.upstream import Around
from proxy.errors import Refusal
from proxy.mcp.methods import metric_label
from proxy.metrics import Metrics
from tests.harness import CALL
from tests.unit.dataplane.asked import sealer
from tests.unit.identity.rows import RING

#: Longer than anything here takes: a test that waits for what never comes fails instead of hanging.
PATIENCE_S = 10.0


class Time:
    """Monotonic seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Client:
    """The client's side of one exchange: what it sends is given, what it gets is kept."""

    def __init__(self, raw: bytes, body: Iterable[bytes | Refusal] = (), peer: str = "192.0.2.7") -> None:
        self.head = parse_head(raw, Limits())
        self.peer = peer
        self.secure = False
        self.started = False
        self.closing = False
        self.paused = False
        self.gone = False
        self.fault: Refusal | None = None
        self.status = 0
        self.headers: Headers = []
        self.pieces: list[bytes] = []
        """What was written, write by write, the last piece included."""
        self.steps: list[str] = []
        """What was asked of it: start, flush, write, drain, finish, abort, respond, upgrade."""
        self.stays = False
        """It sends no end: whoever reads on waits."""
        self.resumed = asyncio.Event()
        self._body = iter(body)
        self._changed = asyncio.Event()

    @property
    def got(self) -> bytes:
        """The body so far."""
        return b"".join(self.pieces)

    @property
    def end(self) -> str:
        """How the answer ended: `finish` or `abort`; '' while it is under way."""
        return self.steps[-1] if self.steps and self.steps[-1] in ("finish", "abort", "respond") else ""

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that this client was told makes `condition` true."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def read_body(self) -> bytes:
        whole = b""
        while chunk := await self.read_chunk():
            whole += chunk
        return whole

    async def read_chunk(self) -> bytes:
        piece = next(self._body, b"")
        if isinstance(piece, Refusal):
            self.fault = piece
            raise piece
        if not piece and self.stays:
            await asyncio.Event().wait()
        return piece

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        self.status, self.headers, self.pieces = status, headers, [body]
        self._note("respond")

    def start(self, status: int, headers: Headers) -> None:
        self.status, self.headers = status, headers
        self._note("start")

    def flush(self) -> None:
        self._note("flush")

    def write(self, chunk: bytes) -> None:
        self.pieces.append(chunk)
        self._note("write")

    async def drain(self) -> None:
        self._note("drain")
        await self.resumed.wait()
        self.paused = False
        if self.gone:
            raise ConnectionResetError("client gone")

    def finish(self, last: bytes = b"") -> None:
        self.pieces.append(last)
        self._note("finish")

    def upgrade(self, status: int, headers: Headers) -> None:
        self.status, self.headers = status, headers
        self._note("upgrade")

    def abort(self) -> None:
        self._note("abort")

    def _note(self, step: str) -> None:
        self.started = True
        self.steps.append(step)
        self._changed.set()


class Request:
    """A request on its way: its client, and its context."""

    def __init__(self, client: Client, snapshot: Snapshot, now: float) -> None:
        exchange: Exchange = client
        self.client = client
        self.ctx = RequestContext(exchange, snapshot, now)
        self.ctx.principal = ANONYMOUS


class Proxy:
    """One snapshot in force and what requests need besides; time and chance are the test's."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.time = Time()
        self.drawn = 0.5
        self.metrics = Metrics(CollectorRegistry(), 10, metric_label)
        self.deadlines = Deadlines(self.time)
        self.builder = SnapshotBuilder(
            self.metrics,
            lambda _: sealer(),
            self.deadlines,
            lambda: datetime(2026, 11, 22, tzinfo=UTC),
            Around(self.time, lambda: self.drawn),
        )
        whole = Config.model_validate(config)
        self.admissions = AdmissionBuilder(lambda _: RING, Freshness(current=True))
        first = self.builder.build(whole, estates_of({}, whole, {}), None)
        self.live = Live(first, self.admissions.build(whole, {}), allowance_of(whole, {}))
        self.streams = Streams()
        self.copies: list[tuple[str, Coroutine[Any, Any, None]]] = []
        """Copies for a mirror that wait to be run, with their names."""
        self.room = 1
        """How many copies are taken."""
        mirrors = Mirrors(self._spawn, self.metrics, lambda: self.drawn)
        self.parts = Parts(self.streams, mirrors, self.time, Load(), RetryBudget(RetryBudgetSettings()), Catalogue())

    def configure(self, **config: Any) -> Snapshot:
        """Put another configuration in force, as a reload does."""
        whole = Config.model_validate(config)
        self.live.swap(self.builder.build(whole, estates_of({}, whole, {}), self.live.snapshot))
        return self.live.snapshot

    def request(
        self,
        target: str = "/up/mcp",
        *fields: tuple[str, str],
        method: str = "POST",
        body: Iterable[bytes | Refusal] | None = None,
        length: int | None = None,
    ) -> Request:
        """A request that has just come, a POST with a call unless `body` is another.

        `length` other than None is its Content-Length, else its body is chunked.
        """
        if body is None:
            body = (CALL,) if method == "POST" else ()
        framing = ("Transfer-Encoding", "chunked") if length is None else ("Content-Length", str(length))
        typed = (("Content-Type", "application/json"), framing) if method == "POST" else ()
        lines = [f"{name}: {value}\r\n" for name, value in (("Host", "localhost"), *typed, *fields)]
        raw = f"{method} {target} HTTP/1.1\r\n{''.join(lines)}\r\n".encode()
        return Request(Client(raw, body), self.live.snapshot, self.time.now)

    def _spawn(self, name: str, copy: Coroutine[Any, Any, None]) -> bool:
        if len(self.copies) >= self.room:
            copy.close()
            return False
        self.copies.append((name, copy))
        return True


@asynccontextmanager
async def proxying(servers: dict[str, Any], **config: Any) -> AsyncIterator[Proxy]:
    """A `Proxy` in front of `servers` (a URL, or keys of a server); its connections are closed at the end."""
    written = {name: {"url": server} if isinstance(server, str) else server for name, server in servers.items()}
    proxy = Proxy({"servers": written, **config})
    try:
        yield proxy
    finally:
        for _, copy in proxy.copies:
            copy.close()
        await proxy.live.close()
        await asyncio.sleep(0)  # transports close in the next turn
