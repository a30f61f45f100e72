"""The end of every request: its metrics and its one log line, and its count.

Owns what is said about a request when it is over. It never waits and never raises, and it shows no secret: no query,
no header, no argument of a call. What a request was decided on was checked before; here it is only made safe to print.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from proxy.errors import InternalError, UpstreamTimeout
from proxy.log import logger, printable

if TYPE_CHECKING:
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.usage import Usage
    from proxy.errors import Refusal
    from proxy.log import AccessLog
    from proxy.mcp.envelope import Message
    from proxy.metrics import Metrics

#: Status of a request whose client left before an answer began; nginx's number, which log tools know.
CLIENT_GONE: Final = 499
_PATH_CHARS: Final = 256
_TARGET_CHARS: Final = 128
_DETAIL_CHARS: Final = 200


class Recorder:
    """Writes the record of each request. One for the whole process; a reload replaces `enabled`."""

    def __init__(self, metrics: Metrics, access_log: AccessLog, enabled: bool, usage: Usage | None = None) -> None:
        self._metrics = metrics
        self._access_log = access_log
        self._usage = usage
        self._log = logger("dataplane")
        #: Whether access lines are written; metrics always are.
        self.enabled = enabled

    def begin(self, ctx: RequestContext) -> None:
        """A request begins; `record` follows in any case."""
        self._metrics.in_flight += 1

    def record(self, ctx: RequestContext, now: float) -> None:
        """The request is over, `now` in monotonic seconds. Never raises: a failure here must not cost an answer."""
        self._metrics.in_flight -= 1
        try:
            self._record(ctx, now)
        except Exception as bug:
            self._metrics.record_failures += 1
            self._log.error("record failed", exc_info=bug)

    def bug(self, ctx: RequestContext, bug: Exception) -> None:
        """Log the traceback of a bug that `ctx` ran into; the request's own record comes later as always."""
        server = ctx.upstream.name if ctx.upstream is not None else None
        self._log.error("request failed by a bug", server=server, exc_info=bug)

    def refused_early(self, refusal: Refusal, peer: str) -> None:
        """Record what the gate refused before there was a request to speak of: all that is known is who sent it."""
        self._metrics.refused(refusal.reason)
        if self.enabled:
            self._access_log.write(
                {
                    "timestamp": datetime.now(UTC), "level": "info", "event": "request", "method": None, "path": None,
                    "status": refusal.status, "outcome": "refused", "reason": refusal.reason,
                    "detail": printable(refusal.detail, _DETAIL_CHARS) or None, "client": peer,
                }
            )  # fmt: skip

    def _record(self, ctx: RequestContext, now: float) -> None:
        outcome = ctx.outcome or _outcome(ctx)
        duration_s = now - ctx.started_at
        first_byte_s = ctx.first_byte_at - ctx.started_at if ctx.first_byte_at else -1.0
        message, upstream, refusal = ctx.message, ctx.upstream, ctx.refusal
        method = message.method if message is not None else ctx.head.method
        of_server = upstream.metrics if upstream is not None else self._metrics.unrouted
        of_server.observe(method, outcome, duration_s, first_byte_s, ctx.bytes_in, ctx.bytes_out)
        if refusal is not None:
            self._metrics.refused(refusal.reason)
        if self._usage is not None:
            self._usage.count(ctx, now)
        if self.enabled:
            self._access_log.write(_line(ctx, outcome, duration_s, first_byte_s))


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


def _line(ctx: RequestContext, outcome: str, duration_s: float, first_byte_s: float) -> dict[str, object]:
    """The access line; `docs/operations.md` lists its fields. Absent is null, so that every line has one shape."""
    message, envelope, refusal = ctx.message, ctx.envelope, ctx.refusal
    return {
        "timestamp": datetime.now(UTC),
        "level": "info",
        "event": "request",
        "method": ctx.head.method,
        "path": printable(ctx.path, _PATH_CHARS),
        "server": ctx.upstream.name if ctx.upstream is not None else None,
        "route": ctx.route.name if ctx.route is not None else None,
        "rpc_method": (printable(message.method, _TARGET_CHARS) or None) if message is not None else None,
        "target": _target(message) if message is not None else None,
        "messages": len(envelope.messages) if envelope is not None else None,
        "era": ("modern" if envelope.modern else "legacy") if envelope is not None else None,
        "revision": printable(ctx.revision, _TARGET_CHARS) or None,
        "status": ctx.status or CLIENT_GONE,
        "outcome": outcome,
        "reason": refusal.reason if refusal is not None else None,
        "detail": (printable(refusal.detail, _DETAIL_CHARS) or None) if refusal is not None else None,
        "shadowed": list(ctx.shadowed) or None,
        "duration_ms": int(duration_s * 1e6) / 1e3,  # round() takes 0.15 us more
        "first_byte_ms": int(first_byte_s * 1e6) / 1e3 if first_byte_s >= 0 else None,
        "queue_ms": int(ctx.queued_s * 1e6) / 1e3 if ctx.queued_s else None,
        "bytes_in": ctx.bytes_in,
        "bytes_out": ctx.bytes_out,
        "streamed": ctx.streaming,
        "tries": ctx.tries,
        "client": ctx.client_ip,
        "tenant": ctx.principal.tenant_slug or None,
        "principal": ctx.principal.id or None,
        "key_id": ctx.principal.key_id or None,
        "impersonator": ctx.principal.impersonator or None,
        "generation": ctx.snapshot.generation,
    }


def _target(message: Message) -> str | None:
    """The tool, prompt or resource asked for. A resource's URI loses its user, query and fragment, where secrets are;
    a task's id is left out, because whoever knows it may read the task (MCP 2025-11-25, tasks, "Security")."""
    kind, target = message.target_kind, message.target
    if kind == "task" or not target:
        return None
    if kind == "resource":
        scheme, mark, rest = target.partition("?")[0].partition("#")[0].partition("://")
        authority, slash, path = rest.partition("/")
        target = f"{scheme}{mark}{authority.rpartition('@')[2]}{slash}{path}"
    return printable(target, _TARGET_CHARS)
