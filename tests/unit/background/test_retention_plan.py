"""What is old enough to go: the rules alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from proxy.background.retention_plan import (
    FOR_EVER_DAYS,
    Retire,
    Rule,
    Rules,
    Trim,
    asks_who_is_there,
    decide,
    midnight,
    rules_of,
)
from proxy.config.retention import Retention
from proxy.identity.records import SYSTEM_TENANT
from proxy.store.retention import Extent
from proxy.store.retention_policies import PolicyRow

TODAY = datetime(2026, 11, 22, tzinfo=UTC)


def day(ago: int, whole: bool = True, length: int = 1) -> Extent:
    """A stretch that began so many days ago."""
    since = TODAY - timedelta(days=ago)
    return Extent("request_logs", f"p{ago}", since, since + timedelta(days=length), whole)


def rule(days: int | None, archive: bool = False) -> Rule:
    """So many days."""
    return Rule(days, archive, 10, "tenant")


def row(tenant: str, days: int, enabled: bool = True) -> PolicyRow:
    """A policy of request_logs."""
    return PolicyRow("request_logs", tenant, "slug", days, True, 7, enabled, None, None)


def test_a_row_of_the_system_comes_before_the_configuration_and_a_tenants_own_before_that() -> None:
    """One that is not in force counts as absent."""
    config = Retention.model_validate({"tables": {"request_logs": {"keep": "5d"}}})
    rows = [row(SYSTEM_TENANT, 3), row("a", 1), row("b", 2, enabled=False)]
    rules = rules_of("request_logs", config, rows)
    assert [rules.of(tenant).days for tenant in ("a", "b", "c")] == [1, 3, 3]
    assert (rules.of("a").archive, rules.of("a").batch) == (True, 7)
    assert rules_of("audit_logs", config, rows).of("a").days is None
    off = [row(SYSTEM_TENANT, 3, enabled=False)]
    assert rules_of("request_logs", config, off).default == Rule(5, False, 10_000, "configuration")


def test_a_batch_is_bounded_whatever_a_row_says() -> None:
    """Its rows may be in memory at a time."""
    rows = [replace(row(tenant, 3), batch=2**31 - 1) for tenant in ("a", SYSTEM_TENANT)]
    rules = rules_of("request_logs", Retention(), rows)
    assert rules.of("a").batch == rules.default.batch == 100_000


def test_a_partition_goes_when_all_of_it_is_old_enough() -> None:
    """Not a day sooner, and never one that is kept for ever."""
    rules = Rules(rule(3), {})
    assert decide(day(4), rules, [], TODAY) == [Retire(day(4), archive=False)]
    assert decide(day(3), rules, [], TODAY) == []
    for days in (None, FOR_EVER_DAYS):
        assert decide(day(4000), Rules(rule(days), {}), [], TODAY) == []
    assert not asks_who_is_there(rules, day(4))


def test_where_one_tenant_keeps_its_rows_those_of_the_others_are_deleted() -> None:
    """Once it has none there, the partition goes whole."""
    rules = Rules(rule(3), {"keeper": rule(30, archive=True)})
    assert asks_who_is_there(rules, day(4))
    assert decide(day(4), rules, ["keeper", "other"], TODAY) == [Trim(day(4), "other", day(4).until, False, 10)]
    assert decide(day(4), rules, ["other"], TODAY) == [Retire(day(4), archive=False)]
    assert decide(day(31), rules, ["keeper", "other"], TODAY) == [Retire(day(31), archive=True)]


def test_a_partition_without_rows_goes_when_one_policy_would_let_it_go() -> None:
    """There is nothing in it that anyone keeps, whoever else keeps rows for ever."""
    rules = Rules(rule(None), {"brief": rule(3, archive=True)})
    assert decide(day(4), rules, [], TODAY) == [Retire(day(4), archive=False)]
    assert decide(day(4), rules, ["other"], TODAY) == decide(day(3), rules, [], TODAY) == []


def test_a_tenant_that_wants_less_is_taken_at_its_word_to_the_day() -> None:
    """Also in the middle of a month; everyone else's rows go with the partition."""
    rules = Rules(rule(10), {"brief": rule(2)})
    month = day(20, length=30)
    assert decide(month, rules, ["brief", "other"], TODAY) == [
        Trim(month, "brief", TODAY - timedelta(days=2), False, 10)
    ]
    assert decide(day(1), rules, ["brief"], TODAY) == []


def test_rows_in_the_default_partition_go_to_the_day() -> None:
    """It is never dropped."""
    gap = day(20, whole=False, length=40)
    assert asks_who_is_there(Rules(rule(10), {}), gap)
    assert decide(gap, Rules(rule(10), {}), ["x"], TODAY) == [Trim(gap, "x", TODAY - timedelta(days=10), False, 10)]
    assert decide(gap, Rules(rule(10), {}), [], TODAY) == []


def test_the_day_ends_at_midnight_utc() -> None:
    """Wherever the machine stands."""
    assert midnight(datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC).timestamp()) == TODAY


DAYS = st.one_of(st.none(), st.integers(1, 60))


@given(
    default=DAYS,
    own=st.dictionaries(st.sampled_from("abcd"), DAYS),
    present=st.lists(st.sampled_from("abcdef"), unique=True),
    ago=st.integers(0, 90),
    length=st.integers(1, 31),
    whole=st.booleans(),
)
def test_nothing_goes_that_its_policy_keeps(
    default: int | None, own: dict[str, int | None], present: list[str], ago: int, length: int, whole: bool
) -> None:
    """And nothing stays, of a tenant of its own, that its policy lets go."""
    rules = Rules(rule(default), {tenant: rule(days) for tenant, days in own.items()})
    extent = day(ago, whole, length)
    steps = decide(extent, rules, present, TODAY)
    gone_until = dict.fromkeys(present, extent.since)
    for step in steps:
        if isinstance(step, Retire):
            assert whole
            assert steps == [step]
            gone_until = dict.fromkeys(present, extent.until)
        else:
            gone_until[step.tenant] = step.until
    for tenant, until in gone_until.items():
        cutoff = rules.of(tenant).cutoff(TODAY)
        assert until == extent.since or until <= cutoff
        if tenant in own or not whole or cutoff >= extent.until:
            assert until == max(extent.since, min(cutoff, extent.until))
