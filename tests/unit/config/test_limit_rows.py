"""Rows of `rate_limit_configs` read as rules."""

from __future__ import annotations

from math import inf, nan
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.limit_rows import limit_of
from proxy.config.limits import Cost, LimitRule


def row(**columns: Any) -> SimpleNamespace:
    """A row with the defaults of the table."""
    known: dict[str, Any] = {
        "level": "key",
        "subject": None,
        "capacity": 10,
        "refill_per_minute": 60.0,
        "cost": 1.0,
        "costs": {},
        "window_s": None,
        "window_limit": None,
        "on_store_error": "local",
        "enforce": True,
    }
    return SimpleNamespace(**known | columns)


def test_a_row_is_a_rule_of_the_file() -> None:
    """Column by column."""
    found = limit_of(
        row(
            level="tool",
            subject="github/s*",
            capacity=7,
            refill_per_minute=90.5,
            cost=2.0,
            costs={"methods": {"tools/list": 3}, "tools": {"github/search": 5.5}},
            window_s=3600,
            window_limit=99,
            on_store_error="deny",
            enforce=False,
        )
    )
    assert (found.level, found.subject, found.capacity, found.on_store_error) == ("tool", "github/s*", 7, "deny")
    assert found.rate.per_s == pytest.approx(90.5 / 60)
    assert found.cost == Cost(default=2, methods={"tools/list": 3}, tools={"github/search": 5.5})
    assert found.window is not None and (found.window.per, found.window.requests) == (3600, 99)
    assert not found.enforce


def test_what_is_null_or_empty_is_absent() -> None:
    """A form that saves an empty text means nothing by it."""
    assert limit_of(row()) == limit_of(row(subject=""))
    assert limit_of(row()).subject is None and limit_of(row()).window is None


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"refill_per_minute": nan}, "refill_per_minute: a rate is more than 0, and at most 1,000,000 per second"),
        ({"refill_per_minute": inf}, "refill_per_minute: a rate is more than 0, and at most 1,000,000 per second"),
        ({"refill_per_minute": -1.0}, "refill_per_minute: a rate is more than 0, and at most 1,000,000 per second"),
        ({"refill_per_minute": 5e-324}, "refill_per_minute: a rate is more than 0, and at most 1,000,000 per second"),
        ({"refill_per_minute": 1e-9}, "at this 'rate' the bucket takes more than a year to fill"),
        ({"capacity": 0}, "capacity: must be 1 or more"),
        ({"capacity": 2_000_000_000}, "capacity: must be 1000000000 or less"),
        ({"cost": nan}, "cost: expected a number"),
        ({"cost": 11.0}, "the highest cost is more than the 'burst': such a request could never pass"),
        ({"costs": {"default": 2}}, "costs.default: this price is the column cost"),
        ({"costs": {"tool": {}}}, "costs.tool: unknown key; did you mean 'tools'?"),
        ({"costs": {"tools": []}}, "costs.tools: expected keys and values ('key: value')"),
        ({"costs": {"tools": {"search": 2}}}, "costs.tools.search: a tool is written server/tool, with a '*' "
                                              "at the end for all that begin so"),
        ({"costs": {"methods": {"tools/list": "secret"}}}, "costs.methods.tools/list: expected a number"),
        ({"window_s": 0, "window_limit": 1}, "window_s: must be longer than 0"),
        ({"window_s": 999_999_999, "window_limit": 1}, "window_s: a duration is at most ten years"),
        ({"window_s": 86400 * 400, "window_limit": 5}, "window_s: a window is at most a year long"),
        ({"window_s": 5, "window_limit": 0}, "window_limit: must be 1 or more"),
        ({"level": "everyone"}, "level: expected 'global', 'tenant', 'tier', 'key', 'server', 'tool' or "
                                "'client_address'"),
        ({"subject": "a*b"}, "subject: a name, or its beginning and a '*'; without blanks, '..', '%' and any "
                             "other '*'"),
        ({"level": "client_address", "subject": "secret"},
         "the 'subject' of this level is an address or network: 10.1.2.3, 10.0.0.0/8, 2001:db8::/32"),
        ({"on_store_error": "x"}, "on_store_error: expected 'local', 'deny' or 'allow'"),
    ],
)  # fmt: skip
def test_each_mistake_names_its_column(columns: dict[str, Any], sentence: str) -> None:
    """And shows no value."""
    with pytest.raises(ValueError, match=r".") as caught:
        limit_of(row(**columns))
    assert caught.value.__cause__ is None
    assert str(caught.value) == sentence


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["methods", "tools", "default", "x"]), _JSON, max_size=3),
    st.floats(),
    st.floats(),
    st.integers(-(2**31), 2**31 - 1),
    st.none() | st.text(max_size=5),
)
def test_whatever_stands_in_a_row_is_a_rule_or_one_sentence(
    costs: dict[str, Any], refill: float, cost: float, number: int, subject: str | None
) -> None:
    """The table's checks let NaN, infinity and any JSON through."""
    odd = row(
        costs=costs, refill_per_minute=refill, cost=cost, capacity=number, subject=subject, window_s=number,
        window_limit=number,
    )  # fmt: skip
    try:
        found = limit_of(odd)
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert isinstance(found, LimitRule)
        assert 0 < found.rate.per_s < inf and found.capacity >= max(found.cost.prices()) > 0
