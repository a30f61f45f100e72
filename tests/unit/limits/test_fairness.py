"""Who gets what of a capacity that all share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.limits.fairness import Demands, Shares, TenantShare, TenantWant, reserve_of, weighted_shares

wants_of_tenants = st.dictionaries(
    st.text(max_size=3), st.builds(TenantWant, st.floats(0.0, 1e4), st.floats(0.1, 10.0)), max_size=12
)


@given(st.floats(0.0, 1e4), wants_of_tenants)
def test_nobody_gets_more_than_it_wants_and_nothing_is_wasted(capacity: float, wants: dict[str, TenantWant]) -> None:
    """The sum is the capacity, or all that is wanted."""
    shares = weighted_shares(capacity, wants)
    assert all(0 <= shares[tenant] <= want.per_s for tenant, want in wants.items())
    assert sum(shares.values()) == pytest.approx(min(capacity, sum(want.per_s for want in wants.values())), abs=1e-6)


@given(st.floats(1.0, 1e4), wants_of_tenants)
def test_who_gets_less_than_it_wants_gets_no_less_than_anyone(capacity: float, wants: dict[str, TenantWant]) -> None:
    """By weight: that is what max-min means."""
    shares = weighted_shares(capacity, wants)
    most = max((shares[tenant] / want.weight for tenant, want in wants.items()), default=0.0)
    for tenant, want in wants.items():
        if shares[tenant] < want.per_s * (1 - 1e-9):
            assert shares[tenant] / want.weight >= most * (1 - 1e-6) - 1e-6


def test_a_flood_gets_what_the_quiet_leave() -> None:
    """Weights 1 : 1 : 2 of a hundred per second."""
    wants = {"quiet": TenantWant(10, 1), "busy": TenantWant(30, 1), "flood": TenantWant(2000, 2)}
    assert weighted_shares(100, wants) == {"quiet": 10, "busy": 30, "flood": 60}
    assert weighted_shares(100, {name: TenantWant(900, want.weight) for name, want in wants.items()}) == {
        "quiet": 25,
        "busy": 25,
        "flood": 50,
    }


def test_demands_are_those_of_the_last_steps() -> None:
    """Four of them, whatever their length; refused or not, all count."""
    demands = Demands(0.0)
    for _ in range(10):
        demands.count(TenantShare("a", 2.0), 3.0)
    assert demands.turn(0.5) == {"a": TenantWant(60.0, 2.0)}
    demands.count(TenantShare("b"), 1.0)
    assert demands.turn(1.0) == {"a": TenantWant(30.0, 2.0), "b": TenantWant(1.0, 1.0)}
    for now in (1.5, 2.0):
        demands.turn(now)
    assert demands.turn(2.5) == {"b": TenantWant(0.5, 1.0)}
    assert demands.turn(3.0) == {}


def test_alone_a_tenant_may_use_all_of_it() -> None:
    """Also before anything was settled, and however little it wanted lately."""
    shares = Shares()
    assert shares.of(TenantShare("a"), 100.0).per_s == 100.0
    shares.settle(100.0, {"a": TenantWant(0.5, 3.0)})
    assert shares.of(TenantShare("a"), 100.0).per_s == 100.0


def test_a_newcomer_gets_its_part_at_once() -> None:
    """As if it had been there."""
    shares = Shares()
    shares.settle(100.0, {"flood": TenantWant(5000.0, 1.0), "other": TenantWant(5000.0, 2.0)})
    assert shares.of(TenantShare("new", 1.0), 100.0).per_s == 25.0


def test_the_quiet_keep_their_part_and_a_flood_gets_no_more_than_is_left() -> None:
    """The quiet may want more in a moment; the flood's share is what they did not use, less some headroom."""
    shares = Shares()
    shares.settle(100.0, {"flood": TenantWant(5000.0, 1.0), "quiet": TenantWant(10.0, 1.0)})
    assert shares.of(TenantShare("quiet"), 100.0) == (50.0, 1.0)
    assert shares.of(TenantShare("flood"), 100.0) == pytest.approx((87.5, 0.25))


def test_the_reserve_is_small_beside_what_comes_back() -> None:
    """A tenth of the capacity, and half a second of refill at most."""
    assert reserve_of(5000.0, 5000 / 60) == pytest.approx(41.67, abs=0.01)
    assert reserve_of(10.0, 1000.0) == 1.0
