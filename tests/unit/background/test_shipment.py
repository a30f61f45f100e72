"""A journal on its way: every record once, in order, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.background import shipment as module
from proxy.background.batches import Away, Means
from proxy.background.shipment import Shipment
from proxy.spool import checkpoint, layout, segment
from proxy.spool.kinds import carried
from proxy.spool.quarantine import Quarantine
from proxy.store.database import Database
from tests.unit.audit.made import SECOND_TENANT, TENANT
from tests.unit.background.shipped import REFUSED, SIGNER, UNFIT, call, journal, means_of, raw
from tests.unit.dataplane.fakes import Time
from tests.unit.store.chained import chains, count
from tests.unit.store.engine import aside, execute, migrated_template, opened, owner_dsn

EVER = 1e9


class Origin:
    """A journal whose process is gone, unless the test says that it goes on."""

    def __init__(self, path: Path, sealed: int = 1000) -> None:
        self.path, self.name = path, path.name
        self.sealed = sealed
        self.told: list[int] = []
        self.unwritten: dict[int, bytes] = {}

    def is_sealed(self, number: int) -> bool:
        """Up to some segment."""
        return number <= self.sealed

    async def on_disk(self, number: int) -> None:
        """It is."""

    async def shipped(self, number: int) -> bool:
        """Believed the second time."""
        self.told.append(number)
        return self.told.count(number) > 1


class Crash(BaseException):
    """The process ends."""


@pytest.fixture
async def database(name: str) -> AsyncIterator[Database]:
    """As the proxy uses it."""
    async with opened(name, connections=1, statement_s=10.0) as database:
        yield database


async def shipped(means: Means, origin: Origin) -> bool:
    """Ship as a process does that has just begun."""
    shipment = Shipment(means, origin)
    await shipment.open()
    return await shipment.ship(EVER)


async def test_every_segment_is_shipped_and_signed(name: str, database: Database, tmp_path: Path) -> None:
    """A head for each tenant and segment, that says which segment came before."""
    mine, yours = call(1), call(2, tenant_id=SECOND_TENANT)
    origin = Origin(journal(tmp_path, [*mine, *yours], call(3), [carried(raw(9, "intent")), *call(4)]))
    async with means_of(database, tmp_path) as means:
        assert await shipped(means, origin)
    found = await chains(owner_dsn(name))
    assert {place: rows for place, (rows, _) in found.items()} == {
        ("j/1", TENANT): 3, ("j/1", SECOND_TENANT): 1, ("j/2", TENANT): 2, ("j/3", TENANT): 2,
    }  # fmt: skip
    heads = await execute(owner_dsn(name), "SELECT * FROM audit_heads ORDER BY segment, tenant_id")
    assert {(row["segment"], str(row["tenant_id"])): (row["row_count"], row["head"]) for row in heads} == found
    assert [row["previous"] for row in heads] == [None, None, "j/1", "j/2"]
    assert {(row["is_final"], row["key_id"]) for row in heads} == {(True, SIGNER.key_id)}
    assert await count(owner_dsn(name), "request_logs") == 4
    assert origin.told == [1, 2, 2]


async def test_segments_that_are_in_no_file_come_last_and_may_be_shipped_again(
    name: str, database: Database, tmp_path: Path
) -> None:
    """As files they would give the same rows: there is room for them the next time."""
    ends = [[raw(1)], [raw(number) for number in range(2, 700)]]
    path = journal(tmp_path, [raw(number, "intent") for number in range(1, 700)])
    origin = Origin(path)
    origin.unwritten = {number: b"".join(map(segment.frame, each)) for number, each in enumerate(ends, 2)}
    async with means_of(database, tmp_path) as means:
        assert await shipped(means, origin)
    found = await chains(owner_dsn(name))
    assert {place: rows for (place, _), (rows, _) in found.items()} == {"j/1": 699, "j/2": 1, "j/3": 698}
    for number, content in origin.unwritten.items():
        layout.segment_path(path, number).write_bytes(content)
    checkpoint.forget(path)
    async with means_of(database, tmp_path) as means:
        assert await shipped(means, Origin(path))
    assert await chains(owner_dsn(name)) == found
    assert await count(owner_dsn(name), "audit_heads") == 3


async def test_a_segment_in_use_has_a_head_each_minute_and_no_final_one(
    name: str, database: Database, tmp_path: Path
) -> None:
    """Only of tenants that have new rows."""
    clock = Time()
    path = journal(tmp_path, call(1))
    async with means_of(database, tmp_path, clock) as means:
        shipment = Shipment(means, Origin(path, sealed=0))
        await shipment.open()
        assert not await shipment.ship(EVER)
        assert await count(owner_dsn(name), "audit_heads") == 0
        for _ in range(3):
            clock.now += 61
            assert not await shipment.ship(EVER)
        assert [
            tuple(row) for row in await execute(owner_dsn(name), "SELECT row_count, is_final FROM audit_heads")
        ] == [(2, False)]
        assert means.counts.lag_s == 0.0
        assert checkpoint.load(path).offset == layout.segment_path(path, 1).stat().st_size


@pytest.mark.parametrize("place", [0, 1, 250, 499, 500, 999])
async def test_a_poison_record_is_set_aside_alone(name: str, database: Database, tmp_path: Path, place: int) -> None:
    """Wherever it is: the others are in the database, their chain without a gap, again so when it is all repeated."""
    records = [raw(number) for number in range(1000)]
    records[place] = raw(place, **REFUSED)
    path = journal(tmp_path, records)
    for _ in range(2):
        async with means_of(database, tmp_path) as means:
            assert await shipped(means, Origin(path))
            assert [entry.record for entry in means.quarantine.entries()] == [records[place]]
        assert (await chains(owner_dsn(name)))["j/1", TENANT][0] == 999
        assert await count(owner_dsn(name), "request_logs") == 999
        (path / layout.CHECKPOINT).unlink()


async def test_nothing_is_doubled_by_a_crash_between_commit_and_checkpoint(
    name: str, database: Database, tmp_path: Path
) -> None:
    """The rows are sent again, and are the same."""
    path = journal(tmp_path, [raw(number) for number in range(1200)])
    for _ in range(2):
        async with means_of(database, tmp_path) as means:
            means.after_commit = crash
            with pytest.raises(BaseExceptionGroup):
                await shipped(means, Origin(path))
        (path / layout.CHECKPOINT).unlink(missing_ok=True)
    assert await count(owner_dsn(name), "audit_logs") == 500
    async with means_of(database, tmp_path) as means:
        assert await shipped(means, Origin(path))
    assert (await chains(owner_dsn(name)))["j/1", TENANT][0] == 1200


def crash() -> None:
    """As SIGKILL does."""
    raise Crash


async def test_without_a_database_nothing_happens(name: str, database: Database, tmp_path: Path) -> None:
    """It goes on where it was."""
    path = journal(tmp_path, [raw(number) for number in range(700)])
    async with means_of(database, tmp_path) as means:
        shipment = Shipment(means, Origin(path))
        await shipment.open()
        await execute(owner_dsn(name), "ALTER TABLE audit_logs RENAME TO elsewhere")
        for _ in range(2):
            with pytest.raises(Away, match="UndefinedTableError"):
                await shipment.ship(EVER)
        await execute(owner_dsn(name), "ALTER TABLE elsewhere RENAME TO audit_logs")
        assert await shipment.ship(EVER)
    assert (await chains(owner_dsn(name)))["j/1", TENANT][0] == 700
    assert len(means.quarantine) == 0


async def test_a_full_quarantine_stops_the_journal_rather_than_lose_a_record(
    name: str, database: Database, tmp_path: Path
) -> None:
    """What is before the record is in the database."""
    path = journal(tmp_path, [*call(1), raw(2, **REFUSED), *call(3)])
    async with means_of(database, tmp_path) as means:
        means.quarantine = Quarantine(tmp_path, limit=1)
        with pytest.raises(Away, match="quarantine"):
            await shipped(means, Origin(path))
        assert await count(owner_dsn(name), "audit_logs") == 2
        means.quarantine = Quarantine(tmp_path)
        assert await shipped(means, Origin(path))
    assert (await chains(owner_dsn(name)))["j/1", TENANT][0] == 4


async def test_damage_costs_the_records_it_hit(name: str, database: Database, tmp_path: Path) -> None:
    """A flipped byte in the middle, and a torn end."""
    path = journal(tmp_path, [raw(number) for number in range(3)], call(5))
    file = layout.segment_path(path, 1)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content) + content[:30])
    async with means_of(database, tmp_path) as means:
        assert await shipped(means, Origin(path))
        assert means.counts.damaged == 2
    assert {place: rows for place, (rows, _) in (await chains(owner_dsn(name))).items()} == {
        ("j/1", TENANT): 2, ("j/2", TENANT): 2,
    }  # fmt: skip


async def test_damage_in_the_segment_in_use_keeps_nothing_back(name: str, database: Database, tmp_path: Path) -> None:
    """It is told from a record that is on its way by those behind it."""
    path = journal(tmp_path, [raw(number) for number in range(4)])
    file = layout.segment_path(path, 1)
    content = bytearray(file.read_bytes())
    content[len(content) // 2 + 20] ^= 1
    file.write_bytes(bytes(content) + segment.frame(raw(9))[:30])
    async with means_of(database, tmp_path) as means:
        shipment = Shipment(means, Origin(path, sealed=0))
        await shipment.open()
        for _ in range(2):
            assert not await shipment.ship(EVER)
        assert (await count(owner_dsn(name), "audit_logs"), means.counts.damaged) == (3, 1)
        with file.open("ab") as end:
            end.write(segment.frame(raw(9))[30:])
        assert not await shipment.ship(EVER)
        assert (await count(owner_dsn(name), "audit_logs"), means.counts.damaged) == (4, 1)


async def test_a_record_that_came_while_the_next_was_looked_for_is_no_damage(
    name: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It and the one behind it were written since the segment was read."""
    path = journal(tmp_path, [raw(1)])
    file, found = layout.segment_path(path, 1), segment.next_whole
    whole = file.read_bytes() + segment.frame(raw(2)) + segment.frame(raw(3))
    file.write_bytes(whole[: file.stat().st_size + 30])

    def next_whole(path: Path, offset: int) -> int | None:
        file.write_bytes(whole)
        return found(path, offset)

    monkeypatch.setattr(module.segment, "next_whole", next_whole)
    async with means_of(database, tmp_path) as means:
        assert not await shipped(means, Origin(path, sealed=0))
        assert (await count(owner_dsn(name), "audit_logs"), means.counts.damaged) == (3, 0)


async def test_a_disk_that_takes_no_checkpoint_loses_the_one_before_so_that_segments_can_go(
    name: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are what fills it; and a checkpoint that names one of them would be wrong then."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    origin = Origin(journal(tmp_path, call(1), call(2)))
    monkeypatch.setattr(module.checkpoint, "save", full)
    async with means_of(database, tmp_path) as means:
        assert await shipped(means, origin)
        assert means.counts.unsaved > 0
    assert (await count(owner_dsn(name), "audit_logs"), set(origin.told)) == (4, {1})
    assert checkpoint.load(origin.path) == checkpoint.Checkpoint()


@pytest.mark.parametrize("links", [[1], {}, [2, "00", 1, 1, []], [2, "zz", 1, 1, None]], ids=str)
async def test_a_checkpoint_with_damaged_chains_is_none(
    name: str, database: Database, tmp_path: Path, links: object
) -> None:
    """All is shipped again, and the rows are those that they would have been."""
    origin = Origin(journal(tmp_path, call(1), call(2)))
    checkpoint.save(origin.path, checkpoint.Checkpoint(2, 100, {TENANT: links}))
    async with means_of(database, tmp_path) as means:
        assert await shipped(means, origin)
    assert {place: rows for place, (rows, _) in (await chains(owner_dsn(name))).items()} == {
        ("j/1", TENANT): 2, ("j/2", TENANT): 2,
    }  # fmt: skip


async def test_a_journal_without_segments_is_at_its_end(database: Database, tmp_path: Path) -> None:
    """Its process died before it recorded anything."""
    async with means_of(database, tmp_path) as means:
        assert await shipped(means, Origin(journal(tmp_path)))


# --- anything, in any order, with crashes ---------------------------------------------------------------------------

_CHANGES = st.sampled_from([{}, {}, {"tenant_id": SECOND_TENANT}, REFUSED, UNFIT, {"reason": 'a"b\n'}])
_SEGMENTS = st.lists(st.lists(_CHANGES, max_size=12), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def shared() -> str:
    """The name of a database for many examples; it ends with the server."""
    made = "shipments"

    async def make() -> None:
        await execute(owner_dsn("postgres"), f"CREATE DATABASE {made} TEMPLATE {await migrated_template()}")

    aside(make)
    return made


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(_SEGMENTS, st.lists(st.integers(1, 6), max_size=5), st.integers(1, 6))
def test_crashes_change_nothing(
    shared: str, wanted: list[list[dict[str, Any]]], crashes: list[int], portion: int
) -> None:
    """Whatever the records and however often the process ends between a commit and its checkpoint: each record is a row
    once or in the quarantine, and the chains are those of an undisturbed run."""
    numbers = iter(range(1000))
    segments = [[raw(next(numbers), **changes) for changes in each] for each in wanted]
    good = [changes for each in wanted for changes in each if changes not in (REFUSED, UNFIT)]

    async def run(crashes: list[int]) -> dict[tuple[str, str], tuple[int, bytes]]:
        await execute(owner_dsn(shared), "TRUNCATE audit_logs, request_logs, audit_heads")
        with TemporaryDirectory() as folder:
            origin = Origin(journal(Path(folder), *segments))
            async with opened(shared, connections=1, statement_s=10.0) as database:
                for commits in [*crashes, 10_000]:
                    async with means_of(database, Path(folder)) as means:
                        means.after_commit = after(commits)
                        try:
                            assert await shipped(means, origin)
                        except (BaseExceptionGroup, Crash):
                            continue
                        assert len(means.quarantine) == sum(map(len, segments)) - len(good)
                        break
        assert await count(owner_dsn(shared), "request_logs") == len(good)
        return await chains(owner_dsn(shared))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_RECORDS", portion)
        disturbed = asyncio.run(run(crashes))
        assert sum(rows for rows, _ in disturbed.values()) == len(good)
        assert disturbed == asyncio.run(run([]))


def after(commits: int) -> Any:
    """The process ends after so many."""
    left = [commits]

    def count_down() -> None:
        left[0] -= 1
        if not left[0]:
            raise Crash

    return count_down
