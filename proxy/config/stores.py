"""The databases of the configuration: PostgreSQL and Redis, one's own or embedded.

Owns shapes only. Without either section the proxy works alone: nothing is kept but log lines, and limits are counted
by each process for itself. DSNs and URLs may hold passwords, so they are secrets: no repr and no dump shows one.
"""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from proxy.config.fields import Model, Networks, Secret
from proxy.config.units import PositiveDuration

_DSN_SCHEMES: Final = ("postgresql", "postgres")
_REDIS_SCHEMES: Final = ("redis", "rediss", "unix")


def _parts(value: SecretStr) -> tuple[str, bool]:
    """Scheme, and whether the rest makes sense; urlsplit's own complaints repeat the value."""
    try:
        parts = urlsplit(value.get_secret_value())
        return parts.scheme, parts.port != 0
    except ValueError:
        return "", False


def _dsn(value: SecretStr) -> SecretStr:
    scheme, sound = _parts(value)
    if scheme not in _DSN_SCHEMES or not sound:
        raise ValueError("a DSN looks like postgresql://user:password@host:5432/database")
    return value


def _redis_url(value: SecretStr) -> SecretStr:
    scheme, sound = _parts(value)
    if scheme not in _REDIS_SCHEMES or not sound:
        raise ValueError("a Redis URL looks like redis://:password@host:6379/0, rediss://... or unix://path")
    return value


Dsn = Annotated[Secret, AfterValidator(_dsn)]
RedisUrl = Annotated[Secret, AfterValidator(_redis_url)]


class PostgresPool(Model):
    """Most connections of this process to each place; a LISTEN connection comes on top."""

    write: Annotated[int, Field(ge=1, le=1000)] = 10
    """Connections to `dsn`."""
    read: Annotated[int, Field(ge=1, le=1000)] = 5
    """Connections to `read_dsn`."""
    analytics: Annotated[int, Field(ge=1, le=1000)] = 2
    """Connections to `analytics_dsn`."""


class PostgresTimeouts(Model):
    """Deadlines towards PostgreSQL. None is ever spent on the path of a request."""

    connect: PositiveDuration = 1.0
    """TCP, TLS and authentication."""
    acquire: PositiveDuration = 0.5
    """Waiting for a connection of the pool."""
    statement: PositiveDuration = 0.5
    """Each statement to `dsn` and `read_dsn`; a server that says nothing for longer is given up for a while."""
    analytics: PositiveDuration = 30.0
    """Each statement to `analytics_dsn`."""


class Postgres(Model):
    """The database that is shared with the front end of MCP Manager."""

    dsn: Dsn | None = None
    """Where it is, such as postgresql://user:${PASSWORD}@host/database. Its user needs the roles mcp_manager_app,
    _audit, _admin and _sync."""
    read_dsn: Dsn | None = None
    """A replica for reading; absent: `dsn`."""
    analytics_dsn: Dsn | None = None
    """A replica for long queries; absent: `dsn`."""
    owner_dsn: Dsn | None = None
    """The same database with a user who may change tables, for migrations only; absent: `dsn`."""
    embedded: bool = False
    """Start a PostgreSQL of our own in `state_dir`, instead of `dsn`. Needs the extra `embedded`."""
    auto_migrate: bool = False
    """Bring the tables up to date at start. Always so with `embedded`."""
    pool: PostgresPool = PostgresPool()
    """Numbers of connections."""
    timeouts: PostgresTimeouts = PostgresTimeouts()
    """Deadlines towards it."""

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> Postgres:
        given = (self.dsn, self.read_dsn, self.analytics_dsn, self.owner_dsn)
        if self.embedded and any(dsn is not None for dsn in given):
            raise ValueError("with 'embedded: true' there is no 'dsn' of any kind")
        if not self.embedded and self.dsn is None:
            raise ValueError("needs a 'dsn', or 'embedded: true'")
        return self


class Registry(Model):
    """Servers, routes and rules that tenants keep in PostgreSQL."""

    private_networks: Networks = ()
    """Networks in which servers of tenants may stand although they are not public; servers of this file, and those
    that all tenants share, may stand anywhere."""


class Redis(Model):
    """Where replicas count together."""

    url: RedisUrl | None = None
    """Where it is, such as redis://:${PASSWORD}@host:6379/0."""
    embedded: bool = False
    """Start one of our own in `state_dir`, instead of `url`. Needs the extra `embedded`."""

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> Redis:
        if self.embedded == (self.url is not None):
            raise ValueError("needs a 'url' or 'embedded: true', and not both")
        return self
