"""A spool on a disk of one MiB while PostgreSQL is away: each grade does what it says, and nothing goes uncounted (D4).

The disk is a tmpfs that only the proxy sees (mount_namespaces(7)). Three times: with a bound of the spool that the disk
has room for; with one that it has not; and with a file of somebody else that takes the rest of the disk and stays, so
that the kernel says that it is full. Three tenants call until the proxy has no room: the strict one is refused, the
standard one fills the memory first, the usage one is always served. When PostgreSQL is back, the rows of each tenant
and what its summaries count come to its number of calls, exactly.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from benchmarks.rig import Figure
from proxy.store.embedded import EmbeddedPostgres
from tests.chaos.calling import QUIET, Caller, Seen
from tests.chaos.setting import server
from tests.harness import ProxyProcess, answer_json, scripted_upstream
from tests.proofs.known import Someone, admit, config, own_postgres, serving, someone
from tests.unit.store.engine import execute

#: Root stays root, since in a user namespace he could not open the socket of PostgreSQL, which is another user's.
_NAMESPACE: Final = ("unshare", *(("--user", "--map-root-user") if os.geteuid() else ()), "--mount")
_GRADES: Final = ("strict", "standard", "usage")
#: Bound of the spool: of the size of the disk, and larger than it.
_BOUNDS: Final = {
    "bounded": {"max_size": "1MiB", "segment": "256KiB"}, "unbounded": {"max_size": "1GiB"},
    "filled": {"max_size": "1GiB"},
}  # fmt: skip
#: Calls before somebody else fills the disk: two segments and a bit.
_BEFORE: Final = 400
_MEMORY_KIB: Final = 128
_AT_ONCE: Final = 8
#: So many calls fill any of it three times over.
_MOST_CALLS: Final = 6_000
_MORE: Final = 40
_PATIENCE_S: Final = 15.0
_ALERTS: Final = ("spool_half_full", "spool_nearly_full")


@dataclass
class Run:
    """What was seen of one disk."""

    calls: dict[str, list[Seen]] = field(default_factory=lambda: {grade: [] for grade in _GRADES})
    """By grade."""
    wrong: int = 0
    """Calls when it was full that were not answered as their grade says."""
    alerts: list[str] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    """How full the spool is said to be: at first, when it is full, in the end."""
    in_memory: int = 0
    dropped: float = 0.0
    """As the metrics say."""
    serves_after_s: float = inf
    grown: int = 0
    """Bytes of memory."""


def figures(short: bool) -> list[Figure]:
    """D4."""
    if subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False).returncode:
        print("  not measured: a disk of our own needs user and mount namespaces")
        return []
    return asyncio.run(_measure(("filled",) if short else tuple(_BOUNDS)))


async def _measure(disks: Sequence[str]) -> list[Figure]:
    found = []
    async with scripted_upstream(answer_json) as upstream, own_postgres() as postgres:
        for disk in disks:
            people = {grade: someone("key") for grade in _GRADES}
            await admit(postgres.owner_dsn, people.values())
            with tempfile.TemporaryDirectory(prefix="mcp-manager-") as state, _own_disk(Path(state) / "spool"):
                settings = _settings(postgres.dsn, upstream.port, state, people, _BOUNDS[disk])
                async with serving(settings) as proxy:
                    other = Path(f"/proc/{proxy.pid}/root{state}/spool/other") if disk == "filled" else None
                    run = await _fill(proxy, people, postgres, other)
                    rows = {grade: await _rows(postgres, each, run.calls[grade]) for grade, each in people.items()}
            found += _compared(disk, run, rows)
    return found


def _settings(dsn: str, port: int, state: str, people: Mapping[str, Someone], bound: dict[str, str]) -> dict[str, Any]:
    tenants = {f"t-{each.tenant}": grade for grade, each in people.items()}
    record = {"tenants": tenants, "spool": {**bound, "memory": f"{_MEMORY_KIB}KiB"}}
    return {**config(dsn, port, state), "servers": {"up": server(port)}, **QUIET, "record": record,
            "alerts": {"interval": "500ms"}}  # fmt: skip


@contextmanager
def _own_disk(spool: Path) -> Iterator[None]:
    """What is started in the block as this interpreter has a disk of one MiB there."""
    spool.mkdir()
    with tempfile.TemporaryDirectory(prefix="mcp-manager-") as folder:
        start = Path(folder, "start")
        mount = f'mount -t tmpfs -o size=1m,mode=700 none {spool} && exec {sys.executable} "$@"'
        start.write_text(f"#!/bin/sh\nexec {' '.join(_NAMESPACE)} sh -c '{mount}' -- \"$@\"\n")
        start.chmod(0o755)
        with patch.object(sys, "executable", str(start)):
            yield


async def _fill(
    proxy: ProxyProcess, people: Mapping[str, Someone], postgres: EmbeddedPostgres, other: Path | None
) -> Run:
    run, caller = Run(), Caller(proxy.port)

    async def some(grade: str, count: int) -> list[Seen]:
        made = [await caller.call(people[grade].call()) for _ in range(1)] if count == 1 else []
        while len(made) < count:
            made += await asyncio.gather(*(caller.call(people[grade].call()) for _ in range(min(_AT_ONCE, count))))
        run.calls[grade] += made
        return made

    async def until_refused(grade: str) -> None:
        for _ in range(_MOST_CALLS // _AT_ONCE):
            if any(each.status != 200 for each in await some(grade, _AT_ONCE)):
                return
        run.wrong += 1

    for grade in _GRADES:
        run.wrong += (await some(grade, 1))[0].status != 200
    run.shares.append(await _metric(proxy, "spool_used_share"))
    memory = proxy.rss_bytes()
    async with _away(postgres):
        if other is not None:
            run.wrong += sum(each.status != 200 for each in await some("strict", _BEFORE))
            _take_the_rest(other)
        for grade in ("strict", "standard"):
            await until_refused(grade)
        run.wrong += sum(_unrecorded(each) for each in await some("usage", _MORE))
        for grade in ("strict", "standard"):
            run.wrong += sum(not _unrecorded(each) for each in await some(grade, _MORE))
        await asyncio.to_thread(_alerted, proxy, run)
        run.shares.append(await _metric(proxy, "spool_used_share"))
        run.in_memory = int(await _metric(proxy, "spool_memory_bytes"))
    run.grown = proxy.rss_bytes() - memory
    began = time.monotonic()
    while time.monotonic() < began + _PATIENCE_S:
        if (await some("strict", 1))[0].status == 200:
            run.serves_after_s = time.monotonic() - began
            break
        await asyncio.sleep(0.05)
    for grade in _GRADES:
        run.wrong += sum(each.status != 200 for each in await some(grade, _AT_ONCE))
    run.dropped = await _metric(proxy, "spool_dropped_total")
    await caller.close()
    return run


def _take_the_rest(other: Path) -> None:
    """Of the disk, to the last byte."""
    with other.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def _unrecorded(seen: Seen) -> bool:
    return (seen.status, seen.reason) == (503, "unrecorded")


def _alerted(proxy: ProxyProcess, run: Run) -> None:
    for name in _ALERTS:
        wanted = ("alert firing", name)
        try:
            proxy.wait_for(lambda line, wanted=wanted: (line.get("event"), line.get("alert")) == wanted, 3.0)
        except AssertionError:
            continue
        run.alerts.append(name)


async def _metric(proxy: ProxyProcess, name: str) -> float:
    return await asyncio.to_thread(proxy.metric, f"mcp_proxy_{name}")


@asynccontextmanager
async def _away(postgres: EmbeddedPostgres) -> AsyncIterator[None]:
    await postgres.stop()
    try:
        yield
    finally:
        await postgres.start()


# --- what PostgreSQL has in the end ---------------------------------------------------------------------------------


@dataclass
class Rows:
    """Of one tenant."""

    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    """Kind -> ids."""
    summed: int = 0
    """What the summaries count."""

    def of(self, kind: str) -> Counter[str]:
        """How often each id is there."""
        return self.kinds.get(kind, Counter())

    @property
    def accounted(self) -> int:
        """Calls of which something is known."""
        return self.of("outcome").total() + self.of("denied").total() + self.summed


async def _rows(postgres: EmbeddedPostgres, who: Someone, calls: Sequence[Seen]) -> Rows:
    """When they account for all calls, or have had the time to."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        rows = Rows()
        statement = "SELECT kind, id, arguments::text FROM audit_logs WHERE tenant_id = $1::text::uuid"
        for row in await execute(postgres.owner_dsn, statement, who.tenant):
            rows.kinds.setdefault(row["kind"], Counter())[str(row["id"])] += 1
            rows.summed += json.loads(row["arguments"])["dropped"] if row["kind"] == "summary" else 0
        if rows.accounted >= len(calls) or time.monotonic() > until:
            return rows
        await asyncio.sleep(0.2)


def _compared(disk: str, run: Run, rows: Mapping[str, Rows]) -> list[Figure]:
    lost = doubled = unaccounted = 0
    for grade, calls in run.calls.items():
        found, served = rows[grade], [each.request_id for each in calls if each.status == 200]
        doubled += sum(count > 1 for ids in found.kinds.values() for count in ids.values())
        unaccounted += abs(found.accounted - len(calls))
        if grade != "usage":
            lost += sum(name not in found.of("intent") or name not in found.of("outcome") for name in served)
        print(f"  {disk}, {grade}: {len(calls)} calls, {len(served)} served; rows "
              f"{ {kind: ids.total() for kind, ids in found.kinds.items()} }, summed {found.summed}")  # fmt: skip
    summed = sum(each.summed for each in rows.values())
    at_first, when_full, *_ = run.shares
    print(f"  {disk}: share {at_first:.2f}, then {when_full:.2f}; alerts {run.alerts}; {run.in_memory} bytes waited in "
          f"memory, {run.dropped:.0f} counted; memory grown by {run.grown / 2**20:.1f} MiB")  # fmt: skip
    return [
        Figure(f"disk of 1 MiB, {disk}: calls not answered as their grade says", run.wrong, 0, ""),
        Figure(f"disk of 1 MiB, {disk}: served calls (strict, standard) whose rows are missing", lost, 0, ""),
        Figure(f"disk of 1 MiB, {disk}: rows that are there twice", doubled, 0, ""),
        Figure(f"disk of 1 MiB, {disk}: calls neither in rows nor counted", unaccounted, 0, ""),
        Figure(f"disk of 1 MiB, {disk}: counts in rows, less those of the metrics", abs(summed - run.dropped), 0, ""),
        Figure(f"disk of 1 MiB, {disk}: waited in memory", run.in_memory / (1 << 10), 2 * _MEMORY_KIB, "KiB"),
        Figure(f"disk of 1 MiB, {disk}: nothing was counted", not rows["usage"].summed, 0, ""),
        Figure(f"disk of 1 MiB, {disk}: alerts at 50 and 80 % that did not come", 2 - len(run.alerts), 0, ""),
        Figure(f"disk of 1 MiB, {disk}: PostgreSQL back until strict calls are served", run.serves_after_s, 5, "s"),
    ]  # fmt: skip


if __name__ == "__main__":
    from benchmarks.rig import conclude

    sys.exit(conclude(figures(short="--short" in sys.argv)))
