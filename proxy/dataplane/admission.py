"""Whom the data plane lets in: built whole from configuration and registry, swapped by one assignment.

Owns what the phases `identity.py` and `authorize.py` ask, and how a change of rows becomes a new one. It stands beside
the snapshot instead of in it: keys and sign-ins change far more often than routes, and a stream that runs for days
keeps the snapshot it began with, but not every directory since. It knows no request.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from proxy.dataplane.context import ANONYMOUS
from proxy.identity.access import AccessControl
from proxy.identity.client_address import ClientAddress
from proxy.identity.credentials import CredentialReader
from proxy.identity.directory import Directory
from proxy.identity.principal import Principal, Scope, read_scopes
from proxy.identity.records import TABLES, record_of, rule_of

if TYPE_CHECKING:
    from proxy.config.models import Config
    from proxy.identity.keys import PepperRing

Rows = Mapping[str, Mapping[str, Any]]
"""Table -> id -> row, whose attributes are named as the columns."""
Change = tuple[str, str]
"""Table and id of a row that changed; id '' for the whole table."""

RULES: Final = "server_access_control"
#: Tables that an admission is made of.
CONCERNS: Final = TABLES | {RULES}


class Freshness:
    """Whether the rows in memory are those of the database, as far as anyone knows; one for the whole process."""

    __slots__ = ("current",)

    def __init__(self, current: bool = False) -> None:
        self.current = current


@dataclass(frozen=True, slots=True)
class Admission:
    """Everything that decides who is let in."""

    reader: CredentialReader | None
    """Finds credentials; None where there are none: then header fields are nobody's business but the server's."""
    addresses: ClientAddress
    directory: Directory | None
    """All credentials; None with `reader`."""
    access: AccessControl
    anonymous: Principal | None
    """Who shows no credential; None: nobody may."""
    freshness: Freshness

    def holds(self, principal: Principal, now: float) -> bool:
        """Whether somebody who was let in earlier would be let in now. `now`: wall clock, seconds since 1970."""
        if principal is ANONYMOUS:
            return self.anonymous is not None
        return self.directory is not None and self.directory.holds(principal, now)


class AdmissionBuilder:
    """Makes admissions. `build` and `patched` may run in a thread: they only make new objects."""

    def __init__(self, ring_of: Callable[[Config], PepperRing], freshness: Freshness) -> None:
        """`ring_of` reads or makes the peppers; it may raise OSError."""
        self._ring_of = ring_of
        self._freshness = freshness

    def build(self, config: Config, rows: Rows) -> Admission:
        """The admission of a configuration and all rows. Raises OSError when the peppers cannot be had."""
        listen, auth = config.listen, config.auth
        reader = directory = None
        if config.postgres is not None:
            secret = auth.session_secret.get_secret_value() if auth.session_secret is not None else ""
            reader = CredentialReader(secret, cookie_prefix=auth.cookie_prefix)
            roles = {role: read_scopes(names) for role, names in auth.roles.items()}
            directory = _directory(self._ring_of(config), rows, roles)
        return Admission(
            reader=reader,
            addresses=ClientAddress(listen.trusted_proxies, listen.forwarded_fields),
            directory=directory,
            access=_rules(rows),
            anonymous=ANONYMOUS if config.anonymous else None,
            freshness=self._freshness,
        )

    def patched(self, admission: Admission, rows: Rows, changes: Collection[Change]) -> Admission:
        """The admission with these rows as they are now; compiles only what the changes concern."""
        directory = admission.directory
        if directory is None:
            return admission
        records = {change for change in changes if change[0] in TABLES}
        if records:
            found = [(rows.get(table, {}).get(row), (table, row)) for table, row in records]
            put = [record_of(table, row) for row, (table, _) in found if row is not None]
            directory = directory.patched(put, [place for row, place in found if row is None])
        ruled = any(table == RULES for table, _ in changes)
        return replace(admission, directory=directory, access=_rules(rows) if ruled else admission.access)


def _directory(ring: PepperRing, rows: Rows, roles: Mapping[str, frozenset[Scope]]) -> Directory:
    records = (record_of(table, row) for table in TABLES for row in rows.get(table, {}).values())
    return Directory.of(ring, records, roles)


def _rules(rows: Rows) -> AccessControl:
    return AccessControl(rule_of(row) for row in rows.get(RULES, {}).values())
