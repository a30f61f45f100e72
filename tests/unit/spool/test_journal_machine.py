"""The journal over its whole life: requests begin and end, processes die, hosts die, and others ship what is left.

A machine of states over real files. The database is a dictionary that takes a key once, as the real one does; a shipper
of a few lines stands between, and may die between the two things that it does.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from proxy.spool import adoption, checkpoint, held, layout, segment
from proxy.spool.checkpoint import Checkpoint
from proxy.spool.journal import Bounds, Grade, Journal
from proxy.spool.kinds import is_row
from proxy.spool.quarantine import Entry, Quarantine
from tests.unit.spool.records import NOON, Wall, key_of, kill, record_of

GRADES = st.sampled_from(("strict", "standard", "usage"))
Key = tuple[str, str]

#: A small spool: a few requests make a segment, a few dozen fill it.
BOUNDS = Bounds(total=12_000, segment=2_000, ring=4_000)


class Life(RuleBasedStateMachine):
    """One spool, the journals of one process after another, and the database."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.spool = Path(self.folder.name)
        #: Of another process, which lives on.
        self.others = held.make(self.spool, Wall())
        self.loop = asyncio.new_event_loop()
        self.wall = Wall()
        self.count = 0
        self.mine: Journal
        self.open: dict[str, Grade] = {}
        #: What was acknowledged, and must be found; that of it which a death of the process, or of the host, may take.
        self.kept: dict[Key, bytes] = {}
        self.in_memory: set[Key] = set()
        self.unsynced: set[Key] = set()
        self.synced: dict[Path, int] = {}
        #: What was counted instead, until its count is written or dies with a process.
        self.uncounted = 0
        self.counted = 0
        self.rows: dict[Key, bytes] = {}
        self.refused_by_database: dict[Key, bytes] = {}

    @initialize()
    def start(self) -> None:
        """A process begins."""
        self.mine = Journal(self.spool, BOUNDS, self.wall)

    def teardown(self) -> None:
        """At the end everything is found."""
        try:
            self.fills(0)
            self.steps()
            self.dies()
            self.adopts(100_000, fault=False)
            self.everything_is_found()
        finally:
            kill(self.mine)
            self.others.release()
            self.loop.close()
            self.folder.cleanup()

    def await_(self, it: Any) -> Any:
        """Wait for something of the journal's."""
        return self.loop.run_until_complete(asyncio.wait_for(it, 10))

    # --- requests -------------------------------------------------------------------------------------------------

    def note(self, kind: str, record: bytes) -> None:
        """A record was acknowledged: on the disk, unless something waits in memory since."""
        key = (orjson.loads(record)["id"], kind)
        self.kept[key] = record
        self.unsynced.add(key)
        if self.mine.numbers().ring:
            self.in_memory.add(key)

    @rule(grade=GRADES, size=st.integers(0, 700), tenant=st.sampled_from(("a", "b")), poison=st.booleans())
    def begins(self, grade: Grade, size: int, tenant: str, poison: bool) -> None:
        """A request begins."""
        self.count += 1
        key = key_of(self.count)
        record = record_of("intent", self.count, size, tenant_id=tenant, poison=poison and self.count % 4 == 0)
        before, takes = self.mine.numbers(), self.mine.takes(grade)
        accepted = self.mine.begin(key, record, grade)
        after = self.mine.numbers()
        assert accepted or grade != "usage"
        assert takes or not accepted or after.ring  # the ring says that it is full a little before it is
        if accepted:
            self.open[key] = grade
            if after.open > before.open:
                self.note("intent", record)
            else:
                assert grade == "usage"

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0), size=st.integers(0, 700))
    def ends(self, which: int, size: int) -> None:
        """One of the open requests ends."""
        key = sorted(self.open)[which % len(self.open)]
        record = record_of("outcome", int(key[-12:], 16), size, tenant_id="a", poison=False)
        if self.mine.end(key, record, self.open.pop(key)):
            self.note("outcome", record)
        else:
            self.uncounted += 1

    @rule(grade=GRADES, size=st.integers(0, 700))
    def is_denied(self, grade: Grade, size: int) -> None:
        """A request is refused."""
        self.count += 1
        record = record_of("denied", self.count, size, tenant_id="a", poison=False)
        ring = self.mine.numbers().ring
        if self.mine.append(record, grade, "a"):
            self.note("denied", record)
        else:
            self.uncounted += 1
        assert self.mine.numbers().ring == ring

    @rule()
    def steps(self) -> None:
        """Two steps of the journal: what waits is written in the one, if there is room, and synced in the other, which
        waits for no minute to be over."""
        for last in (False, True):
            self.await_(self.mine.sync(last=last))
        if not self.mine.numbers().ring:
            self.in_memory.clear()
        self.is_synced()
        if not self.mine._tallies:
            self.counted += self.uncounted
            self.uncounted = 0

    def is_synced(self) -> None:
        """What is in files now survives the host."""
        self.synced = {path: layout.size_of(path) for path in self.spool.glob("*/*.seg")}
        self.unsynced = set(self.in_memory)

    @rule(seconds=st.sampled_from((0.1, 61.0, 43_200.0)))
    def time_passes(self, seconds: float) -> None:
        """Minutes and days go by."""
        self.wall.now += seconds

    @rule(size=st.sampled_from((0, 6_000, 20_000)))
    def fills(self, size: int) -> None:
        """Something else takes room in the spool, or gives it back, and it is noticed."""
        layout.segment_path(self.others.path, 1).write_bytes(bytes(size))
        self.await_(self.mine._look())

    # --- deaths ---------------------------------------------------------------------------------------------------

    @rule()
    def dies(self) -> None:
        """The process is killed: what is in files stays."""
        kill(self.mine)
        for key in self.in_memory:
            self.kept.pop(key, None)
        self.new_process()

    @rule(cuts=st.lists(st.floats(0, 1), min_size=8, max_size=8), garbage=st.binary(max_size=30))
    def host_dies(self, cuts: list[float], garbage: bytes) -> None:
        """The host stops: of each file what was synced stays, and of the rest some, or nonsense."""
        kill(self.mine)
        path = self.mine.path
        for number in layout.segments(path):
            file = layout.segment_path(path, number)
            safe, size = self.synced.get(file, 0), layout.size_of(file)
            left = safe + int((size - safe) * cuts[number % len(cuts)])
            os.truncate(file, left)
            if left < size:
                with file.open("ab") as end:
                    end.write(garbage)
        for key in self.unsynced | self.in_memory:
            self.kept.pop(key, None)
        self.new_process()

    def new_process(self) -> None:
        """What was in memory is gone; open requests are open for ever."""
        self.open.clear()
        self.in_memory.clear()
        self.unsynced.clear()
        self.uncounted = 0
        self.start()

    # --- shipping -------------------------------------------------------------------------------------------------

    def ship(self, path: Path, most: int, fault: bool) -> bool:
        """Ship up to so many bytes of a journal, and nothing that is not on the disk. `fault`: die before the
        checkpoint. Returns whether all is shipped."""
        quarantine = Quarantine(self.spool)
        reached = checkpoint.load(path)
        for number in layout.segments(path):
            if number < reached.segment:
                continue
            at: int | None = reached.offset if number == reached.segment else 0
            while at is not None:
                file = layout.segment_path(path, number)
                piece = segment.read(file, at, min(most, 1_000))
                if path == self.mine.path:
                    self.await_(self.mine.durable())
                    self.is_synced()
                for record in piece.records:
                    self.insert(record, quarantine, f"{path.name}/{number}")
                if fault and piece.records:
                    return False
                checkpoint.save(path, Checkpoint(number, piece.offset))
                most -= sum(map(len, piece.records))
                if most <= 0:
                    return False
                at = segment.next_whole(file, piece.offset) if piece.torn else piece.offset if piece.records else None
        return True

    def insert(self, record: bytes, quarantine: Quarantine, place: str) -> None:
        """What the database does: a key is taken once, a poisoned row never."""
        if not is_row(record) or quarantine.knows(record):
            return
        about = orjson.loads(record)
        key = (about["id"], about["kind"])
        if about.get("poison"):
            assert quarantine.add(Entry(record, "poison", NOON, place))
            self.refused_by_database[key] = record
            return
        assert self.rows.setdefault(key, record) == record, "two different rows for one key"

    @rule(most=st.integers(100, 8_000), fault=st.booleans(), release=st.booleans())
    def ships(self, most: int, fault: bool, release: bool) -> None:
        """Ship some of the live journal, and let go of what is shipped whole."""
        self.ship(self.mine.path, most, fault)
        if release:
            reached = checkpoint.load(self.mine.path)
            if self.await_(self.mine.release(reached.segment - 1)):
                assert min(layout.segments(self.mine.path)) >= min(reached.segment, self.mine.number)
                self.is_synced()  # beginnings were copied, and synced before their segment went

    @rule(most=st.sampled_from((500, 3_000, 100_000)), fault=st.booleans())
    def adopts(self, most: int, fault: bool) -> None:
        """Ship some of each orphan; remove it when that was all."""
        for path in adoption.orphans(self.spool):
            taken = adoption.adopt(path, lambda: None)
            assert taken is not None
            if self.ship(path, most, fault):
                taken.remove()
            else:
                taken.release()

    def everything_is_found(self) -> None:
        """Each record that was acknowledged, once and as it was; each beginning with its end; each count."""
        found = {**self.rows, **self.refused_by_database}
        for key, record in self.kept.items():
            assert found.get(key) == record, f"{key} is lost"
        for key, kind in list(found):
            if kind == "intent":
                assert (key, "outcome") in found, f"{key} has no end"
        summed = sum(orjson.loads(record)["dropped"] for (_, kind), record in self.rows.items() if kind == "summary")
        assert summed >= self.counted
        for record in self.rows.values():
            about = orjson.loads(record)
            if about.get("outcome") == "unknown":
                assert (about["id"], "outcome") not in self.kept, "unknown, although its end was kept"


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
