"""Everything a request reads, built whole from one configuration and swapped by one assignment.

A request keeps the snapshot it began with, so no request sees two configurations. Upstreams whose configuration is
unchanged are carried over with their connections and counters; the others are retired and closed once they are idle.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.dataplane.client import UpstreamClient
from proxy.dataplane.origin import OriginPolicy
from proxy.dataplane.router import Router
from proxy.dataplane.upstream import Upstream
from proxy.dataplane.wellknown import Wellknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from proxy.config.models import Config, Server
    from proxy.dataplane.affinity import Sealer
    from proxy.dataplane.deadlines import Deadlines
    from proxy.metrics import Metrics


class Snapshot:
    """One generation of the configuration, compiled."""

    __slots__ = (
        "config", "generation", "origins", "public_prefix", "requests", "router", "sealer", "upstreams", "wellknown",
    )  # fmt: skip

    def __init__(
        self, generation: int, config: Config, upstreams: Mapping[str, Upstream], router: Router, sealer: Sealer
    ) -> None:
        self.generation = generation
        #: Requests that read it now; one that an earlier snapshot serves keeps that one's connections alive.
        self.requests = 0
        self.config = config
        self.upstreams = upstreams
        self.router = router
        self.sealer = sealer
        self.origins = OriginPolicy.of(config.listen)
        self.wellknown = Wellknown.compile(config, upstreams)
        self.public_prefix = config.public_prefix


class SnapshotBuilder:
    """Turns configurations into snapshots. Build first, swap afterwards: a failure leaves the old one serving.

    `build` may run in a thread beside requests: it only makes new objects.
    """

    def __init__(
        self,
        metrics: Metrics,
        sealer_of: Callable[[Config], Sealer],
        deadlines: Deadlines,
        now: Callable[[], datetime],
        draw: Callable[[], float],
    ) -> None:
        self._metrics = metrics
        self._deadlines = deadlines
        self._sealer_of = sealer_of
        self._now = now
        self._draw = draw

    def build(self, config: Config, previous: Snapshot | None) -> Snapshot:
        """The next snapshot. Raises OSError or ssl.SSLError when a file it names cannot be used."""
        known = previous.upstreams if previous is not None else {}
        upstreams: dict[str, Upstream] = {}
        for name, server in config.servers.items():
            upstream = known.get(name)
            certificates = _certificates(server)
            if upstream is None or upstream.config != server or upstream.certificates != certificates:
                metrics = self._metrics.server(name)
                upstream = Upstream(name, server, UpstreamClient(server, metrics, self._deadlines), metrics)
                upstream.certificates = certificates
            upstreams[name] = upstream
        router = Router.compile(config.routes, upstreams, self._now, self._draw)
        generation = previous.generation + 1 if previous is not None else 1
        return Snapshot(generation, config, upstreams, router, self._sealer_of(config))


class Live:
    """The snapshot in force, and what earlier ones left behind."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._earlier: list[Snapshot] = []
        _count_pools(snapshot)
        #: Servers that no snapshot with requests knows, by identity; copies to them may still be under way.
        self._retired: dict[int, Upstream] = {}

    def swap(self, snapshot: Snapshot) -> None:
        """Put `snapshot` in force for every request that begins from now on."""
        self._earlier.append(self.snapshot)
        self.snapshot = snapshot
        _count_pools(snapshot)

    async def close_retired(self) -> None:
        """Close the connections of servers that only snapshots without requests know, copies to them included."""
        done = [each for each in self._earlier if not each.requests]
        self._earlier = [each for each in self._earlier if each.requests]
        kept = {id(upstream) for each in (self.snapshot, *self._earlier) for upstream in each.upstreams.values()}
        for each in done:
            left = (upstream for upstream in each.upstreams.values() if id(upstream) not in kept)
            self._retired.update({id(upstream): upstream for upstream in left})
        for key, upstream in list(self._retired.items()):
            if not upstream.in_flight:
                await upstream.client.close()
                self._retired.pop(key, None)

    async def close(self) -> None:
        """Close every connection."""
        for snapshot in (*self._earlier, self.snapshot):
            for upstream in snapshot.upstreams.values():
                await upstream.client.close()
        for upstream in self._retired.values():
            await upstream.client.close()


def _certificates(server: Server) -> bytes:
    """A digest of a server's TLS files: renewed under the same name, they make it another upstream."""
    paths = [path for path in (server.tls.ca, server.tls.certificate, server.tls.key) if path is not None]
    return sha256(b"".join(Path(path).read_bytes() for path in paths)).digest() if paths else b""


def _count_pools(snapshot: Snapshot) -> None:
    for upstream in snapshot.upstreams.values():
        upstream.client.count_pool()
