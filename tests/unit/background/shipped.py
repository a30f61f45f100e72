"""What the tests of shipping share: a spool, a database, and records good and bad."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from proxy.audit.signing import Signer
from proxy.background.batches import Means
from proxy.spool import layout, segment
from proxy.spool.quarantine import Quarantine
from proxy.store.database import Database
from tests.unit.audit.made import record
from tests.unit.dataplane.fakes import Time

SIGNER = Signer(b"07" * 32)
#: PostgreSQL refuses it: no smallint.
REFUSED = {"status": 70_000}
#: No row can be made of it.
UNFIT = {"timestamp": "yesterday"}


class Spoken:
    """Lines of the log."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, event: str, **fields: Any) -> None:
        """Of any level."""
        self.lines.append(event)

    info = warning = error = say


def raw(number: int, kind: str = "outcome", **changes: Any) -> bytes:
    """A record as it stands in a segment."""
    return orjson.dumps(record(number, kind, **changes))


def call(number: int, **changes: Any) -> list[bytes]:
    """Both records of one."""
    return [raw(number, "intent"), raw(number, **changes)]


def named(letter: str) -> str:
    """A name by which a journal is found: in the order of letters, and behind those that tests begin."""
    return f"20261123T000000Z-{ord(letter):012x}"


def journal(spool: Path, *segments: list[bytes], name: str = "j") -> Path:
    """A journal whose process is gone, with these segments."""
    path = spool / name
    path.mkdir(parents=True)
    (path / layout.LOCK).touch()
    (path / layout.SEALED).touch()
    for number, records in enumerate(segments, 1):
        layout.segment_path(path, number).write_bytes(b"".join(map(segment.frame, records)))
    return path


@asynccontextmanager
async def means_of(database: Database, spool: Path, clock: Time | None = None) -> AsyncIterator[Means]:
    """Everything a shipment needs."""
    clock = clock or Time()
    spool.mkdir(exist_ok=True)
    made = Means(database, Quarantine(spool), SIGNER, Spoken(), lambda: 1_795_400_000.0, clock)  # type: ignore[arg-type]
    yield made
    made.thread.shutdown()
