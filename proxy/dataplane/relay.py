"""Bringing the upstream's answer to the client, piece by piece as it comes (design sections 4.1 and 4.3).

Nothing is buffered beyond what the transport holds, nothing is added, and an answer that breaks off upstream resets
the client's connection: it never ends as if it were complete.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy.dataplane.client import Truncated
from proxy.dataplane.rewrite import response_headers

if TYPE_CHECKING:
    from proxy.dataplane.client import UpstreamResponse
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.parts import Parts
    from proxy.dataplane.streams import OpenStream


async def relay(ctx: RequestContext, response: UpstreamResponse, parts: Parts) -> None:
    """Write head and body of `response` to the client. Sets `ctx.outcome` when the body does not come to its end."""
    upstream = ctx.upstream
    assert upstream is not None  # noqa: S101 - forward() names it before it asks for an answer
    ctx.status = response.status
    ctx.exchange.start(response.status, response_headers(ctx, response.status, response.headers))
    idle_s = upstream.config.timeouts.idle
    try:
        if _is_event_stream(response):
            await _relay_events(ctx, response, parts, idle_s)
        else:
            await _copy(ctx, response, idle_s)
    except Truncated:
        ctx.outcome = "upstream_truncated"
        ctx.exchange.abort()
    except TimeoutError:
        ctx.outcome = "timeout"
        ctx.exchange.abort()


async def _copy(ctx: RequestContext, response: UpstreamResponse, idle_s: float) -> None:
    """Chunk in, chunk out. The last piece and the end of the message share one write, as do head and first piece."""
    exchange = ctx.exchange
    chunk = response.read_nowait()
    if not chunk and not response.ended:
        exchange.flush()
        chunk = await _next(response, idle_s)
    while not response.ended:
        ctx.bytes_out += len(chunk)
        exchange.write(chunk)
        if exchange.paused:
            await exchange.drain()
        chunk = await _next(response, idle_s)
    ctx.bytes_out += len(chunk)
    exchange.finish(chunk)


async def _relay_events(ctx: RequestContext, response: UpstreamResponse, parts: Parts, idle_s: float) -> None:
    """An SSE answer: like `_copy`, but it knows where an event ends, so that a drain never cuts one."""
    upstream = ctx.upstream
    assert upstream is not None  # noqa: S101 - as above
    ctx.streaming = True
    stream = parts.streams.open(ctx)
    upstream.metrics.open_streams += 1
    try:
        if stream.ending:  # it begins in a drain
            _end_drained(ctx, stream)
            return
        chunk = await _first_event(ctx, response, idle_s)
        ctx.first_byte_at = parts.clock()
        await _copy_events(ctx, response, stream, idle_s, chunk)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if stream.cut or not stream.ending or ctx.exchange.gone or task is None:
            raise
        task.uncancel()
        _end_drained(ctx, stream)
    finally:
        upstream.metrics.open_streams -= 1
        parts.streams.close(stream)


async def _first_event(ctx: RequestContext, response: UpstreamResponse, idle_s: float) -> bytes:
    """The first bytes of the stream; its head goes out before them when they are not here yet."""
    chunk = response.read_nowait()
    if not chunk and not response.ended:
        ctx.exchange.flush()
        chunk = await _next(response, idle_s)
    return chunk


async def _copy_events(
    ctx: RequestContext, response: UpstreamResponse, stream: OpenStream, idle_s: float, chunk: bytes
) -> None:
    exchange, tracker, endpoint = ctx.exchange, stream.tracker, ctx.endpoint
    while chunk or not response.ended:
        if endpoint is not None:
            chunk = endpoint.feed(chunk)
        ctx.bytes_out += len(chunk)
        tracker.feed(chunk)
        if response.ended:
            exchange.finish(chunk)
            return
        exchange.write(chunk)
        if exchange.paused:
            await exchange.drain()
        if stream.ending and tracker.at_boundary:
            _end_drained(ctx, stream)
            return
        chunk = await _next(response, idle_s)
    exchange.finish()


async def _next(response: UpstreamResponse, idle_s: float) -> bytes:
    if not idle_s:
        return await response.read()
    async with asyncio.timeout(idle_s):
        return await response.read()


def _end_drained(ctx: RequestContext, stream: OpenStream) -> None:
    """A stream nobody waits on ends in order; one that still owes an answer must not look as if it had given it."""
    ctx.outcome = "drained"
    if stream.owes:
        ctx.exchange.abort()
    else:
        ctx.exchange.finish()


def _is_event_stream(response: UpstreamResponse) -> bool:
    for name, value in response.headers:
        if len(name) == 12 and name.lower() == "content-type":
            return value[:17].lower() == "text/event-stream"
    return False
