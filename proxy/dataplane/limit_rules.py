"""The rules in force: those of the configuration file, and over them the rows of `rate_limit_configs`.

Owns which rows count, and how rows are laid over the file. What a row means is `config/limit_rows.py`'s; which rules
concern a request is `limits/rules.py`'s. Pure. A row that cannot be used is left out and told of, and costs no other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from proxy.config.limit_rows import limit_of
from proxy.config.limits import Cost, LimitRule, RateLimits
from proxy.config.problems import path_text
from proxy.identity.records import SYSTEM_TENANT
from proxy.limits.costs import ONE_EACH, CostTable
from proxy.limits.rules import Rule

__all__ = ["rules_of"]

TABLE: Final = "rate_limit_configs"
#: Rules of one tenant that one request can meet on one level: each is a bucket to look at.
MOST_TOGETHER: Final = 16
_SYSTEM: Final = "system"
#: Names that can stand in a header field; for a row with another one its id does.
_SHOWN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _./:-]{0,63}")
_PLAIN: Final = Cost()

_DISABLED: Final = "is disabled; the rule of this name in the configuration file stays in force"
_TOO_MANY: Final = f"left out: more than {MOST_TOGETHER} rules of this tenant and level could concern one request"


def rules_of(limits: RateLimits | None, registry: Mapping[str, Mapping[str, Any]]) -> tuple[list[Rule], list[str]]:
    """All rules, in an order that depends on nothing else, and a line for each row that is left out.

    `limits`: None for a file without limits; the rows count nevertheless. `registry`: table -> id -> row, shaped as in
    `store/rows.py`; tables `rate_limit_configs` and `tenants`. A row of the system tenant replaces the rule of its name
    in the file, as long as it is enabled and can be used.
    """
    slugs = {row.id: row.slug for row in registry.get("tenants", {}).values() if row.status == "active"}
    slugs[SYSTEM_TENANT] = _SYSTEM
    written = {rule.name: rule for rule in limits.all_rules()} if limits is not None else {}
    found: list[Rule] = []
    problems: list[str] = []
    crowd: Counter[tuple[str, str, str]] = Counter()
    for row in _in_order(registry, slugs):
        outcome = _read(row, written, crowd)
        if isinstance(outcome, Rule):
            found.append(outcome)
            if row.tenant_id == SYSTEM_TENANT:
                written.pop(row.name, None)
        elif outcome:
            problems.append(f"tenant {slugs[row.tenant_id]}, limit {path_text((row.name,))}: {outcome}")
    return [*(_rule(rule, rule.name, rule.name, "") for rule in written.values()), *found], problems


def _in_order(registry: Mapping[str, Mapping[str, Any]], slugs: Mapping[str, str]) -> Iterator[Any]:
    """Rows of tenants that are served; those for all come first, then by tenant and name."""
    rows = (row for row in registry.get(TABLE, {}).values() if row.tenant_id in slugs)
    yield from sorted(rows, key=lambda row: (row.tenant_id != SYSTEM_TENANT, slugs[row.tenant_id], row.name, row.id))


def _read(row: Any, written: Mapping[str, LimitRule], crowd: Counter[tuple[str, str, str]]) -> Rule | str:
    """The rule of a row, or why there is none; '' where that is as it should be."""
    is_shared = row.tenant_id == SYSTEM_TENANT
    if not row.is_enabled:
        return _DISABLED if is_shared and row.name in written else ""
    try:
        limit = limit_of(row)
    except ValueError as error:
        return f"left out: {error}"
    if not is_shared:
        place = row.tenant_id, limit.level, _neighbourhood(limit)
        crowd[place] += 1
        if crowd[place] > MOST_TOGETHER:
            return _TOO_MANY
    name = row.name if _SHOWN.fullmatch(row.name) else row.id
    return _rule(limit, row.id, name, "" if is_shared else row.tenant_id)


def _neighbourhood(limit: LimitRule) -> str:
    """What is the same for subjects of which one request can meet several: patterns of one server, all networks."""
    subject = limit.subject or "*"
    if limit.level == "client_address" and "/" in subject:
        return "*"
    if not subject.endswith("*"):
        return subject
    server, slash, _ = subject.partition("/")
    return f"{server}/*" if slash else "*"


def _rule(limit: LimitRule, identity: str, name: str, tenant: str) -> Rule:
    cost, window = limit.cost, limit.window
    return Rule(
        id=identity,
        name=name,
        level=limit.level,
        capacity=limit.capacity,
        refill_per_s=limit.rate.per_s,
        subject=limit.subject or "",
        costs=ONE_EACH if cost == _PLAIN else CostTable(cost.default, cost.methods, cost.tools),
        window=None if window is None else (window.per, float(window.requests)),
        on_store_error=limit.on_store_error,
        enforce=limit.enforce,
        tenant=tenant,
    )
