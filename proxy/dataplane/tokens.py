"""The phase that takes tokens: every rule that concerns the request lets it pass, or it takes nothing of any.

A request that needs no answer of Redis (no rules, or nothing that is priced) does not wait. A stream counts once, at
its start, and against the streams that its client and its tenant have open. `server/discover` is free: a refusal
would flip clients to an older protocol (design section 7). With several servers, rules of a server count for the route.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final

from proxy.errors import RateLimited, TooManyStreams, retry_after
from proxy.limits.fairness import TenantShare
from proxy.limits.rules import Asked, who
from proxy.mcp.methods import METHODS, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.dataplane.allowance import Allowance
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.parts import Parts
    from proxy.limits.rules import Demand
    from proxy.limits.verdict import Verdict
    from proxy.mcp.envelope import Message

#: How soon to come back when too many streams are open: nobody knows when one ends, seconds.
_STREAM_RETRY: Final = retry_after(5)
#: Longest time that a client is told to wait, seconds: nobody keeps a request for longer.
_LONGEST_S: Final = 86400


async def take_tokens(ctx: RequestContext, allowance: Allowance, parts: Parts) -> None:
    """Raise RateLimited when a rule is used up, TooManyStreams for one stream too many."""
    if allowance.limits_streams and opens_stream(ctx):
        _check_streams(ctx, allowance, parts)
    limiter, book = parts.limiter, allowance.book
    if limiter is None:
        return
    demands = book.for_batch(_asked(ctx)) if _is_batch(ctx) else book.for_request(_one(ctx, ctx.message))
    if not demands:
        return
    tenant = ctx.principal.tenant
    share = TenantShare(tenant, allowance.weights.get(tenant, 1.0)) if tenant else None
    began = parts.clock()
    verdict = await limiter.take(demands, share)
    ctx.limited_s = parts.clock() - began
    if verdict.shadowed or not verdict.allowed:
        _tell(ctx, parts, demands, verdict)
    if verdict.rule is not None and not verdict.allowed:
        raise RateLimited(verdict.rule.name, headers=_fields(verdict))


def opens_stream(ctx: RequestContext) -> bool:
    """Whether the answer has no end of its own."""
    message = ctx.message
    if message is None:
        return ctx.head.method == "GET"
    return METHODS.get(message.method, UNKNOWN).long_lived


def _check_streams(ctx: RequestContext, allowance: Allowance, parts: Parts) -> None:
    streams, principal = parts.streams, ctx.principal
    most = allowance.streams_of_client
    if most and streams.open_of(who(principal, ctx.client_ip)) >= most:
        raise TooManyStreams("streams of the client", headers=_STREAM_RETRY)
    most = allowance.streams_of_tenant
    if most and principal.tenant and streams.open_of_tenant(principal.tenant) >= most:
        raise TooManyStreams("streams of the tenant", headers=_STREAM_RETRY)


def _is_batch(ctx: RequestContext) -> bool:
    return ctx.envelope is not None and ctx.envelope.batch


def _asked(ctx: RequestContext) -> Sequence[Asked]:
    assert ctx.envelope is not None  # noqa: S101 - a batch has one
    return [_one(ctx, message) for message in ctx.envelope.messages]


def _one(ctx: RequestContext, message: Message | None) -> Asked:
    """What is asked: by a message, else by the request itself."""
    if message is None:
        return Asked(ctx.principal, ctx.client_ip, _server(ctx), "", ctx.head.method)
    tool = message.target if message.target_kind == "tool" else ""
    return Asked(ctx.principal, ctx.client_ip, _server(ctx), tool, message.method)


def _server(ctx: RequestContext) -> str:
    """The server that it goes to; the route's name while it may be one of several."""
    if ctx.pinned is not None:
        return ctx.pinned.name
    route = ctx.route
    if route is None:
        return ""
    return next(iter(route.servers.values())).name if len(route.servers) == 1 else route.name


def _tell(ctx: RequestContext, parts: Parts, demands: Sequence[Demand], verdict: Verdict) -> None:
    """For the record: the rule that refused, and those that would have."""
    rules = verdict.shadowed if verdict.allowed or verdict.rule is None else (verdict.rule, *verdict.shadowed)
    for rule in rules:
        subject = next((demand.subject for demand in demands if demand.rule is rule), "")
        enforced = rule is verdict.rule
        ctx.shadowed += () if enforced else (rule.name,)
        if parts.violated is not None:
            wait_s = verdict.retry_after_s if enforced else 0.0
            parts.violated(rule, subject, ctx.principal.tenant, ctx.client_ip, rule.capacity, wait_s)


def _fields(verdict: Verdict) -> tuple[tuple[str, str], ...]:
    """`Retry-After`, and `RateLimit` and `RateLimit-Policy` of the rule (IETF draft
    httpapi-ratelimit-headers): `q` the most at once, `w` seconds to fill it, `r` what is left, `t` seconds to wait."""
    rule = verdict.rule
    assert rule is not None  # noqa: S101 - it refused
    wait_s = min(max(1, ceil(verdict.retry_after_s)), _LONGEST_S)
    fill_s = max(1, round(rule.capacity / rule.refill_per_s)) if rule.refill_per_s else _LONGEST_S
    name = rule.name.replace("\\", "").replace('"', "")
    return (
        *retry_after(wait_s),
        ("RateLimit-Policy", f'"{name}";q={int(rule.capacity)};w={fill_s}'),
        ("RateLimit", f'"{name}";r={int(max(0.0, verdict.remaining))};t={wait_s}'),
    )
