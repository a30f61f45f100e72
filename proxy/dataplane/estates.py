"""What everyone has: the servers and routes of the configuration file and of the registry, as one set per owner.

Owns which rows count, how rows are laid over the configuration file, and what a route may refer to. What a row means
is `config/rows.py`'s; compiling an estate is the snapshot's. Pure, but for the files that rows of the system tenant
name. A row that cannot be used is left out and told of, and costs no other row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from proxy.config.models import Config, Route
from proxy.config.problems import path_text
from proxy.config.rows import Reach
from proxy.dataplane.readings import OwnedServer, Reader, Reading, reaches_of, read_route, read_server
from proxy.identity.records import FILE_TAG, SYSTEM_TENANT

__all__ = ["Estate", "Estates", "OwnedServer", "estates_of"]

#: Short name of the system tenant.
_SYSTEM: Final = "system"
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})

_MISSING: Final = "there is no such server, or it is disabled or cannot be used"
_NOBODY_LEFT: Final = "left out: none of its servers is there"
_MIXED: Final = "left out: a route and its mirror have either WebSocket servers or others, not both"
_FILTERED: Final = "left out: lists that pass through a WebSocket cannot be filtered"
_DISAGREES: Final = "left out: all routes of one path must agree about 'inspect', and another one came first"


@dataclass(frozen=True, slots=True)
class Estate:
    """The servers and routes of one owner; the same object for as long as nothing about it changes."""

    tenant: str
    """Id of the tenant; the system tenant's for what all share."""
    slug: str
    servers: Mapping[str, OwnedServer]
    """By name: those of the configuration file as written, then those of rows in the order of names."""
    routes: tuple[Route, ...]
    """Higher priorities first, then those of the configuration file as written, then by name. Every server that they
    name is there: in this estate, or else in the shared one."""


@dataclass(frozen=True, slots=True)
class Estates:
    """Everyone's."""

    shared: Estate
    """The configuration file, and over it the rows of the system tenant: a row wins over what has its name."""
    tenants: Mapping[str, Estate]
    """By id, in the order of ids; only active tenants that have a server or a route."""
    problems: tuple[str, ...] = ()
    """One line for each thing that was left out, such as `tenant acme, server x: headers.Authorization: ...`."""
    memory: Memory | None = field(default=None, repr=False, compare=False)
    """What the next ones need not work out again."""


class Holding(NamedTuple):
    """An estate, and what it was made of."""

    rows: Rows
    beneath: object
    """What the rows are laid over."""
    estate: Estate
    problems: tuple[str, ...]


class Memory(NamedTuple):
    """What was worked out."""

    reaches: Mapping[str, Reach]
    servers: Mapping[str, Reading[OwnedServer]]
    routes: Mapping[str, Reading[Route]]
    holdings: Mapping[str, Holding]
    sockets: Mapping[str, bool]


def estates_of(
    registry: Mapping[str, Mapping[str, Any]],
    config: Config,
    env: Mapping[str, str],
    previous: Estates | None = None,
) -> Estates:
    """The estates of a registry (table -> id -> row, shaped as in `store/rows.py`) and a configuration.

    `env`: the variables that headers of rows may name. Rows that are the same objects as in `previous` are not read
    again: about 1 s for 10,000 servers and as many routes, 0.03 s when one of them changed.
    """
    known = previous.memory if previous is not None and previous.memory is not None else Memory({}, {}, {}, {}, {})
    tenants = registry.get("tenants", {}).values()
    owners = {row.id: row.slug for row in tenants if row.status == "active"} | {SYSTEM_TENANT: _SYSTEM}
    reaches = reaches_of(env, {row.id: row.slug for row in tenants}, known.reaches)
    servers, routes = Reader(known.servers, read_server), Reader(known.routes, read_route)
    lent: dict[str, str] = {}
    for row in registry.get("mcp_servers", {}).values():
        if FILE_TAG in row.tags:
            if row.tenant_id == SYSTEM_TENANT:
                lent[row.name] = row.id
        elif row.tenant_id in owners:
            servers.take(row, reaches[row.tenant_id])
    for row in registry.get("routing_rules", {}).values():
        if row.tenant_id in owners:
            routes.take(row, reaches[row.tenant_id])

    def rows_of(tenant: str) -> Rows:
        return Rows(tenant, owners[tenant], servers.of(tenant), routes.of(tenant))

    shared = _shared(rows_of(SYSTEM_TENANT), lent, config, known.holdings.get(SYSTEM_TENANT))
    found = {name: _is_socket(owned) for name, owned in shared.estate.servers.items()}
    sockets = known.sockets if known.sockets == found else found
    others = sorted((servers.tenants() | routes.tenants()) - {SYSTEM_TENANT})
    own = {tenant: _own(rows_of(tenant), sockets, known.holdings.get(tenant)) for tenant in others}
    return Estates(
        shared.estate,
        {tenant: each.estate for tenant, each in own.items() if each.estate.servers or each.estate.routes},
        tuple(problem for each in (shared, *own.values()) for problem in each.problems),
        Memory(reaches, servers.readings, routes.readings, own | {SYSTEM_TENANT: shared}, sockets),
    )


class Rows(NamedTuple):
    """The rows of one owner, in the order of names."""

    tenant: str
    slug: str
    servers: Sequence[Reading[OwnedServer]]
    routes: Sequence[Reading[Route]]
    lent: Mapping[str, str] = _NOTHING
    """Ids of rows by the name of the configuration file's server that they stand for."""

    def line(self, kind: str, name: str, sentence: str) -> str:
        """A problem, for the log."""
        return f"tenant {self.slug}, {kind} {path_text((name,))}: {sentence}"


def _shared(rows: Rows, lent: Mapping[str, str], config: Config, known: Holding | None) -> Holding:
    """The configuration file, and the rows of the system tenant over it."""
    rows = rows._replace(lent=lent)
    if known is not None and known.rows == rows and known.beneath is config:
        return known
    written = {name: OwnedServer(lent.get(name, ""), server) for name, server in config.servers.items()}
    servers = written | _made(rows.servers)
    sockets = {name: _is_socket(owned) for name, owned in servers.items()}
    return _holding(rows, config, servers, _Routes(rows, sockets.get, config.routes), known)


def _own(rows: Rows, shared: Mapping[str, bool], known: Holding | None) -> Holding:
    """What belongs to one tenant. `shared`: whether each shared server is a WebSocket's."""
    if known is not None and known.rows == rows and known.beneath is shared:
        return known
    servers = _made(rows.servers)
    # A row hides the shared server of its name, also while it is disabled: what is meant for one reaches no other.
    sockets: dict[str, bool | None] = {reading.name: None for reading in rows.servers}
    sockets |= {name: _is_socket(owned) for name, owned in servers.items()}

    def is_socket(name: str) -> bool | None:
        return sockets[name] if name in sockets else shared.get(name)

    return _holding(rows, shared, servers, _Routes(rows, is_socket), known)


def _holding(
    rows: Rows, beneath: object, servers: Mapping[str, OwnedServer], routes: _Routes, known: Holding | None
) -> Holding:
    estate = Estate(rows.tenant, rows.slug, servers, routes.in_order())
    unusable = (
        rows.line(kind, reading.name, reading.problem)
        for kind, readings in (("server", rows.servers), ("route", rows.routes))
        for reading in readings
        if reading.problem
    )
    kept = known.estate if known is not None and known.estate == estate else estate
    return Holding(rows, beneath, kept, (*unusable, *routes.problems))


def _made(readings: Iterable[Reading[OwnedServer]]) -> dict[str, OwnedServer]:
    return {reading.name: reading.made for reading in readings if reading.made is not None}


def _is_socket(owned: OwnedServer) -> bool:
    return owned.config.transport == "websocket"


class _Routes:
    """Routes in force, asked for one after the other whether they fit the servers and each other.

    These are the rules of `config/checks.py` for the configuration file, where a route that breaks one is an error.
    """

    def __init__(self, rows: Rows, is_socket: Callable[[str], bool | None], written: Iterable[Route] = ()) -> None:
        """`is_socket` says whether a server is a WebSocket's, None when there is none of this name. `written`: routes
        of the configuration file; a row wins over the one that has its name."""
        self.problems: list[str] = []
        self._is_socket = is_socket
        self._in_force: dict[str, Route] = {}
        #: Path -> name of the route -> `inspect`. All of one path are the same.
        self._inspect: dict[str, dict[str, str]] = {}
        for route in written:
            self._add(route, lambda name, text: f"configuration file, route {name}: {text}")
        made = [reading.made for reading in rows.routes if reading.made is not None]
        for route in sorted(made, key=lambda route: -route.priority):
            self._add(route, lambda name, text: rows.line("route", name, text))

    def in_order(self) -> tuple[Route, ...]:
        """In the order in which they are asked."""
        return tuple(sorted(self._in_force.values(), key=lambda route: -route.priority))

    def _add(self, route: Route, line: Callable[[str, str], str]) -> None:
        kept = route
        for text in self._missing(route):
            self.problems.append(line(route.name, text))
            kept = self._without_missing(route)
        broken = self._broken(kept)
        if broken:
            self.problems.append(line(route.name, broken))
            return
        before = self._in_force.get(route.name)
        if before is not None:
            del self._inspect[before.path][before.name]
        self._inspect.setdefault(route.path, {})[route.name] = route.inspect
        self._in_force[route.name] = kept

    def _missing(self, route: Route) -> Iterator[str]:
        for index, server in enumerate(route.servers):
            if self._is_socket(server.name) is None:
                yield f"target_servers[{index}]: {_MISSING}"
        if route.mirror is not None and self._is_socket(route.mirror.server) is None:
            yield f"options.mirror.server: {_MISSING}"

    def _without_missing(self, route: Route) -> Route:
        servers = tuple(server for server in route.servers if self._is_socket(server.name) is not None)
        mirror = route.mirror
        if mirror is not None and self._is_socket(mirror.server) is None:
            mirror = None
        return route.model_copy(update={"servers": servers, "mirror": mirror})

    def _broken(self, route: Route) -> str:
        """Why the route is left out; '' when it is not."""
        if not route.servers:
            return _NOBODY_LEFT
        names = [server.name for server in route.servers]
        sockets = {self._is_socket(name) for name in (*names, *((route.mirror.server,) if route.mirror else ()))}
        if len(sockets) > 1:
            return _MIXED
        if route.filter_lists and True in sockets:
            return _FILTERED
        others = self._inspect.get(route.path, {})
        agreed = next((inspect for name, inspect in others.items() if name != route.name), route.inspect)
        return "" if agreed == route.inspect else _DISAGREES
