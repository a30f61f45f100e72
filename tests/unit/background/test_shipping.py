"""The shipper: the journal of this process first, then those of processes that are gone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.background.shipping import Shipper, families
from proxy.spool import layout
from proxy.spool.journal import Bounds, Journal
from proxy.spool.quarantine import Entry, Quarantine
from proxy.store.database import Database, Places
from tests.unit.audit.made import TENANT, record
from tests.unit.background.shipped import REFUSED, SIGNER, Spoken, call, journal, named, raw
from tests.unit.dataplane.fakes import Time
from tests.unit.spool.records import stopped_inside
from tests.unit.store.chained import chains, count
from tests.unit.store.engine import execute, opened, owner_dsn

#: 2026-11-22T12:00:00Z.
NOON = 1_795_348_800.0


@pytest.fixture
async def database(name: str) -> AsyncIterator[Database]:
    """As the shipper uses it."""
    async with opened(name, connections=1, statement_s=10.0) as database:
        yield database


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Journal]:
    """The journal of this process; segments are small."""
    made = Journal(tmp_path, Bounds(total=1 << 20, segment=8 << 10, ring=1 << 20), lambda: NOON)
    yield made


def shipper_of(database: Database, spool: Path, mine: Journal | None) -> tuple[Shipper, Spoken, Time]:
    """With what it says, and its clock."""
    said, clock = Spoken(), Time()
    shipper = Shipper(database, spool, mine, SIGNER, said, lambda: NOON)  # type: ignore[arg-type]
    shipper.means.clock = clock
    return shipper, said, clock


def recorded(mine: Journal, number: int, **changes: Any) -> None:
    """A call, begun and ended."""
    key = str(record(number)["id"])
    begun, ended = call(number, **changes)
    assert mine.begin(key, begun, "standard")
    assert mine.end(key, ended, "standard")


async def test_what_is_recorded_is_shipped_and_segments_go(
    name: str, database: Database, tmp_path: Path, mine: Journal
) -> None:
    """The one in use stays; at the end all of it is in the database, signed, and the journal can go."""
    shipper, said, _ = shipper_of(database, tmp_path, mine)
    for number in range(30):
        recorded(mine, number)
    await shipper.step()
    assert await count(owner_dsn(name), "audit_logs") == 60
    assert layout.segments(mine.path) == [mine.number]
    recorded(mine, 30)
    assert await shipper.finish(5.0)
    await mine.close(remove=True)
    assert not layout.journals(tmp_path)
    found = await chains(owner_dsn(name))
    assert sum(rows for rows, _ in found.values()) == 62
    heads = await execute(owner_dsn(name), "SELECT segment, row_count, head FROM audit_heads WHERE is_final")
    assert {(row[0], TENANT): (row[1], row[2]) for row in heads} == found
    assert said.lines == []


async def test_journals_of_processes_that_are_gone_are_shipped_and_removed(
    name: str, database: Database, tmp_path: Path, mine: Journal
) -> None:
    """Whatever a crash left open has an end that says so."""
    journal(tmp_path, call(1), call(2), name=named("a"))
    crashed = journal(tmp_path, [*call(3), raw(4, "intent")], name=named("b"))
    (crashed / layout.SEALED).unlink()
    shipper, said, _ = shipper_of(database, tmp_path, mine)
    await shipper.step()
    assert layout.journals(tmp_path) == [mine.path]
    ends = """SELECT outcome, reason, ts = (SELECT ts FROM audit_logs AS i WHERE i.id = o.id AND i.kind = 'intent')
              FROM audit_logs AS o WHERE kind = 'outcome' ORDER BY id"""
    rows = await execute(owner_dsn(name), ends)
    assert [tuple(row) for row in rows] == [("ok", None, True)] * 3 + [("unknown", "crash", True)]
    assert (shipper.counts.adopted, shipper.counts.unknown, shipper.busy) == (2, 1, False)
    assert said.lines == ["journal adopted"] * 2
    await chains(owner_dsn(name))
    await shipper.finish(1.0)
    await mine.close()


async def test_without_a_journal_of_its_own_it_ships_those_of_others(
    name: str, database: Database, tmp_path: Path
) -> None:
    """As an operator's command does; what another process holds is left alone."""
    held = Journal(tmp_path, Bounds(), lambda: NOON)
    recorded(held, 1)
    journal(tmp_path, call(2), name=named("j"))
    shipper, _, _ = shipper_of(database, tmp_path, None)
    await shipper.step()
    assert await count(owner_dsn(name), "audit_logs") == 2
    assert layout.journals(tmp_path) == [held.path]
    assert await shipper.finish(1.0)
    await held.close()


async def test_records_wait_while_the_database_is_away(
    name: str, database: Database, tmp_path: Path, mine: Journal
) -> None:
    """It is said once, and again when it is over; at the end what is left stays for the next process."""
    shipper, said, _ = shipper_of(database, tmp_path, mine)
    await execute(owner_dsn(name), "ALTER TABLE audit_logs RENAME TO elsewhere")
    recorded(mine, 1)
    await shipper.step()
    await shipper.step()
    assert (said.lines, shipper.away, shipper.counts.away) == (["records wait"], "UndefinedTableError", 2)
    await execute(owner_dsn(name), "ALTER TABLE elsewhere RENAME TO audit_logs")
    await shipper.step()
    assert said.lines == ["records wait", "records are shipped again"]
    assert await count(owner_dsn(name), "audit_logs") == 2
    await execute(owner_dsn(name), "ALTER TABLE audit_logs RENAME TO elsewhere")
    recorded(mine, 2)
    assert not await shipper.finish(1.0)
    await mine.close()
    await execute(owner_dsn(name), "ALTER TABLE elsewhere RENAME TO audit_logs")
    shipper, _, _ = shipper_of(database, tmp_path, None)
    await shipper.step()
    assert await count(owner_dsn(name), "audit_logs") == 4
    assert layout.journals(tmp_path) == []
    await shipper.finish(1.0)


@pytest.mark.parametrize("spoilt", [layout.CHECKPOINT, "00000001.seg", layout.LOCK])
async def test_a_journal_that_cannot_be_used_stops_nothing_else(
    name: str, database: Database, tmp_path: Path, mine: Journal, spoilt: str
) -> None:
    """Our own is shipped, and so are those behind it; it is left alone for a while, and said so."""
    for each in "ab":
        journal(tmp_path, call(1 if each == "a" else 2), name=named(each))
    bad = tmp_path / named("a") / spoilt
    bad.unlink(missing_ok=True)
    bad.mkdir()
    shipper, said, clock = shipper_of(database, tmp_path, mine)
    recorded(mine, 3)
    await shipper.step()
    clock.now += 2.0
    await shipper.step()
    assert await count(owner_dsn(name), "audit_logs") == 4
    assert layout.journals(tmp_path) == [mine.path, tmp_path / named("a")]
    assert (shipper.avoided, shipper.busy, shipper.away) == ({tmp_path / named("a")}, False, "")
    assert said.lines.count("journal cannot be used") == 1
    bad.rmdir()
    if spoilt == "00000001.seg":
        bad.write_bytes(b"")
    clock.now += 60.0
    await shipper.step()
    assert layout.journals(tmp_path) == [mine.path]
    await shipper.finish(1.0)
    await mine.close()


async def test_what_another_process_set_aside_stays_out(name: str, database: Database, tmp_path: Path) -> None:
    """Though this one looked into the quarantine before."""
    shipper, _, _ = shipper_of(database, tmp_path, None)
    path = journal(tmp_path, [*call(1), raw(2, **REFUSED), *call(3)], name=named("j"))
    other, _, _ = shipper_of(database, tmp_path, None)
    await other.step()
    before = await chains(owner_dsn(name))
    assert not path.exists()
    journal(tmp_path, [*call(1), raw(2, **REFUSED), *call(3)], name=named("j"))
    await shipper.step()
    assert await chains(owner_dsn(name)) == before
    assert shipper.counts.quarantined == 0
    for each in (shipper, other):
        await each.finish(1.0)


async def test_a_record_that_cannot_be_set_aside_stops_no_other_journal(
    name: str, database: Database, tmp_path: Path, mine: Journal
) -> None:
    """While a process is stopped that has the quarantine, what needs no quarantine is shipped; then the rest is."""
    shipper, said, clock = shipper_of(database, tmp_path, mine)
    quarantine = shipper.means.quarantine = Quarantine(tmp_path, patience_s=0.05)
    assert quarantine.add(Entry(b"{}", "why", NOON, "j/1"))
    recorded(mine, 1, **REFUSED)
    for number, each in enumerate("abc", 2):
        journal(tmp_path, call(number, **(REFUSED if each == "b" else {})), name=named(each))
    with stopped_inside(tmp_path):
        for _ in range(3):
            await shipper.step()
            clock.now += 2.0
        assert await count(owner_dsn(name), "audit_logs") == 6
        assert layout.journals(tmp_path) == [mine.path, tmp_path / named("b")]
        assert (shipper.away, shipper.avoided) == ("the quarantine takes nothing", {tmp_path / named("b")})
        assert (shipper.counts.quarantine_failures, shipper.counts.away) == (4, 3)
    recorded(mine, 5)
    clock.now += 60.0
    await shipper.step()
    assert await count(owner_dsn(name), "audit_logs") == 8
    assert (layout.journals(tmp_path), shipper.away, len(quarantine)) == ([mine.path], "", 3)
    assert said.lines.count("records wait") == 1
    await shipper.finish(1.0)
    await mine.close()


async def test_our_own_journal_that_cannot_be_read_stops_no_other(
    name: str, database: Database, tmp_path: Path, mine: Journal
) -> None:
    """It is said after they were shipped."""
    (mine.path / layout.CHECKPOINT).mkdir()
    path = journal(tmp_path, call(1), name=named("a"))
    shipper, _, _ = shipper_of(database, tmp_path, mine)
    with pytest.raises(IsADirectoryError):
        await shipper.step()
    assert await count(owner_dsn(name), "audit_logs") == 2
    assert not path.exists()
    await shipper.finish(1.0)
    await mine.close()


async def test_a_row_does_not_outlive_its_record(
    name: str, database: Database, tmp_path: Path, mine: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of the segment in use are on the disk before they are shipped; a sync that fails does not stop them."""
    synced: list[int] = []

    async def durable() -> bool:
        synced.append(await count(owner_dsn(name), "audit_logs"))
        return False

    monkeypatch.setattr(mine, "durable", durable)
    shipper, _, _ = shipper_of(database, tmp_path, mine)
    recorded(mine, 1)
    await shipper.step()
    assert synced == [0]
    assert await count(owner_dsn(name), "audit_logs") == 2
    await shipper.finish(1.0)
    await mine.close()


async def test_what_was_done_is_shown_as_metrics(name: str, database: Database, tmp_path: Path) -> None:
    """Each once, with a number."""
    shipper, _, _ = shipper_of(database, tmp_path, None)
    journal(tmp_path, [*call(1), raw(2, **REFUSED)], name=named("j"))
    await shipper.step()
    found = {family.name: dict(family.rows)[""] for family in families(shipper)}
    assert found["mcp_proxy_record_rows"] == 2
    assert found["mcp_proxy_record_quarantined"] == found["mcp_proxy_record_quarantine"] == 1
    assert found["mcp_proxy_record_shipping"] == 1
    assert all(isinstance(value, float) for value in found.values())
    await shipper.finish(1.0)


async def test_while_postgresql_is_away_no_batches_are_made_for_it(tmp_path: Path, mine: Journal) -> None:
    """Making one costs 10 ms of CPU, five times a second, of which calls would hear."""
    database = Database(Places("postgresql://nobody@127.0.0.1:1/nothing"), {})
    await database.open()
    shipper, said, clock = shipper_of(database, tmp_path, mine)
    recorded(mine, 1)
    await shipper.step()
    assert shipper.away
    shipper._own = None
    clock.now += 30.0
    await shipper.step()
    assert shipper.lag_s == 30.0
    assert shipper._own is None  # the journal was not even opened
    assert [line for line in said.lines if "records wait" in str(line)]
    await database.close()
    await mine.close()
