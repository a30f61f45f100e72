"""What one request has learned so far. Each phase fills its own lines; nobody clears another's."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from proxy.dataplane.priority import NORMAL
from proxy.identity.principal import anonymous

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from proxy.config.record import AuditGrade
    from proxy.dataplane.affinity import Session
    from proxy.dataplane.attempt import Attempt
    from proxy.dataplane.capture import Capture
    from proxy.dataplane.conditions import Condition
    from proxy.dataplane.exchange import Exchange, Head
    from proxy.dataplane.legacy_sse import EndpointEvent
    from proxy.dataplane.router import CompiledRoute
    from proxy.dataplane.snapshot import Routing, Snapshot
    from proxy.dataplane.upstream import Upstream
    from proxy.errors import Refusal
    from proxy.identity.credentials import CredentialReader
    from proxy.identity.principal import Principal
    from proxy.mcp.envelope import Envelope, Message


#: Whoever needs no credential: one principal of no tenant.
ANONYMOUS: Final = anonymous()
#: A browser that asks whether a page may call (Fetch standard, "CORS preflight"): it shows no credential by design.
PREFLIGHT: Final = replace(anonymous(frozenset()), id="preflight", tier="")
#: Whoever has not been asked yet, and may do nothing.
_NOBODY: Final = replace(anonymous(frozenset()), id="")
#: No field of the head held the credential.
_NOTHING: Final = frozenset[str]()
#: Nothing is kept of what was said.
_NO_CONTENT: Final[Mapping[str, object]] = MappingProxyType({})


class RequestContext:
    """State of one request; made by the lane, read by the record. Times are monotonic seconds."""

    __slots__ = (
        "affinity_key", "attempt", "authenticated_s", "body", "bytes_in", "bytes_out", "capture", "client_ip",
        "connected_s", "consumed", "content", "denied", "draws", "endpoint", "envelope", "exchange", "fields",
        "first_byte_at", "flags", "grade", "head", "host", "id", "intended", "known", "limited_s", "message",
        "outcome", "path", "pinned", "principal", "priority", "queued_s", "reader", "refusal", "revision", "risk",
        "risk_reasons", "route", "routing", "secure", "session", "shadowed", "snapshot", "span_id", "started_at",
        "status", "streaming", "target", "trace_id", "tries", "upstream",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, snapshot: Snapshot, now: float, request_id: str = "") -> None:
        head = exchange.head
        self.exchange = exchange
        self.head: Head = head
        self.snapshot = snapshot
        self.started_at = now
        #: Its name in the record (UUIDv7), which the client is told; '' where nothing is recorded.
        self.id = request_id
        # what routing asks about (the `Traits` of router.py)
        self.path = head.path
        self.host = head.host
        self.fields = head.fields
        self.client_ip = exchange.peer
        #: The client came over TLS, to us or to a trusted proxy in front of us.
        self.secure = exchange.secure
        self.principal: Principal = _NOBODY
        self.message: Message | None = None
        self.revision = ""
        self.flags = snapshot.flags
        self.draws: dict[Condition, bool] | None = None
        # what the phases found
        #: Lower-case names of the fields that held the credential; they go no further.
        self.consumed = _NOTHING
        #: Takes the session's cookies out of those that go on; None where cookies are none of ours.
        self.reader: CredentialReader | None = None
        #: The routes that this principal sees.
        self.routing: Routing = snapshot.shared
        self.body: bytes | None = None
        self.envelope: Envelope | None = None
        self.route: CompiledRoute | None = None
        self.session: Session | None = None
        #: The one server this request must go to: its session's, or the one whose discovery document it asks for.
        self.pinned: Upstream | None = None
        #: Absolute URL to send to instead of the server's own; '' for none.
        self.target = ""
        #: Names of rules that would have refused it, were they enforced.
        self.shadowed: tuple[str, ...] = ()
        #: Names of servers that the principal may not use.
        self.denied: Sequence[str] = ()
        self.affinity_key = ""
        #: Rewrites the first event of a legacy SSE stream.
        self.endpoint: EndpointEvent | None = None
        self.upstream: Upstream | None = None
        self.tries = 0
        #: The one under way; of several, the last.
        self.attempt: Attempt | None = None
        #: Class in queues and under overload: the lower, the sooner served.
        self.priority = NORMAL
        # how it went
        self.first_byte_at = 0.0
        self.status = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.streaming = False
        self.refusal: Refusal | None = None
        self.outcome = ""
        self._record()

    def _record(self) -> None:
        """What the record says of it."""
        #: Time spent until it was authenticated, with the limiter, in queues, on getting connections.
        self.authenticated_s = 0.0
        self.limited_s = 0.0
        self.queued_s = 0.0
        self.connected_s = 0.0
        #: W3C trace context, as the client sent it or as tracing goes on.
        self.trace_id = ""
        self.span_id = ""
        self.risk: str | None = None
        self.risk_reasons: Sequence[str] = ()
        #: What becomes of it when it cannot be recorded; None while that is not known.
        self.grade: AuditGrade | None = None
        #: It was sent, after its intent was written where that is wanted.
        self.intended = False
        #: What was told of it then, as JSON without braces.
        self.known = b""
        #: Arguments and their digest, where they are kept.
        self.content: Mapping[str, object] = _NO_CONTENT
        #: Overhears the answer, where results are kept.
        self.capture: Capture | None = None
