"""Every way the proxy says no: one class per refusal, one tree.

Owns the mapping from a refusal to HTTP status, JSON-RPC code and reason (design section 7). It knows nothing of
sockets: `dataplane/reject.py` is the only place that writes one. The HTTP status is the truth; the JSON-RPC code is
the specification's where the specification defines one (-32700, -32600, -32603, -32020), otherwise the HTTP status as
a positive number, because revision 2026-07-28 reserves everything between -32768 and -32000.
"""

from __future__ import annotations

from math import ceil
from typing import ClassVar, Final

#: JSON-RPC 2.0 section 5.1 and MCP 2026-07-28 basic/index "Error Codes".
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
INTERNAL_ERROR: Final = -32603
HEADER_MISMATCH: Final = -32020

RequestId = str | int | None
"""The id to answer with; None when unknown, and then the member is omitted (MCP schema, 2025-11-25 onward)."""


class Refusal(Exception):
    """The proxy's own answer to a request that it will not or cannot forward.

    `reason` is a fixed word (metric label, log field and `error.data.reason`), `message` a fixed sentence for people:
    neither ever holds a byte of the input. `detail` is for the log only. `headers` are added to the answer.
    """

    status: ClassVar[int] = 500
    code: ClassVar[int] = INTERNAL_ERROR
    reason: ClassVar[str] = "internal"
    message: ClassVar[str] = "Internal error"
    #: Who is at fault: `client`, `proxy` or `upstream`; a label for records, never shown.
    origin: ClassVar[str] = "client"
    #: The connection cannot be trusted any more (framing unknown, body unread): answer, then close.
    closes: ClassVar[bool] = False

    def __init__(
        self,
        detail: str = "",
        *,
        headers: tuple[tuple[str, str], ...] = (),
        request_id: RequestId = None,
    ) -> None:
        super().__init__(detail or self.message)
        self.detail = detail
        self.headers = headers
        self.request_id = request_id


def retry_after(seconds: float = 1) -> tuple[tuple[str, str], ...]:
    """`Retry-After` in whole seconds, rounded up, 1 at least (RFC 9110 section 10.2.3)."""
    return (("Retry-After", str(max(1, ceil(seconds)))),)


# --- framing and head: the connection is closed after each of these -------------------------------------------------


class BadRequest(Refusal):
    """The head or the framing of the body breaks the grammar (RFC 9112); nothing after it can be trusted."""

    status, code, reason, message, closes = 400, 400, "bad_request", "Bad request", True


class RequestTimeout(Refusal):
    """The head or the body did not arrive in time (RFC 9110 section 15.5.9)."""

    status, code, reason, message, closes = 408, 408, "request_timeout", "The request took too long to arrive", True


class BodyTooLarge(Refusal):
    """The body is longer than `limits.body` (RFC 9110 section 15.5.14)."""

    status, code, reason, message, closes = 413, 413, "body_too_large", "The request body is too large", True


class UriTooLong(Refusal):
    """The request line is longer than `limits.header_line` (RFC 9110 section 15.5.15)."""

    status, code, reason, message, closes = 414, 414, "uri_too_long", "The request target is too long", True


class ExpectationFailed(Refusal):
    """An `Expect` other than `100-continue` (RFC 9110 section 10.1.1)."""

    status, code, reason, message, closes = 417, 417, "expectation_failed", "Expectation not supported", True


class HeadersTooLarge(Refusal):
    """A field, their number or their sum is over the limit (RFC 6585 section 5)."""

    status, code, reason, message, closes = 431, 431, "headers_too_large", "The request headers are too large", True


class NotImplementedCoding(Refusal):
    """A transfer coding other than `chunked` (RFC 9112 section 6.1)."""

    status, code, reason, message, closes = 501, 501, "transfer_coding", "Transfer coding not supported", True


class HttpVersionNotSupported(Refusal):
    """Neither HTTP/1.0 nor HTTP/1.1 (RFC 9110 section 15.6.6)."""

    status, code, reason, message, closes = 505, 505, "http_version", "HTTP version not supported", True


# --- the request is understood and refused --------------------------------------------------------------------------


class ParseError(Refusal):
    """The body is not one strict UTF-8 JSON document (JSON-RPC 2.0 section 5.1)."""

    status, code, reason, message = 400, PARSE_ERROR, "parse_error", "Parse error"


class InvalidRequest(Refusal):
    """The body is JSON but not a JSON-RPC message we can be certain about (design section 4.6)."""

    status, code, reason, message = 400, INVALID_REQUEST, "invalid_request", "Invalid request"


class HeaderMismatch(Refusal):
    """Modern `Mcp-*` headers disagree with the body (MCP 2026-07-28, streamable HTTP, "Server Validation")."""

    status, code, reason, message = 400, HEADER_MISMATCH, "header_mismatch", "Headers do not match the request body"


class Unauthorized(Refusal):
    """No credential, or none that we accept (RFC 9110 section 15.5.2)."""

    status, code, reason, message = 401, 401, "unauthorized", "Authentication required"


class Forbidden(Refusal):
    """Known, but not allowed (RFC 9110 section 15.5.4)."""

    status, code, reason, message = 403, 403, "forbidden", "Not allowed"


class HostNotAllowed(Forbidden):
    """`Host` names something this listener does not serve: the mark of DNS rebinding."""

    reason, message, closes = "host_not_allowed", "Host not allowed", True


class OriginNotAllowed(Forbidden):
    """`Origin` is present and not allowed (MCP 2025-11-25 transports: MUST answer 403)."""

    reason, message, closes = "origin_not_allowed", "Origin not allowed", True


class NoRoute(Refusal):
    """Nothing is served here: one answer for unknown, disabled and foreign."""

    status, code, reason, message = 404, 404, "no_route", "Not found"


class SessionGone(Refusal):
    """The session is unknown, expired, foreign or its server is gone; 404 makes clients start again (T1125)."""

    status, code, reason, message = 404, 404, "session_gone", "Session not found"


class MethodNotAllowed(Refusal):
    """An HTTP method MCP has no use for (RFC 9110 section 15.5.6); carries `Allow`."""

    status, code, reason, message = 405, 405, "method_not_allowed", "Method not allowed"


class UnsupportedMediaType(Refusal):
    """A POST body that is not plain `application/json` in UTF-8 on a route that inspects bodies."""

    status, code, reason, message = 415, 415, "unsupported_media_type", "Unsupported media type"


class UpgradeRequired(Refusal):
    """A plain request to a server that speaks WebSocket only (RFC 9110 section 15.5.22)."""

    status, code, reason, message = 426, 426, "upgrade_required", "This server speaks WebSocket only"


class Blocked(Refusal):
    """The address has misbehaved, or an operator has blocked it (RFC 6585 section 4); carries `Retry-After`."""

    status, code, reason, message = 429, 429, "blocked", "This address is blocked for a while"


class RateLimited(Refusal):
    """A limit is used up (RFC 6585 section 4); names its rule, carries `Retry-After` and the `RateLimit` fields."""

    status, code, reason, message = 429, 429, "rate_limited", "Too many requests"

    def __init__(
        self, rule: str = "", *, headers: tuple[tuple[str, str], ...] = (), request_id: RequestId = None
    ) -> None:
        super().__init__(rule, headers=headers, request_id=request_id)
        #: Name of the rule, for the answer.
        self.rule = rule


class TooManyStreams(RateLimited):
    """As many streams are open as one principal, or one tenant, may have."""

    reason, message = "too_many_streams", "Too many open streams"


# --- ours or the upstream's fault -----------------------------------------------------------------------------------


class InternalError(Refusal):
    """A bug of ours: the traceback goes to the log, nothing of it to the client."""

    status, code, reason, message, origin = 500, INTERNAL_ERROR, "internal", "Internal error", "proxy"


class ConnectFailed(Refusal):
    """No connection to the upstream: nothing was sent, so another server may be tried."""

    status, code, reason, message, origin = 502, 502, "connect_failed", "The server cannot be reached", "upstream"


class UpstreamFailed(Refusal):
    """The upstream broke off or broke the protocol before its answer began."""

    status, code, reason, message, origin = 502, 502, "upstream_failed", "The server failed to answer", "upstream"


class NoServer(Refusal):
    """No server of the route can take the request now."""

    status, code, reason, message, origin = 503, 503, "no_server", "No server is available", "proxy"


class CircuitOpen(Refusal):
    """The breakers of all servers that could take it are open: they failed a moment ago."""

    status, code, reason, message, origin = 503, 503, "circuit_open", "The server is failing", "upstream"


class QueueFull(Refusal):
    """The server's queue is full, or the request could not be served in time (`queue`)."""

    status, code, reason, message, origin = 503, 503, "queue_full", "The server is busy", "proxy"


class QueueTimeout(QueueFull):
    """It waited for `queue.max_wait` and was not served."""

    reason = "queue_timeout"


class Shed(Refusal):
    """The process is overloaded, and requests of this class are refused (`overload`)."""

    status, code, reason, message, origin = 503, 503, "shed", "The proxy is overloaded", "proxy"


class UnderMaintenance(Refusal):
    """All servers that could take it are being maintained. The title is the operator's and meant for clients."""

    status, code, reason, message, origin = 503, 503, "maintenance", "The server is under maintenance", "proxy"

    def __init__(self, title: str, *, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__("maintenance", headers=headers)
        self.title = title


class RegistryUnavailable(Refusal):
    """A credential that is not known while the database cannot be asked: it may be good."""

    status, code, reason, message = 503, 503, "registry_unavailable", "The credential cannot be checked now"
    origin = "proxy"


class Unrecorded(Refusal):
    """The call cannot be recorded now, and its grade says that it must be (`record.audit`)."""

    status, code, reason, message, origin = 503, 503, "unrecorded", "The call cannot be recorded now", "proxy"


class PoolExhausted(Refusal):
    """`pool.max_connections` are in use and none came free in time."""

    status, code, reason, message, origin = 503, 503, "pool_exhausted", "The server is busy", "proxy"


class Overloaded(Refusal):
    """The connection cap is reached, or the proxy is going away."""

    status, code, reason, message, origin, closes = 503, 503, "overloaded", "The proxy is busy", "proxy", True


class UpstreamTimeout(Refusal):
    """The upstream missed a deadline before its answer began (`timeouts.connect`, `timeouts.first_byte`)."""

    status, code, reason, message, origin = 504, 504, "upstream_timeout", "The server took too long", "upstream"
