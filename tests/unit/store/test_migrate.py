"""Migrations against a real PostgreSQL: up, down, status, the lock, and what is said of files that fail."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proxy.store import migrate
from proxy.store.migrate import MigrationError, migrator
from tests.unit.store.engine import empty_database, execute, login_dsn, owner_dsn

GOOD = {
    "1_a.sql": "-- migrate:up\nCREATE TABLE a (x int);\nINSERT INTO a VALUES (1);\n-- migrate:down\nDROP TABLE a;\n",
    "2_b.sql": "-- migrate:up\nCREATE TABLE b (y int);\n-- migrate:down\nDROP TABLE b;\n",
    "10_c.sql": "-- migrate:up transaction:false\nCREATE INDEX CONCURRENTLY i ON b(y);\n-- migrate:down\nDROP INDEX i",
}
TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i') ORDER BY 1"


def written(folder: Path, files: dict[str, str]) -> Path:
    """`folder` with these files."""
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


async def up(dsn: str, folder: Path) -> tuple[str, ...]:
    """Apply what is missing."""
    async with migrator(dsn, folder) as migrations:
        return await migrations.up()


async def relations(dsn: str) -> list[str]:
    """Tables and indexes that migrations made."""
    return [row[0] for row in await execute(dsn, TABLES) if not row[0].startswith("schema_migrations")]


async def test_up_applies_what_is_missing_in_the_order_of_numbers(tmp_path: Path) -> None:
    """A second run does nothing; a file that comes later is applied alone."""
    folder = written(tmp_path, GOOD)
    async with empty_database() as name:
        dsn = owner_dsn(name)
        assert await up(dsn, folder) == ("1_a.sql", "2_b.sql", "10_c.sql")
        assert await up(dsn, folder) == ()
        assert await relations(dsn) == ["a", "b", "i"]
        written(folder, {"11_d.sql": "-- migrate:up\nDROP TABLE a;\n-- migrate:down\nCREATE TABLE a (x int);\n"})
        assert await up(dsn, folder) == ("11_d.sql",)


async def test_down_takes_back_one_or_to_a_version_or_all(tmp_path: Path) -> None:
    """Newest first; down to zero and up again leaves the same relations."""
    async with empty_database() as name, migrator(owner_dsn(name), written(tmp_path, GOOD)) as migrations:
        await migrations.up()
        before = await relations(owner_dsn(name))
        assert await migrations.down() == ("10_c.sql",)
        await migrations.up()
        assert await migrations.down("1") == ("10_c.sql", "2_b.sql")
        assert await relations(owner_dsn(name)) == ["a"]
        await migrations.up()
        assert await migrations.down(everything=True) == ("10_c.sql", "2_b.sql", "1_a.sql")
        assert await relations(owner_dsn(name)) == []
        assert await migrations.down() == ()
        await migrations.up()
        assert await relations(owner_dsn(name)) == before
        with pytest.raises(MigrationError, match="not applied"):
            await migrations.down("3")


async def test_a_file_that_fails_is_named_with_its_line_and_leaves_nothing(tmp_path: Path) -> None:
    """Files before it stay applied."""
    bad = "-- migrate:up\nCREATE TABLE c (x int);\n\nCREATE TABLE d (\n  x int,\n  y nonsense\n);\n-- migrate:down\n"
    folder = written(tmp_path, {"1_a.sql": GOOD["1_a.sql"], "2_bad.sql": bad})
    async with empty_database() as name:
        with pytest.raises(MigrationError, match=r'^2_bad\.sql:6: type "nonsense" does not exist$'):
            await up(owner_dsn(name), folder)
        assert await relations(owner_dsn(name)) == ["a"]
        written(folder, {"2_bad.sql": "-- migrate:up\nSELECT 1;\nCREATE TABLE a (x int);\n-- migrate:down\n"})
        with pytest.raises(MigrationError, match=r'^2_bad\.sql:3: relation "a" already exists$'):
            await up(owner_dsn(name), folder)


async def test_a_file_that_changed_after_it_was_applied_stops_up(tmp_path: Path) -> None:
    """Status marks it; what dbmate applied has no checksum and is trusted."""
    folder = written(tmp_path, GOOD)
    async with empty_database() as name:
        dsn = owner_dsn(name)
        await up(dsn, folder)
        written(folder, {"2_b.sql": GOOD["2_b.sql"].replace("int", "bigint")})
        with pytest.raises(MigrationError, match=r"^2_b\.sql: changed after it was applied"):
            await up(dsn, folder)
        async with migrator(dsn, folder) as migrations:
            assert [state.changed for state in await migrations.status()] == [False, True, False]
        await execute(dsn, "UPDATE schema_migrations SET checksum = NULL WHERE version = '2'")
        assert await up(dsn, folder) == ()


async def test_the_bookkeeping_of_dbmate_is_taken_over(tmp_path: Path) -> None:
    """Its table has one column; versions in it count as applied, also those without a file."""
    async with empty_database() as name:
        dsn = owner_dsn(name)
        await execute(dsn, "CREATE TABLE schema_migrations (version varchar(128) PRIMARY KEY)")
        await execute(dsn, "CREATE TABLE a (x int)")
        await execute(dsn, "INSERT INTO schema_migrations VALUES ('1'), ('99')")
        async with migrator(dsn, written(tmp_path, GOOD)) as migrations:
            assert [(state.file, state.applied) for state in await migrations.status()] == [
                ("1_a.sql", True), ("2_b.sql", False), ("10_c.sql", False), ("", True),
            ]  # fmt: skip
            assert await migrations.up() == ("2_b.sql", "10_c.sql")
            with pytest.raises(MigrationError, match="another release"):
                await migrations.down()


async def test_those_who_start_together_take_turns(tmp_path: Path) -> None:
    """Five at once: one applies each file, nobody fails."""
    folder = written(tmp_path, GOOD)
    async with empty_database() as name:
        done = await asyncio.gather(*(up(owner_dsn(name), folder) for _ in range(5)))
        assert sorted(map(len, done)) == [0, 0, 0, 0, 3]


async def test_who_waits_too_long_for_a_turn_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's migration hangs."""
    monkeypatch.setattr(migrate, "_TURN_S", 0.2)
    async with empty_database() as name, migrator(owner_dsn(name), tmp_path):
        with pytest.raises(MigrationError, match="another migration has been running"):
            await up(owner_dsn(name), tmp_path)


async def test_a_connection_that_is_lost_is_told_with_the_line(tmp_path: Path) -> None:
    """The server went away in the middle: nothing of the file stays."""
    text = "-- migrate:up\nCREATE TABLE a (x int);\nSELECT pg_terminate_backend(pg_backend_pid());\n-- migrate:down\n"
    async with empty_database() as name:
        with pytest.raises(MigrationError, match=r"^1_a\.sql:3: "):
            await up(owner_dsn(name), written(tmp_path, {"1_a.sql": text}))
        assert await relations(owner_dsn(name)) == []


async def test_a_file_whose_commit_fails_is_named(tmp_path: Path) -> None:
    """A constraint that is checked last; the next run can begin."""
    text = (
        "-- migrate:up\nCREATE TABLE a (x int UNIQUE DEFERRABLE INITIALLY DEFERRED);\nINSERT INTO a VALUES (1), (1);\n"
    )
    folder = written(tmp_path, {"1_a.sql": text + "-- migrate:down\n"})
    async with empty_database() as name, migrator(owner_dsn(name), folder) as migrations:
        for _ in range(2):
            with pytest.raises(MigrationError, match=r"^1_a\.sql: duplicate key"):
                await migrations.up()


async def test_a_user_without_the_rights_is_told(tmp_path: Path) -> None:
    """The proxy's login may make no table."""
    async with empty_database() as name:
        with pytest.raises(MigrationError, match="permission denied"):
            await up(login_dsn(name), written(tmp_path, GOOD))
        await execute(owner_dsn(name), "CREATE TABLE schema_migrations (version varchar PRIMARY KEY)")
        with pytest.raises(MigrationError, match=r"^PostgreSQL refused: permission denied"):
            await up(login_dsn(name), tmp_path)


async def test_a_role_that_a_file_takes_on_ends_with_the_file(tmp_path: Path) -> None:
    """The bookkeeping and the next file run as who connected."""
    text = "-- migrate:up\nSET LOCAL ROLE pg_monitor;\nSET search_path = pg_catalog;\n-- migrate:down\n"
    check = "-- migrate:up\nCREATE TABLE who AS SELECT current_user AS name;\n-- migrate:down\nDROP TABLE who;\n"
    async with empty_database() as name:
        await up(owner_dsn(name), written(tmp_path, {"1_a.sql": text, "2_b.sql": check}))
        assert [row[0] for row in await execute(owner_dsn(name), "SELECT name FROM public.who")] == ["postgres"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.sql": ""}, "NUMBER_words"),
        ({"1_a.sql": GOOD["1_a.sql"], "01_b.sql": GOOD["2_b.sql"]}, "same number"),
        ({"1_a.sql": "-- migrate:up\n"}, r"^1_a\.sql:1: "),
    ],
)
def test_a_folder_that_makes_no_sense_is_refused(files: dict[str, str], words: str, tmp_path: Path) -> None:
    """Before anything is run."""
    with pytest.raises(MigrationError, match=words):
        migrate.read(written(tmp_path, files))


def test_other_files_of_the_folder_are_let_alone(tmp_path: Path) -> None:
    """A README, say; bytes that are no text are refused only in a migration."""
    (tmp_path / "README.md").write_bytes(b"\xff")
    assert migrate.read(tmp_path) == ()
    (tmp_path / "1_a.sql").write_bytes(b"\xff")
    with pytest.raises(MigrationError, match="not UTF-8"):
        migrate.read(tmp_path)


@pytest.mark.parametrize("dsn", ["postgresql://u:hidden@127.0.0.1:1/x", "hidden://x", "postgresql://h:hidden/x"])
async def test_a_server_that_cannot_be_reached_is_said_without_its_password(dsn: str, tmp_path: Path) -> None:
    """Refused, or a DSN that is none."""
    with pytest.raises(MigrationError, match="PostgreSQL cannot be used") as failed:
        async with migrator(dsn, tmp_path):
            pass
    assert "hidden" not in str(failed.value)


def test_the_migrations_of_the_checkout_can_be_read() -> None:
    """Those that the wheel ships, too."""
    assert len(migrate.read(migrate.shipped())) > 10
