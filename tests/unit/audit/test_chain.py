"""Chains: the same rows give the same hashes, in whatever portions; anything else gives others."""

from __future__ import annotations

from hashlib import sha256

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.audit.chain import Chains, Head, Link, begin, link

#: Rows as (tenant, line, time).
ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.binary(max_size=8), st.integers(0, 10**6)), max_size=30)


def added(chains: Chains, rows: list[tuple[str, bytes, int]], cut: int) -> list[bytes]:
    """Hashes of rows, which come in two portions, each accepted."""
    found = []
    for portion in (rows[:cut], rows[cut:]):
        draft = chains.draft()
        found += [draft.add(*row) for row in portion]
        chains.accept(draft)
    return found


def test_a_chain_is_what_the_documentation_says() -> None:
    """SHA-256 of the hash before and the line; the first begins with its segment and tenant."""
    first = sha256(b"mcp-manager audit 1\nj/1\nacme").digest()
    assert begin("j/1", "acme") == first
    assert link(first, b"line") == sha256(first + b"line").digest()
    draft = Chains("j/1").draft()
    assert draft.add("acme", b"one", 5) == link(first, b"one")
    assert draft.at("acme") == Link(1, link(first, b"one"), 5, 5, None)


@given(ROWS, st.integers(0, 30), st.integers(0, 30))
def test_portions_make_no_difference(rows: list[tuple[str, bytes, int]], one: int, other: int) -> None:
    """Nor does a draft that was given up, nor a stop in between that keeps everything as JSON."""
    left, right = Chains("j/1"), Chains("j/1")
    right.draft().add("a", b"given up", 1)
    assert added(left, rows, one) == added(right, rows, other)
    kept = Chains.from_json("j/1", orjson.loads(orjson.dumps(left.to_json())))
    assert added(kept, rows, one) == added(right, rows, other)
    assert sorted(map(Head.text, kept.heads(final=True))) == sorted(map(Head.text, right.heads(final=True)))


@given(ROWS, ROWS)
def test_a_draft_may_follow_another(first: list[tuple[str, bytes, int]], second: list[tuple[str, bytes, int]]) -> None:
    """Before that one is accepted."""
    ahead, plain = Chains("j/1"), Chains("j/1")
    one = ahead.draft()
    expected = added(plain, [*first, *second], len(first))
    found = [one.add(*row) for row in first]
    two = ahead.draft(one)
    assert found + [two.add(*row) for row in second] == expected
    ahead.accept(one)
    ahead.accept(two)
    assert ahead.to_json() == plain.to_json()


def test_a_head_tells_the_rows_of_its_tenant_and_the_segment_before() -> None:
    """Tenants without rows have none, and keep the segment in which they had some."""
    chains = Chains("j/1")
    added(chains, [("a", b"1", 30), ("b", b"2", 10), ("a", b"3", 20)], 1)
    heads = {head.tenant: head for head in chains.heads(final=False)}
    assert (heads["a"].rows, heads["a"].first_us, heads["a"].last_us, heads["a"].previous) == (2, 20, 30, None)
    chains.next("j/2")
    assert list(chains.heads(final=True)) == []
    added(chains, [("b", b"4", 40)], 0)
    chains.next("j/3")
    added(chains, [("a", b"5", 50), ("b", b"6", 60)], 0)
    assert {head.tenant: head.previous for head in chains.heads(final=True)} == {"a": "j/1", "b": "j/2"}


@pytest.mark.parametrize("name", ["tenant", "segment", "rows", "is_final", "digest", "first_us", "last_us", "previous"])
def test_everything_that_a_head_says_is_signed(name: str) -> None:
    """Another value of any field is another text."""
    one = {"tenant": "a", "segment": "j/1", "rows": 1, "is_final": False, "digest": b"d", "first_us": 1, "last_us": 2}
    other = {"tenant": "b", "segment": "j/2", "rows": 2, "is_final": True, "digest": b"e", "first_us": 0, "last_us": 3}
    left = {**one, "previous": None}
    right = {**left, name: {**other, "previous": "j/0"}[name]}
    assert Head(**left).text() != Head(**right).text()  # type: ignore[arg-type]


@pytest.mark.parametrize("kept", [{"a": []}, {"a": [1, "zz", 1, 1, None]}, {"a": None}, {"a": ["x", "00", 1, 1, None]}])
def test_what_was_not_kept_by_us_is_refused(kept: dict[str, object]) -> None:
    """A checkpoint may be damaged."""
    with pytest.raises((ValueError, TypeError)):
        Chains.from_json("j/1", kept)
