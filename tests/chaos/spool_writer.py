"""A process that records as fast as it can, until it is killed; and one that records onto a disk of one MiB.

python -m tests.chaos.spool_writer endless SPOOL ACKNOWLEDGED
python -m tests.chaos.spool_writer tiny SPOOL

`ACKNOWLEDGED` is a file in which the number of requests stands whose beginning, and whose end, was acknowledged: two
numbers of eight bytes, which outlive the process, since they are the kernel's.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import sys
import time
from pathlib import Path
from struct import Struct

from proxy.spool import adoption, layout, segment
from proxy.spool.journal import Bounds, Journal
from proxy.spool.kinds import fields_of, is_row
from tests.unit.spool.records import intent, key_of, kill, outcome

NUMBERS = Struct("<QQ")
#: Bytes that a record is longer than it has to be: 300 and 500 in all, as of real ones.
INTENT, OUTCOME = 200, 400
#: For the fill of the small disk, and what is left of it at first.
_FREE = 256 << 10


def endless(spool: Path, acknowledged: Path) -> None:
    """Requests one after another, with the step of the journal beside them."""

    async def run() -> None:
        journal, number = Journal(spool, Bounds(total=8 << 30), time.time), 0
        with acknowledged.open("r+b") as file, mmap.mmap(file.fileno(), NUMBERS.size) as seen:
            while True:
                key = key_of(number)
                assert journal.begin(key, intent(number, INTENT), "standard")
                NUMBERS.pack_into(seen, 0, number + 1, number)
                assert journal.end(key, outcome(number, OUTCOME), "standard")
                number += 1
                NUMBERS.pack_into(seen, 0, number, number)
                if number % 2000 == 0:
                    await journal.sync()

    asyncio.run(run())


async def tiny(spool: Path) -> dict[str, object]:
    """What becomes of requests of each grade on a disk that is full, and then is not."""
    filler = spool.parent / "filler"
    room = os.statvfs(spool.parent)
    filler.write_bytes(bytes(room.f_bavail * room.f_frsize - _FREE))
    journal, number, seen = Journal(spool, Bounds(ring=64 << 10), time.time), 0, {}
    accepted: dict[str, list[int]] = {"strict": [], "standard": [], "usage": []}
    while journal.begin(key_of(number), intent(number, INTENT), "strict"):
        accepted["strict"].append(number)
        assert journal.end(key_of(number), outcome(number, OUTCOME), "strict")
        number += 1
    seen["error"], full = journal.numbers().error, number
    for grade in ("strict", "standard", "usage"):
        for _ in range(1000):
            number += 1
            if journal.begin(key_of(number), intent(number, INTENT), grade):  # type: ignore[arg-type]
                kept = journal.end(key_of(number), outcome(number, OUTCOME), grade)  # type: ignore[arg-type]
                if kept:
                    accepted[grade].append(number)
        await journal.sync()
    before = journal.numbers()
    seen["strict_when_full"] = sum(each > full for each in accepted["strict"])
    seen |= {"in_memory": before.ring, "counted": sum(before.dropped.values())}
    filler.unlink()
    began = time.monotonic()
    while journal.numbers().failing:
        await journal.sync()
    seen["recovered_s"] = time.monotonic() - began
    kill(journal)
    return {**seen, **found(journal.path, [each for numbers in accepted.values() for each in numbers])}


def found(path: Path, numbers: list[int]) -> dict[str, object]:
    """What a reader finds of these requests, of tears, and of counts."""
    ids: set[tuple[str, str]] = set()
    torn = summed = 0
    for number in layout.segments(path):
        piece = segment.read(layout.segment_path(path, number), 0, 1 << 30)
        torn += piece.torn
        for about in map(fields_of, filter(is_row, piece.records)):
            ids.add((about["id"], about["kind"]))
            summed += about.get("dropped", 0)
    lost = sum((key_of(number), kind) not in ids for number in numbers for kind in ("intent", "outcome"))
    taken = adoption.adopt(path, lambda: None)
    assert taken is not None
    return {"lost": lost, "torn": torn, "summed": summed, "unknown": taken.unknown, "kept": len(numbers)}


if __name__ == "__main__":
    if sys.argv[1] == "endless":
        endless(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        print(json.dumps(asyncio.run(tiny(Path(sys.argv[2])))))
