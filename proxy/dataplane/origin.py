"""The proxy's own check of `Host` and `Origin`, against DNS rebinding and foreign web pages.

Owns which names and origins the listener answers to, and what an origin is. The upstream's check is void behind a
proxy, which sends a `Host` of its own, so the duty is ours (MCP 2025-11-25 transports, "Security Warning": a present,
invalid Origin MUST get 403). It knows nothing of routes: the check comes before them and before authentication.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit

from proxy.errors import HostNotAllowed, OriginNotAllowed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxy.config.models import Listen
    from proxy.dataplane.exchange import Head

_ANY: Final = "*"
_LOOPBACK_NAMES: Final = frozenset(("localhost", "127.0.0.1", "[::1]"))
_LOOPBACK_ORIGIN: Final = re.compile(r"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::[1-9][0-9]{0,4})?")
_PORT: Final = re.compile(r":[0-9]{1,5}\Z")
DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
#: A WebSocket URL stands for the HTTP origin that it is opened on (RFC 6455 section 1.3).
HTTP_SCHEMES: Final = {"ws": "http", "wss": "https"}

Origin = tuple[str, str | None, int | None]
"""Scheme, host and port."""


class OriginPolicy:
    """Which hosts and origins a listener accepts; None stands for any. Built once per snapshot."""

    __slots__ = ("hosts", "loopback_origins", "origins")

    def __init__(self, hosts: frozenset[str] | None, origins: frozenset[str] | None, loopback_origins: bool) -> None:
        self.hosts = hosts
        self.origins = origins
        self.loopback_origins = loopback_origins

    @classmethod
    def of(cls, listen: Listen) -> OriginPolicy:
        """The policy of a listener: what is configured, else the defaults, and `public_url` in any case."""
        public = [listen.public_url] if listen.public_url else []
        hosts: frozenset[str] | None = None
        if listen.allowed_hosts or listen.is_loopback:
            named: Iterable[str] = listen.allowed_hosts or (*_LOOPBACK_NAMES, listen.host)
            hosts = frozenset(_host(name) for name in (*named, *(urlsplit(url).netloc for url in public)))
        origins = frozenset(_written(url) for url in (*listen.allowed_origins, *public))
        return cls(
            None if hosts and _ANY in hosts else hosts,
            None if _ANY in origins else origins,
            loopback_origins=not listen.allowed_origins,
        )

    def allows_origin(self, origin: str) -> bool:
        """Whether a page of this origin may talk to us. `origin` is the field's value as sent."""
        if self.origins is None:
            return True
        origin = origin.lower()
        return origin in self.origins or (self.loopback_origins and _LOOPBACK_ORIGIN.fullmatch(origin) is not None)


def check_host_and_origin(head: Head, policy: OriginPolicy) -> None:
    """Raise HostNotAllowed or OriginNotAllowed when the request is not meant for this listener.

    Clients that are not browsers send no Origin, which is fine; two of them are joined by ', ' and match nothing.
    """
    hosts = policy.hosts
    if hosts is not None and head.host not in hosts:
        raise HostNotAllowed
    origin = head.fields.get("origin")
    if origin is not None and not policy.allows_origin(origin):
        raise OriginNotAllowed


def _host(name: str) -> str:
    """A name as `Head.host` has it: lower-case, without port, IPv6 in brackets."""
    name = name.lower()
    if name.count(":") > 1 and not name.startswith("["):
        return f"[{name}]"
    return _PORT.sub("", name)


def _written(url: str) -> str:
    """The origin of `url` as browsers write it (RFC 6454 section 6.2): no path, no default port. Other text stays."""
    url = url.lower()
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{authority_of(parts)}" if parts.netloc else url
    except ValueError:
        return url


def authority_of(parts: SplitResult) -> str:
    """Host and port of a URL as clients write them, without a default port. Raises ValueError for a bad port."""
    port = parts.port
    if port is not None and port == DEFAULT_PORTS.get(parts.scheme):
        return parts.netloc.removesuffix(f":{port}")
    return parts.netloc


def origin_of(parts: SplitResult) -> Origin:
    """What to compare two URLs by (RFC 6454 section 4). Raises ValueError for a bad port."""
    scheme = HTTP_SCHEMES.get(parts.scheme, parts.scheme)
    return scheme, parts.hostname, parts.port or DEFAULT_PORTS.get(scheme)
