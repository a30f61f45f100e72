"""Which rules are in force: the file's, and over them the rows."""

from __future__ import annotations

import random
from typing import Any

import pytest

from proxy.config.limits import RateLimits
from proxy.dataplane.limit_rules import MOST_TOGETHER, rules_of
from proxy.identity.records import SYSTEM_TENANT
from proxy.limits.costs import ONE_EACH, CostTable
from proxy.limits.rules import Rule, RuleBook
from proxy.store.rows import LimitRow, TenantRow

ACME, OVER = "11111111-0000-0000-0000-000000000000", "22222222-0000-0000-0000-000000000000"
TENANTS = {
    ACME: TenantRow(ACME, "acme", "active", "free", 1.0, "standard"),
    OVER: TenantRow(OVER, "over", "suspended", "free", 1.0, "standard"),
}


def row(name: str, tenant: str = SYSTEM_TENANT, **columns: Any) -> LimitRow:
    """A row with the defaults of the table."""
    known: dict[str, Any] = {
        "id": f"id-{name}",
        "level": "key",
        "subject": None,
        "capacity": 10,
        "refill_per_minute": 60.0,
        "cost": 1.0,
        "window_s": None,
        "window_limit": None,
        "on_store_error": "local",
        "enforce": True,
        "costs": {},
        "is_enabled": True,
    }
    return LimitRow(tenant_id=tenant, name=name, **known | columns)


def registry(*rows: LimitRow) -> dict[str, dict[str, Any]]:
    """The tables."""
    return {"tenants": {**TENANTS}, "rate_limit_configs": {one.id: one for one in rows}}


def limits(*rules: dict[str, Any], preset: str = "none") -> RateLimits:
    """Those of a file."""
    return RateLimits.model_validate({"preset": preset, "rules": rules})


def test_nothing_written_is_no_rule() -> None:
    """Neither in the file nor in the database."""
    assert rules_of(None, {}) == ([], [])
    assert rules_of(limits(), registry()) == ([], [])


def test_the_preset_becomes_rules() -> None:
    """Their ids are their names, so that buckets live on when the file is read again."""
    found, problems = rules_of(RateLimits(), {})
    assert problems == []
    assert [rule.id for rule in found] == ["global", "tier-admin", "tier-user", "tier-anonymous"]
    assert found[2] == Rule("tier-user", "tier-user", "tier", 100.0, 100 / 60, "user")
    assert all(rule.costs is ONE_EACH for rule in found)


def test_a_rule_keeps_all_that_was_written() -> None:
    """Of the file and of a row."""
    written = {
        "name": "r", "level": "tool", "subject": "a/b*", "rate": "2/s", "burst": 5,
        "window": {"requests": 100, "per": "1h"}, "cost": {"default": 2, "methods": {"GET": 3}, "tools": {"a/bc": 4}},
        "on_store_error": "deny", "enforce": False,
    }  # fmt: skip
    expected = Rule(
        "r", "r", "tool", 5.0, 2.0, "a/b*", CostTable(2, {"GET": 3}, {"a/bc": 4}), (3600.0, 100.0), "deny", False
    )
    assert rules_of(limits(written), {}) == ([expected], [])
    same = row(
        "r", ACME, level="tool", subject="a/b*", refill_per_minute=120.0, capacity=5, window_s=3600, window_limit=100,
        cost=2.0, costs={"methods": {"GET": 3}, "tools": {"a/bc": 4}}, on_store_error="deny", enforce=False,
    )  # fmt: skip
    (found,), problems = rules_of(None, registry(same))
    assert problems == []
    assert (found.id, found.name, found.tenant) == ("id-r", "r", ACME)
    assert found == Rule("id-r", "r", "tool", 5.0, 2.0, "a/b*", expected.costs, (3600.0, 100.0), "deny", False, ACME)


def test_a_row_of_the_system_tenant_replaces_the_rule_of_its_name() -> None:
    """That of a tenant does not, and has that tenant's clients only."""
    found, problems = rules_of(RateLimits(), registry(row("global", level="global"), row("tier-user", ACME)))
    assert problems == []
    assert [(rule.id, rule.tenant) for rule in found] == [
        ("tier-admin", ""), ("tier-user", ""), ("tier-anonymous", ""), ("id-global", ""), ("id-tier-user", ACME),
    ]  # fmt: skip


def test_a_row_that_cannot_be_used_costs_no_other() -> None:
    """It is told of, and the rule of the file that it would have replaced stays."""
    rows = (row("global", capacity=0), row("good"), row("bad", ACME, refill_per_minute=float("nan")))
    found, problems = rules_of(RateLimits(), registry(*rows))
    assert [rule.id for rule in found] == ["global", "tier-admin", "tier-user", "tier-anonymous", "id-good"]
    assert problems == [
        "tenant system, limit global: left out: capacity: must be 1 or more",
        "tenant acme, limit bad: left out: refill_per_minute: a rate is more than 0, and at most 1,000,000 per second",
    ]


def test_a_disabled_row_is_no_rule() -> None:
    """And nothing to tell of, unless somebody may believe that it switches off a rule of the file."""
    found, problems = rules_of(RateLimits(), registry(row("global", is_enabled=False), row("x", is_enabled=False)))
    assert [rule.id for rule in found][:2] == ["global", "tier-admin"]
    assert problems == [
        "tenant system, limit global: is disabled; the rule of this name in the configuration file stays in force"
    ]
    assert rules_of(None, registry(row("global", is_enabled=False))) == ([], [])


def test_rows_of_tenants_that_are_not_served_are_no_rules() -> None:
    """Suspended ones, and ones that are not there."""
    assert rules_of(None, registry(row("a", OVER), row("b", "33333333-0000-0000-0000-000000000000"))) == ([], [])


def test_the_order_depends_on_no_chance() -> None:
    """The file's, then those for all, then by tenant and name."""
    rows = [row(f"n{number}", random.Random(number).choice([ACME, SYSTEM_TENANT])) for number in range(20)]
    rows.append(row("bad", capacity=0))
    first = rules_of(RateLimits(), registry(*rows))
    random.Random(1).shuffle(rows)
    assert rules_of(RateLimits(), registry(*rows)) == first


@pytest.mark.parametrize("name", ["Größe", "a\r\nSet-Cookie: x", 'say "x"', "x" * 65, " x"])
def test_a_name_that_fits_no_header_gives_way_to_the_id(name: str) -> None:
    """Clients are shown the name of the rule that refused them."""
    (found,), _ = rules_of(None, registry(row(name, id="some-id")))
    assert (found.id, found.name) == ("some-id", "some-id")
    (found,), _ = rules_of(None, registry(row("Search, per key"[:6], id="some-id")))
    assert found.name == "Search"


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"level": "server", "subject": "{}*"},
        {"level": "tool", "subject": "s/{}*"},
        {"level": "tool", "subject": "s/x"},
        {"level": "client_address", "subject": "10.{}.0.0/16"},
    ],
)
def test_a_tenant_has_so_many_rules_for_one_request(columns: dict[str, Any]) -> None:
    """Each is a bucket to look at, whose cost is the proxy's; whoever runs the proxy may have more."""

    def rows(tenant: str) -> list[LimitRow]:
        numbered = ((n, {key: text.format(n) for key, text in columns.items()}) for n in range(MOST_TOGETHER + 2))
        return [row(f"n{number:02}", tenant, **changed) for number, changed in numbered]

    found, problems = rules_of(None, registry(*rows(ACME)))
    assert len(found) == MOST_TOGETHER
    sentence = "left out: more than 16 rules of this tenant and level could concern one request"
    assert problems == [f"tenant acme, limit n{number}: {sentence}" for number in (16, 17)]
    assert len(rules_of(None, registry(*rows(SYSTEM_TENANT)))[0]) == MOST_TOGETHER + 2


def test_a_tenant_may_have_many_rules_for_different_things() -> None:
    """Of which a request meets one."""
    rows = [row(f"n{n}", ACME, level="tool", subject=f"s{n}/x*") for n in range(100)]
    rows += [row(f"m{n}", ACME, level="tool", subject=f"s/t{n}") for n in range(100)]
    found, problems = rules_of(None, registry(*rows))
    assert (len(found), problems) == (200, [])
    assert len(RuleBook.of(found).rules) == 200
