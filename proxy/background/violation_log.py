"""Writes to PostgreSQL, beside the requests, which limits were exceeded and which addresses were blocked.

Owns what waits to be written, and its bounds. A limit that one subject exceeds a thousand times in a second makes one
row: that it was, by whom and first from where; how often is counted by the metrics. While PostgreSQL is away rows wait;
those for which there is no room, or which PostgreSQL refuses, are counted. A ban is written to the log besides, also
without a database.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from proxy.dataplane.bans import OPERATOR
from proxy.store.database import TooSlow, Unavailable
from proxy.store.failures import write_usable
from proxy.store.observations import patient
from proxy.store.violations import MOST_ROWS, SecurityEvent, Violation, add_events, add_violations, tenant_of

if TYPE_CHECKING:
    from proxy.dataplane.bans import Ban
    from proxy.identity.uuid7 import RecordIds
    from proxy.log import Logger
    from proxy.store.database import Database

#: How often `step` is called, seconds.
STEP_S: Final = 1.0
#: Rows of each kind that wait: some megabytes.
_MOST_WAITING: Final = 20_000
#: Tenants whose rows are written in one step, each in a transaction of its own.
_MOST_TENANTS: Final = 100
#: Blocks in a row from which an address is more than a nuisance.
_STUBBORN: Final = 3


class Exceeded(Protocol):
    """The rule that was: `limits.rules.Rule` is one."""

    @property
    def id(self) -> str:
        """Id of its row, or name of a configured one."""

    @property
    def level(self) -> str:
        """What it counts by."""


class ViolationLog:
    """What is told here is written soon."""

    def __init__(
        self, database: Database | None, ids: RecordIds, wall: Callable[[], float], log: Logger, instance: str = ""
    ) -> None:
        """`wall` gives seconds since 1970; `instance` names this process in its rows. Without a database there are no
        rows."""
        #: Rows that were written, and those for which there was no room or which PostgreSQL refused.
        self.written = self.dropped = 0
        self._database = database
        self._ids = ids
        self._wall = wall
        self._log = log
        self._instance = instance
        #: (rule, subject, second) -> tenant and row, in the order of time.
        self._violations: dict[tuple[str, str, int], tuple[str, Violation]] = {}
        self._events: deque[SecurityEvent] = deque()

    @property
    def waiting(self) -> int:
        """Rows that are not written yet."""
        return len(self._violations) + len(self._events)

    def violated(self, rule: Exceeded, subject: str, tenant: str, ip: str, limit: float, retry_after_s: float) -> None:
        """A request was refused (or would have been) for a rule. `tenant`: an id, '' for none. 0.5 µs; 5 for a row."""
        if self._database is None:
            return
        now = self._wall()
        key = (rule.id, subject, int(now))
        if key in self._violations:
            return
        if len(self._violations) >= _MOST_WAITING:
            self.dropped += 1
            return
        row = Violation(self._ids.new(), now, rule.id, rule.level, subject, ip, limit, retry_after_s)
        self._violations[key] = (tenant_of(tenant), row)

    def blocked(self, ban: Ban, seconds: float) -> None:
        """An address was blocked for so long."""
        self._log.warning(
            "address blocked", address=ban.subject, kind=ban.kind, seconds=round(seconds), times=ban.times
        )
        if self._database is None:
            return
        if len(self._events) >= _MOST_WAITING:
            self.dropped += 1
            return
        reason = "by an operator" if ban.kind == OPERATOR else f"for {ban.kind.replace('_', ' ')}"
        self._events.append(
            SecurityEvent(
                self._ids.new(), self._wall(), ban.kind, "high" if ban.times >= _STUBBORN else "medium", ban.subject,
                f"address blocked {reason}", ban.score,
                details={"seconds": round(seconds), "times": ban.times}, instance=self._instance,
            )
        )  # fmt: skip

    # --- writing --------------------------------------------------------------------------------------------------

    async def step(self) -> None:
        """Write what is known of the seconds that are over. Quiet while PostgreSQL is away."""
        await self._write(int(self._wall()))

    async def finish(self) -> None:
        """Write the rest, at the end. Quiet while PostgreSQL is away."""
        await self._write(None)

    async def _write(self, current: int | None) -> None:
        """`current`: the second that is left for later."""
        if self._database is None:
            return
        try:
            await self._write_events(self._database)
        except TooSlow:  # the others need not wait for it
            pass
        except Unavailable:
            return
        with suppress(Unavailable):
            await self._write_violations(self._database, current)

    async def _write_events(self, database: Database) -> None:
        """They are taken out when they are written: what was written already stays one row."""

        async def write(rows: Sequence[SecurityEvent]) -> None:
            async with patient(database.audit()) as session:
                await add_events(session, rows)

        while some := list(islice(self._events, MOST_ROWS)):
            self._count(len(some), await write_usable(some, write))
            for _ in some:
                self._events.popleft()

    async def _write_violations(self, database: Database, current: int | None) -> None:
        by_tenant: dict[str, list[tuple[str, str, int]]] = {}
        for key, (tenant, _) in self._violations.items():
            keys = by_tenant.setdefault(tenant, [])
            if key[2] != current and len(keys) < MOST_ROWS:
                keys.append(key)
        due = [(tenant, keys) for tenant, keys in by_tenant.items() if keys]
        for tenant, keys in due[:_MOST_TENANTS]:
            try:
                refused = await self._write_tenant(database, tenant, [self._violations[key][1] for key in keys])
            except TooSlow:  # the others need not wait for it; it goes to the end
                self._violations.update({key: self._violations.pop(key) for key in keys})
                continue
            for key in keys:
                del self._violations[key]
            self._count(len(keys), refused)

    async def _write_tenant(self, database: Database, tenant: str, rows: Sequence[Violation]) -> int:
        """How many were refused."""

        async def write(some: Sequence[Violation]) -> None:
            async with patient(database.tenant(tenant)) as session:
                await add_violations(session, some)

        return await write_usable(rows, write)

    def _count(self, rows: int, refused: int) -> None:
        self.written += rows - refused
        self.dropped += refused
