"""The values that alerts watch, by the name of the metric.

Owns which number a metric is, and whose: a tenant's rule sees that tenant's traffic and servers, the system tenant's
sees everything. It measures nothing: others keep the numbers, and pass in how to read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from proxy.identity.records import SYSTEM_TENANT

if TYPE_CHECKING:
    from proxy.background.alert_states import Rule
    from proxy.background.observed import Client
    from proxy.identity.access import Server as Place

Traffic = Callable[[str, str, str, float], float | None]
"""Metric, id of the tenant ('' for all), full name of the server ('' for all), seconds to look back on -> the value,
None when there is none."""


class State(Protocol):
    """A part of `Breaker`."""

    @property
    def state(self) -> str: ...


class Waiting(Protocol):
    """A part of `RequestQueue`."""

    @property
    def pending(self) -> int: ...


class Watched(Protocol):
    """A server: a part of `Upstream`."""

    @property
    def name(self) -> str: ...
    @property
    def place(self) -> Place: ...
    @property
    def breaker(self) -> State: ...
    @property
    def queue(self) -> Waiting | None: ...
    @property
    def client(self) -> Client: ...


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Sources:
    """How to read each number; None where there is nothing to read."""

    traffic: Traffic
    servers: Callable[[], Mapping[str, Watched]]
    """All servers in force, by full name."""
    spool_share: Callable[[], float | None] = _nothing
    """How full the spool is, 0 to 1."""
    postgres_away: Callable[[], bool | None] = _nothing
    """Whether PostgreSQL is taken for gone; None without one."""
    redis_away: Callable[[], bool | None] = _nothing
    """The same of Redis."""
    loop_lag_s: Callable[[], float | None] = _nothing
    """The longest delay of the event loop in the last second."""
    memory_share: Callable[[], float | None] = _nothing
    """Memory in use of what may be used, 0 to 1; None without a limit."""


class Signals:
    """Answers for a rule."""

    def __init__(self, sources: Sources) -> None:
        self._traffic = sources.traffic
        self._servers = sources.servers
        #: Full names of servers by the id of their row.
        self._names: dict[str, str] = {}
        self._of_process: Final[Mapping[str, Callable[[], float | None]]] = {
            "spool_share": sources.spool_share,
            "postgres_away": lambda: _number(sources.postgres_away()),
            "redis_away": lambda: _number(sources.redis_away()),
            "loop_lag_ms": lambda: _scaled(sources.loop_lag_s(), 1e3),
            "memory_share": sources.memory_share,
        }

    def values(self, rule: Rule) -> dict[str, float | None]:
        """The values of its series: one for each server of a metric that each server has, else one named ''.

        Numbers of the process are the operator's: to a tenant's rule they do not exist.
        """
        read = self._of_process.get(rule.metric)
        if read is not None:
            return {"": read() if rule.tenant == SYSTEM_TENANT else None}
        of_server = _OF_SERVERS.get(rule.metric)
        if of_server is not None:
            return {server.name: of_server(server) for server in self._watched(rule)}
        return {"": self._of_traffic(rule)}

    def _of_traffic(self, rule: Rule) -> float | None:
        tenant = "" if rule.tenant == SYSTEM_TENANT else rule.tenant
        server = self._name_of(rule.server) if rule.server else ""
        if server is None:
            return None
        if rule.min_requests and (self._traffic("requests", tenant, server, rule.window_s) or 0) < rule.min_requests:
            return None
        return self._traffic(rule.metric, tenant, server, rule.window_s)

    def _name_of(self, server: str) -> str | None:
        """The full name of a server in force, which is given by it or by its id."""
        servers = self._servers()
        if server in servers:
            return server
        known = self._names.get(server, "")
        if known in servers and servers[known].place.id == server:
            return known
        self._names = {each.place.id: name for name, each in servers.items() if each.place.id}
        return self._names.get(server)

    def _watched(self, rule: Rule) -> Iterator[Watched]:
        """Its servers. A tenant's rule does not see the servers of others."""
        every = rule.tenant == SYSTEM_TENANT
        for server in self._servers().values():
            place = server.place
            if (every or place.tenant == rule.tenant) and rule.server in ("", place.id, server.name):
                yield server


def _number(flag: bool | None) -> float | None:
    return None if flag is None else float(flag)


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _share_used(server: Watched) -> float | None:
    slots = server.client.slots
    return min(1.0, slots.used / slots.limit) if slots.limit > 0 else None


_OF_SERVERS: Final[Mapping[str, Callable[[Watched], float | None]]] = {
    "breaker_open": lambda server: float(server.breaker.state != "closed"),
    "pool_utilization": _share_used,
    "queue_pending": lambda server: None if server.queue is None else float(server.queue.pending),
}
