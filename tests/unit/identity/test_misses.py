"""Unknown credentials: the database is asked once about each, and not often in all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.identity.misses import Misses


def test_one_credential_is_asked_about_once_until_its_time_is_up() -> None:
    """Then once more."""
    misses = Misses(ttl_s=5.0)
    assert misses.may_ask("a", 100.0)
    assert not misses.may_ask("a", 104.9)
    assert misses.may_ask("a", 105.0)
    assert not misses.may_ask("a", 105.0)


def test_a_flood_of_different_credentials_costs_a_few_questions_per_second() -> None:
    """1,000 per second for ten seconds."""
    misses = Misses(per_s=20.0)
    asked = sum(misses.may_ask(f"k{number}", 50.0 + number / 1000) for number in range(10_000))
    assert 200 <= asked <= 221


def test_after_a_change_everything_may_be_asked_about_again() -> None:
    """What was unknown may be known now; the budget stays."""
    misses = Misses(per_s=2.0)
    assert misses.may_ask("a", 1.0)
    misses.clear()
    assert misses.may_ask("a", 1.0)
    misses.clear()
    assert not misses.may_ask("a", 1.0)


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 3)), max_size=200))
def test_memory_and_questions_are_bounded(steps: list[tuple[int, float]]) -> None:
    """Whatever comes in whatever order; no credential is asked about twice within its time."""
    misses = Misses(capacity=10, ttl_s=2.0, per_s=1000.0)
    now, asked = 1.0, dict[str, float]()
    for number, pause in steps:
        now += pause
        name = f"k{number}"
        if misses.may_ask(name, now):
            recent = [other for other, at in asked.items() if now - at < 2.0]
            assert name not in recent or len(recent) >= 10
            asked[name] = now
        assert len(misses) <= 10
