"""What is told of one request: the JSON of its log line and of its records in the audit trail.

Owns the fields, their names and that none shows a secret: no query, no header but the client's name of itself, no
argument of a call. `docs/operations.md` lists them. What a request was decided on was checked before; here it is only
made safe to print. Absent is null, so that every line has one shape.

A request tells the same things of itself when it is sent and when it is over, so those are written down once (`known`)
and repeated; what is the same for all requests of a principal is kept even longer.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import orjson

from proxy.log import printable

if TYPE_CHECKING:
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.upstream import Upstream
    from proxy.identity.principal import Principal
    from proxy.mcp.envelope import Envelope, Message

#: Status of a request whose client left before an answer began; nginx's number, which log tools know.
CLIENT_GONE: Final = 499
_PATH_CHARS: Final = 256
_TARGET_CHARS: Final = 128
_DETAIL_CHARS: Final = 200
#: Messages of a batch that are named.
_MOST_NAMED: Final = 8
#: Principals and sessions that are remembered.
_MOST_KEPT: Final = 10_000
_UTC: Final = orjson.OPT_UTC_Z


class Facts:
    """Writes them, for the whole process."""

    def __init__(self, instance: str = "") -> None:
        """`instance` is the name of this process in the rows of PostgreSQL."""
        self._instance = instance
        #: By the identity of the object, which is held so that it stays the same.
        self._principals: dict[int, tuple[Principal, bytes]] = {}
        self._digests: dict[str, str] = {}

    def known(self, ctx: RequestContext) -> bytes:
        """What is known before it is sent, without braces."""
        head, message, envelope, session = ctx.head, ctx.message, ctx.envelope, ctx.session
        agent = ctx.fields.get("user-agent")
        about = orjson.dumps(
            {
                "id": ctx.id or None,
                "method": head.method,
                "path": printable(ctx.path, _PATH_CHARS),
                "route": ctx.route.name if ctx.route is not None else None,
                "rpc_method": (printable(message.method, _TARGET_CHARS) or None) if message is not None else None,
                "target": _target(message, envelope) if message is not None else None,
                "target_kind": (message.target_kind or None) if message is not None else None,
                "messages": len(envelope.messages) if envelope is not None else None,
                "era": ("modern" if envelope.modern else "legacy") if envelope is not None else None,
                "revision": printable(ctx.revision, _TARGET_CHARS) or None,
                "client": ctx.client_ip,
                "session": self._digest(session.upstream_id) if session is not None else None,
                "user_agent": printable(agent, _TARGET_CHARS) if agent else None,
                "trace_id": ctx.trace_id or None,
                "span_id": ctx.span_id or None,
                "risk": ctx.risk,
                "risk_reasons": ctx.risk_reasons or None,
                "auth_ms": _ms(ctx.authenticated_s),
                "limit_ms": _ms(ctx.limited_s),
                "generation": ctx.snapshot.generation,
            }
        )  # fmt: skip
        return b"%b,%b" % (about[1:-1], self._principal(ctx.principal))

    def intent(self, ctx: RequestContext, upstream: Upstream, known: bytes) -> bytes:
        """The record of a call that is about to be sent to `upstream`."""
        about = orjson.dumps(
            {
                "timestamp": datetime.now(UTC), "kind": "intent", "server": upstream.name,
                "server_id": upstream.place.id or None, "bytes_in": len(ctx.body) if ctx.body is not None else 0,
                **ctx.content,
            }, option=_UTC,
        )  # fmt: skip
        return b"%b,%b}" % (about[:-1], known)

    def ending(self, ctx: RequestContext, outcome: str, duration_s: float, known: bytes) -> bytes:
        """The record of a request that is over, which is its log line too."""
        upstream, refusal = ctx.upstream, ctx.refusal
        first_byte_s = ctx.first_byte_at - ctx.started_at if ctx.first_byte_at else 0.0
        about = orjson.dumps(
            {
                "timestamp": datetime.now(UTC),
                "level": "info",
                "event": "request",
                "kind": "outcome" if ctx.intended else "denied",
                "server": upstream.name if upstream is not None else None,
                "server_id": (upstream.place.id or None) if upstream is not None else None,
                "status": ctx.status or CLIENT_GONE,
                "outcome": outcome,
                "reason": refusal.reason if refusal is not None else None,
                "error_code": refusal.code if refusal is not None else None,
                "detail": (printable(refusal.detail, _DETAIL_CHARS) or None) if refusal is not None else None,
                "shadowed": list(ctx.shadowed) or None,
                "duration_ms": int(duration_s * 1e6) / 1e3,  # round() takes 0.15 us more
                "first_byte_ms": _ms(first_byte_s),
                "queue_ms": _ms(ctx.queued_s),
                "connect_ms": _ms(ctx.connected_s),
                "bytes_in": ctx.bytes_in,
                "bytes_out": ctx.bytes_out,
                "streamed": ctx.streaming,
                "tries": ctx.tries,
            },
            option=_UTC,
        )
        return b"%b,%b}\n" % (about[:-1], known)

    def _principal(self, principal: Principal) -> bytes:
        """What is the same for everything that it asks, without braces."""
        kept = self._principals.get(id(principal))
        if kept is not None and kept[0] is principal:
            return kept[1]
        if len(self._principals) >= _MOST_KEPT:
            self._principals.clear()
        about = orjson.dumps(
            {
                "tenant": principal.tenant_slug or None, "tenant_id": principal.tenant or None,
                "principal": principal.id or None, "key_id": principal.key_id or None,
                "user_id": principal.user or None, "impersonator": principal.impersonator or None,
                "source": principal.source.value, "instance": self._instance or None,
            }
        )[1:-1]  # fmt: skip
        self._principals[id(principal)] = (principal, about)
        return about

    def _digest(self, session_id: str) -> str:
        """Names a session without being of use to whoever reads it."""
        digest = self._digests.get(session_id)
        if digest is None:
            if len(self._digests) >= _MOST_KEPT:
                self._digests.clear()
            digest = self._digests[session_id] = blake2b(
                session_id.encode(errors="backslashreplace"), digest_size=8
            ).hexdigest()
        return digest


def refused_early(refusal_reason: str, detail: str, status: int, peer: str) -> dict[str, object]:
    """The line of what the gate refused before there was a request to speak of."""
    return {
        "timestamp": datetime.now(UTC), "level": "info", "event": "request", "method": None, "path": None,
        "status": status, "outcome": "refused", "reason": refusal_reason,
        "detail": printable(detail, _DETAIL_CHARS) or None, "client": peer,
    }  # fmt: skip


def _ms(seconds: float) -> float | None:
    """Milliseconds, in whole microseconds; null for nothing."""
    return int(seconds * 1e6) / 1e3 if seconds else None


def _target(message: Message, envelope: Envelope | None) -> str | None:
    """The tool, prompt or resource asked for; of a batch what each message asks, since the first may be harmless."""
    if envelope is None or not envelope.batch:
        return _one_target(message)
    named = [f"{each.method} {_one_target(each) or ''}".strip() for each in envelope.messages[:_MOST_NAMED]]
    more = len(envelope.messages) - len(named)
    return printable("; ".join([*named, f"and {more} more"] if more > 0 else named), 4 * _TARGET_CHARS)


def _one_target(message: Message) -> str | None:
    """A resource's URI loses its user, query and fragment, where secrets are; a task's id is left out, because whoever
    knows it may read the task (MCP 2025-11-25, tasks, "Security")."""
    kind, target = message.target_kind, message.target
    if kind == "task" or not target:
        return None
    if kind == "resource":
        scheme, mark, rest = target.partition("?")[0].partition("#")[0].partition("://")
        authority, slash, path = rest.partition("/")
        target = f"{scheme}{mark}{authority.rpartition('@')[2]}{slash}{path}"
    return printable(target, _TARGET_CHARS)
