"""Keeps connection pools as large as their use asks for, and says what their bounds should be.

Owns when pools are looked at, what is kept of it for metrics and rows, and what is worth a line in the log. The law and
the recommendation are `dataplane/pool_size.py`'s, the places `dataplane/slots.py`'s. Pools of PostgreSQL are only
looked at: their library sizes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.dataplane.pool_size import Advice, Outlook, Recommendation, Sizing

if TYPE_CHECKING:
    from proxy.dataplane.client import Origin, UpstreamClient
    from proxy.dataplane.snapshot import Live
    from proxy.dataplane.upstream import Upstream
    from proxy.identity.access import Server as Place
    from proxy.log import Logger
    from proxy.store.database import Database

#: Seconds between two lines about one pool.
_QUIET_S: Final = 600.0
#: Servers looked at in one go.
_PIECE: Final = 200
#: Weight of a look in the average use: that of the last minute or so.
_WEIGHT: Final = 1 / 60


class PoolState(NamedTuple):
    """One pool at this moment."""

    name: str
    place: Place | None
    """The server's row; None for a pool of PostgreSQL."""
    label: str
    """Of metrics."""
    bound: int
    """What people set: `pool.max_connections`."""
    limit: int
    """The size in force."""
    in_use: int
    idle: int
    waiting: int
    waits: int
    waited_s: float
    utilization: float
    """Mean share of the bound in use, 0 to 1."""
    recommendation: Recommendation
    errors: Mapping[Origin, int]
    """Connections that could not be made, by kind."""


class _Watch:
    """What is remembered of one pool."""

    def __init__(self, least: int, bound: int, now: float) -> None:
        self.bound = bound
        self.outlook = Outlook(least, bound, now)
        self.recommendation = self.outlook.recommendation(now)
        self.utilization = 0.0
        #: Waits, or what stands for them, that were seen.
        self.waits = 0
        self.told: Advice = "keep"
        self.told_at: float | None = None

    def see(self, now: float, demand: int, in_use: int, waits: int) -> None:
        """Take one look into account; `waits` is a total."""
        if self.outlook.see(now, demand, waits - self.waits):
            self.recommendation = self.outlook.recommendation(now)
        self.waits = waits
        self.utilization += (min(1.0, in_use / self.bound) - self.utilization) * _WEIGHT


class _Server(_Watch):
    """A pool of connections to a server. Another client, because its configuration changed, is another pool."""

    def __init__(self, upstream: Upstream, now: float) -> None:
        pool = upstream.config.pool
        super().__init__(pool.min_connections or 1, pool.max_connections, now)
        self.client: UpstreamClient = upstream.client
        self.sizing = Sizing(pool.min_connections or pool.max_connections, pool.max_connections)

    def step(self, now: float) -> None:
        client, slots = self.client, self.client.slots
        demand = slots.demand()
        size = self.sizing.step(slots.limit, demand)
        client.resize(size)  # also counts what grew by itself
        self.see(now, demand, slots.used, slots.waits)

    def state(self, upstream: Upstream) -> PoolState:
        client, slots = self.client, self.client.slots
        return PoolState(
            upstream.name, upstream.place, upstream.metrics.label, self.bound, slots.limit, slots.used, client.idle,
            slots.waiting, slots.waits, slots.waited_s, self.utilization, self.recommendation, client.connect_errors,
        )  # fmt: skip


class PoolSizing:
    """`step()` is meant for a loop of a second."""

    def __init__(
        self,
        live: Live,
        log: Logger,
        clock: Callable[[], float],
        database: Database | None = None,
    ) -> None:
        """`clock` gives monotonic seconds."""
        self._live = live
        self._log = log
        self._clock = clock
        self._database = database
        self._servers: dict[str, _Server] = {}
        self._stores: dict[str, _Watch] = {}

    async def step(self) -> None:
        """Look at every pool, and size those of servers: in pieces between which requests run."""
        for _ in self._look():
            await asyncio.sleep(0)

    def _look(self) -> Iterator[None]:
        """All of a step; comes back now and then on the way."""
        now, upstreams = self._clock(), self._live.snapshot.upstreams
        for number, (name, upstream) in enumerate(upstreams.items()):
            if number % _PIECE == _PIECE - 1:
                yield
            server = self._watched(name, upstream, now)
            if server is not None:
                server.step(now)
                self._advise(f"server {name}", "pool.max_connections", server, now)
        if len(self._servers) > len(upstreams):
            self._servers = {name: server for name, server in self._servers.items() if name in upstreams}
        for store, numbers in self._database.numbers().items() if self._database is not None else ():
            watch = self._stores.get(store)
            if watch is None:
                watch = self._stores[store] = _Watch(1, numbers.bound, now)
            watch.see(now, numbers.demand(), min(numbers.wanted, numbers.bound), numbers.waits)
            self._advise(f"postgres {store}", f"postgres.pool.{store}", watch, now)

    def _watched(self, name: str, upstream: Upstream, now: float) -> _Server | None:
        """The watch over a server's pool; None while it was never used: then a look is all it costs."""
        server = self._servers.get(name)
        if server is None and not upstream.client.slots.peak:
            return None
        if server is None or server.client is not upstream.client:
            server = self._servers[name] = _Server(upstream, now)
        return server

    def recommended(self, name: str) -> int | None:
        """The bound that the use of a server's pool suggests; None while nobody has looked at it."""
        server = self._servers.get(name)
        return server.recommendation.size if server is not None else None

    def states(self) -> Iterator[PoolState]:
        """Every server's pool that was used, then those of PostgreSQL."""
        for name, upstream in self._live.snapshot.upstreams.items():
            server = self._servers.get(name)
            if server is not None and server.client is upstream.client:
                yield server.state(upstream)
        for store, numbers in self._database.numbers().items() if self._database is not None else ():
            watch = self._stores.get(store)
            if watch is not None:
                in_use = min(numbers.wanted, numbers.bound)
                yield PoolState(
                    f"postgres {store}", None, "", numbers.bound, numbers.bound, in_use, numbers.idle,
                    numbers.wanted - in_use, numbers.waits, numbers.waited_s, watch.utilization, watch.recommendation,
                    {"connect": numbers.unreachable},
                )  # fmt: skip

    def _advise(self, pool: str, key: str, watch: _Watch, now: float) -> None:
        """One line about an advice that became another, and not again for a while."""
        advice, size, reason = watch.recommendation
        if advice == watch.told or (watch.told_at is not None and now - watch.told_at < _QUIET_S):
            return
        watch.told, watch.told_at = advice, now
        self._log.info("connection pool", pool=pool, key=key, advice=advice, suggested=size, reason=reason)
