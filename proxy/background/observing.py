"""Publishes in PostgreSQL, beside the requests, what this instance sees of servers: breakers, pools, queues, health.

Owns what waits to be written, and its bounds; what was written last, since only what changed is written again; and that
rows of instances that are gone do not stay. While PostgreSQL is away events and checks wait; those for which there is
no room are counted. Events are lines of the log besides, also without a database. Servers without a row (their `place`
has no id) are passed over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from proxy.background.observed import Observed, Sight, breaker_row, found, look, pool_row, queue_row, share_used
from proxy.store import observations
from proxy.store.learned import Unusable
from proxy.store.observations import MOST_ROWS, BreakerSeen, Check, Event, HealthSeen, PoolSeen, QueueSeen, patient
from proxy.store.pool import TooSlow, Unavailable
from proxy.store.violations import tenant_of

if TYPE_CHECKING:
    from proxy.dataplane.probe import Result
    from proxy.identity.uuid7 import RecordIds
    from proxy.log import Logger
    from proxy.store.database import Database
    from proxy.store.observations import CheckKind, Severity
    from proxy.store.pool import Session

#: How often `step` is called, seconds.
STEP_S: Final = 5.0
#: Rows are written again after this, changed or not: they show that the instance lives. Seconds.
_REFRESH_S: Final = 300.0
#: How often rows of instances that are gone are removed, seconds.
_REMOVE_S: Final = 600.0
#: Events, and checks, that wait: some megabytes.
_MOST_WAITING: Final = 20_000
#: Checks of one tenant that are written in one step: of 1,000 servers, one each second.
_MOST_CHECKS: Final = 5000
#: Tenants whose rows are written in one step, each in a transaction of its own.
_MOST_TENANTS: Final = 100
#: Servers that are looked at before requests get a turn: a millisecond.
_AT_ONCE: Final = 200


class Clocks(NamedTuple):
    """Where the time comes from."""

    wall: Callable[[], float]
    """Seconds since 1970."""
    monotonic: Callable[[], float]
    """The seconds in which breakers say when they opened."""


class _Known(NamedTuple):
    """What was written of a server, and when (monotonic)."""

    at: float
    sight: Sight


@dataclass(slots=True)
class _Due:
    """Rows of one tenant that are to be written."""

    breakers: list[BreakerSeen] = field(default_factory=list)
    pools: list[PoolSeen] = field(default_factory=list)
    queues: list[QueueSeen] = field(default_factory=list)
    health: list[HealthSeen] = field(default_factory=list)
    known: dict[str, _Known] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many."""
        return len(self.breakers) + len(self.pools) + len(self.queues) + len(self.health)


@dataclass(slots=True)
class _Checked:
    """The last check of a server, and bad ones in a row."""

    at: datetime
    failures: int


class Observing:
    """What is told here, and what is seen of the servers, is written soon."""

    def __init__(
        self,
        database: Database | None,
        servers: Callable[[], Mapping[str, Observed]],
        ids: RecordIds,
        clocks: Clocks,
        log: Logger,
        instance: str,
    ) -> None:
        """`servers` gives those in force; `instance` names this process in its rows. Without a database there are no
        rows."""
        #: Rows that were written, those for which there was no room, and those that PostgreSQL refused.
        self.written = self.dropped = self.refused = 0
        self._database, self._servers = database, servers
        self._ids, self._clocks, self._log, self._instance = ids, clocks, log, instance
        self._events: deque[Event] = deque()
        self._checks: dict[str, list[Check]] = {}
        self._checks_waiting = 0
        self._checked: dict[str, _Checked] = {}
        #: The size that is recommended for the connection pool of a server; by its name.
        self.recommended: Callable[[str], int | None] = lambda name: None
        #: By id of the server's row, like the next.
        self._known: dict[str, _Known] = {}
        self._used: dict[str, float] = {}
        #: When each tenant had its turn.
        self._turns: dict[str, int] = {}
        self._turn = 0
        self._remove_at = clocks.monotonic() + _REMOVE_S

    @property
    def waiting(self) -> int:
        """Events and checks that are not written yet."""
        return len(self._events) + self._checks_waiting

    def event(
        self, tenant: str, kind: str, severity: Severity, component: str, message: str, details: Mapping[str, Any]
    ) -> None:
        """Something happened. `tenant`: an id, '' for none; `details` hold no secret."""
        tell = {"info": self._log.info, "warning": self._log.warning}.get(severity, self._log.error)
        tell(message, kind=kind, component=component, details=details)
        self.note(tenant, kind, severity, component, message, details)

    def note(
        self, tenant: str, kind: str, severity: Severity, component: str, message: str, details: Mapping[str, Any]
    ) -> None:
        """The same of what the log says in other words."""
        if self._database is None:
            return
        if len(self._events) >= _MOST_WAITING:
            self.dropped += 1
            return
        event = Event(
            self._ids.new(), self._clocks.wall(), tenant_of(tenant), kind, severity, component, message, details,
            self._instance,
        )  # fmt: skip
        self._events.append(event)

    def health_checked(self, server: Observed, result: Result, kind: CheckKind) -> None:
        """A server was checked; fits `HealthChecks`, which calls it after `Health` took the result in."""
        identity, tenant = server.place.id, server.place.tenant
        if self._database is None or not identity:
            return
        at = datetime.fromtimestamp(self._clocks.wall(), UTC)
        before = self._checked.get(identity)
        failures = 0 if result.ok else (before.failures if before is not None else 0) + 1
        self._checked[identity] = _Checked(at, failures)
        if self._checks_waiting >= _MOST_WAITING:
            self.dropped += 1
            return
        check = Check(
            self._ids.new(), at, identity, kind, found(server, result), max(0.0, result.seconds * 1e3), result.code,
            result.error,
        )  # fmt: skip
        self._checks.setdefault(tenant, []).append(check)
        self._checks_waiting += 1

    # --- writing --------------------------------------------------------------------------------------------------

    async def step(self) -> None:
        """Write what changed. Quiet while PostgreSQL is away."""
        if self._database is None:
            return
        try:
            await self._write_events(self._database)
            await self._write_servers(self._database)
            await self._remove(self._database)
        except Unavailable:
            return

    async def finish(self) -> None:
        """Write what waits, and take back the state that this instance published: it ends. Quiet as `step`."""
        if self._database is None:
            return
        try:
            await self._write_events(self._database)
            await self._write_servers(self._database)
            async with patient(self._database.across_tenants("write")) as session:
                await observations.remove_rows(session, self._instance)
        except Unavailable:
            return

    async def _write_events(self, database: Database) -> None:
        """They are taken out when they are written: what was written already stays one row."""
        while some := list(islice(self._events, MOST_ROWS)):
            try:
                async with patient(database.audit()) as session:
                    await observations.add_events(session, some)
                self.written += len(some)
            except Unusable:
                self.refused += len(some)
            for _ in some:
                self._events.popleft()

    async def _write_servers(self, database: Database) -> None:
        due = await self._due()
        for tenant in sorted(due, key=lambda tenant: self._turns.get(tenant, 0))[:_MOST_TENANTS]:
            self._turn += 1
            self._turns[tenant] = self._turn
            rows, checks = due[tenant], self._checks.get(tenant, [])[:_MOST_CHECKS]
            try:
                async with patient(database.tenant(tenant)) as session:
                    await self._write(session, rows, checks)
                self.written += rows.count + len(checks)
            except TooSlow:  # the others need not wait for it
                continue
            except Unusable:
                self.refused += rows.count + len(checks)
            self._known.update(rows.known)
            self._forget_checks(tenant, len(checks))
        self._turns = {tenant: turn for tenant, turn in self._turns.items() if tenant in due}

    async def _write(self, session: Session, rows: _Due, checks: Sequence[Check]) -> None:
        await observations.put_breakers(session, self._instance, rows.breakers)
        await observations.put_pools(session, self._instance, rows.pools)
        await observations.put_queues(session, self._instance, rows.queues)
        await observations.put_health(session, rows.health)
        await observations.add_checks(session, self._instance, checks)

    async def _remove(self, database: Database) -> None:
        now = self._clocks.monotonic()
        if now < self._remove_at:
            return
        async with patient(database.across_tenants("write")) as session:
            await observations.remove_rows(session)
        self._remove_at = now + _REMOVE_S

    # --- what is to be written ------------------------------------------------------------------------------------

    async def _due(self) -> dict[str, _Due]:
        """Rows by tenant: of servers that changed, or were not written for long. Forgets servers that are gone."""
        servers = {server.place.id: server for server in self._servers().values() if server.place.id}
        for identity in self._used.keys() - servers.keys():
            for about in (self._known, self._used, self._checked):
                about.pop(identity, None)
        due: dict[str, _Due] = {tenant: _Due() for tenant in self._checks}
        for number, (identity, server) in enumerate(servers.items(), 1):
            self._see(due, identity, server)
            if not number % _AT_ONCE:
                await asyncio.sleep(0)
        return due

    def _see(self, due: dict[str, _Due], identity: str, server: Observed) -> None:
        now, known = self._clocks.monotonic(), self._known.get(identity)
        used = self._used[identity] = share_used(server, self._used.get(identity))
        sight = look(server, used, self.recommended(server.name))
        again = known is not None and now - known.at >= _REFRESH_S
        before = known.sight if known is not None and not again else None
        if sight == before:
            return
        rows = due.setdefault(server.place.tenant, _Due())
        rows.known[identity] = _Known(known.at if known is not None and not again else now, sight)
        if before is None or sight.breaker != before.breaker:
            rows.breakers.append(breaker_row(identity, sight, self._clocks.wall() - now))
        if before is None or sight.pool != before.pool:
            rows.pools.append(pool_row(identity, sight))
        queue = queue_row(identity, sight)
        if queue is not None and (before is None or sight.queue != before.queue):
            rows.queues.append(queue)
        # A server that was not looked at yet is unknown to this instance; others may know better.
        if (before is None or sight.status != before.status) and (known is not None or sight.status != "UNKNOWN"):
            rows.health.append(self._health(identity, server, sight))

    def _health(self, identity: str, server: Observed, sight: Sight) -> HealthSeen:
        checked = self._checked.get(identity)
        return HealthSeen(
            identity, sight.status, server.latency_ewma_s * 1e3 or None,
            checked.failures if checked is not None else 0, checked.at if checked is not None else None,
        )  # fmt: skip

    def _forget_checks(self, tenant: str, number: int) -> None:
        self._checks_waiting -= number
        waiting = self._checks.get(tenant, [])
        del waiting[:number]
        if not waiting:
            self._checks.pop(tenant, None)
