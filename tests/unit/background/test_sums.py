"""Sums add up in any order, and their quantiles are those of all that went into them."""

from __future__ import annotations

import math

import pytest
from ddsketch import DDSketch
from hypothesis import given
from hypothesis import strategies as st

from proxy.background import sums as module
from proxy.background.sums import OTHER_TOOLS, KeySum, Sum, quantiles
from proxy.background.traffic import ACCURACY, bin_of, milliseconds

DURATIONS = st.lists(st.floats(1e-6, 3600.0), min_size=1, max_size=60)


def summed(durations: list[float]) -> Sum:
    """So many requests, each with one byte more than the one before."""
    total = Sum()
    for number, seconds in enumerate(durations):
        total.requests += 1
        total.errors += number % 2
        total.bytes_out += number
        total.timed += 1
        total.seconds += seconds
        total.bins[bin_of(seconds)] = total.bins.get(bin_of(seconds), 0) + 1
    return total


def facts(total: Sum) -> dict[str, object]:
    """Everything that is counted, but for rounding."""
    found = {name: getattr(total, name) for name in Sum.__slots__}
    return found | {"seconds": round(total.seconds, 6)}


@given(DURATIONS, DURATIONS)
def test_sums_add_up_like_their_parts(one: list[float], other: list[float]) -> None:
    """Either way round; what was added stays as it was."""
    first, second = summed(one), summed(other)
    before = facts(second)
    first.add(second)
    assert facts(second) == before
    turned = summed(other)
    turned.add(summed(one))
    assert facts(first) == facts(turned)
    both = summed(one + other)
    assert (first.requests, first.timed, first.bins) == (both.requests, both.timed, both.bins)


SHARES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.95, 0.99, 1.0]), min_size=1, max_size=4).map(sorted)


@given(DURATIONS, SHARES)
def test_a_quantile_is_within_the_accuracy(durations: list[float], shares: list[float]) -> None:
    """Of the value with that rank among all, as ddsketch defines it: not more than 1 % off."""
    found = quantiles(summed(durations).bins, shares)
    exact = [sorted(durations)[math.floor(share * (len(durations) - 1))] * 1e3 for share in shares]
    assert [milliseconds(each) for each in found] == pytest.approx(exact, rel=ACCURACY * 1.001)


@given(DURATIONS, st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_is_that_of_the_library(durations: list[float], share: float) -> None:
    """Bins of one scale, ranks of one rule."""
    sketch = DDSketch(ACCURACY)
    for seconds in durations:
        sketch.add(seconds * 1e3)
    (found,) = quantiles(summed(durations).bins, [share])
    assert milliseconds(found) == pytest.approx(sketch.get_quantile_value(share))


def test_of_nothing_there_is_no_quantile() -> None:
    """Not a zero, which would look like the best of all servers."""
    assert quantiles({}, [0.5, 0.99]) == []


def test_a_sum_that_was_empty_has_bins_of_its_own() -> None:
    """What is added later does not change what it was made from."""
    first, second = Sum(), summed([0.5])
    first.add(second)
    first.add(second)
    assert (sum(first.bins.values()), sum(second.bins.values())) == (2, 1)


def test_tools_add_up_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names beyond the bound are counted together, so that the number of calls is right."""
    monkeypatch.setattr(module, "MAX_TOOLS", 2)
    one, other = KeySum(), KeySum()
    for tool in ("a", "b", "a"):
        one.count_tool(("s", tool))
    for tool in ("a", "c", "d"):
        other.count_tool(("s", tool))
    one.add(other)
    assert one.tools == {("s", "a"): 3, ("s", "b"): 1, OTHER_TOOLS: 2}
