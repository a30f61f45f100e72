"""Runs of the retention: when there is one, what is recorded, and what is counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.background import retention as module
from proxy.store.pool import Unavailable
from proxy.store.retention import Busy
from tests.unit.background.aged import KEEPER, OTHER, SYSTEM_TENANT, Aged, aged


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Aged]:
    """Partitions of the last six days."""
    async with aged(tmp_path) as here:
        yield here


class Spawned:
    """Keeps what is to be run beside everything else."""

    def __init__(self) -> None:
        self.waiting: list[Coroutine[Any, Any, object]] = []

    def __call__(self, name: str, coroutine: Coroutine[Any, Any, object]) -> bool:
        self.waiting.append(coroutine)
        return True

    async def run(self) -> int:
        """Run them; how many there were."""
        count = len(self.waiting)
        while self.waiting:
            await self.waiting.pop()
        return count


async def test_a_run_is_recorded_with_what_it_did(here: Aged) -> None:
    """In the table of runs, in the policies that were in force, and in the log."""
    await here.policy(SYSTEM_TENANT, 3)
    await here.policy(KEEPER, 4)
    for tenant in (KEEPER, OTHER):
        await here.requests(5, tenant)
    here.retention.instance = "me"
    await here.retention.run_quietly(0.0)
    [row] = await here.rows("SELECT * FROM retention_runs")
    assert (row["instance"], row["deleted_rows"], row["dropped_partitions"]) == ("me", 6, 6)  # three had no rows
    assert row["finished_at"] >= row["touched_at"] >= row["started_at"]
    assert orjson.loads(row["details"])["request_logs"] == {"deleted": 6, "dropped": 3, "left": []}
    policies = await here.rows("SELECT last_run_at, last_deleted_count FROM data_retention_policies ORDER BY 2")
    assert [each["last_deleted_count"] for each in policies] == [0, 6]
    assert all(each["last_run_at"] is not None for each in policies)
    assert here.lines.said == [("old rows deleted", {"request_logs": 6})]


async def test_one_of_all_replicas_runs_and_not_before_it_is_due(here: Aged) -> None:
    """Whether it is due is known by the database; it is asked every ten minutes at most."""
    spawned = Spawned()
    here.retention.step(spawned)
    here.retention.step(spawned)
    assert await spawned.run() == 1
    here.now += timedelta(minutes=11)
    here.retention.step(spawned)
    assert await spawned.run() == 1
    assert len(await here.rows("SELECT FROM retention_runs")) == 1
    await here.rows("UPDATE retention_runs SET started_at = started_at - interval '61 minutes'")
    here.now += timedelta(minutes=11)
    here.retention.step(spawned)
    assert await spawned.run() == 1
    assert len(await here.rows("SELECT FROM retention_runs")) == 2
    assert here.retention.runs == {"done": 2, "incomplete": 0, "failed": 0}


async def test_a_run_that_died_stands_in_the_way_for_five_minutes(here: Aged) -> None:
    """Somebody else's that is under way does so for as long as it does anything."""
    await here.rows("INSERT INTO retention_runs (id) VALUES (gen_random_uuid())")
    assert await here.retention.run() is None
    await here.rows("UPDATE retention_runs SET touched_at = now() - interval '301 s'")
    assert await here.retention.run() is not None


async def test_a_run_of_the_future_stands_in_nobodys_way(here: Aged) -> None:
    """The clock of PostgreSQL was wrong for a while."""
    await here.rows("INSERT INTO retention_runs (id, started_at, touched_at, finished_at) "
                    " SELECT gen_random_uuid(), t, t, ended FROM (SELECT now() + interval '1 year' AS t) AS future,"
                    " unnest(ARRAY[now() + interval '1 year', NULL]) AS ended")  # fmt: skip
    assert await here.retention.run(3600.0) is not None
    assert await here.retention.run(3600.0) is None


@pytest.mark.parametrize("days", [-4000, 4000])
async def test_a_clock_that_is_wrong_lets_nothing_go_that_is_kept(here: Aged, days: int) -> None:
    """The earlier one of ours and PostgreSQL's counts."""
    for ago in (0, 1, 2):
        await here.requests(ago, OTHER)
    before, here.now = await here.left(), here.now + timedelta(days=days)
    assert not [each for each in (await here.retention.doomed())[0] if each.rows]
    assert await here.retention.run() is not None
    here.now -= timedelta(days=days)
    assert await here.left() == before


async def test_runs_can_be_turned_off(here: Aged) -> None:
    """Then only the command runs."""
    spawned = Spawned()
    here.settings["every"] = 0
    here.retention.step(spawned)
    assert await spawned.run() == 0


async def test_old_runs_are_forgotten(here: Aged) -> None:
    """After 400 days."""
    await here.rows("INSERT INTO retention_runs (id, started_at, touched_at) SELECT gen_random_uuid(), t, t"
                    " FROM unnest(ARRAY[now() - interval '401 days', now() - interval '399 days']) AS t")  # fmt: skip
    assert await here.retention.run() is not None
    assert len(await here.rows("SELECT FROM retention_runs")) == 2


async def test_what_was_left_is_told_and_counted(here: Aged) -> None:
    """In the log, in the metrics, and in the run."""
    here.settings["tables"]["request_logs"]["archive"] = True
    await here.retention.run_quietly(0.0)
    assert {event for event, _ in here.lines.said} == {"old rows were left"}
    families = {each.name: dict(each.rows) for each in here.retention.families()}
    assert families["mcp_proxy_retention_left"]['{table="request_logs"}'] == 3
    assert families["mcp_proxy_retention_runs"]['{result="incomplete"}'] == 1
    assert families["mcp_proxy_retention_dropped_partitions"]['{table="audit_logs"}'] == 3
    assert families["mcp_proxy_retention_running"] == {"": 0}
    assert families["mcp_proxy_retention_last_end_seconds"][""] == here.now.timestamp()


@pytest.mark.parametrize("error", [Busy("x"), Unavailable("gone")])
async def test_a_run_that_cannot_go_on_ends_quietly(
    here: Aged, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The next one goes on."""

    async def fails(*given: object, **named: object) -> None:
        raise error

    monkeypatch.setattr(module.store, "record", fails)
    await here.retention.run_quietly(0.0)
    assert here.retention.runs["failed"] == 1
    assert not here.retention.running
    [row] = await here.rows("SELECT finished_at FROM retention_runs")
    assert row["finished_at"] is None
