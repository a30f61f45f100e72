"""Those of one class who wait for a server: whose turn it is, and who has to go when there is no room.

Deficit round robin over tenants with the smallest quantum there is. Instead of walking the rounds, each tenant carries
the round in which its next request is due, one by its weight after the last: a weight of 0.01 costs nothing, one of 100
takes no hundred turns in a row, and the shares of any two that wait are never off by more than one request of each.
Within a tenant the first that came is the first to go. Nothing here knows slots, deadlines or other classes.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

    from proxy.errors import Refusal

#: So many turns of a line say how fast it goes; at so many, the older half is forgotten.
_TELLING: Final = 8
_FADING: Final = 64


class Waiter:
    """One request that waits. Times are those of the queue's clock, in seconds."""

    __slots__ = ("ended_at", "future", "line", "since", "size", "turns")

    def __init__(self, future: asyncio.Future[Refusal | None], since: float, turns: Turns) -> None:
        #: Ends with None when it got a slot, else with why it did not.
        self.future = future
        self.since = since
        self.ended_at = since
        self.turns = turns
        #: Bytes that are held as long as it waits.
        self.size = 0
        #: Where it stands; None once it waits no more.
        self.line: Line | None = None


class Line:
    """The requests of one tenant, in the order in which they came."""

    __slots__ = ("began", "crowd", "due", "listed", "served", "tenant", "waiting", "weight")

    def __init__(self, tenant: str, weight: float) -> None:
        self.tenant = tenant
        self.weight = weight
        self.waiting: OrderedDict[Waiter, None] = OrderedDict()
        #: The round in which its first is due, and whether it is among those that wait for theirs.
        self.due = 0.0
        self.listed = False
        #: Turns of the class before it had any waiting, and how many it has had since; both fade.
        self.began = 0.0
        self.served = 0
        #: At least as many wait, by its weight; only kept up while somebody wants to know.
        self.crowd = 0.0


class Turns:
    """One class. All of it takes the logarithm of the number of tenants at most."""

    __slots__ = ("_crowds", "_lines", "_numbers", "_order", "_round", "_taken", "_weight", "waiting")

    def __init__(self) -> None:
        #: Everyone, in the order in which they came.
        self.waiting: OrderedDict[Waiter, None] = OrderedDict()
        self._lines: dict[str, Line] = {}
        self._numbers = count()
        #: (round, number, line) of each tenant; one whose requests have all gone leaves when its turn comes.
        self._order: list[tuple[float, int, Line]] = []
        self._round = 0.0
        #: Turns so far.
        self._taken = 0
        #: Weights of all that wait.
        self._weight = 0.0
        #: (-crowd, number, line), the longest first; None while nobody had to go since the class was empty.
        self._crowds: list[tuple[float, int, Line]] | None = None

    def until(self, tenant: str, weight: float) -> float:
        """How many turns it takes until one more of a tenant had its own: all that wait before it, or those that will
        come and go before it, if its line has gone that slowly so far; at most what its share makes of it."""
        line = self._lines.get(tenant)
        if line is None or not line.waiting:
            return min(len(self.waiting) + 1.0, (self._weight + weight) / weight)
        place, turns = len(line.waiting) + 1, len(self.waiting) + 1.0
        if line.served >= _TELLING:
            turns = max(turns, place * (self._taken - line.began) / line.served)
        return min(turns, place * self._weight / weight)

    def add(self, tenant: str, weight: float, waiter: Waiter) -> None:
        """Let it wait behind the others of its tenant; the latest weight of a tenant counts."""
        line = self._lines.get(tenant)
        if line is None:
            line = self._lines[tenant] = Line(tenant, weight)
        if line.waiting:
            self._weight += weight - line.weight
        else:
            self._weight += weight
            line.began, line.served = self._taken, 0
        line.weight = weight
        if not line.listed:
            line.listed = True
            line.due = self._round + 1 / weight
            heappush(self._order, (line.due, next(self._numbers), line))
        waiter.line = line
        line.waiting[waiter] = None
        self.waiting[waiter] = None
        if self._crowds is not None:
            self._note_crowd(self._crowds, line)

    def next(self) -> Waiter:
        """Take out the one whose turn it is; there is one."""
        order = self._order
        while not order[0][2].waiting:
            self._forget(heappop(order)[2])
        self._round, _, line = order[0]
        waiter = next(iter(line.waiting))
        self._taken += 1
        line.served += 1
        if line.served == _FADING:
            line.served //= 2
            line.began = (line.began + self._taken) / 2
        if len(line.waiting) > 1:
            line.due = self._round + 1 / line.weight
            heapreplace(order, (line.due, next(self._numbers), line))
        else:
            self._forget(heappop(order)[2])
        self.remove(waiter)
        return waiter

    def remove(self, waiter: Waiter) -> None:
        """It waits no more."""
        line = waiter.line
        assert line is not None  # noqa: S101 - it waits
        waiter.line = None
        del line.waiting[waiter]
        del self.waiting[waiter]
        if not self.waiting:
            self._lines.clear()
            self._order.clear()
            self._round = self._weight = 0.0
            self._crowds = None
        elif not line.waiting:
            self._weight -= line.weight

    def youngest(self) -> Waiter:
        """The last that came of the tenant that has most waiting by its weight; somebody waits."""
        return next(reversed(self._longest().waiting))

    def outnumbering(self, tenant: str, weight: float) -> Waiter | None:
        """The one that would have to go for one more of a tenant; None when no other has more waiting by its weight."""
        if not self.waiting:
            return None
        line, longest = self._lines.get(tenant), self._longest()
        waiting = len(line.waiting) if line is not None else 0
        if (waiting + 1) / weight < len(longest.waiting) / longest.weight:
            return next(reversed(longest.waiting))
        return None

    def _forget(self, line: Line) -> None:
        line.listed = False
        del self._lines[line.tenant]

    # --- who has most waiting -----------------------------------------------------------------------------------------

    def _note_crowd(self, crowds: list[tuple[float, int, Line]], line: Line) -> None:
        """A line has grown: its entry may only be too high, never too low."""
        crowd = len(line.waiting) / line.weight
        if crowd > line.crowd:
            line.crowd = crowd
            heappush(crowds, (-crowd, next(self._numbers), line))

    def _longest(self) -> Line:
        crowds = self._crowds
        if crowds is None or len(crowds) > 4 * len(self._lines) + 64:
            crowds = self._crowds = self._all_crowds()
        while True:
            key, number, line = crowds[0]
            crowd = len(line.waiting) / line.weight
            if crowd >= line.crowd == -key:
                return line
            if line.crowd != -key or not line.waiting:  # of another time
                heappop(crowds)
                line.crowd = line.crowd if line.waiting else 0.0
            else:
                line.crowd = crowd
                heapreplace(crowds, (-crowd, number, line))

    def _all_crowds(self) -> list[tuple[float, int, Line]]:
        crowds = []
        for line in self._lines.values():
            line.crowd = len(line.waiting) / line.weight
            if line.waiting:
                crowds.append((-line.crowd, next(self._numbers), line))
        heapify(crowds)
        return crowds
