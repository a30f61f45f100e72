"""How long rows are kept, as it is written down."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from proxy.config.retention import DEFAULTS, Kept, Retention


def test_a_table_that_is_not_named_has_its_default() -> None:
    """What may be evidence, or is the base of an invoice, is kept for ever."""
    retention = Retention.model_validate({"tables": {"request_logs": {"keep": "7d", "archive": True, "batch": 5}}})
    assert retention.of("request_logs").days == 7
    assert retention.of("server_health_checks").days == 30
    assert [table for table in DEFAULTS if retention.of(table).days is None] == [
        "audit_logs", "security_events", "tenant_usage", "audit_heads"
    ]  # fmt: skip


@pytest.mark.parametrize("keep", ["36h", "1ms", "90", -1, None])
def test_rows_are_kept_for_whole_days(keep: object) -> None:
    """Anything else is refused."""
    with pytest.raises(ValidationError):
        Kept.model_validate({"keep": keep})


def test_an_unknown_table_is_refused() -> None:
    """A slip of the pen would keep rows that should go."""
    with pytest.raises(ValidationError):
        Retention.model_validate({"tables": {"requests": {"keep": "7d"}}})
