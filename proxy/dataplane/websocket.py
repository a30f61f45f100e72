"""The phase that forwards a WebSocket: the handshake goes upstream, then raw bytes pass both ways (RFC 6455).

Only for a server with `transport: websocket`. Frames are not looked at; compression, masking and closing are between
the two ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.dataplane.rewrite import request_headers, response_headers
from proxy.dataplane.tunnel import Passed, open_tunnel, relay
from proxy.errors import Refusal, UpgradeRequired

if TYPE_CHECKING:
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.streams import Streams
    from proxy.dataplane.upstream import Upstream

_UPGRADE: Final = (("Upgrade", "websocket"), ("Connection", "Upgrade"))


async def forward_websocket(ctx: RequestContext, upstream: Upstream, streams: Streams) -> None:
    """Open the tunnel and carry it to its end, or relay the upstream's refusal of the handshake. An open tunnel is one
    of `streams`, so that it ends with the credential that opened it.

    Raises UpgradeRequired for a request that is no WebSocket handshake, and what `open_tunnel` raises.
    """
    exchange, head = ctx.exchange, ctx.head
    if head.upgrade != "websocket":
        raise UpgradeRequired(headers=_UPGRADE)
    timeouts = upstream.config.timeouts
    target = upstream.target_with(head.query)
    fields = request_headers(ctx, upstream)
    if ctx.attempt is not None and ctx.attempt.span is not None:
        fields = ctx.attempt.span.fields(fields)
    tunnel = await open_tunnel(upstream, fields, target, timeouts.first_byte)
    ctx.status = tunnel.status
    if ctx.attempt is not None:
        ctx.attempt.answered(tunnel.status, tunnel.headers)
    try:
        headers = response_headers(ctx, tunnel.status, tunnel.headers)
    except Refusal:
        tunnel.writer.transport.abort()
        raise
    if tunnel.status != 101:
        ctx.bytes_out = len(tunnel.body)
        exchange.respond(tunnel.status, [pair for pair in headers if pair[0].lower() != "content-length"], tunnel.body)
        return
    exchange.upgrade(101, [*headers, *_UPGRADE])
    ctx.streaming = True
    if ctx.attempt is not None:
        ctx.attempt.streams()
    held, passed = streams.open_tunnel(ctx), Passed()
    upstream.metrics.open_streams += 1
    try:
        relayed = await relay(exchange, tunnel, timeouts.idle, passed)
        ctx.outcome = ctx.outcome or relayed.outcome
    finally:
        ctx.bytes_in, ctx.bytes_out = passed.up, passed.down
        upstream.metrics.open_streams -= 1
        streams.close(held)
