"""The record when it is big: searches, dropping of a day, verification, on a real PostgreSQL with every index.

python -m tests.proofs.record_size [--short] [--only size|chains]     the last line printed is `failed: N`

Five million rows of twenty tenants over five days are searched by tenant and time, and one of the days is dropped while
rows are added and searched. A million rows in chains are verified from the database and from an export, and then again
and again with one row changed, removed, inserted or moved in each of many chains at once: each has to be named, and
nothing else. Takes some minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg

from benchmarks.load import percentile
from benchmarks.rig import Figure, conclude
from proxy.audit.chain import Head
from proxy.audit.passages import head_to_json, to_json
from proxy.audit.verify import Report
from proxy.commands import audit_files
from proxy.commands.audit_source import Range
from proxy.commands.audit_verify import verify_database
from proxy.store.accounts import administration
from proxy.store.audit_copy import reading
from proxy.store.audit_search import Wanted, search
from proxy.store.database import Bounds, Database, Places
from tests.unit.audit.trails import KEYS, SIGNER, record, trail_of
from tests.unit.store.engine import execute, login_dsn, migrated_database, owner_dsn
from tests.unit.store.recorded import add_lines, add_signed

#: Midnight (UTC) of the day whose rows are verified, and of the first of those that are searched.
DAY: Final = datetime(2026, 11, 10, tzinfo=UTC)
FIRST: Final = DAY - timedelta(days=7)
TENANTS: Final = [f"00000000-0000-4000-8000-{number:012d}" for number in range(1, 21)]


@dataclass(frozen=True)
class Length:
    """How much of it."""

    rows: int = 5_000_000
    searches: int = 500
    verified: int = 1_000_000
    segment: int = 30_000
    """Rows of one segment, of three tenants: 16 MiB hold about so many."""
    rounds: int = 3
    """Of forgery, each with one row in every chain."""


SHORT: Final = Length(rows=60_000, searches=40, verified=24_000, segment=2_000, rounds=2)

# --- many rows ------------------------------------------------------------------------------------------------------

#: Rows of a day, as varied as those of real calls are; their chains are not looked at.
_FILL: Final = """INSERT INTO audit_logs (tenant_id, ts, id, kind, segment, seq, chain, actor_type, actor_id, key_id,
    auth_source, action, resource_type, resource_id, server_name, route_name, http_method, era, protocol_version,
    status_code, outcome, risk_level, duration_ms, auth_ms, queue_ms, bytes_in, bytes_out, messages, tries, streamed,
    client_ip, user_agent, session_ref, trace_id, span_id, instance)
SELECT ($1::uuid[])[1 + n % 20], $2::timestamptz + n * ($3::float8 / $4) * interval '1 second',
    gen_random_uuid(), CASE n % 2 WHEN 0 THEN 'intent' ELSE 'outcome' END, 'proof/' || n / 30000, n % 30000,
    sha256(n::text::bytea), 'api_key', 'key:' || n % 20 || '-' || n / 20 % 50,
    'id' || n % 20 || '-' || n / 20 % 50, 'api_key', 'tools/call', 'tool',
    'tool_' || n % 113, 'server_' || n % 37, 'server_' || n % 37, 'POST', 'modern', '2025-11-25', 200,
    CASE n % 2 WHEN 1 THEN CASE WHEN n % 47 = 1 THEN 'error' ELSE 'ok' END END,
    CASE WHEN n % 1000 = 7 THEN 'high' ELSE 'low' END, 12.345, 0.012, 0.25, 231, 1834, 1, 1, false,
    '192.0.2.0'::inet + n % 256, 'client/1.0', md5(n::text), md5((n + 1)::text), left(md5((n + 2)::text), 16), 'one'
FROM generate_series(1, $4::int) AS n"""


async def fill(name: str, length: Length) -> None:
    """Five days of rows, each in its partition, and the tenants."""
    dsn, days = owner_dsn(name), 5
    await execute(dsn, "INSERT INTO tenants (id, slug, name) SELECT id, id, id FROM unnest($1::uuid[]) AS id", TENANTS)
    await execute(dsn, "SELECT create_partitions($1, interval '10 days')", FIRST)
    connection = await asyncpg.connect(dsn)
    try:
        for day in range(days):
            await connection.execute(
                _FILL, TENANTS, FIRST + timedelta(days=day), 86_400.0, length.rows // days, timeout=600
            )
        await connection.execute("VACUUM (ANALYZE) audit_logs", timeout=600)
    finally:
        await connection.close()


async def search_figures(name: str, length: Length) -> list[Figure]:
    """How long searches by tenant and time take, those with a further filter included."""
    rng, taken, found = random.Random(7), dict[str, list[float]](), 0
    async with opened(name) as database:
        for number in range(length.searches):
            since = FIRST + timedelta(seconds=rng.uniform(0, 4 * 86_400))
            until = since + timedelta(seconds=rng.choice((60, 3600, 86_400, 5 * 86_400)))
            place = rng.randrange(len(TENANTS))
            more: Mapping[str, Any] = (
                {}, {"who": f"key:{place}-{rng.randrange(50)}"}, {"outcome": "error"},
                {"target": f"tool_{rng.randrange(113)}"},
            )[number % 4]  # fmt: skip
            wanted = Wanted(since, until, TENANTS[place], **more)
            began = time.perf_counter()
            async with administration(database) as session:
                rows = await search(session, wanted, 100)
            what = "tenant, time and " + " ".join(more) if more else "tenant and time"
            taken.setdefault(what, []).append((time.perf_counter() - began) * 1000)
            found += len(rows)
    figures = []
    for what, times in sorted(taken.items()):
        times.sort()
        # What has few rows over a long time is looked for in many.
        target = 1000 if length == SHORT else 100 if what == "tenant and time" else 500
        print(f"  by {what}: p50 {percentile(times, 50):.1f} ms, worst {times[-1]:.1f} ms")
        figures.append(Figure(f"{len(times)} searches by {what}: p99", percentile(times, 99), target, "ms"))
    print(f"  {found} of {length.rows} rows found")
    return figures


async def drop_figures(name: str, length: Length) -> list[Figure]:
    """How long the drop of a day takes, and what others notice of it."""
    waited: list[float] = []
    done, longest_s = asyncio.Event(), 1 if length == SHORT else 0.1
    async with opened(name) as database, asyncio.TaskGroup() as group:
        for work in (_add_one, _search_one):
            group.create_task(_repeat(work, database, waited, done))
        await asyncio.sleep(0.2)
        began = time.perf_counter()
        async with database.across_tenants("write") as session:
            aside = await session.fetch_value(
                "/* proof.retire */ SELECT retire_partition($1)", f"audit_logs_{FIRST:%Y%m%d}"
            )
        async with database.across_tenants("write") as session:
            await session.execute("/* proof.drop */ SELECT drop_retired_partition($1)", aside)
        took = time.perf_counter() - began
        await asyncio.sleep(0.2)
        done.set()
    left = await execute(owner_dsn(name), "SELECT count(*) FROM audit_logs WHERE ts < $1", FIRST + timedelta(days=1))
    return [
        Figure(f"a day of {length.rows // 5} rows dropped in", took, 1, "s"),
        Figure("  rows of it that are left", left[0][0], 0, ""),
        Figure(f"  longest of {len(waited)} writes and searches meanwhile", max(waited), longest_s, "s"),
    ]  # fmt: skip


async def _repeat(work: Any, database: Database, waited: list[float], done: asyncio.Event) -> None:
    while not done.is_set():
        began = time.perf_counter()
        await work(database)
        waited.append(time.perf_counter() - began)


async def _add_one(database: Database) -> None:
    async with database.audit() as session:
        await session.execute(
            "/* proof.add */ INSERT INTO audit_logs (tenant_id, ts, id, kind, actor_type, action)"
            " VALUES ($1, $2, gen_random_uuid(), 'intent', 'system', 'x')",
            TENANTS[0],
            DAY,
        )


async def _search_one(database: Database) -> None:
    async with administration(database) as session:
        await search(session, Wanted(FIRST + timedelta(days=2), FIRST + timedelta(days=3), TENANTS[3]), 10)


class opened:
    """A database as the proxy uses it."""

    def __init__(self, name: str) -> None:
        self._database = Database(
            Places(login_dsn(name)), {"write": Bounds(connections=5, acquire_s=30, statement_s=60)}
        )

    async def __aenter__(self) -> Database:
        await self._database.open()
        return self._database

    async def __aexit__(self, *_: object) -> None:
        await self._database.close()


# --- verification ---------------------------------------------------------------------------------------------------


def segments_of(length: Length) -> Iterator[tuple[list[bytes], list[Head]]]:
    """Segments one after the other: intents and outcomes of three tenants."""
    total = 0
    while total < length.verified:
        rows = []
        for number in range(total, min(total + length.segment, length.verified)):
            seconds, us = divmod(number * 80_000, 1_000_000)
            at = f"{DAY:%Y-%m-%d}T{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{us:06d}Z"
            rows.append(record(number, TENANTS[number % 3], timestamp=at))
        yield trail_of(rows, f"proof/{total // length.segment + 1}")
        total += length.segment


async def add_trail(name: str, length: Length, path: Path) -> list[Head]:
    """Put the rows into the database, and into a file as 'audit export --whole' writes it; their heads."""
    heads: list[Head] = []
    rows = path.with_suffix(".rows")
    with open(rows, "wb") as file:
        for lines, some in segments_of(length):
            await add_lines(owner_dsn(name), lines)
            file.writelines(to_json(line) + b"\n" for line in lines)
            heads += some
    await add_signed(owner_dsn(name), heads)
    with open(path, "wb") as whole, open(rows, "rb") as file:
        whole.writelines(head_to_json(head, SIGNER.key_id, SIGNER.sign(head.text())) + b"\n" for head in heads)
        while block := file.read(1 << 20):
            whole.write(block)
    rows.unlink()
    await execute(owner_dsn(name), "ANALYZE audit_logs")
    return heads


async def verified(name: str) -> tuple[Report, float]:
    """What the command finds in the database, and the seconds that took."""
    began, cpu_s = time.perf_counter(), time.process_time()
    async with reading(login_dsn(name)) as reader:
        report = await verify_database(reader, Range(DAY, DAY + timedelta(days=1), None), KEYS)
    took, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    print(f"  {report.rows} rows read and verified in {took:.2f} s, of which {cpu_s:.2f} s CPU of ours")
    return report, took


async def verify_figures(name: str, length: Length) -> list[Figure]:
    """How fast the untouched trail is verified."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "export.jsonl")
        heads = await add_trail(name, length, path)
        report, took = await verified(name)
        size = path.stat().st_size / length.verified
        began = time.perf_counter()
        exported = await asyncio.to_thread(audit_files.verified, [path], KEYS)
        file_took = time.perf_counter() - began
    print(f"  {length.verified} rows from the database: {report.rows / took:,.0f} rows/s ({took:.2f} s)")
    print(f"  from an export of {size:.0f} bytes a row: {exported.rows / file_took:,.0f} rows/s ({file_took:.2f} s)")
    least = 1_000 if length == SHORT else 200_000  # the start of a process counts
    return [
        Figure(f"{length.verified} rows in {len(heads)} chains: findings", sum(report.counts.values()), 0, ""),
        Figure("  rows not looked at", length.verified - report.rows, 0, ""),
        Figure("  verified from the database, seconds a million rows", took / report.rows * 1e6, 1e6 / least, "s"),
        Figure("  findings in the export", sum(exported.counts.values()) + length.verified - exported.rows, 0, ""),
        Figure("  verified from the export, seconds a million rows", file_took / exported.rows * 1e6, 1e6 / least, "s"),
        *await forgery_figures(name, length, heads),
    ]


#: What is done to a row of a chain: $1 tenant, $2 segment, $3 place, $4 the time from which the rows are.
_ROW: Final = "tenant_id = $1 AND segment = $2 AND seq = $3 AND ts >= $4"
_PAIR: Final = _ROW.replace("= $3", "IN ($3, $3 + 1)")
_FORGERIES: Final[Mapping[str, str]] = {
    "changed": f"UPDATE audit_logs SET outcome = 'forged' WHERE {_ROW}",
    "missing": f"DELETE FROM audit_logs WHERE {_ROW}",
    "inserted": f"""WITH more AS (INSERT INTO forged SELECT * FROM audit_logs WHERE {_ROW} RETURNING *)
        INSERT INTO audit_logs (tenant_id, ts, id, kind, segment, seq, chain, actor_type, action)
        SELECT tenant_id, ts, gen_random_uuid(), kind, segment, seq, chain, actor_type, action FROM more""",
    "reordered": f"UPDATE audit_logs SET seq = CASE seq WHEN $3 THEN $3 + 1 ELSE $3 END WHERE {_PAIR}",
}
_SAVE: Final = f"INSERT INTO saved SELECT * FROM audit_logs WHERE {_PAIR}"
_PREPARE: Final = """CREATE UNLOGGED TABLE saved (LIKE audit_logs); CREATE UNLOGGED TABLE forged (LIKE audit_logs);
    CREATE INDEX ON audit_logs (segment, seq); ANALYZE audit_logs"""
_RESTORE: Final = """DELETE FROM audit_logs AS a USING saved AS s
        WHERE a.tenant_id = s.tenant_id AND a.segment = s.segment AND a.seq = s.seq;
    INSERT INTO audit_logs SELECT * FROM saved; TRUNCATE saved"""


async def forgery_figures(name: str, length: Length, heads: Sequence[Head]) -> list[Figure]:
    """One row of each chain, in every round another and in another way: is it named, and nothing else?"""
    rng, found, silent, wrong, done = random.Random(11), 0, 0, 0, 0
    connection = await asyncpg.connect(owner_dsn(name))
    try:
        await connection.execute(_PREPARE, timeout=600)
        for number in range(length.rounds):
            expected = set()
            for place, head in enumerate(heads):
                kind, seq = list(_FORGERIES)[(place + number) % len(_FORGERIES)], rng.randrange(1, head.rows)
                for statement in (_SAVE, _FORGERIES[kind]):
                    await connection.execute(statement, head.tenant, head.segment, seq, DAY)
                places = (seq, seq + 1) if kind == "reordered" else (seq,)
                expected |= {(kind, head.tenant, head.segment, each) for each in places}
            report, _ = await verified(name)
            told = {(each.kind, each.tenant, each.segment, each.first) for each in report.findings}
            done, found = done + len(expected), found + len(expected & told)
            silent, wrong = silent + len(expected - told), wrong + len(told - expected)
            await connection.execute(_RESTORE, timeout=600)
        report, _ = await verified(name)
    finally:
        await connection.close()
    print(f"  {found} of {done} forged rows named, in {length.rounds} rounds over {len(heads)} chains")
    return [
        Figure(f"{done} forged rows: not named as what they are", silent, 0, ""),
        Figure("  named, but not forged", wrong, 0, ""),
        Figure("  findings when all is as it was again", sum(report.counts.values()), 0, ""),
    ]


async def run(length: Length, only: str = "") -> list[Figure]:
    """Everything, or `size` or `chains` alone; in a database of its own each."""
    figures: list[Figure] = []
    if only != "chains":
        async with migrated_database() as name:
            await fill(name, length)
            figures += [*await search_figures(name, length), *await drop_figures(name, length)]
    if only != "size":
        async with migrated_database() as name:
            await execute(owner_dsn(name), "SELECT create_partitions($1, interval '1 day')", DAY)
            figures += await verify_figures(name, length)
    return figures


def figures(short: bool) -> list[Figure]:
    """Millions of rows searched and dropped; a million verified, and again with rows that were forged."""
    return asyncio.run(run(SHORT if short else Length()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="some seconds, wider targets")
    parser.add_argument("--only", choices=("size", "chains"), default="", help="one half of it")
    given = parser.parse_args(arguments)
    return conclude(asyncio.run(run(SHORT if given.short else Length(), given.only)))


if __name__ == "__main__":
    sys.exit(main())
