"""API keys as rows: made within limits, rotated with everything they have, revoked, imported; and never seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proxy.identity.keys import Minted, PepperRing, digest_of, mint
from proxy.identity.records import KeyRecord
from proxy.store import keys, tenants
from proxy.store.accounts import Rejected
from proxy.store.keys import LegacyKey
from proxy.store.tenants import NewTenant
from tests.unit.store.administered import Administered, administered

RING = PepperRing({4: b"a pepper of a test"})
NOW = datetime.now(UTC)
FULL: dict[str, Any] = {
    "scopes": ("admin", "proxy"),
    "tier": "admin",
    "allowed_ips": ("10.0.0.0/8", "2001:db8::1/128"),
    "allowed_origins": ("https://a.example",),
    "allowed_servers": ("git*",),
    "allowed_tools": ("read_*", "x"),
    "requests_per_minute": 60,
    "burst": 5,
    "not_before": NOW - timedelta(days=1),
    "expires_at": NOW + timedelta(days=30),
}


@pytest.fixture
async def here() -> AsyncIterator[Administered]:
    """A database with a tenant that may have three keys."""
    async with administered() as made:
        async with made.session() as session:
            await tenants.create(session, NewTenant("acme", "Acme", max_api_keys=3))
        yield made


def record(minted: Minted, **columns: object) -> KeyRecord:
    """What is kept of a key."""
    return KeyRecord(minted.id, minted.secret_hmac, minted.pepper_version, "", **columns)  # type: ignore[arg-type]


async def made(here: Administered, name: str = "ci", **columns: object) -> str:
    """The id of a new key."""
    minted = mint(RING)
    async with here.session() as session:
        row = await keys.create(session, "acme", name, record(minted, **columns))
    assert row["id"] == minted.id
    return minted.id


async def rotate(here: Administered, key_id: str, overlap: timedelta = timedelta(hours=1)) -> str:
    """The id of the key's successor."""
    minted = mint(RING)
    async with here.session() as session:
        row = await keys.rotate(session, key_id, minted, overlap)
    assert (row["id"], row["rotated_from"]) == (minted.id, key_id)
    return minted.id


async def test_a_new_key_is_kept_with_every_limit(here: Administered) -> None:
    """And listed with them, without anything that is secret."""
    key_id = await made(here, **FULL)
    async with here.session() as session:
        [row] = await keys.listed(session, "acme")
    assert (row["id"], row["tenant"], row["name"], row["state"]) == (key_id, "acme", "ci", "in force")
    assert {name: tuple(row[name]) if isinstance(row[name], list) else row[name] for name in FULL} == FULL
    assert "secret_hmac" not in row and "pepper_version" not in row
    stored = await here.rows("SELECT octet_length(secret_hmac) AS bytes, pepper_version FROM enhanced_api_keys")
    assert stored == [{"bytes": 32, "pepper_version": 4}]


async def test_a_key_may_belong_to_a_user_who_exists(here: Administered) -> None:
    """And to nobody who does not."""
    await here.rows("INSERT INTO \"user\" (id, name, email) VALUES ('u1', 'U', 'u@x') RETURNING id")
    await made(here, user_id="u1")
    with pytest.raises(Rejected, match="no user"):
        await made(here, "other", user_id="u2")


async def test_names_of_keys_in_force_are_unique_in_a_tenant(here: Administered) -> None:
    """A revoked key's name is free again."""
    key_id = await made(here)
    with pytest.raises(Rejected, match="of this name"):
        await made(here)
    async with here.session() as session:
        await keys.revoke(session, key_id, None)
    await made(here)


async def test_no_more_keys_are_in_force_than_the_tenant_may_have(here: Administered) -> None:
    """Revoked and expired ones do not count, a key and its successor count once, legacy keys count."""
    first = await made(here, "1")
    await made(here, "expired", expires_at=NOW - timedelta(days=1))
    await rotate(here, first)
    await made(here, "2")
    async with here.session() as session:
        assert await keys.import_legacy(session, "acme", [legacy("old")]) == ["imported"]
    for attempt in range(2):
        with pytest.raises(Rejected, match="3 keys"):
            await made(here, f"4-{attempt}")
    async with here.session() as session:
        await keys.revoke(session, first, None)  # its successor stays
    with pytest.raises(Rejected, match="3 keys"):
        await made(here, "5")


async def test_the_limit_holds_for_those_who_come_together(here: Administered) -> None:
    """Ten at a time: three get a key."""
    outcomes = await asyncio.gather(*(made(here, f"k{number}") for number in range(10)), return_exceptions=True)
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 3
    assert sum(isinstance(outcome, Rejected) for outcome in outcomes) == 7


async def test_a_tenant_that_is_not_there_has_no_keys(here: Administered) -> None:
    """Neither to make nor to list."""
    with pytest.raises(Rejected, match="acme, system"):
        async with here.session() as session:
            await keys.create(session, "nobody", "x", record(mint(RING)))
    with pytest.raises(Rejected, match="no tenant"):
        async with here.session() as session:
            await keys.listed(session, "nobody")


async def test_a_key_is_revoked_once(here: Administered) -> None:
    """The first reason stays."""
    key_id = await made(here)
    for expected in (True, False):
        async with here.session() as session:
            assert await keys.revoke(session, key_id, f"reason {expected}") is expected
    [row] = await here.rows("SELECT revoked_reason, revoked_at IS NOT NULL AS revoked FROM enhanced_api_keys")
    assert row == {"revoked_reason": "reason True", "revoked": True}
    assert await here.events() == ["tenant_created", "key_created", "key_revoked"]


@pytest.mark.parametrize("key_id", ["000000000000", "planted' --", "", "00000000-0000-0000-0000-000000000000"])
async def test_a_key_that_is_not_there_cannot_be_revoked_or_rotated(here: Administered, key_id: str) -> None:
    """The sentence does not repeat what was given: it might be a secret."""
    with pytest.raises(Rejected, match="no key of this id") as refused:
        async with here.session() as session:
            await keys.revoke(session, key_id, None)
    assert "planted" not in str(refused.value)
    with pytest.raises(Rejected, match="no key of this id"):
        await rotate(here, key_id)


async def test_a_rotated_key_has_everything_of_the_old_one(here: Administered) -> None:
    """But id and secret; the old one ends with the overlap, and not later than it would have anyway."""
    old = await made(here, **FULL)
    new = await rotate(here, old, timedelta(hours=24))
    hidden = ["id", "secret_hmac", "rotated_from", "expires_at", "created_at", "updated_at"]
    rows = await here.rows(
        "SELECT *, expires_at - now() AS lasts FROM enhanced_api_keys ORDER BY rotated_from NULLS FIRST"
    )
    before, after = ({name: value for name, value in row.items() if name not in hidden} for row in rows)
    assert [row["id"] for row in rows] == [old, new]
    assert timedelta(hours=23) < before.pop("lasts") <= timedelta(hours=24)
    assert timedelta(days=29) < after.pop("lasts") <= timedelta(days=30)
    assert before == after
    assert rows[0]["secret_hmac"] != rows[1]["secret_hmac"]


async def test_a_key_that_ends_before_the_overlap_ends_as_it_would_have(here: Administered) -> None:
    """Rotation never makes the old one last longer."""
    old = await made(here, **FULL)
    await rotate(here, old, timedelta(days=300))
    assert len({row["expires_at"] for row in await here.rows("SELECT expires_at FROM enhanced_api_keys")}) == 1


async def test_a_key_for_all_times_is_listed_and_rotated(here: Administered) -> None:
    """Whose ends PostgreSQL keeps as infinite; Python has no such times."""
    first, last = (each.replace(tzinfo=UTC) for each in (datetime.min, datetime.max))
    successor = await rotate(here, await made(here, not_before=first, expires_at=last))
    async with here.session() as session:
        rows = {row["id"]: row for row in await keys.listed(session, "acme")}
    ends = datetime(2, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
    assert (rows[successor]["not_before"], rows[successor]["expires_at"]) == ends
    await here.rows("UPDATE enhanced_api_keys SET not_before = 'infinity', expires_at = NULL")
    with pytest.raises(Rejected, match="not valid yet"):
        await rotate(here, successor)


async def test_what_is_not_in_force_or_has_a_successor_is_not_rotated(here: Administered) -> None:
    """The sentence says what to do instead."""
    revoked = await made(here, "revoked")
    async with here.session() as session:
        await keys.revoke(session, revoked, None)
    early = await made(here, "early", not_before=NOW + timedelta(days=1))
    good = await made(here, "good")
    successor = await rotate(here, good)
    for key_id, sentence in ((revoked, "revoked or expired"), (early, "not valid yet"), (good, successor)):
        with pytest.raises(Rejected, match=sentence):
            await rotate(here, key_id)
    await rotate(here, successor, timedelta(0))


def legacy(text: str, name: str = "old") -> LegacyKey:
    """A legacy key with this text."""
    return LegacyKey(name, digest_of(text), ("proxy", "read"))


async def test_legacy_keys_are_imported_once(here: Administered) -> None:
    """Also when one is twice in the list, or was revoked, or is another tenant's."""
    async with here.session() as session:
        await tenants.create(session, NewTenant("other", "Other"))
        await keys.import_legacy(session, "other", [legacy("theirs")])
        given = [legacy("a"), legacy("b"), legacy("a"), legacy("theirs")]
        theirs = "skipped: it is a key of another tenant"
        assert await keys.import_legacy(session, "acme", given) == ["imported", "imported", "there already", theirs]
        listed = await keys.listed(session, "acme")
    assert [(row["name"], row["tier"], row["state"]) for row in listed] == [("old", "legacy", "in force")] * 2
    for expected in (True, False):
        async with here.session() as session:
            assert await keys.revoke(session, listed[0]["id"], "leaked") is expected
    async with here.session() as session:
        outcomes = await keys.import_legacy(session, "acme", given)
    assert sorted(outcomes[:2]) == ["there already", "there already, and revoked"]
    assert (await here.events()).count("keys_imported") == 1 + 1


async def test_more_legacy_keys_than_there_is_room_for_are_all_refused(here: Administered) -> None:
    """Half an import helps nobody."""
    with pytest.raises(Rejected, match="3 keys"):
        async with here.session() as session:
            await keys.import_legacy(session, "acme", [legacy(str(number)) for number in range(4)])
    assert await here.rows("SELECT id FROM api_keys") == []
