"""Fixtures that every folder shares."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

#: Parts of names of tests that are drawn anew by each process: ports, and keys that were made for a test.
_DRAWN = re.compile(r"(?<=:)[0-9]{5}\b|(?<=mcpm_)\w+")

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_make_parametrize_id(val: object) -> str | None:
    """Processes that share the tests between them must agree on their names."""
    if not isinstance(val, str) or _DRAWN.search(val) is None:
        return None
    return _DRAWN.sub("...", val)


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """Logging is global: leave it as it was found."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
