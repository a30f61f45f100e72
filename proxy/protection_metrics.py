"""What protects servers and process, as metrics: breakers, queues, retries, overload, health, pools.

Owns names, types and labels of these metrics; docs/operations.md lists them. It only reads plain numbers that others
keep, when somebody looks. A server whose breaker never saw a failure has no lines of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from proxy.backend_metrics import keyed, single
from proxy.background import health_checks
from proxy.metrics import Family

if TYPE_CHECKING:
    from proxy.background.health_checks import HealthChecks
    from proxy.background.observing import Observing
    from proxy.background.pool_sizing import PoolSizing, PoolState
    from proxy.dataplane.retries import RetryBudget
    from proxy.dataplane.shedding import Load
    from proxy.dataplane.upstream import Upstream

_Rows = list[tuple[str, float]]

_CLASSES: Final = ("high", "normal", "low")
#: Attribute of a queue -> kind and what it is.
_QUEUE: Final = {
    "running": ("gauge", "Requests under way at a server with a queue"),
    "pending": ("gauge", "Requests that wait for a server"),
    "admitted": ("counter", "Requests that got a place"),
    "rejected": ("counter", "Requests that found the queue full, or could not be served in time"),
    "expired": ("counter", "Requests that waited in vain"),
    "abandoned": ("counter", "Requests whose client left while they waited"),
    "waited_s": ("counter", "Seconds that requests waited"),
}
#: Kind, name, what it is, and where it is found.
_POOLS: Final[tuple[tuple[str, str, str, Callable[[PoolState], float]], ...]] = (
    ("gauge", "waiting", "Exchanges that wait for a connection now", lambda state: state.waiting),
    ("gauge", "connections_idle", "Open connections that nobody uses now", lambda state: state.idle),
    ("counter", "wait_seconds", "Time that exchanges waited for a connection", lambda state: state.waited_s),
    ("gauge", "connections_bound", "pool.max_connections", lambda state: state.bound),
    ("gauge", "connections_recommended", "What the use suggests for max_connections",
     lambda state: state.recommendation.size),
)  # fmt: skip


def families(
    upstreams: Mapping[str, Upstream], checks: HealthChecks, load: Load, budget: RetryBudget, observing: Observing
) -> Iterator[Family]:
    """Every metric of the protection."""
    yield from health_checks.families(upstreams, checks)
    servers = list(upstreams.values())
    yield from _breakers([server for server in servers if server.breaker.last_failure or server.breaker.order])
    yield from _queues([server for server in servers if server.queue is not None])
    yield single("gauge", "retries_running", "Retries and hedges under way", budget.retrying)
    retries = {"allowed": budget.taken, "refused": budget.refused}
    yield keyed("counter", "retries", "Retries and hedges wanted, by whether the budget had room", "verdict", retries)
    yield single("gauge", "loop_lag_seconds", "Longest delay of the event loop in the last second", load.lag_s)
    yield single("gauge", "memory_bytes", "Memory that counts against the limit", load.memory_bytes)
    yield single("gauge", "memory_limit_bytes", "Memory that may be used; 0: no limit", load.memory_limit)
    shed = dict(zip(_CLASSES, load.shed, strict=True))
    yield keyed("counter", "shed_requests", "Requests refused for overload", "class", shed)
    yield single("gauge", "observation_rows_waiting", "Events and health checks not written yet", observing.waiting)
    yield single("counter", "observation_rows_dropped", "Events and health checks without room", observing.dropped)


def pool_families(sizing: PoolSizing) -> Iterator[Family]:
    """What `metrics.py` does not count already of connection pools, those of PostgreSQL included."""
    states = list(sizing.states())
    servers = [state for state in states if state.place is not None]
    for kind, name, purpose, number in _POOLS:
        rows = [(f'{{server="{state.label}"}}', number(state)) for state in servers]
        yield _summed(kind, f"pool_{name}", purpose, rows)
    errors = [
        (f'{{server="{state.label}",kind="{origin}"}}', count)
        for state in servers
        for origin, count in state.errors.items()
    ]
    yield _summed("counter", "pool_connect_errors", "Connections that could not be made", errors)
    stores = {state.name.split()[-1]: state for state in states if state.place is None}
    sizes = {name: state.recommendation.size for name, state in stores.items()}
    purpose = "What the use suggests for postgres.pool"
    yield keyed("gauge", "postgres_connections_recommended", purpose, "pool", sizes)
    bounds = {name: state.bound for name, state in stores.items()}
    yield keyed("gauge", "postgres_connections_limit", "What postgres.pool says", "pool", bounds)


def _breakers(servers: Iterable[Upstream]) -> Iterator[Family]:
    states: _Rows = []
    trips: _Rows = []
    refused: _Rows = []
    seconds: _Rows = []
    failures: _Rows = []
    for server in servers:
        breaker, label = server.breaker, f'server="{server.metrics.label}"'
        spent = breaker.seconds()
        states += [(f'{{{label},state="{state}"}}', float(state == breaker.state)) for state in spent]
        seconds += [(f'{{{label},state="{state}"}}', length) for state, length in spent.items()]
        failures += [(f'{{{label},origin="{origin}"}}', count) for origin, count in breaker.by_origin.items()]
        trips.append((f"{{{label}}}", breaker.trips))
        refused.append((f"{{{label}}}", breaker.refused))
    yield _summed("gauge", "breaker_state", "Breakers by their state", states)
    yield _summed("counter", "breaker_trips", "Times that failures opened a breaker", trips)
    yield _summed("counter", "breaker_refused", "Requests that found a breaker open", refused)
    yield _summed("counter", "breaker_seconds", "Seconds that breakers spent in each state", seconds)
    yield _summed("counter", "server_failures", "Failures of servers, by where they arose", failures)


def _queues(servers: Iterable[Upstream]) -> Iterator[Family]:
    with_queues = [(server.metrics.label, server.queue) for server in servers]
    for name, (kind, purpose) in _QUEUE.items():
        rows = [(f'{{server="{label}"}}', float(getattr(queue, name))) for label, queue in with_queues]
        yield _summed(kind, f"queue_{name.replace('_s', '_seconds')}", purpose, rows)


def _summed(kind: str, name: str, purpose: str, rows: Iterable[tuple[str, float]]) -> Family:
    """Servers beyond the cap share a label: their numbers are one."""
    sums: dict[str, float] = {}
    for labels, value in rows:
        sums[labels] = sums.get(labels, 0.0) + value
    return Family(kind, f"mcp_proxy_{name}", purpose, list(sums.items()))
