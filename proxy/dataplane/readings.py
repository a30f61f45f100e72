"""Rows of the registry, each read once: a row that is the same object as before is not read again.

Owns remembering, and filing by tenant. What a row means is `config/rows.py`'s; which rows count, and what is made of
them together, is `estates.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from proxy.config.models import Route, Server
from proxy.config.rows import Reach, names_files, reach_of_operator, reach_of_tenants, route_of, server_of
from proxy.identity.records import SYSTEM_TENANT


@dataclass(frozen=True, slots=True)
class OwnedServer:
    """A server, and the row that stands for it."""

    id: str
    """Of its row in `mcp_servers`; '' for a server of the configuration file that has none."""
    config: Server


Made = TypeVar("Made", OwnedServer, Route)


class Reading(Generic[Made]):
    """What one row means. Compared by identity: the same reading means that nothing changed."""

    __slots__ = ("made", "name", "problem", "reach", "row")

    def __init__(self, row: Any, reach: Reach, read: Callable[[Any, Reach], Made]) -> None:
        self.row: Any = row
        self.reach = reach
        self.name: str = row.name
        #: None for a row that is disabled or cannot be used.
        self.made: Made | None = None
        #: Why it cannot be used; '' when it can, or is not meant to.
        self.problem = ""
        try:
            self.made = read(row, reach) if row.is_enabled else None
        except ValueError as error:
            self.problem = str(error)

    def still_says(self, row: Any, reach: Reach) -> bool:
        """Whether reading this row would come to the same."""
        return self.row is row and self.reach is reach and not (reach.files and _depends_on_files(row))


class Reader(Generic[Made]):
    """Reads the rows of one table and files them by tenant."""

    def __init__(self, known: Mapping[str, Reading[Made]], read: Callable[[Any, Reach], Made]) -> None:
        """`known`: readings of an earlier time by id of the row."""
        self._known: Mapping[str, Reading[Made]] = known
        self._read: Callable[[Any, Reach], Made] = read
        self._filed: dict[str, list[Reading[Made]]] = {}
        self.readings: dict[str, Reading[Made]] = {}
        """By id of the row."""

    def take(self, row: Any, reach: Reach) -> None:
        """Read the row, unless that was done."""
        reading = self._known.get(row.id)
        if reading is None or not reading.still_says(row, reach):
            reading = Reading(row, reach, self._read)
        self.readings[row.id] = reading
        self._filed.setdefault(row.tenant_id, []).append(reading)

    def tenants(self) -> set[str]:
        """Ids of the tenants that have rows."""
        return set(self._filed)

    def of(self, tenant: str) -> list[Reading[Made]]:
        """The rows of a tenant, in the order of their names."""
        return sorted(self._filed.get(tenant, ()), key=lambda reading: reading.name)


def read_server(row: Any, reach: Reach) -> OwnedServer:
    """A row of `mcp_servers`. Raises ValueError."""
    return OwnedServer(row.id, server_of(row, reach))


def read_route(row: Any, _: Reach) -> Route:
    """A row of `routing_rules`. Raises ValueError."""
    return route_of(row)


def reaches_of(env: Mapping[str, str], slugs: Mapping[str, str], known: Mapping[str, Reach]) -> dict[str, Reach]:
    """What the rows of each tenant may refer to, by its id, the system tenant's included; from `known` where equal.

    `slugs`: id to slug of all tenants.
    """
    by_slug = reach_of_tenants(env, slugs.values())
    found = {tenant: by_slug[slug] for tenant, slug in slugs.items()} | {SYSTEM_TENANT: reach_of_operator(env)}
    return {tenant: known[tenant] if known.get(tenant) == reach else reach for tenant, reach in found.items()}


def _depends_on_files(row: Any) -> bool:
    return hasattr(row, "headers") and names_files(row)
