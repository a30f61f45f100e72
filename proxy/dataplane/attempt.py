"""One try of a request at one server: its place in the queue, its admission by the breaker, and what both learn of it.

Owns that whatever was taken is given back exactly once, however the try ends, and what counts as a failure of the
server. Which server is tried, and whether another one follows, is `forward.py`'s.
"""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Final

from proxy.dataplane.client import origin_of
from proxy.dataplane.maintenance import refusal, takes
from proxy.dataplane.tokens import opens_stream
from proxy.errors import CircuitOpen, ConnectFailed, QueueFull, UpstreamFailed, UpstreamTimeout, retry_after
from proxy.limits.costs import EXEMPT

if TYPE_CHECKING:
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.exchange import Headers
    from proxy.dataplane.parts import Parts
    from proxy.dataplane.queueing import RequestQueue
    from proxy.dataplane.retries import RetryBudget
    from proxy.dataplane.tracer import AttemptSpan
    from proxy.dataplane.upstream import Upstream
    from proxy.errors import Refusal

#: What a server answers that cannot serve (RFC 9110 sections 15.6.3 to 15.6.5); 500 may well be about the one request.
_FAILURES: Final = frozenset((502, 503, 504))
_TOO_MANY: Final = 429
#: A longer Retry-After of a server is no promise but a mistake, seconds.
_LONGEST_S: Final = 3600.0


class Lease:
    """What a retry has borrowed of the budget, until the head of its answer has come: a stream may stay for hours."""

    __slots__ = ("_budget",)

    def __init__(self, budget: RetryBudget) -> None:
        self._budget: RetryBudget | None = budget

    def end(self) -> None:
        """Give it back; to be called once more does nothing."""
        if self._budget is not None:
            self._budget.give_back()
            self._budget = None


class Attempt:
    """Holds what `enter` took."""

    __slots__ = ("_ended", "_queue", "_streams", "_ticket", "lease", "span", "upstream")

    def __init__(self, upstream: Upstream, queue: RequestQueue | None, ticket: int, *, opens: bool = False) -> None:
        """`opens`: a stream is asked for, which counts among the streams at once."""
        self.upstream = upstream
        self._queue = queue
        #: What the breaker gave, until it was told how it went, or the try ended; 0 from then on.
        self._ticket = ticket
        self._streams = opens
        self._ended = False
        #: Of a retry.
        self.lease: Lease | None = None
        #: Of its trace.
        self.span: AttemptSpan | None = None
        upstream.in_flight += 1
        upstream.open_streams += opens

    def answered(self, status: int, headers: Headers) -> None:
        """The head of the answer has come."""
        upstream, ticket = self.upstream, self._ticket
        self._ticket = 0
        if self.lease is not None:
            self.lease.end()
        if self.span is not None:
            self.span.answered(status)
        if status in _FAILURES:
            upstream.breaker.failed(ticket, "upstream_5xx", _retry_after_s(headers))
            upstream.health.passive(False)
            return
        upstream.breaker.succeeded(ticket)
        upstream.health.passive(True)
        if status == _TOO_MANY and (rest_s := _retry_after_s(headers)):
            upstream.breaker.rest(rest_s)

    def failed(self, error: Refusal) -> None:
        """It ended without an answer. What came after the head, and what is the client's fault, says nothing."""
        if self.span is not None:
            self.span.failed(error)
        if self._ticket and isinstance(error, ConnectFailed | UpstreamFailed | UpstreamTimeout):
            ticket, self._ticket = self._ticket, 0
            self.upstream.breaker.failed(ticket, origin_of(error))
            self.upstream.health.passive(False)

    def streams(self) -> None:
        """The answer is a stream: its place in the queue is free for others, and it counts among the streams."""
        self._leave()
        self.upstream.open_streams += not self._streams
        self._streams = True

    def end(self) -> None:
        """Give back what is still held; to be called once more does nothing."""
        if self._ended:
            return
        self._ended = True
        if self.span is not None:
            self.span.end()
        upstream = self.upstream
        upstream.in_flight -= 1
        upstream.open_streams -= self._streams
        if self._ticket:
            upstream.breaker.neutral(self._ticket)
            self._ticket = 0
        self._leave()

    def _leave(self) -> None:
        if self._queue is not None:
            self._queue.leave()
            self._queue = None


async def enter(ctx: RequestContext, upstream: Upstream, parts: Parts) -> Attempt:
    """Wait for a place at `upstream`, if it has a queue, and be admitted. Raises QueueFull, QueueTimeout, CircuitOpen,
    and UnderMaintenance when a window began meanwhile."""
    queue, opens = upstream.queue, False
    if queue is not None:
        if ctx.message is not None and ctx.message.method in EXEMPT:
            queue = None
        else:
            opens = opens_stream(ctx)
            if opens:
                _check_streams(upstream)
            if not queue.try_enter():
                await _wait(ctx, queue, upstream.config.timeouts.total or inf, parts)
                _check_window(ctx, upstream, queue)
                if opens:  # others have opened theirs meanwhile
                    _check_streams(upstream, queue)
    ticket = upstream.breaker.admit()
    if not ticket:
        if queue is not None:
            queue.leave()
        raise circuit_open(upstream.breaker.retry_after_s)
    attempt = Attempt(upstream, queue, ticket, opens=opens)
    attempt.span = _span(ctx, upstream, parts)
    return attempt


def _span(ctx: RequestContext, upstream: Upstream, parts: Parts) -> AttemptSpan | None:
    tracer = parts.recorder.tracer if parts.recorder is not None else None
    return tracer.attempt(ctx, upstream) if tracer is not None else None


def _check_streams(upstream: Upstream, taken: RequestQueue | None = None) -> None:
    """Raise QueueFull when there are as many streams as there may be, and give back the place that was `taken`."""
    if upstream.open_streams < upstream.max_streams:
        return
    if taken is not None:
        taken.leave()
    raise QueueFull("streams of the server", headers=retry_after())


def _check_window(ctx: RequestContext, upstream: Upstream, taken: RequestQueue) -> None:
    """Raise UnderMaintenance, and give the place back that was `taken`, when the server takes this request no more."""
    window = upstream.window
    if window is not None and not takes(upstream, now := time.time(), of_session=ctx.session is not None):
        taken.leave()
        raise refusal((window,), now)


async def _wait(ctx: RequestContext, queue: RequestQueue, patience_s: float, parts: Parts) -> None:
    tenant, began = ctx.principal.tenant, parts.clock()
    try:
        await queue.enter(tenant, parts.weight_of(tenant), ctx.priority, patience_s, len(ctx.body or b""))
    finally:
        ctx.queued_s += parts.clock() - began


def circuit_open(retry_after_s: float) -> CircuitOpen:
    """The refusal while a breaker is open, with the time until the next trial."""
    return CircuitOpen(headers=retry_after(retry_after_s))


def _retry_after_s(headers: Headers) -> float:
    """`Retry-After` in seconds; 0 for none, and for a date, which a server's clock may have made."""
    for name, value in headers:
        if len(name) == 11 and name.lower() == "retry-after":
            return min(float(value), _LONGEST_S) if value.isdecimal() and len(value) < 10 else 0.0
    return 0.0
