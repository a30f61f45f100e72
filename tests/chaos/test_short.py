"""`make chaos` counts what misses its target; here each scenario runs in its short form."""

from __future__ import annotations

from typing import Final

import pytest

from tests.chaos.run import PROOFS

#: They count, and nothing else: the others have figures of times, of CPU or of what happens meanwhile, and are alone.
SHARED: Final = {
    "truncation",
    "malformed",
    "endless",
    "upload",
    "exactly-once",
    "record-torn",
    "record-replay",
    "record-machine",
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.alone] * (name not in SHARED)) for name in PROOFS.functions]
)
def test_a_scenario_meets_its_targets_in_its_short_form(name: str) -> None:
    """A few seconds; what the noise of a machine spoils has wider targets there."""
    assert PROOFS.run(name, short=True) == 0
