"""Flags: whoever has one keeps it, shares are what was written, and rows cost no other row."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.models import Flag, Route, Server, When
from proxy.dataplane.client import UpstreamClient
from proxy.dataplane.conditions import Surroundings, compile_when
from proxy.dataplane.deadlines import Deadlines
from proxy.dataplane.flags import FlagBook, asker_of
from proxy.dataplane.router import Router
from proxy.dataplane.upstream import Upstream
from proxy.identity.principal import Principal, Source, anonymous
from proxy.identity.records import SYSTEM_TENANT
from proxy.metrics import ServerMetrics
from proxy.store.rows import FlagRow, TenantRow
from tests.bytecodes import bytecodes

MANY = 4000
ACME = "11111111-0000-0000-0000-000000000000"
OVER = "22222222-0000-0000-0000-000000000000"
TENANTS = {
    ACME: TenantRow(ACME, "acme", "active", "free", 1.0, "standard"),
    OVER: TenantRow(OVER, "over", "suspended", "free", 1.0, "standard"),
}


def principal(user: str = "", key: str = "", tenant: str = "") -> Principal:
    """Somebody; of tenant acme, or of none."""
    return replace(
        anonymous(), user=user, key_id=key, tenant=tenant, tenant_slug="acme" if tenant else "", source=Source.KEY
    )


def book(*rows: FlagRow, **flags: Any) -> FlagBook:
    """Flags of a file, `_` for `-` in names, and rows over them."""
    written = {name.replace("_", "-"): Flag.model_validate(flag) for name, flag in flags.items()}
    return FlagBook.of(written, {"tenants": TENANTS, "feature_flags": {row.id: row for row in rows}})


def row(tenant: str = SYSTEM_TENANT, *, key: str = "x", **columns: Any) -> FlagRow:
    """A row with the defaults of the table, but on."""
    known: dict[str, Any] = {"is_enabled": True, "rollout_percent": 100.0, "rules": [], "variants": {}}
    return FlagRow(f"id-{tenant}-{key}", tenant, key, **(known | columns))


def holders(flags: FlagBook, name: str = "x") -> dict[str, str]:
    """Which of many users have the flag, and their variants."""
    held = {f"u{number}": flags.variant(name, principal(f"u{number}")) for number in range(MANY)}
    return {user: variant for user, variant in held.items() if variant is not None}


# --- off, on, unknown -----------------------------------------------------------------------------------------------


def test_a_flag_is_off_or_on_or_not_there() -> None:
    """Disabled is off whatever else is written; a flag that nobody defined is off."""
    rules = [{"user": "u1"}]
    flags = book(
        on={}, off={"enabled": False, "rules": rules}, none={"percent": 0}, named={"percent": 0, "rules": rules}
    )
    asked = {name: flags.variant(name, principal("u1")) for name in ("on", "off", "none", "named", "missing")}
    assert asked == {"on": "", "off": None, "none": None, "named": "", "missing": None}


def test_the_first_rule_that_fits_decides_before_the_percentage() -> None:
    """All that a rule names must fit; a variant that it does not name is drawn."""
    rules = [
        {"user": "u1", "key": "k2", "enabled": False},
        {"tenant": "acme", "user": "u2", "enabled": False},
        {"user": "u1", "variant": "b"},
        {"tenant": "acme"},
        {"key": "k9", "enabled": False},
    ]
    flags = book(x={"percent": 0, "rules": rules, "variants": {"a": 1, "b": 0}})
    assert flags.variant("x", principal("u1", "k1")) == "b"
    assert flags.variant("x", principal("u1", "k2")) is None
    assert flags.variant("x", principal("u2", "k1", ACME)) is None
    assert flags.variant("x", principal("u2", "k1")) is None
    assert flags.variant("x", principal("u3", "k9", ACME)) == "a"
    assert flags.variant("x", principal("u3", "k9")) is None
    assert flags.variant("x", principal("u3")) is None


names = st.sampled_from(["", "one", "two"])
written_rule = st.fixed_dictionaries({"tenant": names, "user": names, "key": names, "enabled": st.booleans()})


@given(rules=st.lists(written_rule.filter(lambda rule: any(v for k, v in rule.items() if k != "enabled")), max_size=6))
def test_rules_are_found_as_if_asked_one_by_one(rules: list[dict[str, Any]]) -> None:
    """However they are filed."""
    flags = book(x={"percent": 0, "rules": rules})
    for user in ("", "one", "two"):
        for key in ("", "one", "two"):
            for slug in ("", "one", "two"):
                facts = {"user": user, "key": key, "tenant": slug}
                fits = (rule for rule in rules if all(rule[name] in ("", fact) for name, fact in facts.items()))
                first = next(fits, {"enabled": False})
                who = replace(principal(user, key), tenant_slug=slug)
                assert (flags.variant("x", who) is not None) == first["enabled"]


# --- shares ---------------------------------------------------------------------------------------------------------


@given(user=st.text(min_size=1), percent=st.floats(0, 100))
def test_the_same_principal_always_gets_the_same(user: str, percent: float) -> None:
    """On every replica, with whatever key of the same user and from wherever."""
    options = {"percent": percent, "variants": {"a": 1, "b": 2}}
    first, second = book(x=options), book(y={}, x=options)
    expected = first.variant("x", principal(user))
    assert second.variant("x", principal(user, "another key", ACME), "192.0.2.1") == expected


def test_answers_stay_what_they_are_for_ever() -> None:
    """Replicas of different versions must agree, so these may never change."""
    flags = book(x={"percent": 50, "variants": {"a": 1, "b": 1}})
    assert [flags.variant("x", principal(f"u{number}")) for number in range(12)] == [
        None, "b", "b", None, None, None, None, None, "b", None, None, None,
    ]  # fmt: skip


@given(user=st.text(min_size=1), percents=st.tuples(st.floats(0, 100), st.floats(0, 100)))
def test_growing_a_percentage_only_adds(user: str, percents: tuple[float, float]) -> None:
    """Whoever has it keeps it, and the variant with it."""
    low, high = (
        book(x={"percent": percent, "variants": {"a": 1, "b": 1}}).variant("x", principal(user))
        for percent in sorted(percents)
    )
    assert low is None or low == high


@pytest.mark.parametrize("percent", [1, 10, 50, 99])
def test_a_percentage_is_the_share_of_the_principals(percent: float) -> None:
    """To within the noise of so many."""
    expected = MANY * percent / 100
    assert len(holders(book(x={"percent": percent}))) == pytest.approx(expected, abs=4 * (expected + 1) ** 0.5)


def test_flags_are_independent_of_each_other() -> None:
    """Those who have one are not those who have the next."""
    flags = book(x={"percent": 50}, y={"percent": 50})
    both = holders(flags, "x").keys() & holders(flags, "y").keys()
    assert len(both) == pytest.approx(MANY / 4, rel=0.1)


def test_variants_have_their_weights_among_those_who_have_the_flag() -> None:
    """The variant does not depend on the percentage: a tenth has them in the same shares; weight 0 gets nobody."""
    for percent in (10, 100):
        held = Counter(holders(book(x={"percent": percent, "variants": {"a": 1, "b": 3, "c": 0}})).values())
        assert held["b"] / held.total() == pytest.approx(0.75, abs=0.09 if percent == 10 else 0.03)
        assert held["c"] == 0


def test_a_weight_that_grows_moves_principals_to_its_variant_only() -> None:
    """As few as possible: those who must make up the difference."""
    before = holders(book(x={"variants": {"a": 1, "b": 1, "c": 2}}))
    after = holders(book(x={"variants": {"a": 1, "b": 2, "c": 2}}))
    moved = [user for user in before if before[user] != after[user]]
    assert all(after[user] == "b" for user in moved)
    assert len(moved) / MANY == pytest.approx(2 / 5 - 1 / 4, abs=0.03)


def test_who_has_no_user_goes_by_key_and_else_by_address() -> None:
    """One address is one principal however it is written; a key of its own is another one."""
    flags = book(x={"percent": 50})
    nobody = principal()
    addresses = [f"192.0.2.{number}" for number in range(200)]
    shown = [flags.variant("x", nobody, address) for address in addresses]
    assert [flags.variant("x", nobody, f"::ffff:{address}") for address in addresses] == shown
    assert 60 < shown.count("") < 140
    keys = [[flags.variant("x", principal(key=f"k{number}"), address) for number in range(200)] for address in "ab"]
    assert keys[0] == keys[1]
    assert 60 < keys[0].count("") < 140


# --- rows -----------------------------------------------------------------------------------------------------------


def test_a_row_for_all_wins_over_the_file_and_a_tenants_own_over_both() -> None:
    """A disabled row is one, too: the flag is off."""
    flags = book(row(variants={"b": 1}), row(ACME, is_enabled=False), row(ACME, key="own"), x={"variants": {"a": 1}})
    assert flags.problems == ()
    assert flags.variant("x", principal("u1")) == "b"
    assert flags.variant("x", principal("u1", tenant=ACME)) is None
    assert flags.variant("own", principal("u1", tenant=ACME)) == ""
    assert flags.variant("own", principal("u1")) is None
    assert book(row(is_enabled=False), x={}).variant("x", principal("u1")) is None


def test_a_row_that_cannot_be_used_is_told_of_and_costs_no_other() -> None:
    """What it would have replaced stays in force. Rows of tenants that are not served are no concern."""
    bad = {"rules": [{"enabled": False}]}
    flags = book(row(**bad), row(ACME, **bad), row(ACME, key="y"), row(OVER, **bad), x={})
    assert flags.problems == (
        "tenant acme, flag x: left out: rules[0]: needs a 'tenant', a 'user' or a 'key'",
        "tenant system, flag x: left out: rules[0]: needs a 'tenant', a 'user' or a 'key'",
    )
    assert flags.variant("x", principal("u1", tenant=ACME)) == ""
    assert flags.variant("y", principal("u1", tenant=ACME)) == ""


# --- routes ---------------------------------------------------------------------------------------------------------


def request(flags: FlagBook, who: Principal, path: str = "/a", address: str = "") -> Any:
    """What routing asks about."""
    return SimpleNamespace(
        path=path, host="", fields={}, message=None, revision="", client_ip=address, principal=who, flags=flags,
        draws=None,
    )  # fmt: skip


def router(*conditions: dict[str, Any]) -> Router:
    """Routes of one path with these conditions, named by their number."""
    config = Server.model_validate({"url": "http://up.test/mcp"})
    metrics = ServerMetrics("up", str)
    up = Upstream("up", config, UpstreamClient(config, metrics, Deadlines(lambda: 0.0)), metrics)
    routes = [
        Route.model_validate({"name": f"r{number}", "path": "/a", "servers": "up", "when": when})
        for number, when in enumerate(conditions)
    ]
    return Router.compile(routes, {"up": up}, lambda: datetime(2026, 11, 22, tzinfo=UTC), lambda: 0.0)


flag_names = st.sampled_from(["f", "g", "h"])
condition = st.one_of(
    st.builds(lambda name: {"flag": name}, flag_names),
    st.builds(lambda listed: {"flag": listed}, st.lists(flag_names, min_size=2, max_size=3)),
    st.builds(
        lambda name, listed: {"flag": name, "variant": listed},
        flag_names,
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3),
    ),
    st.builds(lambda name, percent: {"flag": name, "percent": percent}, flag_names, st.sampled_from([0, 100])),
    st.just({"host": "elsewhere"}),
)


@given(conditions=st.lists(condition, max_size=12), users=st.lists(st.text(min_size=1, max_size=3), max_size=4))
def test_a_tree_of_routes_finds_what_asking_one_by_one_does(conditions: list[Any], users: list[str]) -> None:
    """Whatever is asked, with one book of flags after another and the same principals again."""
    variants = {"a": 1, "b": 1}
    books = [book(f={"percent": 50, "variants": variants}, g={"percent": 50}), book(f={}, h={"variants": variants})]
    tree = router(*conditions)
    around = Surroundings(lambda: datetime(2026, 11, 22, tzinfo=UTC), lambda: 0.0)
    plain = [compile_when(When(**when), around) for when in conditions]
    for flags in (*books, *books):
        for user in users:
            asked = request(flags, principal(user))
            fits = (f"r{at}" for at, all_of in enumerate(plain) if all(each.holds(asked) for each in all_of))
            found = tree.match(asked)
            assert (found.name if found is not None else None) == next(fits, None)


def test_flags_and_routes_in_thousands_cost_a_request_what_a_few_do() -> None:
    """Once a principal was seen: every route asks for another flag, and the principal has every second one."""
    costs = []
    for number in (10, 3000):
        flags = {f"f{at}": {"percent": 100 * (at % 2)} for at in range(number)}
        few, tree = book(**flags), router(*({"flag": f"f{at}"} for at in range(number)))
        asked = request(few, principal("u1"))
        found = tree.match(asked)
        assert found is not None
        assert found.name == "r1"
        costs.append(bytecodes(lambda tree=tree, asked=asked: tree.match(asked)))  # type: ignore[misc]
    assert costs[0] == costs[1]


def test_what_is_remembered_of_principals_is_bounded() -> None:
    """Strangers come from many addresses."""
    flags, tree = book(x={"percent": 50}), router(*({"flag": "x", "host": f"h{at}"} for at in range(3)), {"flag": "x"})
    for number in range(9000):
        address = f"10.1.{number // 250}.{number % 250}"
        found = tree.match(request(flags, principal(), address=address))
        assert (found is not None) == (flags.variant_for("x", asker_of(principal(), address)) is not None)
