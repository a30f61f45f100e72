"""The commands `spool status | replay | quarantine`: what was recorded on this host and is not in PostgreSQL yet.

Owns what an operator is told of the files, and what he may do with them. Nothing here touches a journal that a process
holds: it ships that itself. Reads of its arguments `action`, `json`, and for `quarantine`: `retry`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from argparse import Namespace
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from errno import ENOSPC
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from proxy.commands.connection import carried_out, postgres_of, turn
from proxy.commands.console import DONE, Misuse, counted, load_config, remark, show_json, show_table
from proxy.config.units import size_text
from proxy.spool import adoption, checkpoint, held, layout
from proxy.spool.kinds import fields_of
from proxy.spool.quarantine import Quarantine

if TYPE_CHECKING:
    from proxy.background.shipping import Shipper
    from proxy.config.models import Config

#: Folder of `state_dir`.
_FOLDER: Final = "spool"
#: Between two steps of shipping, and how long the last one may take; seconds.
_STEP_S: Final = 0.2
_FINISH_S: Final = 5.0
_FAILED: Final = 1


def run(given: Namespace) -> int:
    """Do `given.action`; returns the exit code. Raises Misuse."""
    config = load_config(given)
    spool = Path(config.state_dir) / _FOLDER
    try:
        return {"status": _status, "replay": _replay, "quarantine": _quarantine}[given.action](given, config, spool)
    except OSError as error:
        if isinstance(error, BrokenPipeError) or (error.errno == ENOSPC and error.filename is None):
            raise  # it is the output
        raise Misuse(f"the spool cannot be used: {error}") from None


# --- status -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Journal:
    """A journal as it is shown."""

    journal: str
    state: str
    """`in use`: a process writes it; `left behind`: its process is gone; `not usable`: a file of it cannot be read."""
    segments: int
    size: int
    """Bytes."""
    waiting: int
    """Of these, not shipped."""
    since: datetime | None
    """When something was last written that waits in the oldest segment."""


def _status(given: Namespace, config: Config, spool: Path) -> int:
    shown, quarantine = [_shown(path) for path in layout.journals(spool)], Quarantine(spool)
    size, bound = layout.bytes_of(spool), config.record.spool.max_size
    if given.json:
        show_json(
            {
                "spool": str(spool), "size": size, "max_size": bound, "share": round(size / bound, 4),
                "waiting": sum(each.waiting for each in shown), "quarantined": len(quarantine),
                "quarantine_size": quarantine.size, "journals": [asdict(each) for each in shown],
            }
        )  # fmt: skip
        return DONE
    rows = [[each.journal, each.state, each.segments, each.size, each.waiting, each.since] for each in shown]
    show_table(("JOURNAL", "STATE", "SEGMENTS", "BYTES", "WAITING", "SINCE"), rows)
    remark(f"{spool}: {size / bound:.1%} of {size_text(bound)}; {len(quarantine)} records in quarantine")
    return DONE


def _shown(path: Path) -> _Journal:
    try:
        return _looked_at(path)
    except OSError:  # it keeps nobody from seeing the others
        return _Journal(path.name, "not usable", 0, layout.bytes_in(path), 0, None)


def _looked_at(path: Path) -> _Journal:
    reached, waiting, since = checkpoint.load(path), 0, None
    numbers = layout.segments(path)
    sizes = {number: layout.size_of(layout.segment_path(path, number)) for number in numbers}
    for number, size in sizes.items():
        unshipped = 0 if number < reached.segment else size - (reached.offset if number == reached.segment else 0)
        waiting += max(unshipped, 0)
        if unshipped > 0 and since is None:
            since = _written(layout.segment_path(path, number))
    state = "in use" if held.is_held(path) else "left behind"
    return _Journal(path.name, state, len(numbers), sum(sizes.values()), waiting, since)


def _written(path: Path) -> datetime | None:
    """When a file was written last; None when it is gone."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None


# --- replay -------------------------------------------------------------------------------------------------------


def _replay(given: Namespace, config: Config, spool: Path) -> int:
    postgres_of(config)
    with redirect_stdout(sys.stderr):  # the log of a proxy goes to standard output, where a result is wanted here
        done = carried_out(_shipped(config, spool), config) if adoption.orphans(spool) else _NOTHING
    if given.json:
        show_json(done)
    else:
        print(f"{done['journals']} journals, {done['rows']} rows, {done['quarantined']} records set aside")
    if used := len(layout.journals(spool)) - len(adoption.orphans(spool)):
        remark(f"{used} in use: their processes ship them")
    return DONE if not done["away"] else _FAILED


_NOTHING: Final[dict[str, Any]] = {
    "journals": 0, "records": 0, "rows": 0, "quarantined": 0, "damaged": 0, "unknown": 0, "away": "",
}  # fmt: skip


async def _shipped(config: Config, spool: Path) -> dict[str, Any]:
    from proxy import log
    from proxy.audit.signing import Signer
    from proxy.background.shipping import Shipper
    from proxy.config.keyfile import AUDIT_KEY, load_or_create
    from proxy.store.lifecycle import Stores

    state = Path(config.state_dir)
    stores = Stores(postgres_of(config), None, state, time.monotonic, lambda: 0.5)
    async with turn(postgres_of(config).embedded, state):
        await stores.start(join=True)
        try:
            if stores.records is None:
                raise Misuse("there is no database")
            signer = Signer(load_or_create(state / AUDIT_KEY))
            shipper = Shipper(stores.records, spool, None, signer, log.logger("spool"))
            try:
                await _ship_all(shipper, spool)
                away = shipper.away or ", ".join(f"{path.name} cannot be used" for path in sorted(shipper.avoided))
            finally:
                await shipper.finish(_FINISH_S)
        finally:
            await stores.stop()
    counts = shipper.counts
    if away:
        remark(f"not all could be shipped: {away}")
    return {
        "journals": counts.adopted, "records": counts.records, "rows": counts.rows, "quarantined": counts.quarantined,
        "damaged": counts.damaged, "unknown": counts.unknown, "away": away,
    }  # fmt: skip


async def _ship_all(shipper: Shipper, spool: Path) -> None:
    """Until nothing is left behind, or PostgreSQL is away. It takes what it takes: a person can end it at any time."""
    while True:
        await shipper.step()
        left_behind = set(await asyncio.to_thread(adoption.orphans, spool)) - shipper.avoided
        if shipper.away or not (shipper.busy or left_behind):
            return
        await asyncio.sleep(_STEP_S)


# --- quarantine ---------------------------------------------------------------------------------------------------


def _quarantine(given: Namespace, config: Config, spool: Path) -> int:
    quarantine = Quarantine(spool)
    if given.retry:
        return _retry(given, quarantine, spool)
    found = [
        {
            "at": datetime.fromtimestamp(entry.at, UTC), "reason": entry.reason, "segment": entry.segment,
            "kind": fields_of(entry.record).get("kind"), "request": entry.id or None, "size": len(entry.record),
        }
        for entry in quarantine.entries()
    ]  # fmt: skip
    if given.json:
        show_json(found)
        return DONE
    show_table(
        ("SET ASIDE", "REQUEST", "KIND", "BYTES", "SEGMENT", "REASON"),
        [[each[name] for name in ("at", "request", "kind", "size", "segment", "reason")] for each in found],
    )
    return DONE


def _retry(given: Namespace, quarantine: Quarantine, spool: Path) -> int:
    count = _put_back(quarantine, spool) if len(quarantine) else 0
    if len(quarantine):
        raise Misuse("the records could not be written; they stay where they were")
    if given.json:
        show_json({"retried": count})
    else:
        more = f"{counted(count, 'record')} put back: a proxy of this host ships them, or 'spool replay'"
        remark(more if count else "the quarantine is empty")
    return DONE


def _put_back(quarantine: Quarantine, spool: Path) -> int:
    """Give the records a journal. It is held until they are out of the quarantine: whoever ships it skips those that
    are in there. Nothing is open in it from its beginning, and it goes only if it did not get them: so whatever ends
    this when, each record is in one of the two."""
    from proxy.spool.journal import Bounds, Journal

    journal, kept = Journal(spool, Bounds(total=1 << 62), time.time), False
    layout.put_file(journal.path / layout.SEALED, b"")

    async def write(records: list[bytes]) -> bool:
        written = all(journal.end("", record, "strict") for record in records)  # no refusal's bound holds for them
        async with asyncio.timeout(_FINISH_S):
            return await journal.durable() and written

    with asyncio.Runner() as runner:

        def put(records: list[bytes]) -> bool:
            nonlocal kept
            kept = runner.run(write(records))
            return kept

        try:
            return quarantine.take_back(put)
        finally:
            runner.run(journal.close(remove=not kept))
