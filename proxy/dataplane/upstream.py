"""Live state of one upstream server: what balancing reads and what forwarding writes. No I/O.

An `Upstream` outlives a reload when its configuration is unchanged, and with it the connection pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from proxy.dataplane.rewrite import HeaderPlan
from proxy.identity.access import Server as Place

if TYPE_CHECKING:
    from proxy.config.models import Server
    from proxy.dataplane.client import UpstreamClient
    from proxy.metrics import ServerMetrics

#: Weight of a new sample in the latency average.
_EWMA_WEIGHT: Final = 0.2


class Upstream:
    """One server: its configuration, its client, and counters that requests update as they pass."""

    __slots__ = (
        "certificates", "client", "config", "in_flight", "latency_ewma_s", "metrics", "name", "place", "plan",
        "takes_query", "target",
    )  # fmt: skip

    def __init__(self, name: str, config: Server, client: UpstreamClient, metrics: ServerMetrics) -> None:
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
        #: Average time to the head of the answer, seconds; 0 until the first sample, so that a new server is tried.
        self.latency_ewma_s = 0.0

    def available(self) -> bool:
        """Whether new traffic may go here. A server of the snapshot always may: what is down shows when it is asked."""
        return True

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
