"""Globs: what they match, and that the table finds what a walk over all keys would find."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane.globs import Anchor, Glob, GlobTable, Key, keys_decide, keys_of

TEXTS = st.text("ab_/", max_size=7)
PATTERNS = st.text("ab_*", min_size=1, max_size=6)
KEYS = st.builds(Key, st.sampled_from(Anchor), st.text("ab_/", max_size=4))


def fits(text: str, key: Key) -> bool:
    if key.anchor is Anchor.WHOLE:
        return text == key.text
    return text.startswith(key.text) if key.anchor is Anchor.HEAD else text.endswith(key.text)


def as_regex(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)


@given(PATTERNS, TEXTS)
def test_a_glob_matches_what_the_same_regular_expression_matches(pattern: str, text: str) -> None:
    """Only `*` is special, and it stands for any characters, also none."""
    assert Glob(pattern).matches(text) == (as_regex(pattern).fullmatch(text) is not None)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("search_*", "search_", True),
        ("search_*", "Search_x", False),
        ("a*a", "a", False),
        ("[ab]?", "[ab]?", True),
        ("[ab]", "a", False),
        ("*", "", True),
        ("*", "line\nbreak", True),
        ("é*", "e\u0301x", False),
    ],
)
def test_what_a_pattern_means(pattern: str, text: str, expected: bool) -> None:
    """Case and code points are compared as they are, and an end is never used twice."""
    assert Glob(pattern).matches(text) is expected


@pytest.mark.timeout(10)
def test_no_pattern_backtracks() -> None:
    """A pattern that takes a backtracking matcher longer than the universe is old is answered at once."""
    assert not Glob("a*" * 100 + "b").matches("a" * 100_000)


@given(st.lists(PATTERNS, min_size=1, max_size=4), TEXTS)
def test_a_text_that_fits_a_glob_has_exactly_one_of_its_keys(patterns: list[str], text: str) -> None:
    """Nothing is missed, nothing is met twice, and keys that decide have no false alarm."""
    globs = [Glob(pattern) for pattern in patterns]
    keys = keys_of(globs)
    matched = any(glob.matches(text) for glob in globs)
    having = [key for key in keys if fits(text, key)]
    assert len(having) <= 1
    if keys:
        assert having or not matched
        if keys_decide(globs):
            assert matched == bool(having)


@pytest.mark.parametrize(
    ("patterns", "keys"),
    [
        (["search"], {Key(Anchor.WHOLE, "search")}),
        (["sea*", "search", "search_*", "read"], {Key(Anchor.HEAD, "sea"), Key(Anchor.WHOLE, "read")}),
        (["*_delete", "drop"], {Key(Anchor.TAIL, "_delete"), Key(Anchor.WHOLE, "drop")}),
        (["a*z"], {Key(Anchor.HEAD, "a")}),
        (["a*", "*z"], set()),
        (["*mid*"], set()),
        (["*mid*", "*"], {Key(Anchor.HEAD, "")}),
    ],
)
def test_the_keys_of_patterns(patterns: list[str], keys: set[Key]) -> None:
    """Heads if all have one, else tails, else nothing; a key under a wider one is dropped."""
    assert set(keys_of([Glob(pattern) for pattern in patterns])) == keys


@given(st.dictionaries(KEYS, st.integers(), max_size=12), TEXTS)
def test_the_table_finds_what_a_walk_over_all_keys_finds(values: dict[Key, int], text: str) -> None:
    """Whatever the prefixes end in, and however long and deep they are."""
    expected = [value for key, value in values.items() if fits(text, key)]
    assert sorted(GlobTable(values).lookup(text)) == sorted(expected)


def test_ten_thousand_patterns_of_one_list_are_read_at_once() -> None:
    """Dropping the keys under wider ones does not compare each with each."""
    globs = [Glob(f"tool_{number}_*") for number in range(10_000)] + [Glob("tool_7*")]
    kept = {key.text for key in keys_of(globs)}
    assert kept == {"tool_7"} | {f"tool_{number}_" for number in range(10_000) if not str(number).startswith("7")}
