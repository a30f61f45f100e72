"""Scores of addresses: what blocks, for how long, and what is forgotten."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.limits.scores import LOOPBACK, Policy, Scores, Verdict, subject_of

HALF_LIFE_S = 60.0
POLICY = Policy(threshold=100.0, half_life_s=HALF_LIFE_S, first_block_s=60.0, longest_block_s=86_400.0)
WHO = "192.0.2.1"


def fed(scores: Scores, weights: Iterable[float], now: float, subject: str = WHO) -> list[Verdict]:
    """The verdicts on these violations, all at one moment."""
    return [verdict for weight in weights if (verdict := scores.add(subject, weight, now)) is not None]


def test_a_score_blocks_when_it_reaches_the_threshold() -> None:
    """With the violation that makes it full, and not before."""
    scores = Scores(POLICY)
    assert not fed(scores, [10.0] * 9, 0.0)
    assert fed(scores, [10.0], 0.0) == [Verdict(60.0, 1, 100.0)]


def test_a_score_halves_in_its_half_life() -> None:
    """So that whoever errs now and then is never blocked."""
    scores = Scores(POLICY)
    scores.add(WHO, 80.0, 0.0)
    assert scores.score(WHO, HALF_LIFE_S) == pytest.approx(40.0)
    assert scores.score(WHO, 10 * HALF_LIFE_S) == pytest.approx(80 / 1024)
    assert not any(scores.add("192.0.2.2", 49.0, minute * HALF_LIFE_S) for minute in range(1000))


def test_blocks_double_up_to_the_longest() -> None:
    """Each begins when the one before has ended; after eleven the longest is reached."""
    scores, now, lengths = Scores(POLICY), 0.0, []
    for _ in range(13):
        (verdict,) = fed(scores, [100.0], now)
        lengths.append(verdict.seconds)
        now += verdict.seconds
    assert lengths == [*(60.0 * 2**n for n in range(11)), 86_400.0, 86_400.0]


def test_repetitions_are_forgotten_by_half_a_day() -> None:
    """Good conduct counts from the end of the block."""
    scores, now = Scores(POLICY), 0.0
    for _ in range(4):
        now += fed(scores, [100.0], now)[0].seconds
    now += 2 * POLICY.longest_block_s
    assert fed(scores, [100.0], now) == [Verdict(120.0, 2, 100.0)]
    now += 30 * POLICY.longest_block_s
    assert fed(scores, [100.0], now) == [Verdict(60.0, 1, 100.0)]


def test_nothing_counts_during_a_block_and_the_score_begins_anew_after_it() -> None:
    """Requests that were under way, or were refused for the block itself, add nothing."""
    scores = Scores(POLICY)
    assert fed(scores, [100.0], 0.0)
    assert not fed(scores, [100.0] * 5, 59.9)
    assert not fed(scores, [99.0], 60.0)
    assert fed(scores, [2.0], 60.0)


def test_a_block_by_somebody_else_counts_as_one_s_own() -> None:
    """Its repetitions too; who is forgiven begins anew."""
    scores = Scores(POLICY)
    scores.punished(WHO, 3, 10.0, 0.0)
    assert not fed(scores, [100.0], 9.0)
    assert fed(scores, [100.0], 10.0)[0] == Verdict(480.0, 4, 100.0)
    scores.forgive(WHO)
    assert fed(scores, [100.0], 10.0)[0] == Verdict(60.0, 1, 100.0)


def test_a_new_policy_holds_for_the_scores_there_are() -> None:
    """A reload forgets nobody."""
    scores = Scores(POLICY)
    scores.add(WHO, 50.0, 0.0)
    scores.policy = Policy(50.0, HALF_LIFE_S, 5.0, 10.0)
    assert fed(scores, [1.0], 0.0) == [Verdict(5.0, 1, 51.0)]


def test_of_too_many_addresses_the_quietest_are_forgotten() -> None:
    """The one that went on misbehaving is still known."""
    scores = Scores(POLICY, most=3)
    for subject in ("a", "b", "c", "a", "d"):
        scores.add(subject, 1.0, 0.0)
    assert len(scores) == 3
    assert [scores.score(subject, 0.0) for subject in "abcd"] == [2.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("ip", "subject"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::%eth0", "2001:db8:1:2::/64"),
        ("local", None),
        ("", None),
    ],
)
def test_an_address_counts_as_itself_or_its_network(ip: str, subject: str | None) -> None:
    """IPv6 by /64; what is no address counts as nobody."""
    assert subject_of(ip) == subject


def test_the_machine_itself_is_spared() -> None:
    """In both families, also as a mapped address."""
    assert all(ip in POLICY.spared for ip in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"))
    assert "192.0.2.1" not in POLICY.spared
    assert len(LOOPBACK) == 2


@given(
    st.lists(st.tuples(st.floats(0, 600), st.floats(0.1, 60), st.sampled_from("ab")), min_size=1, max_size=120),
    st.floats(0, 1e9),
)
def test_whatever_happens_blocks_are_bounded_and_scores_stay_below_the_threshold(
    steps: list[tuple[float, float, str]], start: float
) -> None:
    """A score that blocks is gone; no block is shorter than the first or longer than the longest; none overlap."""
    scores, now = Scores(POLICY), start
    free_at = dict.fromkeys("ab", 0.0)
    for wait_s, weight, subject in steps:
        now += wait_s
        before = scores.score(subject, now)
        verdict = scores.add(subject, weight, now)
        assert 0.0 <= scores.score(subject, now) < POLICY.threshold
        if verdict is None:
            continue
        assert before + weight >= POLICY.threshold * (1 - 1e-9)
        assert now >= free_at[subject]
        assert POLICY.first_block_s <= verdict.seconds <= POLICY.longest_block_s
        free_at[subject] = now + verdict.seconds


def test_counting_is_cheap() -> None:
    """Some microseconds at most for a violation, also when the table is full."""
    scores = Scores(POLICY, most=1000)
    subjects = [f"10.0.{n >> 8}.{n & 255}" for n in range(5000)]
    best = 1.0
    for _ in range(5):
        began = time.perf_counter()
        for subject in subjects:
            scores.add(subject, 1.0, 1.0)
        best = min(best, (time.perf_counter() - began) / len(subjects))
    assert best < 20e-6
