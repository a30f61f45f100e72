"""The journal of a process."""

from __future__ import annotations

import asyncio
import errno
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.spool import adoption, held, journal, layout
from proxy.spool.journal import Bounds, Grade, Journal
from proxy.spool.kinds import carried, is_row
from proxy.spool.writer import Unsynced
from tests.unit.spool.records import NOON, Wall, contents, intent, journal_in, key_of, kill, outcome, record_of
from tests.unit.spool.test_writer import largest_file


@pytest.fixture
async def mine(tmp_path: Path) -> AsyncIterator[Journal]:
    """A journal with a bound of 1 MiB, in segments of 16 KiB, and 64 KiB of memory."""
    mine = journal_in(tmp_path)
    yield mine
    kill(mine)


def rows(mine: Journal) -> list[bytes]:
    """The records in its segments that become rows."""
    return [record for record in contents(mine.path) if is_row(record)]


def fill(spool: Path, size: int = 1 << 20) -> Path:
    """Another journal that takes so many bytes."""
    other = held.make(spool, Wall()).path
    layout.segment_path(other, 1).write_bytes(bytes(size))
    return layout.segment_path(other, 1)


async def step_until_looked(mine: Journal) -> None:
    """As many steps as it takes to notice how full the spool is."""
    for _ in range(25):
        await mine.sync()


def full(mine: Journal) -> None:
    """Calls come until one is refused, for lack of room."""
    number = 1 << 20
    while mine.begin(key_of(number), intent(number, 900), "strict"):
        assert mine.end(key_of(number), outcome(number), "strict")
        number += 1


def denied(size: int = 900, **more: object) -> bytes:
    """The record of a request that was refused."""
    return record_of("denied", 0, size, **more)


def summed(records: list[bytes]) -> int:
    """How many records are only counted in these."""
    return sum(orjson.loads(record).get("dropped", 0) for record in records)


# --- while all is well --------------------------------------------------------------------------------------------


async def test_records_are_in_the_file_when_the_call_returns(mine: Journal) -> None:
    """A process may die at any moment after it."""
    assert mine.begin(key_of(1), intent(1), "standard")
    assert mine.append(record_of("denied", 2), "usage", "")
    assert mine.end(key_of(1), outcome(1), "standard")
    kill(mine)
    assert contents(mine.path) == [intent(1), record_of("denied", 2), outcome(1)]


async def test_numbers_say_how_it_is(mine: Journal) -> None:
    """Nothing is failing."""
    mine.begin(key_of(1), intent(1), "strict")
    await step_until_looked(mine)
    numbers = mine.numbers()
    assert (numbers.open, numbers.written, numbers.refused, numbers.error, numbers.failing) == (1, 1, 0, "", False)
    assert numbers.size == layout.bytes_of(mine.path.parent) > 0
    assert numbers.share == numbers.size / (1 << 20)
    assert numbers.syncs == 1


async def test_what_was_only_counted_is_written_when_its_minute_is_over(tmp_path: Path) -> None:
    """Though there be room all the time; at the end, nobody waits for the minute."""
    wall = Wall()
    mine = journal_in(tmp_path, wall=wall)
    for _ in range(3):
        mine.skip("t")
    await mine.sync()
    assert contents(mine.path) == []
    wall.now += 60.0
    mine.skip("u")
    await mine.sync()
    assert mine.begin(key_of(1), intent(1), "strict")
    mine.skip("t")
    await mine.sync()
    await mine.sync(last=True)
    written = [orjson.loads(record) for record in contents(mine.path)]
    assert [(one.get("tenant_id"), one.get("dropped")) for one in written] == [
        ("t", 3), ("u", 1), (None, None), ("t", 1),
    ]  # fmt: skip
    kill(mine)


async def test_a_new_segment_is_begun_when_one_is_full(mine: Journal) -> None:
    """Nothing is lost in between."""
    records = [outcome(number, 900) for number in range(100)]
    assert all(mine.end(key_of(number), record, "strict") for number, record in enumerate(records))
    assert mine.number == len(layout.segments(mine.path)) > 5
    assert rows(mine) == records


async def test_durable_returns_when_everything_is_on_the_disk(mine: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many wait for one sync."""
    synced: list[int] = []
    real = Unsynced.sync
    monkeypatch.setattr(Unsynced, "sync", lambda what: synced.append(what.mark) or real(what))
    for number in range(10):
        mine.begin(key_of(number), intent(number), "strict")
    assert all(await asyncio.gather(*(mine.durable() for _ in range(10))))
    assert synced == [sum(len(intent(number)) + 8 for number in range(10))]


async def test_a_new_day_begins_a_new_segment(tmp_path: Path) -> None:
    """Midnight is UTC's. An empty segment need not be left."""
    wall = Wall(NOON + 12 * 3600 - 1)
    mine = journal_in(tmp_path, wall=wall)
    mine.append(outcome(1), "standard", "")
    await mine.sync()
    assert mine.number == 1
    wall.now += 1
    await mine.sync()
    assert mine.number == 2
    assert mine.append(outcome(2), "standard", "")
    wall.now += 86400
    await mine.sync()
    assert mine.number == 3
    wall.now += 86400
    await mine.sync()
    assert mine.number == 3
    assert rows(mine) == [outcome(1), outcome(2)]
    kill(mine)


# --- shipped segments ---------------------------------------------------------------------------------------------


async def test_a_segment_may_go_although_one_of_its_requests_lasts(mine: Journal) -> None:
    """What is known of it is carried on; should the process die, it is found open, and only it."""
    mine.begin(key_of(1), intent(1), "standard")
    for number in range(2, 60):
        mine.begin(key_of(number), intent(number, 500), "standard")
        mine.end(key_of(number), outcome(number), "standard")
    last = mine.number
    assert last > 2
    assert await mine.release(last)  # the one in use stays
    assert layout.segments(mine.path) == [last]
    assert carried(intent(1)) in contents(mine.path)
    assert mine.size == layout.bytes_of(mine.path.parent)
    kill(mine)
    taken = adoption.adopt(mine.path, lambda: None)
    assert taken is not None
    assert taken.unknown == 1


async def test_a_request_that_was_carried_ends_as_any_other(mine: Journal) -> None:
    """It is carried as often as need be, and not once it is over."""
    mine.begin(key_of(1), intent(1), "standard")
    for _ in range(3):
        last = mine.number
        while mine.number == last:
            mine.append(record_of("denied", 2, 900), "standard", "")
        assert await mine.release(last)
        assert contents(mine.path).count(carried(intent(1))) == 1
    mine.end(key_of(1), outcome(1), "standard")
    kill(mine)
    taken = adoption.adopt(mine.path, lambda: None)
    assert taken is not None
    assert taken.unknown == 0


async def test_very_many_open_requests_are_carried_too(mine: Journal) -> None:
    """In slices, and each once."""
    for number in range(1000):
        mine.begin(key_of(number), intent(number), "standard")
    last = mine.number
    assert await mine.release(last - 1)
    kept = contents(mine.path)
    assert sum(not is_row(record) for record in kept) + sum(is_row(record) for record in kept) == len(kept)
    assert {adoption.opened(record)[0] for record in kept} == {key_of(number) for number in range(1000)}  # type: ignore[index]
    assert len(kept) == 1000


async def test_nothing_goes_that_is_not_carried_safely(mine: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment stays as long as the disk does not have the copy."""
    mine.begin(key_of(1), intent(1), "standard")
    mine._writer.roll()
    monkeypatch.setattr(Unsynced, "sync", lambda what: "EIO")
    assert not await mine.release(1)
    assert layout.segments(mine.path) == [1, 2]


# --- no room ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grade", ["strict", "standard", "usage"])
async def test_however_much_is_refused_calls_find_room(mine: Journal, grade: Grade) -> None:
    """Refusals fill half of the bound; beyond it they are counted, none waits in memory, and all are told of."""
    kept = 0
    while mine.append(denied(), grade, "t"):
        kept += 1
    assert 0 < (1 << 19) - layout.bytes_of(mine.path.parent) + len(denied()) < 2 * len(denied())
    for _ in range(5_000):
        assert not mine.append(denied(), grade, "t")
    await step_until_looked(mine)
    assert all(mine.takes(each) for each in ("strict", "standard", "usage"))
    number = 0
    while mine.begin(key_of(number), intent(number, 900), "strict"):
        assert mine.end(key_of(number), outcome(number, 900), "strict")
        assert not mine.append(denied(), grade, "t")
        number += 1
    assert number > 220  # of 2 KiB: all but the sixteenth that is kept for ends
    assert mine.numbers().ring == 0
    layout.segment_path(mine.path, 1).unlink()
    await mine.sync()
    assert summed(rows(mine)) == mine.dropped[grade] == 5_001 + number


async def test_what_others_have_written_is_no_room_for_refusals(tmp_path: Path, mine: Journal) -> None:
    """The half is of the whole spool; when they are gone there is room again."""
    other = fill(tmp_path, 1 << 19)
    assert mine.append(denied(), "standard", "t")
    await step_until_looked(mine)
    assert not mine.append(denied(), "standard", "t")
    assert mine.begin(key_of(1), intent(1), "strict")
    other.unlink()
    await step_until_looked(mine)
    assert mine.append(denied(), "standard", "t")


async def test_a_disk_that_takes_nothing_has_no_refusals_wait_in_memory(mine: Journal) -> None:
    """That is for calls."""
    with largest_file(100):
        assert not mine.append(denied(), "standard", "t")
        assert (mine.numbers().ring, mine.dropped["standard"]) == (0, 1)
        assert mine.begin(key_of(1), intent(1), "standard")
    await mine.sync()
    assert [orjson.loads(record)["kind"] for record in rows(mine)] == ["intent", "summary"]


@given(st.lists(st.tuples(st.sampled_from(("call", "strict", "standard", "usage")), st.integers(0, 700)), max_size=120))
def test_refusals_never_take_the_room_of_calls(events: list[tuple[str, int]]) -> None:
    """Of any grade and size, in any order: they are written just while the spool is less than half full, and a call is
    refused just where the bound is; each is either written or counted."""
    bounds, written = Bounds(total=40_000, segment=5_000, ring=4_000), 0
    with tempfile.TemporaryDirectory() as folder:
        mine = journal_in(Path(folder), bounds)
        for number, (what, size) in enumerate(events):
            before, ring = layout.bytes_of(mine.path.parent), mine.numbers().ring
            if what == "call":
                begun = intent(number, size)
                fits = before + len(begun) + 8 <= bounds.total - bounds.reserve
                assert mine.begin(key_of(number), begun, "strict") == (fits and not mine.refused)
                if not mine.refused:
                    assert mine.end(key_of(number), outcome(number), "strict")
            else:
                kept = mine.append(denied(size), what, "t")  # type: ignore[arg-type]
                assert kept == (before < bounds.total // 2)
                assert mine.numbers().ring == ring
                written += kept
        counted = sum(mine.dropped.values())
        assert written + counted == sum(what != "call" for what, _ in events)
        kill(mine)


async def test_without_room_each_grade_has_its_way(mine: Journal) -> None:
    """`strict` is refused at once, `standard` when memory is full too, `usage` never; and nothing goes unsaid."""
    full(mine)
    assert [mine.takes(grade) for grade in ("strict", "standard", "usage")] == [False, True, True]
    assert not mine.begin(key_of(1), intent(1), "strict")
    assert mine.begin(key_of(2), intent(2), "standard")
    assert mine.begin(key_of(3), intent(3), "usage")
    assert mine.end(key_of(2), outcome(2), "standard")
    assert not mine.end(key_of(3), outcome(3, tenant_id="t"), "usage")
    number = 10
    while mine.begin(key_of(number), intent(number, 900), "standard"):
        number += 1
    assert not mine.takes("standard")
    assert mine.takes("usage")
    assert mine.numbers().ring <= 64 << 10
    assert mine.end(key_of(10), outcome(10), "standard")  # an answer was given: its end finds room
    numbers = mine.numbers()
    assert (numbers.refused, numbers.dropped, numbers.failing) == (3, {"strict": 0, "standard": 0, "usage": 1}, True)


async def test_what_waited_is_written_in_its_order_when_there_is_room_again(tmp_path: Path) -> None:
    """Then what was counted, by tenant and minute; then new records."""
    other = fill(tmp_path)
    mine = journal_in(tmp_path)
    waiting = []
    for number in range(100):
        waiting += [intent(number), outcome(number)]
        assert mine.begin(key_of(number), intent(number), "standard")
        assert mine.end(key_of(number), outcome(number), "standard")
    assert mine.begin(key_of(200), intent(200), "standard")
    for tenant in ("a", "a", ""):
        assert not mine.append(record_of("denied", 1), "usage", tenant)
    await mine.sync()
    assert rows(mine) == []
    other.unlink()
    await mine.sync()
    assert mine.takes("strict")
    assert mine.begin(key_of(201), intent(201), "strict")
    found = rows(mine)
    assert found[:201] == [*waiting, intent(200)]
    summaries = [orjson.loads(record) for record in found[201:203]]
    assert [(each["kind"], each.get("tenant_id"), each["dropped"], each["timestamp"]) for each in summaries] == [
        ("summary", "a", 2, "2026-11-22T12:00:00.000000Z"), ("summary", None, 1, "2026-11-22T12:00:00.000000Z"),
    ]  # fmt: skip
    assert summaries[0]["id"] != summaries[1]["id"]
    assert found[203:] == [intent(201)]
    assert (mine.numbers().ring, mine.numbers().failing) == (0, False)
    kill(mine)
    taken = adoption.adopt(mine.path, lambda: None)
    assert taken is not None
    assert taken.unknown == 2  # 200 and 201, known although one of them waited in memory


async def test_what_was_written_after_it_had_waited_is_as_if_it_never_had(tmp_path: Path) -> None:
    """Its segment may go; and a count is written once, however often there is no room."""
    other = fill(tmp_path)
    mine = journal_in(tmp_path)
    assert mine.begin(key_of(1), intent(1), "standard")
    assert not mine.append(record_of("denied", 2), "usage", "a")
    for _ in range(2):
        other.unlink()
        await mine.sync()
        other.write_bytes(bytes(1 << 20))
        await step_until_looked(mine)
        assert not mine.append(record_of("denied", 3), "usage", "b")
        assert not mine.begin(key_of(3), intent(3), "strict")
    assert [orjson.loads(record)["kind"] for record in rows(mine)] == ["intent", "summary", "summary"]
    last = mine.number
    mine._writer.roll()
    assert await mine.release(last)
    assert carried(intent(1)) in contents(mine.path)
    kill(mine)


async def test_an_end_does_not_come_before_its_beginning(tmp_path: Path) -> None:
    """Though there be room for ends: the beginning waits in memory, so the end does."""
    other = fill(tmp_path, (1 << 20) - 5000)
    mine = journal_in(tmp_path)
    assert mine.begin(key_of(1), intent(1), "standard")
    assert mine.end(key_of(1), outcome(1), "standard")
    assert rows(mine) == []
    other.unlink()
    await mine.sync()
    assert rows(mine) == [intent(1), outcome(1)]
    kill(mine)


async def test_ends_of_requests_have_room_of_their_own(mine: Journal) -> None:
    """A spool that is full takes the ends of what has begun, and stays within its bound."""
    for number in range(20):
        assert mine.begin(key_of(number), intent(number), "strict")
    full(mine)
    assert all(mine.end(key_of(number), outcome(number, 900), "strict") for number in range(20))
    assert mine.numbers().ring == 0
    assert all(outcome(number, 900) in contents(mine.path) for number in range(20))
    assert layout.bytes_of(mine.path.parent) <= 1 << 20


async def test_beyond_that_they_wait_in_memory_and_beyond_that_they_are_counted(tmp_path: Path) -> None:
    """The count is of their tenant."""
    mine = journal_in(tmp_path, Bounds(total=100_000, segment=16 << 10, ring=10_000))
    for number in range(60):
        assert mine.begin(key_of(number), intent(number), "strict")
    full(mine)
    kept = [mine.end(key_of(number), outcome(number, 900, tenant_id="t"), "strict") for number in range(60)]
    assert kept == sorted(kept, reverse=True)
    lost = kept.count(False)
    assert 0 < lost == mine.dropped["strict"]
    assert ("t", int(NOON), lost) in list(mine._tallies.each())
    assert layout.bytes_of(tmp_path) <= 100_000
    kill(mine)


async def test_journals_of_one_spool_share_its_bound(tmp_path: Path, mine: Journal) -> None:
    """What others wrote is seen within a second."""
    assert mine.begin(key_of(1), intent(1), "strict")
    other = fill(tmp_path)
    await step_until_looked(mine)
    assert not mine.begin(key_of(2), intent(2), "strict")
    assert mine.numbers().share > 1
    other.unlink()
    await mine.sync()
    assert mine.begin(key_of(3), intent(3), "strict")


async def test_a_disk_that_is_full_is_a_spool_that_is_full(mine: Journal) -> None:
    """Nothing is torn by it, and it goes on by itself when there is room."""
    with largest_file(500):
        assert mine.begin(key_of(1), intent(1), "strict")
        assert not mine.begin(key_of(2), intent(2, 900), "strict")
        assert mine.begin(key_of(3), intent(3), "standard")
        assert mine.end(key_of(1), outcome(1, 900), "strict")  # waits in memory
        assert not await mine.durable()
        await mine.sync()
        assert not mine.takes("strict")
        assert mine.numbers().error in ("EFBIG", "ENOSPC")
    await mine.sync()
    assert mine.takes("strict")
    assert mine.numbers().error == ""
    assert rows(mine) == [intent(1), intent(3), outcome(1, 900)]
    assert await mine.durable()


async def test_on_a_full_disk_a_new_segment_is_begun_so_that_the_old_one_can_go(mine: Journal) -> None:
    """One, however long it lasts."""
    with largest_file(500):
        assert mine.begin(key_of(1), intent(1), "strict")
        assert mine.end(key_of(1), outcome(1), "strict")
        assert not mine.begin(key_of(2), intent(2, 900), "strict")
        for _ in range(3):
            await mine.sync()
        assert mine.number == 2
        assert await mine.release(1)
    await mine.sync()
    assert mine.takes("strict")
    assert layout.segments(mine.path) == [2]


async def test_a_disk_that_is_smaller_than_the_bound_is_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How full it is, and what is kept for ends, are of the disk; segments too, so that some of it can be deleted."""
    monkeypatch.setattr(layout, "measured", lambda spool: (layout.bytes_of(spool), 100_000))
    mine = journal_in(tmp_path, Bounds())
    number = 0
    while mine.begin(key_of(number), intent(number), "strict"):
        number += 1
    await step_until_looked(mine)
    assert 0.85 < mine.numbers().share < 1 - 1 / 16 + 0.01
    assert len(layout.segments(mine.path)) == 4
    assert all(mine.end(key_of(each), outcome(each), "strict") for each in range(20))
    kill(mine)


async def test_a_full_disk_is_probed_by_more_than_one_record(mine: Journal) -> None:
    """Room for a few bytes is no room: nobody is let in to be refused."""
    with largest_file(500):
        assert not mine.begin(key_of(1), intent(1, 900), "strict")
        await mine.sync()
        assert not mine.takes("strict")
    await mine.sync()
    assert mine.takes("strict")


async def test_a_record_too_large_to_be_read_back_is_refused_and_stops_nothing(mine: Journal) -> None:
    """As an end it is counted."""
    vast = bytes(9 << 20)
    assert not mine.begin(key_of(1), vast, "strict")
    await mine.sync()
    assert mine.begin(key_of(1), intent(1), "strict")
    assert not mine.end(key_of(1), vast, "strict")
    await mine.sync()
    assert mine.takes("strict")


async def test_a_segment_that_somebody_deletes_costs_no_more_than_what_was_in_it(mine: Journal) -> None:
    """What comes later is not written into a file that nobody can find."""
    assert mine.begin(key_of(1), intent(1), "strict")
    layout.segment_path(mine.path, 1).unlink()
    await step_until_looked(mine)
    assert mine.begin(key_of(2), intent(2), "strict")
    assert await mine.durable()
    assert rows(mine) == [intent(2)]


async def test_in_a_spool_that_somebody_deletes_nothing_seems_to_be_kept(mine: Journal) -> None:
    """It is a disk that takes nothing; each step goes on as before."""
    shutil.rmtree(mine.path.parent)
    await step_until_looked(mine)
    assert not mine.begin(key_of(1), intent(1), "strict")
    assert mine.begin(key_of(2), intent(2), "standard")
    assert (mine.numbers().error, mine.numbers().failing, len(mine._ring)) == ("ENOENT", True, 1)


# --- syncs that fail ----------------------------------------------------------------------------------------------


async def test_while_syncs_fail_strict_is_refused_and_the_others_go_on(
    mine: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is safe from the death of the process still."""
    with monkeypatch.context() as patched:
        patched.setattr(Unsynced, "sync", lambda what: "EIO")
        assert mine.begin(key_of(1), intent(1), "strict")
        assert not await mine.durable()
        assert not mine.takes("strict")
        assert not mine.begin(key_of(2), intent(2), "strict")
        assert mine.append(record_of("denied", 3), "strict", "")
        assert mine.begin(key_of(4), intent(4), "standard")
        await mine.sync()
        assert not mine.takes("strict")
        assert (mine.numbers().error, mine.numbers().failing) == ("EIO", True)
    await mine.sync()
    assert mine.takes("strict")
    assert mine.begin(key_of(5), intent(5), "strict")
    assert await mine.durable()
    assert rows(mine) == [intent(1), record_of("denied", 3), intent(4), intent(5)]


async def test_a_disk_that_hangs_is_a_disk_that_fails(mine: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step goes on without it; when it is back, so is everything."""
    released = threading.Event()
    real = Unsynced.sync
    monkeypatch.setattr(Unsynced, "sync", lambda what: released.wait(10) and real(what))
    monkeypatch.setattr(journal, "_SLOW_S", 0.01)
    mine.begin(key_of(1), intent(1), "strict")
    await mine.sync()
    assert not mine.takes("strict")
    assert mine.takes("standard")
    released.set()
    monkeypatch.setattr(journal, "_SLOW_S", 10.0)
    await mine.sync()
    assert mine.takes("strict")
    assert await mine.durable()


# --- the end ------------------------------------------------------------------------------------------------------


async def test_a_closed_journal_is_left_to_others(mine: Journal) -> None:
    """With nothing open it is sealed: nobody has to look through it."""
    mine.begin(key_of(1), intent(1), "standard")
    mine.end(key_of(1), outcome(1), "standard")
    assert await mine.close() == 0
    assert (mine.path / layout.SEALED).exists()
    assert adoption.orphans(mine.path.parent) == [mine.path]
    for grade in ("strict", "standard"):
        assert not mine.begin(key_of(2), intent(2), grade)  # type: ignore[arg-type]
        assert not mine.takes(grade)  # type: ignore[arg-type]


async def test_a_journal_that_cannot_be_sealed_is_left_to_others_all_the_same(
    mine: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may have filled the disk to its last byte."""
    mine.begin(key_of(1), intent(1), "standard")
    mine.end(key_of(1), outcome(1), "standard")

    def put_file(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(layout, "put_file", put_file)
    assert await mine.close() == 0
    assert adoption.orphans(mine.path.parent) == [mine.path]


async def test_a_journal_closed_with_open_requests_is_not_sealed(mine: Journal) -> None:
    """Who adopts it says that they are unknown."""
    mine.begin(key_of(1), intent(1), "standard")
    assert await mine.close() == 0
    assert not (mine.path / layout.SEALED).exists()
    taken = adoption.adopt(mine.path, lambda: None)
    assert taken is not None
    assert taken.unknown == 1


async def test_a_journal_that_was_shipped_whole_is_removed_at_its_end(mine: Journal) -> None:
    """Nothing of it stays."""
    mine.append(outcome(1), "standard", "")
    await mine.close(remove=True)
    assert list(mine.path.parent.iterdir()) == []


async def test_what_comes_after_it_was_shipped_keeps_a_journal(mine: Journal) -> None:
    """The last request may end while the last sync runs."""
    mine.begin(key_of(1), intent(1), "standard")
    await mine.sync()
    closing = asyncio.ensure_future(mine.close(remove=True))
    await asyncio.sleep(0)
    assert mine.end(key_of(1), outcome(1), "standard")
    assert await closing == 0
    assert contents(mine.path) == [intent(1), outcome(1)]


async def test_counts_that_were_not_shipped_keep_a_journal(mine: Journal) -> None:
    """They are written at the end, and nobody has shipped them then."""
    mine.skip("t")
    assert await mine.close(remove=True) == 0
    assert [orjson.loads(record)["dropped"] for record in contents(mine.path)] == [1]


async def test_a_journal_with_open_requests_is_not_removed(mine: Journal) -> None:
    """Shipped or not: their ends are still to be told."""
    mine.begin(key_of(1), intent(1), "standard")
    assert await mine.close(remove=True) == 0
    taken = adoption.adopt(mine.path, lambda: None)
    assert taken is not None
    assert taken.unknown == 1


async def test_closing_says_what_is_lost(tmp_path: Path) -> None:
    """What waits in memory for a disk that takes nothing is lost with the process; then nothing is removed either."""
    fill(tmp_path)
    mine = journal_in(tmp_path)
    assert mine.begin(key_of(1), intent(1), "standard")
    assert not mine.append(record_of("denied", 1), "usage", "t")
    assert await mine.close(remove=True) == 2
    assert mine.path.exists()


async def test_closing_writes_what_still_waits(tmp_path: Path) -> None:
    """If there is room by now."""
    other = fill(tmp_path)
    mine = journal_in(tmp_path)
    assert mine.begin(key_of(1), intent(1), "standard")
    assert mine.end(key_of(1), outcome(1), "standard")
    other.unlink()
    await mine._look()
    assert await mine.close() == 0
    assert contents(mine.path) == [intent(1), outcome(1)]


async def test_a_spool_that_cannot_be_made_is_said_at_once(tmp_path: Path) -> None:
    """There the start ends."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        journal_in(tmp_path / "file")


async def test_a_beginning_stays_until_its_end_is_written(tmp_path: Path) -> None:
    """An end that waits in memory dies with the process: whoever takes over has to know that there was a beginning."""
    mine = journal_in(tmp_path, Bounds(total=100_000, segment=16 << 10, ring=64 << 10))
    for number in range(100):
        assert mine.begin(key_of(number), intent(number), "strict")
    full(mine)
    assert all(mine.end(key_of(number), outcome(number, 300), "strict") for number in range(100))
    waiting = [number for number in range(100) if outcome(number, 300) not in contents(mine.path)]
    assert waiting
    assert mine.numbers().open == len(waiting)
    sealed = mine.number - 1
    assert await mine.release(sealed)  # all of it was shipped
    kill(mine)
    taken = adoption.adopt(mine.path, lambda: None)
    assert taken is not None
    assert taken.unknown == len(waiting)
    taken.release()


async def test_an_end_that_waited_and_was_written_is_an_end(tmp_path: Path) -> None:
    """Nothing is open then."""
    mine = journal_in(tmp_path, Bounds(total=100_000, segment=16 << 10, ring=64 << 10))
    assert mine.begin(key_of(1), intent(1), "standard")
    mine._stop()
    assert mine.begin(key_of(2), intent(2), "standard")
    assert mine.end(key_of(2), outcome(2), "standard")
    assert mine.numbers().open == 2
    await mine.sync()
    assert mine.numbers().open == 1
    assert rows(mine) == [intent(1), intent(2), outcome(2)]
    kill(mine)
