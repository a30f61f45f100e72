"""A database with partitions of past days and rows in them, and a run of the retention over it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast
from uuid import UUID

from proxy.background.retention import Retention
from proxy.background.retention_plan import midnight
from proxy.config.retention import Retention as Settings
from proxy.identity.records import SYSTEM_TENANT
from proxy.identity.uuid7 import RecordIds
from proxy.log import Logger
from proxy.store.database import Bounds, Database, Places
from tests.unit.store.engine import execute, login_dsn, migrated_database, owner_dsn

#: Tenants of the tests, by what they are for.
KEEPER: Final = str(UUID(int=1))
BRIEF: Final = str(UUID(int=2))
OTHER: Final = str(UUID(int=3))
_SLUGS: Final = {KEEPER: "keeper", BRIEF: "brief", OTHER: "other"}
PARTITIONS: Final = "SELECT relname FROM pg_class WHERE relname ~ $1 AND relkind = 'r' ORDER BY 1"


class Lines:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.said.append((event, fields))

    warning = info


class Aged:
    """The database, the settings, and what was waited for."""

    def __init__(self, name: str, tmp_path: Path) -> None:
        self.name = name
        self.now = datetime.now(UTC)
        self.archive = tmp_path / "archive"
        self.lines = Lines()
        self.slept: list[float] = []
        self.database = Database(
            Places(login_dsn(name)), {"write": Bounds(connections=2, acquire_s=5, statement_s=10)}
        )  # fmt: skip
        self.settings: dict[str, Any] = {"tables": {"request_logs": {"keep": "3d"}, "audit_logs": {"keep": "3d"}}}
        ids = RecordIds(lambda: self.now.timestamp(), os.urandom)
        self.retention = Retention(
            self.database,
            lambda: Settings.model_validate(self.settings),
            lambda: self.now.timestamp(),
            self._sleep,
            cast(Logger, self.lines),
            ids,
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def keeps(self, archive: bool = True, batch: int = 10_000) -> None:
        """Keep request_logs for three days, and archive them or not."""
        kept = {"keep": "3d", "archive": archive, "batch": batch}
        self.settings = {"archive_dir": str(self.archive), "tables": {"request_logs": kept}}

    async def rows(self, query: str, *values: object) -> list[Any]:
        """What a superuser reads."""
        return await execute(owner_dsn(self.name), query, *values)

    def day(self, ago: int) -> datetime:
        """Noon, so many days ago."""
        return midnight(self.now.timestamp()) - timedelta(days=ago) + timedelta(hours=12)

    def partition(self, ago: int, table: str = "request_logs") -> str:
        """The name of the partition of that day."""
        return f"{table}_{self.day(ago):%Y%m%d}"

    async def requests(self, ago: int, tenant: str, count: int = 3) -> None:
        """Rows of that day."""
        await self.rows(
            "INSERT INTO request_logs (id, ts, tenant_id, http_method, status_code, outcome, duration_ms, method)"
            " SELECT gen_random_uuid(), $1::timestamptz + i * interval '1 ms', $2, 'POST', 200, 'ok', 1, E'a\\nb'"
            " FROM generate_series(1, $3::int) AS i", self.day(ago), UUID(tenant), count,
        )  # fmt: skip

    async def policy(self, tenant: str, days: int, archive: bool = False, batch: int = 10_000) -> None:
        """A row for request_logs."""
        await self.rows(
            "INSERT INTO data_retention_policies (tenant_id, table_name, retention_days, archive, batch_size)"
            " VALUES ($1, 'request_logs', $2, $3, $4)", UUID(tenant), days, archive, batch,
        )  # fmt: skip

    async def left(self) -> dict[tuple[int, str], int]:
        """Rows of request_logs by days ago and tenant's slug."""
        rows = await self.rows("SELECT ts, tenant_id::text AS tenant FROM request_logs")
        found: dict[tuple[int, str], int] = {}
        for row in rows:
            key = ((self.day(0).date() - row["ts"].astimezone(UTC).date()).days, _SLUGS.get(row["tenant"], "system"))
            found[key] = found.get(key, 0) + 1
        return found

    async def partitions(self, table: str = "request_logs") -> list[str]:
        """Names of partitions by day, and of former ones."""
        return [row[0] for row in await self.rows(PARTITIONS, f"^{table}_[0-9]")]


@asynccontextmanager
async def aged(tmp_path: Path, days: int = 6) -> AsyncIterator[Aged]:
    """With partitions for so many past days."""
    async with migrated_database() as name:
        here = Aged(name, tmp_path)
        await here.rows(
            "SELECT create_partitions(now() - make_interval(days => $1), make_interval(days => $1 + 1))", days
        )
        for tenant, slug in _SLUGS.items():
            await here.rows("INSERT INTO tenants (id, slug, name) VALUES ($1, $2, $2)", UUID(tenant), slug)
        await here.database.open()
        try:
            yield here
        finally:
            await here.database.close()


__all__ = ["BRIEF", "KEEPER", "OTHER", "SYSTEM_TENANT", "Aged", "aged"]
