"""What a message costs, in tokens: by tool, by method, or the same for all.

Owns the order in which prices are asked, and which messages are free. It knows no bucket and no rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Generic, TypeVar

from proxy.mcp.methods import METHODS

_Value = TypeVar("_Value")

#: Prices that are remembered, and characters of what they are remembered by: names come from clients.
_REMEMBERED: Final = 8192
_LONGEST: Final = 256

#: What is never limited, whatever a rule says: a refusal would flip clients to an older protocol.
EXEMPT: Final = frozenset(name for name, method in METHODS.items() if not method.throttled)
#: What a price for messages without a method is filed under: answers of the client to the server.
RESPONSE: Final = "response"
#: Free unless a price names them: they keep a session going, and cannot be refused in any way a client would see. The
#: empty method is that of answers; DELETE ends a session.
FREE: Final = frozenset(name for name in METHODS if name.startswith("notifications/")) | {"ping", "", "DELETE"}


class ByName(Generic[_Value]):
    """Values under names and under beginnings of names (`name*`): as quick with 10,000 as with 10."""

    __slots__ = ("_beginnings", "_exact")

    def __init__(self, values: Mapping[str, _Value]) -> None:
        self._exact = {name: value for name, value in values.items() if not name.endswith("*")}
        lengths: dict[int, dict[str, _Value]] = {}
        for name, value in values.items():
            if name.endswith("*"):
                lengths.setdefault(len(name) - 1, {})[name[:-1]] = value
        self._beginnings = sorted(lengths.items(), reverse=True)

    def __bool__(self) -> bool:
        return bool(self._exact or self._beginnings)

    def fitting(self, name: str) -> Iterator[_Value]:
        """What stands under the name itself, then under its beginnings, the longest first."""
        if name in self._exact:
            yield self._exact[name]
        for length, values in self._beginnings:
            if (beginning := name[:length]) in values and len(beginning) == length:
                yield values[beginning]


class CostTable:
    """Prices in tokens; never changed."""

    __slots__ = ("_known", "_methods", "_prices", "_tools", "default", "flat")

    def __init__(
        self, default: float = 1.0, methods: Mapping[str, float] | None = None, tools: Mapping[str, float] | None = None
    ) -> None:
        """`methods`: by JSON-RPC method; `tools`: by `server/tool`. Both may end in `*`."""
        self.default = default
        self._prices = (default, dict(methods or {}), dict(tools or {}))
        self._methods = ByName(self._prices[1])
        self._tools = ByName(self._prices[2])
        self.flat = not (self._methods or self._tools)
        """Everything that is not free costs the default."""
        self._known: dict[tuple[str, str, str], float] = {}

    def __eq__(self, other: object) -> bool:
        return self._prices == other._prices if isinstance(other, CostTable) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.default)

    def __repr__(self) -> str:
        return f"CostTable{self._prices}"

    @property
    def dearest(self) -> float:
        """The highest price."""
        default, methods, tools = self._prices
        return max(default, *methods.values(), *tools.values(), 0.0)

    def at_most(self, price: float) -> CostTable:
        """The same prices, but none higher than this."""
        default, methods, tools = self._prices
        cut = ({name: min(cost, price) for name, cost in prices.items()} for prices in (methods, tools))
        return CostTable(min(default, price), *cut)

    def of(self, method: str, tool: str, alias: str) -> float:
        """What a message costs. `tool`: `server/tool` of a call, else ''; `alias`: another way to write it."""
        price = self._known.get((method, tool, alias))
        if price is None:
            price = next(self._fitting(method, tool, alias))
            if len(method) + len(tool) <= _LONGEST:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[method, tool, alias] = price
        return price

    def _fitting(self, method: str, tool: str, alias: str) -> Iterator[float]:
        if tool:
            yield from self._tools.fitting(tool)
            yield from self._tools.fitting(alias)
        yield from self._methods.fitting(method or RESPONSE)
        yield 0.0 if method in FREE else self.default


ONE_EACH: Final = CostTable()
