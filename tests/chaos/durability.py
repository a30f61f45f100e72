"""No record is lost and none is doubled: PostgreSQL goes away, and a process is killed again and again (D1, D2). Nor
is a secret found in any of it (D7).

Two proxies of one host share a spool; one is killed with SIGKILL every so often and started anew, the other takes over
what it left. Halfway their PostgreSQL is stopped, or frozen. Clients note the `X-Request-Id` of every answer. At the
end all names are compared with the rows: none is missing, none is there twice, and a row that nobody was answered for
says that its process crashed. A proxy whose PostgreSQL stays is called at the same pace: what an outage costs is
compared in pairs of neighbouring windows, since this machine is noisy.
"""

from __future__ import annotations

import asyncio
import json
import signal
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg

from benchmarks.rig import Figure
from proxy.store.embedded import EmbeddedPostgres
from tests.chaos.calling import QUIET, Caller, Seen, p99_ms
from tests.chaos.setting import server
from tests.harness import ProxyProcess, ScriptedUpstream, answer_json, post, scripted_upstream
from tests.proofs.known import Someone, admit, config, own_postgres, someone
from tests.unit.store.engine import execute, login_dsn, migrated_database, owner_dsn
from tests.unit.store.test_pool import frozen

#: What nobody may find anywhere (D7), besides what a key shows: arguments named like secrets, or shaped like some.
PLANTED: Final = {"password": "planted-argument-5f1d7c", "note": "use ghp_A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8 for it"}
_WINDOW_S: Final = 2.0
#: From the return of PostgreSQL.
_BACKLOG_S: Final = 10.0


@dataclass
class Length:
    """How much of it; seconds."""

    before_s: float = 60.0
    outage_s: float = 60.0
    after_s: float = 30.0
    per_s: float = 300.0
    kill_every_s: float = 10.0
    shipped_s: float = 10.0


SHORT: Final = Length(2.0, 4.0, 2.0, 100.0, 3.0, 3.0)


@dataclass
class Rows:
    """What PostgreSQL has in the end."""

    intents: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    unknown: set[str] = field(default_factory=set)
    """Their process crashed."""


def stopped(short: bool) -> list[Figure]:
    """D1."""
    return asyncio.run(_measure(SHORT if short else Length(), "stopped", short))


def held(short: bool) -> list[Figure]:
    """D2."""
    return asyncio.run(_measure(SHORT if short else Length(), "frozen", short))


class Victim:
    """A proxy that is killed and started anew on the same state."""

    def __init__(self, settings: dict[str, Any], folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self.proxy: ProxyProcess
        self.caller: Caller
        self.kills = 0

    async def start(self) -> None:
        """Serve."""
        self._folder.mkdir(exist_ok=True)
        self.proxy = await asyncio.to_thread(ProxyProcess, self._settings, self._folder)
        self.caller = Caller(self.proxy.port)

    async def die(self) -> None:
        """SIGKILL, and a new process."""
        self.proxy.process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(self.proxy.process.wait)
        await asyncio.to_thread(self.proxy.stop)
        self.kills += 1
        before = self.caller
        await self.start()
        await before.close()


async def _measure(length: Length, outage: str, short: bool) -> list[Figure]:
    who = someone("key")
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(scripted_upstream(answer_json))
        postgres = await stack.enter_async_context(own_postgres())
        await admit(postgres.owner_dsn, [who])
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mcp-manager-")))
        shared = _settings(postgres.dsn, upstream.port, folder / "state")
        victim = Victim(shared, folder / "victim")
        await victim.start()
        stack.push_async_callback(lambda: asyncio.to_thread(victim.proxy.stop))
        stack.push_async_callback(lambda: victim.caller.close())
        survivor = await stack.enter_async_context(_proxy(shared, folder / "survivor"))
        name = await stack.enter_async_context(migrated_database())
        await admit(owner_dsn(name), [who])
        other = await stack.enter_async_context(
            _proxy(_settings(login_dsn(name), upstream.port, folder / "other-state"), folder / "other")
        )
        callers = Caller(survivor.port), Caller(other.port)
        for caller in callers:
            stack.push_async_callback(caller.close)
        run = _Run(length, who, victim, *callers, upstream)
        rss = survivor.rss_bytes()
        await run.go(length.before_s)
        rss_before = survivor.rss_bytes()
        began = len(run.pairs)
        async with _away(postgres, outage):
            await run.go(length.outage_s)
            in_files = _in_files(folder, who)
        ended = len(run.pairs)
        grown = survivor.rss_bytes() - rss_before
        healed = time.monotonic()
        waiting = {each.request_id for each in run.seen if each.status == 200}
        drained = asyncio.create_task(_drained(postgres.owner_dsn, waiting, length.after_s + _BACKLOG_S))
        await run.go(length.after_s)
        drained_s = await drained - healed
        await asyncio.sleep(length.shipped_s)
        rows = await _rows(postgres.owner_dsn)
        in_rows = await _in_rows(postgres.owner_dsn, who)
        in_files += _in_files(folder, who) + _in_lines([survivor, victim.proxy], who)
    print(f"  {outage}: {len(run.seen)} calls, {victim.kills} kills; memory before {rss >> 20} MiB, "
          f"grown by {grown / 2**20:.1f} MiB; backlog gone after {drained_s:.1f} s")  # fmt: skip
    return [
        *_compared(run.seen, rows, outage),
        Figure(f"{outage}: p99 of the others' calls in the outage, by before", run.ratio(began, ended),
               3.0 if short else 1.1, "x"),
        Figure(f"{outage}: memory grown", grown / 2**20, 20.0, "MiB"),
        Figure(f"{outage}: backlog gone after", drained_s, _BACKLOG_S, "s"),
        Figure(f"{outage}: planted secrets in spool, state and log", in_files, 0, ""),
        Figure(f"{outage}: planted secrets in rows", in_rows, 0, ""),
    ]  # fmt: skip


def _settings(dsn: str, port: int, state_dir: Path) -> dict[str, Any]:
    record = {"arguments": "sanitised", "results": "sanitised"}
    return {**config(dsn, port, str(state_dir)), "servers": {"up": server(port)}, **QUIET, "record": record,
            "log": {"access": True}}  # fmt: skip


@asynccontextmanager
async def _proxy(settings: dict[str, Any], folder: Path) -> AsyncIterator[ProxyProcess]:
    folder.mkdir()
    proxy = await asyncio.to_thread(ProxyProcess, settings, folder)
    try:
        yield proxy
    finally:
        await asyncio.to_thread(proxy.stop)


@asynccontextmanager
async def _away(postgres: EmbeddedPostgres, how: str) -> AsyncIterator[None]:
    if how == "frozen":
        with frozen(postgres):
            yield
        return
    await postgres.stop()
    try:
        yield
    finally:
        await postgres.start()


class _Run:
    """Calls at a steady pace to the two that share a spool, and to the other one."""

    def __init__(
        self, length: Length, who: Someone, victim: Victim, survivor: Caller, other: Caller, upstream: ScriptedUpstream
    ) -> None:
        self._length, self._victim, self._survivor, self._other = length, victim, survivor, other
        self._upstream = upstream
        self._kill_at = time.monotonic() + length.kill_every_s
        body = json.dumps(
            {"jsonrpc": "2.0", "id": 1, "method": "tools/call",
             "params": {"name": "look", "arguments": PLANTED}}
        ).encode()  # fmt: skip
        self._request = post("/up/mcp", body, ": ".join(who.header))
        #: Of the two that share a spool.
        self.seen: list[Seen] = []
        #: p99 of the survivor and of the other in each window, milliseconds.
        self.pairs: list[tuple[float, float]] = []

    async def go(self, seconds: float) -> None:
        """So long, in windows."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0.05:
            await self._window(min(_WINDOW_S, left))

    async def _window(self, seconds: float) -> None:
        ended = asyncio.Event()
        per_s = self._length.per_s
        asyncio.get_running_loop().call_later(seconds, ended.set)
        killing = asyncio.create_task(self._victim.die()) if time.monotonic() >= self._kill_at else None
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._victim.caller.keep_pace(per_s / 3, lambda: self._request, ended)),
                group.create_task(self._survivor.keep_pace(per_s * 2 / 3, lambda: self._request, ended)),
                group.create_task(self._other.keep_pace(per_s * 2 / 3, lambda: self._request, ended)),
            ]
        if killing is not None:
            await killing
            self._kill_at = time.monotonic() + self._length.kill_every_s
        of_victim, of_survivor, of_other = (task.result() for task in tasks)
        self._upstream.seen.clear()
        self.seen += of_victim + of_survivor
        if killing is None:  # the start of a process takes a whole core of these machines for two seconds
            self.pairs.append((p99_ms(of_survivor), p99_ms(of_other)))

    def ratio(self, began: int, ended: int) -> float:
        """How much more the survivor's calls took than the other's in the outage, by the same before it."""
        return _ratio(self.pairs[began:ended]) / _ratio(self.pairs[:began])


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """The mean of the middle half: one slow moment of the machine counts as little as one fast one."""
    ratios = sorted(mine / others for mine, others in pairs)
    quarter = len(ratios) // 4
    return statistics.fmean(ratios[quarter : len(ratios) - quarter])


async def _drained(dsn: str, names: set[str], patience_s: float) -> float:
    """When every one of these calls has its outcome in PostgreSQL; infinity if some still have none."""
    count = "SELECT count(DISTINCT id) AS n FROM audit_logs WHERE kind = 'outcome' AND id = ANY($1::text[]::uuid[])"
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        with suppress(asyncpg.DeadlockDetectedError):  # partitions are being made, and somebody has to give way
            [row] = await execute(dsn, count, list(names))
            if row["n"] == len(names):
                return time.monotonic()
        await asyncio.sleep(0.2)
    return float("inf")


async def _rows(dsn: str) -> Rows:
    rows = Rows()
    for row in await execute(dsn, "SELECT id, kind, outcome FROM audit_logs"):
        counts = rows.intents if row["kind"] == "intent" else rows.outcomes
        counts[str(row["id"])] += 1
        if row["outcome"] == "unknown":
            rows.unknown.add(str(row["id"]))
    return rows


def _secrets(who: Someone) -> list[str]:
    """What may stand nowhere."""
    return [PLANTED["password"], PLANTED["note"].split()[1], who.value.rsplit("_", 2)[-2]]


def _in_files(folder: Path, who: Someone) -> int:
    """Secrets in files of the proxies, but for the configuration, which says where PostgreSQL is."""
    found = 0
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "config.yaml":
            held = path.read_bytes()
            found += sum(secret.encode() in held for secret in _secrets(who))
    return found


def _in_lines(proxies: Sequence[ProxyProcess], who: Someone) -> int:
    text = "\n".join(json.dumps(line) for proxy in proxies for line in proxy.lines)
    assert '"rpc_method": "tools/call"' in text  # the log was on
    return sum(secret in text for secret in _secrets(who))


async def _in_rows(dsn: str, who: Someone) -> int:
    """Secrets in any column of any table."""
    tables = await execute(dsn, "SELECT quote_ident(tablename) AS name FROM pg_tables WHERE schemaname = 'public'")
    found = 0
    for table in tables:
        for secret in _secrets(who):
            [row] = await execute(
                dsn, f"SELECT count(*) FROM {table['name']} AS t WHERE t::text LIKE $1", f"%{secret}%"
            )
            found += row["count"]
    return found


def _compared(seen: Sequence[Seen], rows: Rows, outage: str) -> list[Figure]:
    answered = {each.request_id for each in seen if each.status == 200}
    named = {each.request_id for each in seen if each.request_id}
    missing = [name for name in answered if name not in rows.intents or name not in rows.outcomes]
    doubled = [name for counts in (rows.intents, rows.outcomes) for name, count in counts.items() if count > 1]
    extra = [name for name in rows.outcomes if name not in named and name not in rows.unknown]
    alone = [name for name in rows.intents if name not in rows.outcomes]
    print(f"  {outage}: {len(answered)} answered, {len(rows.outcomes)} outcomes, {len(rows.unknown)} of them unknown; "
          f"refused {dict(Counter(each.reason for each in seen if each.reason))}")  # fmt: skip
    return [
        Figure(f"{outage}: answered calls whose rows are missing", len(missing), 0, ""),
        Figure(f"{outage}: rows that are there twice", len(doubled), 0, ""),
        Figure(f"{outage}: rows that nobody was answered for, and no crash", len(extra), 0, ""),
        Figure(f"{outage}: intents without an outcome", len(alone), 0, ""),
    ]
