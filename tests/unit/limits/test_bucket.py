"""The bucket by itself: never above its capacity, never negative, and more of it the later it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.limits.bucket import LONGEST_WAIT_S, Ask, Bucket, Buckets, Fair

START_S = 1_000_000.0
amounts = st.floats(0.0, 1e6)
rates = st.floats(0.0, 1e4)
asks = st.builds(
    Ask, st.just(b"k"), st.floats(0.5, 1e6), rates, st.floats(0.01, 100.0),
    st.sampled_from((0.0, 1.0, 60.0)), st.floats(1.0, 1000.0), st.just(True),
)  # fmt: skip
steps = st.lists(st.floats(-100.0, 100.0) | st.just(-86_400.0) | st.just(86_400.0), max_size=30)


@given(asks, steps)
def test_it_is_never_above_its_capacity_and_never_negative(ask: Ask, times: list[float]) -> None:
    """Whatever the clock does. What is taken in all is what was there, and what came back in the time that passed."""
    buckets, now, passed = Buckets(10), START_S, 0.0
    taken = 0.0
    for step in times:
        now += step
        passed += max(0.0, step)
        outcome = buckets.take([ask], None, now)
        taken += ask.cost * outcome.allowed
        assert 0 <= outcome.remaining[0] <= ask.capacity
        assert taken <= (ask.capacity + passed * ask.refill_per_s) * (1 + 1e-9)
        assert (outcome.waits[0] == 0) == outcome.allowed


@given(st.floats(0.0, 100.0), asks, st.floats(0.0, 1000.0), st.floats(0.0, 1000.0))
def test_later_it_holds_no_less(tokens: float, ask: Ask, sooner: float, more: float) -> None:
    """Monotone in time."""
    bucket = Bucket(tokens, START_S)
    assert bucket.brought_to(START_S + sooner, ask).tokens <= bucket.brought_to(START_S + sooner + more, ask).tokens


@given(asks, st.lists(st.floats(0.0, 3.0), max_size=20))
def test_after_the_wait_that_was_told_it_lets_pass(ask: Ask, gaps: list[float]) -> None:
    """And a little before it does not: retrying after it is neither in vain nor late."""
    buckets, now = Buckets(10), START_S
    for gap in gaps:
        now += gap
        buckets.take([ask], None, now)
    wait_s = buckets.take([ask], None, now).waits[0]
    if 0.01 < wait_s < LONGEST_WAIT_S:
        early = buckets.take([ask._replace(cost=ask.cost)], None, now + wait_s * 0.99)
        assert not early.allowed
        assert buckets.take([ask], None, now + wait_s * 1.01).allowed


def test_a_refusal_drains_nothing() -> None:
    """Of the rules that would have let it pass nothing is taken either."""
    wide, narrow = Ask(b"wide", 10.0, 0.0, 1.0), Ask(b"narrow", 1.0, 0.0, 1.0)
    buckets = Buckets(10)
    assert [buckets.take([wide, narrow], None, START_S).allowed for _ in range(3)] == [True, False, False]
    assert buckets.take([wide], None, START_S).remaining == (8.0,)


def test_a_shadow_rule_never_refuses_and_is_taken_from_while_it_lasts() -> None:
    """Others go on; it says when it would have let pass."""
    shadow, other = Ask(b"s", 1.0, 0.5, 1.0, enforce=False), Ask(b"o", 10.0, 0.0, 1.0)
    buckets = Buckets(10)
    assert buckets.take([shadow, other], None, START_S).waits == (0.0, 0.0)
    outcome = buckets.take([shadow, other], None, START_S)
    assert outcome.allowed
    assert outcome.waits == (2.0, 0.0)
    assert outcome.remaining == (0.0, 8.0)


def test_what_never_fits_is_told_as_a_long_wait() -> None:
    """More than the bucket holds, or a bucket that does not fill."""
    buckets = Buckets(10)
    assert buckets.take([Ask(b"a", 1.0, 1.0, 2.0)], None, START_S).waits == (LONGEST_WAIT_S,)
    assert buckets.take([Ask(b"b", 9.0, 1.0, 2.0, 60.0, 1.0)], None, START_S).waits == (LONGEST_WAIT_S,)
    empty = Ask(b"c", 1.0, 0.0, 1.0)
    buckets.take([empty], None, START_S)
    assert buckets.take([empty], None, START_S).waits == (LONGEST_WAIT_S,)


def test_a_window_slides() -> None:
    """Ten per ten seconds: what was used in the window before counts less and less."""
    ask = Ask(b"w", 1000.0, 1000.0, 1.0, 10.0, 10.0)
    buckets = Buckets(10)
    now = START_S + 9.0
    assert [buckets.take([ask], None, now).allowed for _ in range(11)] == [True] * 10 + [False]
    assert not buckets.take([ask], None, START_S + 10.5).allowed
    assert buckets.take([ask], None, START_S + 11.0).allowed
    assert not buckets.take([ask], None, START_S + 11.5).allowed
    assert buckets.take([ask], None, START_S + 40.0).remaining == (9.0,)


def test_the_buckets_of_a_process_are_bounded() -> None:
    """Those that were asked longest ago go first."""
    buckets = Buckets(3)
    for name in (b"a", b"b", b"c", b"a", b"d"):
        buckets.take([Ask(name, 5.0, 0.0, 1.0)], None, START_S)
    assert list(buckets.by_key) == [b"c", b"a", b"d"]


def test_a_new_bucket_holds_what_the_owner_says() -> None:
    """As after an outage of Redis."""
    buckets = Buckets(3, lambda ask, now: 2.0)
    ask = Ask(b"a", 5.0, 0.0, 1.0)
    assert [buckets.take([ask], None, START_S).allowed for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(("tenant", "left"), [(b"noisy", 4), (b"quiet", 0)])
def test_who_is_over_its_share_leaves_the_reserve_alone(tenant: bytes, left: int) -> None:
    """Who is within it may take the last token: none is ever lent twice."""
    shared = Ask(b"all", 10.0, 0.0, 1.0)
    buckets = Buckets(10)
    share = {b"noisy": 0.0, b"quiet": 20.0}[tenant]
    fair = Fair(tenant, 0, share, 0.0, 4.0)
    allowed = sum(buckets.take([shared], fair, START_S).allowed for _ in range(20))
    assert allowed == 10 - left


def test_who_is_over_its_share_is_told_when_its_share_has_a_token() -> None:
    """Or the shared bucket enough for everyone, whichever is sooner."""
    buckets = Buckets(10)
    shared = Ask(b"all", 4.0, 0.1, 1.0)
    for share_per_s, wait_s in ((0.5, 2.0), (0.05, 20.0), (0.0, 10.0)):
        fair = Fair(b"t%f" % share_per_s, 0, 1.0, share_per_s, 2.0)
        buckets.by_key[b"all"] = Bucket(2.0, START_S)
        buckets.by_key[fair.key] = Bucket(0.0, START_S)
        assert buckets.take([shared], fair, START_S).waits[0] == pytest.approx(min(wait_s, 10.0))
