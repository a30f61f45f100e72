"""`make chaos` counts what misses its target; here each scenario runs in its short form."""

from __future__ import annotations

from typing import Final

import pytest

from tests.chaos.run import PROOFS

#: Their figures are times of good calls by those without the fault, or CPU: not beside other tests.
ALONE: Final = {
    "dead-server",
    "hung-server",
    "slow-clients",
    "descriptors",
    "memory",
    "stall",
    "overload",
    "cancel-storm",
    "two-servers",
    "record-stopped",
    "record-frozen",
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.alone] * (name in ALONE)) for name in PROOFS.functions]
)
def test_a_scenario_meets_its_targets_in_its_short_form(name: str) -> None:
    """A few seconds; what the noise of a machine spoils has wider targets there."""
    assert PROOFS.run(name, short=True) == 0
