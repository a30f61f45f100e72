"""The command `migrate up | down | status`: of $DATABASE_URL, else of the configured database."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

from proxy.commands.connection import carried_out, postgres_of
from proxy.commands.console import DONE, load_config
from proxy.config.models import Config
from proxy.store.lifecycle import embedded_postgres
from proxy.store.migrate import migrator


def run(given: Namespace) -> int:
    """Do `given.action`; returns the exit code. Raises Misuse."""
    dsn = os.environ.get("DATABASE_URL")
    lines = carried_out(_migrated(given, dsn) if dsn else _migrated_as_configured(given, load_config(given)))
    print("\n".join(lines))
    return DONE


async def _migrated_as_configured(given: Namespace, config: Config) -> list[str]:
    postgres = postgres_of(config)
    dsn = postgres.owner_dsn or postgres.dsn
    if dsn is not None:
        return await _migrated(given, dsn.get_secret_value())
    server = embedded_postgres(Path(config.state_dir))
    await server.start_or_join()
    try:
        lines = await _migrated(given, server.owner_dsn)
        if given.action == "up":
            await server.allow()
        return lines
    finally:
        await server.stop()


async def _migrated(given: Namespace, dsn: str) -> list[str]:
    """Do it; what to print. Raises MigrationError."""
    async with migrator(dsn) as migrations:
        if given.action == "up":
            return [f"applied {file}" for file in await migrations.up()] or ["up to date"]
        if given.action == "down":
            files = await migrations.down(given.to, everything=given.all)
            return [f"took back {file}" for file in files] or ["nothing to take back"]
        return [str(state) for state in await migrations.status()] or ["no migrations"]
