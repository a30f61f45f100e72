"""Patterns: a name or the beginning of one; nobody widens a key by what some other matcher takes for a wildcard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.identity.patterns import EVERYTHING, Names, is_pattern, read_grants


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("search", "search", True),
        ("search", "search_all", False),
        ("search", "Search", False),
        ("search_*", "search_all", True),
        ("search_*", "search_", True),
        ("search_*", "research_all", False),
        ("*", "anything", True),
        ("*", "", True),
        ("a", "a*", False),
        ("a", "%", False),
        ("repo/*", "repo/../secret", True),
    ],
)
def test_a_pattern_is_a_name_or_a_beginning(pattern: str, name: str, fits: bool) -> None:
    """A name in a request is text, whatever characters it has."""
    assert (name in Names([pattern])) is fits


@pytest.mark.parametrize(
    "pattern", ["", "a*b", "**", "a**", "*a", "%", "a%", "../", "a/../*", "a\\b", "a b", "a\0", "x" * 513]
)
def test_a_pattern_with_another_wildcard_fits_nothing(pattern: str) -> None:
    """Not even the same text: it was meant as something that it is not."""
    assert not is_pattern(pattern)
    assert pattern not in Names([pattern])
    assert "a" not in Names([pattern])


@given(st.lists(st.text(max_size=8), max_size=6), st.text(max_size=8))
def test_a_set_holds_what_one_of_its_patterns_says(patterns: list[str], name: str) -> None:
    """The set agrees with the rule, pattern by pattern."""
    expected = any(
        is_pattern(pattern) and (name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern)
        for pattern in patterns
    )
    assert (name in Names(patterns)) is expected


def test_sets_of_the_same_patterns_are_equal() -> None:
    """In any order; so principals can be compared."""
    assert Names(["a", "b*"]) == Names(["b*", "a", "a"])
    assert hash(Names(["a", "b*"])) == hash(Names(["b*", "a"]))
    assert Names(["a"]) != Names(["a*"])
    assert Names(["a"]) != "a"
    assert repr(Names(["b*", "a"])) == "Names(['a', 'b*'])"


def test_no_columns_limit_nothing() -> None:
    """Empty means no limit."""
    assert read_grants((), []) is EVERYTHING
    assert EVERYTHING.tool("any", "any")
    assert EVERYTHING.server("any")


def test_servers_and_tools_limit_each_for_itself() -> None:
    """Both columns must fit."""
    grants = read_grants(["github"], ["search_*"])
    assert grants.server("github")
    assert not grants.server("gitlab")
    assert grants.tool("github", "search_all")
    assert not grants.tool("github", "delete")
    assert not grants.tool("gitlab", "search_all")


def test_columns_of_unreadable_patterns_permit_nothing() -> None:
    """A typing error never opens a key."""
    assert not read_grants(["a*b"], ()).server("a*b")
    assert not read_grants((), ["%"]).tool("a", "%")
