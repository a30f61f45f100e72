"""Carries out what operators order circuit breakers to be (`breaker_orders`), in this instance.

Owns that an order is carried out once: by each breaker there is, also one that a changed configuration brought, and
again when it is given again. It must not know how a breaker obeys.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from proxy.store.rows import BreakerOrderRow

if TYPE_CHECKING:
    from proxy.identity.access import Server as Place
    from proxy.log import Logger
    from proxy.store.rows import Row

State = Literal["open", "closed", ""]
"""What a breaker is ordered to be; '' ends the order."""


class Ordered(Protocol):
    """A breaker."""

    def force(self, order: State) -> None:
        """Obey."""


class Broken(Protocol):
    """A server: a part of `Upstream`."""

    @property
    def name(self) -> str: ...
    @property
    def place(self) -> Place: ...
    @property
    def breaker(self) -> Ordered: ...


class _Obeyed(NamedTuple):
    """An order that a breaker has carried out."""

    breaker: Ordered
    order: BreakerOrderRow


class BreakerOrders:
    """Which orders were carried out."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        #: By id of the server's row.
        self._obeyed: dict[str, _Obeyed] = {}

    def apply(self, rows: Iterable[Row], upstreams: Iterable[Broken]) -> None:
        """Make every breaker what it is ordered to be. `rows` are those of `breaker_orders`, `upstreams` all servers in
        force. To be called when either may have changed; without orders it costs nothing."""
        orders = {row.server_id: row for row in rows if isinstance(row, BreakerOrderRow)}
        before, self._obeyed = self._obeyed, {}
        if not orders and not before:
            return
        for upstream in upstreams:
            identity = upstream.place.id
            order, obeyed = orders.get(identity), before.get(identity)
            if obeyed is not None and obeyed.breaker is not upstream.breaker:
                obeyed = None
            if order is not None:
                if obeyed is None or obeyed.order != order:
                    self._force(upstream, "open" if order.state == "open" else "closed")
                self._obeyed[identity] = _Obeyed(upstream.breaker, order)
            elif obeyed is not None:
                self._force(upstream, "")

    def _force(self, upstream: Broken, state: State) -> None:
        upstream.breaker.force(state)
        self._log.info("a breaker was given an order", server=upstream.name, order=state or "none")
