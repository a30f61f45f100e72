"""Who shares the database in the proof of isolation, and what a call of the store comes down to there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NamedTuple
from uuid import UUID

from proxy.identity.records import SYSTEM_TENANT
from proxy.store.database import Session
from tests.unit.store.test_migrate_schema_isolation import ROWS


@dataclass(frozen=True)
class Tenant:
    """One of those who share the database; `rows` makes one row of his in every table that has tenants."""

    id: str
    slug: str

    @property
    def rows(self) -> str:
        made = ROWS.partition(";")[2] if self.id == SYSTEM_TENANT else ROWS  # the system tenant itself is there
        return made.replace("$1", f"'{self.id}'::uuid")

    @property
    def key(self) -> str:
        """Id of his row in `enhanced_api_keys`."""
        return self.id[-1].rjust(12, "0")

    def __repr__(self) -> str:
        return self.slug


TENANTS: Final = (
    Tenant(str(UUID(int=0xA)), "ta"),
    Tenant(str(UUID(int=0xB)), "tb"),
    Tenant(SYSTEM_TENANT, "system"),
)


class Shown(NamedTuple):
    """A row that a call returned: the table, its id, and whose it says it is ('' for nothing said)."""

    table: str
    id: str
    owner: str


Call = Callable[[Session, Tenant, Tenant, int], Awaitable[list[Shown]]]
