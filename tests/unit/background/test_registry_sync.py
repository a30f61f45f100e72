"""The registry in memory against a real PostgreSQL: told, not told, cut off, stopped and frozen."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from structlog.testing import capture_logs

from proxy.background import registry_sync
from proxy.background.registry_sync import Changed, RegistrySync
from proxy.store.database import Bounds, Database, Places
from proxy.store.embedded import EmbeddedPostgres
from proxy.store.listen import Notices
from proxy.store.migrate import migrator
from proxy.store.registry import TABLES, Registry
from proxy.store.registry_file import RegistryFile
from tests.unit.store.engine import (
    PATIENT,
    empty_database,
    execute,
    folder,
    login_dsn,
    migrated_database,
    owner_dsn,
)

ACME = "11111111-1111-1111-1111-111111111111"
SECRET = b"0123456789abcdef0123456789abcdef"
TENANT = f"INSERT INTO tenants (id, slug, name) VALUES ('{ACME}', 'acme', 'Acme')"
KEYS = (
    "INSERT INTO enhanced_api_keys (id, tenant_id, name, secret_hmac) "
    f"SELECT lpad(n::text, 12, '0'), '{ACME}', 'k', sha256(n::text::bytea) FROM generate_series(1, $1) n"
)
REVOKE = "UPDATE enhanced_api_keys SET revoked_at = now() WHERE id = $1"
FLAG = f"INSERT INTO feature_flags (tenant_id, key) VALUES ('{ACME}', $1) RETURNING id::text"
#: The longest that a test waits for what a step does, seconds: enough for a busy machine.
SOON = 15.0


def key(number: int) -> str:
    """The id of a key."""
    return f"{number:012}"


@contextmanager
def frozen(server: EmbeddedPostgres) -> Iterator[None]:
    """Every process of the server is stopped for as long as the block lasts; some end as soon as they may go on."""
    pid = int((server.directory / "cluster" / "postmaster.pid").read_text().split("\n")[0])
    processes = [psutil.Process(pid)]
    processes[0].suspend()
    processes += processes[0].children(recursive=True)
    for process in processes[1:]:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


@dataclass
class Seen:
    """What a registry sync told, and when."""

    applied: list[tuple[float, Registry, Changed | None]] = field(default_factory=list)
    fresh: list[tuple[float, bool]] = field(default_factory=list)
    fails: Callable[[Collection[tuple[str, str]] | None], bool] = lambda _: False

    async def apply(self, registry: Registry, changed: Changed | None) -> None:
        self.applied.append((time.monotonic(), registry, changed))
        if self.fails(changed):
            raise ValueError("a bug")

    def freshness(self, fresh: bool) -> None:
        self.fresh.append((time.monotonic(), fresh))

    @property
    def changes(self) -> list[Changed | None]:
        return [changed for _, _, changed in self.applied]

    def every_change(self) -> set[tuple[str, str]]:
        return {pair for changed in self.changes for pair in changed or ()}


@dataclass
class Sync:
    """One sync with what it needs; `running()` does what the loops of a process do."""

    dsn: str
    path: Path
    clock: Callable[[], float] = time.monotonic
    bounds: Bounds = PATIENT
    """Of the proxy, for tests of a server that does not answer."""
    seen: Seen = field(default_factory=Seen)
    errors: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.database = Database(Places(self.dsn), {"write": self.bounds}, self.clock)
        self.notices = Notices(self.dsn, self.clock, lambda: 0.5)
        self.file = RegistryFile(self.path, SECRET)
        self.sync = RegistrySync(
            self.database, self.notices, self.file, self.seen.apply, self.seen.freshness, self.clock
        )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Sync]:
        """Ready to connect, and loaded."""
        await self.database.open()
        try:
            if self.bounds is PATIENT:  # connecting may take a busy machine longer than loading waits for it
                async with self.database.across_tenants("write"):
                    pass
            await self.sync.load()
            yield self
        finally:
            await self.sync.close()
            await self.notices.close()
            await self.database.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Sync]:
        """With its loops."""
        async with self.opened():
            tasks = [asyncio.create_task(self._steps()), asyncio.create_task(self._probes())]
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended

    async def _steps(self) -> None:
        while True:
            try:
                await self.sync.step()
            except ValueError as error:  # as the supervisor does
                self.errors.append(error)
            await asyncio.sleep(0.05)

    async def _probes(self) -> None:
        while True:
            await self.database.probe()
            await asyncio.sleep(0.25)

    async def until(self, condition: Callable[[], object], within_s: float) -> float:
        """Wait for something; returns the seconds that it took."""
        began = time.monotonic()
        while not condition():
            waited = time.monotonic() - began
            assert waited < within_s, f"not within {within_s} s; applied {self.seen.changes!r:.400}"
            await asyncio.sleep(0.005)
        return time.monotonic() - began

    async def step_until(self, condition: Callable[[], object]) -> None:
        """Steps without loops, until something holds."""
        for _ in range(30):
            if condition():
                return
            await self.sync.step()
        raise AssertionError(f"not after 30 steps; applied {self.seen.changes!r:.400}")

    def has(self, table: str, identity: str, **values: Any) -> bool:
        """Whether the registry that was applied last has this row with these values."""
        found = (self.seen.applied[-1][1] if self.seen.applied else self.sync.registry)[table].get(identity)
        return found is not None and all(getattr(found, name) == value for name, value in values.items())

    def revoked(self, number: int) -> bool:
        """Whether a key is revoked, for all that was applied."""
        registry = self.seen.applied[-1][1] if self.seen.applied else self.sync.registry
        row: Any = registry["enhanced_api_keys"][key(number)]
        return row.revoked_at is not None

    async def settled(self) -> None:
        """Wait until it listens and has compared once; then forget what was applied."""
        await self.until(lambda: self.notices.connected and not self.sync._unsure, SOON)
        self.seen.applied.clear()


@pytest.fixture
async def name() -> AsyncIterator[str]:
    """A database with a tenant and a hundred keys."""
    async with migrated_database() as name:
        await execute(owner_dsn(name), TENANT)
        await execute(owner_dsn(name), KEYS, 100)
        yield name


@pytest.fixture
async def running(name: str, tmp_path: Path) -> AsyncIterator[Sync]:
    """Loaded, listening, in its loops."""
    async with Sync(login_dsn(name), tmp_path / "registry").running() as running:
        await running.settled()
        yield running


@pytest.fixture
async def own() -> AsyncIterator[EmbeddedPostgres]:
    """A server that may be stopped and frozen, with a tenant and ten keys."""
    server = EmbeddedPostgres(folder() / "postgres")
    await server.start()
    async with migrator(server.owner_dsn) as migrations:
        await migrations.up()
    await server.allow()
    await execute(server.owner_dsn, TENANT)
    await execute(server.owner_dsn, KEYS, 10)
    yield server
    await server.stop()


# --- the start ------------------------------------------------------------------------------------------------------


async def test_it_starts_with_what_postgresql_says(name: str, tmp_path: Path) -> None:
    """It is fresh, nothing is applied by loading, and the first comparison finds nothing new."""
    async with Sync(login_dsn(name), tmp_path / "registry").opened() as it:
        assert len(it.sync.registry["enhanced_api_keys"]) == 100
        assert [fresh for _, fresh in it.seen.fresh] == [True]
        await it.sync.step()
        assert it.seen.applied == []
        loaded = it.sync.registry
    assert RegistryFile(tmp_path / "registry", SECRET).read() == loaded


@pytest.mark.alone
async def test_it_starts_with_its_copy_while_postgresql_is_frozen_or_down(own: EmbeddedPostgres) -> None:
    """Within two seconds, and not fresh until PostgreSQL is back; then everything is applied."""
    path = folder() / "registry"
    async with Sync(own.dsn, path).opened() as first:
        known = first.sync.registry
    with frozen(own):
        began = time.monotonic()
        async with Sync(own.dsn, path, bounds=Bounds()).opened() as late:
            assert time.monotonic() - began < 2.2
            assert late.sync.registry == known
            assert [fresh for _, fresh in late.seen.fresh] == [False]
    await own.stop()
    async with Sync(own.dsn, path, bounds=Bounds()).running() as late:
        assert late.sync.registry == known
        assert late.sync.fresh is False
        await own.start()
        await execute(own.owner_dsn, REVOKE, key(7))
        await late.until(lambda: late.seen.fresh[-1][1], SOON)
        assert late.seen.changes == [None]
        assert late.revoked(7)


@pytest.mark.parametrize(("limit", "fresh"), [("_ANSWER_S", True), ("_LOAD_S", False)])
async def test_a_server_that_answers_may_take_longer_than_one_that_does_not(
    limit: str, fresh: bool, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many rows are better than an old copy, up to a point."""
    everything = registry_sync._everything

    async def slowly(session: Any) -> Any:
        await asyncio.sleep(0.6)
        return await everything(session)

    monkeypatch.setattr(registry_sync, "_everything", slowly)
    monkeypatch.setattr(registry_sync, limit, 0.5)
    async with Sync(login_dsn(name), tmp_path / "registry").opened() as it:
        assert it.sync.fresh is fresh
        assert len(it.sync.registry["enhanced_api_keys"]) == (100 if fresh else 0)


async def test_without_postgresql_and_copy_it_starts_empty(tmp_path: Path) -> None:
    """Every table is there, so nobody has to ask; no copy is made of nothing."""
    path = tmp_path / "registry"
    async with Sync("postgresql://u@127.0.0.1:1/x", path, bounds=Bounds()).opened() as it:
        for _ in range(3):
            await it.sync.step()
        assert it.sync.registry == {table: {} for table in TABLES}
        assert (it.sync.fresh, it.seen.applied) == (False, [])
    assert not path.exists()


async def test_a_database_that_is_not_migrated_yet_is_waited_for(tmp_path: Path) -> None:
    """No step fails, and all is well soon after the migrations."""
    async with empty_database() as name, Sync(login_dsn(name), tmp_path / "registry").running() as it:
        await it.until(lambda: it.notices.connected, SOON)
        assert it.sync.fresh is False
        async with migrator(owner_dsn(name)) as migrations:
            await migrations.up()
        await it.until(lambda: it.sync.fresh, SOON)
        assert it.seen.changes == [None]


# --- changes --------------------------------------------------------------------------------------------------------


@pytest.mark.alone
async def test_a_revocation_is_applied_within_a_second(
    name: str, running: Sync, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ninety-nine of a hundred; each with its own id, and nothing else is read."""
    connection = await asyncpg.connect(owner_dsn(name))
    took = []
    for number in range(1, 101):
        await connection.execute(REVOKE, key(number))
        took.append(await running.until(lambda number=number: running.revoked(number), 5))
    await connection.close()
    took.sort()
    with capsys.disabled():
        print(f" revocation applied: p50 {statistics.median(took) * 1e3:.0f} ms, p99 {took[98] * 1e3:.0f} ms ", end="")
    assert took[98] <= 1.0
    assert running.seen.changes == [frozenset({("enhanced_api_keys", key(number))}) for number in range(1, 101)]


async def test_every_kind_of_change_is_applied(name: str, running: Sync) -> None:
    """A row that is made, one that is changed, one that is gone, and a table that is emptied."""
    (flag,) = (row["id"] for row in await execute(owner_dsn(name), FLAG, "x"))
    await running.until(lambda: running.has("feature_flags", flag, is_enabled=False), SOON)
    await execute(owner_dsn(name), "UPDATE feature_flags SET is_enabled = true")
    await running.until(lambda: running.has("feature_flags", flag, is_enabled=True), SOON)
    await execute(owner_dsn(name), "DELETE FROM feature_flags")
    await running.until(lambda: not running.has("feature_flags", flag), SOON)
    assert set(running.seen.changes) == {frozenset({("feature_flags", flag)})}
    await execute(owner_dsn(name), "TRUNCATE enhanced_api_keys CASCADE")
    await running.until(lambda: running.sync.registry["enhanced_api_keys"] == {}, SOON)
    assert running.seen.changes[-1] == {("enhanced_api_keys", key(number)) for number in range(1, 101)}


async def test_what_is_not_read_is_not_applied(name: str, running: Sync) -> None:
    """Counters, of which no notice comes, and what people call things, of which one comes."""
    await execute(owner_dsn(name), "UPDATE enhanced_api_keys SET usage_count = usage_count + 1, last_used_at = now()")
    await execute(owner_dsn(name), "UPDATE enhanced_api_keys SET name = 'other'")
    await execute(owner_dsn(name), FLAG, "after")
    await running.until(lambda: running.seen.applied, SOON)
    assert [table for changed in running.seen.changes for table, _ in changed or ()] == ["feature_flags"]


async def test_a_burst_of_thousands_of_changes_is_applied_once_and_whole(name: str, running: Sync) -> None:
    """More notices than are kept; the registry is then what PostgreSQL says."""
    await execute(owner_dsn(name), "UPDATE enhanced_api_keys SET tier = 'admin'")
    insert = f"INSERT INTO feature_flags (tenant_id, key) SELECT '{ACME}', 'f' || n FROM generate_series(1, 6000) n"
    await execute(owner_dsn(name), insert)
    await running.until(lambda: len(running.sync.registry["feature_flags"]) == 6000, 2 * SOON)
    await running.until(lambda: running.has("enhanced_api_keys", key(100), tier="admin"), SOON)
    assert len(running.seen.every_change()) == 6100
    assert len(running.seen.applied) <= 4


async def test_one_change_among_ten_thousand_rows_costs_a_few_statements(name: str, tmp_path: Path) -> None:
    """It reads the hash and the row, in one transaction."""
    await execute(owner_dsn(name), "DELETE FROM enhanced_api_keys")
    await execute(owner_dsn(name), KEYS, 10_000)
    took = []
    async with Sync(login_dsn(name), tmp_path / "registry", lambda: 100.0).opened() as it:
        await it.step_until(lambda: it.notices.connected and not it.sync._unsure)
        for number in (5000, 6000, 7000):
            await execute(owner_dsn(name), REVOKE, key(number))
            before = it.database.numbers()["write"].statements
            began = time.perf_counter()
            await it.step_until(lambda number=number: it.revoked(number))
            assert it.database.numbers()["write"].statements - before <= 4 + 2
            took.append(time.perf_counter() - began)
    assert min(took) < 0.5


# --- nobody tells ---------------------------------------------------------------------------------------------------


@pytest.mark.alone
async def test_a_change_that_nobody_tells_is_found_within_five_seconds(name: str, running: Sync) -> None:
    """The trigger is gone; the row is named all the same, and only it."""
    await execute(owner_dsn(name), "DROP TRIGGER notify_change ON enhanced_api_keys")
    for number in (3, 4):
        await execute(owner_dsn(name), REVOKE, key(number))
        assert await running.until(lambda number=number: running.revoked(number), 5) < 5
    assert running.seen.changes == [{("enhanced_api_keys", key(3))}, {("enhanced_api_keys", key(4))}]


async def test_a_change_that_nobody_tells_is_found_beside_others_that_are_told(name: str, running: Sync) -> None:
    """Reading the one of which a notice came does not hide the other one in the same table."""
    await silently(name, REVOKE, key(1))
    await execute(owner_dsn(name), REVOKE, key(2))
    await running.until(lambda: running.revoked(2), SOON)
    await running.until(lambda: running.revoked(1), SOON)
    assert running.seen.every_change() == {("enhanced_api_keys", key(number)) for number in (1, 2)}


async def silently(name: str, statement: str, *values: object) -> None:
    """As a restore does it: without triggers."""
    connection = await asyncpg.connect(owner_dsn(name), server_settings={"session_replication_role": "replica"})
    await connection.execute(statement, *values)
    await connection.close()


async def test_tables_are_compared_in_turns(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one alone, so that a notice never waits for all of them; none is left out."""
    monkeypatch.setattr(registry_sync, "_AT_ONCE", 50)
    now = [100.0]
    async with Sync(login_dsn(name), tmp_path / "registry", lambda: now[0]).opened() as it:
        await it.step_until(lambda: it.notices.connected and not it.sync._unsure)
        for _ in range(2):
            now[0] += 3.1
            turns = []
            while names := it.sync._to_compare():
                turns.append(names)
                await it.sync.step()
            assert ["enhanced_api_keys"] in turns
            assert sorted(one for names in turns for one in names) == sorted(TABLES)
            assert len(turns) <= 3


async def test_a_change_while_nobody_listens_is_found(name: str, running: Sync) -> None:
    """The listening connection is ended again and again; what happens meanwhile is applied, and it stays fresh."""
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'mcp-manager listen' AND datname = $1"
    )
    for number in (1, 2, 3):
        await execute(owner_dsn(name), end, name)
        await execute(owner_dsn(name), REVOKE, key(number))
        await running.until(lambda number=number: running.revoked(number), SOON)
    assert all(fresh for _, fresh in running.seen.fresh)


# --- PostgreSQL is away ---------------------------------------------------------------------------------------------


@pytest.mark.alone
async def test_a_frozen_server_is_noticed_and_its_return_too(own: EmbeddedPostgres, tmp_path: Path) -> None:
    """Not fresh within four seconds, fresh again within two; what is there stays there, and no step fails."""
    async with Sync(own.dsn, tmp_path / "registry", bounds=Bounds()).running() as it:
        await it.settled()
        registry = it.sync.registry
        with frozen(own):
            await it.until(lambda: not it.sync.fresh, 4)
            await asyncio.sleep(3)
            assert it.sync.registry is registry
        took = await it.until(lambda: it.sync.fresh, 2)
        print(f"healed {took:.2f} s after the thaw")
        assert it.seen.applied == []
        await execute(own.owner_dsn, REVOKE, key(1))
        await it.until(lambda: it.revoked(1), 5)


@pytest.mark.alone
async def test_a_server_that_is_killed_comes_back_with_its_changes(own: EmbeddedPostgres, tmp_path: Path) -> None:
    """A change that was noticed while reading failed is not lost, nor is one that nobody could tell."""
    async with Sync(own.dsn, tmp_path / "registry", bounds=Bounds()).running() as it:
        await it.settled()
        for number in (1, 2):
            await own.stop()
            await it.until(lambda: not it.sync.fresh, 4)
            await asyncio.sleep(number)
            await own.start()
            returned = time.monotonic()
            await execute(own.owner_dsn, REVOKE, key(number))
            await it.until(lambda: it.sync.fresh, 2)
            await it.until(lambda number=number: it.revoked(number), 5)
            print(f"healed after {time.monotonic() - returned:.2f} s")
        assert it.seen.every_change() == {("enhanced_api_keys", key(number)) for number in (1, 2)}


async def test_a_change_that_cannot_be_read_is_read_later(name: str, tmp_path: Path) -> None:
    """A lock outlasts the deadline: not fresh, and applied as soon as it is gone, long before the next comparison."""
    now = [100.0]
    bounds = Bounds(connect_s=30, acquire_s=30)
    async with Sync(login_dsn(name), tmp_path / "registry", lambda: now[0], bounds).opened() as it:
        await it.step_until(lambda: it.notices.connected and not it.sync._unsure)
        await silently(name, REVOKE, key(1))
        connection = await asyncpg.connect(owner_dsn(name))
        async with connection.transaction():
            await connection.execute("LOCK TABLE enhanced_api_keys IN ACCESS EXCLUSIVE MODE")
            await execute(
                owner_dsn(name), "SELECT pg_notify('mcp_manager', $1)",
                f'{{"table": "enhanced_api_keys", "op": "update", "id": "{key(1)}"}}',
            )  # fmt: skip
            await it.step_until(lambda: not it.sync.fresh)
            assert it.seen.applied == []
        await connection.close()
        now[0] += 0.5
        await it.sync.step()
        assert it.seen.changes == [{("enhanced_api_keys", key(1))}]
        assert it.revoked(1)
        assert it.sync.fresh


async def test_silence_is_doubted(name: str, tmp_path: Path) -> None:
    """When no step ran for a while, nothing is known until the next answer."""
    now = [100.0]
    async with Sync(login_dsn(name), tmp_path / "registry", lambda: now[0]).opened() as it:
        await it.sync.step()
        now[0] += 10
        await it.sync.step()
        assert [fresh for _, fresh in it.seen.fresh] == [True, False, True]


# --- whoever applies fails ------------------------------------------------------------------------------------------


async def test_a_bug_in_applying_loses_no_change_and_keeps_no_other_waiting(name: str, running: Sync) -> None:
    """Later changes come at once, and everything is offered again until it is taken."""
    running.seen.fails = lambda changed: changed is None or ("enhanced_api_keys", key(1)) in changed
    await execute(owner_dsn(name), REVOKE, key(1))
    await running.until(lambda: running.errors, SOON)
    for number in (2, 3):
        await execute(owner_dsn(name), REVOKE, key(number))
        await running.until(lambda number=number: {("enhanced_api_keys", key(number))} in running.seen.changes, SOON)
    await running.until(lambda: None in running.seen.changes, SOON)
    running.seen.fails = lambda changed: False
    offered = len(running.seen.applied)
    await running.until(lambda: running.seen.changes[offered:] == [None], SOON)
    assert running.sync._offer_at is None


# --- the copy -------------------------------------------------------------------------------------------------------


async def test_the_copy_follows_the_changes(name: str, running: Sync) -> None:
    """As soon as a second has passed since the one before."""
    await execute(owner_dsn(name), REVOKE, key(1))
    await running.until(lambda: running.revoked(1), SOON)
    await running.until(lambda: running.file.read() == running.sync.registry, SOON)


async def test_the_copy_is_written_once_a_second_at_most(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many changes there are; the last one is in the copy when all ends."""
    now, written = [100.0], list[float]()
    async with Sync(login_dsn(name), tmp_path / "registry", lambda: now[0]).opened() as it:
        write = it.file.write
        monkeypatch.setattr(it.file, "write", lambda registry: (written.append(now[0]), write(registry)))
        await it.step_until(lambda: it.notices.connected)
        for number in range(1, 61):
            await execute(owner_dsn(name), REVOKE, key(number))
            await it.step_until(lambda number=number: it.revoked(number))
            now[0] += 0.05
        last = it.sync.registry
    assert RegistryFile(tmp_path / "registry", SECRET).read() == last
    assert all(later - sooner >= 1 for sooner, later in itertools.pairwise(written[:-1]))
    assert 3 <= len(written) <= 6


async def test_a_disk_that_does_not_take_the_copy_is_reported_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time that it begins and ends; what could not be written is written then."""
    path = tmp_path / "state" / "registry"
    now = [100.0]
    with capture_logs() as lines:
        async with Sync(login_dsn(name), path, lambda: now[0]).opened() as it:
            for _ in range(10):
                await until_written(it)
                now[0] += 20
            path.parent.mkdir()
            await until_written(it)
            await it.sync.step()
            assert RegistryFile(path, SECRET).read() == it.sync.registry
    assert [(line["log_level"], line["event"]) for line in lines if "copy" in line["event"]] == [
        ("warning", "no copy of the registry can be kept"),
        ("info", "a copy of the registry is kept again"),
    ]


async def until_written(it: Sync) -> None:
    """A step, and the end of the writing that it began."""
    await it.sync.step()
    if it.sync._copy._writing is not None:
        await asyncio.wait([it.sync._copy._writing])


async def test_a_disk_that_hangs_holds_up_no_step(name: str, running: Sync, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the end of the process not for long."""
    gate = threading.Event()
    monkeypatch.setattr(running.file, "write", lambda registry: gate.wait(20))
    monkeypatch.setattr(registry_sync, "_CLOSE_S", 0.1)
    for number in (1, 2):
        await execute(owner_dsn(name), REVOKE, key(number))
        await running.until(lambda number=number: running.revoked(number), SOON)
        await asyncio.sleep(1.1)
    began = time.monotonic()
    await running.sync.close()
    assert time.monotonic() - began < 1
    gate.set()
