"""Old rows go from a real PostgreSQL: whole partitions, some rows of some, archived first, and after any death."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from proxy.background import retention_work
from proxy.background.archive import Archive, NoRoom
from proxy.store import retention as store
from proxy.store.pool import Unavailable
from tests.unit.background.aged import BRIEF, KEEPER, OTHER, SYSTEM_TENANT, Aged, aged
from tests.unit.store.engine import owner_dsn


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Aged]:
    """Partitions of the last six days."""
    async with aged(tmp_path) as here:
        yield here


async def run(here: Aged) -> retention_work.Done:
    """What a run did to request_logs."""
    done = await here.retention.run()
    assert done is not None
    return done["request_logs"]


def archived(here: Aged) -> list[dict[str, Any]]:
    """Every row in every file."""
    lines = []
    for path in sorted(here.archive.rglob("*.jsonl.gz")):
        lines += gzip.decompress(path.read_bytes()).decode().splitlines()
    return [json.loads(line) for line in lines]


async def test_partitions_that_are_old_enough_are_dropped_whole(here: Aged) -> None:
    """Rows of three full days and of today stay."""
    for ago in range(6):
        await here.requests(ago, OTHER)
    done = await run(here)
    assert await here.left() == {(ago, "other"): 3 for ago in range(4)}
    assert (done.dropped_partitions, done.deleted_rows, done.left) == (3, 6, [])  # an empty one among them
    assert here.partition(4) not in await here.partitions()
    assert (await run(here)).totals() == (0, 0, 0, 0)


async def test_a_tenant_keeps_its_rows_longer_and_those_of_the_others_go(here: Aged) -> None:
    """In batches; the partition goes when nothing is left that anyone keeps."""
    await here.policy(KEEPER, 5)
    await here.policy(SYSTEM_TENANT, 3, batch=2)
    for tenant in (KEEPER, OTHER, SYSTEM_TENANT):
        for ago in (3, 4, 5, 6):
            await here.requests(ago, tenant, 5)
    done = await run(here)
    assert await here.left() == {
        (3, "keeper"): 5,
        (3, "other"): 5,
        (3, "system"): 5,
        (4, "keeper"): 5,
        (5, "keeper"): 5,
    }
    assert (done.dropped_partitions, done.deleted_rows) == (1, 35)
    assert done.by_policy == {SYSTEM_TENANT: 35, KEEPER: 0}  # a partition counts for everyone's policy
    assert len(here.slept) == 8


async def test_a_tenant_that_wants_less_is_taken_at_its_word(here: Aged) -> None:
    """Its rows go from partitions that stay."""
    await here.policy(BRIEF, 1)
    for tenant in (BRIEF, OTHER):
        for ago in range(4):
            await here.requests(ago, tenant)
    done = await run(here)
    assert await here.left() == {(ago, "other"): 3 for ago in range(4)} | {(0, "brief"): 3, (1, "brief"): 3}
    assert (done.dropped_partitions, done.by_policy[BRIEF]) == (3, 6)


async def test_rows_in_the_default_partition_go_too(here: Aged) -> None:
    """They have no partition: older than all, and between two of them."""
    await here.requests(900, OTHER)
    await here.requests(40, KEEPER)
    await here.policy(KEEPER, 100)
    await here.rows(f"DROP TABLE {here.partition(5)}")
    await here.requests(5, OTHER)
    await here.requests(-60, OTHER)
    done = await run(here)
    assert await here.left() == {(40, "keeper"): 3, (-60, "other"): 3}
    assert done.deleted_rows == 6


async def test_rows_are_archived_before_a_partition_is_dropped(here: Aged) -> None:
    """Every column of every row, in UTC, under the partition's name."""
    here.keeps(archive=True)
    await here.requests(4, OTHER, 1200)
    done = await run(here)
    assert (done.archived_rows, done.deleted_rows, done.dropped_partitions) == (1200, 1200, 3)
    path = here.archive / "request_logs" / f"{here.partition(4)}.jsonl.gz"
    assert done.archived_bytes == sum(each.stat().st_size for each in here.archive.rglob("*.gz"))
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    row = json.loads(lines[0])
    assert len(lines) == 1200
    assert (row["tenant_id"], row["method"]) == (OTHER, "a\nb")
    assert row["ts"] == (here.day(4).isoformat().replace("12:00:00", "12:00:00.001"))
    assert set(row) == {each[0] for each in await here.rows(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'request_logs'::regclass AND attnum > 0"
    )}  # fmt: skip


async def test_a_file_of_other_rows_is_not_taken_for_these(here: Aged) -> None:
    """A copy of the database uses the same directory: a table of the same number was archived there."""
    here.keeps(archive=True)
    await here.requests(4, OTHER)
    [(oid,)] = await here.rows("SELECT $1::text::regclass::oid", here.partition(4))

    async def others() -> AsyncIterator[list[str]]:
        yield ['{"id":"other"}']

    await Archive(here.archive).put("request_logs", here.partition(4), str(oid), others())
    done = await run(here)
    assert (done.archived_rows, done.left) == (3, [])
    assert len(archived(here)) == 4


async def test_the_audit_trail_is_archived_in_the_form_of_an_export(here: Aged) -> None:
    """Which can be verified; also rows that were written without a chain are there."""
    here.settings = {"archive_dir": str(here.archive), "tables": {"audit_logs": {"keep": "3d", "archive": True}}}
    await here.rows(
        "INSERT INTO audit_logs (tenant_id, ts, id, kind, actor_type, action, client_ip, duration_ms, arguments)"
        " VALUES ($1, $2, gen_random_uuid(), 'outcome', 'user', 'x', '::ffff:1.2.3.4', 0.125, '{\"a\": [1, true]}')",
        OTHER, here.day(4),
    )  # fmt: skip
    done = await here.retention.run()
    assert done is not None
    assert (done["audit_logs"].archived_rows, done["audit_logs"].deleted_rows, done["audit_logs"].left) == (1, 1, [])
    [row] = archived(here)
    assert row["ts"] == here.day(4).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert (row["client_ip"], row["duration_ms"], row["tenant_id"]) == ("::ffff:1.2.3.4", 0.125, OTHER)


async def test_rows_that_are_deleted_in_batches_are_archived_batch_by_batch(here: Aged) -> None:
    """Exactly those that are gone, each once."""
    here.keeps(archive=True, batch=4)
    await here.policy(KEEPER, 30)
    for tenant in (KEEPER, OTHER):
        await here.requests(4, tenant, 10)
    before = {str(row[0]) for row in await here.rows("SELECT id FROM request_logs WHERE tenant_id = $1", OTHER)}
    done = await run(here)
    assert (done.archived_rows, done.deleted_rows) == (10, 10)
    assert sorted(row["id"] for row in archived(here)) == sorted(before)
    assert len(list(here.archive.rglob(f"*.{OTHER}.*.jsonl.gz"))) == 3


async def test_without_a_place_for_the_archive_nothing_goes(here: Aged) -> None:
    """It is said; other tables are not kept from going."""
    here.settings["tables"]["request_logs"]["archive"] = True
    await here.requests(4, OTHER)
    await here.rows(
        "INSERT INTO audit_logs (tenant_id, ts, id, kind, actor_type, action)"
        " VALUES ($1, $2, gen_random_uuid(), 'denied', 'user', 'x')", OTHER, here.day(4),
    )  # fmt: skip
    done = await here.retention.run()
    assert done is not None
    assert done["request_logs"].left[0] == (
        f"{here.partition(6)}: its rows are to be archived, and 'retention.archive_dir' is not set"
    )
    assert await here.left() == {(4, "other"): 3}
    assert done["audit_logs"].deleted_rows == 1


async def test_an_archive_that_is_full_is_noticed_before_anything_is_detached(
    here: Aged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And when it becomes full in the middle, the rows wait detached, and are not lost."""
    here.keeps(archive=True)
    await here.requests(4, OTHER)

    async def full(*given: object) -> None:
        raise NoRoom("full")

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "check", full)
        assert f"{here.partition(4)}: full" in (await run(here)).left
        assert await here.left() == {(4, "other"): 3}
        patch.undo()
        patch.setattr(Archive, "put", full)
        await run(here)
    assert await here.left() == {}
    assert [name for name in await here.partitions() if "retired" in name]
    done = await run(here)
    assert (done.archived_rows, done.left) == (3, [])
    assert not [name for name in await here.partitions() if "retired" in name]


STEPS = ("retire", "extents", "lines", "drop", "take", "tenants_in", "record", "ran", "claim")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_run_that_dies_anywhere_is_safe_to_repeat(
    here: Aged, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    """No row is gone that is not in the archive; in the end those that should go are there exactly once."""
    here.keeps(archive=True, batch=2)
    await here.policy(KEEPER, 30)
    for tenant, ago in ((KEEPER, 4), (OTHER, 4), (OTHER, 5), (OTHER, 1)):
        await here.requests(ago, tenant, 5)
    rows = await here.rows("SELECT id::text FROM request_logs WHERE tenant_id = $1 AND ts < $2", OTHER, here.day(3))
    doomed = {row[0] for row in rows}
    real, times = getattr(store, step), 0

    async def dies(*given: Any, **named: Any) -> Any:
        nonlocal times
        times += 1
        if times == 2 and not after:
            raise KeyboardInterrupt
        result = await real(*given, **named)
        if times == 2:
            raise KeyboardInterrupt
        return result

    async def dies_reading(*given: Any) -> AsyncIterator[list[str]]:
        async for some in real(*given):
            yield some[: len(some) // 2]
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, step, dies_reading if step == "lines" else dies)
        for _ in range(2 if step == "claim" else 1):
            with pytest.raises(KeyboardInterrupt) if step != "claim" or times else nullcontext():
                await here.retention.run()
    kept = {row[0] for row in await here.rows("SELECT id::text FROM request_logs")}
    for name in await here.partitions():
        if "retired" in name:
            kept |= {row[0] for row in await here.rows(f"SELECT id::text FROM {name}")}
    assert doomed <= kept | {row["id"] for row in archived(here)}
    await here.rows("UPDATE retention_runs SET touched_at = now() - interval '1 hour'")
    await run(here)
    assert await here.left() == {(4, "keeper"): 5, (1, "other"): 5}
    assert sorted(row["id"] for row in archived(here)) == sorted(doomed)
    assert not [name for name in await here.partitions() if "retired" in name]


class Dies(Exception):
    """In place of a death, at a commit of which nobody hears."""


@pytest.mark.parametrize("committed", [False, True], ids=["undone", "committed"])
async def test_rows_of_a_batch_are_in_the_archive_once_whatever_became_of_its_transaction(
    here: Aged, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """The next batch is another one, since rows came late, or has gone with the whole partition."""
    here.keeps(archive=True)
    await here.policy(KEEPER, 30)
    for ago in (4, 5):
        await here.requests(ago, OTHER, 4)
        await here.requests(ago, KEEPER, 1)

    real = Archive.put_rows

    async def dies(*given: Any) -> None:
        raise Dies

    async def puts_and_dies(*given: Any) -> None:
        await real(*given)
        raise Dies

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "settle" if committed else "put_rows", dies if committed else puts_and_dies)
        with pytest.raises(Dies):
            await run(here)
    assert len(archived(here)) == 4
    assert await here.left() == {(4, "keeper"): 1, (5, "keeper"): 1, (4, "other"): 4} | (
        {} if committed else {(5, "other"): 4}
    )
    await here.rows("UPDATE retention_runs SET touched_at = now() - interval '1 hour'")
    await here.rows("DELETE FROM data_retention_policies WHERE tenant_id = $1", KEEPER)
    await here.requests(5, OTHER, 1)
    await run(here)
    rows = [row["id"] for row in archived(here)]
    assert (len(rows), len(set(rows))) == (11, 11)
    assert await here.left() == {}
    assert list(here.archive.rglob(".*")) == []


async def test_one_tenants_archive_holds_up_no_other_tenants_rows(here: Aged) -> None:
    """It is said once of a partition what is left of it."""
    for tenant, archive in ((KEEPER, True), (BRIEF, True), (OTHER, False)):
        await here.policy(tenant, 1, archive)
        await here.requests(2, tenant)
    await here.requests(2, SYSTEM_TENANT)
    done = await run(here)
    assert await here.left() == {(2, "keeper"): 3, (2, "brief"): 3, (2, "system"): 3}
    assert [each.partition(":")[0] for each in done.left] == [here.partition(2)]
    doomed, would = await here.retention.doomed()
    assert [each for each in doomed if each.table == "request_logs"] == []
    assert would["request_logs"].left == done.left


async def test_rows_of_partitions_that_somebody_attached_by_hand_go_in_batches(here: Aged) -> None:
    """Under any name, owned by anyone, and without a begin or an end; they keep nothing else from going."""
    for ago in range(6):
        await here.requests(ago, OTHER)
    await here.rows(f'ALTER TABLE {here.partition(5)} RENAME TO "Old logs"')
    await here.rows(f"ALTER TABLE {here.partition(4)} OWNER TO CURRENT_USER")
    for name, bounds in (
        ("early", "FROM (MINVALUE) TO ('2020-01-01')"),
        ("late", "FROM ('2090-01-01') TO ('infinity')"),
    ):
        await here.rows(f"CREATE TABLE {name} (LIKE request_logs INCLUDING ALL)")
        await here.rows(f"ALTER TABLE request_logs ATTACH PARTITION {name} FOR VALUES {bounds}")
    await here.requests(4000, OTHER)
    done = await run(here)
    assert await here.left() == {(ago, "other"): 3 for ago in range(4)}
    assert (done.dropped_partitions, done.deleted_rows, done.left) == (1, 9, [])


async def test_a_partition_that_somebody_takes_away_meanwhile_is_left(
    here: Aged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others go."""
    await here.requests(4, OTHER)
    await here.requests(5, OTHER)
    real = store.retire

    async def taken_away(session: Any, extent: store.Extent) -> Any:
        if extent.name == here.partition(5):
            await here.rows(f"ALTER TABLE request_logs DETACH PARTITION {here.partition(5)}")
        return await real(session, extent)

    monkeypatch.setattr(store, "retire", taken_away)
    done = await run(here)
    assert [each.partition(":")[0] for each in done.left] == [here.partition(5)]
    assert done.deleted_rows == 3


async def test_rows_that_come_in_the_last_moment_keep_their_partition(
    here: Aged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked again when nobody can add any more."""
    await here.policy(KEEPER, 30)
    await here.requests(4, OTHER)
    real = store.retire

    async def late(session: Any, extent: store.Extent) -> Any:
        if extent.name == here.partition(4):
            await here.requests(4, KEEPER, 1)
        return await real(session, extent)

    monkeypatch.setattr(store, "retire", late)
    done = await run(here)
    assert done.left == [f"{here.partition(4)}: rows came that are to be kept"]
    monkeypatch.undo()
    await run(here)
    assert await here.left() == {(4, "keeper"): 1}


async def test_a_table_in_use_is_asked_again_and_then_left(here: Aged) -> None:
    """A long query holds it; whoever comes behind us waits a tenth of a second at most, each time."""
    await here.requests(4, OTHER)
    reader = await asyncpg.connect(owner_dsn(here.name))
    async with reader.transaction():
        await reader.fetch("SELECT count(*) FROM request_logs")
        done = await run(here)
        assert [each.split(": ")[0] for each in done.left] == [here.partition(ago) for ago in (6, 5, 4)]
        assert here.slept == [0.5] * 9 * 3
    await reader.close()
    assert (await run(here)).left == []


async def test_months_of_servers_health_are_dropped_without_locking_servers(here: Aged) -> None:
    """The foreign keys go with the detaching."""
    await here.rows("SELECT create_partitions(now() - interval '100 days', '1 day')")
    here.settings = {"tables": {"server_health_checks": {"keep": "30d"}, "tenant_usage": {"keep": "30d"}}}
    await here.rows(
        "INSERT INTO mcp_servers (id, tenant_id, name, endpoint_url) VALUES ($1, $1, 'one', 'https://one.example/mcp')",
        OTHER,
    )
    await here.rows(
        "INSERT INTO server_health_checks (tenant_id, server_id, checked_at, kind, status)"
        " VALUES ($1, $1, now() - interval '100 days', 'http', 'HEALTHY'), ($1, $1, now(), 'http', 'HEALTHY')", OTHER,
    )  # fmt: skip
    done = await here.retention.run()
    assert done is not None
    assert done["server_health_checks"].deleted_rows == 1
    assert done["tenant_usage"].dropped_partitions == 1
    assert len(await here.rows("SELECT FROM server_health_checks")) == 1


async def test_what_would_go_is_what_goes(here: Aged) -> None:
    """Rows are counted; nothing is touched."""
    here.keeps(archive=True)
    await here.policy(KEEPER, 30)
    for tenant, ago in ((KEEPER, 4), (OTHER, 4), (OTHER, 5), (OTHER, 900), (OTHER, 1)):
        await here.requests(ago, tenant, 4)
    before = await here.left()
    doomed, _ = await here.retention.doomed()
    assert await here.left() == before
    of_requests = [each for each in doomed if each.table == "request_logs"]
    assert [(each.what, each.partition, each.tenant, each.rows) for each in of_requests] == [
        ("delete rows", "request_logs_default", OTHER, 4),
        ("drop partition", here.partition(6), None, 0),
        ("drop partition", here.partition(5), None, 4),
        ("delete rows", here.partition(4), OTHER, 4),
    ]
    done = await run(here)
    assert done.deleted_rows == sum(each.rows for each in of_requests)
    assert [each for each in (await here.retention.doomed())[0] if each.table == "request_logs"] == []


async def test_two_runs_at_once_do_not_get_in_each_others_way(here: Aged) -> None:
    """The second one is told; a turn is for a transaction, so nobody's death holds it."""
    async with store.turn(here.database):
        with pytest.raises(store.Busy):
            await here.retention.run()
    assert await here.retention.run() is not None


async def test_a_database_without_the_tables_is_unavailable(here: Aged) -> None:
    """The migrations are to come."""
    await here.rows("DROP FUNCTION retire_partition")
    with pytest.raises(Unavailable, match="not migrated"):
        await here.retention.run()
