"""What is usual for each principal is learned, and more than that is unusual."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.audit.habits import Habits


def calls(habits: Habits, who: str, window: int, count: int) -> int:
    """Make so many calls within one window of ten seconds; returns how many were too many."""
    return sum(habits.exceeds(who, window * 10 + 1.0) for _ in range(count))


def test_five_times_the_usual_is_unusual() -> None:
    """Once there is something usual."""
    habits = Habits(10.0, 5.0, 20, 3, 100)
    assert calls(habits, "a", 0, 10_000) == 0  # nothing is known yet
    habits = Habits(10.0, 5.0, 20, 3, 100)
    assert [calls(habits, "a", window, 10) for window in range(3)] == [0, 0, 0]
    assert calls(habits, "a", 3, 50) == 0
    habits = Habits(10.0, 5.0, 20, 3, 100)
    for window in range(3):
        calls(habits, "a", window, 10)
    assert calls(habits, "a", 3, 60) == 10


def test_few_calls_are_never_unusual() -> None:
    """Whatever is usual."""
    habits = Habits(10.0, 5.0, 20, 3, 100)
    for window in range(5):
        calls(habits, "a", window, 1)
    assert calls(habits, "a", 5, 20) == 0
    assert calls(habits, "a", 5, 1) == 1


def test_a_quiet_night_makes_nobodys_morning_unusual() -> None:
    """Windows without calls are not learned."""
    habits = Habits(10.0, 5.0, 20, 3, 100)
    for window in range(5):
        calls(habits, "a", window, 30)
    assert calls(habits, "a", 5000, 100) == 0


def test_a_flood_does_not_become_usual_at_once() -> None:
    """Only what is below the bound is learned of it; what lasts becomes usual in the end."""
    habits = Habits(10.0, 5.0, 20, 3, 100)
    for window in range(5):
        calls(habits, "a", window, 10)
    assert [calls(habits, "a", window, 1000) for window in range(5, 8)] == [950, 910, 838]
    assert min(calls(habits, "a", window, 1000) for window in range(8, 40)) == 0


def test_each_principal_has_habits_of_its_own() -> None:
    """One who calls often makes nobody else's calls usual."""
    habits = Habits(10.0, 5.0, 20, 3, 100)
    for window in range(4):
        calls(habits, "a", window, 1000)
        calls(habits, "b", window, 10)
    assert (calls(habits, "a", 4, 200), calls(habits, "b", 4, 200)) == (0, 150)


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 1e9)), max_size=200))
def test_no_more_are_remembered_than_may_be(made: list[tuple[int, float]]) -> None:
    """Whoever has called least recently is forgotten; clocks that go back do no harm."""
    habits = Habits(60.0, 5.0, 20, 3, 10)
    for who, now in made:
        habits.exceeds(f"user:{who}", now)
    assert len(habits) == min(10, len({who for who, _ in made}))


def test_who_called_least_recently_is_forgotten() -> None:
    """By windows."""
    habits = Habits(10.0, 5.0, 20, 1, 2)
    for window in range(3):
        calls(habits, "a", window, 10)
        calls(habits, "b", window, 10)
    calls(habits, "a", 3, 10)
    calls(habits, "c", 3, 1)
    assert calls(habits, "a", 4, 100) == 50
    assert calls(habits, "b", 4, 100) == 0
