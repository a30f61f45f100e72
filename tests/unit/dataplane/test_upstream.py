"""What is known of a server while it is in use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane.upstream import Upstream
from tests.unit.dataplane.asked import snapshot


def upstream(url: str = "http://up.test/mcp", **server: object) -> Upstream:
    return snapshot({"up": {"url": url, **server}}).upstreams["up"]


def test_a_new_server_is_available_and_unknown() -> None:
    """Its latency of 0 makes the balancer try it."""
    each = upstream()
    assert (each.available(), each.in_flight, each.latency_ewma_s) == (True, 0, 0.0)


@pytest.mark.parametrize(("url", "takes"), [("http://up.test/mcp", True), ("http://up.test/mcp?k=v", False)])
def test_a_url_with_a_query_takes_no_other(url: str, takes: bool) -> None:
    """It is sent to as it is."""
    each = upstream(url)
    assert (each.target, each.takes_query) == (url, takes)


@given(st.lists(st.floats(0.001, 1000.0), min_size=1, max_size=50))
def test_the_average_stays_among_its_samples(samples: list[float]) -> None:
    """And the first sample is the first average."""
    each = upstream()
    for place, sample in enumerate(samples):
        each.observe_latency(sample)
        if place == 0:
            assert each.latency_ewma_s == sample
    assert min(samples) * 0.999 <= each.latency_ewma_s <= max(samples) * 1.001


def test_the_average_follows_a_change() -> None:
    """A server that became slow is known as slow after a dozen answers."""
    each = upstream()
    each.observe_latency(0.1)
    for _ in range(12):
        each.observe_latency(1.0)
    assert 0.9 < each.latency_ewma_s < 1.0


def test_its_text_shows_no_secret() -> None:
    """Neither URL nor fields: they may hold credentials."""
    shown = repr(upstream("http://up.test/mcp?key=secret", headers={"Authorization": "Bearer secret"}))
    assert "secret" not in shown
    assert "'up'" in shown
