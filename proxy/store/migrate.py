"""Migrations: runs the SQL files of `sql/migrations` up and down, and says which ran.

Owns the order, the lock and the bookkeeping; the files own everything else, the role they run as included
(`SET LOCAL ROLE`). The files and the table `schema_migrations` are dbmate's, so dbmate can take over at any time. It
is not dbmate itself that runs them because dbmate (2.37) takes no lock, so that two replicas that start together race;
it stops at a failure without naming the line; it never notices that an applied file was changed; and its wheel is a
33 MB program to be found, started and given the password, where asyncpg is here already on every platform. alembic
would bring SQLAlchemy for files that are plain SQL anyway.

One file is one transaction, with its bookkeeping in it: a file that fails leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg

from proxy.store.sql_text import Half, SqlTextError, Statement, halves

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_FILE_NAME: Final = re.compile(r"([0-9]{1,20})_([a-z0-9_]{1,100})\.sql")
#: Any fixed number; it reads `mcpm` in ASCII.
_LOCK: Final = 0x6D63706D
_CONNECT_S: Final = 10.0
#: How long others may hold the lock, how often we ask, how long a statement may wait for a table; seconds.
_TURN_S: Final = 120
_ASK_S: Final = 0.1
_TABLE_S: Final = 10
#: Bookkeeping, seconds.
_NOTE_S: Final = 15.0
#: Longest single statement: an index on a big table takes its time, a server that is gone does not answer at all.
_STATEMENT_S: Final = 3600.0
#: The last one is what asyncpg raises when the server ends in the middle of something.
_FAILURES: Final = (
    OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError
)  # fmt: skip

_CREATE: Final = """\
CREATE TABLE IF NOT EXISTS schema_migrations (version varchar NOT NULL PRIMARY KEY);
ALTER TABLE schema_migrations ADD COLUMN IF NOT EXISTS checksum text;
COMMENT ON TABLE schema_migrations IS 'Migrations that were applied, in the form of dbmate';
COMMENT ON COLUMN schema_migrations.version IS 'Number at the start of the file name';
COMMENT ON COLUMN schema_migrations.checksum IS 'SHA-256 of the file as it was applied; null when dbmate applied it'"""


class MigrationError(Exception):
    """A migration cannot be read or run; the text names the file and the line."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    version: str
    """Digits at the start of its name; they order the files."""
    file: str
    up: Half
    down: Half
    checksum: str
    """SHA-256 of its text, in hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class State:
    """What is known of one version."""

    version: str
    file: str
    """'' when it was applied but no file has that number (another release applied it)."""
    applied: bool
    changed: bool
    """The file is not what was applied."""

    def __str__(self) -> str:
        word = "changed" if self.changed else "applied" if self.applied else "pending"
        return f"{word}  {self.file or self.version + ' (of another release)'}"


def shipped() -> Traversable:
    """The folder of migrations: inside the package when it was installed from a wheel, else that of the checkout."""
    installed = resources.files("proxy.store") / "migrations"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "sql" / "migrations"


def read(folder: Traversable) -> tuple[Migration, ...]:
    """The migrations of a folder in their order. Raises MigrationError."""
    found: dict[int, Migration] = {}
    for entry in folder.iterdir():
        if not entry.name.endswith(".sql"):
            continue
        migration = _read(entry)
        twin = found.setdefault(int(migration.version), migration)
        if twin is not migration:
            raise MigrationError(f"{entry.name}: {twin.file} has the same number")
    return tuple(found[number] for number in sorted(found))


def _read(entry: Traversable) -> Migration:
    name = _FILE_NAME.fullmatch(entry.name)
    if name is None:
        raise MigrationError(f"{entry.name}: a migration is named NUMBER_words_in_lower_case.sql")
    content = entry.read_bytes()
    try:
        up, down = halves(content.decode())
    except UnicodeDecodeError:
        raise MigrationError(f"{entry.name}: not UTF-8 text") from None
    except SqlTextError as error:
        raise MigrationError(f"{entry.name}:{error.line}: {error}") from None
    return Migration(name[1], entry.name, up, down, hashlib.sha256(content).hexdigest())


class Migrator:
    """Runs migrations over one connection that holds the lock; `migrator()` makes one."""

    def __init__(self, connection: Connection, migrations: Sequence[Migration]) -> None:
        self._connection = connection
        self._migrations = migrations

    async def status(self) -> tuple[State, ...]:
        """Every version that has a file or was applied, in order."""
        applied = await self._applied()
        files = {migration.version: migration for migration in self._migrations}
        states = []
        for version in sorted({*applied, *files}, key=lambda text: (int(text) if text.isdecimal() else 0, text)):
            migration, checksum = files.get(version), applied.get(version)
            changed = migration is not None and checksum is not None and checksum != migration.checksum
            states.append(State(version, migration.file if migration else "", version in applied, changed))
        return tuple(states)

    async def up(self) -> tuple[str, ...]:
        """Apply what was not applied yet; returns the files. Raises MigrationError, also for a file that changed."""
        changed = [state.file for state in await self.status() if state.changed]
        if changed:
            raise MigrationError(f"{', '.join(changed)}: changed after it was applied; restore it and add a new file")
        applied = await self._applied()
        done = []
        for migration in self._migrations:
            if migration.version not in applied:
                note = "INSERT INTO schema_migrations (version, checksum) VALUES ($1, $2)"
                await self._run(migration, migration.up, note, migration.version, migration.checksum)
                done.append(migration.file)
        return tuple(done)

    async def down(self, to: str | None = None, *, everything: bool = False) -> tuple[str, ...]:
        """Take back the newest migration, or all above version `to`, or `everything`; returns the files.

        Raises MigrationError, also when one of them has no file here or `to` was never applied.
        """
        applied = [state for state in await self.status() if state.applied]
        if to is not None and to not in {state.version for state in applied}:
            raise MigrationError("the version to go down to is not applied")
        files = {migration.version: migration for migration in self._migrations}
        done: list[str] = []
        for state in reversed(applied):
            if state.version == to or (done and to is None and not everything):
                break
            if state.version not in files:
                raise MigrationError(f"version {state.version} was applied by another release, which can take it back")
            migration = files[state.version]
            note = "DELETE FROM schema_migrations WHERE version = $1"
            await self._run(migration, migration.down, note, migration.version)
            done.append(migration.file)
        return tuple(done)

    async def _applied(self) -> dict[str, str | None]:
        """Version to checksum of what was applied; nothing when the table is not there."""
        if await self._connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
            return {}
        rows = await self._connection.fetch("SELECT version, to_jsonb(m)->>'checksum' FROM schema_migrations AS m")
        return {row[0]: row[1] for row in rows}

    async def _run(self, migration: Migration, half: Half, note: str, *values: str) -> None:
        """Run one half of a file and note it, in one transaction unless the file says otherwise."""
        connection = self._connection
        try:
            await connection.execute(_CREATE)
            await connection.execute("BEGIN" if half.in_transaction else "SELECT 1")
            for statement in half.statements:
                await self._execute(migration, statement)
            await connection.execute("RESET ROLE; RESET search_path")
            await connection.execute(note, *values)
            await connection.execute("COMMIT" if half.in_transaction else "SELECT 1")
        except (MigrationError, *_FAILURES) as error:
            with suppress(*_FAILURES):
                await connection.execute("ROLLBACK" if half.in_transaction else "RESET ROLE; RESET search_path")
            if isinstance(error, MigrationError):
                raise
            raise MigrationError(f"{migration.file}: {_plain(error)}") from None

    async def _execute(self, migration: Migration, statement: Statement) -> None:
        try:
            await self._connection.execute(statement.text, timeout=_STATEMENT_S)
        except asyncpg.PostgresError as error:
            raise MigrationError(_failure(migration, statement, error)) from None
        except _FAILURES as error:
            raise MigrationError(f"{migration.file}:{statement.line}: {_plain(error)}") from None


def _failure(migration: Migration, statement: Statement, error: asyncpg.PostgresError) -> str:
    """One line for people: where, what, and PostgreSQL's own detail and hint."""
    line, position = statement.line, error.position
    if position is not None:
        line += statement.text.count("\n", 0, int(position) - 1)
    more = "".join(f" ({text})" for text in (error.detail, error.hint) if text)
    return f"{migration.file}:{line}: {error.message}{more}"


@asynccontextmanager
async def migrator(dsn: str, folder: Traversable | None = None) -> AsyncIterator[Migrator]:
    """A Migrator that holds the lock until the block ends. `folder` is `shipped()` by default.

    Raises MigrationError when the files cannot be read, the server cannot be reached or another migration goes on for
    too long. The error never shows the DSN.
    """
    migrations = read(folder or shipped())
    try:
        connection = await asyncpg.connect(
            dsn, timeout=_CONNECT_S, command_timeout=_NOTE_S,
            server_settings={"application_name": "mcp-manager migrate", "lock_timeout": f"{_TABLE_S}s",
                             "search_path": "public"},
        )  # fmt: skip
    except (*_FAILURES, ValueError) as error:
        raise MigrationError(f"PostgreSQL cannot be used: {_plain(error)}") from None
    try:
        await _take_turn(connection)
        yield Migrator(connection, migrations)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise MigrationError(f"PostgreSQL refused: {_plain(error)}") from None
    finally:
        with suppress(*_FAILURES):
            await connection.close(timeout=1.0)  # which frees the lock


async def _take_turn(connection: Connection) -> None:
    """Wait for the lock by asking again: who waits inside a statement has a snapshot, and CREATE INDEX CONCURRENTLY of
    the one who holds the lock would wait for that (a deadlock)."""
    for _ in range(round(_TURN_S / _ASK_S)):
        if await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            return
        await asyncio.sleep(_ASK_S)
    raise MigrationError(f"another migration has been running for {_TURN_S} s")


def _plain(error: Exception) -> str:
    """What went wrong, without anything of the DSN (asyncpg repeats parts of one that it cannot parse)."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.message)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
