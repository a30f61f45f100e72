"""Columns of a row: made of a record that may be strange, and always the same text."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given

from proxy.audit.columns import COLUMNS, NAMES, PLACE, Unfit, Value, is_plain, line, read, tenant_of, values
from proxy.identity.records import SYSTEM_TENANT
from tests.unit.audit.made import RECORDS, TENANT, record


def of(made: dict[str, Any], *names: str) -> list[Value]:
    """Values of these columns."""
    found = values(made, "j/1", 7)
    return [found[PLACE[name]] for name in names]


def test_every_column_of_the_table_is_there_but_the_chain() -> None:
    """Each once."""
    assert len(set(NAMES)) == len(NAMES) == len(COLUMNS)
    assert "chain" not in NAMES


def test_a_record_as_it_is_written_becomes_a_row() -> None:
    """Times as microseconds, the rest as it is."""
    assert of(record(5), "tenant_id", "ts", "kind", "segment", "seq", "action", "resource_type", "resource_id") == [
        TENANT, 1795348805000005, "outcome", "j/1", 7, "tools/call", "tool", "search",
    ]  # fmt: skip
    assert of(record(5), "status_code", "duration_ms", "streamed", "client_ip") == [200, 12.345, False, "10.1.2.3"]


def test_the_line_is_as_copy_writes_it() -> None:
    """Tabs between, \\N for null, escapes where they are needed; without any, the quick way gives the same."""
    made = record(1, reason="a\tb\\c\nd")
    assert b"\ta\\tb\\\\c\\nd\t" in line(values(made, "j/1", 1))
    plain = values(record(1), "j/1", 1)
    assert line(plain) == line(plain, plain=True)
    assert line(plain).count(b"\t") == len(NAMES) - 1
    assert line([None, True, False, 1.0, 0.5, 12, ""]) == b"\\N\tt\tf\t1\t0.5\t12\t"


@given(RECORDS)
def test_the_quick_way_gives_the_same_line(made: dict[str, Any]) -> None:
    """Whenever it is taken; and a line has neither NUL nor an end."""
    raw = orjson.dumps(made)
    slow = line(values(read(raw), "j/1", 1))
    assert b"\n" not in slow
    assert b"\0" not in slow
    if is_plain(raw):
        assert line(values(read(raw), "j/1", 1, plain=True), plain=True) == slow


@pytest.mark.parametrize(
    ("changes", "actor"),
    [
        ({}, "api_key"), ({"source": "session"}, "user"), ({"principal": "anonymous"}, "anonymous"),
        ({"principal": None}, "anonymous"), ({"source": "command line"}, "system"), ({"kind": "summary"}, "system"),
    ],
    ids=str,
)  # fmt: skip
def test_who_acted_is_told_by_the_credential(changes: dict[str, Any], actor: str) -> None:
    """Of four kinds."""
    assert of(record(1, **changes), "actor_type") == [actor]


def test_a_request_without_a_json_rpc_method_is_named_by_its_http_method() -> None:
    """And one that was cut off before either, unknown."""
    assert of(record(1, rpc_method=None, method="GET"), "action") == ["GET"]
    assert of(record(1, rpc_method=None, method=None), "action") == ["unknown"]


def test_a_summary_says_how_many_were_dropped() -> None:
    """As a row of the tenant, or of nobody."""
    made = {"kind": "summary", "id": record(1)["id"], "timestamp": "2026-11-22T12:00:00.000000Z", "dropped": 12}
    assert of(made, "tenant_id", "action", "arguments") == [SYSTEM_TENANT, "records dropped", '{"dropped":12}']


def test_a_text_that_is_too_long_is_cut() -> None:
    """Long before it is too long for an index."""
    found = of(record(1, principal="p" * 5000, detail="d\0" * 5000), "actor_id", "error_detail")
    assert found == ["p" * 256, "d�" * 512]


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "x"}, {"id": None}, {"id": 5}, {"timestamp": None}, {"timestamp": "2026-11-22T12:00:00"},
        {"timestamp": "yesterday"}, {"timestamp": "1969-12-31T23:59:59.000000Z"}, {"timestamp": 5},
        {"timestamp": "9999-12-31T23:59:59.000000Z"}, {"tenant_id": "acme"}, {"server_id": "one"}, {"status": "200"},
        {"status": True}, {"streamed": 1}, {"bytes_in": 1.5}, {"duration_ms": "long"}, {"principal": ["x"]},
        {"risk_reasons": [1]}, {"arguments_hash": 5},
    ],
    ids=str,
)  # fmt: skip
def test_of_some_records_no_row_can_be_made(changes: dict[str, Any]) -> None:
    """The reason shows no value."""
    with pytest.raises(Unfit) as refusal:
        of(record(1, **changes), "ts")
    assert not any(isinstance(value, str) and value in str(refusal.value) for value in changes.values())


@pytest.mark.parametrize("tenant", [5, True, ["x"], {"x": 1}, "acme"], ids=str)
def test_a_tenant_is_a_uuid(tenant: object) -> None:
    """It is asked for before anything else of a record."""
    with pytest.raises(Unfit):
        tenant_of({"tenant_id": tenant})


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"5", b'{"a":"\xff"}'])
def test_what_is_no_json_object_is_no_record(raw: bytes) -> None:
    """It is told apart from a record that says nothing."""
    with pytest.raises(Unfit):
        read(raw)
    assert tenant_of(read(b"{}")) == SYSTEM_TENANT
