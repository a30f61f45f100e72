"""Where the parts of a JSON text stand: every byte read once, the same values as any parser."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.identity.json_spans import Cursor, Edit, edited

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def rebuilt(cursor: Cursor) -> Any:
    """The value that a walk finds, down to the last level."""
    if cursor.opens == "{":
        return {name: rebuilt(cursor) for name in cursor.members()}
    if cursor.opens == "[":
        return [rebuilt(cursor) for _ in cursor.items()]
    return cursor.value()


@given(JSON, st.sampled_from([None, 1]), st.sampled_from(["", " ", "\r\n\t"]), st.booleans())
def test_a_walk_finds_what_a_parser_finds(value: Any, indent: int | None, blanks: str, plain: bool) -> None:
    """With white space everywhere or nowhere."""
    text = blanks + json.dumps(value, indent=indent, ensure_ascii=plain) + blanks
    cursor = Cursor(text)
    assert rebuilt(cursor) == value
    cursor.end()


@example('{"a" 1}')
@example('{"a":1 "b":1}')
@example("[1 2]")
@example("[1 22]")
@example('{"a"x1}')
@example("{1:1}")
@example("[1,]")
@example('{"a":1,}')
@example("[,1]")
@example("[]]")
@given(st.text(st.sampled_from('{}[],:"a1 \\'), max_size=12))
def test_a_text_is_walked_exactly_if_it_is_json(text: str) -> None:
    """Anything else is a ValueError."""
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            walked(text)
        return
    assert walked(text) == expected


def walked(text: str) -> Any:
    """The value of the whole text."""
    cursor = Cursor(text)
    value = rebuilt(cursor)
    cursor.end()
    return value


def test_repeated_names_are_all_seen() -> None:
    """A dictionary would hide all but the last."""
    cursor = Cursor('{"a":1,"a":2}')
    assert [(name, cursor.value()) for name in cursor.members()] == [("a", 1), ("a", 2)]


def test_items_come_with_their_places() -> None:
    """So that they can be cut out as they stand."""
    text = '[ {"a" : 1} , 2]'
    cursor = Cursor(text)
    assert [text[at : (cursor.value(), cursor.at)[1]] for at in cursor.items()] == ['{"a" : 1}', "2"]


def test_a_deep_value_is_an_error_and_no_crash() -> None:
    """The scanner stops by itself."""
    with pytest.raises(ValueError, match="deep"):
        Cursor("[" * 100_000).value()


def test_edits_leave_the_rest_alone() -> None:
    """At the start, in the middle, at the end, and of nothing."""
    assert edited("abcdef", [Edit(0, 0, "<"), Edit(2, 4, "-"), Edit(6, 6, ">")]) == "<ab-ef>"
    assert edited("abc", []) == "abc"
