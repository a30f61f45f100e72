"""A process that records as fast as it can, and is killed in the middle of it: what it was told is kept, is there (D3).

python -m tests.chaos.spool_writer SPOOL ACKNOWLEDGED

`ACKNOWLEDGED` is a file in which the number of requests stands whose beginning, and whose end, was acknowledged: two
numbers of eight bytes, which outlive the process, since they are the kernel's. Each record counts, where clients of a
proxy know of whole calls only, and a kill may come within any write.
"""

from __future__ import annotations

import asyncio
import mmap
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from struct import Struct
from typing import Final

from benchmarks.rig import Figure
from proxy.spool import adoption, layout, segment
from proxy.spool.journal import Bounds, Journal
from proxy.spool.kinds import fields_of
from tests.unit.spool.records import intent, key_of, outcome

_NUMBERS: Final = Struct("<QQ")
#: Bytes that a record is longer than it has to be: 300 and 500 in all, as of real ones.
_INTENT, _OUTCOME = 200, 400
#: Requests between two steps of the journal.
_STEP: Final = 2000


def endless(spool: Path, acknowledged: Path) -> None:
    """Requests one after another, with the step of the journal beside them."""

    async def run() -> None:
        journal, number = Journal(spool, Bounds(total=8 << 30), time.time), 0
        with acknowledged.open("r+b") as file, mmap.mmap(file.fileno(), _NUMBERS.size) as seen:
            while True:
                key = key_of(number)
                assert journal.begin(key, intent(number, _INTENT), "standard")
                _NUMBERS.pack_into(seen, 0, number + 1, number)
                assert journal.end(key, outcome(number, _OUTCOME), "standard")
                number += 1
                _NUMBERS.pack_into(seen, 0, number, number)
                if number % _STEP == 0:
                    await journal.sync()

    asyncio.run(run())


def kills(short: bool) -> list[Figure]:
    """SIGKILL it, and count what is there of what was acknowledged."""
    count, seconds = (2, 0.3) if short else (5, 2.0)
    with tempfile.TemporaryDirectory() as folder:
        trials = [_killed(Path(folder), seconds) for _ in range(count)]
    acknowledged, lost, torn = map(sum, zip(*trials, strict=True))
    print(f"  {acknowledged} records acknowledged over {count} SIGKILLs")
    return [
        Figure("torn: acknowledged records lost to SIGKILL", lost, 0, ""),
        Figure("torn: segments that SIGKILL tore", torn, 0, ""),
        Figure("torn: nothing was acknowledged", not acknowledged, 0, ""),
    ]


def _killed(folder: Path, seconds: float) -> tuple[int, int, int]:
    """How many records were acknowledged, and are lost; how many segments are torn."""
    seen = folder / "acknowledged"
    seen.write_bytes(bytes(_NUMBERS.size))
    with subprocess.Popen([sys.executable, "-m", __name__, str(folder / "spool"), str(seen)]) as child:
        while not _NUMBERS.unpack(seen.read_bytes())[1] and child.poll() is None:
            time.sleep(0.01)
        time.sleep(seconds)
        child.kill()
    begun, ended = _NUMBERS.unpack(seen.read_bytes())
    [path] = adoption.orphans(folder / "spool")
    found: set[tuple[str, str]] = set()
    torn = 0
    for number in layout.segments(path):
        piece = segment.read(layout.segment_path(path, number), 0, 1 << 30)
        torn += piece.torn
        found |= {(about["kind"], about["id"]) for about in map(fields_of, piece.records)}
    lost = sum(("intent", key_of(number)) not in found for number in range(begun))
    lost += sum(("outcome", key_of(number)) not in found for number in range(ended))
    taken = adoption.adopt(path)
    assert taken is not None
    taken.remove()
    return begun + ended, lost, torn


if __name__ == "__main__":
    endless(Path(sys.argv[1]), Path(sys.argv[2]))
