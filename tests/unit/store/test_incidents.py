"""Errors and security events reach their tables once, whatever is in them: with the real migrations."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from typing import Any

import pytest

from proxy.identity.records import SYSTEM_TENANT
from proxy.identity.uuid7 import RecordIds
from proxy.store.database import Database, Places, Unavailable
from proxy.store.incidents import ErrorRow, add_errors
from proxy.store.learned import Unusable
from proxy.store.violations import SecurityEvent, add_events
from tests.unit.store.conftest import ACME
from tests.unit.store.engine import empty_database, execute, migrated_template, owner_dsn

REQUEST = "0199aaaa-0000-7000-8000-000000000001"
NOON = 1_800_000_000.0
IDS = RecordIds(time.time, os.urandom)
ERROR = ErrorRow(
    IDS.new(), NOON, ACME, "error", "dataplane", "connect_failed", "cannot be reached", "f00d", "a.py f:1",
    {"count": 3}, REQUEST, "one",
)  # fmt: skip
EVENT = SecurityEvent(
    IDS.new(), NOON, "bad_key", "medium", "192.0.2.1", "not accepted", action="logged", details={"count": 2},
    tenant=ACME, instance="one", principal="key:1", request_id=REQUEST,
)  # fmt: skip


async def told(database: Database, *rows: ErrorRow | SecurityEvent) -> None:
    async with database.audit() as session:
        await add_errors(session, [row for row in rows if isinstance(row, ErrorRow)])
        await add_events(session, [row for row in rows if isinstance(row, SecurityEvent)])


async def rows(name: str, table: str, columns: str) -> list[tuple[Any, ...]]:
    """As the owner of everything sees them."""
    return [tuple(row) for row in await execute(owner_dsn(name), f"SELECT {columns} FROM {table} ORDER BY id")]


async def test_every_column_is_written(name: str, database: Database) -> None:
    """And a row that is written again stays one row."""
    for _ in range(2):
        await told(database, ERROR, EVENT)
    columns = "tenant_id::text, severity, component, error_type, message, fingerprint, stack, context, request_id::text"
    assert await rows(name, "error_logs", columns) == [
        (ACME, "error", "dataplane", "connect_failed", "cannot be reached", "f00d", "a.py f:1", '{"count": 3}', REQUEST)
    ]
    columns = "tenant_id::text, event_type, severity, host(client_ip), principal_id, description, details, action_taken"
    assert await rows(name, "security_events", columns) == [
        (ACME, "bad_key", "medium", "192.0.2.1", "key:1", "not accepted", '{"count": 2}', "logged")
    ]


async def test_whatever_a_row_holds_can_be_written(name: str, database: Database) -> None:
    """NUL, half a surrogate pair, no address, no request, nobody."""
    odd = "a\0b\ud800" + "x" * 9999
    error = ERROR._replace(id=IDS.new(), tenant="nobody", message=odd, stack=odd, request_id="", context={odd: odd})
    event = replace(EVENT, id=IDS.new(), ip="unix:", principal="", details={"a": odd}, request_id="?")
    await told(database, error, replace(event, ip="fe80::1%eth0"))
    (tenant, message, stack, request, context) = (
        await rows(name, "error_logs", "tenant_id::text, message, stack, request_id, context")
    )[0]
    assert (tenant, message, request) == (SYSTEM_TENANT, "a?b?" + "x" * 508, None)
    assert len(stack) == 8192
    assert len(json.loads(context)) == 1
    assert await rows(name, "security_events", "host(client_ip), principal_id, request_id") == [("fe80::1", None, None)]
    await told(database, replace(event, id=IDS.new()))
    assert (await rows(name, "security_events", "client_ip"))[1] == (None,)


async def test_what_the_tables_forbid_is_said(database: Database) -> None:
    """So that whoever writes can find the row and leave it out."""
    with pytest.raises(Unusable):
        await told(database, ERROR._replace(severity="fatal"))  # type: ignore[arg-type]


async def test_without_tables_the_rows_have_to_wait() -> None:
    """The migrations may be to come."""
    await migrated_template()  # roles are the server's
    async with empty_database() as name:
        database = Database(Places(owner_dsn(name)), {})
        await database.open()
        try:
            with pytest.raises(Unavailable):
                await told(database, ERROR)
        finally:
            await database.close()
