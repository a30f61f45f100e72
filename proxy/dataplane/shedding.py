"""What an overloaded process refuses, as requests and connections read it.

Owns the state `Load`, whose fields `background/overload.py` sets, and the verdict about one request. It measures
nothing and decides no level.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from proxy.errors import Shed, retry_after
from proxy.limits.costs import EXEMPT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxy.dataplane.queueing import RequestQueue

#: `Load.refused_from` when everyone is served, and when nobody is. Classes: 0 high, 1 normal, 2 low.
NOBODY: Final = 3
EVERYONE: Final = 0


class Load:
    """How busy the process is: what is refused now, and the figures behind it."""

    __slots__ = (
        "closing_keepalive", "excess", "lag_s", "memory_bytes", "memory_limit", "refused_from", "refusing",
        "retry_after_s", "room", "shed", "shrinking",
    )  # fmt: skip

    def __init__(self) -> None:
        #: Requests of this class and of those below it are refused.
        self.refused_from = NOBODY
        #: Idle connections end soon, and each connection gets smaller buffers.
        self.shrinking = False
        #: Each answer is the last one on its connection.
        self.closing_keepalive = False
        #: New connections are refused.
        self.refusing = False
        #: Bytes of bodies that may still be read until the next look at the memory; counted down by the gates.
        self.room = inf
        #: Bytes to be freed for the memory to be well again; counted down until the next look as requests are refused.
        self.excess = 0
        #: Longest delay of the loop in the last second; memory used and allowed, 0 when nobody watches it.
        self.lag_s = 0.0
        self.memory_bytes = 0
        self.memory_limit = 0
        #: Refused requests by class.
        self.shed = [0, 0, 0]
        #: How soon who is refused may come back.
        self.retry_after_s = 1.0


def check_load(load: Load, priority: int, method: str) -> None:
    """Raise `Shed` when requests of this class are refused now; `method` is that of the message, '' without one."""
    if priority >= load.refused_from and method not in EXEMPT:
        load.shed[priority] += 1
        raise refusal(load)


def refuse_waiting(load: Load, queues: Iterable[RequestQueue]) -> None:
    """When nobody is served: refuse the largest requests that wait for their server, of which nothing was sent, until
    what they hold is enough."""
    if load.refused_from != EVERYONE or load.excess <= 0:
        return
    waiting = [(waiter, queue) for queue in queues if queue.pending for waiter in queue.waiting() if waiter.size]
    for waiter, queue in sorted(waiting, key=lambda pair: pair[0].size, reverse=True):
        if load.excess <= 0:
            break
        load.excess -= waiter.size
        queue.send_away(waiter, refusal(load))


def refusal(load: Load) -> Shed:
    """What a client is told."""
    return Shed(f"refused from class {load.refused_from}", headers=retry_after(load.retry_after_s))
