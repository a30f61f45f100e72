"""What protects servers and process is shown under names and labels that cannot grow without end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, cast

from prometheus_client.parser import text_string_to_metric_families

from proxy.background.health_checks import HealthChecks
from proxy.background.observing import Clocks, Observing
from proxy.config.models import Server
from proxy.config.resilience import RetryBudget as RetryBudgetSettings
from proxy.dataplane.client import UpstreamClient
from proxy.dataplane.retries import RetryBudget
from proxy.dataplane.shedding import Load
from proxy.dataplane.upstream import Around, Upstream
from proxy.identity.uuid7 import RecordIds
from proxy.log import logger
from proxy.metrics import Family, Metrics, new_registry
from proxy.protection_metrics import families
from tests.unit.dataplane.fakes import Time


class Bench:
    """Servers and everything that protects them; nothing runs, time is the test's."""

    def __init__(self, servers: dict[str, dict[str, Any]], cap: int = 10) -> None:
        self.time = Time()
        self.metrics = Metrics(new_registry(), cap, str)
        self.servers: dict[str, Upstream] = {}
        for name, keys in servers.items():
            server = Server.model_validate({"url": "http://127.0.0.1:9/", **keys})
            metrics = self.metrics.server(name)
            around = Around(self.time, lambda: 0.0)
            self.servers[name] = Upstream(name, server, cast("UpstreamClient", None), metrics, around)
        self.load = Load()
        self.budget = RetryBudget(RetryBudgetSettings(percent=0, minimum=1))
        ids, log = RecordIds(time.time, os.urandom), logger("test")
        self.observing = Observing(None, lambda: {}, ids, Clocks(time.time, self.time), log, "here")
        self.checks = HealthChecks(lambda: {}, lambda name, check: False, log, self.time, lambda: 0.0)

    def families(self) -> Iterator[Family]:
        """As the proxy puts them together."""
        return families(self.servers, self.checks, self.load, self.budget, self.observing)

    def shown(self) -> dict[str, float]:
        """Sample with its labels -> value, as a scraper reads them."""
        self.metrics.more = self.families
        text = self.metrics.exposition("")[1].decode()
        return {
            f"{sample.name}{','.join(f'{key}={value}' for key, value in sorted(sample.labels.items()))}": sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


def protection_families() -> Iterator[Family]:
    """All of them, each with a line: a server has failed, and has a queue and checks."""
    bench = Bench({"a": {"queue": {"max_concurrent": 1}, "health_check": {}}})
    breaker = bench.servers["a"].breaker
    breaker.failed(breaker.admit(), "connect")
    bench.servers["a"].health.checked(False, 0.1)
    return bench.families()


def test_a_breaker_that_opened_is_shown_with_its_state_its_time_and_its_failures() -> None:
    """Exactly one state is 1; the seconds of all states are the time that has passed."""
    bench = Bench({"a": {"breaker": {"failures": 2, "open_for": "5s"}}, "b": {}})
    breaker = bench.servers["a"].breaker
    bench.time.now += 7
    breaker.failed(breaker.admit(), "connect")
    breaker.failed(breaker.admit(), "timeout")
    bench.time.now += 3
    assert not breaker.admit()
    shown = bench.shown()
    assert [shown[f"mcp_proxy_breaker_stateserver=a,state={state}"] for state in ("closed", "open", "half_open")] == [
        0, 1, 0,
    ]  # fmt: skip
    assert shown["mcp_proxy_breaker_seconds_totalserver=a,state=closed"] == 7
    assert shown["mcp_proxy_breaker_seconds_totalserver=a,state=open"] == 3
    assert shown["mcp_proxy_breaker_trips_totalserver=a"] == 1
    assert shown["mcp_proxy_breaker_refused_totalserver=a"] == 1
    assert shown["mcp_proxy_server_failures_totalorigin=connect,server=a"] == 1
    assert shown["mcp_proxy_server_failures_totalorigin=timeout,server=a"] == 1
    assert shown["mcp_proxy_server_failures_totalorigin=reset,server=a"] == 0


def test_a_server_that_never_failed_has_no_lines_of_its_breaker() -> None:
    """Ten thousand healthy servers cost a scrape nothing; an operator's order shows one all the same."""
    bench = Bench({"a": {}, "b": {}})
    assert not any(name.startswith("mcp_proxy_breaker") and "server=" in name for name in bench.shown())
    bench.servers["b"].breaker.force("open")
    shown = bench.shown()
    assert shown["mcp_proxy_breaker_stateserver=b,state=open"] == 1
    assert not any("server=a" in name for name in shown if name.startswith("mcp_proxy_breaker"))


async def test_a_queue_shows_what_became_of_those_who_came() -> None:
    """One runs, one was refused; a server without a queue has no line."""
    bench = Bench({"a": {"queue": {"max_concurrent": 1, "max_pending": 0}}, "b": {}})
    queue = bench.servers["a"].queue
    assert queue is not None
    assert queue.try_enter()
    queue.rejected, queue.expired, queue.abandoned, queue.waited_s = 4, 3, 2, 1.5
    shown = bench.shown()
    assert {name: shown[f"mcp_proxy_queue_{name}server=a"] for name in ("running", "pending")} == {
        "running": 1, "pending": 0,
    }  # fmt: skip
    totals = ("admitted", "rejected", "expired", "abandoned", "waited_seconds")
    assert [shown[f"mcp_proxy_queue_{name}_totalserver=a"] for name in totals] == [1, 4, 3, 2, 1.5]
    assert not any("server=b" in name for name in shown if name.startswith("mcp_proxy_queue"))


def test_servers_beyond_the_cap_share_one_line() -> None:
    """Their numbers are one: a scraper refuses two samples of one name."""
    failing = {"breaker": {"failures": 1}, "queue": {"max_concurrent": 2}}
    bench = Bench({f"s{number}": failing for number in range(5)}, cap=2)
    for server in bench.servers.values():
        server.breaker.failed(server.breaker.admit(), "reset")
        assert server.queue is not None
        assert server.queue.try_enter()
    shown = bench.shown()
    running = {name: value for name, value in shown.items() if name.startswith("mcp_proxy_queue_running")}
    failed = {name: value for name, value in shown.items() if "origin=reset" in name}
    for lines in (running, failed):
        assert sum(lines.values()) == 5
        assert max(lines.values()) > 1
        assert len(lines) < 5


def test_retries_show_how_often_the_budget_had_room() -> None:
    """And how many are under way."""
    bench = Bench({"a": {}})
    assert [bench.budget.take() for _ in range(3)] == [True, False, False]
    shown = bench.shown()
    assert shown["mcp_proxy_retries_running"] == 1
    assert shown["mcp_proxy_retries_totalverdict=allowed"] == 1
    assert shown["mcp_proxy_retries_totalverdict=refused"] == 2


def test_overload_shows_its_figures_and_whom_it_refused() -> None:
    """By class."""
    bench = Bench({"a": {}})
    bench.load.lag_s, bench.load.memory_bytes, bench.load.memory_limit = 0.25, 300, 500
    bench.load.shed = [0, 2, 7]
    shown = bench.shown()
    assert shown["mcp_proxy_loop_lag_seconds"] == 0.25
    assert (shown["mcp_proxy_memory_bytes"], shown["mcp_proxy_memory_limit_bytes"]) == (300, 500)
    assert [shown[f"mcp_proxy_shed_requests_totalclass={name}"] for name in ("high", "normal", "low")] == [0, 2, 7]


def test_health_and_what_waits_to_be_written_are_among_them() -> None:
    """Each server counts under one status."""
    bench = Bench({"a": {"health_check": {"unhealthy_after": 1}}, "b": {}})
    bench.servers["a"].health.checked(False, 0.1)
    bench.observing.dropped = 4
    shown = bench.shown()
    assert shown["mcp_proxy_serversstatus=unhealthy"] == 1
    assert shown["mcp_proxy_serversstatus=unknown"] == 1
    assert shown["mcp_proxy_observation_rows_waiting"] == 0
    assert shown["mcp_proxy_observation_rows_dropped_total"] == 4
