"""What keeps records shows what it counts under names and labels that are fixed."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from proxy.background import incidents, shipping, traffic_rows
from proxy.background.alerting import Alerting, Around
from proxy.background.observing import Clocks
from proxy.background.overrides import families as setting_families
from proxy.background.retention import Retention
from proxy.background.shipping import Shipper
from proxy.background.signals import Sources
from proxy.background.traffic import Traffic
from proxy.config.alerts import Alerts
from proxy.config.models import Config
from proxy.config.overrides import Outcome
from proxy.dataplane.stream_times import StreamTimes
from proxy.dataplane.tally import Tally
from proxy.identity.uuid7 import RecordIds
from proxy.log import logger
from proxy.metrics import Family, ServerMetrics
from proxy.record_metrics import spool_families
from proxy.spool.journal import Bounds, Journal
from proxy.store.database import Database, Places
from proxy.tracing import Spans

IDS = RecordIds(time.time, os.urandom)
HOOK = {"url": "https://hooks.example.com/x", "secret": "a secret of thirty-two characters"}


def record_families() -> Iterator[Family]:
    """Those of everything that keeps what happened."""
    log, clocks, database = logger("test"), Clocks(time.time, time.monotonic), Database(Places(""), {})
    config = Config.model_validate({"servers": {"a": {"url": "http://a.test/mcp"}}})
    rows = traffic_rows.TrafficRows(None, IDS.new, "i")
    traffic = Traffic(Tally(), rows, dict, lambda *_: True, time.monotonic, time.time)
    yield from traffic_rows.families(traffic, rows)
    yield from incidents.families(incidents.Incidents(None, IDS, time.time))
    settings = Alerts.model_validate({"webhooks": {"hook": HOOK}})
    around = Around(cast(Any, lambda name, coroutine: False), clocks, lambda: 0.5, IDS, log, "i")
    yield from Alerting(settings, Sources(traffic.value, dict), None, around).families()
    yield from Retention(database, lambda: config.retention, time.time, asyncio.sleep, log, IDS).families()
    yield from setting_families(Outcome(config))
    processor, resource = cast(Any, None), cast(Any, None)
    yield from Spans(processor, resource, {"made": 0, "sent": 0, "failed": 0}).families()
    streams = StreamTimes()
    server = streams.of(ServerMetrics("a", str))
    for times in (server.first_events, server.gaps, server.durations):
        times.observe(0.1)
    yield from streams.families()
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "spool", Bounds(1 << 20, 1 << 16, 1 << 16), time.time)
        yield from spool_families(journal.numbers())
        yield from shipping.families(Shipper(database, Path(folder) / "spool", None, None, log))
        asyncio.run(journal.close(remove=True))


def test_names_say_whose_they_are_and_what_they_are() -> None:
    """Each once, with a meaning."""
    families = list(record_families())
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    assert all(name.startswith("mcp_proxy_") for name in names)
    assert all(family.purpose for family in families)


async def test_what_a_journal_counts_is_shown(tmp_path: Path) -> None:
    """Written, refused and dropped, and how full it is."""
    journal = Journal(tmp_path / "spool", Bounds(1 << 20, 1 << 16, 1 << 16), lambda: 1_700_000_000.0)
    journal.begin("a", b'{"kind":"intent"}', "standard")
    journal.end("a", b'{"kind":"outcome"}', "standard")
    journal.skip("")
    await journal.sync()
    shown = {family.name: dict(family.rows) for family in spool_families(journal.numbers())}
    assert shown["mcp_proxy_spool_records"][""] == 2
    assert shown["mcp_proxy_spool_dropped"]['{grade="usage"}'] == 1
    assert shown["mcp_proxy_spool_open_requests"][""] == 0
    assert shown["mcp_proxy_spool_syncs"][""] >= 1
    assert all(name.startswith("mcp_proxy_spool_") for name in shown)
    await journal.close()
