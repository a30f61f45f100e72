"""Identities of records: their bits are those of RFC 9562, and they only grow."""

from __future__ import annotations

import os
from uuid import RFC_4122, UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from proxy.identity.uuid7 import RecordIds, made_ms


def test_the_bits_are_those_of_the_standard() -> None:
    """The example of RFC 9562 appendix A.6: 2022-02-22 14:22:22 -05:00; the counter's first bit is 0 here."""
    ids = RecordIds(lambda: 1645557742.0, lambda count: bytes.fromhex("331858C4DC0C0C07398F")[:count])
    made = ids.new()
    assert made.hex.startswith("017f22e279b07")
    assert (made.version, made.variant) == (7, RFC_4122)
    assert made.int & ((1 << 62) - 1) == 0x18C4DC0C0C07398F


@given(st.lists(st.floats(0, 4e9), min_size=2, max_size=200))
def test_they_only_grow(times: list[float]) -> None:
    """Whatever the clock does."""
    moments = iter(times)
    ids = RecordIds(lambda: next(moments), os.urandom)
    made = [ids.new() for _ in times]
    assert made == sorted(made)
    assert len(set(made)) == len(times)
    assert all(each.version == 7 and each.variant == RFC_4122 for each in made)


def test_many_of_one_millisecond_keep_their_order() -> None:
    """When the counter is used up, the time goes ahead of the clock by a millisecond."""
    ids = RecordIds(lambda: 1_700_000_000.0, lambda count: b"\xff" * count)
    made = [ids.new() for _ in range(5000)]
    assert made == sorted(made)
    assert (made[-1].int >> 80) - (made[0].int >> 80) == 1


@given(st.lists(st.floats(0, 4e9), min_size=2, max_size=300))
def test_as_text_they_are_the_same_kind(times: list[float]) -> None:
    """Made faster, with the bits of the standard, and in order with the others."""
    moments = iter(times)
    ids = RecordIds(lambda: next(moments), os.urandom)
    made = [UUID(ids.text()) if number % 3 else ids.new() for number in range(len(times))]
    assert made == sorted(made)
    assert len(set(made)) == len(times)
    assert all(each.version == 7 and each.variant == RFC_4122 for each in made)


@given(st.integers(0, (1 << 42) - 1), st.lists(st.integers(0, 200_000), max_size=5))
def test_as_text_they_say_when_they_were_made(begin_ms: int, steps_ms: list[int]) -> None:
    """To the millisecond, also over the bounds at which their beginning is put into words anew."""
    now_ms = begin_ms
    ids = RecordIds(lambda: (now_ms + 0.5) / 1e3, os.urandom)
    for step_ms in (0, *steps_ms):
        now_ms += step_ms
        assert made_ms(UUID(ids.text())) == now_ms


def test_as_text_those_of_two_makers_differ_at_all_times() -> None:
    """Both make theirs in the same milliseconds with the same counter; each draws its random end again and again."""
    now, draws = 0.0, iter(range(1000))
    makers = [RecordIds(lambda: now, lambda count: (next(draws) << 40).to_bytes(count)) for _ in range(2)]
    pairs = []
    for minute in range(10):
        now = 1.8e9 + 70 * minute
        pairs.append([maker.text() for maker in makers])
    assert {mine[:18] == other[:18] for mine, other in pairs} == {True}
    assert len({text[19:] for pair in pairs for text in pair}) == 20


def test_an_identity_says_when_it_was_made_and_others_do_not() -> None:
    """To the millisecond."""
    assert made_ms(RecordIds(lambda: 1_800_000_000.123, os.urandom).new()) == 1_800_000_000_123
    assert made_ms(uuid4()) is None
