"""Which rule a verdict names."""

from __future__ import annotations

from proxy.limits.rules import Demand, Rule
from proxy.limits.verdict import UNLIMITED, Verdict, judged

WIDE, NARROW = Rule("wide", "wide", "global", 100.0, 1.0), Rule("narrow", "narrow", "key", 10.0, 1.0)
SHADOW = Rule("shadow", "shadow", "key", 10.0, 1.0, enforce=False)
DEMANDS = [Demand(rule, "", 1.0) for rule in (WIDE, NARROW, SHADOW)]


def test_a_refusal_names_the_rule_to_wait_for_longest() -> None:
    """With what it has left."""
    assert judged(DEMANDS, [0.5, 0.25, 0.0], [1.0, 3.0, 9.0], "redis") == Verdict(
        False, NARROW, 3.0, 0.25, 10.0, (SHADOW,), "redis"
    )
    assert judged(DEMANDS, [0.5, 5.0, 5.0], [1.0, 0.0, 0.0], "local").rule is WIDE


def test_what_passes_tells_of_the_rule_that_is_nearest_to_refusing() -> None:
    """By its part of the capacity; a shadow rule is nobody's business."""
    verdict = judged(DEMANDS, [60.0, 7.0, 0.0], [0.0, 0.0, 0.0], "redis")
    assert verdict == Verdict(True, None, 0.0, 60.0, 100.0, (), "redis")
    assert judged(DEMANDS, [60.0, 5.0, 0.0], [0.0, 0.0, 0.0], "redis").limit == 10.0


def test_a_shadow_rule_refuses_nothing() -> None:
    """It is named beside the verdict."""
    verdict = judged(DEMANDS[2:], [0.0], [5.0], "local")
    assert (verdict.allowed, verdict.shadowed, verdict.limit) == (True, (SHADOW,), 0.0)


def test_without_rules_everything_passes() -> None:
    """And nothing limits it."""
    assert UNLIMITED.allowed
    assert UNLIMITED.limit == 0
