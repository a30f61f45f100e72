"""Copies of requests for a shadow server, whose answers are read and dropped.

A copy never delays or changes the real request: it is started beside it, bounded in number and time, and dropped with
a count when there are too many. Session ids are left out, since the shadow never issued them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from proxy.dataplane.client import Truncated
from proxy.dataplane.rewrite import request_headers
from proxy.errors import Refusal

if TYPE_CHECKING:
    from proxy.dataplane.client import UpstreamResponse
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.exchange import Headers
    from proxy.dataplane.upstream import Upstream
    from proxy.metrics import Metrics

Spawn = Callable[[str, Coroutine[Any, Any, None]], bool]
"""Starts a named one-shot task; False (and the coroutine closed) when too many run already."""

#: How much, and for how long, a mirrored answer is read: a shadow's stream is not followed for ever.
_READ_BYTES: Final = 1 << 20
_READ_S: Final = 60.0


class Mirrors:
    """Starts copies."""

    def __init__(self, spawn: Spawn, metrics: Metrics, draw: Callable[[], float]) -> None:
        self._spawn = spawn
        self._metrics = metrics
        self._draw = draw

    def copy(self, ctx: RequestContext, upstream: Upstream, percent: float) -> None:
        """Send a copy of `ctx` to `upstream` for `percent` of the requests; only an inspected POST has one to send."""
        if ctx.body is None or self._draw() * 100 >= percent or not upstream.possible():
            return
        headers = [pair for pair in request_headers(ctx, upstream) if pair[0].lower() != "mcp-session-id"]
        if self._spawn(f"mirror {upstream.name}", _send(upstream, headers, ctx.body)):
            self._metrics.mirror_sent += 1
        else:
            self._metrics.mirror_dropped += 1


async def _send(upstream: Upstream, headers: Headers, body: bytes) -> None:
    upstream.in_flight += 1
    try:
        response = await upstream.client.send("POST", "", headers, body)
        try:
            async with asyncio.timeout(_READ_S):
                await _swallow(response)
        finally:
            response.close()
    except (Refusal, Truncated, TimeoutError):
        return
    finally:
        upstream.in_flight -= 1


async def _swallow(response: UpstreamResponse) -> None:
    left = _READ_BYTES
    while left > 0 and (chunk := await response.read()):
        left -= len(chunk)
