"""Which number a metric is, and whose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from proxy.background.signals import Signals, Sources
from proxy.config.alerts import Metric
from proxy.config.resilience import Queue
from proxy.identity.access import Server as Place
from proxy.identity.records import SYSTEM_TENANT
from tests.unit.background.seen import Server
from tests.unit.background.test_alert_states import rule
from tests.unit.dataplane.fakes import Time

ACME, ROW = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"


class Traffic:
    """Says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, float]] = []
        self.requests: float | None = 50.0

    def __call__(self, metric: str, tenant: str, server: str, window_s: float) -> float | None:
        self.asked.append((metric, tenant, server, window_s))
        return self.requests if metric == "requests" else 7.0


class Here:
    """Two servers: everybody's `up` without a row, and a tenant's `own`."""

    def __init__(self, **sources: Any) -> None:
        self.traffic = Traffic()
        clock = Time()
        self.up = Server("up", Place("up"), clock, Queue())
        self.own = Server("acme/own", Place("own", ROW, ACME), clock)
        self.servers = {server.name: server for server in (self.up, self.own)}
        self.signals = Signals(Sources(self.traffic, lambda: self.servers, **sources))

    def values(self, metric: str, tenant: str = SYSTEM_TENANT, **given: Any) -> dict[str, float | None]:
        return self.signals.values(rule(metric=metric, tenant=tenant, **given))


def test_traffic_is_that_of_the_tenant_and_the_operator_sees_all() -> None:
    """A server is given by its full name, or by the id of its row."""
    here = Here()
    assert here.values("p99_ms") == {"": 7.0}
    here.values("error_rate", ACME, server=ROW, window_s=60.0)
    here.values("p50_ms", server="up")
    assert here.traffic.asked == [
        ("p99_ms", "", "", 300.0), ("error_rate", ACME, "acme/own", 60.0), ("p50_ms", "", "up", 300.0)
    ]  # fmt: skip


def test_a_server_that_is_gone_has_no_traffic_and_one_that_is_renamed_goes_on() -> None:
    """It is not taken for all servers."""
    here = Here()
    assert here.values("p50_ms", ACME, server=ROW) == {"": 7.0}
    here.servers = {"up": here.up, "acme/new": here.own}
    assert here.values("p50_ms", ACME, server=ROW) == {"": 7.0}
    here.servers = {"up": here.up, "acme/new": Server("acme/new", Place("new", "another", ACME), Time())}
    assert here.values("p50_ms", ACME, server=ROW) == here.values("p50_ms", server="nobody") == {"": None}
    assert [server for _, _, server, _ in here.traffic.asked] == ["acme/own", "acme/new"]


@pytest.mark.parametrize(("requests", "seen"), [(None, None), (49.0, None), (50.0, 7.0), (51.0, 7.0)])
def test_few_requests_say_nothing(requests: float | None, seen: float | None) -> None:
    """They are those of the rule's own tenant, server and window."""
    here = Here()
    here.traffic.requests = requests
    assert here.values("error_rate", ACME, server=ROW, min_requests=50) == {"": seen}
    assert here.traffic.asked[0] == ("requests", ACME, "acme/own", 300.0)


def test_breakers_pools_and_queues_are_those_of_each_server() -> None:
    """A tenant sees its own; what a server does not have has no value."""
    here = Here()
    here.own.fail()
    assert here.values("breaker_open") == {"up": 0.0, "acme/own": 1.0}
    assert here.values("breaker_open", ACME) == {"acme/own": 1.0}
    assert here.values("breaker_open", server="up") == {"up": 0.0}
    assert here.values("breaker_open", ACME, server="up") == {}
    assert here.values("breaker_open", ACME, server=ROW) == {"acme/own": 1.0}
    here.up.client.slots.limit, here.up.client.slots.used = 10, 4
    here.own.client.slots.limit = 0
    assert here.values("pool_utilization") == {"up": 0.4, "acme/own": None}
    assert here.values("queue_pending") == {"up": 0.0, "acme/own": None}


def test_numbers_of_the_process_are_the_operators() -> None:
    """What is not there has no value; neither has what is somebody else's."""
    full = Here(
        spool_share=lambda: 0.6, postgres_away=lambda: True, redis_away=lambda: False, loop_lag_s=lambda: 0.25,
        memory_share=lambda: 0.5,
    )  # fmt: skip
    expected = {
        "spool_share": 0.6, "postgres_away": 1.0, "redis_away": 0.0, "loop_lag_ms": 250.0, "memory_share": 0.5
    }  # fmt: skip
    for metric, value in expected.items():
        assert full.values(metric) == {"": value}
        assert full.values(metric, ACME) == {"": None}
        assert Here().values(metric) == {"": None}


def test_every_metric_of_the_configuration_is_one() -> None:
    """None falls to the traffic that it does not know."""
    known = {"error_rate", "p50_ms", "p95_ms", "p99_ms", "requests_per_minute"}
    for metric in get_args(Metric):
        here = Here()
        here.signals.values(replace(rule(metric=metric), tenant=SYSTEM_TENANT))
        assert bool(here.traffic.asked) == (metric in known)
