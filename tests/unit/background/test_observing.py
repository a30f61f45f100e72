"""What is seen of servers becomes rows, when it changed; PostgreSQL may be away meanwhile."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.background import observing as module
from proxy.background.observing import Clocks, Observing
from proxy.config.resilience import Queue
from proxy.dataplane.probe import Result
from proxy.identity.access import Server as Place
from proxy.identity.records import SYSTEM_TENANT
from proxy.identity.uuid7 import RecordIds
from proxy.log import logger
from proxy.store import pool
from proxy.store.database import Bounds, Database, Places
from tests.unit.background.conftest import ACME
from tests.unit.background.seen import Server, Slots
from tests.unit.dataplane.fakes import Time
from tests.unit.store.engine import empty_database, execute, login_dsn, opened, owner_dsn

SHARED, OWN = "33333333-3333-3333-3333-333333333333", "44444444-4444-4444-4444-444444444444"
NOON = 1_800_000_000.0
TABLES = ("circuit_breakers", "connection_pools", "request_queues")


class Spoken:
    """Lines of the log."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def info(self, event: str, **_fields: Any) -> None:
        self.lines.append(("info", event))

    def warning(self, event: str, **_fields: Any) -> None:
        self.lines.append(("warning", event))

    def error(self, event: str, **_fields: Any) -> None:
        self.lines.append(("error", event))


class Scene:
    """Two servers, one of everybody and one of a tenant, and who watches them."""

    def __init__(self, database: Database | None, spoken: Any = None) -> None:
        self.clock = Time()
        self.shared = Server("shared", Place("shared", SHARED), self.clock, Queue())
        self.own = Server("acme/own", Place("own", OWN, ACME), self.clock)
        self.servers = {server.name: server for server in (self.shared, self.own)}
        ids = RecordIds(time.time, os.urandom)
        clocks = Clocks(self.wall, self.clock)
        self.observing = Observing(database, lambda: self.servers, ids, clocks, spoken or logger("test"), "one")

    def wall(self) -> float:
        """Seconds since 1970."""
        return NOON - 1000.0 + self.clock.now

    async def step_after(self, seconds: float) -> int:
        """Rows that are written then."""
        self.clock.now += seconds
        before = self.observing.written
        await self.observing.step()
        return self.observing.written - before


@pytest.fixture
async def name(name: str) -> str:
    """With the two servers."""
    for identity, tenant in ((SHARED, SYSTEM_TENANT), (OWN, ACME)):
        await execute(
            owner_dsn(name),
            "INSERT INTO mcp_servers (id, tenant_id, name, endpoint_url) "
            f"VALUES ('{identity}', '{tenant}', 's', 'https://s.example/')",
        )
    return name


async def rows(name: str, query: str) -> list[tuple[Any, ...]]:
    """As the owner of everything sees them."""
    return [tuple(row) for row in await execute(owner_dsn(name), query)]


async def test_servers_are_published_at_first_and_when_they_change(name: str, database: Database) -> None:
    """Each as its tenant; a table whose part did not change is left alone."""
    scene = Scene(database)
    assert await scene.step_after(0) == 5  # two breakers, two pools, a queue
    assert await scene.step_after(5) == 0
    scene.own.fail()
    assert await scene.step_after(5) == 1
    columns = "tenant_id::text, server_id::text, instance, state, failure_count, open_count, last_failure"
    assert await rows(name, f"SELECT {columns} FROM circuit_breakers ORDER BY server_id") == [
        (SYSTEM_TENANT, SHARED, "one", "closed", 0, 0, None),
        (ACME, OWN, "one", "open", 2, 1, "connect"),
    ]
    [(opened_at,)] = await rows(name, "SELECT opened_at FROM circuit_breakers WHERE state = 'open'")
    assert opened_at == datetime.fromtimestamp(NOON + 5, UTC)
    scene.shared.client.slots = Slots(limit=10, used=5)
    assert scene.shared.queue is not None
    scene.shared.queue.try_enter()
    assert await scene.step_after(5) == 2
    assert await rows(name, "SELECT in_use, utilization FROM connection_pools ORDER BY in_use") == [(0, 0), (5, 0.1)]
    assert await rows(name, "SELECT running, admitted_count FROM request_queues") == [(1, 1)]


async def test_the_recommended_size_of_a_pool_is_published(name: str, database: Database) -> None:
    """Of the server that it is for."""
    scene = Scene(database)
    scene.observing.recommended = {"shared": 20}.get
    await scene.step_after(0)
    query = "SELECT server_id::text, recommended_max FROM connection_pools ORDER BY server_id"
    assert await rows(name, query) == [(SHARED, 20), (OWN, None)]


async def test_rows_show_regularly_that_the_instance_lives(name: str, database: Database) -> None:
    """Also while nothing changes, or something always does; else they would be taken for those of a lost one."""
    scene = Scene(database)
    await scene.step_after(0)
    [(before,)] = await rows(name, "SELECT min(updated_at) FROM request_queues")
    for number in range(59):
        scene.own.client.slots = Slots(used=number % 2)
        await scene.step_after(5)
    assert await rows(name, "SELECT min(updated_at) FROM request_queues") == [(before,)]
    await scene.step_after(5)
    [(after,)] = await rows(name, "SELECT min(updated_at) FROM request_queues")
    assert after > before


async def test_a_server_says_how_it_is_once_that_is_known(name: str, database: Database) -> None:
    """An instance that has not looked yet takes nothing back that others know; maintenance is a state of its own."""
    query = f"SELECT health_status, consecutive_failures, avg_response_time FROM mcp_servers WHERE id = '{OWN}'"
    await execute(owner_dsn(name), "UPDATE mcp_servers SET health_status = 'HEALTHY'")
    scene = Scene(database)
    await scene.step_after(0)
    assert await rows(name, query) == [("HEALTHY", 0, None)]
    for _ in range(2):
        scene.own.health.checked(False, 2.0, None, "timeout")
        scene.observing.health_checked(scene.own, Result(False, 2.0, None, "timeout"), "mcp")
    scene.own.latency_ewma_s = 0.25
    await scene.step_after(5)
    assert await rows(name, query) == [("UNHEALTHY", 2, 250.0)]
    scene.own.window = object()
    await scene.step_after(5)
    assert await rows(name, query) == [("MAINTENANCE", 2, 250.0)]
    scene.own.window = None
    scene.own.health.checked(True, 0.1)
    scene.observing.health_checked(scene.own, Result(True, 0.1, 200), "mcp")
    await scene.step_after(5)
    assert await rows(name, query) == [("HEALTHY", 0, 250.0)]
    [(checked_at,)] = await rows(name, f"SELECT last_health_check_at FROM mcp_servers WHERE id = '{OWN}'")
    assert checked_at == datetime.fromtimestamp(NOON + 10, UTC)


async def test_what_stays_unknown_is_said_in_the_end(name: str, database: Database) -> None:
    """A server that is not checked any more is not healthy for ever."""
    await execute(owner_dsn(name), "UPDATE mcp_servers SET health_status = 'HEALTHY'")
    scene = Scene(database)
    await scene.step_after(0)
    await scene.step_after(300)
    assert await rows(name, "SELECT DISTINCT health_status FROM mcp_servers") == [("UNKNOWN",)]


async def test_checks_become_rows(name: str, database: Database) -> None:
    """Good and bad ones, of each tenant; those of a server without a row do not."""
    scene = Scene(database)
    scene.observing.health_checked(scene.shared, Result(True, 0.0125, 405), "http")
    scene.observing.health_checked(scene.own, Result(False, 2.0, None, "timeout"), "mcp")
    scene.observing.health_checked(Server("file", Place("file"), scene.clock), Result(True, 1.0), "tcp")
    assert scene.observing.waiting == 2
    await scene.step_after(0)
    columns = "tenant_id::text, server_id::text, instance, kind, status, response_time_ms, status_code, error"
    assert await rows(name, f"SELECT {columns} FROM server_health_checks ORDER BY server_id") == [
        (SYSTEM_TENANT, SHARED, "one", "http", "HEALTHY", 12.5, 405, None),
        (ACME, OWN, "one", "mcp", "UNHEALTHY", 2000.0, None, "timeout"),
    ]
    assert scene.observing.waiting == 0


async def test_an_event_is_a_row_and_a_line_of_the_log(name: str, database: Database) -> None:
    """The line is as loud as the event is severe; without a database it is all there is."""
    spoken = Spoken()
    for where in (database, None):
        scene = Scene(where, spoken)
        scene.observing.event(ACME, "breaker_open", "warning", "breaker", "a breaker opened", {"server": "own"})
        scene.observing.event("", "breaker_closed", "info", "breaker", "a breaker closed", {})
        scene.observing.event("", "x", "critical", "breaker", "worse", {})
        assert scene.observing.waiting == (3 if where else 0)
        await scene.observing.step()
        await scene.observing.finish()
    columns = "tenant_id::text, event_type, severity, component, message, details ->> 'server', instance"
    assert await rows(name, f"SELECT {columns} FROM system_events ORDER BY id LIMIT 2") == [
        (ACME, "breaker_open", "warning", "breaker", "a breaker opened", "own", "one"),
        (SYSTEM_TENANT, "breaker_closed", "info", "breaker", "a breaker closed", None, "one"),
    ]
    heard = [("warning", "a breaker opened"), ("info", "a breaker closed"), ("error", "worse")]
    assert spoken.lines == heard * 2


async def test_what_there_is_no_room_for_is_counted(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of events and of checks; nothing that waits is lost for it."""
    monkeypatch.setattr(module, "_MOST_WAITING", 3)
    scene = Scene(database)
    for _ in range(5):
        scene.observing.event(ACME, "x", "info", "breaker", "m", {})
        scene.observing.health_checked(scene.own, Result(True, 0.1), "mcp")
    assert (scene.observing.waiting, scene.observing.dropped) == (6, 4)


async def test_what_postgresql_refuses_is_counted_and_not_tried_again(name: str, database: Database) -> None:
    """It does not hold up what comes after it."""
    scene = Scene(database)
    scene.shared.client.slots = Slots(limit=0)
    await scene.step_after(0)
    assert scene.observing.refused == 3
    assert await rows(name, "SELECT server_id::text FROM circuit_breakers") == [(OWN,)]
    scene.shared.fail()
    await scene.step_after(5)
    assert (scene.observing.refused, len(await rows(name, "SELECT FROM circuit_breakers"))) == (3, 2)


async def test_what_is_told_while_postgresql_is_away_is_written_when_it_is_back(name: str) -> None:
    """Events and checks of then, the state of now."""
    async with empty_database() as bare:
        database = Database(Places(login_dsn(bare)), {"write": Bounds(statement_s=5)})
        scene = Scene(database)
        scene.observing.event(ACME, "x", "info", "breaker", "m", {})
        scene.observing.health_checked(scene.own, Result(True, 0.1), "mcp")
        await scene.observing.step()  # not open
        await database.open()
        await scene.observing.step()  # not migrated
        await scene.observing.finish()
        await database.close()
        assert (scene.observing.waiting, scene.observing.written) == (2, 0)
    async with opened(name, statement_s=5) as database:
        scene.observing._database = database
        assert await scene.step_after(5) == 2 + 5
    assert scene.observing.waiting == 0


async def test_a_tenant_that_is_slow_does_not_hold_up_the_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows wait; when it is free again they are written."""
    monkeypatch.setattr(pool, "_GRACE_S", 20.0)  # PostgreSQL says so, however busy the machine is
    async with opened(name, connections=2, statement_s=1.0) as database:
        scene = Scene(database)
        await scene.step_after(0)
        for server in (scene.own, scene.shared):
            server.health.checked(True, 0.1)
        async with opened(name, statement_s=5) as other, other.across_tenants("write") as session:
            await session.execute(f"/* test.lock */ SELECT FROM mcp_servers WHERE id = '{SHARED}' FOR UPDATE")
            await scene.step_after(5)
        query = "SELECT health_status FROM mcp_servers ORDER BY id"
        assert await rows(name, query) == [("UNKNOWN",), ("HEALTHY",)]
        await scene.step_after(5)
        assert await rows(name, query) == [("HEALTHY",), ("HEALTHY",)]


async def test_only_so_many_tenants_have_their_turn_in_one_step(
    name: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was left out comes first the next time."""
    monkeypatch.setattr(module, "_MOST_TENANTS", 1)
    scene = Scene(database)
    seen = []
    for number in range(4):
        for server in (scene.own, scene.shared):
            server.client.slots = Slots(used=number + 1)
        await scene.step_after(5)
        seen.append(await rows(name, "SELECT in_use FROM connection_pools ORDER BY server_id"))
    assert seen == [[(1,)], [(1,), (2,)], [(3,), (2,)], [(3,), (4,)]]


async def test_an_instance_that_ends_takes_its_rows_with_it(name: str, database: Database) -> None:
    """What it knew of health stays, and so does what others wrote."""
    scene = Scene(database)
    scene.own.health.checked(True, 0.1)
    await scene.step_after(0)
    await execute(owner_dsn(name), f"INSERT INTO circuit_breakers (tenant_id, server_id) VALUES ('{ACME}', '{OWN}')")
    scene.observing.event(ACME, "stop", "info", "proxy", "m", {})
    await scene.observing.finish()
    assert [len(await rows(name, f"SELECT FROM {table}")) for table in TABLES] == [1, 0, 0]
    assert await rows(name, "SELECT event_type FROM system_events") == [("stop",)]
    assert await rows(name, f"SELECT health_status FROM mcp_servers WHERE id = '{OWN}'") == [("HEALTHY",)]


async def test_rows_of_lost_instances_are_removed_from_time_to_time(name: str, database: Database) -> None:
    """Those of servers that this instance does not see, too."""
    await execute(owner_dsn(name), "ALTER TABLE circuit_breakers DISABLE TRIGGER touch_updated_at")
    await execute(
        owner_dsn(name),
        "INSERT INTO circuit_breakers (tenant_id, server_id, instance, updated_at) "
        f"VALUES ('{ACME}', '{OWN}', 'lost', now() - interval '2 h')",
    )
    scene = Scene(database)
    scene.servers = {}
    await scene.step_after(599)
    assert len(await rows(name, "SELECT FROM circuit_breakers")) == 1
    await scene.step_after(1)
    assert await rows(name, "SELECT FROM circuit_breakers") == []


async def test_a_server_that_is_gone_is_forgotten(database: Database) -> None:
    """When it comes back it is published anew."""
    scene = Scene(database)
    await scene.step_after(0)
    servers, scene.servers = scene.servers, {}
    assert await scene.step_after(5) == 0
    scene.servers = servers
    assert await scene.step_after(5) == 5


async def test_a_look_at_a_server_is_cheap() -> None:
    """A thousand of them are looked at every 5 s, beside the requests."""
    scene = Scene(None)
    scene.servers = {str(number): Server(str(number), Place("s", str(number)), scene.clock) for number in range(1000)}
    best = 1.0
    for _ in range(5):
        began = time.perf_counter()
        await scene.observing._due()
        best = min(best, (time.perf_counter() - began) / 1000)
    assert best < 60e-6
