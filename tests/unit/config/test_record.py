"""What is kept of requests, as written."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from proxy.config.record import Record, Spool


def test_nothing_of_the_content_of_calls_is_kept_unless_it_is_wanted() -> None:
    """Who did what, and no more."""
    record = Record()
    assert (record.audit, record.arguments, record.results) == ("standard", "none", "none")


def test_a_segment_is_no_larger_than_the_spool() -> None:
    """Or nothing could ever be deleted."""
    assert Spool.model_validate({"max_size": "1MiB", "segment": "1MiB"}).segment == 1 << 20
    with pytest.raises(ValidationError, match="not more than 'max_size'"):
        Spool.model_validate({"max_size": "1MiB", "segment": "2MiB"})


@pytest.mark.parametrize("written", [{"audit": "off"}, {"tenants": {"acme": "loose"}}, {"max_content": "2MiB"}])
def test_what_is_not_a_setting_is_refused(written: dict[str, object]) -> None:
    """By its name, its word or its size."""
    with pytest.raises(ValidationError):
        Record.model_validate(written)
