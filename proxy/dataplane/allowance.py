"""How much everyone may use: the rules in force, and what concerns them; built whole, swapped by one assignment.

Owns its making from configuration and rows. Which buckets there are is `limits/rules.py`'s, what is left in them the
limiter's. It stands beside the snapshot, like the admission: limits change without routes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from proxy.dataplane.limit_rules import TABLE, rules_of
from proxy.limits.rules import RuleBook

if TYPE_CHECKING:
    from proxy.config.models import Config

#: Tables that an allowance is made of.
CONCERNS: Final = frozenset((TABLE, "tenants"))


@dataclass(frozen=True, slots=True)
class Allowance:
    """What requests are measured by."""

    book: RuleBook = field(default_factory=RuleBook)
    streams_of_client: int = 0
    """Streams that one client may have open; 0: any number."""
    streams_of_tenant: int = 0
    weights: Mapping[str, float] = field(default_factory=dict)
    """Id of a tenant -> what it counts beside the others; 1 for those that are not here."""
    problems: tuple[str, ...] = ()
    """A line for each row that was left out."""

    @property
    def limits_streams(self) -> bool:
        """Whether there is any end to open streams."""
        return bool(self.streams_of_client or self.streams_of_tenant)


def allowance_of(config: Config, rows: Mapping[str, Mapping[str, Any]]) -> Allowance:
    """The allowance of a configuration and all rows. May run in a thread: it only makes new objects."""
    rules, problems = rules_of(config.limits, rows)
    streams = config.limits.streams if config.limits is not None else None
    return Allowance(
        book=RuleBook.of(rules),
        streams_of_client=streams.per_principal if streams is not None else 0,
        streams_of_tenant=streams.per_tenant if streams is not None else 0,
        weights={
            row.id: row.fair_share_weight for row in rows.get("tenants", {}).values() if row.fair_share_weight != 1.0
        },
        problems=tuple(problems),
    )
