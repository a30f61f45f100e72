"""A database whose transactions may go wrong: the one fault that a writer cannot see is a commit without an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.store.database import Database, Session
from proxy.store.learned import Unusable
from proxy.store.pool import TooSlow, Unavailable

#: How a transaction fails: before anything of it happened, or after its commit.
FAILURES = ("away", "lost", "slow")


class Doubtful:
    """The next transactions fail as `fails` says, the others do not. Besides FAILURES there is `unusable`: refused."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.fails: list[str] = []

    @asynccontextmanager
    async def tenant(self, tenant: str) -> AsyncIterator[Session]:
        how = self.fails.pop(0) if self.fails else ""
        if how == "away":
            raise Unavailable("nobody there")
        if how == "unusable":
            raise Unusable("a foreign key")
        async with self._database.tenant(tenant) as session:
            yield session
        if how == "lost":
            raise Unavailable("the connection went before the answer came")
        if how == "slow":
            raise TooSlow("the answer took too long")
