"""Revisions: every released one has its era, and no other text has one."""

import pytest
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from proxy.mcp import revisions


def test_the_eras_are_those_of_the_reference_sdk() -> None:
    """The handshake revisions are legacy, the rest modern, oldest first."""
    assert revisions.LEGACY == HANDSHAKE_PROTOCOL_VERSIONS
    assert revisions.MODERN == MODERN_PROTOCOL_VERSIONS


@pytest.mark.parametrize(
    ("declared", "revision"),
    [
        (None, "2025-03-26"),
        ("2024-11-05", "2024-11-05"),
        ("2026-07-28", "2026-07-28"),
        ("", ""),
        ("2026-07-29", ""),
        ("v999.0.0", ""),
        ("2025-11-25, 2025-11-25", ""),
    ],
)
def test_a_header_names_a_known_revision_or_none(declared: str | None, revision: str) -> None:
    """Absence means 2025-03-26; anything unknown stands for no revision at all."""
    assert revisions.revision_of(declared) == revision
