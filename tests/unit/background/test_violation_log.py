"""What is told of violations and bans becomes rows, soon and once; PostgreSQL may be away meanwhile."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, NamedTuple

import asyncpg
import pytest

from proxy.background import violation_log as module
from proxy.background.violation_log import ViolationLog
from proxy.dataplane.bans import Ban
from proxy.identity.records import SYSTEM_TENANT
from proxy.identity.uuid7 import RecordIds
from proxy.log import logger
from proxy.store import pool
from proxy.store.database import Bounds, Database, Places
from tests.unit.background.conftest import ACME
from tests.unit.dataplane.fakes import Time
from tests.unit.store.engine import (
    circle_of_locks,
    empty_database,
    execute,
    login_dsn,
    migrated_database,
    opened,
    owner_dsn,
)

WHO = "192.0.2.1"


class Rule(NamedTuple):
    """As much of a rule as is recorded."""

    id: str
    level: str


USER = Rule("tier-user", "tier")
ROW = Rule("22222222-2222-2222-2222-222222222222", "tool")


class Spoken:
    """Lines of the log."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append({"event": event, **fields})


def logged(database: Database | None, clock: Time, spoken: Spoken | None = None) -> ViolationLog:
    ids = RecordIds(clock, os.urandom)
    return ViolationLog(database, ids, clock, spoken or logger("limits"), "one")  # type: ignore[arg-type]


async def rows(name: str, table: str, columns: str) -> list[tuple[Any, ...]]:
    """As the owner of everything sees them."""
    return [tuple(row) for row in await execute(owner_dsn(name), f"SELECT {columns} FROM {table} ORDER BY id")]


async def test_a_subject_makes_one_row_a_second_for_each_rule(name: str, database: Database) -> None:
    """Written once the second is over."""
    clock = Time()
    log = logged(database, clock)
    for moment in (1000.0, 1000.9, 1001.0):
        clock.now = moment
        for _ in range(50):
            log.violated(USER, "user:7", ACME, WHO, 100.0, 2.5)
            log.violated(ROW, "user:7", ACME, WHO, 10.0, 0.5)
    log.violated(USER, "user:8", "", WHO, 100.0, 2.5)
    await log.step()
    assert (log.written, log.waiting) == (2, 3)
    clock.now = 1002.0
    await log.step()
    columns = "extract(epoch FROM ts), tenant_id::text, rule_id::text, level, subject, limit_value"
    assert sorted(await rows(name, "rate_limit_violations", columns), key=str) == [
        (1000, ACME, ROW.id, "tool", "user:7", 10.0),
        (1000, ACME, None, "tier", "user:7", 100.0),
        (1001, SYSTEM_TENANT, None, "tier", "user:8", 100.0),
        (1001, ACME, ROW.id, "tool", "user:7", 10.0),
        (1001, ACME, None, "tier", "user:7", 100.0),
    ]
    assert (log.written, log.waiting) == (5, 0)


async def test_a_ban_is_a_security_event_and_a_line_of_the_log(name: str, database: Database) -> None:
    """More severe for whoever comes back again and again."""
    spoken = Spoken()
    log = logged(database, Time(), spoken)
    log.blocked(Ban(WHO, 0.0, "bad_key", 101.5, 1), 60.0)
    log.blocked(Ban("2001:db8::/64", 0.0, "flood", 100.0, 3), 239.9)
    await log.step()
    columns = "event_type, severity, client_ip::text, score, action_taken, description, instance"
    assert await rows(name, "security_events", columns) == [
        ("bad_key", "medium", "192.0.2.1/32", 101.5, "blocked", "address blocked for bad key", "one"),
        ("flood", "high", "2001:db8::/64", 100.0, "blocked", "address blocked for flood", "one"),
    ]
    assert await rows(name, "security_events", "details ->> 'seconds', details ->> 'times'") == [
        ("60", "1"),
        ("240", "3"),
    ]
    assert spoken.lines[0] == {"event": "address blocked", "address": WHO, "kind": "bad_key", "seconds": 60, "times": 1}


async def test_rows_wait_while_postgresql_is_away() -> None:
    """And are written when it is back, none twice."""
    clock = Time()
    async with empty_database() as gone:
        dsn = login_dsn(gone)
    database = Database(Places(dsn), {"write": Bounds(connect_s=1)}, lambda: 0.0)
    await database.open()
    log = logged(database, clock)
    log.violated(USER, "user:7", ACME, WHO, 100.0, 2.5)
    log.blocked(Ban(WHO, 0.0, "bad_key", 101.5, 1), 60.0)
    clock.now += 2
    await log.step()
    await log.finish()
    assert (log.written, log.waiting) == (0, 2)
    await database.close()
    async with migrated_database() as name:
        log._database = back = Database(Places(login_dsn(name)), {})
        await back.open()
        await log.step()
        await log.step()
        await back.close()
        assert (
            len(await rows(name, "rate_limit_violations", "id")) == len(await rows(name, "security_events", "id")) == 1
        )
    assert (log.written, log.waiting) == (2, 0)


async def test_a_circle_of_locks_is_quiet_and_the_rows_are_written_later(name: str, database: Database) -> None:
    """PostgreSQL ends ours for the others' sake; nothing is lost, nothing is there twice."""
    log = logged(database, Time(), Spoken())
    for subject in (WHO, "192.0.2.2"):
        log.blocked(Ban(subject, 0.0, "flood"), 60.0)
    taken = (
        "INSERT INTO security_events (id, ts, tenant_id, event_type, severity, description)"
        f" VALUES ($1, to_timestamp({log._events[0].at}), '{ACME}', 'x', 'low', 'x')"
    )
    async with circle_of_locks(name, taken, *(event.id for event in log._events)) as close:
        work = asyncio.create_task(log.step())
        await close()
        await work
        assert (log.written, log.dropped, log.waiting) == (0, 0, 2)
    await log.step()
    assert (log.written, log.waiting) == (2, 0)
    assert len(await rows(name, "security_events", "id")) == 2


async def test_a_row_that_is_refused_holds_up_no_other(name: str, database: Database) -> None:
    """Of both kinds; it is counted and left out."""
    log = logged(database, Time(), Spoken())
    for number in range(5):
        log.violated(USER, f"user:{number}", ACME, WHO, 100.0, 2.5)
        log.blocked(Ban(f"192.0.2.{number}", 0.0, "flood", -1.0 if number == 3 else 1.0), 60.0)
    await log.finish()
    assert len(await rows(name, "security_events", "id")) == 4
    assert (log.written, log.dropped, log.waiting) == (9, 1, 0)


async def test_events_that_have_to_wait_hold_up_no_violations(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has the one table for himself; the other's rows are written."""
    monkeypatch.setattr(pool, "_GRACE_S", 20.0)  # PostgreSQL says so, however busy the machine is
    async with opened(name, connections=2, statement_s=1.0) as database:
        log = logged(database, Time(), Spoken())
        log.violated(USER, "user:7", ACME, WHO, 100.0, 2.5)
        log.blocked(Ban(WHO, 0.0, "flood"), 60.0)
        somebody = await asyncpg.connect(owner_dsn(name))
        async with somebody.transaction():
            await somebody.execute("LOCK TABLE security_events")
            await log.finish()
            assert len(await rows(name, "rate_limit_violations", "id")) == 1
        await somebody.close()
        assert (log.written, log.waiting) == (1, 1)


async def test_the_last_second_is_written_at_the_end(name: str, database: Database) -> None:
    """Also when the clock was set back."""
    clock = Time()
    log = logged(database, clock)
    log.violated(USER, "user:7", ACME, WHO, 100.0, 2.5)
    clock.now -= 500
    log.violated(USER, "user:7", ACME, WHO, 100.0, 2.5)
    await log.step()
    assert log.waiting == 1
    await log.finish()
    assert log.waiting == 0
    assert len(await rows(name, "rate_limit_violations", "id")) == 2


async def test_what_there_is_no_room_for_is_counted(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both kinds; nothing that waits is lost for it."""
    monkeypatch.setattr(module, "_MOST_WAITING", 3)
    log = logged(database, Time(), Spoken())
    for number in range(5):
        log.violated(USER, f"user:{number}", ACME, WHO, 100.0, 2.5)
        log.blocked(Ban(f"192.0.2.{number}", 0.0, "flood"), 60.0)
    assert (log.waiting, log.dropped) == (6, 4)


async def test_without_a_database_nothing_waits() -> None:
    """A ban is in the log all the same."""
    spoken = Spoken()
    log = logged(None, Time(), spoken)
    log.violated(USER, "user:7", ACME, WHO, 100.0, 2.5)
    log.blocked(Ban(WHO, 0.0, "flood"), 60.0)
    await log.step()
    await log.finish()
    assert (log.waiting, log.dropped, len(spoken.lines)) == (0, 0, 1)


async def test_telling_is_cheap(database: Database) -> None:
    """It is done while the client waits for its 429."""
    log = logged(database, Time())
    best = 1.0
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(1000):
            log.violated(USER, "user:7", ACME, WHO, 100.0, 2.5)
        best = min(best, (time.perf_counter() - began) / 1000)
    assert best < 10e-6
