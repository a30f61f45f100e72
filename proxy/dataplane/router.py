"""Which route takes a request: the configured routes compiled once, asked once per message.

Owns the order of routes (priority, then as written, then the built-in ones) and what a route is at run time. The
search is `route_tree.py`, the conditions are `conditions.py`, the choice of a server is `balancer.py`. Nothing here
suspends, and nothing knows sockets, sessions or the configuration file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.config.models import Affinity, Retry
from proxy.dataplane.balancer import Selection, select
from proxy.dataplane.conditions import Condition, Surroundings, Traits, compile_when
from proxy.dataplane.globs import Anchor, Glob, GlobTable, Key, keys_of
from proxy.dataplane.route_tree import Entry, Node, grow

if TYPE_CHECKING:
    from proxy.config.models import Route
    from proxy.config.record import AuditGrade
    from proxy.dataplane.upstream import Upstream

__all__ = ["CompiledRoute", "Router", "Traits"]

#: `consistent_hash` says that requests stick, not to what; this is what it means without an `affinity`.
_HASHED_BY_DEFAULT: Final = Affinity(by="client_address")
_RETRY: Final = Retry()


class CompiledRoute:
    """A route at run time. Built with the snapshot and never changed."""

    __slots__ = (
        "affinity",
        "audit",
        "config",
        "filter_lists",
        "inspect",
        "mirror",
        "name",
        "retry",
        "sealed",
        "selection",
        "servers",
    )

    def __init__(self, name: str, selection: Selection, servers: Mapping[str, Upstream]) -> None:
        self.name = name
        #: The configuration it came from; None for a built-in route.
        self.config: Route | None = None
        #: Chooses the server of a request.
        self.selection = selection
        #: The servers by name, also those of weight 0, which keep their sessions.
        self.servers = servers
        #: When a request is sent again.
        self.retry = _RETRY
        #: The body is parsed before it is forwarded.
        self.inspect = True
        #: Lists lose what the principal may not use.
        self.filter_lists = False
        #: Session ids are sealed.
        self.sealed = True
        #: Server that gets copies, and the share of the requests in percent.
        self.mirror: tuple[Upstream, float] | None = None
        #: What becomes of its calls when they cannot be recorded; None: what their tenant has.
        self.audit: AuditGrade | None = None
        #: What the key of `selection.pick` is made of; None: the key is ''.
        self.affinity: Affinity | None = None

    @classmethod
    def of(cls, config: Route, upstreams: Mapping[str, Upstream], draw: Callable[[], float]) -> CompiledRoute:
        """The route of a configuration whose server names are all known."""
        servers = [(upstreams[server.name], server.weight) for server in config.servers]
        affinity = config.affinity or (_HASHED_BY_DEFAULT if config.strategy == "consistent_hash" else None)
        selection = select(config.strategy, servers, draw, sticky=affinity is not None)
        route = cls(config.name, selection, {server.name: server for server, _ in servers})
        route.config = config
        route.inspect = config.inspect == "full"
        route.filter_lists = config.filter_lists
        route.sealed = config.sessions == "sealed"
        route.mirror = (upstreams[config.mirror.server], config.mirror.percent) if config.mirror else None
        route.affinity = affinity
        route.retry = config.retry
        route.audit = config.audit
        return route

    @classmethod
    def built_in(cls, upstream: Upstream, draw: Callable[[], float]) -> CompiledRoute:
        """The route that every server has without being named in one."""
        selection = select("priority", [(upstream, 1)], draw, sticky=False)
        return cls(upstream.name, selection, {upstream.name: upstream})

    def __repr__(self) -> str:
        return f"CompiledRoute({self.name!r} -> {', '.join(self.servers)})"


class _Place(NamedTuple):
    """The routes of one path as written, and the ranks that say whether it inspects (past the last rank: none)."""

    node: Node
    unconditional: int
    """First route that takes every request here: what comes after it is never reached."""
    inspecting: int
    """First route that inspects."""


class _Written(NamedTuple):
    """A route and what it asks for."""

    path: str
    conditions: tuple[Condition, ...]
    route: CompiledRoute


class Router:
    """All routes of a snapshot. Build it with `compile`."""

    __slots__ = ("_certain", "_inspects_all", "_none", "_places", "_routes")

    def __init__(self, written: Sequence[_Written]) -> None:
        #: Rank to route; the rank past the end stands for "no route".
        self._routes = (*(each.route for each in written), None)
        self._none = len(written)
        self._inspects_all = all(each.route.inspect for each in written)
        filed: dict[Key, list[Entry]] = {}
        for rank, (path, conditions, _) in enumerate(written):
            for key in keys_of([Glob(path)]):
                filed.setdefault(key, []).append(Entry(rank, conditions))
        self._places = GlobTable({key: self._place(entries) for key, entries in filed.items()})
        #: Paths on which the answer depends on nothing else.
        self._certain: Final = dict(self._certainties(key.text for key in filed if key.anchor is Anchor.WHOLE))

    @classmethod
    def compile(
        cls,
        routes: Sequence[Route],
        servers: Mapping[str, Upstream],
        clock: Callable[[], datetime],
        draw: Callable[[], float],
        built_in: Collection[str] | None = None,
    ) -> Router:
        """Compile routes whose server names are all known.

        `clock` gives the time now, aware of its zone; `draw` a random number, 0 <= x < 1. `built_in`: names of the
        servers that have a path of their own; None: all of them.
        """
        around = Surroundings(clock, draw)
        written = [
            _Written(route.path, compile_when(route.when, around), CompiledRoute.of(route, servers, draw))
            for route in sorted(routes, key=lambda route: -route.priority)
        ]
        for name in servers if built_in is None else built_in:
            server = servers[name]
            route = CompiledRoute.built_in(server, draw)
            written.append(_Written(f"/{name}/mcp", (), route))
            if server.config.transport == "sse":
                written.append(_Written(f"/{name}/sse", (), route))
        return cls(written)

    def match(self, traits: Traits) -> CompiledRoute | None:
        """The first route whose conditions the request satisfies."""
        path = traits.path
        route = self._certain.get(path)
        if route is not None:
            return route
        limit = self._none
        for place in self._places.lookup(path):
            node = place.node
            if node.first < limit:
                limit = node.find(traits, limit)
        return self._routes[limit]

    def serves(self, path: str) -> bool:
        """Whether any route is for `path`, whatever its conditions."""
        return path in self._certain or bool(self._places.lookup(path))

    def inspects(self, path: str) -> bool:
        """Whether a body sent to `path` is to be parsed: unless no route that could take the request inspects.

        A path that no route takes inspects, too.
        """
        if self._inspects_all:
            return True
        places = self._places.lookup(path)
        if not places:
            return True
        inspecting = min(place.inspecting for place in places)
        return inspecting < self._none and inspecting <= min(place.unconditional for place in places)

    def _place(self, entries: Sequence[Entry]) -> _Place:
        ranked = [(entry, self._routes[entry.rank]) for entry in entries]
        return _Place(
            grow(entries),
            min((entry.rank for entry in entries if not entry.conditions), default=self._none),
            min((entry.rank for entry, route in ranked if route and route.inspect), default=self._none),
        )

    def _certainties(self, paths: Iterable[str]) -> Iterator[tuple[str, CompiledRoute]]:
        for path in paths:
            places = self._places.lookup(path)
            first = min(place.node.first for place in places)
            route = self._routes[first]
            if route is not None and any(place.unconditional == first for place in places):
                yield path, route
