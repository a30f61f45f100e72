"""Findings in words; which rows are blamed is shown by test_verify.py."""

from __future__ import annotations

from typing import get_args

import pytest

from proxy.audit.findings import Finding, Kind, explained


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_has_words(kind: Kind) -> None:
    """Without a place that is not filled in."""
    words = Finding(kind, "t", "s", 3, 9, "more").words
    assert words.endswith(" (more)")
    assert "{" not in words


def test_one_row_and_several_are_told_apart() -> None:
    """People read it."""
    assert Finding("missing", "t", "s", 3).words == "missing: row 3 is not there"
    assert Finding("missing", "t", "s", 3, 9).words == "missing: rows 3 to 9 are not there"


def test_a_finding_gets_its_place() -> None:
    """Tenant and segment are filled in, the rest stays."""
    found = Finding("changed", "", "", 3, 0, "x").at(("t", "s"))
    assert (found.tenant, found.segment, found.first, found.detail) == ("t", "s", 3, "x")


def test_nothing_suspect_needs_no_explanation() -> None:
    """An empty list of suspects."""
    assert list(explained([])) == []
