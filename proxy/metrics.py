"""Every metric of the proxy, declared once, and their Prometheus exposition.

Owns the numbers, their names, and the cap on label values. It knows nothing of requests: whoever owns a fact adds to
the number. Counting is done in plain integers rather than in prometheus_client's children, because an observation of
one request then costs 0.6 instead of 3.7 us and a scrape of 200 servers 10 instead of 95 ms, and a scrape holds the
loop. Not thread-safe by design: one loop writes and reads them.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

#: How a request ended; `docs/operations.md` explains each word. Anything else counts as `internal`.
OUTCOMES: Final = (
    "ok", "refused", "upstream_error", "upstream_truncated", "timeout", "client_gone", "drained", "revoked", "internal",
)  # fmt: skip

#: `server` of requests that never had one; no server can have this name.
NO_SERVER: Final = "-"
#: `server` beyond the cap, and `reason` likewise.
OTHER: Final = "other"

#: Upper bounds, seconds. From a fast local call to a tool that runs for the default `first_byte` deadline.
BUCKETS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0,
)  # fmt: skip

#: Requests that carry no JSON-RPC method, or none that was read, count under their HTTP method.
_HTTP_METHODS: Final = frozenset(("GET", "HEAD", "POST", "DELETE", "OPTIONS"))
#: Reasons are fixed words of `errors.py`; the cap only guards against a mistake there.
_MAX_REASONS: Final = 64


class Family(NamedTuple):
    """One metric with all its samples; `rows` are (what follows the sample's name, value)."""

    kind: str
    name: str
    purpose: str
    rows: Iterable[tuple[str, float]]


class ServerMetrics:
    """What is counted about one upstream server, or about all beyond the cap together.

    The public attributes are plain numbers: their owner adds to them and takes away, never sets them, since several
    servers may share this object. Histograms exist only once there is something in them.
    """

    __slots__ = (
        "_duration", "_duration_sum_s", "_first_byte", "_first_byte_sum_s", "_method_label", "_requests", "bytes_in",
        "bytes_out", "label", "open_streams", "pool_connects", "pool_in_use", "pool_limit", "pool_reuses", "pool_waits",
    )  # fmt: skip

    def __init__(self, label: str, method_label: Callable[[str], str]) -> None:
        self.label = label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        self._method_label = method_label
        self._requests: dict[tuple[str, str], int] = {}
        self._duration: list[int] | None = None
        self._duration_sum_s = 0.0
        self._first_byte: list[int] | None = None
        self._first_byte_sum_s = 0.0
        self.bytes_in = self.bytes_out = 0
        self.open_streams = 0
        self.pool_in_use = self.pool_limit = 0
        self.pool_waits = self.pool_connects = self.pool_reuses = 0

    def observe(
        self, method: str, outcome: str, duration_s: float, first_byte_s: float, bytes_in: int, bytes_out: int
    ) -> None:
        """Count one request. `first_byte_s` below 0: no byte of an answer came."""
        try:
            self._requests[method, outcome] += 1
        except KeyError:
            self._count_rare(method, outcome)
        duration = self._duration
        if duration is None:
            duration = self._duration = [0] * (len(BUCKETS_S) + 1)
        duration[bisect_left(BUCKETS_S, duration_s)] += 1
        self._duration_sum_s += duration_s
        if first_byte_s >= 0:
            if self._first_byte is None:
                self._first_byte = [0] * (len(BUCKETS_S) + 1)
            self._first_byte[bisect_left(BUCKETS_S, first_byte_s)] += 1
            self._first_byte_sum_s += first_byte_s
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out

    def _count_rare(self, method: str, outcome: str) -> None:
        """The first of its kind, or a method that has no label of its own: only labels ever become keys."""
        label = method if method in _HTTP_METHODS else self._method_label(method)
        key = (label, outcome if outcome in OUTCOMES else "internal")
        self._requests[key] = self._requests.get(key, 0) + 1

    def used(self) -> bool:
        """Whether there is anything to show."""
        return bool(self._requests or self.pool_connects or self.pool_in_use or self.open_streams)

    def requests(self) -> Iterator[tuple[str, float]]:
        """Requests by method and outcome."""
        for (method, outcome), count in self._requests.items():
            yield f'{{server="{self.label}",method="{method}",outcome="{outcome}"}}', count

    def durations(self) -> Iterator[tuple[str, float]]:
        """The histogram of how long requests took."""
        return histogram(self.label, self._duration, self._duration_sum_s)

    def first_bytes(self) -> Iterator[tuple[str, float]]:
        """The histogram of the time to the first byte."""
        return histogram(self.label, self._first_byte, self._first_byte_sum_s)

    def bytes(self) -> Iterator[tuple[str, float]]:
        """Bytes by direction."""
        yield f'{{server="{self.label}",direction="in"}}', self.bytes_in
        yield f'{{server="{self.label}",direction="out"}}', self.bytes_out


def histogram(label: str, counts: list[int] | None, total_s: float) -> Iterator[tuple[str, float]]:
    """Cumulative buckets, each including its bound, as Prometheus defines a histogram; nothing without a sample."""
    if counts is None:
        return
    seen = 0
    for bound, count in zip((*BUCKETS_S, "+Inf"), counts, strict=True):
        seen += count
        yield f'_bucket{{server="{label}",le="{bound}"}}', seen
    yield f'_count{{server="{label}"}}', seen
    yield f'_sum{{server="{label}"}}', total_s


def _number(attribute: str) -> Callable[[ServerMetrics], Iterable[tuple[str, float]]]:
    return lambda server: ((f'{{server="{server.label}"}}', getattr(server, attribute)),)


#: Kind, name, help and samples of what each server has.
_PER_SERVER: Final[tuple[tuple[str, str, str, Callable[[ServerMetrics], Iterable[tuple[str, float]]]], ...]] = (
    ("counter", "mcp_proxy_requests", "Requests by how they ended", ServerMetrics.requests),
    ("histogram", "mcp_proxy_request_duration_seconds", "Head received to answer ended", ServerMetrics.durations),
    ("histogram", "mcp_proxy_first_byte_seconds", "Head received to first byte answered", ServerMetrics.first_bytes),
    ("counter", "mcp_proxy_bytes", "Bytes of bodies from and to clients", ServerMetrics.bytes),
    ("gauge", "mcp_proxy_open_streams", "Streams being relayed now", _number("open_streams")),
    ("gauge", "mcp_proxy_pool_connections_in_use", "Connections carrying an exchange now", _number("pool_in_use")),
    ("gauge", "mcp_proxy_pool_connections_limit", "Connections that may be open", _number("pool_limit")),
    ("counter", "mcp_proxy_pool_waits", "Exchanges that waited for a connection", _number("pool_waits")),
    ("counter", "mcp_proxy_pool_connects", "Connections opened", _number("pool_connects")),
    ("counter", "mcp_proxy_pool_reuses", "Exchanges that found an open connection", _number("pool_reuses")),
)
#: Name, kind, attribute of Metrics, help.
_SINGLE: Final = (
    ("mcp_proxy_requests_in_flight", "gauge", "in_flight", "Requests and streams running now"),
    ("mcp_proxy_connections_open", "gauge", "connections_open", "Client connections open now"),
    ("mcp_proxy_connections_accepted", "counter", "connections_accepted", "Client connections accepted"),
    ("mcp_proxy_connections_refused", "counter", "connections_refused", "Client connections refused"),
    ("mcp_proxy_config_generation", "gauge", "generation", "Configuration that new requests see"),
    ("mcp_proxy_config_last_reload_success_timestamp_seconds", "gauge", "reloaded_at", "When it came into force"),
    ("mcp_proxy_mirror_copies", "counter", "mirror_sent", "Requests copied to a mirror"),
    ("mcp_proxy_mirror_copies_dropped", "counter", "mirror_dropped", "Copies not sent: too many under way"),
    ("mcp_proxy_record_failures", "counter", "record_failures", "Requests whose record failed: a bug of the proxy"),
)


class LoopMetrics:
    """What is counted about one background loop."""

    __slots__ = ("failures", "last_success", "runs")

    def __init__(self) -> None:
        self.runs = 0
        self.failures = 0
        self.last_success = 0.0


def new_registry() -> CollectorRegistry:
    """A registry of one's own: nothing here is global, so a process may hold several proxies."""
    return CollectorRegistry()


class Metrics:
    """All numbers of one proxy. `registry` holds the collectors of process, garbage collector and platform besides.

    The public number attributes are added to by whoever owns the fact; `dropped_lines`, and `more` for what
    others count, are asked at each scrape.
    """

    def __init__(self, registry: CollectorRegistry, max_servers: int, method_label: Callable[[str], str]) -> None:
        self._registry = registry
        self._max_servers = max_servers
        self._method_label = method_label
        self._servers: dict[str, ServerMetrics] = {}
        self._others: ServerMetrics | None = None
        self._refusals: dict[str, int] = {}
        self._reloads = {"ok": 0, "error": 0}
        self._loops: dict[str, LoopMetrics] = {}
        self._build = "{}"
        self.unrouted = ServerMetrics(NO_SERVER, method_label)
        self.in_flight = 0
        self.connections_open = self.connections_accepted = self.connections_refused = 0
        self.generation = 0
        self.reloaded_at = 0.0
        self.mirror_sent = self.mirror_dropped = 0
        self.record_failures = 0
        self.dropped_lines: Callable[[], int] = int
        self.more: Callable[[], Iterable[Family]] = tuple
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        PlatformCollector(registry=registry)

    def server(self, name: str) -> ServerMetrics:
        """The counters of one server; the first `max_servers` names ever asked for get their own, the rest share."""
        found = self._servers.get(name)
        if found is not None:
            return found
        if len(self._servers) < self._max_servers:
            return self._servers.setdefault(name, ServerMetrics(name, self._method_label))
        if self._others is None:
            self._others = self._servers.get(OTHER) or ServerMetrics(OTHER, self._method_label)
        return self._others

    def refused(self, reason: str) -> None:
        """Count one refusal; `reason` is a fixed word of `errors.py`."""
        if reason not in self._refusals and len(self._refusals) >= _MAX_REASONS:
            reason = OTHER
        self._refusals[reason] = self._refusals.get(reason, 0) + 1

    def reloaded(self, generation: int, at: float) -> None:
        """A configuration came into force `at` this Unix time; the one from the start counts too."""
        self._reloads["ok"] += 1
        self.generation = generation
        self.reloaded_at = at

    def reload_failed(self) -> None:
        """A configuration was refused; the old one goes on."""
        self._reloads["error"] += 1

    def loop_step(self, name: str, at: float, ok: bool) -> None:
        """A background loop made one step, which ended `at` this Unix time."""
        loop = self._loops.get(name) or self._loops.setdefault(name, LoopMetrics())
        loop.runs += 1
        if ok:
            loop.last_success = at
        else:
            loop.failures += 1

    def build_info(self, version: str) -> None:
        """Which build this is; the only place that shows a version, on the private port."""
        self._build = f'{{version="{version}",python="{platform.python_version()}"}}'

    def exposition(self, accept: str) -> tuple[str, bytes]:
        """Content-Type and body for this `Accept`: OpenMetrics 1.0 if it is asked for, else the text format 0.0.4."""
        encode, content_type = choose_encoder(accept)
        openmetrics = content_type.startswith("application/openmetrics-text")
        parts: list[str] = []
        for kind, name, purpose, rows in self.families():
            sample = f"{name}_total" if kind == "counter" else name
            shown = name if openmetrics else sample  # only OpenMetrics keeps `_total` out of the family's name
            parts.append(f"# HELP {shown} {purpose}.\n# TYPE {shown} {kind}\n")
            parts.extend([f"{sample}{suffix} {value}\n" for suffix, value in rows])
        return content_type, "".join(parts).encode() + encode(self._registry)

    def families(self) -> Iterator[Family]:
        """Every metric; servers without traffic stay out."""
        servers = [server for server in (self.unrouted, *self._servers.values()) if server.used()]
        if self._others is not None and OTHER not in self._servers:
            servers.append(self._others)
        for kind, name, purpose, rows in _PER_SERVER:
            yield Family(kind, name, purpose, (row for server in servers for row in rows(server)))
        for name, kind, attribute, purpose in _SINGLE:
            yield Family(kind, name, purpose, (("", getattr(self, attribute)),))
        for kind, name, purpose, key, values in self._keyed():
            yield Family(kind, name, purpose, [(f'{{{key}="{label}"}}', value) for label, value in values.items()])
        yield Family("counter", "mcp_proxy_log_lines_dropped", "Log lines nobody read", (("", self.dropped_lines()),))
        yield from self.more()
        yield Family("gauge", "mcp_proxy_build_info", "Which build this is", ((self._build, 1),))

    def _keyed(self) -> Iterator[tuple[str, str, str, str, Mapping[str, float]]]:
        """Kind, name, help, label and its values with their numbers."""
        loops = self._loops.items()
        yield "counter", "mcp_proxy_refusals", "Answers of the proxy itself", "reason", self._refusals
        yield "counter", "mcp_proxy_config_reloads", "Configurations read", "result", self._reloads
        yield "counter", "mcp_proxy_loop_runs", "Steps of loops", "loop", {name: loop.runs for name, loop in loops}
        yield (
            "counter",
            "mcp_proxy_loop_failures",
            "Failed steps",
            "loop",
            {name: loop.failures for name, loop in loops},
        )
        last = {name: loop.last_success for name, loop in loops}
        yield "gauge", "mcp_proxy_loop_last_success_timestamp_seconds", "When a step last succeeded", "loop", last
