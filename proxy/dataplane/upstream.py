"""Live state of one upstream server: what balancing reads and what forwarding writes. No I/O.

An `Upstream` outlives a reload when its configuration is unchanged, and with it the connection pool, the breaker and
what is known of its health.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from proxy.dataplane.breaker import Breaker, Change
from proxy.dataplane.health import Health
from proxy.dataplane.queueing import RequestQueue
from proxy.dataplane.rewrite import HeaderPlan
from proxy.identity.access import Server as Place

if TYPE_CHECKING:
    from proxy.config.models import Server
    from proxy.dataplane.client import UpstreamClient
    from proxy.dataplane.maintenance import Active
    from proxy.metrics import ServerMetrics

#: Weight of a new sample in the latency average.
_EWMA_WEIGHT: Final = 0.2


class Around(NamedTuple):
    """What servers are given from outside."""

    clock: Callable[[], float] = time.monotonic
    """Monotonic seconds."""
    draw: Callable[[], float] = random.random
    """A random number, 0 <= x < 1."""
    breaker_changed: Callable[[Upstream, Change], None] = lambda upstream, change: None
    """Is told when a server's breaker opens, tries and closes."""


_ALONE: Final = Around()


class Upstream:
    """One server: its configuration, its client, and counters that requests update as they pass."""

    __slots__ = (
        "_draw", "breaker", "certificates", "client", "config", "health", "in_flight", "latency_ewma_s", "max_streams",
        "metrics", "name", "open_streams", "place", "plan", "queue", "takes_query", "target", "window",
    )  # fmt: skip

    def __init__(
        self, name: str, config: Server, client: UpstreamClient, metrics: ServerMetrics, around: Around = _ALONE
    ) -> None:
        self.name = name
        #: What rules of access ask about it. Replaced when its row gets another id.
        self.place = Place(name)
        self.config = config
        self.client = client
        #: Digest of the TLS files that the client was made with.
        self.certificates = b""
        self.metrics = metrics
        #: What is the same in the header of every request to it.
        self.plan = HeaderPlan(config)
        #: Requests go to this URL, with the client's query unless it has one of its own.
        self.target = config.url
        self.takes_query = not urlsplit(config.url).query
        #: Requests and streams running now.
        self.in_flight = 0
        #: Streams among them, those being opened included.
        self.open_streams = 0
        self.max_streams = config.queue.max_streams if config.queue is not None else 0
        #: Average time to the head of the answer, seconds; 0 until the first sample, so that a new server is tried.
        self.latency_ewma_s = 0.0
        self._draw = around.draw
        self.breaker = Breaker(
            config.breaker, around.clock, around.draw, lambda _, change: around.breaker_changed(self, change)
        )
        self.health = Health(config.health_check, around.clock, name)
        self.queue = RequestQueue(config.queue, around.clock) if config.queue is not None else None
        #: The maintenance window that it is in.
        self.window: Active | None = None

    def available(self) -> bool:
        """Whether new traffic should go here."""
        breaker, health = self.breaker, self.health
        return (
            self.window is None
            and breaker.ready()
            and not breaker.resting()
            and health.usable()
            and health.ramp(self._draw)
        )

    def possible(self) -> bool:
        """Whether new traffic may go here when there is nothing better."""
        return (self.window is None or time.time() >= self.window.until) and self.breaker.ready()

    def target_with(self, query: str) -> str:
        """The absolute URL to send a client's `query` to; '' for the configured one as it is."""
        return f"{self.target}?{query}" if query and self.takes_query else ""

    def observe_latency(self, seconds: float) -> None:
        """Take one time to first byte into the average."""
        if self.latency_ewma_s:
            self.latency_ewma_s += (seconds - self.latency_ewma_s) * _EWMA_WEIGHT
        else:
            self.latency_ewma_s = seconds

    def __repr__(self) -> str:
        return f"Upstream({self.name!r}, in_flight={self.in_flight}, latency={self.latency_ewma_s:.4f}s)"
