"""What the backend counts is shown under names and labels that cannot grow without end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

from proxy.backend_metrics import RuleCounts, families
from proxy.background.violation_log import ViolationLog
from proxy.dataplane.admission import Freshness
from proxy.dataplane.bans import Bans, policy_of
from proxy.dataplane.ratelimit import Limiter
from proxy.identity.uuid7 import RecordIds
from proxy.limits.rules import Rule
from proxy.log import logger
from proxy.metrics import Family, Metrics, new_registry
from proxy.store.database import Database, Places
from tests.unit.dataplane.admitted import configuration


def backend_families(rules: RuleCounts | None = None) -> Iterator[Family]:
    """Those of a backend with every part, in which one rule has refused and one would have."""
    counts = rules or RuleCounts()
    if rules is None:
        counts.count(Rule("r", "strict", "global", 1.0, 1.0))
        counts.count(Rule("s", 'shadow"\\', "global", 1.0, 1.0, enforce=False))
    violations = ViolationLog(None, RecordIds(time.time, os.urandom), time.time, logger("test"))
    database = Database(Places("postgresql://nobody@127.0.0.1:1/none"), {}, time.monotonic)
    limiter = Limiter(None, time.monotonic, "here")
    return families(Freshness(current=True), database, limiter, counts, Bans(policy_of(configuration())), violations)


def shown(rules: RuleCounts | None = None) -> dict[str, float]:
    """Sample with its labels -> value, as a scraper reads them."""
    metrics = Metrics(new_registry(), 10, str)
    metrics.more = lambda: backend_families(rules)
    text = metrics.exposition("")[1].decode()
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_scraper_reads_them() -> None:
    """Rules apart by whether they refuse, pools by what they are for."""
    samples = shown()
    assert samples["mcp_proxy_registry_current[]"] == 1
    assert samples["mcp_proxy_limit_refusals_total[('rule', 'strict')]"] == 1
    assert samples["mcp_proxy_limit_shadow_refusals_total[('rule', 'shadow\"\\\\')]"] == 1
    assert samples["mcp_proxy_limit_workers[]"] == 1
    assert samples["mcp_proxy_postgres_circuit_open[('pool', 'read')]"] == 0


def test_names_of_rules_cannot_fill_the_memory() -> None:
    """Two hundred have a label; the rest share one."""
    counts = RuleCounts()
    for number in range(1000):
        counts.count(Rule(str(number), f"rule {number % 300}", "global", 1.0, 1.0))
    assert len(counts.refused) == 201
    assert sum(counts.refused.values()) == 1000
    assert counts.refused["other"] > 100
