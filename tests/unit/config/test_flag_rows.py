"""Rows of flags are read with the eyes of the configuration, and their failures name the columns."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.config.flag_rows import flag_of
from proxy.config.models import Flag
from proxy.store.rows import FlagRow

PLAIN: dict[str, Any] = {"is_enabled": True, "rollout_percent": 100.0, "rules": [], "variants": {}}


def row(**columns: Any) -> FlagRow:
    """A row with these columns, else the plainest one."""
    return FlagRow("f1", "t1", "new-search", **(PLAIN | columns))


def test_the_plainest_row_is_the_plainest_flag() -> None:
    """On for all."""
    assert flag_of(row()) == Flag()


def test_every_column_has_its_key() -> None:
    """Also for off, a share, rules and variants."""
    rules = [{"user": "u1", "variant": "b"}, {"tenant": "acme", "enabled": False}]
    read = flag_of(row(is_enabled=False, rollout_percent=12.5, rules=rules, variants={"a": 1, "b": 3}))
    written = {"enabled": False, "percent": 12.5, "rules": rules, "variants": {"a": 1, "b": 3}}
    assert read == Flag.model_validate(written)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"rollout_percent": 101.0}, "rollout_percent: must be 100 or less"),
        ({"rules": [{"usr": "u1"}]}, "rules[0].usr: unknown key; did you mean 'user'?"),
        ({"rules": [{"enabled": False}]}, "rules[0]: needs a 'tenant', a 'user' or a 'key'"),
        ({"rules": [{"user": "u1", "variant": "b"}]}, "a rule names a variant that is not among 'variants'"),
        ({"variants": {"a": 0}}, "one of 'variants' needs a weight above 0"),
        ({"variants": {"a": -1}}, "variants.a: must be 0 or more"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(columns: dict[str, Any], sentence: str) -> None:
    """By the name of the column."""
    with pytest.raises(ValueError, match=r".") as refused:
        flag_of(row(**columns))
    assert str(refused.value) == sentence
