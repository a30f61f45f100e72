"""Which server of a route takes a request: one class per strategy.

Owns the choice only. It reads the live counters of `Upstream` and decides at once: it never waits, connects or keeps
count of requests. A server that this request tried already, or that has weight 0, is never chosen; weight 0 drains a
server, which stays reachable by name for its sessions. When none is available, one that is merely said to be unhealthy
is taken all the same (`last_resort`): a check may err, and a refusal helps nobody.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import accumulate
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Protocol

from proxy.dataplane.rendezvous import point, score, weighted_score

if TYPE_CHECKING:
    from proxy.config.models import Strategy
    from proxy.dataplane.upstream import Upstream

    Servers = Sequence[tuple[Upstream, int]]
    """The servers of a route with their weights, in the order written."""
    Draw = Callable[[], float]
    """A random number, 0 <= x < 1."""

#: So many picks of `power_of_two` go to the faster server, then one to the other: an average that is never renewed
#: would keep a server out long after it recovered.
_SECOND_LOOK: Final = 64


class Selection(Protocol):
    """How a route chooses a server."""

    def pick(self, key: str, tried: Collection[str]) -> Upstream | None:
        """A server for a new request, None when no one can take it.

        `key` is what affinity hashes, '' for nothing; `tried` are the names of servers this request had already.
        """
        ...

    def last_resort(self, tried: Collection[str]) -> Upstream | None:
        """When `pick` finds none: the least busy that is not forbidden outright."""
        ...

    def candidates(self) -> Sequence[Upstream]:
        """All that take new requests, whatever their state."""
        ...

    def get(self, name: str) -> Upstream | None:
        """The server of that name, whatever its weight and state, for a session that lives there."""
        ...


class _Strategy:
    """The servers of a route; a strategy chooses among `_servers`, those that take new requests."""

    __slots__ = ("_draw", "_members", "_servers", "_weights")

    def __init__(self, servers: Servers, draw: Draw) -> None:
        self._members = {server.name: server for server, _ in servers}
        self._servers = tuple(server for server, weight in servers if weight)
        self._weights = tuple(weight for _, weight in servers if weight)
        self._draw = draw

    def get(self, name: str) -> Upstream | None:
        return self._members.get(name)

    def candidates(self) -> Sequence[Upstream]:
        return self._servers

    def last_resort(self, tried: Collection[str]) -> Upstream | None:
        possible = [server for server in self._servers if server.possible() and server.name not in tried]
        return min(possible, key=attrgetter("in_flight")) if possible else None

    def _usable(self, tried: Collection[str], *asked: int) -> list[int]:
        """Positions of the others that can be chosen now, when the quick choice cannot be used. Those that were `asked`
        are not asked again: in slow start they would get up to twice their share."""
        servers = enumerate(self._servers)
        return [at for at, server in servers if at not in asked and server.available() and server.name not in tried]


class Only(_Strategy):
    """One server: there is nothing to choose."""

    __slots__ = ("_only",)

    def __init__(self, servers: Servers, draw: Draw) -> None:
        super().__init__(servers, draw)
        (self._only,) = self._servers

    def pick(self, key: str, tried: Collection[str]) -> Upstream | None:
        only = self._only
        return only if only.available() and only.name not in tried else None


class Priority(_Strategy):
    """The first that can, in the order written."""

    __slots__ = ()

    def pick(self, key: str, tried: Collection[str]) -> Upstream | None:
        for server in self._servers:
            if server.available() and server.name not in tried:
                return server
        return None


class RoundRobin(_Strategy):
    """One after the other. The turns of a server that is down are spread over the rest, not given to its neighbour."""

    __slots__ = ("_turn",)

    def __init__(self, servers: Servers, draw: Draw) -> None:
        super().__init__(servers, draw)
        self._turn = 0

    def pick(self, key: str, tried: Collection[str]) -> Upstream | None:
        turn = self._turn
        self._turn = turn + 1
        lap, position = divmod(turn, len(self._servers))
        server = self._servers[position]
        if server.available() and server.name not in tried:
            return server
        usable = self._usable(tried, position)
        return self._servers[usable[lap % len(usable)]] if usable else None


class Weighted(_Strategy):
    """Smooth weighted round robin, as in nginx: exact shares over a cycle, and no server's turns bunched together."""

    __slots__ = ("_credit",)

    def __init__(self, servers: Servers, draw: Draw) -> None:
        super().__init__(servers, draw)
        self._credit = [0] * len(self._servers)

    def pick(self, key: str, tried: Collection[str]) -> Upstream | None:
        credit, weights = self._credit, self._weights
        best, total = -1, 0
        for position, server in enumerate(self._servers):
            if server.available() and server.name not in tried:
                weight = weights[position]
                credit[position] += weight
                total += weight
                if best < 0 or credit[position] > credit[best]:
                    best = position
        if best < 0:
            return None
        credit[best] -= total
        return self._servers[best]


class LeastConnections(_Strategy):
    """The fewest requests and streams in flight per weight; equal ones take turns."""

    __slots__ = ("_start",)

    def __init__(self, servers: Servers, draw: Draw) -> None:
        super().__init__(servers, draw)
        self._start = 0

    def pick(self, key: str, tried: Collection[str]) -> Upstream | None:
        servers, weights = self._servers, self._weights
        best, load, weight = -1, 0, 1
        for position in range(self._start - len(servers), self._start):
            server = servers[position]
            if not server.available() or server.name in tried:
                continue
            if best < 0 or server.in_flight * weight < load * weights[position]:
                best, load, weight = position % len(servers), server.in_flight, weights[position]
        if best < 0:
            return None
        self._start = (best + 1) % len(servers)
        return servers[best]


class Random(_Strategy):
    """By chance, in proportion to the weights."""

    __slots__ = ("_sums",)

    def __init__(self, servers: Servers, draw: Draw) -> None:
        super().__init__(servers, draw)
        self._sums = tuple(accumulate(self._weights))

    def pick(self, key: str, tried: Collection[str]) -> Upstream | None:
        server = self._servers[position := self._drawn(self._sums)]
        if server.available() and server.name not in tried:
            return server
        usable = self._usable(tried, position)
        if not usable:
            return None
        return self._servers[usable[self._drawn(tuple(accumulate(self._weights[position] for position in usable)))]]

    def _drawn(self, sums: Sequence[int]) -> int:
        return bisect_right(sums, int(self._draw() * sums[-1]))


class PowerOfTwo(_Strategy):
    """The better of two drawn at random: the lower average latency times requests in flight (peak EWMA).

    A server without a sample yet counts as better while it has no more in flight than the other one: it is tried, but
    one that accepts requests and never answers does not collect them all.
    """

    __slots__ = ("_picks",)

    def __init__(self, servers: Servers, draw: Draw) -> None:
        super().__init__(servers, draw)
        self._picks = 0

    def pick(self, key: str, tried: Collection[str]) -> Upstream | None:
        one, other = self._two(len(self._servers))
        first, second = self._servers[one], self._servers[other]
        takes = (first.available() and first.name not in tried, second.available() and second.name not in tried)
        if False in takes:
            usable = self._usable(tried, one, other) + [at for at, can in zip((one, other), takes, strict=True) if can]
            if len(usable) < 2:
                return self._servers[usable[0]] if usable else None
            first, second = (self._servers[usable[at]] for at in self._two(len(usable)))
        self._picks += 1
        return first if _better(first, second) == (self._picks % _SECOND_LOOK != 0) else second

    def _two(self, count: int) -> tuple[int, int]:
        """Two different positions."""
        one = int(self._draw() * count)
        return one, (one + 1 + int(self._draw() * (count - 1))) % count


def _better(one: Upstream, other: Upstream) -> bool:
    """Whether `one` is the better choice; equal ones, too."""
    mine, its = one.latency_ewma_s, other.latency_ewma_s
    if mine and its:
        return mine * (one.in_flight + 1) <= its * (other.in_flight + 1)
    if one.in_flight != other.in_flight:
        return one.in_flight < other.in_flight
    return not mine or bool(its)


class Sticky(_Strategy):
    """Rendezvous hash (highest random weight): a key keeps its server, and only the keys of a server that leaves move.

    Every replica computes the same. Without a key another strategy chooses.
    """

    __slots__ = ("_equal", "_keyless", "_points")

    def __init__(self, servers: Servers, draw: Draw, keyless: Selection) -> None:
        super().__init__(servers, draw)
        self._keyless = keyless
        self._points = tuple(point(server.name) for server in self._servers)
        self._equal = len(set(self._weights)) == 1

    def pick(self, key: str, tried: Collection[str]) -> Upstream | None:
        if not key:
            return self._keyless.pick(key, tried)
        key_point, equal, best, top = point(key), self._equal, None, -1.0
        for position, server in enumerate(self._servers):
            if not server.available() or server.name in tried:
                continue
            seed = self._points[position]
            height = score(key_point, seed) if equal else weighted_score(key_point, seed, self._weights[position])
            if height > top:
                best, top = server, height
        return best


class Nobody(_Strategy):
    """No server takes new requests: all have weight 0."""

    __slots__ = ()

    def pick(self, key: str, tried: Collection[str]) -> Upstream | None:
        return None


_STRATEGIES: Final[Mapping[Strategy, Callable[..., Selection]]] = {
    "round_robin": RoundRobin,
    "weighted": Weighted,
    "least_connections": LeastConnections,
    "random": Random,
    "power_of_two": PowerOfTwo,
    "consistent_hash": Random,
    "priority": Priority,
}


def select(strategy: Strategy, servers: Servers, draw: Draw, *, sticky: bool) -> Selection:
    """The selection of a route over (server, weight) pairs.

    `draw` gives a random number, 0 <= x < 1. `sticky`: requests with a key go where the key belongs; `consistent_hash`
    always does that, and takes any server for a request without one.
    """
    taking = sum(weight > 0 for _, weight in servers)
    if taking < 2:
        return Only(servers, draw) if taking else Nobody(servers, draw)
    chosen = _STRATEGIES[strategy](servers, draw)
    return Sticky(servers, draw, chosen) if sticky or strategy == "consistent_hash" else chosen
