"""What the spool knows of a record."""

from __future__ import annotations

import orjson
import pytest

from proxy.spool.kinds import carried, closed, fields_of, is_row, opened, tenant_of
from tests.unit.spool.records import intent, key_of, outcome, record_of


@pytest.mark.parametrize("record", [intent(1), orjson.dumps({"id": key_of(1), "kind": "intent"})])
def test_a_beginning_opens_its_request_however_its_keys_stand(record: bytes) -> None:
    """The usual order is read without reading the rest."""
    assert opened(record) == (key_of(1), record)
    assert closed(record) == ""


@pytest.mark.parametrize(
    "record", [outcome(1), record_of("denied", 1), orjson.dumps({"id": key_of(1), "kind": "outcome"})]
)
def test_an_end_closes_its_request_however_its_keys_stand(record: bytes) -> None:
    """Also when it was denied."""
    assert closed(record) == key_of(1)
    assert opened(record) is None


def test_a_carried_beginning_is_no_row_and_says_that_its_request_is_open() -> None:
    """It holds the beginning as it was."""
    assert opened(carried(intent(1))) == (key_of(1), intent(1))
    assert not is_row(carried(intent(1)))
    assert is_row(intent(1))
    assert orjson.loads(carried(intent(1)))["intent"]["id"] == key_of(1)


@pytest.mark.parametrize("record", [b"{", b"[]", b"7", b"\xff", carried(b"null")])
def test_what_says_nothing_opens_and_closes_nothing(record: bytes) -> None:
    """Damage that a checksum let through, if there ever is any, stops nothing."""
    assert (opened(record), closed(record), tenant_of(record)) == (None, "", "")


def test_a_record_is_of_its_tenant_or_of_nobody() -> None:
    """Absent and null are nobody."""
    assert tenant_of(outcome(1, tenant_id="a")) == "a"
    assert tenant_of(outcome(1, tenant_id=None)) == ""
    assert fields_of(summary := record_of("summary", 1))["kind"] == "summary"
    assert closed(summary) == ""
