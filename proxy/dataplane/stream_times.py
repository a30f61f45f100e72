"""How streams of servers go: how many began, when their first event came, how long nothing came, what passed.

Owns these numbers and their metrics. A piece is what arrived at once: one event as a rule, several when they come
quickly. Servers beyond the cap of the metrics share their numbers, as they share a label.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from proxy.metrics import BUCKETS_S, Family, ServerMetrics, histogram

_BUCKETS: Final = len(BUCKETS_S) + 1


class Times:
    """A histogram of seconds."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * _BUCKETS
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """One more. 0.2 µs."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.total_s += seconds


class ServerStreams:
    """The streams of one server."""

    __slots__ = ("begun", "bytes", "durations", "first_events", "gaps")

    def __init__(self) -> None:
        self.begun = self.bytes = 0
        #: From the head of the request to the first piece; between two pieces; from the head of the answer to its end.
        self.first_events, self.gaps, self.durations = Times(), Times(), Times()


class StreamTimes:
    """The streams of all servers."""

    def __init__(self) -> None:
        #: By what its server is counted as.
        self._servers: dict[ServerMetrics, ServerStreams] = {}

    def of(self, server: ServerMetrics) -> ServerStreams:
        """The numbers of a server."""
        found = self._servers.get(server)
        if found is None:
            found = self._servers[server] = ServerStreams()
        return found

    def families(self) -> Iterator[Family]:
        """Every metric of streams; servers that never had one stay out."""
        servers = [(server.label, streams) for server, streams in self._servers.items()]
        yield Family(
            "counter", "mcp_proxy_streams", "Streams that began",
            [(f'{{server="{label}"}}', streams.begun) for label, streams in servers],
        )  # fmt: skip
        yield Family(
            "counter", "mcp_proxy_stream_bytes", "Bytes of streams that were sent on",
            [(f'{{server="{label}"}}', streams.bytes) for label, streams in servers],
        )  # fmt: skip
        for name, attribute, purpose in _HISTOGRAMS:
            times = [(label, getattr(streams, attribute)) for label, streams in servers]
            rows = [row for label, each in times for row in histogram(label, each.counts, each.total_s)]
            yield Family("histogram", name, purpose, rows)


#: Name, attribute, help.
_HISTOGRAMS: Final = (
    ("mcp_proxy_stream_first_event_seconds", "first_events", "Head received to first piece of a stream"),
    ("mcp_proxy_stream_gap_seconds", "gaps", "Time between two pieces of a stream"),
    ("mcp_proxy_stream_duration_seconds", "durations", "Begin to end of a stream"),
)
