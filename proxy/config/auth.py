"""Who may use the proxy, as configured: what is needed to check credentials, and whether any is needed.

Owns shapes only. The credentials themselves are rows of PostgreSQL (docs/identity.md); the secrets here make them
checkable, and none of them is in the database.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from proxy.config.fields import Model, Secret, as_list

#: Characters of a pepper or signing secret: enough for 96 bits in base64.
_SHORTEST: Final = 16

Scopes = Annotated[
    tuple[Literal["proxy", "read", "write", "admin"], ...],
    BeforeValidator(as_list, json_schema_input_type=str | tuple[str, ...]),
]


def _long(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < _SHORTEST:
        raise ValueError(f"a secret here has {_SHORTEST} or more characters")
    return value


_LongSecret = Annotated[Secret, AfterValidator(_long)]


def _roles() -> dict[str, Scopes]:
    return {
        "admin": ("proxy", "read", "write", "admin"),
        "user": ("proxy", "read", "write"),
        "viewer": ("proxy", "read"),
    }


class Auth(Model):
    """Who may use the proxy. API keys and sign-ins are kept in PostgreSQL: without `postgres` everyone is anonymous."""

    anonymous: bool | None = None
    """Let clients in that show no credential. Absent: only where `listen.host` is loopback and there are no
    `trusted_proxies`."""
    peppers: dict[Annotated[int, Field(ge=1, le=32767)], _LongSecret] = {}  # noqa: RUF012 (pydantic copies it)
    """Version to secret of 16 or more characters: keys the hashes of API keys. The highest version hashes new keys, the
    others keep older keys good. Empty: one is made once and kept in `state_dir`, which several replicas must share."""
    session_secret: _LongSecret | None = None
    """BETTER_AUTH_SECRET of the front end. With it, signed session cookies are credentials, and never go upstream."""
    cookie_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "better-auth"
    """Prefix of the front end's cookies (Better-Auth's `advanced.cookiePrefix`)."""
    roles: dict[str, Scopes] = Field(default_factory=_roles)
    """Scopes of signed-in users by role; a role that is not listed has none."""
