"""What the backend counts, as metrics: the registry, the databases, limits and bans.

Owns names, types and labels of these metrics; docs/operations.md lists them. It only reads plain numbers that others
keep, when somebody looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from proxy.metrics import OTHER, Family

if TYPE_CHECKING:
    from proxy.background.violation_log import ViolationLog
    from proxy.dataplane.admission import Freshness
    from proxy.dataplane.bans import Bans
    from proxy.dataplane.ratelimit import Limiter
    from proxy.limits.rules import Rule
    from proxy.store.database import Database

#: Rules with a label of their own; names of rows are the tenants'.
_MOST_RULES: Final = 200


class RuleCounts:
    """How often each rule refused, and how often one that is not enforced would have."""

    def __init__(self) -> None:
        self.refused: dict[str, int] = {}
        self.shadowed: dict[str, int] = {}

    def count(self, rule: Rule) -> None:
        """One more."""
        counts = self.refused if rule.enforce else self.shadowed
        name = rule.name if rule.name in counts or len(counts) < _MOST_RULES else OTHER
        counts[name] = counts.get(name, 0) + 1


def families(
    freshness: Freshness,
    database: Database | None,
    limiter: Limiter,
    rules: RuleCounts,
    bans: Bans,
    violations: ViolationLog,
) -> Iterator[Family]:
    """Every metric of the backend."""
    yield single("gauge", "registry_current", "Whether rows in memory are those of the database", freshness.current)
    if database is not None:
        yield from _pools(database)
    verdicts = {"redis": limiter.by_redis, "local": limiter.by_itself}
    yield keyed("counter", "limit_verdicts", "Requests measured by limits", "source", verdicts)
    yield keyed("counter", "limit_refusals", "Requests refused for a rule", "rule", rules.refused)
    yield keyed("counter", "limit_shadow_refusals", "Requests that a rule would have refused", "rule", rules.shadowed)
    yield single("gauge", "limit_workers", "Processes that share the limits", limiter.workers)
    yield single("gauge", "blocked_addresses", "Addresses that are blocked now", len(bans))
    yield single("counter", "blocked_requests", "Requests of blocked addresses", bans.refused)
    waiting = {"waiting": violations.waiting}
    yield keyed("gauge", "violation_rows", "Rows of violations that are not written yet", "state", waiting)
    yield single("counter", "violation_rows_dropped", "Rows of violations without room", violations.dropped)


def _pools(database: Database) -> Iterator[Family]:
    numbers = database.numbers()
    of = {name: {str(pool): float(getattr(each, name)) for pool, each in numbers.items()} for name in _POOL}
    for name, (kind, purpose) in _POOL.items():
        yield keyed(kind, f"postgres_{name}", purpose, "pool", of[name])


_POOL: Final = {
    "connections": ("gauge", "Connections to PostgreSQL"),
    "circuit_open": ("gauge", "Whether PostgreSQL is taken for gone"),
    "statements": ("counter", "Statements"),
    "seconds": ("counter", "Seconds spent in statements"),
    "exhausted": ("counter", "Waits for a connection that ended without one"),
    "unreachable": ("counter", "Connections that could not be made"),
    "cut": ("counter", "Connections cut at a deadline"),
    "slow": ("counter", "Statements that the server ended"),
}


def single(kind: str, name: str, purpose: str, value: float) -> Family:
    """One number."""
    return Family(kind, f"mcp_proxy_{name}", purpose, (("", +value),))  # True is shown as 1


def keyed(kind: str, name: str, purpose: str, label: str, values: Mapping[str, float]) -> Family:
    """A number for each value of a label."""
    rows = [(f'{{{label}="{escaped(key)}"}}', value) for key, value in values.items()]
    return Family(kind, f"mcp_proxy_{name}", purpose, rows)


def escaped(value: str) -> str:
    """A label's value in the text format."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
