"""A decision tree over the conditions of many routes: finds the first route that a request satisfies.

Owns the shape of the tree only; what a condition means is `conditions.py`, what a route is `router.py`. Routes are
numbers here: their rank in the order in which they are to be looked at. Each branch reads one fact of the request and
goes on with the routes filed under it, then with the routes that do not ask for that fact, and stops at the best rank
found so far. So the cost is that of the facts asked for, not of the routes.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from proxy.dataplane.conditions import Axis, Condition, Traits

#: So many routes are asked one by one: another look-up would cost more.
_FEW: Final = 2
#: Longest way down. Only a path whose routes ask for more header names than this could want more.
_DEEPEST: Final = 32
#: Routes with lists of values are filed under each value. The first such fact on a way down costs no more than was
#: written; further ones multiply, so together they may copy a route this often.
_COPIES: Final = 16.0
#: Above every rank.
_NEVER: Final = sys.maxsize


class Entry(NamedTuple):
    """A route on its way into the tree."""

    rank: int
    conditions: tuple[Condition, ...]
    """What must still hold, in the order in which to ask."""
    settled: frozenset[Axis] = frozenset()
    """Axes on which it was filed already, though a condition may remain to be asked."""


class Node(Protocol):
    """A part of the tree."""

    first: int
    """Lowest rank in it."""

    def find(self, traits: Traits, limit: int) -> int:
        """The lowest rank below `limit` whose conditions hold; `limit` when there is none."""
        ...


class Leaf:
    """Routes asked one by one."""

    __slots__ = ("_entries", "first")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.first = entries[0].rank if entries else _NEVER
        self._entries = tuple(
            (entry.rank, tuple(condition.holds for condition in entry.conditions)) for entry in entries
        )

    def find(self, traits: Traits, limit: int) -> int:
        for rank, conditions in self._entries:
            if rank >= limit:
                return limit
            for holds in conditions:
                if not holds(traits):
                    break
            else:
                return rank
        return limit


class _Branch:
    """Routes told apart by a fact that is compared as a whole."""

    __slots__ = ("_nodes", "_read", "_rest", "first")

    def __init__(self, axis: Axis, nodes: Mapping[Any, Node], rest: Node) -> None:
        self._read: Final[Callable[[Traits], Any]] = axis.read
        self._nodes: Final[Any] = axis.table(nodes)
        #: The routes that do not ask for the fact.
        self._rest = rest
        self.first = min(rest.first, *(node.first for node in nodes.values()))

    def find(self, traits: Traits, limit: int) -> int:
        node = self._nodes.get(self._read(traits))
        if node is not None and node.first < limit:
            limit = node.find(traits, limit)
        rest = self._rest
        return rest.find(traits, limit) if rest.first < limit else limit


class _TableBranch(_Branch):
    """Routes told apart by a fact that may fit several keys: a glob, a network."""

    __slots__ = ()

    def find(self, traits: Traits, limit: int) -> int:
        fact = self._read(traits)
        if fact is not None:
            for node in self._nodes.lookup(fact):
                if node.first < limit:
                    limit = node.find(traits, limit)
        rest = self._rest
        return rest.find(traits, limit) if rest.first < limit else limit


def grow(entries: Sequence[Entry], depth: int = 0, copies: float = math.inf) -> Node:
    """The tree of these entries, given in the order of their ranks.

    A route is copied under each of its keys, on average at most `copies` times from here on.
    """
    entries = _reachable(entries)
    best = _best_axis(entries, copies) if len(entries) > _FEW and depth < _DEEPEST else None
    if best is None:
        return Leaf(entries)
    axis, copied = best
    left = copies if copied == 1.0 else _COPIES if copies == math.inf else copies / copied
    filed, rest = _file_by(axis, entries)
    grown: dict[tuple[int, ...], Node] = {}  # keys with the same routes share a node: a long list costs one
    nodes: dict[Hashable, Node] = {}
    for key, members in filed.items():
        ranks = tuple(entry.rank for entry in members)
        if ranks not in grown:
            grown[ranks] = grow(members, depth + 1, left)
        nodes[key] = grown[ranks]
    branch = _Branch if axis.table is dict else _TableBranch
    return branch(axis, nodes, grow(rest, depth + 1, copies))


def _file_by(axis: Axis, entries: Sequence[Entry]) -> tuple[dict[Hashable, list[Entry]], list[Entry]]:
    """The entries under each key that they have on the axis, and those that have none."""
    filed: dict[Hashable, list[Entry]] = {}
    rest: list[Entry] = []
    for entry in entries:
        condition = _on(axis, entry)
        if condition is None:
            rest.append(entry)
            continue
        remaining = tuple(other for other in entry.conditions if other is not condition or not condition.decided)
        settled = Entry(entry.rank, remaining, entry.settled | {axis})
        for key in condition.keys:
            filed.setdefault(key, []).append(settled)
    return filed, rest


def _on(axis: Axis, entry: Entry) -> Condition | None:
    return next((condition for condition in entry.conditions if condition.axis == axis and condition.keys), None)


def _reachable(entries: Sequence[Entry]) -> Sequence[Entry]:
    """The entries up to the first that takes everything."""
    for position, entry in enumerate(entries, 1):
        if not entry.conditions:
            return entries[:position]
    return entries


def _best_axis(entries: Sequence[Entry], copies: float) -> tuple[Axis, float] | None:
    """The axis after which the fewest entries remain to be asked at worst, and how often it copies a route on average.

    None when no axis leaves fewer than there are, or only by copying too often.
    """
    counts: dict[Axis, Counter[Hashable]] = {}
    having: Counter[Axis] = Counter()
    for entry in entries:
        for condition in entry.conditions:
            axis = condition.axis
            if axis is not None and condition.keys and axis not in entry.settled:
                counts.setdefault(axis, Counter()).update(condition.keys)
                having[axis] += 1
    best, fewest, copied = None, len(entries), 1.0
    for axis, keys in counts.items():
        remain = max(keys.values()) + len(entries) - having[axis]
        factor = keys.total() / having[axis]
        if remain < fewest and factor <= copies:
            best, fewest, copied = axis, remain, factor
    return (best, copied) if best is not None else None
