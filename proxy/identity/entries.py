"""One credential as the request path needs it: the principal it stands for, and every limit on it as a number.

Owns compiling a row, its user and its tenant into an `Entry`. A limit that cannot be read closes the credential; it
never opens it. It knows no request and no index.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from math import inf
from typing import Final

from proxy.identity.addresses import Networks, read_network
from proxy.identity.patterns import read_grants
from proxy.identity.principal import ROLE_SCOPES, Principal, Scope, Source, read_scopes, roles_of, scopes_of
from proxy.identity.records import KeyRecord, SessionRecord, TenantRecord, TokenRecord, UserRecord

#: A row whose tenant or user is gone, disabled or banned for good.
_NEVER: Final = -inf
_NOTHING_STORED: Final = (bytes(32), 0)
#: Rotations that are followed back to the first key.
_MAX_ROTATIONS: Final = 100


class Entry:
    """What a request with one credential is checked against. Times are wall clock, seconds since 1970."""

    __slots__ = ("banned_until", "networks", "not_after", "not_before", "origins", "principal", "stored")

    def __init__(self, principal: Principal, not_before: float, not_after: float) -> None:
        self.principal = principal
        self.not_before = not_before
        self.not_after = not_after
        """Excluded; minus infinity for a credential that is revoked, or whose tenant or user is gone or disabled."""
        self.banned_until = -inf
        """Excluded; the ban of the user or of the impersonator."""
        self.networks: Networks | None = None
        self.origins: frozenset[str] | None = None
        self.stored: tuple[bytes, int] = _NOTHING_STORED
        """Hash of the secret, and the version of its pepper; for keys only."""

    def holds(self, now: float) -> bool:
        """Whether the credential is good at this moment."""
        return self.not_before <= now < self.not_after and now >= self.banned_until


class Surroundings:
    """The tenants and users that credentials belong to, the keys that they replace, and what roles permit."""

    __slots__ = ("keys", "roles", "tenants", "users")

    def __init__(
        self,
        tenants: Mapping[str, TenantRecord],
        users: Mapping[str, UserRecord],
        keys: Mapping[str, KeyRecord],
        roles: Mapping[str, frozenset[Scope]] = ROLE_SCOPES,
    ) -> None:
        self.tenants = tenants
        self.users = users
        self.keys = keys
        self.roles = roles

    def tenant_slug(self, tenant_id: str) -> str:
        """'' for no tenant, and for one that is not known."""
        tenant = self.tenants.get(tenant_id)
        return "" if tenant is None else tenant.slug

    def serves(self, tenant_id: str, *user_ids: str) -> bool:
        """Whether the tenant is active and the users exist; '' stands for none."""
        if tenant_id and ((tenant := self.tenants.get(tenant_id)) is None or tenant.status != "active"):
            return False
        return all(user_id in self.users for user_id in user_ids if user_id)

    def first_key(self, record: KeyRecord) -> str:
        """Id of the key that was rotated into this one: the client stays the same, and so do its sessions."""
        for _ in range(_MAX_ROTATIONS):
            if (older := self.keys.get(record.rotated_from)) is None or older.tenant_id != record.tenant_id:
                break
            record = older
        return record.id

    def roles_of(self, user_id: str) -> frozenset[str]:
        """Roles of a user; none for nobody. Rules go by them; the scopes of a key are its own."""
        user = self.users.get(user_id)
        return frozenset() if user is None else roles_of(user.role)

    def banned_until(self, *user_ids: str) -> float:
        """End of the longest ban of one of the users, minus infinity without any."""
        return max((_ban_end(self.users[user_id]) for user_id in user_ids if user_id in self.users), default=-inf)


def compile_key(record: KeyRecord, around: Surroundings) -> Entry:
    """The entry of a row of `enhanced_api_keys`."""
    expires_at = _seconds(record.expires_at, inf)
    principal = Principal(
        id=f"key:{around.first_key(record)}",
        tenant=record.tenant_id,
        tenant_slug=around.tenant_slug(record.tenant_id),
        user=record.user_id,
        tier=record.tier,
        scopes=read_scopes(record.scopes),
        source=Source.KEY,
        key_id=record.id,
        roles=around.roles_of(record.user_id),
        allowed=read_grants(record.allowed_servers, record.allowed_tools),
        requests_per_minute=record.requests_per_minute or 0,
        burst=record.burst or 0,
        expires_at=expires_at,
    )
    good = record.revoked_at is None and around.serves(record.tenant_id, record.user_id)
    entry = Entry(principal, _seconds(record.not_before, -inf), expires_at if good else _NEVER)
    entry.banned_until = around.banned_until(record.user_id)
    entry.stored = record.secret_hmac, record.pepper_version
    if record.allowed_ips:
        entry.networks = _networks(record.allowed_ips)
    if record.allowed_origins:
        entry.origins = frozenset(record.allowed_origins)
    return entry


def compile_token(record: TokenRecord, around: Surroundings) -> Entry:
    """The entry of a row of `api_keys` or `api_tokens`."""
    expires_at = _seconds(record.expires_at, inf)
    source = Source(record.table)
    principal = Principal(
        id=f"{'token' if source is Source.BEARER else 'legacy'}:{record.id}",
        tenant=record.tenant_id,
        tenant_slug=around.tenant_slug(record.tenant_id),
        user=record.user_id,
        tier="user",
        scopes=read_scopes(record.scopes),
        source=source,
        key_id=record.id,
        roles=around.roles_of(record.user_id),
        expires_at=expires_at,
    )
    good = record.revoked_at is None and around.serves(record.tenant_id, record.user_id)
    entry = Entry(principal, -inf, expires_at if good else _NEVER)
    entry.banned_until = around.banned_until(record.user_id)
    return entry


def compile_session(record: SessionRecord, around: Surroundings) -> Entry:
    """The entry of a row of `session`: the user's scopes come from the user's roles, also under impersonation."""
    user = around.users.get(record.user_id, UserRecord(record.user_id))
    impersonator = record.impersonated_by
    roles = roles_of(user.role)
    expires_at = _seconds(record.expires_at, inf)
    principal = Principal(
        id=f"user:{record.user_id}",
        tenant=user.tenant_id,
        tenant_slug=around.tenant_slug(user.tenant_id),
        user=record.user_id,
        tier="admin" if "admin" in roles else "user",
        scopes=scopes_of(roles, around.roles),
        source=Source.SESSION,
        key_id=record.id,
        impersonator=impersonator,
        roles=roles,
        expires_at=expires_at,
    )
    good = around.serves(user.tenant_id, record.user_id, impersonator)
    entry = Entry(principal, -inf, expires_at if good else _NEVER)
    entry.banned_until = around.banned_until(record.user_id, impersonator)
    return entry


def _networks(texts: tuple[str, ...]) -> Networks:
    """The networks that can be read: one that cannot be lets nobody in, the others stay."""
    networks = []
    for text in texts:
        try:
            networks.append(read_network(text))
        except ValueError:
            continue
    return Networks(networks)


def _ban_end(user: UserRecord) -> float:
    return _seconds(user.ban_expires, inf) if user.banned else -inf


def _seconds(moment: datetime | None, default: float) -> float:
    return default if moment is None else moment.timestamp()
