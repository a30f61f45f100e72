"""How long the rows of PostgreSQL are kept, and where they are archived before they go.

Owns shapes and defaults. A row of `data_retention_policies` takes precedence: the system tenant's for everyone, a
tenant's own for its rows. Of what may be evidence or is the base of an invoice, nothing is ever deleted by default.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from proxy.config.fields import File, Model
from proxy.config.units import Duration

DAY_S: Final = 86_400.0

RetainedTable = Literal[
    "request_logs", "audit_logs", "error_logs", "security_events", "system_events", "server_metrics",
    "server_health_checks", "rate_limit_violations", "tenant_usage", "audit_heads", "api_key_usage",
]  # fmt: skip


def _whole_days(value: float) -> float:
    if value % DAY_S:
        raise ValueError("is a number of whole days, such as 90d; 0 is for ever")
    return value


class Kept(Model):
    """How long rows of one table are kept."""

    keep: Annotated[Duration, AfterValidator(_whole_days)]
    """Age at which they are deleted, in whole days. 0: never."""
    archive: bool = False
    """Write them to a file of `archive_dir` before."""
    batch: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    """Rows deleted in one transaction, where a partition cannot be dropped whole."""

    @property
    def days(self) -> int | None:
        """None: for ever."""
        return round(self.keep / DAY_S) or None


_DAYS: Final[dict[RetainedTable, int]] = {
    "request_logs": 90, "audit_logs": 0, "error_logs": 180, "security_events": 0, "system_events": 365,
    "server_metrics": 90, "server_health_checks": 30, "rate_limit_violations": 90, "tenant_usage": 0,
    "audit_heads": 0, "api_key_usage": 90,
}  # fmt: skip
#: In force for a table that neither the configuration nor a row of the system tenant names.
DEFAULTS: Final = {table: Kept.model_validate({"keep": f"{days}d" if days else 0}) for table, days in _DAYS.items()}


class Retention(Model):
    """When old rows of PostgreSQL are deleted."""

    every: Duration = 3600.0
    """How often it is looked what is old enough, by one of all replicas. 0: only by `mcp-manager retention run`."""
    archive_dir: File | None = None
    """Directory of the archive; absent: what is to be archived first is not deleted. Each replica has its own: share
    it, or set `every: 0` in all but one."""
    tables: dict[RetainedTable, Kept] = {}  # noqa: RUF012 (pydantic gives every model its own)
    """How long each table is kept. Absent: request_logs, server_metrics, api_key_usage and rate_limit_violations 90d,
    error_logs 180d, system_events 365d, server_health_checks 30d; audit_logs with audit_heads, security_events and
    tenant_usage for ever."""

    def of(self, table: RetainedTable) -> Kept:
        """What holds for a table without a row."""
        return self.tables.get(table) or DEFAULTS[table]
