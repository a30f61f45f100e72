"""How much everyone may use follows configuration and rows."""

from __future__ import annotations

from typing import Any

from proxy.dataplane.allowance import allowance_of
from proxy.store.rows import LimitRow, TenantRow
from tests.unit.dataplane.admitted import configuration

ACME = TenantRow("t1", "acme", "active", "free", 2.5, "standard")
GLOBEX = TenantRow("t2", "globex", "active", "free", 1.0, "standard")


def limit(**columns: Any) -> LimitRow:
    """A row of tenant acme that limits its clients together."""
    usual: dict[str, Any] = {
        "id": "l1", "tenant_id": "t1", "name": "ours", "level": "tenant", "subject": None, "capacity": 10,
        "refill_per_minute": 60.0, "cost": 1.0, "costs": {}, "window_s": None, "window_limit": None,
        "on_store_error": "local", "enforce": True, "is_enabled": True,
    }  # fmt: skip
    return LimitRow(**(usual | columns))


def test_without_limits_nothing_is_limited() -> None:
    """Neither requests nor streams."""
    allowance = allowance_of(configuration(), {})
    assert allowance.book.rules == ()
    assert not allowance.limits_streams


def test_the_default_limits_requests_and_streams() -> None:
    """Four rules, and an end to open streams."""
    allowance = allowance_of(configuration(limits="default"), {})
    assert [rule.name for rule in allowance.book.rules] == ["global", "tier-admin", "tier-user", "tier-anonymous"]
    assert (allowance.streams_of_client, allowance.streams_of_tenant) == (100, 1000)


def test_rows_add_rules_and_weights() -> None:
    """Of a weight only where it is not the usual one; a row that cannot be used is told of."""
    rows = {
        "tenants": {"t1": ACME, "t2": GLOBEX},
        "rate_limit_configs": {"l1": limit(), "l2": limit(id="l2", name="bad", level="nothing")},
    }
    allowance = allowance_of(configuration(), rows)
    assert [rule.id for rule in allowance.book.rules] == ["l1"]
    assert allowance.weights == {"t1": 2.5}
    assert len(allowance.problems) == 1
    assert "bad" in allowance.problems[0]
