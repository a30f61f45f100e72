"""The metrics mean exactly what Prometheus says they mean, and their labels cannot grow without end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from proxy.metrics import BUCKETS_S, NO_SERVER, OTHER, OUTCOMES, Metrics
from tests.unit.background.test_pool_sizing import size_families
from tests.unit.test_backend_metrics import backend_families
from tests.unit.test_protection_metrics import protection_families
from tests.unit.test_record_metrics import record_families

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
KNOWN = {"tools/call", "tools/list", "initialize"}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def label(method: str) -> str:
    return method if method in KNOWN else OTHER


def build(max_servers: int = 200) -> Metrics:
    return Metrics(CollectorRegistry(), max_servers, label)


def samples(text: str, prefix: str = "mcp_proxy_") -> Samples:
    found: Samples = {}
    for family in parse_text(text):
        for sample in family.samples:
            if sample.name.startswith(prefix):
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in found, f"{key} is shown twice"
                found[key] = sample.value
    return found


def scrape(metrics: Metrics) -> Samples:
    return samples(metrics.exposition("")[1].decode())


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return scrape(metrics).get((name, frozenset(labels.items())))


class Reference:
    """The same metrics made of prometheus_client's own classes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of = {"registry": self.registry}
        self.requests = Counter("mcp_proxy_requests", "x", ["server", "method", "outcome"], **of)
        self.duration = Histogram("mcp_proxy_request_duration_seconds", "x", ["server"], buckets=BUCKETS_S, **of)
        self.first_byte = Histogram("mcp_proxy_first_byte_seconds", "x", ["server"], buckets=BUCKETS_S, **of)
        self.bytes = Counter("mcp_proxy_bytes", "x", ["server", "direction"], **of)

    def observe(
        self, server: str, method: str, outcome: str, seconds: tuple[float, float], sizes: tuple[int, int]
    ) -> None:
        self.requests.labels(server, label(method), outcome).inc()
        self.duration.labels(server).observe(seconds[0])
        if seconds[1] >= 0:
            self.first_byte.labels(server).observe(seconds[1])
        self.bytes.labels(server, "in").inc(sizes[0])
        self.bytes.labels(server, "out").inc(sizes[1])

    def samples(self) -> Samples:
        text = generate_latest(self.registry).decode()
        return {key: number for key, number in samples(text).items() if not key[0].endswith("_created")}


seconds = st.one_of(st.sampled_from([0.0, *BUCKETS_S, 901.0]), st.floats(0, 2000))
observations = st.lists(
    st.tuples(
        st.sampled_from(["a", "b.c-d"]),
        st.sampled_from([*KNOWN, "made/up", "x" * 300, 'evil"}\n']),
        st.sampled_from(OUTCOMES),
        st.tuples(seconds, st.one_of(seconds, st.just(-1.0))),
        st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40)),
    ),
    max_size=30,
)


@settings(max_examples=100, deadline=None)
@given(observations)
def test_counts_as_prometheus_client_would(
    seen: list[tuple[str, str, str, tuple[float, float], tuple[int, int]]],
) -> None:
    """After any observations, every sample equals the one of prometheus_client's counters and histograms."""
    metrics, reference = build(), Reference()
    for server, method, outcome, times, sizes in seen:
        metrics.server(server).observe(method, outcome, *times, *sizes)
        reference.observe(server, method, outcome, times, sizes)
    ours, theirs = scrape(metrics), reference.samples()
    assert {key: ours.get(key) for key in theirs} == pytest.approx(theirs)
    shown = {
        key for key in ours if key[0].startswith(("mcp_proxy_requests_total", "mcp_proxy_request_d", "mcp_proxy_f"))
    }
    assert shown <= set(theirs)


def test_a_value_on_a_bound_falls_into_that_bucket() -> None:
    """`le` means less or equal."""
    metrics = build()
    metrics.server("a").observe("tools/call", "ok", 0.05, 0.05, 0, 0)
    name = "mcp_proxy_request_duration_seconds_bucket"
    assert value(metrics, name, server="a", le="0.05") == 1
    assert value(metrics, name, server="a", le="0.025") == 0
    assert value(metrics, name, server="a", le="+Inf") == 1


def test_no_answer_is_no_observation_of_the_first_byte() -> None:
    """A request without a byte of an answer does not draw the histogram down to zero."""
    metrics = build()
    metrics.server("a").observe("tools/call", "client_gone", 0.05, -1.0, 10, 0)
    assert value(metrics, "mcp_proxy_first_byte_seconds_count", server="a") is None
    assert value(metrics, "mcp_proxy_request_duration_seconds_count", server="a") == 1


def test_only_known_methods_are_labels() -> None:
    """Ten thousand invented methods become one label; HTTP methods stand for requests without a message."""
    metrics = build()
    for number in range(10_000):
        metrics.server("a").observe(f"made/up-{number}", "ok", 0.1, 0.1, 0, 0)
    metrics.server("a").observe("GET", "ok", 0.1, 0.1, 0, 0)
    methods = {dict(labels)["method"] for name, labels in scrape(metrics) if name == "mcp_proxy_requests_total"}
    assert methods == {OTHER, "GET"}
    assert value(metrics, "mcp_proxy_requests_total", server="a", method=OTHER, outcome="ok") == 10_000


def test_an_unknown_outcome_is_a_bug_and_counts_as_one() -> None:
    """Outcomes are a fixed set."""
    metrics = build()
    metrics.server("a").observe("tools/call", "exploded", 0.1, 0.1, 0, 0)
    assert value(metrics, "mcp_proxy_requests_total", server="a", method="tools/call", outcome="internal") == 1


def test_servers_beyond_the_cap_share_one_label() -> None:
    """The first come have their own label for good; all others count together as `other`."""
    metrics = build(max_servers=2)
    first, second, third, fourth = (metrics.server(name) for name in ("a", "b", "c", "d"))
    assert third is fourth
    assert len({first, second, third}) == 3
    assert metrics.server("a") is first
    third.open_streams += 1
    fourth.open_streams += 1
    assert value(metrics, "mcp_proxy_open_streams", server=OTHER) == 2


def test_a_server_named_other_is_not_shown_twice() -> None:
    """The name of the overflow may be taken by a real server; then both are one series."""
    metrics = build(max_servers=1)
    metrics.server(OTHER).observe("tools/call", "ok", 0.1, 0.1, 0, 0)
    metrics.server("b").observe("tools/call", "ok", 0.1, 0.1, 0, 0)
    assert value(metrics, "mcp_proxy_requests_total", server=OTHER, method="tools/call", outcome="ok") == 2


def test_unused_servers_cost_no_series() -> None:
    """Ten thousand configured servers without traffic leave the exposition as short as none."""
    metrics, none = build(max_servers=10_000), build(max_servers=10_000)
    for number in range(10_000):
        metrics.server(f"server-{number}").pool_limit += 200
    assert scrape(metrics).keys() == scrape(none).keys()


def test_requests_without_a_server_have_a_label_no_server_can_have() -> None:
    """A refusal before routing is counted under '-'."""
    metrics = build()
    metrics.unrouted.observe("POST", "refused", 0.001, -1.0, 5, 80)
    assert value(metrics, "mcp_proxy_requests_total", server=NO_SERVER, method="POST", outcome="refused") == 1


def test_single_numbers_are_shown_under_their_names() -> None:
    """What others add to the public attributes appears in the next scrape."""
    metrics = build()
    metrics.in_flight += 3
    metrics.connections_open += 2
    metrics.connections_accepted += 5
    metrics.connections_refused += 1
    metrics.mirror_dropped += 4
    metrics.dropped_lines = lambda: 7
    metrics.build_info("1.2.3")
    shown = {name: number for (name, labels), number in scrape(metrics).items() if not labels}
    assert shown["mcp_proxy_requests_in_flight"] == 3
    assert shown["mcp_proxy_connections_open"] == 2
    assert shown["mcp_proxy_connections_accepted_total"] == 5
    assert shown["mcp_proxy_connections_refused_total"] == 1
    assert shown["mcp_proxy_mirror_copies_dropped_total"] == 4
    assert shown["mcp_proxy_log_lines_dropped_total"] == 7
    assert any(name == "mcp_proxy_build_info" and ("version", "1.2.3") in labels for name, labels in scrape(metrics))


def test_pool_numbers_are_kept_per_server() -> None:
    """Gauges go up and down, counters go up."""
    metrics = build()
    server = metrics.server("a")
    server.pool_limit += 200
    server.pool_connects += 2
    server.pool_reuses += 8
    server.pool_waits += 1
    server.pool_in_use += 2
    server.pool_in_use -= 1
    assert value(metrics, "mcp_proxy_pool_connections_limit", server="a") == 200
    assert value(metrics, "mcp_proxy_pool_connects_total", server="a") == 2
    assert value(metrics, "mcp_proxy_pool_reuses_total", server="a") == 8
    assert value(metrics, "mcp_proxy_pool_waits_total", server="a") == 1
    assert value(metrics, "mcp_proxy_pool_connections_in_use", server="a") == 1


def test_reloads_say_which_generation_serves() -> None:
    """A refused configuration is counted and leaves generation and time alone."""
    metrics = build()
    metrics.reloaded(4, 1_700_000_000.5)
    metrics.reload_failed()
    assert value(metrics, "mcp_proxy_config_generation") == 4
    assert value(metrics, "mcp_proxy_config_last_reload_success_timestamp_seconds") == 1_700_000_000.5
    assert value(metrics, "mcp_proxy_config_reloads_total", result="ok") == 1
    assert value(metrics, "mcp_proxy_config_reloads_total", result="error") == 1


def test_refusals_are_counted_by_reason_within_bounds() -> None:
    """Reasons are fixed words; if ever they were not, the label still could not grow without end."""
    metrics = build()
    metrics.refused("no_route")
    metrics.refused("no_route")
    for number in range(500):
        metrics.refused(f"invented-{number}")
    reasons = {dict(labels)["reason"]: n for (name, labels), n in scrape(metrics).items() if "refusals" in name}
    assert reasons["no_route"] == 2
    assert len(reasons) <= 65
    assert sum(reasons.values()) == 502


def test_loops_show_when_they_last_succeeded() -> None:
    """A failing step moves the failures and leaves the time of the last success."""
    metrics = build()
    metrics.loop_step("tick", 100.0, ok=True)
    metrics.loop_step("tick", 200.0, ok=False)
    assert value(metrics, "mcp_proxy_loop_runs_total", loop="tick") == 2
    assert value(metrics, "mcp_proxy_loop_failures_total", loop="tick") == 1
    assert value(metrics, "mcp_proxy_loop_last_success_timestamp_seconds", loop="tick") == 100.0


def full() -> Metrics:
    metrics = build()
    metrics.build_info("1.2.3")
    metrics.server("a").observe("tools/call", "ok", 0.0001, 0.00001, 10, 20)
    metrics.refused("no_route")
    metrics.loop_step("tick", 1.5e9, ok=True)
    return metrics


def test_openmetrics_is_given_to_those_who_ask() -> None:
    """The answer parses under the strict OpenMetrics grammar and holds what the text format holds."""
    metrics = full()
    content_type, body = metrics.exposition(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    assert body.count(b"# EOF") == 1
    names = {sample.name for family in parse_openmetrics(body.decode()) for sample in family.samples}
    assert {name for name in names if name.startswith("mcp_proxy_")} == {name for name, _ in scrape(metrics)}


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain", "application/json"])
def test_everyone_else_gets_the_text_format(accept: str) -> None:
    """Anything but OpenMetrics is answered as text 0.0.4, with help and type before each family."""
    content_type, body = full().exposition(accept)
    assert content_type.startswith("text/plain; version=0.0.4")
    text = body.decode()
    assert "# EOF" not in text
    assert "# TYPE mcp_proxy_requests_total counter\n" in text
    kinds = {family.name: family.type for family in parse_text(text)}
    assert kinds["mcp_proxy_request_duration_seconds"] == "histogram"
    assert kinds["mcp_proxy_open_streams"] == "gauge"
    assert "unknown" not in kinds.values()


def test_process_and_interpreter_are_shown_too() -> None:
    """The usual collectors of process, garbage collector and platform are there, in every instance on its own."""
    for metrics in (build(), build()):
        text = metrics.exposition("")[1].decode()
        for name in ("process_resident_memory_bytes", "python_gc_collections_total", "python_info"):
            assert f"\n{name}" in text


def test_a_hostile_server_name_cannot_break_out_of_its_label() -> None:
    """Configuration forbids such names; the exposition would stay well-formed all the same (reliability D4)."""
    metrics = build()
    metrics.server('a"} 1\nfake_metric{x="\\').observe("tools/call", "ok", 0.1, 0.1, 0, 0)
    labels = {dict(labels).get("server") for name, labels in scrape(metrics) if name == "mcp_proxy_requests_total"}
    assert labels == {'a"} 1\nfake_metric{x="\\'}
    assert "fake_metric" not in {name for name, _ in samples(metrics.exposition("")[1].decode(), "")}


def test_every_metric_is_documented_and_no_other() -> None:
    """docs/operations.md lists each metric with its type and labels, and nothing that does not exist."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| `(mcp_proxy_\w+)` \| (\w+) \| (.*?) \|", text, re.MULTILINE)
    written = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    real = {}
    metrics = full()
    metrics.more = lambda: [*backend_families(), *protection_families(), *size_families(), *record_families()]
    for family in metrics.families():
        name = f"{family.name}_total" if family.kind == "counter" else family.name
        labels = {label for suffix, _ in family.rows for label in re.findall(r'[{,](\w+)="', suffix)}
        real[name] = (family.kind, labels - {"le"})
    assert written == real
