"""A process that records calls and ships them, and kills itself between a commit and the checkpoint behind it.

python -m tests.chaos.shipping_life DSN STATE ACKNOWLEDGED CALLS KILL_AT

It dies after so many commits, or never (0). What was left behind in STATE/spool by others is shipped as well. Each
record that the journal has acknowledged is a line of the file ACKNOWLEDGED: its kind and its id.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import orjson

from benchmarks.shipping import call
from proxy.audit.signing import Signer
from proxy.background.shipping import Shipper
from proxy.config.keyfile import AUDIT_KEY, load_or_create
from proxy.identity.uuid7 import RecordIds
from proxy.log import logger
from proxy.spool.adoption import orphans
from proxy.spool.journal import Bounds, Journal
from proxy.store.database import Bounds as PoolBounds
from proxy.store.database import Database, Places

#: Small segments: they are begun, signed and deleted all the time.
_BOUNDS: Final = Bounds(total=1 << 30, segment=64 << 10)
_AT_ONCE: Final = 150
#: Of so many calls one lasts to the end, and one has a status that PostgreSQL refuses.
_LASTS_EVERY: Final = 40
_REFUSED_EVERY: Final = 500
_NO_SMALLINT: Final = 70_000


def main(dsn: str, state: Path, acknowledged: Path, calls: int, kill_at: int) -> bool:
    """Whether all of it was shipped."""
    return asyncio.run(_live(dsn, state, acknowledged, calls, _fault(kill_at)))


def _fault(kill_at: int) -> Callable[[], None]:
    commits = 0

    def committed() -> None:
        nonlocal commits
        commits += 1
        if commits == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    return committed


def _refused(outcome: bytes) -> bytes:
    return orjson.dumps({**orjson.loads(outcome), "status": _NO_SMALLINT})


async def _live(dsn: str, state: Path, acknowledged: Path, calls: int, committed: Callable[[], None]) -> bool:
    journal = Journal(state / "spool", _BOUNDS, time.time)
    database = Database(Places(dsn), {"write": PoolBounds(connections=1, statement_s=10.0)})
    await database.open()
    signer = Signer(load_or_create(state / AUDIT_KEY))
    shipper = Shipper(database, state / "spool", journal, signer, logger("record"))
    shipper.means.after_commit = committed
    lasting: dict[str, bytes] = {}
    ids, said = RecordIds(time.time, os.urandom), os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for number in range(calls):
        key, intent, outcome = call(ids, number, time.time())
        assert journal.begin(key, intent, "standard")
        os.write(said, b"intent %b\n" % key.encode())
        if number % _LASTS_EVERY == 0:
            lasting[key] = outcome
        else:
            last = outcome if number % _REFUSED_EVERY != 1 else _refused(outcome)
            assert journal.end(key, last, "standard")
            os.write(said, b"outcome %b\n" % key.encode())
        if number % _AT_ONCE == 0:
            await journal.sync()
            await shipper.step()
    for key, outcome in lasting.items():
        assert journal.end(key, outcome, "standard")
        os.write(said, b"outcome %b\n" % key.encode())
    while shipper.busy or orphans(state / "spool"):
        await shipper.step()
        await asyncio.sleep(0.05)
    done = await shipper.finish(30.0)
    await journal.close(remove=done)
    await database.close()
    return done


if __name__ == "__main__":
    dsn, state, acknowledged, calls, kill_at = sys.argv[1:]
    sys.exit(0 if main(dsn, Path(state), Path(acknowledged), int(calls), int(kill_at)) else 1)
