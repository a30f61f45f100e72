"""Rendezvous hashing: stable, even, weighted."""

from collections import Counter

import pytest

from proxy.dataplane.rendezvous import point, score, weighted_score

KEYS = [point(f"key {number}") for number in range(20_000)]


def winner(key: int, servers: dict[str, int]) -> str:
    return max(servers, key=lambda name: weighted_score(key, point(name), servers[name]))


def test_points_and_scores_are_the_same_for_ever() -> None:
    """Replicas of different versions must agree, so these numbers may never change."""
    assert point("10.0.0.1") == 0x538EF646E14D03E6
    assert score(1, 2) == 0x1E535EEDE31428F0


def test_a_lone_surrogate_has_a_point() -> None:
    """A key may come from JSON text that is no Unicode."""
    assert point("\ud800") != point("\ud801")


def test_equal_servers_get_equal_shares_of_the_keys() -> None:
    """Plain scores are even to within the noise of 20,000 keys."""
    names = ("red", "green", "blue")
    shares = Counter(max(names, key=lambda name: score(key, point(name))) for key in KEYS)
    assert all(share == pytest.approx(len(KEYS) / 3, rel=0.05) for share in shares.values())


def test_weights_are_shares_of_the_keys() -> None:
    """Weight 3 owns three times the keys of weight 1."""
    shares = Counter(winner(key, {"light": 1, "heavy": 3}) for key in KEYS)
    assert shares["heavy"] / len(KEYS) == pytest.approx(0.75, abs=0.015)


def test_more_weight_only_draws_keys_to_that_server() -> None:
    """No key moves between the others when one weight changes."""
    before, after = {"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 1, "c": 1}
    moved = [(winner(key, before), winner(key, after)) for key in KEYS[:3000]]
    assert all(old == new or new == "a" for old, new in moved)


@pytest.mark.parametrize("bits", [0, (1 << 64) - 1])
def test_the_extreme_scores_have_a_logarithm(bits: int) -> None:
    """Neither end of the range divides by zero."""
    # The finalizer is a bijection: find the input that gives these bits by undoing it.
    undone = _unmix(bits)
    assert score(undone, 0) == bits
    assert 0 < weighted_score(undone, 0, 1) < float("inf")


def _unmix(bits: int) -> int:
    mask = (1 << 64) - 1
    for shift, factor in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9)):
        bits = _unshift(bits, shift) * pow(factor, -1, 1 << 64) & mask
    return _unshift(bits, 30)


def _unshift(bits: int, shift: int) -> int:
    result = bits
    for _ in range(64 // shift + 1):
        result = bits ^ result >> shift
    return result
