"""Everything a request reads, built whole from one configuration and registry, and swapped by one assignment.

A request keeps the snapshot it began with, so no request sees two configurations. Upstreams whose configuration is
unchanged are carried over with their connections and counters; the others are retired and closed once they are idle.
"""

from __future__ import annotations

from collections import ChainMap
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from proxy.config.reachable import Reachable
from proxy.dataplane.client import UpstreamClient
from proxy.dataplane.flags import FlagBook
from proxy.dataplane.origin import OriginPolicy
from proxy.dataplane.priority import Ranking
from proxy.dataplane.resolver import Resolver
from proxy.dataplane.router import CompiledRoute, Router, Traits
from proxy.dataplane.upstream import Around, Upstream
from proxy.dataplane.wellknown import Wellknown
from proxy.identity.access import Server as Place
from proxy.identity.records import SYSTEM_TENANT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from proxy.config.models import Config, Server
    from proxy.dataplane.admission import Admission
    from proxy.dataplane.affinity import Sealer
    from proxy.dataplane.allowance import Allowance
    from proxy.dataplane.deadlines import Deadlines
    from proxy.dataplane.estates import Estate, Estates
    from proxy.metrics import Metrics


class Routing(Protocol):
    """The routes that a principal sees."""

    def match(self, traits: Traits) -> CompiledRoute | None:
        """The first route whose conditions the request satisfies."""
        ...

    def serves(self, path: str) -> bool:
        """Whether any route is for `path`, whatever its conditions."""
        ...

    def inspects(self, path: str) -> bool:
        """Whether a body sent to `path` is to be parsed."""
        ...


class TenantRouting:
    """A tenant's own routes, and behind them those that all tenants share."""

    __slots__ = ("_own", "_shared", "own")

    def __init__(self, own: Compiled, shared: Router) -> None:
        #: What its own routes were compiled from and to.
        self.own = own
        self._own = own.router
        self._shared = shared

    def match(self, traits: Traits) -> CompiledRoute | None:
        """See `Routing`."""
        return self._own.match(traits) or self._shared.match(traits)

    def serves(self, path: str) -> bool:
        """See `Routing`."""
        return self._own.serves(path) or self._shared.serves(path)

    def inspects(self, path: str) -> bool:
        """See `Routing`. Where both serve the path, either may take the request."""
        if not self._own.serves(path):
            return self._shared.inspects(path)
        return self._own.inspects(path) or (self._shared.serves(path) and self._shared.inspects(path))


class Compiled(NamedTuple):
    """The routes of one owner, and what they were compiled from: the same again needs no compiling."""

    estate: Estate | None
    upstreams: Mapping[str, Upstream]
    """The servers that the routes may name: the owner's, and for a tenant behind them the shared ones."""
    router: Router


class Snapshot:
    """One generation of configuration and registry, compiled."""

    __slots__ = (
        "compiled", "config", "estates", "flags", "generation", "origins", "public_prefix", "ranking", "requests",
        "sealer", "shared", "tenants", "upstreams", "wellknown",
    )  # fmt: skip

    def __init__(
        self, generation: int, config: Config, estates: Estates, sealer: Sealer, flags: FlagBook | None = None
    ) -> None:
        self.generation = generation
        #: Requests that read it now; one that an earlier snapshot serves keeps that one's connections alive.
        self.requests = 0
        self.config = config
        #: The servers and routes that it was made of.
        self.estates = estates
        #: All servers by their names at run time: `name`, and `slug/name` for those of a tenant.
        self.upstreams: dict[str, Upstream] = {}
        #: The routes of everyone, and by tenant those that see more.
        self.compiled = NOTHING
        self.shared: Routing = NOTHING.router
        self.tenants: dict[str, TenantRouting] = {}
        self.sealer = sealer
        self.origins = OriginPolicy.of(config.listen)
        self.wellknown = Wellknown({})
        self.public_prefix = config.public_prefix
        #: Features that are on for some, and the classes of requests.
        self.flags = FlagBook.of(config.flags, {}) if flags is None else flags
        self.ranking = Ranking(config.priorities)

    def routing_of(self, tenant: str) -> Routing:
        """The routes that principals of a tenant see; another tenant's are not among them."""
        return self.tenants.get(tenant, self.shared)


class SnapshotBuilder:
    """Turns configuration and registry into snapshots. Build first, swap afterwards: a failure leaves the old one
    serving.

    `build` may run in a thread beside requests: it only makes new objects.
    """

    def __init__(
        self,
        metrics: Metrics,
        sealer_of: Callable[[Config], Sealer],
        deadlines: Deadlines,
        now: Callable[[], datetime],
        around: Around,
    ) -> None:
        self._metrics = metrics
        self._deadlines = deadlines
        self._sealer_of = sealer_of
        self._now = now
        self._around = around
        self._resolver = Resolver()

    def build(
        self, config: Config, estates: Estates, previous: Snapshot | None, flags: FlagBook | None = None
    ) -> Snapshot:
        """The next snapshot; without `flags` with those of the configuration. Raises OSError or ssl.SSLError when a
        file it names cannot be used."""
        generation = previous.generation + 1 if previous is not None else 1
        snapshot = Snapshot(generation, config, estates, self._sealer_of(config), flags)
        known = previous.upstreams if previous is not None else {}
        shared = self._upstreams(estates.shared, known)
        snapshot.upstreams.update(shared)
        compiled = snapshot.compiled = self._compiled(
            estates.shared, shared, previous.compiled if previous is not None else None, shared
        )
        snapshot.shared = compiled.router
        snapshot.wellknown = Wellknown.compile(config, estates.shared.routes, shared)
        earlier = previous.tenants if previous is not None and previous.compiled is compiled else {}
        reachable = Reachable(config.registry.private_networks)
        for tenant, estate in estates.tenants.items():
            own = self._upstreams(estate, known, reachable)
            snapshot.upstreams.update((upstream.name, upstream) for upstream in own.values())
            before = earlier.get(tenant)
            routes = self._compiled(estate, ChainMap(own, shared), before.own if before is not None else None, own)
            kept = before is not None and before.own is routes
            snapshot.tenants[tenant] = before if before is not None and kept else TenantRouting(routes, compiled.router)
        return snapshot

    def _compiled(
        self, estate: Estate, upstreams: Mapping[str, Upstream], before: Compiled | None, own: Mapping[str, Upstream]
    ) -> Compiled:
        """The routes of an estate whose own servers are `own`; those of before when nothing is another."""
        if (
            before is not None
            and before.estate is estate
            and all(before.upstreams.get(name) is upstream for name, upstream in own.items())
        ):
            return before
        router = Router.compile(estate.routes, upstreams, self._now, self._around.draw, own)
        return Compiled(estate, upstreams, router)

    def _upstreams(
        self, estate: Estate, known: Mapping[str, Upstream], reachable: Reachable | None = None
    ) -> dict[str, Upstream]:
        """The servers of an estate by the names that its routes use."""
        upstreams: dict[str, Upstream] = {}
        resolver = self._resolver.of(estate.tenant)
        for name, owned in estate.servers.items():
            full_name = f"{estate.slug}/{name}" if estate.tenant != SYSTEM_TENANT else name
            upstream = self._upstream(full_name, owned.config, known.get(full_name), reachable, resolver)
            place = Place(name, owned.id, estate.tenant)
            if upstream.place != place:
                upstream.place = place
            upstreams[name] = upstream
        return upstreams

    def _upstream(
        self, name: str, server: Server, known: Upstream | None, reachable: Reachable | None, resolver: Resolver
    ) -> Upstream:
        """The one that is there, when nothing about it changed, else a new one."""
        certificates = _certificates(server)
        if (
            known is not None
            and known.config == server
            and known.certificates == certificates
            and known.client.reachable == reachable
        ):
            return known
        metrics = self._metrics.server(name)
        client = UpstreamClient(server, metrics, self._deadlines, reachable, resolver)
        upstream = Upstream(name, server, client, metrics, self._around)
        upstream.certificates = certificates
        if known is not None:
            upstream.window = known.window
        return upstream


#: What a snapshot shares before it has been filled: no route at all.
NOTHING: Final = Compiled(None, {}, Router(()))


class Live:
    """The snapshot, the admission and the allowance in force, and what earlier snapshots left behind."""

    def __init__(self, snapshot: Snapshot, admission: Admission, allowance: Allowance) -> None:
        self.snapshot = snapshot
        #: Who is let in, and how much everyone may use; each replaced whole.
        self.admission = admission
        self.allowance = allowance
        self._earlier: list[Snapshot] = []
        _count_pools(snapshot)
        #: Servers that no snapshot with requests knows, by identity; copies to them may still be under way.
        self._retired: dict[int, Upstream] = {}

    def weight_of(self, tenant: str) -> float:
        """Share of a tenant, by its id, where tenants wait for the same."""
        return self.allowance.weights.get(tenant, 1.0)

    def swap(self, snapshot: Snapshot) -> None:
        """Put `snapshot` in force for every request that begins from now on."""
        self._earlier.append(self.snapshot)
        self.snapshot = snapshot
        _count_pools(snapshot)

    def named(self, name: str) -> Iterator[Upstream]:
        """The server of a full name, and those that it replaced as long as requests may wait there."""
        snapshots = (self.snapshot, *self._earlier)
        return (upstream for each in snapshots if (upstream := each.upstreams.get(name)) is not None)

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
