"""The two-endpoint transport of 2024-11-05 behind one URL: its `endpoint` event out, its POSTs in.

Owns the one place where a body is changed: the event names a URI on the upstream to which the client posts, and has to
name ours instead. The new URI is the client's own URL of the stream with the upstream's path and query sealed into
`session_id`, so every route works unchanged and any worker finds the server again. How the event is found in the
stream is `mcp/sse.py`, the seal is `affinity.py`. It must not know sockets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

from proxy.dataplane.affinity import ENDPOINT, Session
from proxy.dataplane.origin import origin_of
from proxy.errors import SessionGone, UpstreamFailed
from proxy.mcp.sse import FirstEvent

if TYPE_CHECKING:
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.upstream import Upstream

_PARAMETER: Final = "session_id="


class EndpointEvent:
    """Rewrites the first event of the stream that answers `ctx`; everything else passes as it comes."""

    __slots__ = ("_ctx", "_first")

    def __init__(self, ctx: RequestContext) -> None:
        self._ctx = ctx
        self._first: FirstEvent | None = FirstEvent()

    def feed(self, chunk: bytes) -> bytes:
        """What may go to the client now. Raises UpstreamFailed when the stream begins with no endpoint of that server.

        Bytes of an event that never becomes complete are kept back: clients discard them, too (WHATWG HTML, "Event
        stream interpretation").
        """
        first = self._first
        if first is None:
            return chunk
        if not first.feed(chunk):
            return b""
        self._first = None
        return first.rewritten(public_endpoint(self._ctx, first.endpoint))


def public_endpoint(ctx: RequestContext, endpoint: str) -> str:
    """The URI for the client, relative to our root, that stands for the `endpoint` of `ctx.upstream`."""
    upstream = ctx.upstream
    assert upstream is not None  # noqa: S101 - a stream comes from some server
    sealer = ctx.snapshot.sealer
    try:
        text = sealer.seal(sealer.begin(ctx, upstream.name, _on_upstream(upstream, endpoint)), ENDPOINT)
    except ValueError:
        raise UpstreamFailed("an endpoint that cannot be sealed") from None
    return f"{ctx.snapshot.public_prefix}{ctx.path}?{_PARAMETER}{text}"


def target_of(ctx: RequestContext) -> tuple[Session, str] | None:
    """The session and the absolute URL that a POST to a sealed endpoint means; raises SessionGone.

    None for every other request: a POST to the stream's own URL goes there as it is, because its 404 or 405 is how
    newer clients learn the transport (MCP 2025-03-26 transports, "Backwards Compatibility").
    """
    query = ctx.head.query
    if _PARAMETER not in query or ctx.head.method != "POST" or not _speaks_sse(ctx):
        return None
    if not any(parameter.startswith(_PARAMETER) for parameter in query.split("&")):
        return None
    # the sealed URI is sent as the upstream wrote it: nothing may stand beside it
    session = ctx.snapshot.sealer.open(query.removeprefix(_PARAMETER), ENDPOINT)
    if session is None:
        raise SessionGone("endpoint cannot be opened")
    if not session.belongs_to(ctx):
        raise SessionGone("endpoint belongs to another client or URL")
    upstream = ctx.snapshot.upstreams.get(session.server)
    if upstream is None or upstream.config.transport != "sse":
        raise SessionGone("server is gone")
    base = urlsplit(upstream.target)
    return session, f"{base.scheme}://{base.netloc}{session.upstream_id}"


def _speaks_sse(ctx: RequestContext) -> bool:
    servers = ctx.route.servers.values() if ctx.route is not None else ()
    return any(server.config.transport == "sse" for server in servers)


def _on_upstream(upstream: Upstream, endpoint: str) -> str:
    """Path and query of an endpoint, which must be on the upstream's own origin, as SDK clients demand of us, too."""
    if not (endpoint.isascii() and endpoint.isprintable()) or " " in endpoint:
        raise UpstreamFailed("an endpoint that is no URI")
    base = urlsplit(upstream.target)
    place = urlsplit(urljoin(upstream.target, endpoint))
    if origin_of(place) != origin_of(base) or "@" in place.netloc:
        raise UpstreamFailed("an endpoint on another origin")
    path = place.path or "/"
    return f"{path}?{place.query}" if place.query else path
