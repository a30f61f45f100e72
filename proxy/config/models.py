"""The configuration: every key, its type, its default and what it means. This file is the reference.

Owns shapes only: servers here, routes in `routes.py`, the proxy's own side in `listening.py`, `auth.py`, `limits.py`
and `stores.py`. Reading files, secrets and error places is `loader.py`; nothing here does I/O. Unknown keys are errors
everywhere. Durations and sizes are written `5s`, `4MiB`; in code they are seconds and bytes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, model_validator

from proxy.config.alerts import Alerts
from proxy.config.auth import Auth
from proxy.config.fields import FieldName, FieldValue, File, Model, Name, Strategy, Url, once
from proxy.config.limits import Blocking, LimitRule, RateLimits, RateLimitsWritten
from proxy.config.listening import Admin, Drain, Limits, Listen, ListenTimeouts, Log, Metrics, Sessions, Tls
from proxy.config.record import Record
from proxy.config.resilience import (
    Breaker,
    Flag,
    HealthCheck,
    Maintenance,
    Overload,
    Priorities,
    Queue,
    Retry,
    RetryBudget,
)
from proxy.config.retention import Retention
from proxy.config.routes import Affinity, Mirror, Route, RouteServer, When
from proxy.config.stores import Postgres, Redis, Registry
from proxy.config.tracing import Tracing
from proxy.config.units import Duration, PositiveDuration, Size

__all__ = [
    "Admin",
    "Affinity",
    "Alerts",
    "Answers",
    "Auth",
    "Blocking",
    "Breaker",
    "Config",
    "Drain",
    "Flag",
    "HealthCheck",
    "LimitRule",
    "Limits",
    "Listen",
    "ListenTimeouts",
    "Log",
    "Maintenance",
    "Metrics",
    "Mirror",
    "Model",
    "Overload",
    "Pool",
    "Postgres",
    "Priorities",
    "Queue",
    "RateLimits",
    "Record",
    "Redis",
    "Registry",
    "Retention",
    "Retry",
    "RetryBudget",
    "Route",
    "RouteServer",
    "Server",
    "Sessions",
    "Strategy",
    "Timeouts",
    "Tls",
    "UpstreamTls",
    "When",
    "restart_keys",
]


class Timeouts(Model):
    """Deadlines of one upstream, each for a phase; 0 turns a deadline off where it says so."""

    connect: PositiveDuration = 5.0
    """Waiting for a pooled connection, name lookup, TCP and TLS handshake; then 502 (or the next server)."""
    first_byte: PositiveDuration = 900.0
    """From the request being sent until the head of the answer; then 504. SDK servers hold it while a tool runs."""
    idle: Duration = 0.0
    """Longest silence inside an answer; then the client's connection is cut. 0: no limit (SSE streams are silent)."""
    total: Duration = 0.0
    """Longest time of a whole exchange. 0: no limit."""


class Pool(Model):
    """The connection pool of one upstream."""

    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Most open connections; each open SSE stream holds one."""
    min_connections: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """The size follows what is used, between this and `max_connections`; absent: it is always `max_connections`."""
    keepalive: Duration = 3.0
    """How long an unused connection is kept: less than the upstream does. Node and uvicorn close theirs after 5 s."""


class Answers(Model):
    """How much of an answer is taken; beyond that it is cut off. 0: any."""

    max_body: Size = 1 << 30
    """Bytes of an answer that is no stream of events."""
    max_event: Size = 64 << 20
    """Bytes of one event of a stream."""


class UpstreamTls(Model):
    """TLS towards an https or wss upstream."""

    ca: File | None = None
    """PEM file with the authorities to trust; absent: the system's."""
    certificate: File | None = None
    """PEM file with our client certificate (mutual TLS)."""
    key: File | None = None
    """PEM file with our client key; absent: the certificate's file holds it."""

    @model_validator(mode="after")
    def _key_has_a_certificate(self) -> UpstreamTls:
        if self.key is not None and self.certificate is None:
            raise ValueError("'key' needs a 'certificate'")
        return self


class Server(Model):
    """One upstream MCP server."""

    url: Url = Field(repr=False)
    """Where requests go: sent to as it is, never joined with the client's path. The client's query is forwarded unless
    this URL has one of its own."""
    transport: Literal["streamable_http", "sse", "websocket"] = "streamable_http"
    """`sse` is the two-endpoint transport of 2024-11-05; `websocket` lets clients upgrade."""
    headers: dict[FieldName, FieldValue] = {}  # noqa: RUF012 (pydantic gives every model its own)
    """Set on every request to this server, over what the client sent: the place for the upstream's credential."""
    host: Literal["upstream", "preserve"] = "upstream"
    """`Host` towards the server: the authority of `url`, or what the client sent."""
    forwarded: bool = True
    """Add X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto and Via."""
    timeouts: Timeouts = Timeouts()
    """Deadlines of this upstream."""
    pool: Pool = Pool()
    """Its connection pool."""
    answers: Answers = Answers()
    """How much of its answers is taken."""
    breaker: Breaker = Breaker()
    """When it is left alone because it fails."""
    health_check: HealthCheck | None = None
    """Asking regularly whether it lives; absent: its traffic alone says so. `{}` is enough."""
    queue: Queue | None = None
    """How many requests it is given at once; absent: as many as it has connections."""
    tls: UpstreamTls = UpstreamTls()
    """TLS towards it."""

    @model_validator(mode="after")
    def _options_fit(self) -> Server:
        if self.pool.min_connections is not None and self.pool.min_connections > self.pool.max_connections:
            raise ValueError("'pool.min_connections' is not more than 'pool.max_connections'")
        once(self.headers, "a header is set twice")
        if self.tls != UpstreamTls() and not self.url.startswith(("https://", "wss://")):
            raise ValueError("'tls' needs an https:// or wss:// URL")
        if self.url.startswith(("ws://", "wss://")) and self.transport != "websocket":
            raise ValueError("a ws:// or wss:// URL needs 'transport: websocket'")
        return self


class Config(Model):
    """Everything. Only `servers` is required."""

    listen: Listen = Listen()
    """The data plane's listener."""
    admin: Admin = Admin()
    """The admin plane's listener."""
    log: Log = Log()
    """The structured log."""
    metrics: Metrics = Metrics()
    """Prometheus metrics."""
    sessions: Sessions = Sessions()
    """Sealed session ids."""
    auth: Auth = Auth()
    """Who may use the proxy."""
    postgres: Postgres | None = None
    """The database with tenants, credentials and registry; absent: everyone is anonymous."""
    registry: Registry = Registry()
    """What tenants keep in PostgreSQL."""
    redis: Redis | None = None
    """Where replicas count together; absent: each counts for itself."""
    limits: RateLimitsWritten = None
    """How much anyone may use; absent: no limits. `default` stands for a group with nothing in it."""
    record: Record = Record()
    """What is kept of requests."""
    retention: Retention = Retention()
    """How long it is kept."""
    tracing: Tracing | None = None
    """Where traces go; absent: nowhere."""
    alerts: Alerts = Alerts()
    """When somebody is to be told."""
    retry_budget: RetryBudget = RetryBudget()
    """What retries may add to the traffic."""
    priorities: Priorities = Priorities()
    """Who goes first."""
    overload: Overload = Overload()
    """When requests are refused so that the others get through."""
    maintenance: tuple[Maintenance, ...] = ()
    """Times at which servers are not to be used."""
    flags: dict[Name, Flag] = {}  # noqa: RUF012 (pydantic gives every model its own)
    """Features that are on for some; a route's `when` may ask for them."""
    state_dir: Annotated[File, Field(validate_default=True)] = ".mcp-manager"
    """Directory for what must survive a restart; relative to the configuration file."""
    servers: Annotated[dict[Name, Server], Field(min_length=1)]
    """The upstream MCP servers by name; each is served at /NAME/mcp without any route."""
    routes: tuple[Route, ...] = ()
    """Routing rules."""

    _files: tuple[str, ...] = PrivateAttr(default=())

    @property
    def files(self) -> tuple[str, ...]:
        """Absolute paths of the secret and TLS files that were read for this configuration, for the watch."""
        return self._files

    @property
    def anonymous(self) -> bool:
        """Whether clients without a credential are let in."""
        allowed = self.auth.anonymous
        return self.listen.is_loopback and not self.listen.trusted_proxies if allowed is None else allowed

    @property
    def public_prefix(self) -> str:
        """Path part of `public_url` without its last slash, or nothing."""
        return urlsplit(self.listen.public_url).path.rstrip("/") if self.listen.public_url else ""


def restart_keys(old: Config, new: Config) -> list[str]:
    """Keys that differ but need a restart to take effect: the sockets, the shape of the log, where state is kept."""
    pairs: list[tuple[str, Any, Any]] = [
        ("listen.host", old.listen.host, new.listen.host),
        ("listen.port", old.listen.port, new.listen.port),
        ("listen.tls", old.listen.tls, new.listen.tls),
        ("admin", old.admin, new.admin),
        ("log.format", old.log.format, new.log.format),
        ("metrics", old.metrics, new.metrics),
        ("postgres", old.postgres, new.postgres),
        ("redis", old.redis, new.redis),
        ("record.spool", old.record.spool, new.record.spool),
        ("state_dir", old.state_dir, new.state_dir),
        ("tracing", old.tracing, new.tracing),
    ]
    return [name for name, before, after in pairs if before != after]
