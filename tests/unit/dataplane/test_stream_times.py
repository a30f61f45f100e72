"""Streams of each server are counted and timed; servers beyond the cap share their numbers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from proxy.dataplane.stream_times import Times
from proxy.dataplane.streams import Streams
from proxy.metrics import BUCKETS_S, Metrics
from tests.unit.dataplane.asked import ask, snapshot

SNAPSHOT = snapshot({"up": "http://up.test/mcp"})


def test_a_time_falls_into_the_bucket_that_ends_with_it() -> None:
    """As Prometheus counts: a bucket includes its bound."""
    times = Times()
    for seconds in (BUCKETS_S[0], BUCKETS_S[0] * 1.1, BUCKETS_S[-1] * 2):
        times.observe(seconds)
    assert (times.counts[0], times.counts[1], times.counts[-1], sum(times.counts)) == (1, 1, 1, 3)


async def test_the_metrics_have_a_line_for_each_server() -> None:
    """Histograms are cumulative; a server without streams has none."""
    metrics = Metrics(CollectorRegistry(), 2, lambda method: method)
    streams = Streams()
    assert all(not list(family.rows) for family in streams.times.families())
    ctx = ask(SNAPSHOT, "/up/mcp", method="GET")
    ctx.started_at = 10.0
    for server in ("one", "one", "two", "three", "four"):
        stream = streams.open(ctx)
        stream.begin(streams.times.of(metrics.server(server)), 11.0)
        stream.passed(100, 12.0)
        stream.passed(0, 13.0)
        stream.passed(10, 14.0)
        stream.over(20.0)
    families = {family.name: dict(family.rows) for family in streams.times.families()}
    assert families["mcp_proxy_streams"] == {'{server="one"}': 2, '{server="two"}': 1, '{server="other"}': 2}
    assert families["mcp_proxy_stream_bytes"]['{server="one"}'] == 220
    for name, total in (("first_event", 4.0), ("gap", 4.0), ("duration", 18.0)):
        rows = families[f"mcp_proxy_stream_{name}_seconds"]
        assert (rows['_sum{server="one"}'], rows['_count{server="one"}']) == (total, 2)
        assert rows['_bucket{server="one",le="+Inf"}'] == 2
        assert rows['_bucket{server="one",le="0.5"}'] == 0


async def test_a_stream_that_was_not_told_where_it_counts_counts_nowhere() -> None:
    """Nothing fails for it."""
    streams = Streams()
    stream = streams.open(ask(SNAPSHOT, "/up/mcp", method="GET"))
    stream.passed(10, 1.0)
    stream.over(2.0)
    assert not any(list(family.rows) for family in streams.times.families())
