"""The only place that writes a refusal (design section 7): HTTP status, fixed JSON-RPC body, nothing of the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from proxy.dataplane.answer import head_bytes
from proxy.errors import RateLimited, UnderMaintenance

if TYPE_CHECKING:
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.exchange import Headers
    from proxy.errors import Refusal


def refusal_body(refusal: Refusal) -> bytes:
    """`{"jsonrpc":"2.0","id":...,"error":{"code","message","data":{"source":"proxy","reason"}}}`; no id if unknown."""
    body: dict[str, Any] = {"jsonrpc": "2.0"}
    if refusal.request_id is not None:
        body["id"] = refusal.request_id
    about = {"source": "proxy", "reason": refusal.reason}
    if isinstance(refusal, RateLimited):
        about["rule"] = refusal.rule
    if isinstance(refusal, UnderMaintenance):
        about["title"] = refusal.title
    body["error"] = {"code": refusal.code, "message": refusal.message, "data": about}
    return orjson.dumps(body)


def refusal_headers(refusal: Refusal) -> Headers:
    """Fields of a refusal's answer: never a Server, never a version."""
    return [("Content-Type", "application/json"), ("Cache-Control", "no-store"), *refusal.headers]


def refusal_bytes(refusal: Refusal) -> bytes:
    """A whole answer that closes the connection, for requests that the gate refuses."""
    body = refusal_body(refusal)
    return head_bytes(refusal.status, [*refusal_headers(refusal), ("Content-Length", str(len(body)))], "close") + body


def reject(ctx: RequestContext, refusal: Refusal) -> None:
    """Answer with `refusal`, or reset the connection when an answer has begun already."""
    ctx.refusal = refusal.with_traceback(None)  # it holds frames, and they the context: only a full collection frees it
    exchange = ctx.exchange
    if exchange.started:
        exchange.abort()
        return
    if refusal.request_id is None and ctx.message is not None:
        refusal.request_id = ctx.message.id
    ctx.status = refusal.status
    exchange.closing = exchange.closing or refusal.closes
    body = refusal_body(refusal)
    ctx.bytes_out += len(body)
    headers = refusal_headers(refusal)
    if ctx.id:
        headers.append(("X-Request-Id", ctx.id))
    exchange.respond(refusal.status, headers, body)
