"""Rows as they come from the database: plain values that show no secret."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest

from proxy.identity import records
from proxy.identity.keys import mint
from proxy.identity.records import AccessRule, KeyRecord, SessionRecord, TenantRecord, TokenRecord, UserRecord, rotated
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
