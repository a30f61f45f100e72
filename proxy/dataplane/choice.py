"""The server that a request goes to next, and what its client is told when there is none.

Owns what outranks the route's strategy: the session's server, windows of maintenance, and that a server which is merely
said to be unhealthy is better than none. It asks no server, and keeps no count.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from proxy.dataplane.attempt import circuit_open, enter
from proxy.dataplane.maintenance import refusal, session_refusal, takes, takes_new
from proxy.errors import CircuitOpen, ConnectFailed, NoServer, SessionGone, UnderMaintenance, retry_after

if TYPE_CHECKING:
    from collections.abc import Collection

    from proxy.dataplane.attempt import Attempt
    from proxy.dataplane.balancer import Selection
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.parts import Parts
    from proxy.dataplane.upstream import Upstream
    from proxy.errors import Refusal

#: How long a breaker stays open at most when no server of the route is left, seconds.
_HURRY_S: Final = 1.0


def pick(ctx: RequestContext, tried: Collection[str]) -> Upstream | None:
    """The server to ask next: the session's, the discovery document's, or the route's choice among those untried.

    Raises UnderMaintenance, or SessionGone when the session's server is being maintained and the route has another.
    """
    pinned = ctx.pinned
    if pinned is not None:
        if pinned.window is not None:
            _check_window(ctx, pinned)
        return None if pinned.name in tried else pinned
    assert ctx.route is not None  # noqa: S101 - match_route() found one, or pinned a server
    selection = ctx.route.selection
    return selection.pick(ctx.affinity_key, tried) or selection.last_resort(tried) or _hurried(selection, tried)


async def come_in(ctx: RequestContext, upstream: Upstream, tried: list[str], parts: Parts) -> Attempt:
    """`enter` at one server, or at another when its window began while the request waited there: that is no failure,
    and takes nothing of the budget. Whoever is asked is among those `tried`. Raises as `enter` and `pick` do."""
    tried.append(upstream.name)
    ctx.upstream = upstream
    try:
        return await enter(ctx, upstream, parts)
    except UnderMaintenance:
        following = pick(ctx, tried)
        if following is None:
            raise
    return await come_in(ctx, following, tried, parts)


def _hurried(selection: Selection, tried: Collection[str]) -> Upstream | None:
    """Servers that failed in turns, as in a rolling restart, must not be left alone all together: each is tried again
    soon. The only server of a route is left alone for as long as its breaker says."""
    servers = selection.candidates()
    if tried or len(servers) < 2:
        return None
    for server in servers:
        server.breaker.hurry(_HURRY_S)
    return selection.last_resort(tried)


def _check_window(ctx: RequestContext, pinned: Upstream) -> None:
    now, window = time.time(), pinned.window
    if window is not None and not takes(pinned, now, of_session=ctx.session is not None):
        raise session_refusal(window, now, elsewhere=_is_served_elsewhere(ctx, pinned))


def _is_served_elsewhere(ctx: RequestContext, pinned: Upstream) -> bool:
    """Whether a client that begins anew would find another server."""
    if ctx.session is None or ctx.route is None:
        return False
    return any(server is not pinned and server.possible() for server in ctx.route.selection.candidates())


def nobody(ctx: RequestContext) -> Refusal:
    """Why no server was asked."""
    if ctx.route is None:
        return NoServer(headers=retry_after())
    now = time.time()
    servers = [server for server in ctx.route.selection.candidates() if server.name not in ctx.denied]
    windows = [server.window for server in servers if server.window is not None and not takes_new(server, now)]
    if windows and len(windows) == len(servers):
        return refusal(windows, now)
    waits = [wait_s for server in servers if (wait_s := server.breaker.retry_after_s)]  # one may be ready by now
    return circuit_open(min(waits)) if waits else NoServer(headers=retry_after())


def answer_to(ctx: RequestContext, failure: Refusal) -> Refusal:
    """The refusal for the last failure: 404 makes the client of a session start again, elsewhere."""
    if ctx.session is None or ctx.pinned is None:
        return failure
    if isinstance(failure, ConnectFailed):
        return SessionGone("server cannot be reached")
    if isinstance(failure, CircuitOpen) and _is_served_elsewhere(ctx, ctx.pinned):
        return SessionGone("server is failing")
    return failure
