"""What is written of every request: an intent before it is sent, and at its end its metrics, its log line, its record.

Owns when, and what happens to a call that cannot be recorded (`record.audit`). It waits for nothing but the disk, and
for that only where `strict` asks for it, and never raises at the end of a request. What is told is `facts.py`'s; who
keeps it is the journal's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeVarTuple

import orjson

from proxy.config.record import AuditGrade, Record
from proxy.dataplane.facts import Facts, refused_early
from proxy.errors import Blocked, InternalError, Unrecorded, UpstreamTimeout, retry_after
from proxy.log import logger
from proxy.mcp.trace import trace_of

if TYPE_CHECKING:
    from proxy.dataplane.capture import Capture
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.exchange import Headers
    from proxy.dataplane.scrutiny import Scrutiny
    from proxy.dataplane.tally import Tally
    from proxy.dataplane.tracer import Tracer
    from proxy.dataplane.upstream import Upstream
    from proxy.dataplane.usage import Usage
    from proxy.errors import Refusal
    from proxy.log import AccessLog
    from proxy.metrics import Metrics

#: How long a strict call waits for the disk, seconds.
_DISK_S: Final = 2.0
#: The stricter the higher.
_STRICTNESS: Final = {"none": 0, "usage": 1, "standard": 2, "strict": 3}

_Ts = TypeVarTuple("_Ts")
Kept = Literal["usage", "standard", "strict"]
"""The grades of what is recorded."""


class Journal(Protocol):
    """Where records go; `spool.journal.Journal` is one."""

    def begin(self, key: str, record: bytes, grade: Kept) -> bool:
        """Keep the intent of a call; False: the call must not be sent."""
        ...

    def end(self, key: str, record: bytes, grade: Kept) -> bool:
        """Keep the outcome of one that was begun."""
        ...

    def append(self, record: bytes, grade: Kept, tenant: str) -> bool:
        """Keep another record."""
        ...

    def skip(self, tenant: str) -> None:
        """Only count it."""
        ...

    def durable(self) -> Awaitable[bool]:
        """Return when everything so far is on disk; False: it may never be."""
        ...


class Incidents(Protocol):
    """Who notes what went wrong; `background.incidents.Incidents` is one."""

    def noted(self, ctx: RequestContext, refusal: Refusal) -> None:
        """A request was refused."""
        ...

    def refused_early(self, refusal: Refusal, peer: str) -> None:
        """What is no request yet was refused."""
        ...

    def bug(self, ctx: RequestContext, bug: BaseException) -> None:
        """A request ran into a bug."""
        ...


class Recorder:
    """Writes the record of each request. One for the whole process; a reload replaces `enabled` and `config`."""

    def __init__(
        self, metrics: Metrics, access_log: AccessLog, enabled: bool, usage: Usage | None = None,
        facts: Facts | None = None, config: Record | None = None,
    ) -> None:  # fmt: skip
        self._metrics = metrics
        self._access_log = access_log
        self._usage = usage
        self._facts = facts or Facts()
        self._log = logger("dataplane")
        #: Whether access lines are written; metrics always are.
        self.enabled = enabled
        self.config = config or Record()
        #: Makes the names of requests; without it they have none.
        self.new_id: Callable[[], str] = str
        #: Where records go; None: nowhere.
        self.journal: Journal | None = None
        #: Sums up traffic.
        self.tally: Tally | None = None
        #: Rates calls, and keeps what is to be kept of their content.
        self.scrutiny: Scrutiny | None = None
        #: Notes what went wrong and what looks like an attack.
        self.incidents: Incidents | None = None
        #: Follows requests through their traces; None: the client's trace is told, no more.
        self.tracer: Tracer | None = None

    def begin(self, ctx: RequestContext) -> None:
        """A request begins; `record` follows in any case."""
        self._metrics.in_flight += 1

    def intend(self, ctx: RequestContext, upstream: Upstream) -> bool:
        """A call is about to be sent to `upstream`. Returns whether `durable` must come first. Raises Unrecorded."""
        envelope = ctx.envelope
        if self.tracer is not None or "traceparent" in ctx.fields or (envelope is not None and envelope.traceparent):
            self._name_trace(ctx)
        journal = self.journal
        grade: AuditGrade = self._grade(ctx) if journal is not None else "none"
        ctx.grade = grade
        if journal is None or grade == "none":
            ctx.intended = True
            return False
        scrutiny = self.scrutiny
        if scrutiny is not None:
            self._survives(scrutiny.call, ctx, upstream)
            if scrutiny.keeps_arguments:
                self._survives(scrutiny.keep_arguments, ctx)
        known = ctx.known = self._facts.known(ctx)
        if not journal.begin(ctx.id, self._facts.intent(ctx, upstream, known), grade):
            raise Unrecorded("spool full", headers=retry_after())
        ctx.intended = True
        return grade == "strict"

    def answered(self, ctx: RequestContext, headers: Headers) -> None:
        """The head of an answer has come: its content is overheard where results are kept."""
        if self.scrutiny is not None and self.scrutiny.keeps_results and ctx.known:
            self._survives(self.scrutiny.answer, ctx, headers)

    async def durable(self) -> None:
        """What was written so far is on disk. Raises Unrecorded when that takes too long."""
        assert self.journal is not None  # noqa: S101 - intend() has used it
        try:
            async with asyncio.timeout(_DISK_S):
                kept = await self.journal.durable()
        except TimeoutError:
            kept = False
        if not kept:
            raise Unrecorded("disk", headers=retry_after())

    def record(self, ctx: RequestContext, now: float) -> None:
        """The request is over, `now` in monotonic seconds. Never raises: a failure here must not cost an answer."""
        self._metrics.in_flight -= 1
        outcome = ctx.outcome or _outcome(ctx)
        self._survives(self._count, ctx, outcome, now)
        if self._survives(self._write, ctx, outcome, now):
            return
        if ctx.known and ctx.intended and self.journal is not None:  # or it would stay open for ever
            self._keep(ctx, self._facts.bare_ending(ctx, outcome), self.journal)

    def _survives(self, part: Callable[[*_Ts], object], *about: *_Ts) -> bool:
        """Whether a part of the record could be made; the others are made in any case."""
        try:
            part(*about)
        except Exception as bug:
            self._metrics.record_failures += 1
            self._log.error("record failed", exc_info=bug)
            return False
        return True

    def bug(self, ctx: RequestContext, bug: Exception) -> None:
        """Log the traceback of a bug that `ctx` ran into; the request's own record comes later as always."""
        server = ctx.upstream.name if ctx.upstream is not None else None
        self._log.error("request failed by a bug", server=server, exc_info=bug)
        if self.incidents is not None:
            self.incidents.bug(ctx, bug)

    def refused_early(self, refusal: Refusal, peer: str) -> None:
        """Record what the gate refused before there was a request to speak of: all that is known is who sent it."""
        self._metrics.refused(refusal.reason)
        if self.incidents is not None:
            self.incidents.refused_early(refusal, peer)
        if self.enabled:
            self._access_log.write(refused_early(refusal.reason, refusal.detail, refusal.status, peer))

    def _write(self, ctx: RequestContext, outcome: str, now: float) -> None:
        if self.tracer is not None:
            self.tracer.end(ctx, outcome)
        elif not ctx.intended:
            self._name_trace(ctx)
        journal = self.journal
        if journal is None and not self.enabled:
            return
        if not ctx.intended and journal is not None and self.scrutiny is not None:
            self._survives(self.scrutiny.refusal, ctx)
        line = self._facts.ending(ctx, outcome, now - ctx.started_at, ctx.known or self._facts.known(ctx))
        if self.enabled:
            self._access_log.write_line(line)
        if journal is not None:  # last, so that whatever fails before, it is kept once
            self._keep(ctx, line if ctx.capture is None else _with_result(line, ctx.capture), journal)

    def _count(self, ctx: RequestContext, outcome: str, now: float) -> None:
        duration_s = now - ctx.started_at
        first_byte_s = ctx.first_byte_at - ctx.started_at if ctx.first_byte_at else -1.0
        message, upstream, refusal = ctx.message, ctx.upstream, ctx.refusal
        method = message.method if message is not None else ctx.head.method
        of_server = upstream.metrics if upstream is not None else self._metrics.unrouted
        of_server.observe(method, outcome, duration_s, first_byte_s, ctx.bytes_in, ctx.bytes_out)
        if refusal is not None:
            self._metrics.refused(refusal.reason)
            if self.incidents is not None:
                self.incidents.noted(ctx, refusal)
        if self._usage is not None:
            self._usage.count(ctx, now)
        if self.tally is not None:
            self.tally.count(ctx, outcome, duration_s)

    def _keep(self, ctx: RequestContext, line: bytes, journal: Journal) -> None:
        grade, tenant = ctx.grade or self._grade(ctx), ctx.principal.tenant
        if grade == "none":
            return
        if ctx.intended:
            journal.end(ctx.id, line, grade)
        elif isinstance(ctx.refusal, Blocked):  # it may come ten thousand times a second: they are counted
            journal.skip(tenant)
        else:  # a stranger's refusals never take the room of calls
            journal.append(line, grade if ctx.principal.id else "usage", tenant)

    def _name_trace(self, ctx: RequestContext) -> None:
        if self.tracer is not None:
            self.tracer.begin(ctx)
            return
        found = trace_of(ctx.fields, ctx.envelope.traceparent if ctx.envelope is not None else "")
        if found is not None:
            ctx.trace_id, ctx.span_id = found.trace_id, found.span_id

    def _grade(self, ctx: RequestContext) -> AuditGrade:
        """That of the route, else of the tenant, else of all. A tenant's own routes can only be stricter."""
        config, route = self.config, ctx.route
        grade = config.tenants.get(ctx.principal.tenant_slug, config.audit) if config.tenants else config.audit
        if route is None or route.audit is None:
            return grade
        if ctx.routing is ctx.snapshot.shared or _STRICTNESS[route.audit] > _STRICTNESS[grade]:
            return route.audit
        return grade


def _with_result(line: bytes, capture: Capture) -> bytes:
    """The line, and what is kept of the result."""
    return b"%b,%b\n" % (line.rstrip()[:-1], orjson.dumps({"result": capture.result()})[1:])


def _outcome(ctx: RequestContext) -> str:
    """How the request ended, one of `metrics.OUTCOMES`, where no phase has said so."""
    refusal = ctx.refusal
    if refusal is None:
        if not ctx.status:
            return "client_gone"
        return "upstream_error" if ctx.status >= 500 else "ok"
    if isinstance(refusal, UpstreamTimeout):
        return "timeout"
    if isinstance(refusal, InternalError):
        return "internal"
    return "upstream_error" if refusal.origin == "upstream" else "refused"
