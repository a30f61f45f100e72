"""What is told of one request: the JSON of its log line and of its records in the audit trail.

Owns the fields, their names and that none shows a secret: no query, no header but the client's name of itself, no
argument of a call. `docs/operations.md` lists them. What a request was decided on was checked before; here it is only
made safe to print. Absent is null, so that every line has one shape.

A request tells the same things of itself when it is sent and when it is over, so those are put into words once
(`known`); and most of them are those of the request before, so they are kept for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable
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
#: Kinds of requests whose words are kept, and the characters of what makes them alike: 10 MiB or so at most.
_MOST_KEPT: Final = 8192
_MOST_CHARS: Final = 512
#: Three digits of each number below a thousand.
_DIGITS: Final = tuple(f"{number:03d}" for number in range(1000))


class Facts:
    """Writes them, for the whole process."""

    def __init__(self, instance: str = "", wall: Callable[[], float] = time.time) -> None:
        """`instance` is the name of this process in the rows of PostgreSQL; `wall`: seconds since 1970."""
        self._instance = instance
        self._wall = wall
        #: The second that the last moment was in, and its text up to the fraction.
        self._second, self._text = -1, ""
        #: What requests that are alike tell of themselves, by what makes them alike; and their principal, so that its
        #: identity in the key stays its own.
        self._alike: dict[tuple[object, ...], tuple[bytes, Principal]] = {}
        #: What is told of servers.
        self._servers: dict[tuple[str, str], str] = {}

    def known(self, ctx: RequestContext) -> bytes:
        """What is known before it is sent, without braces."""
        envelope = ctx.envelope
        alike = self._tell(ctx) if envelope is not None and envelope.batch else self._like_others(ctx)
        if ctx.trace_id or ctx.limited_s or ctx.risk_reasons or not ctx.id:
            return b"%b,%b" % (_details(ctx), alike)
        own = f'"id":"{ctx.id}",{_NO_DETAILS}"risk":{_RISKS[ctx.risk]},"auth_ms":{ctx.authenticated_s * 1e3:.3f},'
        return own.encode() + alike

    def intent(self, ctx: RequestContext, upstream: Upstream, known: bytes) -> bytes:
        """The record of a call that is about to be sent to `upstream`."""
        size = len(ctx.body) if ctx.body is not None else 0
        content = orjson.dumps(dict(ctx.content))[1:-1].decode() + "," if ctx.content else ""
        about = f'{{"timestamp":"{self._now()}","bytes_in":{size},{content}"kind":"intent",{self._server(upstream)},'
        return b"".join((about.encode(), known, b"}"))

    def ending(self, ctx: RequestContext, outcome: str, duration_s: float, known: bytes) -> bytes:
        """The record of a request that is over, which is its log line too."""
        begun, upstream = ctx.started_at, ctx.upstream
        first_byte_ms = f"{(ctx.first_byte_at - begun) * 1e3:.3f}" if ctx.first_byte_at else "null"
        queue_ms = f"{ctx.queued_s * 1e3:.3f}" if ctx.queued_s else "null"
        connect_ms = f"{ctx.connected_s * 1e3:.3f}" if ctx.connected_s else "null"
        about = (
            f'{{"timestamp":"{self._now()}","level":"info","event":"request","status":{ctx.status or CLIENT_GONE},'
            f'"outcome":"{outcome}","duration_ms":{duration_s * 1e3:.3f},"first_byte_ms":{first_byte_ms},'
            f'"queue_ms":{queue_ms},"connect_ms":{connect_ms},"bytes_in":{ctx.bytes_in},"bytes_out":{ctx.bytes_out},'
            f'"streamed":{"true" if ctx.streaming else "false"},"tries":{ctx.tries},'
            f"{_SENT if ctx.intended else _NOT_SENT},{self._server(upstream) if upstream is not None else _NO_SERVER},"
            f"{_why(ctx) if ctx.refusal is not None or ctx.shadowed else _NO_REASON},"
        )
        return b"".join((about.encode(), known, b"}\n"))

    def bare_ending(self, ctx: RequestContext, outcome: str) -> bytes:
        """The same when it cannot be told: that it is over, and what was known when it was sent."""
        about = f'{{"timestamp":"{self._now()}","outcome":"{outcome}",{_SENT},'
        return b"".join((about.encode(), ctx.known, b"}\n"))

    def _now(self) -> str:
        """The moment, to the microsecond. 0.3 µs, half of what a `datetime` takes."""
        now = self._wall()
        second = int(now)
        if second != self._second:
            self._second = second
            self._text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        rest_us = int((now - second) * 1e6)
        return f"{self._text}{_DIGITS[rest_us // 1000]}{_DIGITS[rest_us % 1000]}Z"

    def _server(self, upstream: Upstream) -> str:
        key = (upstream.name, upstream.place.id)
        server = self._servers.get(key)
        if server is None:
            if len(self._servers) >= _MOST_KEPT:
                self._servers.clear()
            server = orjson.dumps({"server": upstream.name, "server_id": upstream.place.id or None})[1:-1].decode()
            self._servers[key] = server
        return server

    def _like_others(self, ctx: RequestContext) -> bytes:
        message, envelope, session, principal = ctx.message, ctx.envelope, ctx.session, ctx.principal
        key = (
            ctx.head.method, ctx.path, ctx.route.name if ctx.route is not None else None,
            message.method if message is not None else None, message.target if message is not None else None,
            envelope.modern if envelope is not None else None, ctx.revision, ctx.client_ip,
            session.upstream_id if session is not None else None, ctx.fields.get("user-agent"), id(principal),
            ctx.snapshot.generation,
        )  # fmt: skip
        found = self._alike.get(key)
        if found is not None:
            return found[0]
        alike = self._tell(ctx)
        if sum(len(part) for part in key if isinstance(part, str)) <= _MOST_CHARS:
            if len(self._alike) >= _MOST_KEPT:
                self._alike.clear()
            self._alike[key] = alike, principal
        return alike

    def _tell(self, ctx: RequestContext) -> bytes:
        """What requests that are alike have in common, without braces."""
        message, envelope, session, principal = ctx.message, ctx.envelope, ctx.session, ctx.principal
        agent = ctx.fields.get("user-agent")
        return orjson.dumps(
            {
                "method": ctx.head.method,
                "path": printable(ctx.path, _PATH_CHARS),
                "route": ctx.route.name if ctx.route is not None else None,
                "rpc_method": (printable(message.method, _TARGET_CHARS) or None) if message is not None else None,
                "target": _target(message, envelope) if message is not None else None,
                "target_kind": (message.target_kind or None) if message is not None else None,
                "messages": len(envelope.messages) if envelope is not None else None,
                "era": ("modern" if envelope.modern else "legacy") if envelope is not None else None,
                "revision": printable(ctx.revision, _TARGET_CHARS) or None,
                "client": ctx.client_ip,
                "session": _digest(session.upstream_id) if session is not None else None,
                "user_agent": printable(agent, _TARGET_CHARS) if agent else None,
                "generation": ctx.snapshot.generation,
                "tenant": principal.tenant_slug or None,
                "tenant_id": principal.tenant or None,
                "principal": principal.id or None,
                "key_id": principal.key_id or None,
                "user_id": principal.user or None,
                "impersonator": principal.impersonator or None,
                "source": principal.source.value,
                "instance": self._instance or None,
            }
        )[1:-1]


def _why(ctx: RequestContext) -> str:
    """Why it was refused, or would have been, without braces."""
    refusal = ctx.refusal
    return orjson.dumps(
        {
            "reason": refusal.reason if refusal is not None else None,
            "error_code": refusal.code if refusal is not None else None,
            "detail": (printable(refusal.detail, _DETAIL_CHARS) or None) if refusal is not None else None,
            "shadowed": list(ctx.shadowed) or None,
        }
    )[1:-1].decode()


def _details(ctx: RequestContext) -> bytes:
    """What most requests do not have, without braces."""
    return orjson.dumps(
        {
            "id": ctx.id or None, "trace_id": ctx.trace_id or None, "span_id": ctx.span_id or None,
            "limit_ms": int(ctx.limited_s * 1e6) / 1e3 if ctx.limited_s else None,
            "risk_reasons": ctx.risk_reasons or None, "risk": ctx.risk,
            "auth_ms": int(ctx.authenticated_s * 1e6) / 1e3,
        }
    )[1:-1]  # fmt: skip


#: The same of a request that has none of it.
_NO_DETAILS: Final = '"trace_id":null,"span_id":null,"limit_ms":null,"risk_reasons":null,'
_RISKS: Final = {risk: orjson.dumps(risk).decode() for risk in (None, "low", "medium", "high", "critical")}
_SENT: Final = '"kind":"outcome"'
_NOT_SENT: Final = '"kind":"denied"'
_NO_SERVER: Final = '"server":null,"server_id":null'
#: The same of a request that nobody refused.
_NO_REASON: Final = '"reason":null,"error_code":null,"detail":null,"shadowed":null'


def _digest(session_id: str) -> str:
    """Names a session without being of use to whoever reads it."""
    return blake2b(session_id.encode(errors="backslashreplace"), digest_size=8).hexdigest()


def refused_early(refusal_reason: str, detail: str, status: int, peer: str) -> dict[str, object]:
    """The line of what the gate refused before there was a request to speak of."""
    return {
        "timestamp": datetime.now(UTC), "level": "info", "event": "request", "method": None, "path": None,
        "status": status, "outcome": "refused", "reason": refusal_reason,
        "detail": printable(detail, _DETAIL_CHARS) or None, "client": peer,
    }  # fmt: skip


def _target(message: Message, envelope: Envelope | None) -> str | None:
    """The tool, prompt or resource asked for; of a batch what each message asks, since the first may be harmless."""
    if envelope is None or not envelope.batch:
        return target_of(message)
    named = [f"{each.method} {target_of(each) or ''}".strip() for each in envelope.messages[:_MOST_NAMED]]
    more = len(envelope.messages) - len(named)
    return printable("; ".join([*named, f"and {more} more"] if more > 0 else named), 4 * _TARGET_CHARS)


def target_of(message: Message) -> str | None:
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
