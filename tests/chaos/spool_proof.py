"""The spool alone: killed writers, a disk that is full, and damage (D3 and D4 of the plan, and what a call costs).

What whole proxies do with it is `durability.py`'s to show.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.rig import Figure
from proxy.spool import adoption, layout, segment
from proxy.spool.journal import Bounds, Journal
from proxy.spool.kinds import fields_of
from tests.chaos.spool_writer import INTENT, NUMBERS, OUTCOME
from tests.unit.spool.records import intent, key_of, outcome

_MODULE: Final = "tests.chaos.spool_writer"
#: A disk of one MiB that belongs to one process.
_TINY: Final = (
    "unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
    'mount -t tmpfs -o size=1m none "$1" && exec "$2" -m "$3" tiny "$1/spool"', "sh",
)  # fmt: skip


def figures(short: bool) -> list[Figure]:
    """Everything that can be shown without a proxy."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        return [
            *kills(path / "kills", 2 if short else 5, 0.3 if short else 2.0),
            *full_disk(path / "disk"),
            *damage(path / "damage", 50 if short else 500),
            *asyncio.run(cost(path / "cost", 5_000 if short else 50_000, 2 if short else 1)),
        ]


def kills(folder: Path, count: int, seconds: float) -> list[Figure]:
    """SIGKILL a process that records as fast as it can: what was acknowledged is there."""
    folder.mkdir()
    acknowledged = lost = torn = wrong = 0
    for _ in range(count):
        seen = folder / "acknowledged"
        seen.write_bytes(bytes(NUMBERS.size))
        with subprocess.Popen([sys.executable, "-m", _MODULE, "endless", str(folder / "spool"), str(seen)]) as child:
            while NUMBERS.unpack(seen.read_bytes())[1] == 0 and child.poll() is None:
                time.sleep(0.01)
            time.sleep(seconds)
            child.kill()
        begun, ended = NUMBERS.unpack(seen.read_bytes())
        (path,) = adoption.orphans(folder / "spool")
        torn += segment.read(layout.segment_path(path, layout.segments(path)[-1]), 0, 1 << 30).torn
        taken = adoption.adopt(path, lambda: None)
        assert taken is not None
        kinds: dict[str, set[str]] = {"intent": set(), "outcome": set()}
        for number in taken.segments():
            for record in segment.read(layout.segment_path(path, number), 0, 1 << 30).records:
                about = fields_of(record)
                kinds[about["kind"]].add(about["id"])
        acknowledged += begun + ended
        lost += sum(key_of(number) not in kinds["intent"] for number in range(begun))
        lost += sum(key_of(number) not in kinds["outcome"] for number in range(ended))
        wrong += kinds["intent"] != kinds["outcome"] or taken.unknown > 1
        taken.remove()
    print(f"{acknowledged} records acknowledged over {count} SIGKILLs")
    return [
        Figure("spool: acknowledged records lost to SIGKILL", lost, 0, ""),
        Figure("spool: torn segments after SIGKILL", torn, 0, ""),
        Figure("spool: beginnings without an end after adoption", wrong, 0, ""),
    ]


def full_disk(folder: Path) -> list[Figure]:
    """D4: each grade on a disk of 1 MiB that is full, and then is not."""
    folder.mkdir()
    done = subprocess.run(
        [*_TINY, str(folder), sys.executable, _MODULE], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:  # a container engine that forbids user namespaces
        print(f"no small disk here: {done.stderr.strip()[-200:]}")
        return [Figure("spool: a disk of 1 MiB can be made", 1, 0, "")]
    seen: dict[str, Any] = json.loads(done.stdout)
    print(f"full disk: {seen}")
    return [
        Figure("spool, full disk: strict calls let in", seen["strict_when_full"], 0, ""),
        Figure("spool, full disk: records lost of calls that were let in", seen["lost"], 0, ""),
        Figure("spool, full disk: torn segments", seen["torn"], 0, ""),
        Figure("spool, full disk: records neither kept nor counted", abs(seen["counted"] - seen["summed"]), 0, ""),
        Figure("spool, full disk: memory in use", seen["in_memory"] / (1 << 10), 128, "KiB"),
        Figure("spool, full disk: until everything is written again", seen["recovered_s"], 1, "s"),
        Figure("spool, full disk: the kernel said that it is full", seen["error"] != "ENOSPC", 0, ""),
    ]  # fmt: skip


def damage(folder: Path, count: int) -> list[Figure]:
    """D3: cut a segment anywhere, flip any bit of it: nothing is lost but what was hit."""
    folder.mkdir()
    draw, path = random.Random(3), folder / "00000001.seg"
    records = [outcome(number, draw.randrange(600)) for number in range(1000)]
    content = b"".join(map(segment.frame, records))
    lost = misread = 0
    for _ in range(count):
        cut = draw.randrange(len(content))
        path.write_bytes(content[:cut])
        whole, end = _whole(path)
        lost += sum(map(len, whole)) + len(whole) * segment.HEAD != end or whole != records[: len(whole)]
        lost += len(whole) < len(records) and end + segment.HEAD + len(records[len(whole)]) <= cut
        flipped = bytearray(content)
        flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        whole, _ = _whole(path)
        lost += len(whole) != len(records) - 1
        misread += not set(whole) < set(records)
    print(f"{count} cuts and {count} flipped bits in {len(content)} bytes")
    return [
        Figure("spool, damage: records lost beside those that were hit", lost, 0, ""),
        Figure("spool, damage: wrong records read", misread, 0, ""),
    ]


def _whole(path: Path) -> tuple[list[bytes], int]:
    """All whole records, and where the last of them ends."""
    found: list[bytes] = []
    at: int | None = 0
    end = 0
    while at is not None:
        piece = segment.read(path, at, 64 << 10)
        found += piece.records
        end = piece.offset if piece.records else end
        at = segment.next_whole(path, piece.offset) if piece.torn else piece.offset if piece.records else None
    return found, end


async def cost(folder: Path, count: int, wider: int) -> list[Figure]:
    """CPU of a call beyond that of its two writes, and how long a call takes; targets are so many times wider."""
    journal = Journal(folder, Bounds(total=8 << 30), time.time)
    calls = [(key_of(number), intent(number, INTENT), outcome(number, OUTCOME)) for number in range(count)]
    clock, spans, cpu = time.perf_counter, [], []
    for _ in range(5):
        began = time.process_time()
        for key, first, last in calls:
            journal.begin(key, first, "standard")
            journal.end(key, last, "standard")
        cpu.append((time.process_time() - began) / count * 1e6)
        await journal.sync()
    for key, first, last in calls:
        began = clock()
        journal.begin(key, first, "standard")
        spans.append(clock() - began)
        began = clock()
        journal.end(key, last, "standard")
        spans.append(clock() - began)
    await journal.close(remove=True)
    bare = _bare(folder, [segment.frame(record) for call in calls for record in call[1:]]) / count * 1e6
    p99 = statistics.quantiles(spans, n=100)[98] * 1e6
    print(f"begin and end {min(cpu):.2f} us CPU, of which two writes {bare:.2f} us; p99 of one {p99:.1f} us")
    return [
        Figure("spool: CPU of begin and end beyond their writes", min(cpu) - bare, 2.6 * wider, "us"),
        Figure("spool: p99 of one record", p99, 20 * wider, "us"),
    ]


def _bare(folder: Path, framed: list[bytes]) -> float:
    """Seconds of CPU that writing takes by itself."""
    descriptor = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for record in framed:
            os.write(descriptor, record)
        best = min(best, time.process_time() - began)
        os.ftruncate(descriptor, 0)
    os.close(descriptor)
    return best


if __name__ == "__main__":
    from benchmarks.rig import conclude

    sys.exit(conclude(figures(short="--short" in sys.argv)))
