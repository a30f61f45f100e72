"""What one request has learned so far. Each phase fills its own lines; nobody clears another's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from proxy.dataplane.priority import NORMAL
from proxy.identity.principal import anonymous

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.dataplane.affinity import Session
    from proxy.dataplane.attempt import Attempt
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


class RequestContext:
    """State of one request; made by the lane, read by the record. Times are monotonic seconds."""

    __slots__ = (
        "affinity_key", "attempt", "body", "bytes_in", "bytes_out", "client_ip", "consumed", "denied", "draws",
        "endpoint", "envelope", "exchange", "fields", "first_byte_at", "flags", "head", "host", "message", "outcome",
        "path", "pinned", "principal", "priority", "queued_s", "reader", "refusal", "revision", "route", "routing",
        "secure", "session", "shadowed", "snapshot", "started_at", "status", "streaming", "target", "tries",
        "upstream",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, snapshot: Snapshot, now: float) -> None:
        head = exchange.head
        self.exchange = exchange
        self.head: Head = head
        self.snapshot = snapshot
        self.started_at = now
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
        #: Time spent in queues.
        self.queued_s = 0.0
        # how it went
        self.first_byte_at = 0.0
        self.status = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.streaming = False
        self.refusal: Refusal | None = None
        self.outcome = ""
