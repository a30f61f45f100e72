"""What is limited: rules, and which buckets one request takes tokens from.

Owns what each level counts:

    global          one bucket; of a tenant's rule: one for that tenant
    tenant          each tenant, by id; who has no tenant is not limited
    tier            each client of the tier: each principal, and of anonymous ones each address
    key             each principal with a credential; a key that is rotated keeps its bucket
    server          each server, for all who use it
    tool            each tool of each server, likewise
    client_address  each address; IPv6 by /64

A `subject` narrows a rule to one bucket (one for each client with a tier). Limits that stand in a key replace the rules
of its tier. Rules of a tenant concern nobody else. All rules that fit apply, and nothing here counts anything.
Rules are filed once, so that finding those of a request takes as long with ten as with ten thousand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Literal, NamedTuple, TypeVar

from proxy.identity.addresses import key_of, read_network, read_number
from proxy.identity.principal import Principal, Source
from proxy.limits.costs import EXEMPT, FREE, ONE_EACH, ByName, CostTable
from proxy.limits.scores import subject_of

Level = Literal["global", "tenant", "tier", "key", "server", "tool", "client_address"]

#: Names of one level whose rules are remembered; names come from clients, so there must be an end.
_REMEMBERED: Final = 8192
#: Characters of a name that is remembered, and shown as it is: longer ones are hashed, so that keys stay short.
_LONGEST: Final = 160
#: Stands for clients without an address: Unix sockets, and hops that hide it.
_NO_ADDRESS: Final = "unknown"
#: Id of the rule that a key's own limits make; no configured name holds a colon, no row's id is a word.
OWN: Final = "key:own"
_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Rule:
    """A token bucket, or one for each of what `level` names."""

    id: str
    """Stable, and so the buckets: the name of a configured rule, the id of a row."""
    name: str
    """Shown to clients: printable ASCII."""
    level: Level
    capacity: float
    """Most tokens in the bucket."""
    refill_per_s: float
    """Tokens that come back per second."""
    subject: str = ""
    """The one meant, perhaps with a `*` at its end; '': each."""
    costs: CostTable = ONE_EACH
    window: tuple[float, float] | None = None
    """Seconds, and most tokens in any stretch of that length."""
    on_store_error: Literal["local", "deny", "allow"] = "local"
    enforce: bool = True
    """False: what would be refused is only counted."""
    tenant: str = ""
    """Id of the tenant whose clients alone are concerned; '' for all."""


class Asked(NamedTuple):
    """What is asked of a request."""

    principal: Principal
    client_ip: str
    server: str
    """Name of the server, `slug/name` for one of a tenant; '' when none is chosen."""
    tool: str
    """Name of the tool that is called; '' for none."""
    method: str
    """JSON-RPC method; '' for an answer; GET for the opening of a stream, DELETE for the end of a session."""


class Demand(NamedTuple):
    """So many tokens of one bucket."""

    rule: Rule
    subject: str
    """Whose bucket of that rule; '' where it has only one for all."""
    cost: float


class RuleBook:
    """All rules, filed; made once per change."""

    __slots__ = ("_of_tenants", "_own", "_priced", "_shared", "rules")

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        """Ids are unique. Raises ValueError for a subject of a client_address rule that is no network."""
        self.rules = tuple(rules)
        shelves: dict[str, list[Rule]] = {}
        for rule in self.rules:
            shelves.setdefault(rule.tenant, []).append(rule)
        self._shared = _Shelf(shelves.pop("", ()))
        self._of_tenants = {tenant: _Shelf(shelf) for tenant, shelf in shelves.items()}
        self._priced = any(not rule.costs.flat for rule in self.rules)
        self._own: dict[tuple[str, str, str, int, int], tuple[Demand, ...]] = {}

    @classmethod
    def of(cls, rules: Iterable[Rule]) -> RuleBook:
        """The book of some rules."""
        return cls(rules)

    def for_request(self, asked: Asked) -> list[Demand]:
        """What one message, or the opening of a stream, takes; nothing when it is free or no rule fits."""
        method = asked.method
        if method in EXEMPT or (method in FREE and not self._priced):
            return []
        principal, server = asked.principal, asked.server
        tool = f"{server}/{asked.tool}" if asked.tool else ""
        own = principal.requests_per_minute or principal.burst
        found = self._shared.meet(asked, server, tool, tool, not own)
        alias = tool
        shelf = self._of_tenants.get(principal.tenant) if principal.tenant else None
        if shelf is not None:
            prefix = f"{principal.tenant_slug}/"
            alias = tool.removeprefix(prefix)
            found += shelf.meet(asked, server.removeprefix(prefix), tool, alias, not own)
        if own:
            found += self._own_of(principal)
        return _priced(found, method, tool, alias) if self._priced else found

    def for_batch(self, batch: Iterable[Asked]) -> list[Demand]:
        """What several messages of one request take together: each bucket once, with the sum of the costs."""
        sums: dict[tuple[str, str], Demand] = {}
        for asked in batch:
            for demand in self.for_request(asked):
                key = demand.rule.id, demand.subject
                before = sums.get(key)
                sums[key] = demand if before is None else demand._replace(cost=before.cost + demand.cost)
        return list(sums.values())

    def _own_of(self, principal: Principal) -> tuple[Demand, ...]:
        """The bucket of a principal with limits of its own."""
        key = (principal.id, principal.tenant, principal.tier, principal.requests_per_minute, principal.burst)
        known = self._own.get(key)
        if known is not None:
            return known
        shelves = (self._shared, self._of_tenants.get(principal.tenant))
        rules = (rule for shelf in shelves if shelf is not None for rule in shelf.tier_rules(principal.tier))
        rule = _own_rule(principal, next(rules, None))
        return _remember(self._own, key, () if rule is None else (Demand(rule, principal.id, rule.costs.default),))


def who(principal: Principal, client_ip: str) -> str:
    """Whom a request counts for: the principal; of anonymous ones, who are all the same principal, the address."""
    return principal.id if principal.source is not Source.ANONYMOUS else subject_of(client_ip) or _NO_ADDRESS


def _own_rule(principal: Principal, tier: Rule | None) -> Rule | None:
    """The rule that a key's own limits make out of that of its tier; None for a burst of no rate."""
    per_s = principal.requests_per_minute / 60.0 or (tier.refill_per_s if tier is not None else 0.0)
    if not per_s:
        return None
    capacity = max(1.0, float(principal.burst or principal.requests_per_minute))
    costs = (ONE_EACH if tier is None else tier.costs).at_most(capacity)
    return Rule(OWN, "key", "key", capacity, per_s, "", costs, None, "local" if tier is None else tier.on_store_error)


def _priced(found: list[Demand], method: str, tool: str, alias: str) -> list[Demand]:
    """The demands with the price of the message, those that are free left out."""
    free = method in FREE
    priced = []
    for demand in found:
        costs = demand.rule.costs
        if not costs.flat:
            cost = costs.of(method, tool, alias)
            if cost > 0:
                priced.append(Demand(demand.rule, demand.subject, cost))
        elif not free:
            priced.append(demand)
    return priced


def _remember(known: dict[_Key, tuple[Demand, ...]], key: _Key, found: tuple[Demand, ...]) -> tuple[Demand, ...]:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[key] = found
    return found


class _Shelf:
    """The rules of one owner, by level."""

    __slots__ = ("_address", "_global", "_key", "_server", "_tenant", "_tier", "_tool")

    def __init__(self, rules: Iterable[Rule]) -> None:
        levels: dict[str, list[Rule]] = {}
        for rule in rules:
            levels.setdefault(rule.level, []).append(rule)
        self._global = [Demand(rule, "", rule.costs.default) for rule in levels.get("global", ())]
        self._tenant = _Named(levels["tenant"]) if "tenant" in levels else None
        self._tier = _Tiers(levels["tier"]) if "tier" in levels else None
        self._key = _Named(levels["key"]) if "key" in levels else None
        self._server = _Named(levels["server"]) if "server" in levels else None
        self._tool = _Named(levels["tool"]) if "tool" in levels else None
        self._address = _Addresses(levels["client_address"]) if "client_address" in levels else None

    def meet(self, asked: Asked, server: str, tool: str, alias: str, by_tier: bool) -> list[Demand]:
        """The demands of a request at their default prices. `server`, `alias`: what the owner calls server and tool."""
        principal = asked.principal
        found = self._global.copy()
        if self._tenant is not None and principal.tenant:
            found += self._tenant.find(principal.tenant, principal.tenant_slug)
        if self._tier is not None and by_tier:
            found += self._tier.find(who(principal, asked.client_ip), principal.tier)
        if self._key is not None and principal.key_id:
            found += self._key.find(principal.id, principal.key_id)
        if self._server is not None and server:
            found += self._server.find(asked.server, server)
        if self._tool is not None and tool:
            found += self._tool.find(tool, alias)
        if self._address is not None:
            found += self._address.find(subject_of(asked.client_ip) or _NO_ADDRESS, asked.client_ip)
        return found

    def tier_rules(self, tier: str) -> Iterator[Rule]:
        """Those for clients of a tier, the ones that name it first."""
        return iter(()) if self._tier is None else (rule for rule, _ in self._tier.fitting("", tier))


class _Named:
    """Rules whose subject is a name, or the beginning of one."""

    __slots__ = ("_each", "_known", "_subjects")

    def __init__(self, rules: Iterable[Rule]) -> None:
        by_subject: dict[str, list[Rule]] = {}
        for rule in rules:
            by_subject.setdefault(rule.subject, []).append(rule)
        self._each = by_subject.pop("", [])
        self._subjects = ByName(by_subject)
        self._known: dict[tuple[str, str], tuple[Demand, ...]] = {}

    def find(self, name: str, alias: str) -> tuple[Demand, ...]:
        """The demands on a name, which a subject may also call by its alias."""
        known = self._known.get((name, alias))
        return known if known is not None else self._learn(name, alias)

    def fitting(self, name: str, alias: str) -> Iterator[tuple[Rule, str]]:
        """Rules, and whose bucket of each."""
        short = (
            name
            if len(name) <= _LONGEST
            else f"{name[:64]}~{blake2b(name.encode(errors='surrogatepass'), digest_size=16).hexdigest()}"
        )
        for rule in self._each:
            yield rule, short
        for spelling in dict.fromkeys((name, alias)):
            for rules in self._subjects.fitting(spelling):
                yield from ((rule, rule.subject) for rule in rules)

    def _learn(self, name: str, alias: str) -> tuple[Demand, ...]:
        once = {rule.id: Demand(rule, whose, rule.costs.default) for rule, whose in self.fitting(name, alias)}
        found = tuple(once.values())
        # A name of a megabyte is not worth a megabyte.
        return found if len(name) > _LONGEST else _remember(self._known, (name, alias), found)


class _Tiers(_Named):
    """Rules whose subject is a tier; the bucket is that of the client, whom `name` stands for."""

    __slots__ = ()

    def fitting(self, name: str, alias: str) -> Iterator[tuple[Rule, str]]:
        for rules in self._subjects.fitting(alias):
            yield from ((rule, name) for rule in rules)
        yield from ((rule, name) for rule in self._each)


class _Addresses(_Named):
    """Rules whose subject is an address or a network, which `alias` lies in."""

    __slots__ = ("_networks",)

    def __init__(self, rules: Iterable[Rule]) -> None:
        each = []
        self._networks: dict[tuple[int, int], dict[int, list[Rule]]] = {}
        for rule in rules:
            if rule.subject:
                bits, shift, number = key_of(read_network(rule.subject))
                self._networks.setdefault((bits, shift), {}).setdefault(number, []).append(rule)
            else:
                each.append(rule)
        super().__init__(each)

    def fitting(self, name: str, alias: str) -> Iterator[tuple[Rule, str]]:
        yield from ((rule, name) for rule in self._each)
        address = read_number(alias)
        for (bits, shift), networks in self._networks.items():
            if address is not None and address[0] == bits:
                yield from ((rule, rule.subject) for rule in networks.get(address[1] >> shift, ()))
