"""What goes wrong becomes one row a minute for each cause, soon and once; PostgreSQL may be away meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest

from proxy import errors
from proxy.background import incidents as module
from proxy.background.incidents import ERRORS, SECURITY, Incidents, families
from proxy.dataplane.context import RequestContext
from proxy.identity.records import SYSTEM_TENANT
from proxy.identity.uuid7 import RecordIds
from proxy.store.database import Bounds, Database, Places
from tests.unit.background.conftest import ACME
from tests.unit.dataplane.fakes import Time
from tests.unit.store.engine import (
    circle_of_locks,
    empty_database,
    execute,
    login_dsn,
    migrated_database,
    owner_dsn,
)

REQUEST = "0199aaaa-0000-7000-8000-000000000001"


def told(database: Database | None, clock: Time) -> Incidents:
    return Incidents(database, RecordIds(clock, os.urandom), clock, "one")


def request(server: str = "", ip: str = "192.0.2.1", who: str = "key:1", path: str = "/x") -> RequestContext:
    """As much of a request as is looked at."""
    upstream = SimpleNamespace(name=server) if server else None
    principal = SimpleNamespace(tenant=ACME, id=who)
    return cast(
        RequestContext,
        SimpleNamespace(upstream=upstream, client_ip=ip, principal=principal, path=path, id=REQUEST),
    )


async def rows(name: str, table: str, columns: str) -> list[tuple[Any, ...]]:
    """As the owner of everything sees them."""
    return [tuple(row) for row in await execute(owner_dsn(name), f"SELECT {columns} FROM {table} ORDER BY id")]


async def test_the_same_within_a_minute_is_one_row_with_its_number(name: str, database: Database) -> None:
    """Written once the minute is over."""
    clock = Time()
    log = told(database, clock)
    for moment in (1200.0, 1230.0, 1260.0):
        clock.now = moment
        for _ in range(5):
            log.noted(request("up"), errors.ConnectFailed("refused"))
            log.noted(request(), errors.Unauthorized("unknown key"))
    await log.step()
    assert (log.written, log.waiting) == (2, 2)
    clock.now = 1320.0
    await log.step()
    assert (log.written, log.waiting) == (4, 0)
    columns = (
        "error_type, severity, component, message, tenant_id::text, request_id::text, instance, context ->> 'count'"
    )
    one = ("connect_failed", "error", "dataplane", "The server cannot be reached (up)", ACME, REQUEST, "one")
    assert await rows(name, "error_logs", columns) == [(*one, "10"), (*one, "5")]
    columns = "event_type, severity, host(client_ip), principal_id, details ->> 'reason', details ->> 'count'"
    one = ("bad_key", "medium", "192.0.2.1", "key:1", "unauthorized")
    assert await rows(name, "security_events", columns) == [(*one, "10"), (*one, "5")]
    assert len({row[0] for row in await rows(name, "error_logs", "fingerprint")}) == 1


def test_everyday_refusals_are_nothing() -> None:
    """No credential at all, discovery documents, and limits, which have rows of their own."""
    log = told(cast(Database, object()), Time())
    log.noted(request(), errors.Unauthorized("no credential"))
    log.noted(request(path="/.well-known/oauth-protected-resource"), errors.NoRoute())
    log.noted(request(), errors.RateLimited("tier-user"))
    log.noted(request(), errors.UnderMaintenance("disk"))
    assert log.waiting == 0


def test_every_reason_exists_and_is_in_one_place() -> None:
    """A refusal that is renamed would be forgotten here."""
    known = {
        kind.reason: kind.origin
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.Refusal)
    }
    assert set(SECURITY) | set(ERRORS) <= set(known)
    assert not set(SECURITY) & set(ERRORS)
    assert {reason for reason, origin in known.items() if origin != "client"} - set(ERRORS) == {
        "internal",
        "maintenance",
    }


def test_different_causes_are_different_rows() -> None:
    """Servers, reasons, clients and addresses."""
    log = told(cast(Database, object()), Time())
    for server in ("a", "b"):
        log.noted(request(server), errors.ConnectFailed())
        log.noted(request(server), errors.UpstreamTimeout())
    for ip in ("192.0.2.1", "192.0.2.2"):
        log.noted(request(ip=ip), errors.Forbidden())
    log.noted(request(who="key:2"), errors.Forbidden())
    assert log.waiting == 7


async def test_a_bug_says_where_but_not_what(name: str, database: Database) -> None:
    """The message of an exception may hold what a client sent."""
    log = told(database, Time())

    def fail(secret: str) -> None:
        raise ValueError(f"bad {secret}")

    for number in range(3):
        try:
            fail(f"hunter{number}")
        except ValueError as bug:
            log.bug(request(), bug)
            log.failed("loop", bug)
    log.failed("loop", "a cancellation of its own")
    await log.finish()
    columns = "component, error_type, severity, message, tenant_id::text, context ->> 'count'"
    assert sorted(await rows(name, "error_logs", columns)) == [
        ("dataplane", "ValueError", "critical", "ValueError in dataplane", ACME, "3"),
        ("loop", "ValueError", "critical", "ValueError in loop", SYSTEM_TENANT, "3"),
        ("loop", "failure", "critical", "a cancellation of its own", SYSTEM_TENANT, "1"),
    ]
    everything = json.dumps(await rows(name, "error_logs", "error_logs::text"))
    assert "hunter" not in everything
    assert "unit/background/test_incidents.py fail:" in everything


async def test_risky_calls_are_events(name: str, database: Database) -> None:
    """Those that are high or critical."""
    log = told(database, Time())
    for level in ("low", "medium", "high", "critical"):
        log.risky(request(), level, ("destructive", "volume"))
    await log.finish()
    assert await rows(name, "security_events", "event_type, severity, details ->> 'reasons'") == [
        ("risky_call", "high", "destructive,volume"),
        ("risky_call", "critical", "destructive,volume"),
    ]


async def test_rows_wait_while_postgresql_is_away() -> None:
    """And are written when it is back, none twice."""
    clock = Time()
    async with empty_database() as gone:
        dsn = login_dsn(gone)
    database = Database(Places(dsn), {"write": Bounds(connect_s=1)}, lambda: 0.0)
    await database.open()
    log = told(database, clock)
    log.noted(request(), errors.Forbidden())
    clock.now += 120
    await log.step()
    await log.finish()
    assert (log.written, log.waiting) == (0, 1)
    await database.close()
    async with migrated_database() as name:
        log._database = back = Database(Places(login_dsn(name)), {})
        await back.open()
        await log.step()
        await log.step()
        await back.close()
        assert len(await rows(name, "security_events", "id")) == 1
    assert (log.written, log.waiting) == (1, 0)


@pytest.mark.parametrize("table", ["error_logs", "security_events"])
async def test_a_circle_of_locks_is_quiet_and_the_rows_are_written_later(
    name: str, database: Database, table: str
) -> None:
    """PostgreSQL ends ours for the others' sake; nothing is lost, nothing is there twice."""
    log = told(database, Time())
    for number in range(2):
        log.noted(request(f"s{number}", f"192.0.2.{number}"), FAILURES[table])
    groups = list(log._groups.values())
    taken = TAKE[table].format(groups[0].row.at)
    async with circle_of_locks(name, taken, *(group.row.id for group in groups)) as close:
        work = asyncio.create_task(log.finish())
        await close()
        await work
        assert (log.written, log.refused, log.waiting) == (0, 0, 2)
    await log.finish()
    assert (log.written, log.waiting) == (2, 0)
    assert len(await rows(name, table, "id")) == 2


FAILURES: Final[dict[str, errors.Refusal]] = {
    "error_logs": errors.ConnectFailed("refused"),
    "security_events": errors.Forbidden(),
}
TAKE: Final = {
    "error_logs": "INSERT INTO error_logs (id, ts, tenant_id, component, error_type, message, fingerprint)"
    f" VALUES ($1, to_timestamp({{}}), '{ACME}', 'x', 'x', 'x', 'x')",
    "security_events": "INSERT INTO security_events (id, ts, tenant_id, event_type, severity, description)"
    f" VALUES ($1, to_timestamp({{}}), '{ACME}', 'x', 'low', 'x')",
}


async def test_a_role_that_is_not_there_is_quiet(name: str) -> None:
    """The migrations may be to come; the rows wait."""
    database = Database(Places(owner_dsn(name)), {})
    await database.open()
    log = told(database, Time())
    log.noted(request(), errors.Forbidden())
    await execute(owner_dsn(name), "ALTER ROLE mcp_manager_audit RENAME TO mcp_manager_gone")
    try:
        await log.finish()
    finally:
        await execute(owner_dsn(name), "ALTER ROLE mcp_manager_gone RENAME TO mcp_manager_audit")
        await database.close()
    assert (log.written, log.waiting) == (0, 1)


async def test_one_row_that_is_not_taken_holds_up_no_other(name: str, database: Database) -> None:
    """It is counted and left out."""
    log = told(database, Time())
    for number in range(9):
        log.noted(request(ip=f"192.0.2.{number}"), errors.Forbidden())
    bad = list(log._groups.values())[4]
    bad.row = replace(bad.row, severity="fatal")  # type: ignore[arg-type]
    await log.finish()
    assert (log.written, log.refused, log.waiting) == (8, 1, 0)
    assert len(await rows(name, "security_events", "id")) == 8


def test_what_there_is_no_room_for_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that waits is lost for it, and it still counts its like."""
    monkeypatch.setattr(module, "_MOST_WAITING", 3)
    log = told(cast(Database, object()), Time())
    for number in (*range(5), 0):
        log.noted(request(ip=f"192.0.2.{number}"), errors.Forbidden())
    assert (log.waiting, log.dropped) == (3, 2)
    assert [group.count for group in log._groups.values()] == [2, 1, 1]


async def test_without_a_database_nothing_waits() -> None:
    """Nor fails."""
    log = told(None, Time())
    log.noted(request(), errors.Forbidden())
    log.failed("loop", "why")
    log.risky(request(), "high", ())
    await log.step()
    await log.finish()
    assert (log.waiting, log.dropped) == (0, 0)


def test_its_numbers_are_metrics() -> None:
    """One of each."""
    assert [family.name for family in families(told(None, Time()))] == [
        "mcp_proxy_incident_rows_waiting",
        "mcp_proxy_incident_rows_written",
        "mcp_proxy_incident_rows_dropped",
        "mcp_proxy_incident_rows_refused",
    ]


async def test_what_the_gate_refuses_is_an_event_of_its_sender(name: str, database: Database) -> None:
    """It was no request yet, so nobody's tenant is known."""
    clock = Time()
    incidents = told(database, clock)
    for _ in range(3):
        incidents.refused_early(errors.BadRequest("bare CR"), "192.0.2.9")
    incidents.refused_early(errors.Overloaded("cap"), "192.0.2.9")
    await incidents.finish()
    [row] = await execute(owner_dsn(name), "SELECT * FROM security_events WHERE client_ip = '192.0.2.9'")
    assert (row["event_type"], row["severity"]) == ("parse_error", "low")
