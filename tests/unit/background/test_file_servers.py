"""Servers of the configuration file have rows, as soon as there is a database."""

from __future__ import annotations

import time

from proxy.background.file_servers import FileServers
from proxy.config.models import Server
from proxy.store.database import Bounds, Database, Places
from tests.unit.store.engine import execute, login_dsn, migrated_database, owner_dsn


def server(url: str) -> Server:
    """A server at this URL."""
    return Server.model_validate({"url": url})


async def test_servers_get_their_rows_once_per_configuration() -> None:
    """With nothing of the query, where secrets may be; those that are gone are disabled."""
    async with migrated_database() as name:
        database = Database(Places(login_dsn(name)), {"write": Bounds()}, time.monotonic)
        await database.open()
        servers = {"one": server("https://one.test/mcp?key=secret"), "two": server("https://two.test/mcp")}
        step = FileServers(database, lambda: servers)
        await step.step()
        found = await execute(owner_dsn(name), "SELECT name, endpoint_url, is_enabled FROM mcp_servers ORDER BY name")
        assert [tuple(row) for row in found] == [
            ("one", "https://one.test/mcp", True),
            ("two", "https://two.test/mcp", True),
        ]
        asked = database.numbers()["write"].statements
        await step.step()
        assert database.numbers()["write"].statements == asked
        servers = {"two": servers["two"]}
        await step.step()
        found = await execute(owner_dsn(name), "SELECT name FROM mcp_servers WHERE is_enabled")
        assert [row["name"] for row in found] == ["two"]
        await database.close()


async def test_it_waits_for_a_database_that_is_away() -> None:
    """And does it when there is one."""
    servers = {"one": server("https://one.test/mcp")}
    async with migrated_database() as name:
        database = Database(Places(login_dsn(name)), {"write": Bounds()}, time.monotonic)
        step = FileServers(database, lambda: servers)
        await step.step()
        assert not await execute(owner_dsn(name), "SELECT FROM mcp_servers")
        await database.open()
        await step.step()
        assert len(await execute(owner_dsn(name), "SELECT FROM mcp_servers")) == 1
        await database.close()
