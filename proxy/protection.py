"""What protects servers from traffic, traffic from servers, and this process from both: health checks, maintenance,
breakers and their orders, retries, sizes of pools, overload.

Owns their making, what each is told of, and the steps that keep them going. Part of the composition root, like
`backend.py`, which brings the rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from proxy import log
from proxy.background.breaker_orders import BreakerOrders
from proxy.background.health_checks import STEP_S as CHECKS_S
from proxy.background.health_checks import HealthChecks
from proxy.background.maintenance import STEP_S as MAINTENANCE_S
from proxy.background.maintenance import Maintenance
from proxy.background.memory import Memory
from proxy.background.observing import STEP_S as OBSERVING_S
from proxy.background.observing import Clocks, Observing
from proxy.background.overload import STEP_S as LOAD_S
from proxy.background.overload import OverloadWatch
from proxy.background.pool_sizing import PoolSizing
from proxy.dataplane.retries import RetryBudget
from proxy.dataplane.shedding import NOBODY, Load, refuse_waiting
from proxy.protection_metrics import families, pool_families

if TYPE_CHECKING:
    from proxy.background.supervisor import Step, Supervisor
    from proxy.config.models import Config
    from proxy.dataplane.breaker import Change
    from proxy.dataplane.listener import Listener
    from proxy.dataplane.snapshot import Live
    from proxy.dataplane.streams import Streams
    from proxy.dataplane.upstream import Upstream
    from proxy.identity.uuid7 import RecordIds
    from proxy.metrics import Family
    from proxy.store.database import Database
    from proxy.store.observations import Severity

Rows = Callable[[str], Mapping[str, Any]]
"""The rows of a table of the registry by id: the same object for as long as none changed."""

#: How often orders of operators are looked for, and pools are sized, seconds.
_ORDERS_S: Final = 0.25
_POOLS_S: Final = 1.0


class Protection:
    """Everything that watches, for the whole process."""

    def __init__(self, config: Config) -> None:
        self.load = Load()
        self.budget = RetryBudget(config.retry_budget)
        self._watch = OverloadWatch(config.overload, self.load, Memory(), time.monotonic, self._load_changed)
        self._orders = BreakerOrders(log.logger("breakers"))
        self._obeyed: tuple[object, object] = (None, None)
        self._recording = False
        self._rows: Rows
        self._live: Live
        self._observing: Observing
        self._checks: HealthChecks
        self._maintenance: Maintenance
        self._sizing: PoolSizing

    def begin(self, live: Live, streams: Streams, supervisor: Supervisor, draw: Callable[[], float]) -> None:
        """Take what it watches. Without a database; `record` adds one."""
        self._live = live
        self._streams = streams
        self._supervisor = supervisor
        self._draw = draw

    def record(self, database: Database | None, rows: Rows, ids: RecordIds, instance: str) -> None:
        """Watch, and write what is seen to the database, if there is one."""
        live, self._rows = self._live, rows
        clocks = Clocks(time.time, time.monotonic)

        def servers() -> Mapping[str, Upstream]:
            return live.snapshot.upstreams

        self._observing = Observing(database, servers, ids, clocks, log.logger("resilience"), instance)
        self._checks = HealthChecks(
            servers, self._supervisor.spawn, log.logger("health"), time.monotonic, self._draw,
            self._observing.health_checked,
        )  # fmt: skip
        self._sizing = PoolSizing(live, log.logger("pools"), time.monotonic, database)
        self._observing.recommended = self._sizing.recommended
        self._maintenance = Maintenance(
            live, self._streams, lambda: rows("maintenance_windows"), self._observing.event, time.time
        )
        self._maintenance.step()
        self._obey()
        self._recording = True

    def configure(self, config: Config) -> None:
        """A reloaded configuration is in force."""
        self.budget.config = config.retry_budget
        self._watch.configure(config.overload)
        self._maintenance.step()

    def event(self, kind: str, severity: Severity, message: str, **details: object) -> None:
        """This process did something that operators ask about later; its line of the log is written by whoever did."""
        if self._recording:
            self._observing.note("", kind, severity, "app", message, details)

    def breaker_changed(self, upstream: Upstream, change: Change) -> None:
        """A breaker opened, tries, or closed."""
        breaker, place = upstream.breaker, upstream.place
        self._observing.event(
            place.tenant, f"breaker_{breaker.state}", "warning" if breaker.state == "open" else "info", "breaker",
            f"The breaker of a server is {breaker.state.replace('_', ' ')}",
            {
                "server": upstream.name, "why": change, "failures": breaker.failures, "trips": breaker.trips,
                "last_failure": breaker.last_failure, "enforced": breaker.config.enforce,
            },
        )  # fmt: skip

    def _load_changed(self) -> None:
        """Other requests are refused for overload than before, or other things given up."""
        load = self.load
        self._observing.event(
            "", "overload", "warning" if load.refused_from < NOBODY or load.shrinking else "info", "overload",
            "What is refused for overload has changed",
            {
                "refused_from_class": load.refused_from, "loop_lag_ms": round(load.lag_s * 1e3),
                "memory_bytes": load.memory_bytes, "memory_limit": load.memory_limit,
                "closing_keepalive": load.closing_keepalive, "refusing_connections": load.refusing,
            },
        )  # fmt: skip

    def steps(self, listener: Listener, beat: Callable[[], None]) -> Iterator[tuple[str, float, Step, float]]:
        """Name, interval in seconds, step and jitter of every loop. `beat` is called as long as this process runs."""

        def load() -> None:
            beat()
            self._watch.step()
            listener.relieve()
            queues = (server.queue for server in self._live.snapshot.upstreams.values())
            refuse_waiting(self.load, (queue for queue in queues if queue is not None))

        yield "load", LOAD_S, load, 0.0
        yield "health checks", CHECKS_S, self._checks.step, 0.1
        yield "maintenance", MAINTENANCE_S, self._maintenance.step, 0.1
        yield "sizes of pools", _POOLS_S, self._sizing.step, 0.1
        yield "breaker orders", _ORDERS_S, self._obey, 0.1
        yield "observing", OBSERVING_S, self._observing.step, 0.1

    def families(self) -> Iterator[Family]:
        """The metrics of all this."""
        servers = self._live.snapshot.upstreams
        yield from families(servers, self._checks, self.load, self.budget, self._observing)
        yield from pool_families(self._sizing)

    async def finish(self) -> None:
        """Write the last rows. Quiet while PostgreSQL is away."""
        self._watch.close()
        if self._recording:
            await self._observing.finish()

    def _obey(self) -> None:
        """Carry out the orders of operators when there are new ones, or new servers."""
        seen = (self._rows("breaker_orders"), self._live.snapshot)
        if seen[0] is not self._obeyed[0] or seen[1] is not self._obeyed[1]:
            self._obeyed = seen
            self._orders.apply(seen[0].values(), self._live.snapshot.upstreams.values())
