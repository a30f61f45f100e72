"""The proof of alerts in its short form."""

from __future__ import annotations

import pytest

from tests.proofs import alerts


@pytest.mark.timeout(120)
@pytest.mark.alone
def test_alerts_are_told_within_an_interval_and_a_second() -> None:
    """From their condition to the receiver, and their ends likewise."""
    found = alerts.figures(short=True)
    assert len(found) == 10
    assert [figure.name for figure in found if figure.failed] == []
