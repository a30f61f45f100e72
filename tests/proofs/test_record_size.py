"""The proof of the record's size in its short form."""

from __future__ import annotations

import pytest

from tests.proofs import record_size


@pytest.mark.timeout(180)
@pytest.mark.alone
def test_a_big_record_is_searched_dropped_and_verified(capsys: pytest.CaptureFixture[str]) -> None:
    """Every forged row is named, and nothing else; times may be longer than in full length."""
    assert record_size.main(["--short"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "failed: 0"
    assert "90 of 90 forged rows named" in out
