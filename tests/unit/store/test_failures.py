"""Errors of PostgreSQL are told apart: refused for good, or later."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.store.failures import Unusable, told_apart, write_usable
from proxy.store.pool import Unavailable


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (asyncpg.InvalidTextRepresentationError, Unusable),
        (asyncpg.ForeignKeyViolationError, Unusable),
        (asyncpg.ProgramLimitExceededError, Unusable),
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


@given(st.lists(st.booleans(), min_size=1, max_size=60))
async def test_rows_that_are_refused_hold_up_no_others(usable: list[bool]) -> None:
    """Whichever they are: each of the others is written once, in its order."""
    written: list[int] = []

    async def write(rows: Sequence[int]) -> None:
        if not all(usable[row] for row in rows):
            raise Unusable
        written.extend(rows)

    assert await write_usable(range(len(usable)), write) == usable.count(False)
    assert written == [row for row, is_usable in enumerate(usable) if is_usable]


async def test_what_stops_all_rows_is_told() -> None:
    """They wait, then."""

    async def write(_: Sequence[int]) -> None:
        raise Unavailable

    with pytest.raises(Unavailable):
        await write_usable([1, 2], write)
