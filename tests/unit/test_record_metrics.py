"""The metrics of a spool tell what its journal counts."""

from __future__ import annotations

from pathlib import Path

from proxy.record_metrics import spool_families
from proxy.spool.journal import Bounds, Journal


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
