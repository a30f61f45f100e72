"""Rows as they come from the database: plain values that show no secret."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from proxy.identity import records
from proxy.identity.keys import mint
from proxy.identity.records import (
    TABLES,
    AccessRule,
    KeyRecord,
    SessionRecord,
    TenantRecord,
    TokenRecord,
    UserRecord,
    record_of,
    rotated,
    rule_of,
)
from tests.unit.identity.rows import KEY, RING, SOON

MOMENT = datetime(2026, 11, 22, tzinfo=UTC)
ROWS = [
    KeyRecord("a" * 12, b"planted-hash", 1, "t"),
    TokenRecord("api_keys", "1", b"planted-hash", "t"),
    SessionRecord("1", b"planted-hash", "u", MOMENT),
    TenantRecord("1", "acme"),
    UserRecord("u"),
    AccessRule("1", "t", "deny"),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_no_row_shows_its_hash(row: object) -> None:
    """A row may end in a log line or a traceback."""
    assert "planted-hash" not in repr(row)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_rows_are_values(row: object) -> None:
    """Without a dictionary of their own, hashable and equal to themselves."""
    assert not hasattr(row, "__dict__")
    assert hash(row) == hash(row)


def test_the_tables_are_those_of_the_principals() -> None:
    """Every kind of credential has a row."""
    named = {name for name in vars(records) if name.endswith(("Record", "Rule"))} - {"Record"}
    assert named == {type(row).__name__ for row in ROWS}
    assert {field.name for field in fields(TokenRecord)} >= {"table", "token_hash", "scopes", "expires_at"}


def test_a_rotation_makes_a_new_key_and_ends_the_old_one() -> None:
    """The new one has everything of the old one but id, secret and pepper; the old one never lives longer for it."""
    fresh = mint(RING)
    new, old = rotated(KEY, fresh, SOON)
    assert (new.id, new.secret_hmac, new.rotated_from) == (fresh.id, fresh.secret_hmac, KEY.id)
    assert replace(new, id=KEY.id, secret_hmac=KEY.secret_hmac, rotated_from="") == KEY
    assert old == replace(KEY, expires_at=SOON)
    sooner = SOON - timedelta(minutes=1)
    new, old = rotated(replace(KEY, expires_at=sooner), fresh, SOON)
    assert (new.expires_at, old.expires_at) == (sooner, sooner)


def test_rows_become_records_by_the_names_of_their_columns() -> None:
    """NULL is the default, columns that say nothing of identity do not matter, and the hash of a legacy key is one."""
    key = SimpleNamespace(
        id="a" * 12, secret_hmac=b"h", pepper_version=2, tenant_id="t", user_id=None, tier="admin", scopes=("read",),
        allowed_ips=("10.0.0.0/8",), expires_at=MOMENT, revoked_at=None, rotated_from=None, usage_count=7,
    )  # fmt: skip
    expected = KeyRecord(
        "a" * 12, b"h", 2, "t", tier="admin", scopes=("read",), allowed_ips=("10.0.0.0/8",), expires_at=MOMENT
    )
    assert record_of("enhanced_api_keys", key) == expected
    legacy = SimpleNamespace(id="1", key_hash=b"k", tenant_id="t", user_id="u", scopes=())
    assert record_of("api_keys", legacy) == TokenRecord("api_keys", "1", b"k", "t", "u")
    token = SimpleNamespace(id="1", token_hash=b"k", tenant_id="t", scopes=("read",), revoked_at=MOMENT)
    assert record_of("api_tokens", token) == TokenRecord(
        "api_tokens", "1", b"k", "t", scopes=("read",), revoked_at=MOMENT
    )
    session = SimpleNamespace(id="1", token_hash=b"s", user_id="u", expires_at=MOMENT, impersonated_by=None)
    assert record_of("session", session) == SessionRecord("1", b"s", "u", MOMENT)
    assert record_of("tenants", SimpleNamespace(id="t", slug="acme", status="archived")).id == "t"
    assert record_of("user", SimpleNamespace(id="u", tenant_id=None, banned=True)) == UserRecord("u", banned=True)
    assert sorted(TABLES) == ["api_keys", "api_tokens", "enhanced_api_keys", "session", "tenants", "user"]


def test_rows_become_rules_in_the_same_way() -> None:
    """A rule about everyone on all servers has NULL for both."""
    row = SimpleNamespace(
        id="r", tenant_id="t", server_id=None, subject_type="everyone", subject_id=None, effect="deny", tools=("x",),
        priority=3, daily_from="09:00", daily_until="17:00", days_of_week=(1,), time_zone="UTC", is_enabled=True,
    )  # fmt: skip
    assert rule_of(row) == AccessRule(
        "r", "t", "deny", tools=("x",), priority=3, daily_from="09:00", daily_until="17:00", days_of_week=(1,)
    )
