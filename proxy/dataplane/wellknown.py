"""Where an OAuth client that knows only our URL of a server finds that server's discovery documents.

Owns the mapping of well-known paths when `public_url` is set: the same form of path on the upstream, whose documents
pass untouched (they name our URL when the upstream is configured with it). The forms put the well-known part before
the path of the resource (RFC 9728 section 3.1, RFC 8414 section 3.1) or, for OpenID Connect, also behind it (OpenID
Connect Discovery 1.0 section 4). It must not know requests, and it fetches nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from proxy.config.models import When
from proxy.dataplane.origin import HTTP_SCHEMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from proxy.config.models import Config, Route
    from proxy.dataplane.upstream import Upstream

#: Methods that these paths are mapped for.
METHODS: Final = frozenset(("GET", "HEAD", "OPTIONS"))

_RESOURCE: Final = "/.well-known/oauth-protected-resource"
_OPENID: Final = "/.well-known/openid-configuration"
_ISSUERS: Final = ("/.well-known/oauth-authorization-server", _OPENID)
_UNCONDITIONAL: Final = When()

Target = tuple["Upstream", str]
"""The server, and the absolute URL of the document on it."""


class Wellknown:
    """All discovery paths of a snapshot. Build it with `compile`."""

    __slots__ = ("_targets",)

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self._targets = targets

    @classmethod
    def compile(cls, config: Config, routes: Sequence[Route], upstreams: Mapping[str, Upstream]) -> Wellknown:
        """The paths of every endpoint that one of `upstreams` answers for; none without `public_url`."""
        targets: dict[str, Target] = {}
        if config.listen.public_url is not None:
            for path, server in _endpoints(routes, upstreams).items():
                targets.update(_forms(config.public_prefix, path, upstreams[server]))
            if len(upstreams) == 1:
                targets.update(_root_forms(next(iter(upstreams.values()))))
        return cls(targets)

    def match(self, path: str) -> Target | None:
        """The server and URL that a request to `path` goes to, for a method of `METHODS`; None for any other path."""
        return self._targets.get(path)


def _endpoints(routes: Sequence[Route], upstreams: Mapping[str, Upstream]) -> dict[str, str]:
    """Path to the one server that answers there."""
    written: dict[str, list[Route]] = {}
    for route in sorted(routes, key=lambda route: -route.priority):
        if not route.path.endswith("*"):
            written.setdefault(route.path, []).append(route)
    endpoints = {f"/{name}/mcp": name for name in upstreams}
    endpoints.update({f"/{name}/sse": name for name, each in upstreams.items() if each.config.transport == "sse"})
    for path, written_here in written.items():
        server = _server_of(written_here, endpoints.get(path))
        if server is None:
            endpoints.pop(path, None)
        else:
            endpoints[path] = server
    return endpoints


def _server_of(routes: Sequence[Route], built_in: str | None) -> str | None:
    """The server that unconditional requests to one path reach; else the only one that any request can reach."""
    for route in routes:
        if route.when == _UNCONDITIONAL:
            return route.servers[0].name if len(route.servers) == 1 else None
    if built_in is not None:
        return built_in
    names = {server.name for route in routes for server in route.servers}
    return names.pop() if len(names) == 1 else None


def _forms(prefix: str, path: str, upstream: Upstream) -> Iterable[tuple[str, Target]]:
    origin, upstream_path = _place(upstream)
    yield f"{_RESOURCE}{prefix}{path}", (upstream, f"{origin}{_RESOURCE}{upstream_path}")
    issuer_path = upstream_path.rstrip("/")
    for form in _ISSUERS:
        yield f"{form}{prefix}{path}", (upstream, f"{origin}{form}{issuer_path}")
    # what fronts us maps the prefix of public_url away, save in the forms that begin with the well-known part
    yield f"{path}{_OPENID}", (upstream, f"{origin}{issuer_path}{_OPENID}")


def _root_forms(upstream: Upstream) -> Iterable[tuple[str, Target]]:
    """Clients of 2025-03-26 drop the path and ask the root, which can stand for one server only."""
    origin, _ = _place(upstream)
    for form in (_RESOURCE, *_ISSUERS):
        yield form, (upstream, f"{origin}{form}")


def _place(upstream: Upstream) -> tuple[str, str]:
    """Origin and path of the upstream's resource identifier; a path of '/' alone counts as none."""
    parts = urlsplit(upstream.target)
    return f"{HTTP_SCHEMES.get(parts.scheme, parts.scheme)}://{parts.netloc}", "" if parts.path == "/" else parts.path
