"""The proxy's own side of the configuration: its listeners, what clients may send, its log, metrics and sessions.

Owns shapes only, with every key's default and meaning; servers and routes are in `models.py`, which is where other
code imports all of them from.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from proxy.config.fields import File, Model, Networks, PublicUrl, SessionKey, Text, Words, as_list
from proxy.config.units import Duration, PositiveDuration, Size


class Tls(Model):
    """Certificate of a listener."""

    certificate: File
    """PEM file with the certificate chain."""
    key: File
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

    host: Text = "127.0.0.1"
    """Address to bind."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Port to bind; 0 takes a free one."""
    tls: Tls | None = None
    """Serve HTTPS; absent: plain HTTP."""
    public_url: PublicUrl | None = None
    """URL under which clients reach this listener, such as https://mcp.example.com; turns on the well-known paths."""
    allowed_hosts: Words = ()
    """Names accepted in `Host` (a port in `Host` is ignored). Default: on loopback the loopback names, else any; plus
    the name in `public_url`."""
    allowed_origins: Words = ()
    """Values accepted in `Origin`, such as https://app.example.com. Default: loopback origins and `public_url`."""
    trusted_proxies: Networks = ()
    """Addresses and networks of the proxies in front of this one: only from them are forwarding fields believed."""
    forwarded_fields: Annotated[
        tuple[Literal["x-forwarded-for", "forwarded"], ...],
        BeforeValidator(as_list, json_schema_input_type=str | tuple[str, ...]),
    ] = ("x-forwarded-for",)
    """The fields that those proxies write themselves; one that they only pass on is the client's own word."""
    timeouts: ListenTimeouts = ListenTimeouts()
    """Deadlines of the downstream side."""
    limits: Limits = Limits()
    """Sizes of what a client may send."""
    drain: Drain = Drain()
    """Shutting down without failing a request."""

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can connect."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether an address or name to bind is the machine's own; other names are not looked up."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Admin(Model):
    """The admin plane's listener: health and metrics, never on the data port."""

    host: Text = "127.0.0.1"
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


class Sessions(Model):
    """Sealed session ids (AES-256-GCM)."""

    keys: tuple[SessionKey, ...] = ()
    """Secrets of 16 or more characters; the first seals, all open, so that a key can be rotated. Empty: one is made
    once and kept in `state_dir`, which several replicas must then share."""
    ttl: PositiveDuration = 7 * 86400.0
    """How long a session may live; afterwards 404 makes the client start again."""


class Metrics(Model):
    """Prometheus metrics on the admin port."""

    max_servers: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Servers with a label of their own; further ones count as `other`."""
