"""The two embedded servers, for real: what they keep, who may come in, and how fast they start."""

from __future__ import annotations

import asyncio
import stat
import time
from contextlib import suppress
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from proxy.store.embedded import EmbeddedPostgres, EmbeddedRedis
from tests.unit.store.engine import cluster, execute, folder


async def test_postgres_keeps_what_was_written_over_a_restart() -> None:
    """The first start makes the cluster, the next takes a fraction of a second."""
    server = EmbeddedPostgres(folder() / "postgres")
    await server.start()
    try:
        await execute(server.owner_dsn, "CREATE TABLE kept AS SELECT 7 AS x")
    finally:
        await server.stop()
    began = time.monotonic()
    await server.start()
    took = time.monotonic() - began
    try:
        assert (await execute(server.owner_dsn, "SELECT x FROM kept"))[0]["x"] == 7
        assert took < 5
    finally:
        await server.stop()


async def test_postgres_that_was_killed_recovers() -> None:
    """All its processes at once, as when memory runs out; `keep` brings it back with what was committed."""
    server = EmbeddedPostgres(folder() / "postgres")
    await server.start()
    try:
        await execute(server.owner_dsn, "CREATE TABLE kept AS SELECT 7 AS x")
        pid_file = server.directory / "cluster" / "postmaster.pid"
        pid = int(pid_file.read_text().split("\n")[0])
        postmaster = psutil.Process(pid)
        processes = [*postmaster.children(recursive=True), postmaster]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        while str(pid) in pid_file.read_text().split("\n")[:1]:
            await server.keep()
            await asyncio.sleep(0.01)
        assert (await execute(server.owner_dsn, "SELECT x FROM kept"))[0]["x"] == 7
    finally:
        await server.stop()


async def test_postgres_lets_nobody_in_without_the_password() -> None:
    """Not over the socket either, and there is no other way in."""
    for dsn in (cluster().dsn, cluster().owner_dsn):
        user, _, rest = dsn.partition(":")[2].partition(":")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(f"postgresql:{user}:wrong@{rest.partition('@')[2]}")
    assert [row[0] for row in await execute(cluster().owner_dsn, "SHOW listen_addresses")] == [""]


async def test_the_login_of_the_proxy_owns_nothing_and_may_do_little() -> None:
    """No superuser, no bypass of row level security, and no memberships before `allow`."""
    query = "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"
    assert not any((await execute(cluster().dsn, query))[0])


async def test_redis_answers_those_who_know_its_password() -> None:
    """What it holds outlives a restart."""
    server = EmbeddedRedis(folder() / "redis")
    for expected in (None, b"1"):
        await server.start()
        try:
            async with Redis.from_url(server.url) as client:
                assert await client.get("x") == expected
                await client.set("x", "1")
            async with Redis(unix_socket_path=str(server.sockets / "redis")) as stranger:
                with pytest.raises(RedisError, match="authenticat"):
                    await stranger.ping()
        finally:
            await server.stop()
    assert stat.S_IMODE((server.directory / "valkey.conf").stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedRedis])
async def test_a_folder_with_odd_characters_in_its_name_will_do(kind: type[EmbeddedPostgres | EmbeddedRedis]) -> None:
    """Blanks, quotes and percent signs are no one's syntax."""
    server = kind(folder() / "a b%41'c")
    await server.start()
    await server.stop()


def test_no_password_is_on_a_command_line() -> None:
    """Every user of the machine can read those."""
    secret = cluster().password_file.read_text()
    passwords = {part.partition("@")[0].rpartition(":")[2] for part in (cluster().dsn, cluster().owner_dsn)}
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        assert secret not in line
        assert not any(password in line for password in passwords)
    assert all(Path(cluster().directory, name).exists() for name in ("log", "lock"))
