"""An item of a list says what it says, within bounds, and never what PostgreSQL could not hold."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane.offers import KEYS, MAX_KEY_BYTES, Hints, key_of, offer_of

DEEP: Any = []
for _ in range(300):
    DEEP = [DEEP]


def test_a_tool_with_everything() -> None:
    """Schemas and annotations are kept as text."""
    item = {
        "name": "rm", "title": "Remove", "description": "Removes.", "inputSchema": {"type": "object"},
        "outputSchema": {"type": "null"}, "annotations": {"title": "Not this", "destructiveHint": True},
    }  # fmt: skip
    offer = offer_of("tool", "rm", item)
    assert offer[:3] == ("Remove", "Removes.", Hints(destructive=True))
    assert offer.columns == {
        "name": "rm", "title": "Remove", "description": "Removes.", "input_schema": '{"type":"object"}',
        "output_schema": '{"type":"null"}', "annotations": '{"title":"Not this","destructiveHint":true}',
    }  # fmt: skip


def test_hints_are_what_the_server_says() -> None:
    """True, False or nothing; the older place of the title counts where there is no other."""
    annotations = {"readOnlyHint": True, "idempotentHint": False, "openWorldHint": "yes", "title": "Old"}
    offer = offer_of("tool", "x", {"annotations": annotations})
    assert (offer.hints, offer.title) == (Hints(True, None, False, None), "Old")
    assert offer.hints is offer_of("tool", "y", {"annotations": annotations}).hints


@pytest.mark.parametrize("kind", ["resource", "template"])
def test_a_resource_or_template(kind: str) -> None:
    """Named by its URI."""
    item = {"name": "n", "title": "T", "description": "D", "mimeType": "text/plain", "size": 7}
    assert offer_of(kind, "a://1", item).columns == {
        "uri_template": "a://1", "is_template": kind == "template", "name": "n", "title": "T", "description": "D",
        "mime_type": "text/plain", "size_bytes": 7,
    }  # fmt: skip
    bare = offer_of(kind, "a://1", {"size": True}).columns
    assert (bare["name"], bare["size_bytes"], bare["mime_type"]) == ("a://1", None, None)


def test_a_prompt() -> None:
    """Its arguments are a list, also when it has none."""
    assert offer_of("prompt", "p", {"arguments": [{"name": "x"}]}).columns["arguments"] == '[{"name":"x"}]'
    for arguments in (None, {"x": 1}, "x", ["\0"], DEEP):
        assert offer_of("prompt", "p", {"arguments": arguments}).columns["arguments"] == "[]"


@pytest.mark.parametrize("name", [None, 7, "", "a\0b", "x" * (MAX_KEY_BYTES + 1), "€" * (MAX_KEY_BYTES // 3 + 1)])
def test_an_item_without_a_usable_name_is_none(name: object) -> None:
    """A name is never cut: the rest would be another one."""
    for kind, member in KEYS.items():
        assert key_of(kind, {member: name}) is None
        assert key_of(kind, name) is None


@pytest.mark.parametrize("name", ["x", "€", "x" * MAX_KEY_BYTES, "€" * (MAX_KEY_BYTES // 3)])
def test_a_name_within_bounds(name: str) -> None:
    """As it is."""
    for kind, member in KEYS.items():
        assert key_of(kind, {member: name}) == name


def test_long_texts_are_cut_and_large_json_is_left_out() -> None:
    """What is kept in memory is shorter still."""
    large = {"x": "y" * 70_000}
    item = {"title": "t" * 999, "description": "d" * 99_999, "inputSchema": large, "annotations": large}
    offer = offer_of("tool", "x", item)
    assert (len(offer.title), len(offer.description)) == (256, 512)
    columns = offer.columns
    assert (len(str(columns["title"])), len(str(columns["description"]))) == (256, 16_384)
    assert (columns["input_schema"], columns["annotations"]) == (None, "{}")
    assert offer_of("tool", "x", {"inputSchema": DEEP}).columns["input_schema"] is None


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = ["name", "title", "description", "uri", "mimeType", "size", "annotations", "inputSchema", "arguments"]


@given(st.sampled_from(sorted(KEYS)), st.dictionaries(st.sampled_from(MEMBERS), JSON))
def test_an_item_may_hold_anything(kind: str, item: dict[str, Any]) -> None:
    """Every row can be written: no NUL, JSON is JSON, what must not be null is not."""
    columns = offer_of(kind, "key", item).columns
    for name, value in columns.items():
        assert value is None or isinstance(value, str | int)
        if isinstance(value, str):
            assert "\0" not in value
            value.encode()
            if name in ("input_schema", "output_schema", "annotations", "arguments"):
                assert "\\u0000" not in value
                orjson.loads(value)
    assert all(columns.get(name, "") is not None for name in ("name", "annotations", "arguments", "is_template"))
    assert 0 <= (columns.get("size_bytes") or 0) < 2**63  # type: ignore[operator]
