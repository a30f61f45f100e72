"""Who asks: the one value that every credential becomes, and the scopes it can have.

Owns what each scope permits and which scopes a role has. It knows no credential, no table and no request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import inf
from types import MappingProxyType
from typing import Final

from proxy.identity.patterns import EVERYTHING, Grants
from proxy.mcp.methods import Access


class Scope(Enum):
    """What a principal may do at all (design section 8)."""

    READ = "read"
    """Lists, gets, reads, subscriptions."""
    WRITE = "write"
    """Tool calls, tasks, and every method that is not known."""
    PROXY = "proxy"
    """Use of the data plane at all."""
    ADMIN = "admin"
    """The admin API; nothing on the data plane."""


#: What a message needs besides PROXY; None for no more. Keeping a session going needs no more.
SCOPE_OF: Final[Mapping[Access, Scope | None]] = MappingProxyType(
    {Access.SESSION: None, Access.READ: Scope.READ, Access.EXECUTE: Scope.WRITE}
)

_USE: Final = frozenset((Scope.PROXY, Scope.READ, Scope.WRITE))
#: Scopes of a signed-in user by role (the admin plugin of Better-Auth). A role that is not listed has none.
ROLE_SCOPES: Final[Mapping[str, frozenset[Scope]]] = MappingProxyType(
    {
        "admin": _USE | {Scope.ADMIN},
        "user": _USE,
        "viewer": frozenset((Scope.PROXY, Scope.READ)),
    }
)
#: Better-Auth leaves `role` empty for users made before its admin plugin was added, and takes them for these.
DEFAULT_ROLE: Final = "user"


class Source(Enum):
    """What kind of credential it was: the table it stands in."""

    KEY = "enhanced_api_keys"
    LEGACY_KEY = "api_keys"
    BEARER = "api_tokens"
    SESSION = "session"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. Made when its record is loaded, not per request."""

    id: str
    """Stable for as long as it is the same client: `key:...`, `token:...`, `user:...`. Sessions are bound to it."""
    tenant: str
    """Id of the tenant; '' for none."""
    tenant_slug: str
    """The tenant's name in routes and in the log; '' for none."""
    user: str
    """Id of the user who owns the credential; '' for none."""
    tier: str
    """`admin`, `user`, `anonymous`, or what the key says: which limits apply."""
    scopes: frozenset[Scope]
    source: Source
    key_id: str = ""
    """Id of the row that the credential stands in; never a secret."""
    impersonator: str = ""
    """Id of the administrator who acts as this user; '' for none."""
    roles: frozenset[str] = frozenset()
    """Roles of a signed-in user."""
    allowed: Grants = EVERYTHING
    """Servers and tools that the credential is limited to."""
    requests_per_minute: int = 0
    """The credential's own limit; 0 for that of its tier."""
    burst: int = 0
    """Requests at once; 0 for a minute's worth."""
    expires_at: float = inf
    """Wall clock, seconds since 1970."""


def anonymous(scopes: frozenset[Scope] = _USE) -> Principal:
    """Everyone who needs no credential: a loopback listener, or one that the configuration opens."""
    return Principal("anonymous", "", "", "", "anonymous", scopes, Source.ANONYMOUS)


def roles_of(text: str | None) -> frozenset[str]:
    """The roles in Better-Auth's `role`: several are joined by commas."""
    roles = frozenset(role.strip() for role in (text or "").split(",")) - {""}
    return roles or frozenset((DEFAULT_ROLE,))


def scopes_of(roles: frozenset[str], table: Mapping[str, frozenset[Scope]] = ROLE_SCOPES) -> frozenset[Scope]:
    """Everything that one of the roles permits."""
    return frozenset[Scope]().union(*(table.get(role, frozenset[Scope]()) for role in roles))


def read_scopes(names: tuple[str, ...]) -> frozenset[Scope]:
    """The scopes among the names; a name that is none permits nothing."""
    return frozenset(scope for scope in Scope if scope.value in names)
