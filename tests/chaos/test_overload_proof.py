"""The proof of overload in its short form."""

from __future__ import annotations

import pytest

from tests.chaos.overload_proof import figures


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_twice_the_load_costs_neither_throughput_nor_shares() -> None:
    """A few seconds, with wider targets."""
    assert not [str(figure) for figure in figures(short=True) if figure.failed]
