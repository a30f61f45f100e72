"""A spool whose last segment is torn or spoilt: what was not hit is there, nothing is made up, a proxy starts (D3).

A proxy is killed under load while its PostgreSQL is away. What it left is copied again and again; each copy is damaged
at another place, as a crash of the host or a bad disk would, and taken over: by the code that takes over journals, many
times, and by whole proxies with a database of their own, a few times. Before that, a process that does nothing but
record is killed, again and again.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.rig import Figure
from proxy.spool import adoption, checkpoint, layout, segment
from proxy.spool.kinds import fields_of, is_row
from tests.chaos.calling import QUIET, Caller, Seen
from tests.chaos.setting import server
from tests.chaos.spool_writer import kills
from tests.harness import ProxyProcess, Wire, json_answer, scripted_upstream
from tests.proofs.known import Someone, admit, config, own_postgres, someone
from tests.unit.store.engine import execute, login_dsn, migrated_database, owner_dsn

_AT_ONCE: Final = 16
_SLOWEST_S: Final = 0.02
_PAGE: Final = 4096
_PATIENCE_S: Final = 15.0
#: Files in memory, for the copies: nothing here is about the disk itself.
_MEMORY: Final = "/dev/shm"
Key = tuple[str, str]
"""Kind and id."""


@dataclass(frozen=True)
class Kept:
    """A record of the spool as it was, and where."""

    number: int
    start: int
    end: int
    content: bytes
    key: Key | None
    """What a row of it is found by; None when it becomes none."""


@dataclass
class Harm:
    """What was wrong in all trials."""

    trials: Counter[str] = field(default_factory=Counter)
    hit: int = 0
    """Records that the damage was in or before."""
    unknown: int = 0
    lost: int = 0
    made_up: int = 0
    doubled: int = 0
    endless: int = 0
    """Beginnings without an end."""
    failed: int = 0
    """Proxies that did not start, or served nothing."""

    def compare(self, expected: set[Key], known: set[Key], found: Sequence[dict[str, Any]]) -> None:
        """What has to be found, all that may be, and what was found."""
        counts = Counter((about["kind"], str(about["id"])) for about in found)
        unknown = {str(about["id"]) for about in found if about.get("outcome") == "unknown"}
        self.unknown += len(unknown)
        self.hit += len(known - expected)
        self.lost += len(expected - counts.keys())
        self.lost += sum(("outcome", name) in expected for name in unknown)
        self.made_up += sum(key not in known and key[1] not in unknown for key in counts)
        self.made_up += sum(("intent", name) not in counts for name in unknown)
        self.doubled += sum(count > 1 for count in counts.values())
        self.endless += sum(kind == "intent" and ("outcome", name) not in counts for kind, name in counts)


def figures(short: bool) -> list[Figure]:
    """D3."""
    return [*kills(short), *asyncio.run(_measure(short))]


async def _measure(short: bool) -> list[Figure]:
    who, harm, draw = someone("key"), Harm(), random.Random(3)
    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="mcp-manager-") as folder, tempfile.TemporaryDirectory(dir=memory) as aside:
        async with scripted_upstream(_answer) as upstream:
            state = Path(folder) / "state"
            seen = await _killed(who, upstream.port, Path(folder), 200 if short else 1_000)
            [journal] = layout.journals(state / "spool")
            records = list(_records(journal))
            there = Path(shutil.copytree(journal, Path(aside) / journal.name))
            for name, damage in _damages(records, draw, 26 if short else 1_300, every=not short):
                harm.trials[name] += 1
                _taken_over(there, Path(aside) / "copy", damage, records, harm)
            in_process = harm.trials.total()
            whole = list(_damages(records, draw, 1 if short else 13, every=False))
            for number, (name, damage) in enumerate(whole):
                harm.trials[f"{name}, a proxy"] += 1
                await _restarted(state, Path(folder) / f"again{number}", damage, records, harm, (who, upstream.port))
    known = _known(records)
    answered = {each.request_id for each in seen if each.status == 200}
    # an answer may come a moment before its outcome is written, which then is unknown
    unwritten = {name for name in answered if ("intent", name) not in known}
    print(f"  {len(seen)} calls, {len(answered)} answered; {len(records)} records in {records[-1].number} segments, "
          f"{records[-1].end} bytes in the last; {in_process} trials, and {len(whole)} with a proxy")  # fmt: skip
    print("  " + ", ".join(f"{name}: {count}" for name, count in sorted(harm.trials.items())))
    print(f"  {harm.hit} records hit in all, {harm.unknown} ends unknown")
    return [
        Figure("torn: answered calls that SIGKILL took from the spool", len(unwritten), 0, ""),
        Figure("torn: records lost that were neither hit nor behind a cut", harm.lost, 0, ""),
        Figure("torn: records made up", harm.made_up, 0, ""),
        Figure("torn: records that are there twice", harm.doubled, 0, ""),
        Figure("torn: beginnings without an end", harm.endless, 0, ""),
        Figure("torn: proxies that do not start, or do not serve", harm.failed, 0, ""),
        Figure("torn: nothing was hit, or nobody was under way", not harm.hit or not harm.unknown, 0, ""),
    ]


async def _answer(wire: Wire) -> None:
    """Some time later, so that calls are under way at any moment."""
    while await wire.request():
        wire.upstream.seen.clear()
        await asyncio.sleep(random.uniform(0, _SLOWEST_S))
        await wire.send(json_answer())


# --- what is damaged ------------------------------------------------------------------------------------------------


async def _killed(who: Someone, port: int, folder: Path, calls: int) -> list[Seen]:
    """A proxy that was killed under load; what its clients saw since PostgreSQL went away."""
    async with own_postgres() as postgres:
        await admit(postgres.owner_dsn, [who])
        proxy = await asyncio.to_thread(ProxyProcess, _settings(postgres.dsn, port, folder / "state"), folder)
        caller, seen = Caller(proxy.port), []
        assert (await caller.call(who.call())).status == 200
        await postgres.stop()

        async def one_by_one() -> None:
            while len(seen) < calls or proxy.process.poll() is None:
                seen.append(await caller.call(who.call()))
                if len(seen) == calls:  # the others are under way
                    proxy.process.send_signal(signal.SIGKILL)
                    await asyncio.to_thread(proxy.process.wait)

        await asyncio.gather(*(one_by_one() for _ in range(_AT_ONCE)))
        await caller.close()
        await asyncio.to_thread(proxy.stop)
        await postgres.start()
    return seen


def _settings(dsn: str, port: int, state: Path) -> dict[str, Any]:
    record = {"spool": {"segment": "128KiB"}}
    return {**config(dsn, port, str(state)), "servers": {"up": server(port)}, **QUIET, "record": record}


def _records(journal: Path) -> Iterator[Kept]:
    for number in layout.segments(journal):
        at, piece = 0, segment.read(layout.segment_path(journal, number), 0, 1 << 30)
        assert not piece.torn
        for record in piece.records:
            end = at + segment.HEAD + len(record)
            about = fields_of(record)
            yield Kept(number, at, end, record, (about["kind"], about["id"]) if is_row(record) else None)
            at = end


Damage = Callable[[Path], tuple[int, int]]
"""Spoils the last segment at this path; says from where to where it is not what it was."""


def _damages(records: Sequence[Kept], draw: random.Random, count: int, every: bool) -> Iterator[tuple[str, Damage]]:
    """At random, of each kind in turn; `every`: besides, a cut at each byte of the last two records."""
    last = [record for record in records if record.number == records[-1].number]
    size = last[-1].end
    if every:
        for at in range(last[-2].start, size + 1):
            yield "cut at each byte", _cut(at)
    for number in range(count):
        hit = draw.choice(last)
        kinds: list[tuple[str, Damage]] = [
            ("cut in a length", _cut(hit.start + draw.randrange(1, 4))),
            ("page of zeros", _over(draw.randrange(size), bytes(_PAGE))),
            ("bit of a record", _flip(draw.randrange(hit.start + segment.HEAD, hit.end), draw)),
            ("zeros behind", _over(size, bytes(_PAGE))),
            ("bit of a length", _flip(hit.start + draw.randrange(4), draw)),
            ("cut in a record", _cut(draw.randrange(hit.start + segment.HEAD, hit.end))),
            ("cut in a checksum", _cut(hit.start + draw.randrange(4, segment.HEAD))),
            ("bit of a checksum", _flip(hit.start + draw.randrange(4, segment.HEAD), draw)),
            ("cut between records", _cut(hit.start)),
            ("nonsense behind", _over(size, draw.randbytes(draw.randrange(1, 700)))),
            ("part of a record behind", _over(size, segment.frame(hit.content)[: draw.randrange(1, 200)])),
            ("nonsense in place of a page", _over(draw.randrange(size), draw.randbytes(_PAGE))),
            ("nothing left", _cut(0)),
        ]
        yield kinds[number % len(kinds)]


def _cut(at: int) -> Damage:
    def damage(path: Path) -> tuple[int, int]:
        os.truncate(path, at)
        return at, 1 << 62

    return damage


def _over(at: int, content: bytes) -> Damage:
    def damage(path: Path) -> tuple[int, int]:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(content)
        return at, at + len(content)

    return damage


def _flip(at: int, draw: random.Random) -> Damage:
    bit = 1 << draw.randrange(8)

    def damage(path: Path) -> tuple[int, int]:
        with path.open("r+b") as file:
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ bit]))
        return at, at + 1

    return damage


def _known(records: Sequence[Kept]) -> set[Key]:
    return {record.key for record in records if record.key is not None}


def _spared(records: Sequence[Kept], begin: int, end: int) -> set[Key]:
    """Of the records that the damage has not touched."""
    last = records[-1].number
    return _known([each for each in records if each.number < last or each.end <= begin or each.start >= end])


# --- who takes it over ----------------------------------------------------------------------------------------------


def _taken_over(journal: Path, copy: Path, damage: Damage, records: Sequence[Kept], harm: Harm) -> None:
    last = layout.segment_path(journal, records[-1].number).name
    shutil.copytree(journal, copy, copy_function=lambda old, new: _copied(Path(old), Path(new), last))
    hit = damage(layout.segment_path(copy, records[-1].number))
    taken = adoption.adopt(copy, lambda: None)
    assert taken is not None
    found = [fields_of(record) for number in taken.segments() for record in _whole(layout.segment_path(copy, number))]
    taken.release()
    shutil.rmtree(copy)
    harm.compare(_spared(records, *hit), _known(records), found)


def _copied(old: Path, new: Path, last: str) -> None:
    """A segment that nobody changes need not be copied."""
    if old.name == last or old.suffix != ".seg":
        shutil.copy2(old, new)
    else:
        new.hardlink_to(old)


def _whole(path: Path) -> Iterator[bytes]:
    """Rows of a segment, past any damage."""
    at: int | None = 0
    while at is not None:
        piece = segment.read(path, at, 64 << 10)
        yield from filter(is_row, piece.records)
        at = segment.next_whole(path, piece.offset) if piece.torn else piece.offset if piece.records else None


async def _restarted(
    state: Path, folder: Path, damage: Damage, records: Sequence[Kept], harm: Harm, around: tuple[Someone, int]
) -> None:
    """A whole proxy on a copy of the state, with an empty database."""
    who, port = around
    await asyncio.to_thread(shutil.copytree, state, folder / "state")
    [journal] = layout.journals(folder / "state" / "spool")
    hit = damage(layout.segment_path(journal, records[-1].number))
    reached = checkpoint.load(journal)
    async with migrated_database() as name:
        await admit(owner_dsn(name), [who])
        try:
            proxy = await asyncio.to_thread(ProxyProcess, _settings(login_dsn(name), port, folder / "state"), folder)
        except AssertionError as reason:
            print(f"  {reason}")
            harm.failed += 1
            return
        try:
            caller = Caller(proxy.port)
            called = await caller.call(who.call())
            await caller.close()
            harm.failed += called.status != 200 or not await _gone(journal)
        finally:
            await asyncio.to_thread(proxy.stop)
        rows = await execute(owner_dsn(name), "SELECT kind, id, outcome FROM audit_logs")
    waiting = [each for each in records if (each.number, each.start) >= (reached.segment, reached.offset)]
    found = [row for row in rows if str(row["id"]) != called.request_id]
    harm.compare(_spared(waiting, *hit), _known(waiting), found)


async def _gone(journal: Path) -> bool:
    """Whether it was shipped and removed in time."""
    until = time.monotonic() + _PATIENCE_S
    while journal.exists() and time.monotonic() < until:
        await asyncio.sleep(0.05)
    return not journal.exists()


if __name__ == "__main__":
    from benchmarks.rig import conclude

    sys.exit(conclude(figures(short="--short" in sys.argv)))
