"""Makes the health checks of all servers, from one schedule.

Owns when a server is checked: spread over its interval at first, then every interval, up to a tenth earlier by chance;
once a check does not fit what is known of the server, the next ones follow at once, so that a change is known within
one interval and a second. How a check is made is `dataplane/probe.py`, what follows from it `dataplane/health.py`. It
must not know tables: results go to a callback.

Under maintenance a server is asked all the same, so that one sees it come back, but nothing of it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Final, Protocol

from proxy.dataplane.probe import Kind, Probe, Result
from proxy.metrics import Family

if TYPE_CHECKING:
    from proxy.config.models import Server
    from proxy.config.resilience import HealthCheck
    from proxy.dataplane.client import UpstreamClient
    from proxy.dataplane.health import Health, Status
    from proxy.log import Logger

#: How often it is looked what is due, seconds.
STEP_S: Final = 0.1
#: Checks under way at once. Those that are due besides wait for the next step.
_MOST_AT_ONCE: Final = 128
#: A check comes by up to this share of the interval earlier, so that neither servers nor replicas march in step.
_JITTER: Final = 0.1
#: The checks that make sure of a change are spread over this time, but not closer than the other; seconds.
_SURE_WITHIN_S, _CLOSEST_S = 0.4, 0.1

Spawn = Callable[[str, Coroutine[Any, Any, None]], bool]
"""Starts a named one-shot task; False (and the coroutine closed) when too many run already."""


class Watched(Protocol):
    """What a check asks of a server: a part of `Upstream`."""

    @property
    def name(self) -> str: ...
    @property
    def config(self) -> Server: ...
    @property
    def client(self) -> UpstreamClient: ...
    @property
    def health(self) -> Health: ...
    @property
    def window(self) -> object: ...


Observed = Callable[[Any, Result, Kind], None]
"""Is told of each check: the server, the result, and how it was asked."""


def status_of(server: Watched) -> str:
    """`maintenance`, or the status of its health."""
    return "maintenance" if server.window is not None else server.health.status


class _Check:
    """The checks of one server; `gone` once no snapshot has it."""

    __slots__ = ("config", "gone", "probe", "server")

    def __init__(self, server: Watched, config: HealthCheck) -> None:
        self.server = server
        self.config = config
        self.probe = Probe(server.config, config, server.client.new_socket, server.client.tls, server.client.resolver)
        self.gone = False

    def next_s(self, drawn: float) -> float:
        """Seconds until the next one."""
        usual_s = self.config.interval * (1 - _JITTER * drawn)
        if not self.server.health.wavering or self.server.window is not None:
            return usual_s
        needed = max(self.config.healthy_after, self.config.unhealthy_after) - 1
        return min(usual_s, max(_CLOSEST_S, _SURE_WITHIN_S / max(needed, 1)))


class HealthChecks:
    """The step, and the checks that it makes."""

    def __init__(
        self,
        servers: Callable[[], Mapping[str, Watched]],
        spawn: Spawn,
        log: Logger,
        clock: Callable[[], float],
        draw: Callable[[], float],
        observed: Observed = lambda server, result, kind: None,
    ) -> None:
        """`servers` gives those in force: the same object for as long as they are the same. `clock` gives monotonic
        seconds, `draw` a number from 0 to 1 by chance."""
        #: Checks under way, made, and how often all of `_MOST_AT_ONCE` ran while others were due.
        self.running = self.made = self.late = 0
        self._servers, self._spawn, self._log = servers, spawn, log
        self._clock, self._draw, self._observed = clock, draw, observed
        self._seen: Mapping[str, Watched] | None = None
        self._checks: dict[int, _Check] = {}
        #: (when, a number that no two share, check); those under way are not in it.
        self._due: list[tuple[float, int, _Check]] = []
        self._number = 0

    def step(self) -> None:
        """Start the checks that are due."""
        servers, now = self._servers(), self._clock()
        if servers is not self._seen:
            self._adopt(servers, now)
            self._seen = servers
        while self._due and self._due[0][0] <= now:
            check = self._due[0][2]
            if not check.gone and (self.running >= _MOST_AT_ONCE or not self._start(check)):
                self.late += 1
                return
            heappop(self._due)

    def _start(self, check: _Check) -> bool:
        self.running += 1
        started = self._spawn(f"health check {check.server.name}", self._make(check))
        if not started:
            self.running -= 1
        return started

    def _adopt(self, servers: Mapping[str, Watched], now: float) -> None:
        """Take up servers that are new, and leave those that are gone. One that stayed the same keeps its turn."""
        kept: dict[int, _Check] = {}
        for server in servers.values():
            server.health.tell = partial(self._changed, server)
            check = self._checks.pop(id(server), None)
            config = server.config.health_check
            if check is None and config is not None:
                check = _Check(server, config)
                self._plan(check, now + config.interval * self._draw())
            if check is not None:
                kept[id(server)] = check
        for check in self._checks.values():
            check.gone = True
        self._checks = kept
        self._due = [entry for entry in self._due if not entry[2].gone]
        heapify(self._due)

    def _plan(self, check: _Check, at: float) -> None:
        self._number += 1
        heappush(self._due, (at, self._number, check))

    async def _make(self, check: _Check) -> None:
        began = self._clock()
        try:
            result = await check.probe.ask()
            if not check.gone:
                self._take(check, result)
        finally:
            self.running -= 1
            if not check.gone:
                self._plan(check, began + check.next_s(self._draw()))

    def _take(self, check: _Check, result: Result) -> None:
        self.made += 1
        if check.server.window is None:
            check.server.health.checked(*result)
        self._observed(check.server, result, check.probe.kind)

    def _changed(self, server: Watched, name: str, old: Status, new: Status) -> None:
        health = server.health
        tell = self._log.warning if new in ("unhealthy", "degraded") else self._log.info
        why = {"cause": health.last_error, "status": health.last_code} if new == "unhealthy" else {}
        tell("health of a server changed", server=name, before=old, after=new, **why)


def families(servers: Mapping[str, Watched], checks: HealthChecks) -> Iterator[Family]:
    """Metrics: how many servers are in each state, and the checks. Which server it is, the log and the tables say."""
    counts = dict.fromkeys(("unknown", "healthy", "degraded", "unhealthy", "maintenance"), 0)
    for server in servers.values():
        counts[status_of(server)] += 1
    rows = [(f'{{status="{status}"}}', count) for status, count in counts.items()]
    yield Family("gauge", "mcp_proxy_servers", "Servers by their health", rows)
    yield Family("counter", "mcp_proxy_health_checks", "Health checks made", (("", checks.made),))
    yield Family("gauge", "mcp_proxy_health_checks_running", "Health checks under way", (("", checks.running),))
    yield Family("counter", "mcp_proxy_health_checks_late", "Times that checks had to wait", (("", checks.late),))
