"""Rows that the tests of identity share: one tenant with everything in it, and the moments around now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from proxy.identity.keys import PepperRing, digest_of, mint
from proxy.identity.records import KeyRecord, SessionRecord, TenantRecord, TokenRecord, UserRecord

MOMENT = datetime(2026, 11, 22, 12, tzinfo=UTC)
NOW = MOMENT.timestamp()
SOON = MOMENT + timedelta(hours=1)
EARLIER = MOMENT - timedelta(hours=1)

RING = PepperRing({1: b"a pepper of sixteen or more"})
MINTED = mint(RING)
EVERY_SCOPE = ("proxy", "read", "write")
LEGACY_TEXT = "sk-legacy-1234"
TOKEN_TEXT = "frontend-token-1234"
SESSION_TEXT = "s" * 32

TENANT = TenantRecord("t1", "acme")
USER = UserRecord("u1", "t1", "user")
ADMIN = UserRecord("u2", "t1", "admin")
KEY = KeyRecord(MINTED.id, MINTED.secret_hmac, MINTED.pepper_version, "t1", "u1", scopes=EVERY_SCOPE)
LEGACY = TokenRecord("api_keys", "l1", digest_of(LEGACY_TEXT), "t1", "u1", EVERY_SCOPE)
TOKEN = TokenRecord("api_tokens", "a1", digest_of(TOKEN_TEXT), "t1", "u1", EVERY_SCOPE)
SESSION = SessionRecord("s1", digest_of(SESSION_TEXT), "u1", SOON)
ROWS = (TENANT, USER, ADMIN, KEY, LEGACY, TOKEN, SESSION)
