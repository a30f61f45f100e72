"""Lists of legacy keys: the forms they come in, and that none is repeated."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.commands.legacy_keys import Line, read
from proxy.identity.keys import digest_of
from proxy.store.keys import LegacyKey

KEY = "planted-legacy-key-0001"
SCOPES = ("proxy", "read")


def kept(name: str, scopes: tuple[str, ...] = SCOPES, key: str = KEY) -> LegacyKey:
    """What is kept of a key."""
    return LegacyKey(name, digest_of(key), scopes)


@pytest.mark.parametrize(
    ("text", "number", "expected"),
    [
        (KEY, 1, kept("imported key 1")),
        (f"\n  # a comment\nci server\t{KEY}  \r\n", 3, kept("ci server")),
        (json.dumps([KEY]), 1, kept("imported key 1")),
        (json.dumps([{"key": KEY}]), 1, kept("imported key 1")),
        (json.dumps([{"name": "ci", "key": KEY, "scopes": ["read"], "more": 1}]), 1, kept("ci", ("read",))),
        (json.dumps([{"name": "ci", "key": KEY, "scopes": []}]), 1, kept("ci")),
        (json.dumps([{"name": "ci", "key": KEY, "scopes": ["all"]}]), 1, None),
        (json.dumps([{"name": "ci", "key": KEY, "scopes": "read"}]), 1, None),
        (json.dumps([{"name": "ci"}]), 1, None),
        (json.dumps([{"name": "\x1b", "key": KEY}]), 1, None),
        ("x" * 257, 1, None),
        ("ci pl\u00e4nted-legacy-key-0001", 1, None),
        (f"{KEY} ci", 1, None),
        ("ci mcpm_0123456789ab_planted", 1, None),
    ],
)
def test_a_list_is_read_in_every_form(text: str, number: int, expected: LegacyKey | None) -> None:
    """What cannot be a key is told, the others are read all the same."""
    [line] = read(text, SCOPES)
    assert (line.number, line.key) == (number, expected)
    assert bool(line.problem) is (expected is None)


def test_a_key_that_can_be_guessed_is_remarked_on() -> None:
    """It is imported: it is good already where it comes from."""
    [line] = read("ci secret1", SCOPES)
    assert line == Line(1, kept("ci", key="secret1"), line.problem)
    assert "guessed" in line.problem


@pytest.mark.parametrize("text", ["", "\n#\n", "{}", '{"key": "x"}', "[", "[" * 100_000, "[]"])
def test_what_is_no_list_is_refused(text: str) -> None:
    """With a sentence."""
    with pytest.raises(ValueError, match=r"^(there is|the file|the JSON)"):
        read(text, SCOPES)


def test_a_list_has_an_end() -> None:
    """Nobody has more keys than that."""
    with pytest.raises(ValueError, match="more than"):
        read("k\n" * 100_001, SCOPES)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "key", "scopes"]), inner),
)


@given(st.text(max_size=100) | JSON.map(json.dumps))
def test_whatever_is_given_is_read_or_refused(text: str) -> None:
    """Never a traceback, and no sentence repeats a word of it."""
    try:
        lines = read(text, SCOPES)
    except ValueError as error:
        assert str(error)
        return
    for line in lines:
        assert line.key is not None or line.problem
        assert line.key is None or (line.key.name.isprintable() and len(line.key.key_hash) == 32)
