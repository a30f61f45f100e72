"""Settings as rows: set, unset, listed; none changes without its record."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.identity.records import SYSTEM_TENANT
from proxy.store import system_configs, tenants
from proxy.store.accounts import Rejected
from proxy.store.database import Session
from proxy.store.system_configs import Change, Stored
from proxy.store.tenants import NewTenant
from tests.unit.store.administered import Administered, administered

BODY = "listen.limits.body"
ROWS = "SELECT key, value::text, description, changed_by, updated_by FROM system_configs ORDER BY key"


@pytest.fixture
async def here() -> AsyncIterator[Administered]:
    """With a tenant, and another that is suspended."""
    async with administered() as made:
        async with made.session() as session:
            for slug in ("acme", "gone"):
                await tenants.create(session, NewTenant(slug, slug))
            await tenants.suspend(session, "gone")
        yield made


class Trail:
    """What the audit trail was given, or why it takes nothing."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.records: list[dict[str, Any]] = []
        self._failure = failure

    async def __call__(self, session: Session, record: dict[str, Any]) -> None:
        if self._failure is not None:
            raise self._failure
        self.records.append(record)


def passes(_: Sequence[Stored]) -> None:
    """Anything goes."""


async def put(here: Administered, change: Change, value: Any, audit: Trail | None = None) -> None:
    async with here.session() as session:
        await system_configs.put(session, change, value, passes, audit or Trail())


async def test_a_value_is_set_and_set_again(here: Administered) -> None:
    """One row, with who and why; the record has the old value and the new one."""
    trail, before = Trail(), datetime.now(UTC)
    await put(here, Change("system", BODY, "ann", "big tools"), "8MiB", trail)
    await put(here, Change("system", BODY, "bob"), {"a": [1, None]}, trail)
    assert [tuple(row.values()) for row in await here.rows(ROWS)] == [
        (BODY, '{"a": [1, null]}', None, "bob", None)
    ]  # fmt: skip
    first, second = trail.records
    assert (first["arguments"], second["arguments"]) == (
        {"old": None, "new": "8MiB", "reason": "big tools"}, {"old": "8MiB", "new": {"a": [1, None]}}
    )  # fmt: skip
    assert (first["rpc_method"], first["target_kind"], first["target"], first["kind"], first["outcome"]) == (
        "config.set", "setting", BODY, "outcome", "ok"
    )  # fmt: skip
    assert (first["principal"], second["principal"], first["source"]) == ("ann", "bob", "command line")
    assert (first["tenant_id"], first["tenant"]) == (SYSTEM_TENANT, "system")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first["timestamp"])
    assert abs((datetime.fromisoformat(first["timestamp"]) - before).total_seconds()) < 10
    assert first["id"] < second["id"]
    assert (await here.events())[-2:] == ["setting_changed"] * 2


async def test_a_value_is_unset_once(here: Administered) -> None:
    """The record says what it was."""
    trail = Trail()
    await put(here, Change("acme", "record.audit", "ann"), "strict")
    async with here.session() as session:
        await system_configs.remove(session, Change("acme", "record.audit", "bob", "enough"), trail)
    assert await here.rows(ROWS) == []
    [record] = trail.records
    assert (record["rpc_method"], record["arguments"]) == ("config.unset", {"old": "strict", "reason": "enough"})
    with pytest.raises(Rejected, match="no row sets this"):
        async with here.session() as session:
            await system_configs.remove(session, Change("acme", "record.audit", "bob"), trail)


async def test_without_its_record_nothing_changes(here: Administered) -> None:
    """They are one transaction."""
    await put(here, Change("system", BODY, "ann"), "8MiB")
    with pytest.raises(Rejected, match="no room"):
        await put(here, Change("system", BODY, "bob"), "9MiB", Trail(Rejected("no room")))
    with pytest.raises(Rejected, match="no room"):
        async with here.session() as session:
            await system_configs.remove(session, Change("system", BODY, "bob"), Trail(Rejected("no room")))
    assert [row["value"] for row in await here.rows(ROWS)] == ['"8MiB"']


async def test_a_value_that_cannot_be_so_is_not_stored(here: Administered) -> None:
    """Whoever checks sees all rows as they will be."""
    await put(here, Change("acme", "record.audit", "ann"), "strict")
    seen: list[Stored] = []

    def check(rows: Sequence[Stored]) -> None:
        seen.extend(rows)
        raise Rejected("no")

    with pytest.raises(Rejected, match="no"):
        async with here.session() as session:
            await system_configs.put(session, Change("system", BODY, "ann"), 0, check, Trail())
    assert [(row.tenant, row.key, row.value) for row in seen] == [
        ("system", BODY, 0), ("acme", "record.audit", "strict")
    ]  # fmt: skip
    assert [row["key"] for row in await here.rows(ROWS)] == ["record.audit"]


async def test_rows_are_listed_with_who_and_when(here: Administered) -> None:
    """Everybody's first; a user of the front end stands for one on the command line; infinite times do no harm."""
    await here.rows("INSERT INTO \"user\" (id, name, email) VALUES ('u1', 'U', 'u@example.com')")
    await here.rows(
        "INSERT INTO system_configs (tenant_id, key, value, updated_by, updated_at)"
        " SELECT id, slug, '1', 'u1', 'infinity' FROM tenants"
    )
    await put(here, Change("acme", "acme", "ann", "because"), "x")
    async with here.session() as session:
        every, acme = await system_configs.listed(session, None), await system_configs.listed(session, "acme")
    assert [(row.tenant, row.served, row.value, row.changed_by, row.reason) for row in every] == [
        ("system", True, 1, "u1", None), ("acme", True, "x", "ann", "because"), ("gone", False, 1, "u1", None),
    ]  # fmt: skip
    assert acme == [every[1]]
    assert every[0].changed_at.year == 9999
    with pytest.raises(Rejected, match="no tenant of this name"):
        async with here.session() as session:
            await system_configs.listed(session, "nobody")


async def test_what_others_stored_can_always_be_listed_and_removed(here: Administered) -> None:
    """Also JSON that is too deep to be written again, or very long."""
    deep, long = "[" * 900 + "]" * 900, "x" * 1_000_000
    for key, value in (("deep", deep), ("long", f'"{long}"'), ("huge", "1" * 5000), ("null", "null")):
        await here.rows(
            "INSERT INTO system_configs (tenant_id, key, value) VALUES ($1, $2, $3::text::jsonb)",
            SYSTEM_TENANT, key, value,
        )  # fmt: skip
    trail = Trail()
    async with here.session() as session:
        assert {row.key: type(row.value) for row in await system_configs.listed(session, None)} == {
            "deep": str, "long": str, "huge": str, "null": type(None)
        }  # fmt: skip
        for key in ("deep", "long", "huge", "null"):
            await system_configs.remove(session, Change("system", key, "ann"), trail)
    assert await here.rows(ROWS) == []
    assert max(len(str(record["arguments"]["old"])) for record in trail.records) < 5000
