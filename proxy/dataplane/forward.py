"""Forwarding: pick a server, send the request, relay the answer; the next server only when nothing was sent.

    while servers remain:  pick -> send -> relay
                                     `-> connect failed -> next

A request of which a byte may have left is never sent again (design section 4.4).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from proxy.dataplane.legacy_sse import EndpointEvent
from proxy.dataplane.relay import relay
from proxy.dataplane.rewrite import request_headers
from proxy.dataplane.websocket import forward_websocket
from proxy.errors import ConnectFailed, NoServer, PoolExhausted, Refusal, SessionGone, UpstreamFailed, UpstreamTimeout

if TYPE_CHECKING:
    from proxy.dataplane.client import UpstreamResponse
    from proxy.dataplane.connector import Body
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.parts import Parts
    from proxy.dataplane.upstream import Upstream


async def forward(ctx: RequestContext, parts: Parts) -> None:
    """Answer `ctx` from an upstream. Raises the refusal when no server could be asked or none answered."""
    if ctx.route is not None and ctx.route.mirror is not None:
        parts.mirrors.copy(ctx, *ctx.route.mirror)
    tried = list(ctx.denied)
    failure: Refusal = NoServer(headers=(("Retry-After", "1"),))
    while (upstream := pick(ctx, tried)) is not None:
        tried.append(upstream.name)
        ctx.upstream = upstream
        ctx.tries += 1
        upstream.in_flight += 1
        try:
            if upstream.config.timeouts.total:
                await _round_trip_in_time(ctx, upstream, parts)
            else:
                await _round_trip(ctx, upstream, parts)
            return
        except (ConnectFailed, PoolExhausted) as error:  # nothing was sent
            failure = error
        finally:
            upstream.in_flight -= 1
    if ctx.session is not None and isinstance(failure, ConnectFailed):
        raise SessionGone("server cannot be reached") from None  # 404 makes the client start again, elsewhere
    raise failure


def pick(ctx: RequestContext, tried: list[str]) -> Upstream | None:
    """The server to ask next: the session's, the discovery document's, or the route's choice among those untried."""
    if ctx.pinned is not None:
        return None if ctx.tries else ctx.pinned
    assert ctx.route is not None  # noqa: S101 - match_route() found one, or pinned a server
    return ctx.route.selection.pick(ctx.affinity_key, tried)


async def _round_trip_in_time(ctx: RequestContext, upstream: Upstream, parts: Parts) -> None:
    """A round trip that `timeouts.total` ends: with 504 while nothing has gone to the client, else with a reset."""
    try:
        async with asyncio.timeout(upstream.config.timeouts.total):
            await _round_trip(ctx, upstream, parts)
    except TimeoutError:
        if not ctx.exchange.started:
            raise UpstreamTimeout("total") from None
        ctx.outcome = "timeout"
        ctx.exchange.abort()


async def _round_trip(ctx: RequestContext, upstream: Upstream, parts: Parts) -> None:
    if upstream.config.transport == "websocket" and not ctx.target:  # a discovery document is plain HTTP
        await forward_websocket(ctx, upstream, parts.streams)
        return
    response = await _send(ctx, upstream, parts)
    try:
        await relay(ctx, response, parts)
    finally:
        response.close()


async def _send(ctx: RequestContext, upstream: Upstream, parts: Parts) -> UpstreamResponse:
    head = ctx.head
    if head.method == "GET" and upstream.config.transport == "sse":
        ctx.endpoint = EndpointEvent(ctx)
    headers = request_headers(ctx, upstream)
    target = ctx.target or upstream.target_with(head.query)
    sent_at = parts.clock()
    try:
        response = await upstream.client.send(head.method, target, headers, _body(ctx))
    except UpstreamFailed:
        if ctx.exchange.fault is not None:  # a streamed body broke off on the client's side
            raise ctx.exchange.fault from None
        raise
    ctx.first_byte_at = parts.clock()
    if head.method == "POST":  # the head of a GET stream says nothing about how fast a server works
        upstream.observe_latency(ctx.first_byte_at - sent_at)
    return response


def _body(ctx: RequestContext) -> Body:
    if ctx.body is not None:
        return ctx.body
    head = ctx.head
    if head.chunked or head.content_length:
        return _streamed(ctx, ctx.exchange)
    return b"" if head.content_length is not None else None


async def _streamed(ctx: RequestContext, exchange: Exchange) -> AsyncIterator[bytes]:
    while chunk := await exchange.read_chunk():
        ctx.bytes_in += len(chunk)
        yield chunk
