"""The configuration: every key, its type, its default and what it means. This file is the reference.

Owns shapes only: servers and routes here, the proxy's own side in `listening.py`. Reading files, secrets and error
places is `loader.py`; nothing here does I/O. Unknown keys are errors everywhere. Durations and sizes are written `5s`,
`4MiB`; in code they are seconds and bytes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from proxy.config.fields import (
    FieldName,
    FieldValue,
    File,
    Globs,
    HeaderName,
    Model,
    Name,
    Networks,
    Path,
    Percent,
    Strategy,
    Url,
    Words,
    as_list,
    once,
)
from proxy.config.listening import Admin, Drain, Limits, Listen, ListenTimeouts, Log, Metrics, Sessions, Tls
from proxy.config.units import Duration, PositiveDuration, RevisionRange, TimeWindow

__all__ = [
    "Admin",
    "Affinity",
    "Config",
    "Drain",
    "Limits",
    "Listen",
    "ListenTimeouts",
    "Log",
    "Metrics",
    "Mirror",
    "Model",
    "Pool",
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
    """Open connections; each open SSE stream holds one."""
    keepalive: Duration = 3.0
    """How long an unused connection is kept: less than the upstream does. Node and uvicorn close theirs after 5 s."""


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

    url: Url
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
    tls: UpstreamTls = UpstreamTls()
    """TLS towards it."""

    @model_validator(mode="after")
    def _options_fit_the_url(self) -> Server:
        once(self.headers, "a header is set twice")
        if self.tls != UpstreamTls() and not self.url.startswith(("https://", "wss://")):
            raise ValueError("'tls' needs an https:// or wss:// URL")
        if self.url.startswith(("ws://", "wss://")) and self.transport != "websocket":
            raise ValueError("a ws:// or wss:// URL needs 'transport: websocket'")
        return self


class When(Model):
    """Conditions of a route: all of them must hold; a list means any of its values."""

    host: Words = ()
    """`Host` without its port, exact."""
    method: Words = ()
    """JSON-RPC method, exact, such as tools/call."""
    tool: Globs = ()
    """Tool name of tools/call; `*` stands for any characters."""
    prompt: Globs = ()
    """Prompt name of prompts/get."""
    resource: Globs = ()
    """URI of resources/read, subscribe and unsubscribe."""
    protocol: RevisionRange | None = None
    """Protocol revision, such as >=2026-07-28."""
    header: dict[HeaderName, Words] = {}  # noqa: RUF012 (pydantic gives every model its own)
    """Header name to its exact value."""
    client_ip: Networks = ()
    """Client address, as addresses or networks."""
    between: TimeWindow | None = None
    """Daily time window, such as 22:00-06:00 Europe/Berlin."""
    percent: Percent | None = None
    """Share of the matching requests, drawn at random, 0 to 100."""

    @model_validator(mode="after")
    def _headers_are_named_once(self) -> When:
        once(self.header, "a header is named twice")
        return self


class RouteServer(Model):
    """A server in a route."""

    name: Name
    """Key under `servers`."""
    weight: Annotated[int, Field(ge=0, le=1000)] = 1
    """Share for `weighted`, `random`, `least_connections`, `consistent_hash` and, with `affinity`, any strategy; 0
    takes no new traffic."""


class Affinity(Model):
    """What keeps requests without a session on one server (rendezvous hash). Sessions stay where they began anyway."""

    by: Literal["principal", "client_address", "header", "task"]
    """The value that is hashed."""
    header: HeaderName | None = None
    """Name of the header, for `by: header`."""

    @model_validator(mode="after")
    def _header_is_named(self) -> Affinity:
        if (self.by == "header") != (self.header is not None):
            raise ValueError("'header' is needed with 'by: header', and only there")
        return self


class Mirror(Model):
    """Send a copy to another server and drop its answer."""

    server: Name
    """Key under `servers`."""
    percent: Percent = 100.0
    """Share of the requests, 0 to 100."""


def _servers(value: object) -> object:
    items = as_list(value)
    return [{"name": item} if isinstance(item, str) else item for item in items] if isinstance(items, list) else items


_ServersWritten = BeforeValidator(_servers, json_schema_input_type=Name | tuple[Name | RouteServer, ...])


class Route(Model):
    """Which requests go to which servers. The first match counts: by priority, then in the order written."""

    name: Name
    """Unique; shown in logs and metrics."""
    path: Path
    """Path of the request, exact, or with a '*' at its end for everything below."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Higher is looked at first; the built-in /NAME/mcp routes come after all others."""
    when: When = When()
    """Conditions; none: every request to the path."""
    servers: Annotated[tuple[RouteServer, ...], _ServersWritten, Field(min_length=1)]
    """Names, or names with weights."""
    strategy: Strategy = "round_robin"
    """How a server is chosen."""
    affinity: Affinity | None = None
    """What keeps requests without a session on one server."""
    mirror: Mirror | None = None
    """A server that gets copies."""
    inspect: Literal["full", "none"] = "full"
    """`none` parses nothing and streams the request through; only path, host, header, address, time and percent can
    then be conditions. All routes of one path must agree."""
    sessions: Literal["sealed", "passthrough"] = "sealed"
    """`passthrough` shows the upstream's own session ids; only for a route with one server."""

    @model_validator(mode="after")
    def _options_fit_together(self) -> Route:
        if self.sessions == "passthrough" and len(self.servers) > 1:
            raise ValueError("'sessions: passthrough' needs a route with exactly one server")
        when = self.when
        if self.inspect == "none" and (when.method or when.tool or when.prompt or when.resource or when.protocol):
            raise ValueError(
                "'inspect: none' cannot be combined with method, tool, prompt, resource or protocol conditions"
            )
        if len({server.name for server in self.servers}) != len(self.servers):
            raise ValueError("a server is listed twice")
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
        ("state_dir", old.state_dir, new.state_dir),
    ]
    return [name for name, before, after in pairs if before != after]
