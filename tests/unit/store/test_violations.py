"""Violations and security events reach their tables once, whatever is in them: with the real migrations."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from proxy.identity.records import SYSTEM_TENANT
from proxy.identity.uuid7 import RecordIds
from proxy.store.database import Database, Places, Unavailable
from proxy.store.violations import SecurityEvent, Violation, add_events, add_violations
from tests.unit.store.conftest import ACME
from tests.unit.store.engine import empty_database, execute, migrated_template, owner_dsn

RULE = "22222222-2222-2222-2222-222222222222"
NOON = 1_800_000_000.0
IDS = RecordIds(time.time, os.urandom)
VIOLATION = Violation(IDS.new(), NOON, RULE, "tier", "user:7", "192.0.2.1", 100.0, 2.5)
EVENT = SecurityEvent(
    IDS.new(), NOON, "bad_key", "medium", "2001:db8:1:2::/64", "blocked for 60 s", 101.5, "blocked", {"times": 1},
    instance="one",
)  # fmt: skip


async def written(database: Database, *rows: Violation, tenant: str = ACME) -> None:
    async with database.tenant(tenant) as session:
        await add_violations(session, rows)


async def told(database: Database, *rows: SecurityEvent) -> None:
    async with database.audit() as session:
        await add_events(session, rows)


async def rows(name: str, table: str, columns: str) -> list[tuple[Any, ...]]:
    """As the owner of everything sees them."""
    return [tuple(row) for row in await execute(owner_dsn(name), f"SELECT {columns} FROM {table} ORDER BY id")]


async def test_a_violation_is_written_with_every_column(name: str, database: Database) -> None:
    """The tenant is that of the transaction; who reads as it sees the row, and nobody else does."""
    await written(database, replace(VIOLATION, blocked_until=NOON + 60))
    columns = "id, extract(epoch FROM ts), tenant_id::text, rule_id::text, level, subject, host(client_ip), limit_value"
    assert await rows(name, "rate_limit_violations", columns) == [
        (VIOLATION.id, NOON, ACME, RULE, "tier", "user:7", "192.0.2.1", 100.0)
    ]
    more = await rows(name, "rate_limit_violations", "retry_after_s, extract(epoch FROM blocked_until)")
    assert more == [(2.5, NOON + 60)]
    for tenant, count in ((ACME, 1), (SYSTEM_TENANT, 0)):
        async with database.tenant(tenant) as session:
            assert await session.fetch_value("/* test.count */ SELECT count(*) FROM rate_limit_violations") == count


async def test_an_event_is_written_with_every_column_by_who_may_only_add(name: str, database: Database) -> None:
    """And cannot read it."""
    await told(database, EVENT)
    columns = "id, extract(epoch FROM ts), tenant_id::text, event_type, severity, client_ip::text, description, score"
    assert await rows(name, "security_events", columns) == [
        (EVENT.id, NOON, SYSTEM_TENANT, "bad_key", "medium", "2001:db8:1:2::/64", "blocked for 60 s", 101.5)
    ]
    assert await rows(name, "security_events", "action_taken, details, instance") == [
        ("blocked", '{"times": 1}', "one")
    ]
    async with database.audit() as session:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await session.fetch("/* test.read */ SELECT * FROM security_events")


async def test_a_row_that_is_written_again_stays_one_row(name: str, database: Database) -> None:
    """As when the answer to a commit was lost."""
    for _ in range(2):
        await written(database, VIOLATION)
        await told(database, EVENT)
    assert len(await rows(name, "rate_limit_violations", "id")) == 1
    assert len(await rows(name, "security_events", "id")) == 1


async def test_whatever_a_request_holds_can_be_written(name: str, database: Database) -> None:
    """One odd value must not hold up the rows beside it."""
    odd = Violation(
        IDS.new(), NOON, "a rule of the file", "tool", "a\0b\ud800" + "x" * 9999, "local", float("inf"), -1.0
    )
    await written(database, VIOLATION, odd)
    found = await rows(name, "rate_limit_violations", "rule_id, subject, client_ip, limit_value, retry_after_s")
    assert found[1] == (None, "a?b?" + "x" * 508, None, float("inf"), 0.0)
    await told(database, replace(EVENT, details={"note": "a\0b\ud800"}, tenant="nobody", ip="fe80::1%eth0", score=None))
    details, tenant, ip = (await rows(name, "security_events", "details, tenant_id::text, host(client_ip)"))[0]
    assert (json.loads(details), tenant, ip) == ({"note": "a?b?"}, SYSTEM_TENANT, "fe80::1")


async def test_many_rows_go_in_few_statements(name: str, database: Database) -> None:
    """2,500 rows are three."""
    before = database.numbers()["write"].statements
    await written(database, *(replace(VIOLATION, id=IDS.new()) for _ in range(2500)))
    assert database.numbers()["write"].statements - before == 2 + 3
    assert len(await rows(name, "rate_limit_violations", "id")) == 2500


async def test_without_tables_the_rows_have_to_wait() -> None:
    """The migrations may be to come."""
    await migrated_template()  # roles are the server's
    async with empty_database() as name:
        database = Database(Places(owner_dsn(name)), {})
        await database.open()
        try:
            with pytest.raises(Unavailable):
                await told(database, EVENT)
            with pytest.raises(Unavailable):
                await written(database, VIOLATION)
        finally:
            await database.close()
