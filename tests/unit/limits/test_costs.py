"""What messages cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.limits.costs import EXEMPT, FREE, ONE_EACH, RESPONSE, ByName, CostTable
from proxy.mcp.methods import METHODS, Access


def test_only_discovery_is_never_limited() -> None:
    """A refusal there would flip clients to an older protocol."""
    assert {"server/discover"} == EXEMPT


def test_what_keeps_a_session_going_is_free_and_nothing_else_is() -> None:
    """Notifications, answers, pings and the end of a session; the handshake costs, for it makes a session."""
    assert {"ping", "", "DELETE", "notifications/cancelled", "notifications/initialized"} <= FREE
    assert {"initialize", "logging/setLevel", "tools/call", "tools/list", "GET", "notifications/made-up"}.isdisjoint(
        FREE
    )
    assert all(METHODS[name].access is Access.SESSION for name in FREE - {"ping", "", "DELETE"})


@pytest.mark.parametrize(
    ("method", "tool", "price"),
    [
        ("tools/call", "github/search", 10),  # a name before any beginning of it
        ("tools/call", "github/search_code", 4),  # of several, the longest beginning
        ("tools/call", "github/sing", 3),
        ("tools/call", "github/other", 2),  # a tool without a price costs what the method does
        ("tools/call", "", 2),
        ("tasks/get", "", 0.5),
        ("prompts/get", "", 1.5),
        ("made/up", "", 1.5),
        ("GET", "", 7),
        ("initialize", "", 1.5),
        ("ping", "", 0),
        ("notifications/cancelled", "", 0),
        ("", "", 9),  # an answer
        ("DELETE", "", 0),
    ],
)
def test_a_tool_has_its_price_else_its_method_else_all(method: str, tool: str, price: float) -> None:
    """In this order; what is free is priced by name only."""
    costs = CostTable(
        1.5,
        {"tools/call": 2, "tasks/*": 0.5, "GET": 7, RESPONSE: 9},
        {"github/search": 10, "github/s*": 3, "github/search_*": 4},
    )
    for _ in range(2):
        assert costs.of(method, tool, tool) == price


def test_a_tool_is_found_by_its_alias_too() -> None:
    """A tenant calls its own server by its short name; the full one goes first."""
    costs = CostTable(1, {}, {"github/*": 5, "acme/github/pay": 8})
    assert costs.of("tools/call", "acme/github/search", "github/search") == 5
    assert costs.of("tools/call", "acme/github/pay", "github/pay") == 8
    assert costs.of("tools/call", "globex/github/search", "globex/github/search") == 1


def test_tables_with_the_same_prices_are_equal() -> None:
    """So that rules can be compared; a flat one has one price."""
    assert CostTable() == ONE_EACH
    assert hash(CostTable()) == hash(ONE_EACH)
    assert CostTable(1, {"a": 2}) == CostTable(1, {"a": 2}) != CostTable(1, {}, {"a": 2})
    assert (CostTable() == 1) is False
    assert ONE_EACH.flat and not CostTable(1, {"a": 2}).flat and not CostTable(1, {}, {"a/b": 2}).flat
    assert repr(CostTable(2.0, {"a": 1})) == "CostTable(2.0, {'a': 1}, {})"


def test_prices_can_be_cut() -> None:
    """So that a small bucket can be paid from at all."""
    costs = CostTable(2, {"a": 3}, {"b/c": 50})
    assert costs.dearest == 50
    assert costs.at_most(3) == CostTable(2, {"a": 3}, {"b/c": 3})
    assert costs.at_most(1).dearest == 1


def test_what_is_remembered_has_an_end() -> None:
    """Names come from clients; prices stay right when memory was full."""
    costs = CostTable(1, {}, {"s/t1*": 5})
    prices = [costs.of("tools/call", f"s/t{number}", "") for number in range(20_000)]
    assert prices == [5 if str(number).startswith("1") else 1 for number in range(20_000)]
    assert costs.of("tools/call", "s/t1" + "x" * 1_000_000, "") == 5
    assert len(costs._known) <= 8192
    assert max(len(tool) for _, tool, _ in costs._known) < 300


_NAMES = st.text("ab/", max_size=6)


@given(st.dictionaries(st.tuples(_NAMES, st.booleans()), st.integers(), max_size=12), _NAMES)
def test_names_are_found_as_by_looking_at_each(entries: dict[tuple[str, bool], int], name: str) -> None:
    """The name itself first, then beginnings from the longest on."""
    table = {f"{text}*" if begins else text: value for (text, begins), value in entries.items()}
    exact = [value for (text, begins), value in entries.items() if not begins and text == name]
    beginnings = [(len(text), value) for (text, begins), value in entries.items() if begins and name.startswith(text)]
    assert list(ByName(table).fitting(name)) == exact + [value for _, value in sorted(beginnings, reverse=True)]
    assert bool(ByName(table)) == bool(table)
