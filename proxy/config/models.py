"""The configuration: every key, its type, its default and what it means. This file is the reference.

Owns shapes only. Reading files, secrets and error places is `loader.py`; nothing here does I/O. Unknown keys are
errors everywhere. Durations and sizes are written `5s`, `4MiB`; in code they are seconds and bytes.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from proxy.config.units import Duration, PositiveDuration, RevisionRange, Size, TimeWindow

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,61}[a-z0-9])?")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
_FIELD_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?|")
_PATH: Final = re.compile(r"/[A-Za-z0-9\-._~!$&'()+,=:@/]*\*?")
#: Fields that carry framing or that only the proxy may set; an operator's `headers:` cannot name them.
_RESERVED: Final = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive")
)


def _as_list(value: object) -> object:
    return value if isinstance(value, list) or value is None else [value]


def _name(value: str) -> str:
    if _NAME.fullmatch(value) is None:
        raise ValueError("a name has 1 to 63 lower-case letters, digits, '-', '_' or '.', with a letter or digit at both ends")
    return value


def _path(value: str) -> str:
    if _PATH.fullmatch(value) is None or "//" in value or "/../" in f"{value}/" or "/./" in f"{value}/":
        raise ValueError("a path starts with '/', holds no encoded bytes or dot segments, and may end in one '*'")
    return value


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https", "ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not value.isascii() or any(character.isspace() for character in value):
        raise ValueError("a server URL looks like https://host[:port]/path")
    if parts.username or parts.password or parts.fragment:
        raise ValueError("a server URL holds no user, password or fragment; put credentials into 'headers'")
    return value


def _field_name(value: str) -> str:
    if _TOKEN.fullmatch(value) is None or value.lower() in _RESERVED:
        raise ValueError("not a header name that can be set here")
    return value


def _field_value(value: SecretStr) -> SecretStr:
    if _FIELD_VALUE.fullmatch(value.get_secret_value()) is None:
        raise ValueError("a header value is printable ASCII without blanks at its ends")
    return value


Name = Annotated[str, AfterValidator(_name)]
Path = Annotated[str, AfterValidator(_path)]
Url = Annotated[str, AfterValidator(_url)]
FieldName = Annotated[str, AfterValidator(_field_name)]
FieldValue = Annotated[SecretStr, AfterValidator(_field_value)]
Glob = Annotated[str, Field(min_length=1, max_length=256)]
Percent = Annotated[float, Field(ge=0, le=100)]
Network = IPv4Network | IPv6Network
Globs = Annotated[tuple[Glob, ...], BeforeValidator(_as_list)]
Words = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], BeforeValidator(_as_list)]

Strategy = Literal[
    "round_robin", "weighted", "least_connections", "random", "power_of_two", "consistent_hash", "priority"
]


class Model(BaseModel):
    """Strict: unknown keys are errors, values are frozen once loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True)


class Tls(Model):
    """Certificate of a listener."""

    certificate: str
    """PEM file with the certificate chain."""
    key: str
    """PEM file with the private key."""


class ListenTimeouts(Model):
    """Deadlines of the downstream side."""

    head: PositiveDuration = 10.0
    """From the first byte of a request (or from connect) until its head is complete; then 408."""
    body: PositiveDuration = 30.0
    """Longest silence while a request body arrives; then 408."""
    body_total: PositiveDuration = 300.0
    """Longest time a whole request body may take; then 408."""
    keepalive: PositiveDuration = 75.0
    """How long an idle connection is kept open between requests."""
    stalled_reader: PositiveDuration = 30.0
    """How long a client may leave our answer unread before it is cut off."""


class Limits(Model):
    """Sizes of what a client may send."""

    connections: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Open client connections; one more is answered 503. 0: 40 % of the process's file descriptors."""
    header_line: Annotated[Size, Field(ge=256, le=1 << 20)] = 8 << 10
    """Request line (414) and each header field (431)."""
    headers: Annotated[Size, Field(ge=1 << 10, le=4 << 20)] = 64 << 10
    """The whole request head (431)."""
    header_count: Annotated[int, Field(ge=8, le=1000)] = 100
    """Number of header fields (431)."""
    body: Annotated[Size, Field(ge=1 << 10, le=1 << 30)] = 4 << 20
    """Request body (413)."""


class Drain(Model):
    """What happens on SIGTERM: not ready, keep accepting for `delay`, finish within `grace`, exit."""

    delay: Duration = 0.0
    """How long new connections are still accepted after /readyz turned 503, for a load balancer to notice."""
    grace: PositiveDuration = 30.0
    """How long running requests may take to finish."""


class Listen(Model):
    """The data plane's listener: MCP traffic only."""

    host: str = "127.0.0.1"
    """Address to bind."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Port to bind; 0 takes a free one."""
    tls: Tls | None = None
    """Serve HTTPS; absent: plain HTTP."""
    public_url: str | None = None
    """URL under which clients reach this listener, such as https://mcp.example.com; turns on the well-known paths."""
    allowed_hosts: Words = ()
    """Names accepted in `Host` (a port in `Host` is ignored). Default: on loopback the loopback names, else any; plus
    the name in `public_url`."""
    allowed_origins: Words = ()
    """Values accepted in `Origin`, such as https://app.example.com. Default: loopback origins and `public_url`."""
    timeouts: ListenTimeouts = ListenTimeouts()
    """Deadlines of the downstream side."""
    limits: Limits = Limits()
    """Sizes of what a client may send."""
    drain: Drain = Drain()
    """Shutting down without failing a request."""

    @model_validator(mode="after")
    def _public_url_is_an_origin_with_a_path(self) -> Listen:
        if self.public_url is not None:
            _url(self.public_url)
            if not self.public_url.startswith(("http://", "https://")) or "?" in self.public_url:
                raise ValueError("public_url looks like https://mcp.example.com or https://example.com/prefix")
        return self


class Admin(Model):
    """The admin plane's listener: health and metrics, never on the data port."""

    host: str = "127.0.0.1"
    """Address to bind; keep it private."""
    port: Annotated[int, Field(ge=0, le=65535)] = 9090
    """Port to bind; 0 takes a free one."""


class Log(Model):
    """The structured log on standard output."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is written."""
    format: Literal["json", "console"] = "json"
    """One JSON object per line, or coloured text for a terminal."""
    access: bool = True
    """One line per request."""


class Timeouts(Model):
    """Deadlines of one upstream, each for a phase; 0 turns a deadline off where it says so."""

    connect: PositiveDuration = 5.0
    """Waiting for a pooled connection, name lookup, TCP and TLS handshake; then 502 (or the next server)."""
    first_byte: PositiveDuration = 900.0
    """From the request being sent until the head of the answer; then 504. SDK servers hold it for the whole tool run."""
    idle: Duration = 0.0
    """Longest silence inside an answer; then the client's connection is aborted. 0: no limit (SSE streams are silent)."""
    total: Duration = 0.0
    """Longest time of a whole exchange. 0: no limit."""


class Pool(Model):
    """The connection pool of one upstream."""

    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Open connections; each open SSE stream holds one."""
    keepalive: Duration = 3.0
    """How long an unused connection is kept. Node and uvicorn close theirs after 5 s: stay below the upstream's figure."""


class UpstreamTls(Model):
    """TLS towards an https or wss upstream."""

    ca: str | None = None
    """PEM file with the authorities to trust; absent: the system's."""
    certificate: str | None = None
    """PEM file with our client certificate (mutual TLS)."""
    key: str | None = None
    """PEM file with our client key."""


class Server(Model):
    """One upstream MCP server."""

    url: Url
    """Where requests go: sent to as it is, never joined with the client's path. The client's query is forwarded unless
    this URL has one of its own."""
    transport: Literal["streamable_http", "sse", "websocket"] = "streamable_http"
    """`sse` is the two-endpoint transport of 2024-11-05; `websocket` lets clients upgrade."""
    headers: dict[FieldName, FieldValue] = {}
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
    def _scheme_fits_the_transport(self) -> Server:
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
    header: dict[Annotated[str, Field(pattern=_TOKEN.pattern)], Words] = {}
    """Header name to its exact value."""
    client_ip: Annotated[tuple[Network, ...], BeforeValidator(_as_list)] = ()
    """Client address, as addresses or networks."""
    between: TimeWindow | None = None
    """Daily time window, such as 22:00-06:00 Europe/Berlin."""
    percent: Percent | None = None
    """Share of the matching requests, drawn at random, 0 to 100."""


class RouteServer(Model):
    """A server in a route."""

    name: Name
    """Key under `servers`."""
    weight: Annotated[int, Field(ge=0, le=1000)] = 1
    """Share for `weighted` and `consistent_hash`; 0 takes no new traffic."""


class Affinity(Model):
    """What keeps requests without a session on one server (rendezvous hash). Sessions stay where they began anyway."""

    by: Literal["principal", "client_address", "header", "task"]
    """The value that is hashed."""
    header: str | None = None
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
    items = _as_list(value)
    return [{"name": item} if isinstance(item, str) else item for item in items] if isinstance(items, list) else items


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
    servers: Annotated[tuple[RouteServer, ...], BeforeValidator(_servers), Field(min_length=1)]
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
            raise ValueError("'inspect: none' cannot be combined with method, tool, prompt, resource or protocol conditions")
        if len({server.name for server in self.servers}) != len(self.servers):
            raise ValueError("a server is listed twice")
        return self


class Sessions(Model):
    """Sealed session ids (AES-256-GCM)."""

    keys: tuple[SecretStr, ...] = ()
    """Secrets of 16 or more characters; the first seals, all open, so that a key can be rotated. Empty: one is made
    once and kept in `state_dir`, which several replicas must then share."""
    ttl: PositiveDuration = 7 * 86400.0
    """How long a session may live; afterwards 404 makes the client start again."""


class Metrics(Model):
    """Prometheus metrics on the admin port."""

    max_servers: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Servers with a label of their own; further ones count as `other`."""


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
    state_dir: str = ".mcp-manager"
    """Directory for what must survive a restart; relative to the configuration file."""
    servers: Annotated[dict[Name, Server], Field(min_length=1)]
    """The upstream MCP servers by name; each is served at /NAME/mcp without any route."""
    routes: tuple[Route, ...] = ()
    """Routing rules."""

    @property
    def public_prefix(self) -> str:
        """Path part of `public_url` without its last slash, or nothing."""
        return urlsplit(self.listen.public_url).path.rstrip("/") if self.listen.public_url else ""


def restart_keys(old: Config, new: Config) -> list[str]:
    """Keys that differ but need a restart to take effect: the sockets and where state is kept."""
    pairs: list[tuple[str, Any, Any]] = [
        ("listen.host", old.listen.host, new.listen.host),
        ("listen.port", old.listen.port, new.listen.port),
        ("listen.tls", old.listen.tls, new.listen.tls),
        ("admin", old.admin, new.admin),
        ("state_dir", old.state_dir, new.state_dir),
    ]
    return [name for name, before, after in pairs if before != after]
