"""What is seen of a server at one moment, as values that can be compared, and as rows of `store/observations.py`.

Owns which attributes of an upstream become which columns. Pure: no I/O, no clock; it must not know when rows are
written.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from proxy.store.observations import BreakerSeen, HealthStatus, PoolSeen, QueueSeen

if TYPE_CHECKING:
    from proxy.dataplane.breaker import Breaker
    from proxy.dataplane.health import Health
    from proxy.dataplane.probe import Result
    from proxy.dataplane.queueing import RequestQueue
    from proxy.identity.access import Server as Place

#: Weight of a look in the average use of a pool.
_WEIGHT: Final = 0.2
_STATUSES: Final[Mapping[str, HealthStatus]] = {
    "healthy": "HEALTHY", "degraded": "DEGRADED", "unhealthy": "UNHEALTHY"
}  # fmt: skip


class Places(Protocol):
    """The places in a connection pool."""

    @property
    def limit(self) -> int: ...
    @property
    def used(self) -> int: ...
    @property
    def waiting(self) -> int: ...


class Client(Protocol):
    """A part of `UpstreamClient`."""

    @property
    def slots(self) -> Places: ...
    @property
    def idle(self) -> int: ...


class Observed(Protocol):
    """A server: a part of `Upstream`."""

    @property
    def name(self) -> str: ...
    @property
    def place(self) -> Place: ...
    @property
    def latency_ewma_s(self) -> float: ...
    @property
    def breaker(self) -> Breaker: ...
    @property
    def queue(self) -> RequestQueue | None: ...
    @property
    def client(self) -> Client: ...
    @property
    def health(self) -> Health: ...
    @property
    def window(self) -> object: ...


class Sight(NamedTuple):
    """What is seen of a server. Two are equal when nothing changed that is published."""

    breaker: tuple[str, int, int, float, float, str]
    """State, failures in a row, trips, when it opened and will try again (monotonic; 0, inf: never), last failure."""
    pool: tuple[int, int, int, int, float, int | None]
    """Limit, in use, idle, waiting, share in use, recommended limit."""
    queue: tuple[int, int, int, int, float, int, int, int] | None
    """As `QueueSeen`."""
    status: HealthStatus


def look(server: Observed, used: float, recommended: int | None = None) -> Sight:
    """Take a look at a server: 4 µs. `used`: the mean of `share_used`; `recommended`: a size for its pool."""
    breaker, slots = server.breaker, server.client.slots
    return Sight(
        (
            breaker.state, breaker.failures, breaker.trips, breaker.opened_at, breaker.next_attempt_at,
            breaker.last_failure,
        ),
        (slots.limit, slots.used, server.client.idle, slots.waiting, round(used, 2), recommended),
        _queue(server.queue),
        status_of(server),
    )  # fmt: skip


def share_used(server: Observed, before: float | None) -> float:
    """The share of its connections that is in use, averaged over the last few looks; `before`: what it was."""
    slots = server.client.slots
    now = min(1.0, slots.used / slots.limit) if slots.limit > 0 else 0.0
    return now if before is None else before + (now - before) * _WEIGHT


def _queue(queue: RequestQueue | None) -> tuple[int, int, int, int, float, int, int, int] | None:
    if queue is None:
        return None
    return (
        queue.max_concurrent, queue.max_pending, queue.running, queue.pending, round(queue.oldest_wait_s * 1e3, 1),
        queue.admitted, queue.rejected, queue.expired + queue.abandoned,
    )  # fmt: skip


def status_of(server: Observed) -> HealthStatus:
    """How it is; under maintenance nothing else counts."""
    return "MAINTENANCE" if server.window is not None else _STATUSES.get(server.health.status, "UNKNOWN")


def found(server: Observed, result: Result) -> HealthStatus:
    """What one check found, after its health took the result in: a good one may be slower than it should be."""
    status = status_of(server)
    if status == "MAINTENANCE":
        return status
    if not result.ok:
        return "UNHEALTHY"
    return "DEGRADED" if status == "DEGRADED" else "HEALTHY"


def breaker_row(identity: str, sight: Sight, offset_s: float) -> BreakerSeen:
    """`offset_s` makes seconds since 1970 of monotonic ones."""
    state, failures, trips, opened_at, next_attempt_at, last_failure = sight.breaker
    opened, attempt = (_moment(at + offset_s) if 0 < at < inf else None for at in (opened_at, next_attempt_at))
    return BreakerSeen(identity, state, failures, trips, opened, attempt, last_failure or None)


def pool_row(identity: str, sight: Sight) -> PoolSeen:
    """The row of its connection pool."""
    return PoolSeen(identity, *sight.pool)


def queue_row(identity: str, sight: Sight) -> QueueSeen | None:
    """The row of its queue, when it has one."""
    return QueueSeen(identity, *sight.queue) if sight.queue is not None else None


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(round(seconds, 3), UTC)
