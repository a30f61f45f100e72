"""The phase that reads the envelope: method, media type, body, JSON-RPC frame (design section 4.6).

Only a POST has a body, and only on a path whose routes inspect is it read here; elsewhere it streams through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.errors import NoRoute, UnsupportedMediaType
from proxy.mcp.envelope import read_envelope
from proxy.mcp.revisions import revision_of

if TYPE_CHECKING:
    from proxy.dataplane.context import RequestContext

_UTF8: Final = frozenset(("utf-8", "utf8", '"utf-8"'))


async def read_message(ctx: RequestContext) -> None:
    """Fill `ctx.envelope`, `ctx.message` and `ctx.revision`. Raises 404, 415 and the refusals of a bad body."""
    head = ctx.head
    routing = ctx.routing = ctx.snapshot.routing_of(ctx.principal.tenant)
    if not routing.serves(head.path) and ctx.snapshot.wellknown.match(head.path) is None:
        raise NoRoute
    ctx.revision = revision_of(ctx.fields.get("mcp-protocol-version"))
    if head.method != "POST" or not routing.inspects(head.path):
        return
    _check_media_type(ctx)
    body = ctx.body = await ctx.exchange.read_body()
    ctx.bytes_in = len(body)
    envelope = ctx.envelope = read_envelope(body, ctx.fields)
    ctx.message = envelope.first
    ctx.revision = envelope.revision


def _check_media_type(ctx: RequestContext) -> None:
    """`application/json` in UTF-8 without content coding: anything else might be read differently by the upstream."""
    content_type = ctx.fields.get("content-type", "")
    if content_type != "application/json":
        essence, _, parameters = content_type.partition(";")
        charset = parameters.strip().lower().removeprefix("charset=")
        if essence.strip().lower() != "application/json" or (parameters.strip() and charset not in _UTF8):
            raise UnsupportedMediaType("content-type")
    if ctx.fields.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("content-encoding")
