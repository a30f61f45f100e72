"""Errors of PostgreSQL are told apart: refused for good, or later."""

from __future__ import annotations

import asyncpg
import pytest

from proxy.store.failures import told_apart
from proxy.store.learned import Unusable
from proxy.store.pool import Unavailable


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (asyncpg.InvalidTextRepresentationError, Unusable),
        (asyncpg.ForeignKeyViolationError, Unusable),
        (asyncpg.DeadlockDetectedError, Unavailable),
        (asyncpg.UndefinedTableError, Unavailable),
        (asyncpg.InsufficientPrivilegeError, Unavailable),
        (asyncpg.PostgresSyntaxError, asyncpg.PostgresSyntaxError),
    ],
)
def test_an_error_says_whether_to_try_again(raised: type[Exception], told: type[Exception]) -> None:
    """By its class; what nobody expects passes as it is."""
    with pytest.raises(told) as seen, told_apart():
        raise raised("what it says may quote a row")
    assert told is raised or str(seen.value) == raised.__name__
