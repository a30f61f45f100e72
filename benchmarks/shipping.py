"""How fast records become rows: a journal of calls is shipped to a real PostgreSQL with every index.

    python -m benchmarks.shipping [--short]

Each call is recorded as the proxy records it, an intent and an outcome, in real segments; then one shipper ships them
over one connection, as it does after an outage of the database. Rows are counted in the database: two of the audit
trail and one of the request log for each call. CPU time is user and kernel time, of this process and of PostgreSQL's
together. How long the event loop was kept is measured beside it, by a task that wakes every millisecond. That is done
several times, each time into tables that hold the rows of the times before; a figure is the best of them. The last line
is `failed: N`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
import orjson
import uvloop

from proxy.audit.signing import Signer
from proxy.background.shipping import Shipper
from proxy.identity.uuid7 import RecordIds
from proxy.log import logger
from proxy.spool.journal import Bounds, Journal
from proxy.store.database import Bounds as PoolBounds
from proxy.store.database import Database, Places
from proxy.store.embedded import EmbeddedPostgres
from proxy.store.migrate import migrator

TARGET: Final = 30_000
"""Rows a second."""
ROUNDS: Final = 6
CALLS: Final = 40_000
"""Of each round."""
FEW: Final = 10_000
TENANTS: Final = 50
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def call(ids: RecordIds, number: int, now: float) -> tuple[str, bytes, bytes]:
    """Id, intent and outcome of a call of one of the tenants."""
    made = str(ids.new())
    tenant = number % TENANTS
    begun: dict[str, Any] = {
        "kind": "intent", "id": made, "timestamp": _iso(now), "tenant_id": f"0198c0de-0000-7000-8000-{tenant:012x}",
        "tenant": f"tenant-{tenant}", "method": "POST", "path": "/mcp/search", "rpc_method": "tools/call",
        "target": f"tool-{number % 40}", "target_kind": "tool", "messages": 1, "server": f"server-{number % 20}",
        "server_id": f"0198c0de-0000-7000-8000-{number % 20 + 1000:012x}", "route": "default", "era": "modern",
        "revision": "2025-11-25", "bytes_in": 412, "client": f"10.1.{number % 200}.{number % 251}",
        "principal": f"key:{number % 500:012}", "key_id": f"{number % 500:012}", "source": "enhanced_api_keys",
        "session": "5f2b0c6de1f24a0a", "user_agent": "example-client/1.0", "risk": "low", "generation": 3,
        "trace_id": f"{number:032x}", "span_id": f"{number:016x}", "instance": "host:1",
    }  # fmt: skip
    ended = begun | {
        "kind": "outcome", "timestamp": _iso(now + 0.0123), "status": 200, "outcome": "ok", "bytes_out": 5120,
        "duration_ms": 5 + number % 1000 / 8, "first_byte_ms": 4.5, "auth_ms": 0.021, "limit_ms": 0.114,
        "connect_ms": 0.5, "streamed": False, "tries": 1,
    }  # fmt: skip
    return made, orjson.dumps(begun), orjson.dumps(ended)


def _iso(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def record(spool: Path, calls: int) -> Journal:
    """A journal of so many calls, a thousand a second, up to now."""
    journal = Journal(spool, Bounds(total=4 << 30), time.time)
    ids = RecordIds(time.time, os.urandom)
    for number in range(calls):
        key, intent, outcome = call(ids, number, time.time() - (calls - number) / 1000)
        kept = journal.begin(key, intent, "standard") and journal.end(key, outcome, "standard")
        assert kept, "the spool has no room"
    return journal


def cpu_of_children(parent: int) -> float:
    """CPU seconds of all processes below another, recursively."""
    parents, spent = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(fields[1])
            spent[int(folder.name)] = (int(fields[11]) + int(fields[12])) / _TICKS
    total = 0.0
    for process, seconds in spent.items():
        at = process
        while at > 1 and at != parent:
            at = parents.get(at, 0)
        total += seconds if at == parent and process != parent else 0.0
    return total


class Watch:
    """How long the loop was kept: a task that wakes every millisecond tells by how much it was late."""

    def __init__(self) -> None:
        self.late_ms: list[float] = []

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            self.late_ms.append((time.perf_counter() - began) * 1e3 - 1)

    def at(self, share: float) -> float:
        """The quantile, milliseconds."""
        return sorted(self.late_ms)[min(len(self.late_ms) - 1, int(share * len(self.late_ms)))]


async def measure(folder: Path, calls: int) -> int:
    """Print the figures; how many are missed."""
    server = EmbeddedPostgres(folder / "postgres")
    await server.start()
    try:
        async with migrator(server.owner_dsn) as migrations:
            await migrations.up()
        await server.allow()
        owner = await asyncpg.connect(server.owner_dsn)
        await owner.execute("SELECT create_partitions()")
        database = Database(Places(server.dsn), {"write": PoolBounds(connections=1, statement_s=10.0)})
        await database.open()
        rounds = [await ship(database, record(folder / "spool", calls), owner, calls) for _ in range(ROUNDS)]
        await database.close()
        missed = await missing(owner, calls * ROUNDS)
        await owner.close()
    finally:
        await server.stop()
    best = max(rounds)
    print(f"rows_per_s: {best:.0f} (at least {TARGET}); median {statistics.median(rounds):.0f}")
    return missed + (best < TARGET)


async def ship(
    database: Database, journal: Journal, owner: asyncpg.Connection[asyncpg.Record], calls: int
) -> float:  # fmt: skip
    """Ship a journal; rows a second."""
    shipper = Shipper(database, journal.path.parent, journal, Signer(os.urandom(32).hex().encode()), logger("ship"))
    watch = Watch()
    watching = asyncio.get_running_loop().create_task(watch.run())
    before = await rows_of(owner)
    wall, ours, theirs = time.perf_counter(), time.process_time(), cpu_of_children(os.getpid())
    done = await shipper.finish(600.0)
    wall, ours = time.perf_counter() - wall, time.process_time() - ours
    theirs = cpu_of_children(os.getpid()) - theirs
    watching.cancel()
    await journal.close(remove=done)
    rows = await rows_of(owner) - before
    print(
        f"{rows} rows in {wall:.2f} s: {rows / wall:.0f} a second; CPU per row, us: shipper {ours / rows * 1e6:.1f},"
        f" PostgreSQL {theirs / rows * 1e6:.1f}; rows per CPU second of both: {rows / (ours + theirs):.0f}, of the"
        f" shipper: {rows / ours:.0f}; loop late, ms: p50 {watch.at(0.5):.2f}, p99 {watch.at(0.99):.2f}"
    )
    return rows / wall if done else 0.0


async def rows_of(owner: asyncpg.Connection[asyncpg.Record]) -> int:
    """Of both tables."""
    return int(await owner.fetchval("SELECT (SELECT count(*) FROM audit_logs) + (SELECT count(*) FROM request_logs)"))


async def missing(owner: asyncpg.Connection[asyncpg.Record], calls: int) -> int:
    """How many of the numbers of rows are not what they should be."""
    wanted = {
        "audit_logs": 2 * calls,
        "request_logs": calls,
        "(SELECT segment, tenant_id FROM audit_logs EXCEPT SELECT segment, tenant_id FROM audit_heads) AS unsigned": 0,
    }
    found = {table: await owner.fetchval(f"SELECT count(*) FROM {table}") for table in wanted}
    audited, requests, unsigned = found.values()
    print(f"rows: {audited} + {requests} of {calls} calls; chains without a head: {unsigned}")
    return sum(found[table] != number for table, number in wanted.items())


def main(arguments: Sequence[str]) -> int:
    """Exit code 1 when a figure is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shipping", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a run of a few seconds")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="mcpm-") as folder:
        Path(folder).chmod(0o711)
        missed = uvloop.run(measure(Path(folder), FEW if given.short else CALLS))
    print(f"failed: {missed}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
