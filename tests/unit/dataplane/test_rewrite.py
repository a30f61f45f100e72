"""Every header field passes as it came, but for the named few."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane.affinity import session_of
from proxy.dataplane.context import RequestContext
from proxy.dataplane.exchange import Headers
from proxy.dataplane.legacy_sse import EndpointEvent
from proxy.dataplane.rewrite import HeaderPlan, request_headers, response_headers
from proxy.errors import UpstreamFailed
from proxy.identity.credentials import CredentialReader
from tests.unit.dataplane.asked import ask, sealer, snapshot

URL = "https://api.github.test/v1/mcp"
PLAIN: dict[str, Any] = {"github": {"url": URL, "forwarded": False}}
CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
#: Of every field that is dropped, replaced or added.
SPECIAL = {
    "host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings", "expect",
    "forwarded", "x-real-ip", "mcp-session-id", "content-length", "via", "set-cookie", "location", "alt-svc",
}  # fmt: skip


def sent(ctx: RequestContext) -> Headers:
    """What goes upstream."""
    assert ctx.upstream is not None
    return request_headers(ctx, ctx.upstream)


def requested(*fields: tuple[str, str], server: dict[str, Any] | None = None, **options: Any) -> Headers:
    return sent(ask(snapshot({"github": {**PLAIN["github"], **(server or {})}}), "/github/mcp", *fields, **options))


def answered(*fields: tuple[str, str], status: int = 200, ctx: RequestContext | None = None) -> Headers:
    return response_headers(ctx or ask(snapshot(PLAIN), "/github/mcp"), status, list(fields))


def inside(upstream_id: str = "u-1", servers: dict[str, Any] | None = None) -> tuple[RequestContext, str]:
    """A request inside a session, and the id that its client uses."""
    snap = snapshot(servers or PLAIN)
    text = sealer(seed=7).seal(sealer().begin(ask(snap, "/github/mcp"), "github", upstream_id))
    ctx = ask(snap, "/github/mcp", ("mcp-session-ID", text))
    ctx.session = session_of(ctx)
    return ctx, text


# --- towards the upstream -------------------------------------------------------------------------------------------

NAME = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,12}", fullmatch=True).filter(
    lambda name: name.lower() not in SPECIAL and not name.lower().startswith(("x-forwarded", "proxy-", "sec-", "mcp-"))
)
VALUE = st.from_regex(r"[!-~](?:[ -~\u00a1-\u00ff\u4e00-\u4eff]{0,20}[!-~])?", fullmatch=True)
FIELDS = st.lists(st.tuples(NAME, VALUE), max_size=20)
SINGLE = ("authorization", "content-encoding", "content-type", "last-event-id", "origin", "x-api-key")


@given(FIELDS)
def test_fields_pass_with_order_case_and_repeats(fields: Headers) -> None:
    """Whatever is not special reaches the upstream to the letter, behind Host, with nothing added."""
    fields = [pair for pair in fields if pair[0].lower() not in SINGLE]
    assert requested(*fields) == [("Host", "api.github.test"), *fields]


@pytest.mark.parametrize("field", ["Authorization", "x-api-KEY"])
def test_the_credential_that_was_used_stays_here(field: str) -> None:
    """Whatever the case of its name; one that nobody used may be the server's and passes."""
    ctx = ask(snapshot(PLAIN), "/github/mcp", (field, "Bearer t"), ("X-Other", "t"))
    assert (field, "Bearer t") in sent(ctx)
    ctx.consumed = frozenset((field.lower(),))
    assert sent(ctx) == [("Host", "api.github.test"), ("X-Other", "t")]


def test_session_cookies_stay_here_and_others_pass() -> None:
    """Also where the session was not needed; a field with nothing left goes."""
    ctx = ask(snapshot(PLAIN), "/github/mcp", ("cookie", "a=b; better-auth.session_token=x; c=d"))
    assert ("cookie", "a=b; better-auth.session_token=x; c=d") in sent(ctx)
    ctx.reader = CredentialReader("the secret of the front end")
    assert sent(ctx)[1:] == [("cookie", "a=b; c=d")]
    ctx = ask(snapshot(PLAIN), "/github/mcp", ("Cookie", "__Secure-better-auth.session_token=x"))
    ctx.reader = CredentialReader("the secret of the front end")
    assert sent(ctx)[1:] == []


def test_cookies_that_the_operator_sets_replace_the_client_s() -> None:
    """As every other field of `headers`."""
    assert requested(("cookie", "a=b"), server={"headers": {"Cookie": "c=d"}})[1:] == [("Cookie", "c=d")]


@given(FIELDS)
def test_answered_fields_pass_with_order_case_and_repeats(fields: Headers) -> None:
    """The same holds for the way back."""
    assert answered(*fields) == fields


def test_mcp_fields_are_not_touched() -> None:
    """None of them is added, dropped or rewritten; unknown Mcp-Param-* go along (MCP 2026-07-28)."""
    fields = [
        ("mcp-protocol-version", "2025-11-25"), ("Mcp-Method", "tools/call"), ("MCP-NAME", "=?base64?eA==?="),
        ("Mcp-Param-Region", "eu"), ("Last-Event-ID", "7"), ("ACCEPT", "application/json, text/event-stream"),
        ("accept-encoding", "gzip, br"), ("User-Agent", "x/1"), ("Authorization", "Bearer t"), ("Cookie", "a=b"),
        ("Origin", "http://localhost"), ("traceparent", "00-1-2-01"),
    ]  # fmt: skip
    assert requested(*fields) == [("Host", "api.github.test"), *fields]


def test_hop_by_hop_fields_end_here() -> None:
    """What concerns one connection is dropped, with what `Connection` names (RFC 9110 section 7.6.1)."""
    fields = [
        ("Connection", "close, X-Hop , Keep-Alive, upgrade"), ("X-Hop", "1"), ("x-hop", "2"), ("Keep-Alive", "5"),
        ("Proxy-Authorization", "Basic x"), ("Proxy-Connection", "close"), ("TE", "trailers"), ("Trailer", "X"),
        ("Upgrade", "h2c"), ("HTTP2-Settings", "AAAA"), ("X-Stays", "1"),
    ]  # fmt: skip
    assert requested(*fields, method="GET")[1:] == [("X-Stays", "1")]


def test_the_expectation_was_answered_by_the_gate() -> None:
    """100-continue is between the client and us."""
    assert requested(("Content-Length", "3"), ("Expect", "100-continue"))[1:] == [("Content-Length", "3")]


@pytest.mark.parametrize("forwarded", [True, False])
def test_a_client_cannot_say_for_whom_it_speaks(forwarded: bool) -> None:
    """Fields that only a proxy may set are dropped whether or not we set them ourselves."""
    fields = [
        ("X-Forwarded-For", "10.0.0.1"), ("x-forwarded-user", "root"), ("X-FORWARDED-HOST", "evil.test"),
        ("Forwarded", "for=10.0.0.1"), ("X-Real-IP", "10.0.0.1"),
    ]  # fmt: skip
    headers = requested(*fields, server={"forwarded": forwarded})
    assert not any("10.0.0.1" in value or value in ("root", "evil.test") for _, value in headers)


def test_the_proxy_says_for_whom_it_speaks() -> None:
    """Address, Host and scheme of the client replace its own claims; Via is appended to what is there."""
    headers = requested(("Via", "1.1 edge"), server={"forwarded": True}, host="mcp.test:8080", secure=True)
    assert headers == [
        ("Host", "api.github.test"), ("Via", "1.1 edge"),
        ("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Host", "mcp.test:8080"), ("X-Forwarded-Proto", "https"),
        ("Via", "1.1 mcp-manager"),
    ]  # fmt: skip
    assert ("X-Forwarded-Proto", "http") in requested(server={"forwarded": True})
    assert ("Via", "1.0 mcp-manager") in requested(server={"forwarded": True}, minor=0)


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://h.test", "h.test"), ("http://h.test:80/x", "h.test"), ("https://h.test:443", "h.test"),
        ("https://h.test:80", "h.test:80"), ("http://[::1]:9/", "[::1]:9"), ("http://[::1]:80/", "[::1]"),
    ],
)  # fmt: skip
def test_host_is_the_upstreams_own(url: str, authority: str) -> None:
    """As a client of the upstream would write it: its authority without a default port."""
    assert requested(server={"url": url})[0] == ("Host", authority)


def test_host_can_be_the_clients() -> None:
    """`host: preserve` sends what came, once, in the first place."""
    headers = requested(("X-A", "1"), server={"host": "preserve"}, host="Mcp.Test:81")
    assert headers == [("Host", "Mcp.Test:81"), ("X-A", "1")]


def test_the_operators_fields_replace_the_clients() -> None:
    """In any case of the name, and every repeat; the client's credential does not get past them."""
    server = {"headers": {"Authorization": "Bearer operator", "X-Team": "a"}, "forwarded": True}
    headers = requested(("authorization", "Bearer client"), ("x-team", "b"), ("X-TEAM", "c"), server=server)
    named = [pair for pair in headers if pair[0].lower() in ("authorization", "x-team")]
    assert named == [("Authorization", "Bearer operator"), ("X-Team", "a")]


def test_the_operator_can_set_what_the_proxy_sets() -> None:
    """A field that the operator names is not added a second time by us."""
    server = {"headers": {"x-forwarded-proto": "https", "Via": "1.1 me"}, "forwarded": True}
    headers = requested(("Via", "1.1 edge"), server=server)
    assert [pair for pair in headers if pair[0].lower() in ("x-forwarded-proto", "via")] == [
        ("x-forwarded-proto", "https"), ("Via", "1.1 me"),
    ]  # fmt: skip


def test_a_plan_does_not_show_its_credentials() -> None:
    """A plan in a log line or traceback says nothing about the operator's fields."""
    plan = snapshot({"a": {"url": URL, "headers": {"Authorization": "Bearer operator"}}}).upstreams["a"].plan
    assert isinstance(plan, HeaderPlan)
    assert "operator" not in repr(plan)


def test_a_length_stays_where_it_was() -> None:
    """The length of a body is the client's own field."""
    fields = [("X-A", "1"), ("content-length", str(len(CALL))), ("X-B", "2")]
    assert requested(*fields, body=CALL)[1:] == fields


def test_a_buffered_chunked_body_gets_a_length_in_the_same_place() -> None:
    """The whole body is there, so its length is known; a streamed one is framed by the connection that carries it."""
    fields = [("X-A", "1"), ("transfer-encoding", "chunked"), ("X-B", "2")]
    assert requested(*fields, body=CALL)[1:] == [("X-A", "1"), ("Content-Length", str(len(CALL))), ("X-B", "2")]
    assert requested(*fields)[1:] == [("X-A", "1"), ("X-B", "2")]


def test_the_session_has_the_upstreams_own_id_there() -> None:
    """The sealed id is replaced in its place, under the name as the client writes it."""
    ctx, _ = inside("u-42")
    assert sent(ctx)[1:] == [("mcp-session-ID", "u-42")]


def test_without_a_session_of_ours_the_id_passes() -> None:
    """Passthrough routes and modern requests carry whatever the client sent."""
    assert requested(("Mcp-Session-Id", "own"))[1:] == [("Mcp-Session-Id", "own")]


def test_the_id_of_a_legacy_stream_does_not_leak_into_the_field() -> None:
    """A legacy SSE session lives in the URL; the field is the client's own business."""
    ctx, text = inside("/messages?session_id=secret")
    ctx.target = "https://api.github.test/messages?session_id=secret"
    assert sent(ctx)[1:] == [("mcp-session-ID", text)]


def test_a_legacy_stream_is_asked_for_unencoded() -> None:
    """Its first event has to be read; a client that named no coding gets no field added."""
    ctx = ask(snapshot(PLAIN), "/github/mcp", ("accept-encoding", "gzip"), ("X-A", "1"), method="GET")
    ctx.endpoint = EndpointEvent(ctx)
    assert sent(ctx)[1:] == [("accept-encoding", "identity"), ("X-A", "1")]
    bare = ask(snapshot(PLAIN), "/github/mcp", method="GET")
    bare.endpoint = EndpointEvent(bare)
    assert sent(bare)[1:] == []


# --- towards the client ---------------------------------------------------------------------------------------------


def test_what_describes_the_answer_passes() -> None:
    """Challenges, codings, dates, the server's name and the hint against buffering are the upstream's to give."""
    fields = [
        ("WWW-Authenticate", 'Bearer resource_metadata="https://x.test/p"'), ("Content-Encoding", "br"),
        ("x-accel-buffering", "no"), ("Date", "Sun, 22 Nov 2026 00:00:00 GMT"), ("Server", "uvicorn"),
        ("Content-Length", "5"), ("Access-Control-Allow-Origin", "*"), ("Retry-After", "3"), ("Via", "1.1 inner"),
    ]  # fmt: skip
    assert answered(*fields, status=401) == fields


def test_hop_by_hop_fields_of_an_answer_end_here() -> None:
    """The upstream's connection is not the client's."""
    fields = [
        ("Connection", "Keep-Alive, X-Hop"), ("X-Hop", "1"), ("Keep-Alive", "timeout=5"), ("Trailer", "X"),
        ("Proxy-Authenticate", "Basic"), ("Upgrade", "h2"), ("X-Stays", "1"), ("TE", "x"),
    ]  # fmt: skip
    assert answered(*fields) == [("X-Stays", "1")]


def test_a_connection_field_cannot_take_the_framing_away() -> None:
    """An upstream that names the length or the type as hop-by-hop does not make them so."""
    fields = [("Content-Length", "5"), ("Content-Type", "a/b"), ("Connection", "content-length, Content-Type")]
    assert answered(*fields) == fields[:2]


@pytest.mark.parametrize("first", [True, False])
def test_a_length_beside_a_transfer_coding_does_not_pass(first: bool) -> None:
    """The coding overrides it (RFC 9112 section 6.3); both together are how answers are smuggled."""
    fields = [("Transfer-Encoding", "chunked"), ("Content-Length", "5")]
    assert answered(*(fields if first else fields[::-1])) == []


def test_alt_svc_is_dropped() -> None:
    """It would send the clients of our host elsewhere."""
    assert answered(("Alt-Svc", 'h3=":443"')) == []


def test_via_tells_the_client_unless_turned_off() -> None:
    """Added once, at the end, for servers with `forwarded`."""
    ctx = ask(snapshot({"github": URL}), "/github/mcp")
    assert answered(("A", "b"), ctx=ctx) == [("A", "b"), ("Via", "1.1 mcp-manager")]


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x", "a\rb", "a\nb", "a\0b", "a\udcffb", "\ud800"])
def test_a_value_that_could_split_the_answer_is_refused(value: str) -> None:
    """Line ends, NUL and bytes that are no UTF-8 fail the answer, and the refusal shows none of them."""
    with pytest.raises(UpstreamFailed) as refused:
        answered(("X-A", value))
    assert value not in str(refused.value)


def test_odd_but_harmless_values_pass() -> None:
    """Tabs, other controls and any UTF-8 are the upstream's choice."""
    fields = [("X-A", "a\tb"), ("X-B", "\x01\x7f"), ("X-C", "grün 中"), ("X-D", "")]
    assert answered(*fields) == fields


# --- sessions -------------------------------------------------------------------------------------------------------


def test_a_success_mints_a_sealed_id() -> None:
    """The client sees our id, under the name as the upstream writes it, and it opens to the upstream's."""
    ctx = ask(snapshot(PLAIN), "/github/mcp")
    [(name, text)] = answered(("MCP-Session-Id", "u-1"), ctx=ctx)
    session = sealer().open(text)
    assert name == "MCP-Session-Id"
    assert "u-1" not in text
    assert session is not None and (session.server, session.upstream_id) == ("github", "u-1")
    assert session.belongs_to(ctx)


def test_the_client_gets_its_own_id_back() -> None:
    """Inside a session the same id is answered with the same text, whatever the status."""
    ctx, text = inside("u-1")
    for status in (200, 202, 400, 404):
        assert answered(("mcp-session-id", "u-1"), status=status, ctx=ctx) == [("mcp-session-id", text)]


def test_a_new_id_inside_a_session_is_sealed_anew() -> None:
    """An upstream that starts another session in its answer is followed."""
    ctx, text = inside("u-1")
    [(_, fresh)] = answered(("mcp-session-id", "u-2"), ctx=ctx)
    session = sealer().open(fresh)
    assert fresh != text
    assert session is not None and session.upstream_id == "u-2"


@pytest.mark.parametrize("status", [300, 400, 404, 500])
def test_a_refusal_mints_nothing(status: int) -> None:
    """Some servers put an id on refusals although that session is already gone."""
    ctx, _ = inside("u-1")
    assert answered(("Mcp-Session-Id", "u-2"), status=status) == []
    assert answered(("Mcp-Session-Id", "u-2"), status=status, ctx=ctx) == []


def test_an_id_that_cannot_be_sealed_fails_the_answer() -> None:
    """Better no session than one that no one could use."""
    with pytest.raises(UpstreamFailed):
        answered(("Mcp-Session-Id", "u" * 4096))


def test_passthrough_shows_the_upstreams_id() -> None:
    """A route may turn sealing off; any status then passes."""
    route = {"name": "open", "path": "/open", "servers": "github", "sessions": "passthrough"}
    ctx = ask(snapshot(PLAIN, routes=[route]), "/open")
    assert answered(("Mcp-Session-Id", "u-1"), status=400, ctx=ctx) == [("Mcp-Session-Id", "u-1")]


# --- cookies and redirects ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cookie", "passed"),
    [
        ("a=b", "a=b; Path=/github/mcp"),
        ("a=b; Path=/; HttpOnly", "a=b; HttpOnly; Path=/github/mcp"),
        ("a=b; path = /x; DOMAIN=.test; Secure; SameSite=Lax", "a=b; Secure; SameSite=Lax; Path=/github/mcp"),
        ("a=b;Domain=api.github.test;Max-Age=3", "a=b;Max-Age=3; Path=/github/mcp"),
        ("path=b; Path=/", "path=b; Path=/github/mcp"),
        ("__Secure-a=b; Secure; Path=/", "__Secure-a=b; Secure; Path=/github/mcp"),
    ],
)
def test_a_cookie_stays_with_its_endpoint(cookie: str, passed: str) -> None:
    """Other servers share our host: the path becomes the endpoint's, and the domain goes."""
    assert answered(("Set-Cookie", cookie)) == [("Set-Cookie", passed)]


def test_a_cookie_for_the_whole_host_is_dropped() -> None:
    """`__Host-` demands the path '/', where it would reach every server behind us."""
    assert answered(("Set-Cookie", "__Host-a=b; Secure; Path=/"), ("Set-Cookie", " __hOST-a=b")) == []


def test_the_prefix_of_public_url_is_part_of_a_cookies_path() -> None:
    """The browser sees the prefix that is mapped away before us."""
    snap = snapshot(PLAIN, listen={"public_url": "https://example.com/tools/"})
    headers = answered(("Set-Cookie", "a=b"), ctx=ask(snap, "/github/mcp"))
    assert headers == [("Set-Cookie", "a=b; Path=/tools/github/mcp")]


def located(location: str, status: int = 307, target: str = "", **config: Any) -> str:
    ctx = ask(snapshot(PLAIN, **config), "/github/mcp", method="GET")
    ctx.target = target
    [(_, value)] = answered(("Location", location), status=status, ctx=ctx)
    return value


@pytest.mark.parametrize(
    ("location", "mapped"),
    [
        (URL, "/github/mcp"),
        (f"{URL}?cursor=2", "/github/mcp?cursor=2"),
        ("https://API.github.test:443/v1/mcp", "/github/mcp"),
        ("/v1/mcp?x", "/github/mcp?x"),
        ("mcp", "/github/mcp"),
        ("?x", "/github/mcp?x"),
        ("#part", "/github/mcp"),
    ],
)
def test_a_redirect_to_the_same_place_is_mapped_back(location: str, mapped: str) -> None:
    """Absolute or relative: the client is told its own URL of it."""
    assert located(location) == mapped


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data", "https://evil.test/v1/mcp", "http://api.github.test/v1/mcp",
        "https://api.github.test:444/v1/mcp", "//evil.test/v1/mcp", "/v1/mcp/", "/login", "javascript:alert(1)",
        "https://[", "https://api.github.test:x/v1/mcp", "https://api.github.test.evil.test/v1/mcp",
    ],
)  # fmt: skip
def test_any_other_redirect_fails_the_answer(location: str) -> None:
    """It is neither followed nor passed on, and the refusal does not show where it led."""
    with pytest.raises(UpstreamFailed) as refused:
        located(location)
    assert location not in str(refused.value)


def test_a_redirect_to_the_public_url_passes() -> None:
    """A server that knows its public URL may use it."""
    location = "https://mcp.example.com/github/mcp/"
    assert located(location, listen={"public_url": "https://mcp.example.com"}) == location


def test_a_location_that_is_no_redirect_passes() -> None:
    """On a 201 nothing follows it by itself; it is mapped where it can be."""
    assert located("https://other.test/x", status=201) == "https://other.test/x"
    assert located(URL, status=201) == "/github/mcp"


def test_the_operators_query_is_not_shown() -> None:
    """A key in the configured URL stays there, even when the upstream repeats it in a redirect."""
    ctx = ask(snapshot({"github": f"{URL}?key=secret"}), "/github/mcp")
    assert ("Location", "/github/mcp") in answered(("Location", f"{URL}?key=secret"), status=307, ctx=ctx)


def test_a_redirect_is_judged_by_the_url_that_was_asked() -> None:
    """Discovery documents and legacy posts go to other URLs of the same server."""
    asked = "https://api.github.test/.well-known/x"
    assert located(asked, target=asked) == "/github/mcp"
    with pytest.raises(UpstreamFailed):
        located(URL, target=asked)


def test_a_websocket_server_redirects_like_any_other() -> None:
    """Its wss URL and the https URL in its refusal are the same place."""
    ctx = ask(snapshot({"live": {"url": "wss://live.test/ws", "transport": "websocket"}}), "/live/mcp")
    assert ("Location", "/live/mcp") in answered(("Location", "https://live.test/ws"), status=307, ctx=ctx)


# --- legacy SSE -----------------------------------------------------------------------------------------------------


def legacy(*fields: tuple[str, str]) -> Headers:
    ctx = ask(snapshot(PLAIN), "/github/mcp", method="GET")
    ctx.endpoint = EndpointEvent(ctx)
    return answered(*fields, ctx=ctx)


def test_a_stream_whose_first_event_changes_has_no_length() -> None:
    """The new endpoint is longer than the old one; other answers keep their length."""
    stream, page = ("Content-Type", "Text/Event-Stream; charset=utf-8"), ("Content-Type", "text/plain")
    assert legacy(stream, ("Content-Length", "70")) == [stream]
    assert legacy(page, ("Content-Length", "70")) == [page, ("Content-Length", "70")]


def test_an_encoded_legacy_stream_fails() -> None:
    """Its endpoint could not be read, and passing the upstream's own would lead the client past us."""
    with pytest.raises(UpstreamFailed):
        legacy(("Content-Type", "text/event-stream"), ("Content-Encoding", "gzip"))
    assert len(legacy(("Content-Type", "text/event-stream"), ("Content-Encoding", "identity"))) == 2
