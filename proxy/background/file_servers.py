"""Gives the servers of the configuration file rows in the registry, so that tools, counts and health can refer to them.

Owns when: at the start, after a reload, and again until it worked. It is quiet while PostgreSQL is away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.identity.records import SYSTEM_TENANT
from proxy.store.learned import FileServer, Unusable, ensure_rows
from proxy.store.pool import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.config.models import Server
    from proxy.store.database import Database

#: How often it is looked whether there are others, seconds.
STEP_S: Final = 2.0


class FileServers:
    """The step, and the servers whose rows are there."""

    def __init__(self, database: Database, servers: Callable[[], Mapping[str, Server]]) -> None:
        """`servers` gives those of the configuration in force: the same object for as long as it is the same."""
        self._database = database
        self._servers = servers
        self._done: Mapping[str, Server] | None = None
        #: Configurations whose servers PostgreSQL would not take.
        self.refused = 0

    async def step(self) -> None:
        """See to the rows, when the configuration is another than the last time."""
        servers = self._servers()
        if servers is self._done:
            return
        rows = [FileServer(name, server.url.partition("?")[0], server.transport) for name, server in servers.items()]
        try:
            async with self._database.tenant(SYSTEM_TENANT) as session:
                await ensure_rows(session, rows)
        except Unavailable:
            return
        except Unusable:
            self.refused += 1
        self._done = servers
