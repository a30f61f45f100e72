"""A row of `rate_limit_configs` read as a rule of the configuration: the same model, checked in the same way.

Owns which column is which key. A row is any object with attributes named as the columns; JSON is decoded. Failures are
ValueErrors with one sentence that names the column and never shows a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

from pydantic import ValidationError

from proxy.config.fields import Model
from proxy.config.limits import LimitRule, Rate
from proxy.config.problems import Location, path_text
from proxy.config.wording import explain

#: Place in a rule of the configuration file -> column, where the names differ.
_COLUMNS: Final[Mapping[Location, str]] = MappingProxyType(
    {
        ("rate",): "refill_per_minute",
        ("burst",): "capacity",
        ("window",): "window_s",
        ("window", "per"): "window_s",
        ("window", "requests"): "window_limit",
        ("cost", "default"): "cost",
    }
)


class LimitRow(Protocol):
    """What is asked of a row."""

    @property
    def level(self) -> str: ...
    @property
    def subject(self) -> str | None: ...
    @property
    def capacity(self) -> int: ...
    @property
    def refill_per_minute(self) -> float: ...
    @property
    def cost(self) -> float: ...
    @property
    def costs(self) -> Mapping[str, Any]: ...
    @property
    def window_s(self) -> int | None: ...
    @property
    def window_limit(self) -> int | None: ...
    @property
    def on_store_error(self) -> str: ...
    @property
    def enforce(self) -> bool: ...


def limit_of(row: LimitRow) -> LimitRule:
    """The rule of a row, but for its name, which may be any text there. Raises ValueError."""
    if "default" in row.costs:
        raise ValueError("costs.default: this price is the column cost")
    rule: dict[str, Any] = {
        "name": "row",
        "level": row.level,
        "subject": row.subject or None,
        "burst": row.capacity,
        "cost": {**row.costs, "default": row.cost},
        "on_store_error": row.on_store_error,
        "enforce": row.enforce,
        "rate": Rate(row.refill_per_minute, 60.0),
    }
    if row.window_s is not None:
        rule["window"] = {"requests": row.window_limit, "per": f"{row.window_s}s"}
    try:
        return _Config.model_validate({"limits": {"rules": (rule,)}}).limits.rules[0]
    except ValidationError as error:
        location, sentence = next(explain(error))
    place = path_text(_column_of(location[3:]))
    raise ValueError(f"{place}: {sentence}" if place else sentence)


class _Limits(Model):
    """A part of `RateLimits`, like the next of `Config`, so that places are those that `wording.py` knows."""

    rules: tuple[LimitRule, ...]


class _Config(Model):
    limits: _Limits


def _column_of(location: Location) -> Location:
    """`location` counts from the rule."""
    location = tuple(element for element in location if element != "[key]")
    if location in _COLUMNS:
        return (_COLUMNS[location],)
    return ("costs", *location[1:]) if location[:1] == ("cost",) else location
