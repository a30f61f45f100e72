"""The class of a request in queues and under overload: that of its key, else of its route, else of its tier."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.config.resilience import Priorities, PriorityClass
    from proxy.dataplane.context import RequestContext

HIGH, NORMAL, LOW = 0, 1, 2
#: The number of each class: the lower, the sooner served.
NUMBERS: Final[Mapping[PriorityClass, int]] = MappingProxyType({"high": HIGH, "normal": NORMAL, "low": LOW})


class Ranking:
    """`priorities` of a configuration, compiled."""

    __slots__ = ("_keys", "_tiers")

    def __init__(self, config: Priorities) -> None:
        self._keys = {key: NUMBERS[name] for key, name in config.keys.items()}
        self._tiers: dict[str, int] = {tier: NUMBERS[name] for tier, name in config.tiers.items()}

    def priority_of(self, ctx: RequestContext) -> int:
        """HIGH, NORMAL or LOW. Who asks must be known, and the route if there is one."""
        principal, route = ctx.principal, ctx.route
        if self._keys and (number := self._keys.get(principal.key_id)) is not None:
            return number
        if route is not None and route.config is not None and (name := route.config.priority_class) is not None:
            return NUMBERS[name]
        return self._tiers.get(principal.tier, NORMAL)
