"""What becomes of a statement that fails while rows are written beside the requests: refused for good, or later.

Owns which errors of PostgreSQL are which. Anything else is a bug, and passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg

from proxy.store.learned import Unusable
from proxy.store.pool import Unavailable

_REFUSED: Final = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)
#: There is no table, column or role yet, or somebody else was faster: later, perhaps.
LATER: Final = (
    asyncpg.TransactionRollbackError, asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError,
    asyncpg.InsufficientPrivilegeError, asyncpg.InvalidParameterValueError,
)  # fmt: skip


@contextmanager
def told_apart() -> Iterator[None]:
    """Around statements that write rows: raises Unusable for what is refused for good, Unavailable for later."""
    try:
        yield
    except _REFUSED as error:
        raise Unusable(type(error).__name__) from None
    except LATER as error:
        raise Unavailable(type(error).__name__) from None
