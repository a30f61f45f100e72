"""Rules of tenants and what happened to them, with the real migrations: who reads what, and when a row fires."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from proxy.identity.records import SYSTEM_TENANT
from proxy.store import alerts
from proxy.store.accounts import Rejected
from proxy.store.alerts import AlertRow, EpisodeRow
from proxy.store.learned import Unusable
from proxy.store.migrate import migrator
from proxy.store.observations import patient
from proxy.store.pool import Unavailable
from tests.unit.store.administered import Administered, administered
from tests.unit.store.engine import empty_database, execute, migrated_database, opened, owner_dsn

ACME, GLOBEX = "11111111-1111-1111-1111-111111111111", "33333333-3333-3333-3333-333333333333"
SLOW = "22222222-2222-2222-2222-222222222222"
AT = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
async def here() -> AsyncIterator[Administered]:
    """A database with two tenants, one of whom has a rule of the first columns only."""
    async with administered() as here:
        await here.rows(
            f"INSERT INTO tenants (id, slug, name) VALUES ('{ACME}', 'acme', 'A'), ('{GLOBEX}', 'globex', 'G')"
        )
        await here.rows(
            "INSERT INTO performance_alerts (id, tenant_id, name, metric, threshold)"
            f" VALUES ('{SLOW}', '{ACME}', 'slow', 'p95_ms', 500)"
        )
        yield here


def episode(**given: Any) -> EpisodeRow:
    """One that fires."""
    row = EpisodeRow(
        uuid4(), SLOW, "slow", "one", None, "p95_ms", ">", 500.0, 700.0, "high", AT - timedelta(minutes=1), None, None
    )  # fmt: skip
    return row._replace(**given)


async def put(here: Administered, *rows: EpisodeRow, value: float | None = None, tenant: str = ACME) -> None:
    async with here.database.tenant(tenant) as session:
        await alerts.put(session, rows, {} if value is None else {SLOW: value})


async def rule(here: Administered) -> tuple[Any, ...]:
    """State, last value and last begin of the row."""
    [row] = await here.rows(f"SELECT state, last_value, last_triggered_at FROM performance_alerts WHERE id = '{SLOW}'")
    return tuple(row.values())


async def test_a_row_of_the_first_columns_is_a_rule(here: Administered) -> None:
    """The new ones have defaults; rules that are off are not read, and entries of `channels` that are no texts."""
    await here.rows(
        "INSERT INTO performance_alerts (tenant_id, name, metric, threshold, is_enabled)"
        f" VALUES ('{GLOBEX}', 'off', 'p95_ms', 1, false)"
    )
    await here.rows('UPDATE performance_alerts SET channels = \'["ops", 7, {"a": 1}, null, "x"]\'')
    async with here.database.snapshot() as session:
        found = await alerts.read_rules(session)
    assert found == [
        AlertRow(
            SLOW, ACME, "acme", None, "slow", "p95_ms", ">", 500.0, None, 300, 0, 0, 900, 0, "medium", ("ops", "x")
        )
    ]


async def test_no_tenant_crowds_out_the_others(here: Administered, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred rules each, the oldest ones."""
    await here.rows(
        "INSERT INTO performance_alerts (tenant_id, name, metric, threshold, created_at)"
        f" SELECT '{GLOBEX}', 'r' || n, 'p95_ms', n, now() + n * interval '1 s' FROM generate_series(1, 150) AS n"
    )
    async with here.database.snapshot() as session:
        found = await alerts.read_rules(session)
    assert len(found) == 101
    assert {row.threshold for row in found if row.owner == "globex"} == set(range(1, 101))


async def test_what_happened_is_one_row_from_begin_to_end(here: Administered) -> None:
    """Written again it is replaced; the rule fires meanwhile and keeps its last value."""
    began = episode()
    await put(here, began, value=700.0)
    assert await rule(here) == ("firing", 700.0, began.started_at)
    await put(here, began)
    ended = began._replace(value=100.0, resolved_at=AT, ended="clear")
    await put(here, ended, value=100.0)
    [row] = await here.rows("SELECT * FROM alert_events")
    assert (row["id"], row["value"], row["resolved_at"], row["ended"]) == (began.id, 100.0, AT, "clear")
    assert (str(row["tenant_id"]), row["instance"]) == (ACME, "one")
    assert await rule(here) == ("ok", 100.0, began.started_at)


async def test_a_rule_fires_until_the_last_instance_says_that_it_ended(here: Administered) -> None:
    """An acknowledgement holds until then."""
    one, two = episode(), episode(instance="two")
    await put(here, one)
    await put(here, two)
    await here.rows("UPDATE performance_alerts SET state = 'acknowledged'")
    await put(here, one._replace(resolved_at=AT, ended="clear"))
    assert (await rule(here))[0] == "acknowledged"
    await put(here, two._replace(resolved_at=AT, ended="clear"))
    assert (await rule(here))[0] == "ok"


async def test_of_two_instances_that_end_together_one_is_the_last(here: Administered) -> None:
    """Else each would leave it to the other, and the rule would fire for ever."""
    for _ in range(10):
        seen = [episode(instance=str(number)) for number in range(3)]
        await asyncio.gather(*(put(here, each) for each in seen))
        assert (await rule(here))[0] == "firing"
        await asyncio.gather(*(put(here, each._replace(resolved_at=AT, ended="clear")) for each in seen))
        assert (await rule(here))[0] == "ok"


async def test_what_is_as_it_was_is_not_written(here: Administered) -> None:
    """Every minute, by every instance."""
    await put(here, value=5.0)
    before = await here.rows("SELECT xmin::text, last_value FROM performance_alerts")
    await put(here, value=5.0)
    assert await here.rows("SELECT xmin::text, last_value FROM performance_alerts") == before
    assert before[0]["last_value"] == 5.0


async def test_an_instance_that_is_gone_fires_no_more(here: Administered) -> None:
    """After five minutes without a word; when it is back after all, it fires again. What is old goes."""
    began = episode()
    await put(here, began, episode(id=UUID(int=1), started_at=AT - timedelta(days=91), resolved_at=AT, ended="clear"))
    await here.rows("UPDATE alert_events SET seen_at = now() - interval '6 minutes'")
    async with patient(here.database.across_tenants("write")) as session:
        await alerts.tidy(session)
    [row] = await here.rows("SELECT id, ended, resolved_at >= started_at AS sound FROM alert_events")
    assert tuple(row.values()) == (began.id, "lost", True)
    assert (await rule(here))[0] == "ok"
    await put(here, began)
    assert (await rule(here))[0] == "firing"


async def test_a_tenant_writes_its_own_rows_only(here: Administered) -> None:
    """A rule of another one stays as it is; events of another cannot be overwritten."""
    began = episode()
    await put(here, began)
    await put(here, episode(), value=1.0, tenant=GLOBEX)
    assert (await rule(here))[:2] == ("firing", None)
    with pytest.raises(Unavailable):
        await put(here, began._replace(name="mine"), tenant=GLOBEX)
    assert await here.rows("SELECT name FROM alert_events WHERE name = 'mine'") == []
    async with here.database.tenant(GLOBEX) as session:
        assert await alerts.events(session, None, past=True, most=10) != []
    async with here.database.tenant(SYSTEM_TENANT) as session:
        assert await alerts.events(session, None, past=True, most=10) == []
        assert await alerts.listed(session, None) == []


async def test_rows_that_postgresql_does_not_take_are_unusable(here: Administered) -> None:
    """Such as those of a tenant that is gone; text that it would refuse is mended."""
    with pytest.raises(Unusable):
        await put(here, episode(), tenant="44444444-4444-4444-4444-444444444444")
    await put(here, episode(name="a\0b\ud800", server="\0"))
    assert [tuple(row.values()) for row in await here.rows("SELECT name, server FROM alert_events")] == [("a?b?", "?")]


async def test_numbers_of_the_process_are_for_the_system_tenant(here: Administered) -> None:
    """PostgreSQL sees to it."""
    insert = "INSERT INTO performance_alerts (tenant_id, name, metric, threshold) VALUES ($1, 'x', 'spool_share', 1)"
    await here.rows(insert, SYSTEM_TENANT)
    with pytest.raises(asyncpg.CheckViolationError, match="process"):
        await here.rows(insert, ACME)


async def test_before_the_migrations_there_is_nothing_yet() -> None:
    """Which passes."""
    async with empty_database() as name, opened(name, connections=1, statement_s=5) as database:
        with pytest.raises(Unavailable):
            async with patient(database.snapshot()) as session:
                await alerts.read_rules(session)
        with pytest.raises(Unavailable):
            async with patient(database.tenant(ACME)) as session:
                await alerts.put(session, [episode()], {})


async def test_operators_list_rules_and_events_of_one_or_all(here: Administered) -> None:
    """What fires, or all of late; the newest first."""
    old = episode(started_at=AT - timedelta(hours=1), resolved_at=AT, ended="clear")
    await put(here, old, episode())
    await put(here, episode(alert_id=None, name="p99"), tenant=SYSTEM_TENANT)
    async with here.session() as session:
        assert [row["name"] for row in await alerts.listed(session, None)] == ["slow"]
        assert await alerts.listed(session, "globex") == []
        firing = await alerts.events(session, None, past=False, most=10)
        assert sorted((row["tenant"], row["name"]) for row in firing) == [("acme", "slow"), ("system", "p99")]
        past = await alerts.events(session, "acme", past=True, most=10)
        assert [row["ended"] for row in past] == [None, "clear"]
        assert len(await alerts.events(session, None, past=True, most=1)) == 1
    with pytest.raises(Rejected):
        async with here.session() as session:
            await alerts.listed(session, "nobody")
    with pytest.raises(Rejected):
        async with here.session() as session:
            await alerts.events(session, "nobody", past=True, most=1)


async def test_rules_of_new_metrics_go_with_the_migration() -> None:
    """The others stay, and PostgreSQL takes them with the columns that there were."""
    rows = "SELECT name FROM performance_alerts ORDER BY name"
    async with migrated_database() as name:
        await execute(
            owner_dsn(name),
            "INSERT INTO performance_alerts (tenant_id, name, metric, threshold)"
            f" VALUES ('{SYSTEM_TENANT}', 'new', 'spool_share', 1), ('{SYSTEM_TENANT}', 'old', 'p95_ms', 1)",
        )
        async with migrator(owner_dsn(name)) as migrations:
            await migrations.down(to="20261122003300")
        assert [row["name"] for row in await execute(owner_dsn(name), rows)] == ["old"]
        async with migrator(owner_dsn(name)) as migrations:
            await migrations.up()
        assert [row["name"] for row in await execute(owner_dsn(name), rows)] == ["old"]
