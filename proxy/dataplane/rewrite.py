"""Header fields on their way through: what goes to the upstream, and what comes back to the client.

Owns which fields are dropped, replaced or added (docs/transparency.md lists them); all others pass with their order,
case and repeats. Pure: no I/O, nothing suspends. It must not know sockets, bodies or how a server was chosen; the seal
of a session id is `affinity.py`, the legacy SSE endpoint `legacy_sse.py`.

This is the hot path. A field costs one lower-casing and one set lookup; only the few names in a `touched` set go on to
a function of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

from proxy.dataplane.lists import plain_headers, wants_plain
from proxy.dataplane.origin import authority_of, origin_of
from proxy.errors import UpstreamFailed

if TYPE_CHECKING:
    from proxy.config.models import Server
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.exchange import Headers
    from proxy.dataplane.upstream import Upstream

#: RFC 9110 section 7.6.1, and what belongs to one connection by its own definition. `TE` and `Trailer` go, too, because
#: trailers are never forwarded.
_HOP_BY_HOP: Final = frozenset((
    "connection", "http2-settings", "keep-alive", "proxy-authenticate", "proxy-authentication-info",
    "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
))  # fmt: skip
#: Only the proxy may set these: a client's would be believed as if they were ours. All X-Forwarded-* belong to them.
_OURS: Final = frozenset(("forwarded", "x-real-ip"))
_OURS_PREFIX: Final = "x-forwarded-"
#: `Expect` is answered by the gate, `Host` is the upstream's or the client's.
_REQUEST_TOUCHED: Final = _HOP_BY_HOP | _OURS | {"cookie", "expect", "host", "mcp-session-id"}
_RESPONSE_TOUCHED: Final = _HOP_BY_HOP | {"alt-svc", "location", "mcp-session-id", "set-cookie", "x-request-id"}
#: `Connection` options that name no field.
_PLAIN_OPTIONS: Final = frozenset(("close", "keep-alive", "upgrade", "Close", "Keep-Alive", "Upgrade"))
#: Framing and meaning of a body do not depend on one connection, whatever an upstream's `Connection` says.
_NEVER_NAMED: Final = frozenset(("content-encoding", "content-length", "content-type", "mcp-session-id"))

#: RFC 9110 section 7.6.3 by the minor version of HTTP that the message came in; a pseudonym, no version of ours.
_VIA: Final = (("Via", "1.0 mcp-manager"), ("Via", "1.1 mcp-manager"))
_PROTO: Final = {False: ("X-Forwarded-Proto", "http"), True: ("X-Forwarded-Proto", "https")}
#: Cookie name prefixes whose rules (RFC 6265bis section 4.1.3.2) forbid the narrower path that we need.
_ROOT_COOKIE: Final = "__host-"


class HeaderPlan:
    """What is the same for every request to one upstream. Holds credentials: it has no repr of its own."""

    __slots__ = ("forwarded", "host", "overridden", "overrides", "touched")

    def __init__(self, config: Server) -> None:
        #: `Host` to send; '' to send the client's.
        self.host = authority_of(urlsplit(config.url)) if config.host == "upstream" else ""
        #: The operator's fields, and their lower-case names.
        self.overrides = tuple((name, value.get_secret_value()) for name, value in config.headers.items())
        self.overridden = frozenset(name.lower() for name in config.headers)
        self.touched = _REQUEST_TOUCHED | self.overridden
        self.forwarded = config.forwarded


def request_headers(ctx: RequestContext, upstream: Upstream) -> Headers:
    """The fields of `ctx` as they go to `upstream`, `Host` first; `ctx.session` says what the session is called there.

    A buffered body (`ctx.body`) that came chunked gets a Content-Length in the place of its Transfer-Encoding.
    """
    plan, fields = upstream.plan, ctx.fields
    touched = plan.touched
    options = fields.get("connection")
    if options is not None and options not in _PLAIN_OPTIONS:
        touched = touched | _listed(options)
    if ctx.consumed:
        touched = touched | ctx.consumed
    host = fields.get("host", "")
    headers = [("Host", plan.host or host or authority_of(urlsplit(upstream.target)))]
    for pair in ctx.head.headers:
        name = pair[0].lower()
        if name in touched:
            headers += _replaced_for_upstream(ctx, upstream, name, pair)
        elif name[:12] != _OURS_PREFIX:
            headers.append(pair)
    if plan.forwarded:
        headers += _forwarded(ctx, host, plan.overridden)
    headers += plan.overrides
    if ctx.route is not None and ctx.route.filter_lists and wants_plain(ctx):
        return plain_headers(headers)
    return _without_coding(headers) if ctx.endpoint is not None else headers


def response_headers(ctx: RequestContext, status: int, headers: Headers) -> Headers:
    """The fields of an answer of `ctx.upstream` as they go to the client. Raises UpstreamFailed for what cannot pass.

    `headers` hold text decoded from UTF-8 with surrogate escapes.
    """
    passed: Headers = []
    hops: Headers = []
    for pair in headers:
        name, value = pair
        if not value.isprintable():
            _check_text(value)
        lower = name.lower()
        if lower not in _RESPONSE_TOUCHED:
            passed.append(pair)
        elif lower in _HOP_BY_HOP:
            hops.append((lower, value))
        else:
            passed += _replaced_for_client(ctx, status, lower, pair)
    if hops and (gone := _dropped_with(hops)):
        passed = [pair for pair in passed if pair[0].lower() not in gone]
    if ctx.endpoint is not None:
        passed = _rewritable(passed)
    passed += _added(ctx)
    return passed


# --- towards the upstream -------------------------------------------------------------------------------------------


def _replaced_for_upstream(ctx: RequestContext, upstream: Upstream, name: str, pair: tuple[str, str]) -> Headers:
    """What becomes of a touched field: one field or none. `name` is its lower-case name."""
    if name == "mcp-session-id":
        session = ctx.session
        # without a session of ours the field passes; a legacy SSE session (it has a target) is in the URL instead
        return [pair if session is None or ctx.target else (pair[0], session.upstream_id)]
    if name == "cookie" and name not in upstream.plan.overridden:
        return _foreign_cookies(ctx, pair)
    if name == "transfer-encoding" and ctx.body is not None:
        return [("Content-Length", str(len(ctx.body)))]
    return []


def _foreign_cookies(ctx: RequestContext, pair: tuple[str, str]) -> Headers:
    """The cookies that are not ours: a session's cookie goes no further, whether it was needed or not."""
    if ctx.reader is None:
        return [pair]
    value = ctx.reader.strip_cookies(pair[1])
    return [(pair[0], value)] if value else []


def _forwarded(ctx: RequestContext, host: str, overridden: frozenset[str]) -> Headers:
    added = [("X-Forwarded-For", ctx.client_ip), _PROTO[ctx.secure], _VIA[ctx.head.minor]]
    if host:
        added.insert(1, ("X-Forwarded-Host", host))
    return [pair for pair in added if pair[0].lower() not in overridden] if overridden else added


def _without_coding(headers: Headers) -> Headers:
    """The `endpoint` event of legacy SSE has to be read, so its stream is asked for as it is."""
    return [(name, "identity") if name.lower() == "accept-encoding" else (name, value) for name, value in headers]


def _listed(options: str) -> frozenset[str]:
    """Field names in a `Connection` value, lower-case."""
    return frozenset(option.strip(" \t").lower() for option in options.split(","))


# --- towards the client ---------------------------------------------------------------------------------------------


def _added(ctx: RequestContext) -> Headers:
    """`Via`, and the name of the record, by which a client can ask the operator what became of its request."""
    added: Headers = [_VIA[1]] if ctx.upstream is not None and ctx.upstream.plan.forwarded else []
    if ctx.id:
        added.append(("X-Request-Id", ctx.id))
    return added


def _check_text(value: str) -> None:
    """Raise UpstreamFailed for bytes that are not UTF-8, and for line ends and NUL (RFC 9110 section 5.5)."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UpstreamFailed("a header of the answer is not UTF-8") from None
    if "\r" in value or "\n" in value or "\0" in value:
        raise UpstreamFailed("a header of the answer holds a line end or NUL")


def _dropped_with(hops: Headers) -> frozenset[str]:
    """Names that the hop-by-hop fields of an answer take away with them."""
    names: frozenset[str] = frozenset()
    for lower, value in hops:
        if lower == "transfer-encoding":
            names |= {"content-length"}  # RFC 9112 section 6.3: it overrides the length, which must not pass
        elif lower == "connection" and value not in _PLAIN_OPTIONS:
            names |= _listed(value) - _NEVER_NAMED
    return names


def _replaced_for_client(ctx: RequestContext, status: int, lower: str, pair: tuple[str, str]) -> Headers:
    """What becomes of a field that means something else on our host than on the upstream's: one field or none."""
    name, value = pair
    if lower == "mcp-session-id":
        session_id = _session_for_client(ctx, status, value)
        return [] if session_id is None else [(name, session_id)]
    if lower == "set-cookie":
        cookie = _rescoped(ctx, value)
        return [(name, cookie)] if cookie else []
    if lower == "location":
        return [(name, _mapped_back(ctx, status, value))]
    # Alt-Svc names another way to the upstream's origin, not to ours (RFC 7838); X-Request-Id names our own record
    return [pair] if lower == "x-request-id" and not ctx.id else []


def _session_for_client(ctx: RequestContext, status: int, upstream_id: str) -> str | None:
    """The id that the client sees: its own text for the session it is in, a fresh seal for one that a 2xx begins."""
    if ctx.route is None or not ctx.route.sealed or ctx.upstream is None:
        return upstream_id
    session = ctx.session
    if session is not None and session.upstream_id == upstream_id:
        return ctx.fields.get("mcp-session-id")
    if not 200 <= status <= 299:
        return None  # some servers put an id on refusals whose session is already gone
    sealer = ctx.snapshot.sealer
    try:
        return sealer.seal(sealer.begin(ctx, ctx.upstream.name, upstream_id))
    except ValueError:
        raise UpstreamFailed("a session id that cannot be sealed") from None


def _rescoped(ctx: RequestContext, cookie: str) -> str:
    """The cookie with the path of this endpoint and no domain: other servers share our host. '' when it cannot be."""
    if cookie.lstrip(" \t")[: len(_ROOT_COOKIE)].lower() == _ROOT_COOKIE:
        return ""
    first, *attributes = cookie.split(";")
    kept = [each for each in attributes if each.partition("=")[0].strip(" \t").lower() not in ("path", "domain")]
    return ";".join([first, *kept, f" Path={ctx.snapshot.public_prefix}{ctx.path}"])


def _mapped_back(ctx: RequestContext, status: int, location: str) -> str:
    """`Location` in terms of our own URLs; a redirect to anywhere else is UpstreamFailed, and never followed."""
    upstream = ctx.upstream
    if upstream is None:
        return location
    asked = urlsplit(ctx.target or upstream.target)
    try:
        place = urlsplit(urljoin(asked.geturl(), location))
        origin = origin_of(place)
    except ValueError:
        raise UpstreamFailed("a Location that is no URL") from None
    public_url = ctx.snapshot.config.listen.public_url
    if public_url and origin == origin_of(urlsplit(public_url)):
        return location
    if origin == origin_of(asked) and (place.path or "/") == (asked.path or "/"):
        # a query in the configured URL is the operator's: it stays between the proxy and the upstream
        query = f"?{place.query}" if place.query and (ctx.target or upstream.takes_query) else ""
        return f"{ctx.snapshot.public_prefix}{ctx.path}{query}"
    if 300 <= status <= 399:
        raise UpstreamFailed("a redirect to another place; configure the URL that the server redirects to")
    return location


def _rewritable(headers: Headers) -> Headers:
    """An event stream whose first event is rewritten has no fixed length, and must be readable."""
    fields = {name.lower(): value for name, value in headers}
    if not fields.get("content-type", "").lower().startswith("text/event-stream"):
        return headers
    if fields.get("content-encoding", "identity").lower() != "identity":
        raise UpstreamFailed("an encoded legacy SSE stream, although none was asked for")
    return [pair for pair in headers if pair[0].lower() != "content-length"]
