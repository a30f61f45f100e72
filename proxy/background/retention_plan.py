"""What of a table is old enough to go, and how. Pure: no clock, no database.

Owns the rules. A partition whose rows may all go is dropped whole. Where some tenant's rows must stay, the rows of the
others are deleted. A tenant with a policy of its own is taken at its word, to the day; for everyone else a partition
goes when all of it is old enough, so that nothing is deleted row by row that can be dropped a little later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from proxy.identity.records import SYSTEM_TENANT

if TYPE_CHECKING:
    from proxy.config.retention import RetainedTable, Retention
    from proxy.store.retention import Extent
    from proxy.store.retention_policies import PolicyRow

#: Before every row.
NEVER: Final = datetime(1, 1, 2, tzinfo=UTC)
#: Rows deleted in one transaction, whatever a row says: on their way to the archive they are in memory, all at a time.
MOST_ROWS: Final = 100_000
#: So many days and more are for ever.
FOR_EVER_DAYS: Final = 36_500


@dataclass(frozen=True, slots=True)
class Rule:
    """How long some rows of a table are kept."""

    days: int | None
    """None: for ever."""
    archive: bool
    batch: int
    source: str
    """`tenant`, `system` (their rows) or `configuration`."""

    def cutoff(self, today: datetime) -> datetime:
        """What is earlier may go; `today` is the last midnight, UTC."""
        return NEVER if self.days is None or self.days >= FOR_EVER_DAYS else today - timedelta(days=self.days)


@dataclass(frozen=True, slots=True)
class Rules:
    """Of one table."""

    default: Rule
    own: Mapping[str, Rule]
    """Of tenants (ids) with a policy of their own."""

    def of(self, tenant: str) -> Rule:
        """The one that is in force for a tenant."""
        return self.own.get(tenant, self.default)

    def latest(self, today: datetime) -> datetime:
        """Nothing that is later than this goes."""
        return max(rule.cutoff(today) for rule in (self.default, *self.own.values()))


@dataclass(frozen=True, slots=True)
class Retire:
    """Drop a partition whole."""

    extent: Extent
    archive: bool


@dataclass(frozen=True, slots=True)
class Trim:
    """Delete rows of a tenant within an extent that are earlier than `until`."""

    extent: Extent
    tenant: str
    until: datetime
    archive: bool
    batch: int


def midnight(unix_s: float) -> datetime:
    """The last midnight, UTC."""
    return datetime.fromtimestamp(unix_s, UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def rules_of(table: RetainedTable, config: Retention, rows: Iterable[PolicyRow]) -> Rules:
    """The rows that are in force, before the configuration."""
    kept = config.of(table)
    default = Rule(kept.days, kept.archive, kept.batch, "configuration")
    own = {}
    for row in rows:
        if row.table != table or not row.enabled:
            continue
        batch = min(row.batch, MOST_ROWS)
        if row.tenant_id == SYSTEM_TENANT:
            default = Rule(row.days, row.archive, batch, "system")
        else:
            own[row.tenant_id] = Rule(row.days, row.archive, batch, "tenant")
    return Rules(default, own)


def asks_who_is_there(rules: Rules, extent: Extent) -> bool:
    """Whether the tenants that have rows in an extent matter; if not, `decide` needs none of them."""
    return bool(rules.own) or not extent.whole


def decide(extent: Extent, rules: Rules, present: Sequence[str], today: datetime) -> list[Retire | Trim]:
    """What is to be done; `present` are the tenants with rows in the extent."""
    concerned = [rules.of(tenant) for tenant in present] or [rules.default]
    kept_until = min(rule.cutoff(today) for rule in concerned) if present else rules.latest(today)
    if extent.whole and kept_until >= extent.until:
        return [Retire(extent, any(rule.archive for rule in concerned))]
    return [trim for tenant in present for trim in _trimmed(extent, tenant, rules, today)]


def _trimmed(extent: Extent, tenant: str, rules: Rules, today: datetime) -> list[Retire | Trim]:
    rule = rules.of(tenant)
    until = min(rule.cutoff(today), extent.until)
    waits = extent.whole and tenant not in rules.own and until < extent.until
    if waits or until <= extent.since:
        return []
    return [Trim(extent, tenant, until, rule.archive, rule.batch)]
