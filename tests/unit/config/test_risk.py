"""Risk as written: what is taken, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from proxy.config.risk import Risk, RiskRule, Volume
from proxy.config.units import Recurrence


def test_without_a_word_destructive_tools_are_risky_and_no_hour_is() -> None:
    """What needs to be known of the people, their hours, is asked for."""
    risk = Risk()
    assert (risk.destructive, risk.open_world, risk.unhinted, risk.hours) == ("high", "medium", "low", ())
    assert risk.denials["forbidden"] == "high"
    assert risk.volume == Volume()


def test_hours_are_written_as_windows_that_come_back() -> None:
    """With weekdays and a zone."""
    risk = Risk.model_validate({"hours": ["Mon-Fri 07:00-19:00 Europe/Berlin"]})
    assert risk.hours == (Recurrence.parse("Mon-Fri 07:00-19:00 Europe/Berlin"),)


def test_a_rule_of_ones_own_has_a_name_and_a_level() -> None:
    """The rest fits everything."""
    risk = Risk.model_validate({"rules": [{"name": "deletes", "targets": ["delete_*"], "level": "critical"}]})
    assert risk.rules == (RiskRule(name="deletes", targets=("delete_*",), level="critical"),)
    assert risk.rules[0].methods == ()


@pytest.mark.parametrize(
    "written",
    [
        {"destructive": "severe"},
        {"hours": ["Mon-Fri"]},
        {"rules": [{"level": "high"}]},
        {"rules": [{"name": "x", "targets": [""], "level": "high"}]},
        {"volume": {"factor": 1}},
        {"volume": {"minimum": 0}},
        {"denials": {"forbidden": "never"}},
        {"unknown": 1},
    ],
)
def test_what_cannot_be_meant_is_refused(written: dict[str, Any]) -> None:
    """Unknown levels and keys, windows that are none, factors that everybody exceeds."""
    with pytest.raises(ValidationError):
        Risk.model_validate(written)


@given(st.floats(min_value=1.01, max_value=1000), st.integers(1, 1000))
def test_any_factor_above_one_is_taken(factor: float, minimum: int) -> None:
    """And kept as it is."""
    volume = Volume.model_validate({"factor": factor, "minimum": minimum})
    assert (volume.factor, volume.minimum) == (factor, minimum)
