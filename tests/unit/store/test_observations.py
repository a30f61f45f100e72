"""What instances see of servers reaches its tables, in few statements, and goes again: with the real migrations."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proxy.identity.records import SYSTEM_TENANT
from proxy.identity.uuid7 import RecordIds
from proxy.store import observations
from proxy.store.database import Database, Places, Session
from proxy.store.learned import Unusable
from proxy.store.observations import BreakerSeen, Check, Event, HealthSeen, PoolSeen, QueueSeen, patient
from proxy.store.pool import Unavailable
from tests.unit.store.conftest import ACME, OTHER, OTHERS, SERVER
from tests.unit.store.engine import empty_database, execute, migrated_template, owner_dsn, rows

GONE = "55555555-5555-5555-5555-555555555555"
NOON = datetime(2027, 1, 15, 12, tzinfo=UTC)
IDS = RecordIds(time.time, os.urandom)


async def put(
    database: Database, write: Callable[[Session, str, Sequence[Any]], Awaitable[None]], *rows: Any, instance: str = "a"
) -> None:
    async with database.tenant(ACME) as session:
        await write(session, instance, rows)


async def test_a_breaker_is_one_row_for_each_instance(name: str, database: Database) -> None:
    """The newest of what each says."""
    opened_at, attempt = NOON, NOON + timedelta(seconds=5)
    await put(database, observations.put_breakers, BreakerSeen(SERVER, "open", 5, 1, opened_at, attempt, "connect"))
    await put(database, observations.put_breakers, BreakerSeen(SERVER, "closed", 0, 1, opened_at, None, None))
    await put(
        database, observations.put_breakers, BreakerSeen(SERVER, "half_open", 7, 2, NOON, attempt, "tls"), instance="b"
    )
    columns = "tenant_id::text, server_id::text, instance, state, failure_count, open_count, opened_at"
    found = await rows(name, f"SELECT {columns}, next_attempt_at, last_failure FROM circuit_breakers ORDER BY instance")
    assert found == [
        (ACME, SERVER, "a", "closed", 0, 1, NOON, None, None),
        (ACME, SERVER, "b", "half_open", 7, 2, NOON, attempt, "tls"),
    ]


async def test_pools_and_queues_are_written_with_every_column(name: str, database: Database) -> None:
    """And again with other values."""
    for number in (1, 2):
        await put(database, observations.put_pools, PoolSeen(SERVER, 10, number, 3, 4, 0.5, None))
        await put(database, observations.put_queues, QueueSeen(SERVER, 1, 0, number, 3, 4.5, 6, 7, 8))
    columns = "max_connections, in_use, idle, waiting, utilization, recommended_max"
    assert await rows(name, f"SELECT {columns} FROM connection_pools") == [(10, 2, 3, 4, 0.5, None)]
    columns = "max_concurrent, max_pending, running, pending, oldest_wait_ms, admitted_count, rejected_count"
    assert await rows(name, f"SELECT {columns}, expired_count FROM request_queues") == [(1, 0, 2, 3, 4.5, 6, 7, 8)]


async def test_servers_of_others_and_servers_that_are_gone_are_passed_over(name: str, database: Database) -> None:
    """The row between them is written."""
    seen = [BreakerSeen(server, "open", 1, 1, None, None, None) for server in (OTHERS, SERVER, GONE)]
    await put(database, observations.put_breakers, *seen)
    checks = [Check(IDS.new(), NOON, server, "tcp", "HEALTHY", 1.0, None, None) for server in (OTHERS, SERVER, GONE)]
    await put(database, observations.add_checks, *checks)
    async with database.tenant(ACME) as session:
        await observations.put_health(
            session, [HealthSeen(each, "HEALTHY", 1.0, 0, NOON) for each in (OTHERS, SERVER, GONE)]
        )
    for table in ("circuit_breakers", "server_health_checks"):
        assert await rows(name, f"SELECT server_id::text FROM {table}") == [(SERVER,)]
    assert await rows(name, "SELECT id::text FROM mcp_servers WHERE health_status = 'HEALTHY'") == [(SERVER,)]


async def test_a_server_says_how_it_is(name: str, database: Database) -> None:
    """What is not known leaves what was."""
    query = "SELECT health_status, avg_response_time, consecutive_failures, last_health_check_at FROM mcp_servers"
    for seen, expected in (
        (HealthSeen(SERVER, "UNHEALTHY", 12.5, 3, NOON), ("UNHEALTHY", 12.5, 3, NOON)),
        (HealthSeen(SERVER, "HEALTHY", None, 0, None), ("HEALTHY", 12.5, 0, NOON)),
    ):
        async with database.tenant(ACME) as session:
            await observations.put_health(session, [seen])
        assert await rows(name, f"{query} WHERE id = '{SERVER}'") == [expected]


async def test_a_check_that_is_written_again_stays_one_row(name: str, database: Database) -> None:
    """As when the answer to a commit was lost; whatever an error holds can be written."""
    check = Check(IDS.new(), NOON, SERVER, "mcp", "UNHEALTHY", 2000.5, 500, "a\0b\ud800" + "x" * 9999)
    for _ in range(2):
        await put(database, observations.add_checks, check)
    columns = "id, checked_at, tenant_id::text, instance, kind, status, response_time_ms, status_code, error"
    assert await rows(name, f"SELECT {columns} FROM server_health_checks") == [
        (check.id, NOON, ACME, "a", "mcp", "UNHEALTHY", 2000.5, 500, "a?b?" + "x" * 508)
    ]


async def test_an_event_is_written_by_who_may_only_add(name: str, database: Database) -> None:
    """Of any tenant, once."""
    event = Event(
        IDS.new(), NOON.timestamp(), SYSTEM_TENANT, "breaker_open", "warning", "breaker", "opened\0",
        {"server": "s\0", "times": 2, "all": ["\ud800", {"\0": NOON}]}, "a",
    )  # fmt: skip
    for _ in range(2):
        async with database.audit() as session:
            await observations.add_events(session, [event])
    columns = "id, ts, tenant_id::text, event_type, severity, component, message, instance"
    assert await rows(name, f"SELECT {columns} FROM system_events") == [
        (event.id, NOON, SYSTEM_TENANT, "breaker_open", "warning", "breaker", "opened?", "a")
    ]
    [(details,)] = await rows(name, "SELECT details FROM system_events")
    assert json.loads(details) == {"server": "s?", "times": 2, "all": ["?", {"?": "2027-01-15T12:00:00+00:00"}]}


async def test_what_an_instance_left_behind_is_removed_after_an_hour_or_when_it_ends(
    name: str, database: Database
) -> None:
    """Of all tenants; what others see stays."""
    for instance in ("ends", "lost", "lives"):
        for tenant, server in ((ACME, SERVER), (OTHER, OTHERS)):
            async with database.tenant(tenant) as session:
                breaker = BreakerSeen(server, "closed", 0, 0, None, None, None)
                await observations.put_breakers(session, instance, [breaker])
                await observations.put_pools(session, instance, [PoolSeen(server, 1, 0, 0, 0, 0, None)])
                await observations.put_queues(session, instance, [QueueSeen(server, 1, 1, 0, 0, 0, 0, 0, 0)])
    tables = ("circuit_breakers", "connection_pools", "request_queues")
    for table in tables:
        await execute(owner_dsn(name), f"ALTER TABLE {table} DISABLE TRIGGER touch_updated_at")
        await execute(
            owner_dsn(name), f"UPDATE {table} SET updated_at = now() - interval '61 min' WHERE instance = 'lost'"
        )
    for ends, left in ((None, ["ends", "ends", "lives", "lives"]), ("ends", ["lives", "lives"])):
        async with database.across_tenants("write") as session:
            await observations.remove_rows(session, ends)
        for table in tables:
            assert await rows(name, f"SELECT instance FROM {table} ORDER BY 1") == [(each,) for each in left]


async def test_many_rows_go_in_few_statements(name: str, database: Database) -> None:
    """2,500 rows are ten."""
    await execute(
        owner_dsn(name),
        "INSERT INTO mcp_servers (id, tenant_id, name, endpoint_url) SELECT md5(n::text)::uuid, "
        f"'{ACME}', 's' || n, 'https://s.example/' FROM generate_series(1, 2500) AS n",
    )
    ids = [row[0] for row in await rows(name, "SELECT id::text FROM mcp_servers WHERE name <> 's'")]
    before = database.numbers()["write"].statements
    await put(
        database, observations.put_breakers, *(BreakerSeen(each, "closed", 0, 0, None, None, None) for each in ids)
    )
    assert database.numbers()["write"].statements - before == 2 + 10
    assert await rows(name, "SELECT count(*) FROM circuit_breakers") == [(2500,)]


async def test_values_that_postgresql_refuses_are_told_from_a_database_that_is_away(database: Database) -> None:
    """They would be refused again."""
    with pytest.raises(Unusable):
        await put(database, observations.put_pools, PoolSeen(SERVER, 0, 0, 0, 0, 0.0, None))


async def test_without_tables_the_rows_have_to_wait() -> None:
    """The migrations may be to come; so may the right to take on a role."""
    await migrated_template()  # roles are the server's
    async with empty_database() as name:
        database = Database(Places(owner_dsn(name)), {})
        await database.open()
        try:
            with pytest.raises(Unavailable):
                await put(database, observations.put_pools, PoolSeen(SERVER, 1, 0, 0, 0, 0.0, None))
            with pytest.raises(Unavailable):
                async with patient(database.tenant(ACME)) as session:
                    await session.execute("/* test.role */ SELECT set_config('role', 'nobody_of_this_name', true)")
        finally:
            await database.close()
