"""A proxy that knows nobody gets no traffic, until it does; one that knew somebody goes on."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from proxy.store.embedded import EmbeddedPostgres
from proxy.store.migrate import migrator
from tests.harness import running_proxy
from tests.unit.store.engine import folder

SERVERS = {"up": {"url": "http://127.0.0.1:1/mcp"}}


def readiness(admin_port: int) -> tuple[int, dict[str, Any]]:
    """Status and checks of /readyz."""
    try:
        with urlopen(f"http://127.0.0.1:{admin_port}/readyz", timeout=5) as answer:
            return answer.status, json.loads(answer.read())["checks"]
    except HTTPError as error:
        return error.code, json.loads(error.read())["checks"]


@pytest.mark.alone
async def test_without_any_rows_it_is_not_ready_until_postgresql_comes() -> None:
    """Two seconds later at the most; then it stays ready when PostgreSQL goes, and starts ready from its copy."""
    postgres = EmbeddedPostgres(folder() / "postgres")
    await postgres.start()
    async with migrator(postgres.owner_dsn) as migrations:
        await migrations.up()
    await postgres.allow()
    await postgres.stop()
    config = {"postgres": {"dsn": postgres.dsn}, "servers": SERVERS, "state_dir": str(folder() / "state")}
    with running_proxy(config) as proxy:
        status, checks = await asyncio.to_thread(readiness, proxy.admin_port)
        assert (status, checks["registry"]["ok"]) == (503, False)
        assert "no copy" in checks["registry"]["detail"]
        await postgres.start()
        began = time.monotonic()
        while (await asyncio.to_thread(readiness, proxy.admin_port))[0] != 200:
            assert time.monotonic() - began < 2
            await asyncio.sleep(0.02)
        await asyncio.sleep(1.5)  # the copy is written a moment later
        await postgres.stop()
        await asyncio.to_thread(proxy.wait_for, lambda line: "may be stale" in line.get("event", ""), 10.0)
        assert (await asyncio.to_thread(readiness, proxy.admin_port))[0] == 200
    with running_proxy(config) as proxy:
        assert (await asyncio.to_thread(readiness, proxy.admin_port))[0] == 200
