"""The phase that finds the route, and with it whether the request is bound to one server already.

Order: an OAuth discovery document, the first matching route, then the session, which outranks the route's choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.dataplane.affinity import affinity_key, session_of
from proxy.dataplane.legacy_sse import target_of
from proxy.dataplane.wellknown import METHODS as DISCOVERY_METHODS
from proxy.errors import InvalidRequest, MethodNotAllowed, NoRoute, SessionGone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.dataplane.affinity import Session
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.router import CompiledRoute
    from proxy.mcp.envelope import Message

_DISCOVERY_ALLOW: Final = (("Allow", ", ".join(sorted(DISCOVERY_METHODS))),)


def match_route(ctx: RequestContext) -> None:
    """Fill `ctx.route` and, where the request is bound, `ctx.pinned`, `ctx.session` and `ctx.target`.

    Raises NoRoute, SessionGone, MethodNotAllowed, and InvalidRequest for a batch that would need several routes.
    """
    discovery = ctx.snapshot.wellknown.match(ctx.path)
    if discovery is not None:
        if ctx.head.method not in DISCOVERY_METHODS:
            raise MethodNotAllowed(headers=_DISCOVERY_ALLOW)
        ctx.pinned, ctx.target = discovery
        return
    if ctx.envelope is not None and ctx.envelope.batch:
        route = _route_of_batch(ctx, ctx.envelope.messages)
    else:
        route = ctx.routing.match(ctx)
    if route is None:
        raise NoRoute
    ctx.route = route
    session = _session(ctx)
    if session is not None:
        ctx.session = session
        ctx.pinned = ctx.snapshot.upstreams.get(session.server)
        if ctx.pinned is None:
            raise SessionGone("server is gone")
    elif route.affinity is not None:
        ctx.affinity_key = affinity_key(ctx)


def _session(ctx: RequestContext) -> Session | None:
    """The session of the field, or of a legacy SSE endpoint's URL, which also says where to send."""
    session = session_of(ctx)
    if session is None and ctx.head.query:
        endpoint = target_of(ctx)
        if endpoint is not None:
            session, ctx.target = endpoint
    return session


def _route_of_batch(ctx: RequestContext, messages: Sequence[Message]) -> CompiledRoute | None:
    """The one route of all messages: the batch goes to one server whole."""
    ctx.draws = {}
    first, match = ctx.message, ctx.routing.match
    route = match(ctx)
    for message in messages[1:]:
        ctx.message = message
        if match(ctx) is not route:
            raise InvalidRequest("batch over several routes")
    ctx.message = first
    return route
