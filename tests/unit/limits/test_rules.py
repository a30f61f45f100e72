"""Which buckets a request takes tokens from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.identity.principal import Principal, Source, anonymous
from proxy.limits.costs import CostTable
from proxy.limits.rules import OWN, Asked, Level, Rule, RuleBook, who
from tests.bytecodes import bytecodes

ADA = Principal("key:first", "t1", "acme", "ada", "user", frozenset(), Source.KEY, key_id="rotated")
BOB = Principal("key:bob", "t2", "globex", "bob", "admin", frozenset(), Source.KEY, key_id="bob")
EVE = Principal("user:eve", "t1", "acme", "eve", "user", frozenset(), Source.SESSION, key_id="session-1")
NOBODY = anonymous()


def rule(name: str, level: Level, subject: str = "", **more: Any) -> Rule:
    """A rule of ten tokens, one a second."""
    return Rule(name, name, level, 10.0, 1.0, subject, **more)


def asked(principal: Principal = ADA, **more: str) -> Asked:
    """A call of github/search."""
    return Asked(
        principal,
        more.get("client_ip", "192.0.2.7"),
        more.get("server", "github"),
        more.get("tool", "search"),
        more.get("method", "tools/call"),
    )


def met(book: RuleBook, request: Asked) -> list[tuple[str, str, float]]:
    """Rule, subject and cost of each demand; twice, so that what is remembered is asked, too."""
    first = book.for_request(request)
    assert book.for_request(request) == first
    return [(demand.rule.id, demand.subject, demand.cost) for demand in first]


EACH: dict[Level, tuple[Asked, str]] = {
    "global": (asked(), ""),
    "tenant": (asked(), "t1"),
    "tier": (asked(), "key:first"),
    "key": (asked(), "key:first"),
    "server": (asked(), "github"),
    "tool": (asked(), "github/search"),
    "client_address": (asked(), "192.0.2.7"),
}


@pytest.mark.parametrize("level", EACH)
def test_each_has_a_bucket_of_its_own(level: Level) -> None:
    """Where no subject is named."""
    request, subject = EACH[level]
    assert met(RuleBook.of([rule("r", level)]), request) == [("r", subject, 1.0)]


@pytest.mark.parametrize(
    ("level", "request_"),
    [
        ("tenant", asked(NOBODY)),
        ("key", asked(NOBODY)),
        ("server", asked(server="", tool="")),
        ("tool", asked(tool="", method="tools/list")),
    ],
)
def test_who_has_none_is_not_limited_by_it(level: Level, request_: Asked) -> None:
    """No tenant, no credential, no server, no tool."""
    assert met(RuleBook.of([rule("r", level)]), request_) == []


@pytest.mark.parametrize(
    ("level", "subject", "fits", "misses"),
    [
        ("tenant", "acme", asked(), asked(BOB)),
        ("tenant", "t1", asked(EVE), asked(NOBODY)),
        ("tenant", "ac*", asked(), asked(BOB)),
        ("key", "rotated", asked(), asked(BOB)),
        ("key", "key:first", asked(), asked(EVE)),
        ("key", "user:eve", asked(EVE), asked()),
        ("server", "github", asked(), asked(server="github2")),
        ("server", "git*", asked(server="github2"), asked(server="gi")),
        ("tool", "github/search", asked(), asked(tool="search2")),
        ("tool", "github/s*", asked(tool="search2"), asked(server="hub", tool="github/s")),
        ("tool", "*", asked(tool="x"), asked(tool="", method="tools/list")),
        ("client_address", "192.0.2.7", asked(), asked(client_ip="192.0.2.8")),
        ("client_address", "192.0.2.0/24", asked(client_ip="::ffff:192.0.2.9"), asked(client_ip="192.0.3.1")),
        ("client_address", "2001:db8::/32", asked(client_ip="2001:db8:1::1"), asked(client_ip="")),
    ],
)
def test_a_subject_narrows_a_rule_to_one_bucket(level: Level, subject: str, fits: Asked, misses: Asked) -> None:
    """Which carries the name of the subject."""
    book = RuleBook.of([rule("r", level, subject)])
    assert met(book, fits) == [("r", subject, 1.0)]
    assert met(book, misses) == []


def test_a_tier_has_a_bucket_for_each_of_its_clients() -> None:
    """The principal, whatever its credential; of the anonymous, who are all the same principal, the address."""
    book = RuleBook.of([rule("u", "tier", "user"), rule("a", "tier", "anonymous"), rule("all", "tier")])
    assert met(book, asked(ADA)) == [("u", "key:first", 1), ("all", "key:first", 1)]
    assert met(book, asked(BOB)) == [("all", "key:bob", 1)]
    assert met(book, asked(NOBODY)) == [("a", "192.0.2.7", 1), ("all", "192.0.2.7", 1)]
    assert met(book, asked(NOBODY, client_ip="2001:db8:0:1::5"))[0] == ("a", "2001:db8:0:1::/64", 1)
    assert met(book, asked(NOBODY, client_ip=""))[0] == ("a", "unknown", 1)
    assert who(EVE, "192.0.2.7") == "user:eve"


def test_wide_addresses_count_by_network() -> None:
    """One customer has a /64 at least; a narrow address in wide clothes is a narrow one."""
    book = RuleBook.of([rule("r", "client_address")])
    assert met(book, asked(client_ip="2001:db8::1")) == met(book, asked(client_ip="2001:db8::ffff:1"))
    assert met(book, asked(client_ip="::ffff:192.0.2.7")) == [("r", "192.0.2.7", 1)]


def test_all_rules_that_fit_apply() -> None:
    """Level by level; none hides another."""
    levels = [rule(level, level) for level in reversed(EACH)]
    more = [rule("one", "tool", "github/search"), rule("some", "tool", "github/*")]
    found = [name for name, _, _ in met(RuleBook.of(levels + more), asked())]
    assert found == ["global", "tenant", "tier", "key", "server", "tool", "one", "some", "client_address"]


def test_rules_of_a_tenant_concern_its_clients_only() -> None:
    """Also those without a subject, and also where another tenant has rules of its own."""
    book = RuleBook.of([rule(f"{level}-{tenant}", level, tenant=tenant) for tenant in ("t1", "t2") for level in EACH])
    assert {name for name, _, _ in met(book, asked(ADA))} == {f"{level}-t1" for level in EACH}
    assert {name for name, _, _ in met(book, asked(BOB))} == {f"{level}-t2" for level in EACH}
    assert met(book, asked(NOBODY)) == []


def test_a_tenant_calls_its_servers_by_their_own_names() -> None:
    """Where others would write `acme/github`; a rule for all that names `github` means the shared one."""
    own = asked(server="acme/github")
    names = {"s": ("server", "github"), "t": ("tool", "github/*"), "full": ("tool", "acme/github/search")}
    rules = [rule(name, *what) for name, what in names.items()]  # type: ignore[arg-type]
    assert met(RuleBook.of(rules), own) == [("full", "acme/github/search", 1)]
    assert {name for name, _, _ in met(RuleBook.of([replace(one, tenant="t1") for one in rules]), own)} == {*names}
    shared = met(RuleBook.of([replace(one, tenant="t1") for one in rules]), asked())
    assert {name for name, _, _ in shared} == {"s", "t"}
    assert met(RuleBook.of([rule("each", "tool", tenant="t1")]), own) == [("each", "acme/github/search", 1)]
    both = [rule("r", "server", "*", tenant="t1")]
    assert met(RuleBook.of(both), own) == [("r", "*", 1)]


def test_limits_of_a_key_replace_the_rules_of_its_tier() -> None:
    """And no others. Per minute; a burst of its own, or a minute's worth."""
    book = RuleBook.of([rule("all", "global"), rule("u", "tier", "user", on_store_error="deny"), rule("e", "tier")])
    fast = replace(ADA, requests_per_minute=120, burst=7)
    (everyone, _, _), (own, subject, cost) = met(book, asked(fast))
    assert (everyone, own, subject, cost) == ("all", OWN, "key:first", 1)
    found = book.for_request(asked(fast))[1].rule
    assert (found.capacity, found.refill_per_s, found.on_store_error, found.enforce) == (7, 2.0, "deny", True)
    assert book.for_request(asked(replace(ADA, requests_per_minute=120)))[1].rule.capacity == 120
    hasty = book.for_request(asked(replace(ADA, burst=3)))[1].rule
    assert (hasty.capacity, hasty.refill_per_s) == (3, 1.0)


def test_limits_of_a_key_hold_without_rules() -> None:
    """They are the operator's word, too; a burst of no rate is none."""
    book = RuleBook.of([])
    found = book.for_request(asked(replace(ADA, requests_per_minute=30)))
    assert [(demand.rule.capacity, demand.rule.refill_per_s) for demand in found] == [(30, 0.5)]
    assert book.for_request(asked(replace(ADA, burst=5))) == []
    assert book.for_request(asked()) == []


def test_limits_of_a_key_keep_the_prices_of_its_tier() -> None:
    """Cut to its burst: what a small bucket never holds could never be paid."""
    book = RuleBook.of([rule("u", "tier", "user", costs=CostTable(1, {}, {"github/search": 8, "github/x": 2}))])
    slow = replace(ADA, requests_per_minute=60, burst=5)
    assert met(book, asked(slow)) == [(OWN, "key:first", 5)]
    assert met(book, asked(slow, tool="x")) == [(OWN, "key:first", 2)]
    assert met(book, asked(slow, tool="y")) == [(OWN, "key:first", 1)]


def test_a_price_is_that_of_the_rule() -> None:
    """Rules without prices take their default for all that is not free."""
    dear = rule("dear", "global", costs=CostTable(0, {"tools/list": 3, "ping": 2}, {"github/*": 5}))
    book = RuleBook.of([dear, rule("flat", "key", costs=CostTable(2.5)), rule("plain", "tool")])
    assert met(book, asked()) == [("dear", "", 5), ("flat", "key:first", 2.5), ("plain", "github/search", 1)]
    assert met(book, asked(tool="", method="tools/list")) == [("dear", "", 3), ("flat", "key:first", 2.5)]
    assert met(book, asked(tool="", method="prompts/list")) == [("flat", "key:first", 2.5)]
    assert met(book, asked(tool="", method="ping")) == [("dear", "", 2)]
    assert met(book, asked(tool="", method="notifications/progress")) == []


def test_a_tenants_rule_prices_its_servers_by_their_own_names() -> None:
    """As its subjects do."""
    book = RuleBook.of([rule("r", "key", costs=CostTable(1, {}, {"github/search": 4}), tenant="t1")])
    assert met(book, asked(server="acme/github")) == [("r", "key:first", 4)]
    assert met(book, asked(server="github")) == [("r", "key:first", 4)]


@pytest.mark.parametrize("method", ["server/discover", "ping", "", "notifications/initialized", "DELETE"])
def test_what_is_free_meets_no_rule(method: str) -> None:
    """Not even the counter of all requests."""
    assert met(RuleBook.of([rule("all", "global")]), asked(tool="", method=method)) == []


def test_discovery_is_free_whatever_a_rule_says() -> None:
    """It cannot be priced."""
    book = RuleBook.of([rule("all", "global", costs=CostTable(1, {"server/discover": 9, "server/*": 9}))])
    assert met(book, asked(tool="", method="server/discover")) == []


def test_the_opening_of_a_stream_and_the_handshake_cost() -> None:
    """GET stands for a stream."""
    book = RuleBook.of([rule("all", "global")])
    for method in ("GET", "initialize", "made/up"):
        assert met(book, asked(tool="", method=method)) == [("all", "", 1)]


def test_a_batch_takes_the_sum() -> None:
    """Each bucket once."""
    book = RuleBook.of([rule("all", "global"), rule("t", "tool", costs=CostTable(1, {}, {"github/pay": 4}))])
    batch = [asked(), asked(), asked(tool="pay"), asked(tool="", method="ping"), asked(tool="", method="tools/list")]
    found = [(demand.rule.id, demand.subject, demand.cost) for demand in book.for_batch(batch)]
    assert found == [("all", "", 4), ("t", "github/search", 2), ("t", "github/pay", 4)]


def test_names_from_clients_fill_no_memory() -> None:
    """What is remembered has an end, and a long name is neither kept nor shown as it is."""
    book = RuleBook.of([rule("t", "tool"), rule("p", "tool", "github/x*"), rule("a", "client_address")])
    for number in range(20_000):
        book.for_request(asked(tool=f"t{number}", client_ip=f"2001:db8:{number:x}::1"))
    level = book._shared._tool
    assert level is not None and len(level._known) <= 8192
    long, other = ("x" * 1_000_000 + end for end in "ab")
    first, second = (book.for_request(asked(tool=name)) for name in (long, other))
    assert [demand.rule.id for demand in first] == ["t", "p", "a"]
    assert len(first[0].subject) < 120 and first[0].subject != second[0].subject
    assert all(len(name) < 500 for name, _ in level._known)
    assert book.for_request(asked(tool="\ud800" * 200))[0].subject


def test_an_address_that_is_none_is_an_error_of_whoever_made_the_rule() -> None:
    """Subjects of rules are checked before they become rules."""
    with pytest.raises(ValueError, match="network"):
        RuleBook.of([rule("r", "client_address", "10.0.0.0/33")])


def _principal(number: int) -> Principal:
    return replace(ADA, id=f"key:k{number}", key_id=f"k{number}", tenant=f"id{number}", tenant_slug=f"t{number}")


SHAPES: dict[str, tuple[Callable[[int], Rule], Callable[[int], Asked]]] = {
    "tenants": (lambda n: rule(f"r{n}", "tenant", f"t{n}"), lambda n: asked(_principal(n))),
    "keys": (lambda n: rule(f"r{n}", "key", f"k{n}"), lambda n: asked(_principal(n))),
    "servers": (lambda n: rule(f"r{n}", "server", f"s{n}"), lambda n: asked(server=f"s{n}")),
    "tools": (lambda n: rule(f"r{n}", "tool", f"s/t{n}"), lambda n: asked(server="s", tool=f"t{n}")),
    "beginnings of tools": (
        lambda n: rule(f"r{n}", "tool", f"s/t{n:05}_*"),
        lambda n: asked(server="s", tool=f"t{n:05}_x"),
    ),
    "addresses": (
        lambda n: rule(f"r{n}", "client_address", f"10.{n // 256}.{n % 256}.0/24"),
        lambda n: asked(client_ip=f"10.{n // 256}.{n % 256}.9"),
    ),
    "rules of tenants": (lambda n: rule(f"r{n}", "tool", tenant=f"id{n}"), lambda n: asked(_principal(n))),
    "prices": (
        lambda n: rule(f"r{n}", "server", f"s{n}", costs=CostTable(1, {}, {f"s{n}/t*": 3})),
        lambda n: asked(server=f"s{n}", tool="tx"),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("remembers", [True, False])
def test_ten_thousand_rules_cost_what_ten_do(shape: str, remembers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each way to tell them apart, whether a name was seen before or not."""
    if not remembers:
        monkeypatch.setattr("proxy.limits.rules._remember", lambda known, key, found: found)
    made, of = SHAPES[shape]
    few, many = (RuleBook.of([rule("all", "global"), *map(made, range(size))]) for size in (10, 10_000))
    numbers = [0, 5, 9, 777, 9999]
    assert all([demand.rule.id for demand in many.for_request(of(n))] == ["all", f"r{n}"] for n in numbers)
    limit = 1.05 * max(bytecodes(partial(few.for_request, of(n))) for n in (0, 5, 9, 50_000))
    assert all(bytecodes(partial(many.for_request, of(n))) <= limit for n in (*numbers, 50_000))


def test_ten_thousand_prices_cost_what_ten_do() -> None:
    """In one rule."""
    few, many = (
        RuleBook.of([rule("all", "global", costs=CostTable(1, {}, {f"github/t{n}": 2 for n in range(size)}))])
        for size in (10, 10_000)
    )
    assert bytecodes(partial(many.for_request, asked(tool="t7"))) == bytecodes(
        partial(few.for_request, asked(tool="t7"))
    )


_SUBJECTS = st.sampled_from(["", "a", "b", "a*", "ab*", "*", "a/b", "a/*", "a/b*"])


@given(
    st.lists(st.tuples(st.sampled_from(["server", "tool"]), _SUBJECTS), max_size=12),
    st.text("ab", min_size=1, max_size=2),
)
def test_what_fits_is_found_as_by_looking_at_each(shapes: list[tuple[Level, str]], name: str) -> None:
    """Against the plain reading of a subject."""
    rules = [rule(f"r{number}", *shape) for number, shape in enumerate(shapes)]
    request = asked(server=name, tool="b")

    def fits(one: Rule) -> bool:
        text = name if one.level == "server" else f"{name}/b"
        plain = one.subject
        return not plain or text == plain or (plain.endswith("*") and text.startswith(plain[:-1]))

    expected = {
        (one.id, one.subject or (name if one.level == "server" else f"{name}/b"), 1.0) for one in rules if fits(one)
    }
    assert {*met(RuleBook.of(rules), request)} == expected
