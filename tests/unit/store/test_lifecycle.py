"""The databases of a process, embedded and one's own, there and not there."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from proxy.config.stores import Postgres, Redis
from proxy.store import registry
from proxy.store.database import Unavailable
from proxy.store.embedded import EmbeddedError, EmbeddedPostgres
from proxy.store.lifecycle import Stores
from proxy.store.migrate import MigrationError
from tests.unit.store.engine import empty_database, execute, folder, login_dsn, owner_dsn


def stores(postgres: dict[str, object] | None, redis: dict[str, object] | None, state: Path) -> Stores:
    """As the configuration would have it."""
    return Stores(
        None if postgres is None else Postgres.model_validate(postgres),
        None if redis is None else Redis.model_validate(redis),
        state,
        time.monotonic,
        lambda: 0.5,
    )


async def test_embedded_servers_are_ready_when_the_start_is_over() -> None:
    """Migrated, readable by the proxy's login, heard; a second start finds everything as it was."""
    state = folder()
    for _ in range(2):
        made = stores({"embedded": True}, {"embedded": True}, state)
        await made.start()
        try:
            assert made.migrated and made.database is not None and made.notices is not None
            async with made.database.snapshot() as session:
                assert "tenants" in await registry.read_everything(session)
            assert (await made.notices.step(0)).connected
            assert made.redis_url is not None and made.redis_url.startswith("unix://")
            await made.keep()
        finally:
            await made.stop()


async def test_a_second_process_joins_the_embedded_server_of_the_first() -> None:
    """Also while it makes its tables: both find them complete. The first goes on when the second leaves."""
    state = folder()
    first, second = (stores({"embedded": True}, None, state) for _ in range(2))
    try:
        await asyncio.gather(first.start(join=True), second.start(join=True))
        for made in (first, second):
            assert made.migrated and made.database is not None
            async with made.database.snapshot() as session:
                assert await session.fetch_value("/* test.count */ SELECT count(*) FROM tenants") == 1
    finally:
        await asyncio.gather(first.stop(), second.stop())


async def test_a_database_of_ones_own_may_come_later() -> None:
    """The start does not wait for it and does not fail; the migrations wait in their step."""
    made = stores({"dsn": "postgresql://u:planted@127.0.0.1:1/x", "auto_migrate": True}, None, folder())
    began = time.monotonic()
    await made.start()
    assert time.monotonic() - began < 10
    assert made.database is not None and not made.migrated
    with pytest.raises(MigrationError):
        await made.migrate()
    with pytest.raises(Unavailable):
        async with made.database.snapshot():
            pass
    assert made.redis_url is None
    await made.stop()


async def test_a_database_of_ones_own_is_migrated_by_its_owner_if_that_is_wanted() -> None:
    """Once; without `auto_migrate` never."""
    async with empty_database() as name:
        given = {"dsn": login_dsn(name), "owner_dsn": owner_dsn(name)}
        for wanted in (False, True):
            made = stores({**given, "auto_migrate": wanted}, {"url": "redis://h"}, folder())
            await made.start()
            assert made.migrated is not wanted
            await made.migrate()
            await made.migrate()
            assert made.migrated
            found = await execute(owner_dsn(name), "SELECT to_regclass('mcp_servers') IS NOT NULL AS made")
            assert found[0]["made"] is wanted
            assert made.redis_url == "redis://h"
            await made.stop()


async def test_without_sections_there_is_nothing() -> None:
    """And nothing to stop."""
    made = stores(None, None, folder())
    await made.start()
    await asyncio.gather(made.migrate(), made.keep())
    assert (made.database, made.notices, made.redis_url, made.migrated) == (None, None, None, True)
    await made.stop()


async def test_a_start_that_fails_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis was up already when PostgreSQL could not be started: its directory is free again."""
    state = folder()
    with monkeypatch.context() as patched:
        patched.setattr(EmbeddedPostgres, "wheel", "no_such_wheel")
        with pytest.raises(EmbeddedError, match="pip install"):
            await stores({"embedded": True}, {"embedded": True}, state).start()
    made = stores(None, {"embedded": True}, state)
    await made.start()
    await made.stop()
