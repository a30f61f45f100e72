"""Limits without Redis: each worker counts its part, starts with what Redis had left, and tells it on its return."""

from __future__ import annotations

import pytest

from proxy.dataplane.limit_script import bucket_key
from proxy.dataplane.local_limits import LocalLimits
from proxy.limits.bucket import Fair
from proxy.limits.costs import CostTable
from proxy.limits.rules import Demand, Rule
from tests.unit.dataplane.clocks import Clock

TEN = Rule("ten", "ten", "key", 10.0, 1.0)


def admitted(limits: LocalLimits, demand: Demand, asked: int = 100) -> int:
    """How many of so many requests pass."""
    return sum(limits.decide([demand], None).allowed for _ in range(asked))


@pytest.mark.parametrize(("workers", "burst", "in_a_minute"), [(1, 10, 10), (2, 5, 5), (4, 2, 2), (40, 1, 1)])
def test_each_worker_counts_its_part(workers: int, burst: int, in_a_minute: int) -> None:
    """Of the burst and of the rate; one token at least, or nobody would get through anywhere."""
    clock = Clock()
    limits = LocalLimits(clock, alone=False)
    limits.workers = workers
    assert admitted(limits, Demand(TEN, "s", 1.0)) == burst
    assert admitted(limits, Demand(TEN, "s", 1.0)) == 0
    clock.now += 60
    assert admitted(limits, Demand(TEN, "s", 1.0)) == in_a_minute
    clock.now += workers + 0.01
    assert admitted(limits, Demand(TEN, "s", 1.0)) == 1


def test_a_dear_request_passes_where_its_part_is_small() -> None:
    """A bucket of one worker holds the dearest request, if that of all does; the rate is divided all the same."""
    clock = Clock()
    dear = Rule("dear", "dear", "key", 10.0, 1.0, costs=CostTable(1.0, {"tools/call": 8.0}))
    limits = LocalLimits(clock, alone=False)
    limits.workers = 5
    assert limits.decide([Demand(dear, "s", 8.0)], None).allowed
    clock.now += 39
    assert not limits.decide([Demand(dear, "s", 8.0)], None).allowed
    clock.now += 2
    assert limits.decide([Demand(dear, "s", 8.0)], None).allowed
    assert not limits.decide([Demand(TEN, "s", 11.0)], None).allowed


def test_a_bucket_starts_with_what_redis_had_left_and_what_came_back_since() -> None:
    """Divided among the workers; one that was never seen is full."""
    clock = Clock()
    limits = LocalLimits(clock, alone=False)
    limits.workers = 2
    limits.saw([bucket_key("ten", "empty"), bucket_key("ten", "half")], [0.0, 4.0])
    assert admitted(limits, Demand(TEN, "empty", 1.0)) == 0
    clock.now += 2
    assert admitted(limits, Demand(TEN, "half", 1.0)) == 3
    assert admitted(limits, Demand(TEN, "other", 1.0)) == 5


def test_what_is_seen_is_bounded() -> None:
    """Those seen longest ago go first."""
    limits = LocalLimits(Clock(), alone=False, capacity=2)
    for subject in ("a", "b", "a", "c"):
        limits.saw([bucket_key("ten", subject)], [0.0])
    assert [admitted(limits, Demand(TEN, subject, 1.0)) for subject in ("a", "b", "c")] == [0, 10, 0]


def test_each_rule_does_what_it_says_without_redis() -> None:
    """Deny refuses, and nothing is taken from the others; allow is as if it were not there."""
    limits = LocalLimits(Clock(), alone=False)
    deny = Rule("deny", "deny", "key", 10.0, 1.0, on_store_error="deny")
    allow = Rule("allow", "allow", "key", 1.0, 0.0, on_store_error="allow")
    verdict = limits.decide([Demand(TEN, "s", 1.0), Demand(deny, "s", 1.0)], None)
    assert (verdict.allowed, verdict.rule, verdict.retry_after_s) == (False, deny, 1.0)
    assert admitted(limits, Demand(TEN, "s", 1.0)) == 10
    assert admitted(limits, Demand(allow, "s", 1.0)) == 100


def test_a_shadow_rule_that_denies_is_only_named() -> None:
    """It is not enforced."""
    shadow = Rule("deny", "deny", "key", 10.0, 1.0, on_store_error="deny", enforce=False)
    verdict = LocalLimits(Clock(), alone=False).decide([Demand(shadow, "s", 1.0)], None)
    assert (verdict.allowed, verdict.shadowed) == (True, (shadow,))


def test_where_there_is_no_redis_its_absence_is_no_reason() -> None:
    """Every rule counts."""
    limits = LocalLimits(Clock(), alone=True)
    for choice in ("deny", "allow"):
        rule = Rule(choice, choice, "key", 3.0, 0.0, on_store_error=choice)  # type: ignore[arg-type]
        assert admitted(limits, Demand(rule, "s", 1.0)) == 3


def test_shares_hold_without_redis() -> None:
    """Also when rules before the shared one are left out: who is over its share leaves the reserve alone."""
    limits = LocalLimits(Clock(), alone=False)
    allow = Rule("allow", "allow", "key", 1.0, 0.0, on_store_error="allow")
    shared = Rule("all", "all", "global", 10.0, 0.0)
    fair = Fair(b"f", 1, 1.0, 0.0, 4.0)
    demands = [Demand(allow, "s", 1.0), Demand(shared, "", 1.0)]
    assert sum(limits.decide(demands, fair).allowed for _ in range(20)) == 6
    gone = Rule("all", "all", "global", 10.0, 0.0, on_store_error="allow")
    assert limits.decide([Demand(allow, "s", 1.0), Demand(gone, "", 1.0)], fair).allowed


def test_redis_is_told_of_what_all_workers_have_left() -> None:
    """Of buckets that were used, those used last first; then they are forgotten."""
    clock = Clock()
    limits = LocalLimits(clock, alone=False)
    limits.workers = 2
    windowed = Rule("w", "w", "key", 10.0, 1.0, window=(60.0, 40.0))
    assert admitted(limits, Demand(TEN, "a", 1.0), 3) == 3
    assert admitted(limits, Demand(windowed, "b", 1.0), 4) == 4
    clock.now += 1
    newest, oldest = limits.seeds()
    assert (newest.key, newest.tokens, newest.window) == (bucket_key("w", "b"), 3.0, (60.0, 20.0))
    assert newest.used == pytest.approx(8.0)
    assert (oldest.key, oldest.tokens, oldest.lives_s) == (bucket_key("ten", "a"), 5.0, 5.0)
    limits.forget()
    assert list(limits.seeds()) == []
