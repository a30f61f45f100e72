"""Feature flags: for whom each is on, and which variant they have.

Owns which flags count for whom, and the arithmetic of percentages and variants. Pure: no clock, no chance, no state, so
that every replica gives the same principal the same answer. What a flag's keys mean is `config/resilience.py`'s; what
a route asks of flags is `conditions.py`'s.

A flag of the configuration, or of a row of the system tenant, is for all; where both have one, the row counts. A
tenant's own row of the same key wins for that tenant. A row that cannot be used is left out and told of.

Each principal has a number for each flag, and has the flag when the number is below the percentage: growing it only
adds principals. A second number, independent of the first, chooses the variant (weighted rendezvous hash): when weights
change, principals move only towards what gained and away from what lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from proxy.config.flag_rows import flag_of
from proxy.config.problems import path_text
from proxy.dataplane.rendezvous import point, score, weighted_score
from proxy.identity.addresses import read_number
from proxy.identity.records import SYSTEM_TENANT

if TYPE_CHECKING:
    from proxy.config.resilience import Flag, FlagRule
    from proxy.identity.principal import Principal

__all__ = ["CONCERNS", "Asker", "FlagBook", "FlagKey", "FlagTable", "asker_of"]

TABLE: Final = "feature_flags"
#: Tables that a book is made of.
CONCERNS: Final = frozenset((TABLE, "tenants"))

Asker = tuple[str, str, str, str, str]
"""What flags can tell principals apart by: id of the tenant, its short name, user, key, and the address of whoever has
neither user nor key."""

FlagKey = tuple[str, str | None]
"""Name of a flag, and a variant of it; None for whatever variant."""

_SYSTEM: Final = "system"
#: Principals whose flags a table remembers.
_MOST_ASKERS: Final = 4096
#: All of the numbers that `score` gives.
_ALL: Final = 1 << 64

_point = lru_cache(8192)(point)


def asker_of(principal: Principal, address: str) -> Asker:
    """Who asks, as flags see it; `address` is the client's."""
    user, key = principal.user, principal.key_id
    return principal.tenant, principal.tenant_slug, user, key, "" if user or key else address


def _place(asker: Asker) -> int:
    """64 bits that stay with a principal: with the user, whatever key is used; else with the key; else the address."""
    _, _, user, key, address = asker
    if user:
        return _point(f"user {user}")
    return _point(f"key {key}") if key else _point(f"address {read_number(address)}")


class _Rules:
    """The rules of one flag, filed under the name that tells most: a long list of users costs what one does."""

    __slots__ = ("_by_key", "_by_tenant", "_by_user")

    def __init__(self, rules: Iterable[FlagRule]) -> None:
        self._by_user: dict[str, list[tuple[int, FlagRule]]] = {}
        self._by_key: dict[str, list[tuple[int, FlagRule]]] = {}
        self._by_tenant: dict[str, list[tuple[int, FlagRule]]] = {}
        for rank, rule in enumerate(rules):
            if rule.user:
                self._by_user.setdefault(rule.user, []).append((rank, rule))
            elif rule.key:
                self._by_key.setdefault(rule.key, []).append((rank, rule))
            else:
                self._by_tenant.setdefault(rule.tenant, []).append((rank, rule))

    def first(self, asker: Asker) -> FlagRule | None:
        """The first rule that fits."""
        _, tenant, user, key, _ = asker
        best: tuple[int, FlagRule] | None = None
        for filed in (self._by_user.get(user, ()), self._by_key.get(key, ()), self._by_tenant.get(tenant, ())):
            for rank, rule in filed:
                if rule.tenant in ("", tenant) and rule.user in ("", user) and rule.key in ("", key):
                    if best is None or rank < best[0]:
                        best = rank, rule
                    break
        return None if best is None else best[1]


class _Compiled:
    """One flag, ready to be asked."""

    __slots__ = ("_percent_point", "_rules", "_threshold", "_variant_point", "_variants")

    def __init__(self, name: str, flag: Flag) -> None:
        #: Numbers below it have the flag.
        self._threshold = round(flag.percent / 100.0 * _ALL) if flag.enabled else 0
        self._percent_point = point(f"percent {name}")
        self._variant_point = point(f"variant {name}")
        self._variants = tuple((text, point(text), weight) for text, weight in flag.variants.items() if weight)
        self._rules = _Rules(flag.rules) if flag.enabled and flag.rules else None

    def variant(self, asker: Asker) -> str | None:
        """See `FlagBook.variant`."""
        rule = self._rules.first(asker) if self._rules is not None else None
        if rule is None:
            if not self._threshold:
                return None
            if self._threshold < _ALL and score(_place(asker), self._percent_point) >= self._threshold:
                return None
        elif not rule.enabled:
            return None
        elif rule.variant:
            return rule.variant
        if not self._variants:
            return ""
        number = score(_place(asker), self._variant_point)
        return max([(weighted_score(number, at, weight), name) for name, at, weight in self._variants])[1]


class FlagBook:
    """All flags in force. Built whole; never changed."""

    __slots__ = ("_own", "_shared", "problems")

    def __init__(self) -> None:
        self._shared: dict[str, _Compiled] = {}
        #: By id of the tenant.
        self._own: dict[str, dict[str, _Compiled]] = {}
        #: A line for each row that was left out.
        self.problems: tuple[str, ...] = ()

    @classmethod
    def of(cls, flags: Mapping[str, Flag], registry: Mapping[str, Mapping[str, Any]]) -> FlagBook:
        """The flags of a configuration and of all rows. May run in a thread: it only makes new objects.

        `registry`: table -> id -> row, shaped as in `store/rows.py`; tables `feature_flags` and `tenants`.
        """
        book = cls()
        book._shared = {name: _Compiled(name, flag) for name, flag in flags.items()}
        book.problems = tuple(book._lay_over(registry))
        return book

    def _lay_over(self, registry: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
        slugs = {row.id: row.slug for row in registry.get("tenants", {}).values() if row.status == "active"}
        slugs[SYSTEM_TENANT] = _SYSTEM
        rows = [row for row in registry.get(TABLE, {}).values() if row.tenant_id in slugs]
        for row in sorted(rows, key=lambda row: (slugs[row.tenant_id], row.key)):
            is_shared = row.tenant_id == SYSTEM_TENANT
            try:
                flag = _Compiled(row.key, flag_of(row))
            except ValueError as error:
                yield f"tenant {slugs[row.tenant_id]}, flag {path_text((row.key,))}: left out: {error}"
                continue
            own = self._shared if is_shared else self._own.setdefault(row.tenant_id, {})
            own[row.key] = flag

    def variant(self, name: str, principal: Principal, address: str = "") -> str | None:
        """None: the flag is off, or there is none; '': on, without variants; else the variant."""
        return self.variant_for(name, asker_of(principal, address))

    def variant_for(self, name: str, asker: Asker) -> str | None:
        """The same, for whoever asks several times."""
        own = self._own.get(asker[0])
        flag = (own.get(name) if own is not None else None) or self._shared.get(name)
        return None if flag is None else flag.variant(asker)

    def has(self, key: FlagKey, asker: Asker) -> bool:
        """Whether a flag is on for the principal, in the variant if the key names one."""
        name, variant = key
        held = self.variant_for(name, asker)
        return held is not None and (variant is None or held == variant)


class _InOrder:
    """Parts of a tree of routes (`route_tree.Node`), of which the first come first: mostly that settles it."""

    __slots__ = ("_nodes", "first")

    def __init__(self, nodes: Iterable[Any]) -> None:
        self._nodes = sorted(nodes, key=lambda node: node.first)
        self.first = self._nodes[0].first

    def find(self, traits: Any, limit: int) -> int:
        for node in self._nodes:
            if node.first >= limit:
                break
            limit = node.find(traits, limit)
        return limit


class FlagTable:
    """What is filed under flags and variants; `lookup` finds all that a principal has.

    Flags are worked out once for each principal and book of flags, so that a request costs the same with one flag and
    with thousands; a principal that was not seen lately costs 1 us for each flag that is asked about here.
    """

    __slots__ = ("_book", "_found", "_nodes")

    def __init__(self, nodes: Mapping[FlagKey, Any]) -> None:
        self._nodes = tuple(nodes.items())
        self._book: FlagBook | None = None
        self._found: dict[Asker, list[Any]] = {}

    def lookup(self, fact: tuple[FlagBook, Asker]) -> list[Any]:
        """The values of all flags and variants that the principal has."""
        book, asker = fact
        if book is not self._book:
            self._book, self._found = book, {}
        found = self._found.get(asker)
        if found is None:
            if len(self._found) >= _MOST_ASKERS:
                self._found.clear()
            held = [node for key, node in self._nodes if book.has(key, asker)]
            found = self._found[asker] = [_InOrder(held)] if len(held) > 1 else held
        return found
