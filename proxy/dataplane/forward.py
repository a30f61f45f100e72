"""Forwarding: pick a server, be admitted, send the request, relay the answer; another server when that is safe.

    pick -> enter (queue, breaker) -> send -> relay
     ^                                 |
     `--- nothing was sent, or the request may be repeated (retries.py)

Which server is `choice.py`'s, what a failure says of it `attempt.py`'s, the race of two servers `hedge.py`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.config.resilience import Retry
from proxy.dataplane.attempt import Lease, enter
from proxy.dataplane.choice import answer_to, come_in, nobody, pick
from proxy.dataplane.hedge import first_of
from proxy.dataplane.legacy_sse import EndpointEvent
from proxy.dataplane.relay import relay
from proxy.dataplane.retries import may_follow, may_repeat, was_sent
from proxy.dataplane.rewrite import request_headers
from proxy.dataplane.websocket import forward_websocket
from proxy.errors import Refusal, UpstreamTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from proxy.dataplane.attempt import Attempt
    from proxy.dataplane.client import UpstreamResponse
    from proxy.dataplane.connector import Body
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.parts import Parts
    from proxy.dataplane.upstream import Upstream

#: For discovery documents, which have no route.
_WITHOUT_ROUTE: Final = Retry(attempts=1)


class _Course:
    """What a request has behind it."""

    __slots__ = ("lease", "sent", "tried")

    def __init__(self, denied: Sequence[str]) -> None:
        #: Names of servers that are not to be asked, or not again; and of those that may have got the request already.
        self.tried = list(denied)
        self.sent: list[str] = []
        #: For what follows the first failure.
        self.lease: Lease | None = None


class _Answered(NamedTuple):
    """An answer whose head has come."""

    upstream: Upstream
    attempt: Attempt
    response: UpstreamResponse


async def forward(ctx: RequestContext, parts: Parts) -> None:
    """Answer `ctx` from an upstream. Raises the refusal when no server could be asked or none answered."""
    parts.budget.begin()
    try:
        await _forward(ctx, parts)
    finally:
        parts.budget.end()


async def _forward(ctx: RequestContext, parts: Parts) -> None:
    course = _Course(ctx.denied)
    upstream = pick(ctx, course.tried)
    if upstream is None:
        raise answer_to(ctx, nobody(ctx))
    try:
        await _try(ctx, upstream, parts, course)
        return
    except Refusal as error:
        failure = error
    following = _following(ctx, failure, parts, course)
    if following is not None and parts.budget.take():
        lease = course.lease = Lease(parts.budget)
        try:
            await _fail_over(ctx, following, failure, parts, course)
            return
        finally:
            lease.end()
    raise answer_to(ctx, failure)


async def _fail_over(ctx: RequestContext, upstream: Upstream, told: Refusal, parts: Parts, course: _Course) -> None:
    """One server after the other until one answers. `told` is the first failure.

    What is told in the end is the last one; but once a server may have got the request, not that it was never sent.
    """
    following: Upstream | None = upstream
    while following is not None:
        try:
            await _try(ctx, following, parts, course)
            return
        except Refusal as error:
            failure = error
        if was_sent(failure) or not was_sent(told):
            told = failure
        following = _following(ctx, failure, parts, course)
    raise answer_to(ctx, told)


def _following(ctx: RequestContext, failure: Refusal, parts: Parts, course: _Course) -> Upstream | None:
    """Who is asked next: another one; when the last lost the connection and there is no other, it again."""
    retry, sent = _retry_of(ctx), course.sent
    if not may_follow(ctx, failure, len(sent), retry):
        return None
    try:
        upstream = pick(ctx, course.tried) or (ctx.upstream if was_sent(failure) else None)
    except Refusal:  # its session's server is in a window by now; what was sent must not be told as refused
        return None
    if upstream is None or not sent:
        return upstream
    may = len(sent) < retry.attempts and may_repeat(ctx, retry, parts.tools, *sent, upstream.name)
    return upstream if may else None


def _retry_of(ctx: RequestContext) -> Retry:
    return ctx.route.retry if ctx.route is not None else _WITHOUT_ROUTE


async def _try(ctx: RequestContext, upstream: Upstream, parts: Parts, course: _Course) -> None:
    """Ask one server, from its queue to the end of the answer."""
    attempt = ctx.attempt = await come_in(ctx, upstream, course.tried, parts)
    upstream, attempt.lease = attempt.upstream, course.lease
    try:
        if parts.recorder is not None and not ctx.intended and parts.recorder.intend(ctx, upstream):
            await parts.recorder.durable()  # with its place in the queue: given back, it would be had again as the last
        if not ctx.tries and ctx.route is not None and ctx.route.mirror is not None:
            parts.mirrors.copy(ctx, *ctx.route.mirror)  # once, and nothing leaves before it is written down
        ctx.tries += 1
        if upstream.config.timeouts.total:
            await _round_trip_in_time(ctx, upstream, parts, course)
        else:
            await _round_trip(ctx, upstream, parts, course)
    except Refusal as error:
        attempt.failed(error)
        raise
    finally:
        attempt.end()


async def _round_trip_in_time(ctx: RequestContext, upstream: Upstream, parts: Parts, course: _Course) -> None:
    """A round trip that `timeouts.total` ends: with 504 while nothing has gone to the client, else with a reset."""
    try:
        async with asyncio.timeout(upstream.config.timeouts.total):
            await _round_trip(ctx, upstream, parts, course)
    except TimeoutError:
        if not ctx.exchange.started:
            raise UpstreamTimeout("total") from None
        ctx.outcome = "timeout"
        ctx.exchange.abort()


async def _round_trip(ctx: RequestContext, upstream: Upstream, parts: Parts, course: _Course) -> None:
    if upstream.config.transport == "websocket" and not ctx.target:  # a discovery document is plain HTTP
        await forward_websocket(ctx, upstream, parts.streams)
        return
    attempt, route = ctx.attempt, ctx.route
    assert attempt is not None  # noqa: S101 - _try() made it
    if route is not None and route.retry.hedge is not None and _may_race(ctx, upstream, parts, course):
        answered = await _hedged(ctx, _Race(upstream, attempt, course), parts, route.retry)
    else:
        answered = await _send(ctx, upstream, attempt, parts, course)
    ctx.upstream, ctx.attempt = answered.upstream, answered.attempt
    ctx.first_byte_at = parts.clock()
    try:
        await relay(ctx, answered.response, parts)
    finally:
        answered.response.close()
        answered.attempt.end()


async def _send(ctx: RequestContext, upstream: Upstream, attempt: Attempt, parts: Parts, course: _Course) -> _Answered:
    head = ctx.head
    if head.method == "GET" and upstream.config.transport == "sse":
        ctx.endpoint = EndpointEvent(ctx)
    headers = request_headers(ctx, upstream)
    if attempt.span is not None:
        headers = attempt.span.fields(headers)
    target = ctx.target or upstream.target_with(head.query)
    sent_at = parts.clock()
    try:
        response = await upstream.client.send(head.method, target, headers, _body(ctx))
    except Refusal as error:
        if ctx.exchange.fault is not None:  # a streamed body broke off on the client's side
            raise ctx.exchange.fault from None
        if was_sent(error):
            course.sent.append(upstream.name)
        attempt.failed(error)
        raise
    ctx.connected_s = response.connect_s
    attempt.answered(response.status, response.headers)
    if head.method == "POST":  # the head of a GET stream says nothing about how fast a server works
        upstream.observe_latency(parts.clock() - sent_at)
    return _Answered(upstream, attempt, response)


# --- two servers at once --------------------------------------------------------------------------------------------


class _Race(NamedTuple):
    """The first of two tries."""

    upstream: Upstream
    attempt: Attempt
    course: _Course


def _may_race(ctx: RequestContext, upstream: Upstream, parts: Parts, course: _Course) -> bool:
    """Others run as one task, and read their bodies where they are. Both servers count among `retry.attempts`, but for
    the first two of a request: whoever configures a race wants it."""
    retry, sent = _retry_of(ctx), course.sent
    room = not sent or len(sent) + 2 <= retry.attempts
    return room and ctx.pinned is None and may_repeat(ctx, retry, parts.tools, upstream.name)


async def _hedged(ctx: RequestContext, race: _Race, parts: Parts, retry: Retry) -> _Answered:
    """The first answer of two servers, of which the second is asked when the first is late."""
    assert retry.hedge is not None  # noqa: S101 - _round_trip() has looked
    answered = await first_of(
        _send(ctx, race.upstream, race.attempt, parts, race.course),
        _spare(ctx, race, parts, retry),
        retry.hedge.after,
        _give_up,
    )
    if answered.attempt is not race.attempt:
        race.attempt.end()
    return answered


def _spare(
    ctx: RequestContext, race: _Race, parts: Parts, retry: Retry
) -> Callable[[], Coroutine[None, None, _Answered] | None]:
    """Asks another server, if there is one that the request may be sent to, too."""

    tried = race.course.tried

    def spare() -> Coroutine[None, None, _Answered] | None:
        other = pick(ctx, tried)
        if other is None or not may_repeat(ctx, retry, parts.tools, race.upstream.name, other.name):
            return None
        if not parts.budget.take():
            return None
        tried.append(other.name)
        return _ask_besides(ctx, other, parts, race.course)

    return spare


async def _ask_besides(ctx: RequestContext, upstream: Upstream, parts: Parts, course: _Course) -> _Answered:
    answered: _Answered | None = None
    attempt: Attempt | None = None
    try:
        attempt = await enter(ctx, upstream, parts)
        attempt.lease = course.lease
        ctx.tries += 1
        answered = await _send(ctx, upstream, attempt, parts, course)
        return answered
    finally:
        parts.budget.give_back()
        if attempt is not None and answered is None:
            attempt.end()


def _give_up(answered: _Answered) -> None:
    """The other one was sooner."""
    answered.response.close()
    answered.attempt.end()


# --- what is sent ---------------------------------------------------------------------------------------------------


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
