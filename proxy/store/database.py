"""The database: three places to ask, and the one function that says for whom.

Owns who a transaction is for: its role and its tenant, set for the transaction only, so that nothing is left on a
pooled connection. Row level security does the rest. What is asked is not known here; `pool.py` keeps the deadlines.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Literal
from uuid import UUID

from proxy.store.circuit import Circuit
from proxy.store.pool import Bounds, Numbers, Pool, Session, TooSlow, Unavailable

__all__ = ["Bounds", "Database", "Numbers", "Places", "Purpose", "Session", "TooSlow", "Unavailable"]

Purpose = Literal["write", "read", "analytics"]
"""`read` may lag behind when it is a replica, `analytics` may take long; neither can write."""

_APP: Final = "mcp_manager_app"
_ADMIN: Final = "mcp_manager_admin"
_AUDIT: Final = "mcp_manager_audit"
_SYNC: Final = "mcp_manager_sync"
_MODES: Final = {
    "write": "READ WRITE",
    "read": "READ ONLY",
    "analytics": "READ ONLY",
    "snapshot": "ISOLATION LEVEL REPEATABLE READ READ ONLY",
}


@dataclass(frozen=True, slots=True)
class Places:
    """DSNs; each holds a password, so none is in the repr. '' for the main one."""

    dsn: str = field(repr=False)
    read_dsn: str = field(default="", repr=False)
    analytics_dsn: str = field(default="", repr=False)


class Database:
    """All pools of a process."""

    def __init__(
        self, places: Places, bounds: dict[Purpose, Bounds], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` gives monotonic seconds. Pools of one DSN share what is known of its state."""
        dsns: dict[Purpose, str] = {
            "write": places.dsn,
            "read": places.read_dsn or places.dsn,
            "analytics": places.analytics_dsn or places.dsn,
        }
        circuits = {dsn: Circuit(clock) for dsn in dsns.values()}
        self._pools = {
            purpose: Pool(dsn, bounds.get(purpose, Bounds()), circuits[dsn], f"mcp-manager {purpose}")
            for purpose, dsn in dsns.items()
        }

    async def open(self) -> None:
        """Be ready; connects to nothing yet."""
        for pool in self._pools.values():
            await pool.open()

    async def close(self) -> None:
        """Cut every connection."""
        for pool in self._pools.values():
            pool.close()

    @asynccontextmanager
    async def tenant(self, tenant_id: str | UUID, purpose: Purpose = "write") -> AsyncIterator[Session]:
        """A transaction that sees and writes this tenant's rows only. Raises Unavailable; ValueError for no UUID."""
        async with self._as(_APP, _uuid(tenant_id), _MODES[purpose], purpose) as session:
            yield session

    @asynccontextmanager
    async def across_tenants(self, purpose: Purpose = "read") -> AsyncIterator[Session]:
        """A transaction of the admin plane: it sees every tenant's rows. Raises Unavailable."""
        async with self._as(_ADMIN, "", _MODES[purpose], purpose) as session:
            yield session

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Session]:
        """A transaction that reads the registry of all tenants, all of whose queries see one moment. From the main
        place, as a replica lags behind. Raises Unavailable."""
        async with self._as(_SYNC, "", _MODES["snapshot"], "write") as session:
            yield session

    @asynccontextmanager
    async def audit(self) -> AsyncIterator[Session]:
        """A transaction that can only append to the records, of whatever tenant. Raises Unavailable."""
        async with self._as(_AUDIT, "", _MODES["write"], "write") as session:
            yield session

    @asynccontextmanager
    async def _as(self, role: str, tenant: str, mode: str, purpose: Purpose) -> AsyncIterator[Session]:
        """The only place where a role and a tenant are set. Both are ours or were parsed, so they go into the text,
        which saves a round trip."""
        begin = (
            f"/* transaction.begin */ BEGIN {mode};"
            f"SELECT set_config('role', '{role}', true), set_config('app.tenant', '{tenant}', true)"
        )
        async with self._pools[purpose].transaction(begin) as session:
            yield session

    async def probe(self) -> None:
        """A step for a loop, every 0.25 s or so: sees whether what did not answer does so again."""
        for circuit in {id(pool.circuit): pool.circuit for pool in self._pools.values()}.values():
            if circuit.probe_due():
                pool = next(pool for pool in self._pools.values() if pool.circuit is circuit)
                circuit.probed(await pool.probe())

    def numbers(self) -> dict[Purpose, Numbers]:
        """What each pool did."""
        return {purpose: pool.numbers() for purpose, pool in self._pools.items()}


def _uuid(value: str | UUID) -> str:
    """The plain form, which holds no quote. Raises ValueError."""
    try:
        return str(UUID(str(value)))
    except ValueError:
        raise ValueError("a tenant is named by its UUID") from None
