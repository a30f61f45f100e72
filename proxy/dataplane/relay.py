"""Bringing the upstream's answer to the client, piece by piece as it comes (design sections 4.1 and 4.3).

Nothing is buffered beyond what the transport holds, nothing is added, and an answer that breaks off upstream, or is
larger than `answers` of its server allows, resets the client's connection: it never ends as if it were complete. The
exception are answers with lists on a route that filters them (`lists.py`): JSON is read whole, events one by one. Lists
are also kept for learning (`lessons.py`), as the server sent them.
"""

from __future__ import annotations

import asyncio
from sys import maxsize
from typing import TYPE_CHECKING

from proxy.dataplane.capture import Overheard
from proxy.dataplane.client import Truncated
from proxy.dataplane.lists import (
    FilteredEvents,
    asks_for_lists,
    check_readable,
    filtered_answer,
    is_filtered,
    rewritten_headers,
)
from proxy.dataplane.rewrite import response_headers
from proxy.errors import Refusal, UpstreamFailed, UpstreamTimeout
from proxy.identity.list_filter import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.dataplane.client import UpstreamResponse
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.exchange import Headers
    from proxy.dataplane.lessons import Answer
    from proxy.dataplane.parts import Parts
    from proxy.dataplane.streams import OpenStream


async def relay(ctx: RequestContext, response: UpstreamResponse, parts: Parts) -> None:
    """Write head and body of `response` to the client. Sets `ctx.outcome` when the body does not come to its end.

    Raises UpstreamFailed for an answer that cannot pass, and for one that broke off or fell silent before anything of
    it was sent.
    """
    upstream, route = ctx.upstream, ctx.route
    assert upstream is not None  # noqa: S101 - forward() names it before it asks for an answer
    ctx.status = response.status
    headers = response_headers(ctx, response.status, response.headers)
    idle_s = upstream.config.timeouts.idle
    events, announced = _shape(response)
    most = upstream.config.answers.max_body or maxsize
    if announced > most and not events and not response.ended:
        raise UpstreamFailed("answer announced larger than answers.max_body")
    overheard = None
    if parts.lessons is not None and asks_for_lists(ctx):
        overheard = parts.lessons.overhear(ctx, response)
    answer = _kept(ctx, overheard or response, response.headers, parts)
    try:
        if route is not None and route.filter_lists and is_filtered(ctx, response.status, events=events):
            await _relay_filtered(ctx, headers, answer, parts, events)
            return
        ctx.exchange.start(response.status, headers)
        if events:
            await _relay_events(ctx, answer, parts, idle_s)
        else:
            await _copy(ctx, answer, idle_s, most)
    except Truncated:
        _break_off(ctx, "upstream_truncated", UpstreamFailed("truncated"))
    except TimeoutError:
        _break_off(ctx, "timeout", UpstreamTimeout("idle"))
    finally:
        if overheard is not None:
            overheard.close()


def _kept(ctx: RequestContext, answer: Answer, headers: Headers, parts: Parts) -> Answer:
    """The answer; where results are kept, one that is overheard for it."""
    if parts.recorder is not None:
        parts.recorder.answered(ctx, headers)
    return Overheard(answer, ctx.capture) if ctx.capture is not None else answer


def _break_off(ctx: RequestContext, outcome: str, refusal: Refusal) -> None:
    """An answer does not come to its end: refused while nothing of it was sent, else never to look complete."""
    if not ctx.exchange.started:
        raise refusal from None
    ctx.outcome = outcome
    ctx.exchange.abort()


async def _relay_filtered(ctx: RequestContext, headers: Headers, answer: Answer, parts: Parts, events: bool) -> None:
    """An answer without the items of its lists that the client may not use; an unfiltered one never passes."""
    upstream = ctx.upstream
    assert upstream is not None  # noqa: S101 - as above
    idle_s = upstream.config.timeouts.idle
    check_readable(headers)
    if events:
        ctx.exchange.start(ctx.status, rewritten_headers(headers))
        await _relay_events(ctx, FilteredEvents(answer, lambda: parts.keeps(ctx, upstream)), parts, idle_s)
        return
    body = await _whole(answer, idle_s)
    headers, body = filtered_answer(ctx.status, headers, body, parts.keeps(ctx, upstream))
    ctx.bytes_out += len(body)
    ctx.exchange.respond(ctx.status, headers, body)


async def _whole(answer: Answer, idle_s: float) -> bytes:
    body = bytearray(answer.read_nowait())
    while not answer.ended and len(body) <= MAX_BYTES:
        body += await _next(answer, idle_s)
    if len(body) > MAX_BYTES:
        raise UpstreamFailed("a list too large to be filtered")
    return bytes(body)


async def _copy(ctx: RequestContext, answer: Answer, idle_s: float, most: int) -> None:
    """Chunk in, chunk out. The last piece and the end of the message share one write, as do head and first piece.

    Raises UpstreamFailed once `most` bytes have passed and there are more.
    """
    exchange = ctx.exchange
    chunk = answer.read_nowait()
    if not chunk and not answer.ended:
        exchange.flush()
        chunk = await _next(answer, idle_s)
    while True:
        ctx.bytes_out += len(chunk)
        if ctx.bytes_out > most:
            _cut(ctx, chunk, ctx.bytes_out - most, "answer larger than answers.max_body")
        if answer.ended:
            break
        exchange.write(chunk)
        if exchange.paused:
            await exchange.drain()
        chunk = await _next(answer, idle_s)
    exchange.finish(chunk)


def _cut(ctx: RequestContext, chunk: bytes, excess: int, why: str) -> None:
    """Let pass what may of the last chunk, and give the answer up; the connection is reset then."""
    ctx.bytes_out -= excess
    ctx.exchange.write(chunk[: len(chunk) - excess])
    raise UpstreamFailed(why)


async def _relay_events(ctx: RequestContext, answer: Answer, parts: Parts, idle_s: float) -> None:
    """An SSE answer: like `_copy`, but it knows where an event ends, so that a drain never cuts one."""
    upstream = ctx.upstream
    assert upstream is not None  # noqa: S101 - as above
    ctx.streaming = True
    if ctx.attempt is not None:
        ctx.attempt.streams()
    stream = parts.streams.open(ctx)
    stream.begin(parts.streams.times.of(upstream.metrics), parts.clock())
    upstream.metrics.open_streams += 1
    try:
        if stream.ending:  # it begins in a drain
            _end_drained(ctx, stream)
            return
        chunk = await _first_event(ctx, answer, idle_s)
        ctx.first_byte_at = parts.clock()
        stream.passed(len(chunk), ctx.first_byte_at)
        await _copy_events(ctx, answer, stream, parts.clock, chunk)
    except asyncio.CancelledError:
        if stream.answered:  # MCP ends the stream behind its response; many clients do not wait for that
            ctx.outcome = ctx.outcome or "ok"
        task = asyncio.current_task()
        if stream.cut or not stream.ending or ctx.exchange.gone or task is None:
            raise
        task.uncancel()
        _end_drained(ctx, stream)
    finally:
        upstream.metrics.open_streams -= 1
        stream.over(parts.clock())
        parts.streams.close(stream)


async def _first_event(ctx: RequestContext, answer: Answer, idle_s: float) -> bytes:
    """The first bytes of the stream; its head goes out before them when they are not here yet."""
    chunk = answer.read_nowait()
    if not chunk and not answer.ended:
        ctx.exchange.flush()
        chunk = await _next(answer, idle_s)
    return chunk


async def _copy_events(
    ctx: RequestContext, answer: Answer, stream: OpenStream, clock: Callable[[], float], chunk: bytes
) -> None:
    """Raises UpstreamFailed when an event has more bytes than `answers.max_event` and is still not complete."""
    exchange, tracker, endpoint = ctx.exchange, stream.tracker, ctx.endpoint
    assert ctx.upstream is not None  # noqa: S101 - as above
    config = ctx.upstream.config
    most, idle_s = config.answers.max_event or maxsize, config.timeouts.idle
    while chunk or not answer.ended:
        if endpoint is not None:
            chunk = endpoint.feed(chunk)
        ctx.bytes_out += len(chunk)
        tracker.feed(chunk)
        if tracker.event_bytes > most:
            _cut(ctx, chunk, min(len(chunk), tracker.event_bytes - most), "event larger than answers.max_event")
        if answer.ended:
            exchange.finish(chunk)
            return
        exchange.write(chunk)
        if stream.last is not None:
            stream.last.feed(chunk, tracker)
        if exchange.paused:
            await exchange.drain()
        if stream.ending and tracker.at_boundary:
            _end_drained(ctx, stream)
            return
        chunk = await _next(answer, idle_s)
        stream.passed(len(chunk), clock())
    exchange.finish()


async def _next(answer: Answer, idle_s: float) -> bytes:
    if not idle_s:
        return await answer.read()
    async with asyncio.timeout(idle_s):
        return await answer.read()


def _end_drained(ctx: RequestContext, stream: OpenStream) -> None:
    """A stream nobody waits on ends in order; one that still owes an answer must not look as if it had given it."""
    answered = stream.answered
    ctx.outcome = "ok" if answered else "drained"
    if stream.owes and not answered:
        ctx.exchange.abort()
    else:
        ctx.exchange.finish()


def _shape(response: UpstreamResponse) -> tuple[bool, int]:
    """Whether an answer is an event stream, and how many bytes it says it has (-1: it does not say)."""
    events, length = False, -1
    for name, value in response.headers:
        if len(name) == 12 and name.lower() == "content-type":
            events = value[:17].lower() == "text/event-stream"
        elif len(name) == 14 and name.lower() == "content-length" and value.isdecimal():
            length = int(value)
    return events, length
