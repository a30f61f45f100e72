"""Requests and their tries as spans of a distributed trace: who is whose parent, and which are recorded.

Owns identities and times, and what servers are told of the trace. A span is made when it is over; until then it is a
few numbers. What becomes of it then is not known here, nor is any library. Nothing raises.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.mcp.trace import trace_of

if TYPE_CHECKING:
    from proxy.config.tracing import Tracing
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.exchange import Headers
    from proxy.dataplane.upstream import Upstream
    from proxy.errors import Refusal

_NS: Final = 1e9
_TRACE_BITS: Final = 128
_SPAN_BITS: Final = 64
#: Traces are sampled by the lower half of their id, as OpenTelemetry does it: all who sample alike choose alike.
_SAMPLE_BITS: Final = 64


class AttemptSpan:
    """One try at a server, from its request to the end of its answer."""

    __slots__ = (
        "_clock",
        "_parented",
        "ended_at",
        "error",
        "span_id",
        "started_at",
        "status",
        "traceparent",
        "upstream",
    )

    def __init__(self, upstream: Upstream, span_id: int, traceparent: str, parented: bool, clock: Callable[[], float]):
        self.upstream = upstream
        self.span_id = span_id
        #: What the server is told.
        self.traceparent = traceparent
        self._parented = parented
        self._clock = clock
        self.started_at = clock()
        self.ended_at = 0.0
        self.status = 0
        self.error = ""

    def fields(self, headers: Headers) -> Headers:
        """`headers` with our `traceparent` instead of the client's. A `tracestate` passes untouched, but where it
        belongs to no trace (W3C Trace Context, section 3.3)."""
        passed = [
            pair for pair in headers
            if not (len(pair[0]) == 11 and pair[0].lower() == "traceparent")
            and (self._parented or not (len(pair[0]) == 10 and pair[0].lower() == "tracestate"))
        ]  # fmt: skip
        passed.append(("traceparent", self.traceparent))
        return passed

    def answered(self, status: int) -> None:
        """The head of the answer has come. The span ends with the request, or with `end`."""
        self.status = status

    def failed(self, error: Refusal) -> None:
        """It ended without an answer."""
        self.error = error.reason
        self.end()

    def end(self) -> None:
        """It is over; to be called once more does nothing."""
        self.ended_at = self.ended_at or self._clock()


class Followed:
    """A request in its trace."""

    __slots__ = ("attempts", "parent", "parented", "sampled", "span_id", "trace_id")

    def __init__(self, trace_id: int, span_id: int, parent: int, sampled: bool) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        #: Span id of the caller; 0 for none.
        self.parent = parent
        self.parented = parent != 0
        self.sampled = sampled
        self.attempts: list[AttemptSpan] = []


class Tracer:
    """Follows requests; one for the whole process."""

    def __init__(
        self,
        settings: Tracing,
        ended: Callable[[RequestContext, Followed, str, Moments], None],
        clock: Callable[[], float],
        wall_ns: Callable[[], int] = time.time_ns,
        bits: Callable[[int], int] = random.getrandbits,
    ) -> None:
        """`ended` is told of requests that are recorded, with their outcome; `clock` is that of the requests (monotonic
        seconds), `wall_ns` gives nanoseconds since 1970, `bits` a random number of so many bits."""
        self._ended = ended
        self._clock = clock
        self._wall_ns = wall_ns
        self._bits = bits
        self._follows = settings.follow_clients
        self._bound = round(settings.sample * (1 << _SAMPLE_BITS))
        self._open: dict[RequestContext, Followed] = {}

    def begin(self, ctx: RequestContext) -> None:
        """Give `ctx` its place in a trace. Not before its body is read, where it has one; twice is as good as once."""
        self._of(ctx)

    def attempt(self, ctx: RequestContext, upstream: Upstream) -> AttemptSpan:
        """A try at `upstream` begins: send `fields(headers)`, and tell it what comes of it."""
        request = self._of(ctx)
        span_id = self._bits(_SPAN_BITS) or 1
        told = f"00-{request.trace_id:032x}-{span_id:016x}-{'01' if request.sampled else '00'}"
        attempt = AttemptSpan(upstream, span_id, told, request.parented, self._clock)
        if request.sampled:
            request.attempts.append(attempt)
        return attempt

    def end(self, ctx: RequestContext, outcome: str = "") -> None:
        """The request is over, and this is how, in a word."""
        request = self._of(ctx)
        del self._open[ctx]
        if not request.sampled:
            return
        self._ended(ctx, request, outcome, Moments(self._clock(), self._wall_ns()))

    def _of(self, ctx: RequestContext) -> Followed:
        request = self._open.get(ctx)
        if request is None:
            request = self._open[ctx] = self._begun(ctx)
        return request

    def _begun(self, ctx: RequestContext) -> Followed:
        found = trace_of(ctx.fields, ctx.envelope.traceparent if ctx.envelope is not None else "")
        span_id = self._bits(_SPAN_BITS) or 1
        if found is None:
            trace_id, parent = self._bits(_TRACE_BITS) or 1, 0
        else:
            trace_id, parent = int(found.trace_id, 16), int(found.span_id, 16)
        if found is not None and self._follows:
            sampled = found.sampled
        else:
            sampled = trace_id & ((1 << _SAMPLE_BITS) - 1) < self._bound
        ctx.trace_id, ctx.span_id = f"{trace_id:032x}", f"{span_id:016x}"
        return Followed(trace_id, span_id, parent, sampled)

    @property
    def open(self) -> int:
        """Requests that are followed now."""
        return len(self._open)


class Moments:
    """Turns monotonic seconds into nanoseconds since 1970."""

    __slots__ = ("_now", "_now_ns", "now_ns")

    def __init__(self, now: float, now_ns: int) -> None:
        self._now, self._now_ns = now, now_ns
        self.now_ns = now_ns

    def ns(self, moment: float) -> int:
        """0 stands for now."""
        return self._now_ns - round((self._now - moment) * _NS) if moment else self._now_ns
