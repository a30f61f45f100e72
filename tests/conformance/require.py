"""What a test does when the JavaScript side is missing: skip on a developer's machine, fail in CI."""

from __future__ import annotations

import os

import pytest

from tests.conformance.npm import Node, NpmUnavailable, ensure


def require_node() -> Node:
    """The installed npm tree; without it the test is skipped, or failed where `CI` is set."""
    try:
        return ensure()
    except NpmUnavailable as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI needs the npm packages of tests/conformance: {error}", pytrace=False)
        pytest.skip(f"npm packages are not available: {error}")
