"""A row of `feature_flags` read as a flag of the configuration: the same model, checked in the same way.

Owns which column is which key. A row is any object with attributes named as the columns; JSON is decoded. Failures are
ValueErrors with one sentence that names the column and never shows a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from pydantic import ValidationError

from proxy.config.fields import Model
from proxy.config.problems import path_text
from proxy.config.resilience import Flag
from proxy.config.wording import explain

_COLUMNS: Final = {"enabled": "is_enabled", "percent": "rollout_percent"}


class FlagRow(Protocol):
    """What is asked of a row."""

    @property
    def is_enabled(self) -> bool: ...
    @property
    def rollout_percent(self) -> float: ...
    @property
    def rules(self) -> Sequence[Any]: ...
    @property
    def variants(self) -> Mapping[str, Any]: ...


def flag_of(row: FlagRow) -> Flag:
    """The flag of a row, but for its key, which may be any text there. Raises ValueError."""
    flag = {
        "enabled": row.is_enabled,
        "percent": row.rollout_percent,
        "rules": row.rules,
        "variants": row.variants,
    }
    try:
        return _Config.model_validate({"flags": {"row": flag}}).flags["row"]
    except ValidationError as error:
        location, sentence = next(explain(error))
    within = tuple(element for element in location[2:] if element != "[key]")
    place = path_text((_COLUMNS.get(str(within[0]), within[0]), *within[1:])) if within else ""
    raise ValueError(f"{place}: {sentence}" if place else sentence)


class _Config(Model):
    """A part of `Config`, so that places are those that `wording.py` knows."""

    flags: dict[str, Flag]
