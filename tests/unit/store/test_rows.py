"""Rows as plain values."""

from __future__ import annotations

from dataclasses import fields

from proxy.store import registry


def test_no_row_shows_what_a_credential_is_checked_against() -> None:
    """Hashes, keyed hashes, and headers and URLs of upstreams, which may hold credentials, stay out of every repr."""
    hidden = {"secret_hmac", "key_hash", "token_hash", "headers", "endpoint_url"}
    for table in registry.TABLES.values():
        for column in fields(table.row):
            assert column.repr == (column.name not in hidden), f"{table.name}.{column.name}"
