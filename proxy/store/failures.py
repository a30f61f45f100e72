"""What becomes of a statement that fails while rows are written beside the requests: refused for good, or later.

Owns which errors of PostgreSQL are which, and how rows are written when one of them is refused. Somebody who was faster
in a circle of locks (a deadlock) is no reason to lose rows or to make noise: they are written later. Any other error is
a bug, and passes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import asyncpg

from proxy.store.pool import Unavailable

_Row = TypeVar("_Row")

#: What is wrong with values: bad data, a rule of the table, more than an index or a parser takes.
REFUSED: Final = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)
#: There is no table, column or role yet, or somebody else was faster: later, perhaps.
LATER: Final = (
    asyncpg.TransactionRollbackError, asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError,
    asyncpg.InsufficientPrivilegeError, asyncpg.InvalidParameterValueError,
)  # fmt: skip


class Unusable(Exception):
    """PostgreSQL refuses the values, and would refuse them again."""


@contextmanager
def told_apart() -> Iterator[None]:
    """Around statements that write rows: raises Unusable for what is refused for good, Unavailable for later."""
    try:
        yield
    except REFUSED as error:
        raise Unusable(type(error).__name__) from None
    except LATER as error:
        raise Unavailable(type(error).__name__) from None


async def write_usable(rows: Sequence[_Row], write: Callable[[Sequence[_Row]], Awaitable[None]]) -> int:
    """Write rows, each `write` in a transaction of its own; how many were refused: one holds up no other.

    Raises what `write` raises but Unusable; some may be written then, so that they are written again."""
    try:
        await write(rows)
    except Unusable:
        if len(rows) == 1:
            return 1
        half = len(rows) // 2
        return await write_usable(rows[:half], write) + await write_usable(rows[half:], write)
    return 0
