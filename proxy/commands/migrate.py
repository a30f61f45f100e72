"""The command `migrate up | down | status`: of $DATABASE_URL, else of the configured database."""

from __future__ import annotations

import os
from argparse import Namespace

from proxy.commands.connection import carried_out, owner_dsn
from proxy.commands.console import DONE, load_config
from proxy.config.models import Config
from proxy.store.migrate import migrator


def run(given: Namespace) -> int:
    """Do `given.action`; returns the exit code. Raises Misuse."""
    dsn = os.environ.get("DATABASE_URL")
    lines = carried_out(_migrated(given, dsn) if dsn else _migrated_as_configured(given, load_config(given)))
    print("\n".join(lines))
    return DONE


async def _migrated_as_configured(given: Namespace, config: Config) -> list[str]:
    async with owner_dsn(config) as dsn:
        return await _migrated(given, dsn)


async def _migrated(given: Namespace, dsn: str) -> list[str]:
    """Do it; what to print. Raises MigrationError."""
    async with migrator(dsn) as migrations:
        if given.action == "up":
            return [f"applied {file}" for file in await migrations.up()] or ["up to date"]
        if given.action == "down":
            files = await migrations.down(given.to, everything=given.all)
            return [f"took back {file}" for file in files] or ["nothing to take back"]
        return [str(state) for state in await migrations.status()] or ["no migrations"]
