"""The head grammar: what it accepts, which refusal each fault gets, and that a second parser reads the same."""

from __future__ import annotations

import time
from contextlib import suppress

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.config.models import Limits
from proxy.dataplane.head import early_refusal, parse_head
from proxy.errors import (
    BadRequest,
    BodyTooLarge,
    ExpectationFailed,
    HeadersTooLarge,
    HttpVersionNotSupported,
    MethodNotAllowed,
    NotImplementedCoding,
    Refusal,
    UriTooLong,
)

LIMITS = Limits()
POST = b"POST /github/mcp HTTP/1.1\r\n"
HOST = b"Host: proxy.test:8080\r\n"
HANDSHAKE = (
    b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
TYPICAL = (
    POST
    + HOST
    + b"Accept: application/json, text/event-stream\r\nAccept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\n"
    b"User-Agent: python-httpx/0.28.1\r\nContent-Type: application/json\r\nMCP-Protocol-Version: 2025-11-25\r\n"
    b"Mcp-Session-Id: 1868a90c6f3e4f2d\r\nAuthorization: Bearer mcpm_abcdefghijkl_0123456789\r\n"
    b"Content-Length: 193\r\n\r\n"
)


def post(*lines: bytes) -> bytes:
    """A POST head with Host and these lines."""
    return POST + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def get(target: bytes, method: bytes = b"GET") -> bytes:
    """A head without body for this target."""
    return method + b" " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n"


def with_host(value: bytes) -> bytes:
    """A head whose Host is this."""
    return POST + b"Host: " + value + b"\r\n\r\n"


# --- what it accepts ------------------------------------------------------------------------------------------------


def test_reads_a_typical_request() -> None:
    """Every part of an ordinary head ends up in its own place, order and case kept."""
    head = parse_head(TYPICAL, LIMITS)
    assert (head.method, head.path, head.query, head.minor) == ("POST", "/github/mcp", "", 1)
    assert (head.host, head.content_length, head.chunked) == ("proxy.test", 193, False)
    assert (head.keep_alive, head.upgrade, head.expects_continue) == (True, "", False)
    assert head.headers[:2] == [
        ("Host", "proxy.test:8080"),
        ("Accept", "application/json, text/event-stream"),
    ]
    assert len(head.headers) == 10
    assert head.fields["mcp-protocol-version"] == "2025-11-25"


@pytest.mark.parametrize("raw", [TYPICAL, bytearray(TYPICAL)], ids=["bytes", "bytearray"])
def test_reads_bytes_and_bytearrays(raw: bytes | bytearray) -> None:
    """The gate may hand over either."""
    assert parse_head(raw, LIMITS).method == "POST"


def test_values_lose_the_blanks_around_them_and_nothing_else() -> None:
    """Blanks around a value are not part of it (RFC 9110 section 5.5); those inside are."""
    head = parse_head(post(b"A:x", b"B:   x  y \t ", b"C:\tx\ty", b"D:", b"E:  \t "), LIMITS)
    assert head.headers[1:] == [("A", "x"), ("B", "x  y"), ("C", "x\ty"), ("D", ""), ("E", "")]


def test_utf8_in_values_is_text() -> None:
    """Bytes above ASCII pass when they are UTF-8, and only blanks count as blanks."""
    head = parse_head(post("X: \u00a0grüße \U0001f680\u2003".encode()), LIMITS)
    assert head.fields["x"] == "\u00a0grüße \U0001f680\u2003"


def test_repeats_of_list_fields_are_kept_apart_and_joined() -> None:
    """`headers` keeps the lines, `fields` has the list (RFC 9110 section 5.3)."""
    head = parse_head(post(b"Accept: a", b"X-Forwarded-For: 1", b"aCCEPT: b", b"Accept:"), LIMITS)
    assert head.fields["accept"] == "a, b, "
    assert [name for name, _ in head.headers] == ["Host", "Accept", "X-Forwarded-For", "aCCEPT", "Accept"]


def test_a_target_that_is_our_own_address_is_reduced_to_its_path() -> None:
    """Absolute-form counts when it says what Host says, and only then."""
    head = parse_head(get(b"HTTP://PROXY.test:8080/mcp?x"), LIMITS)
    assert (head.path, head.query, head.host) == ("/mcp", "x", "proxy.test")


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        (b"1.1", None, True),
        (b"1.1", b"keep-alive", True),
        (b"1.1", b"close", False),
        (b"1.1", b"CLOSE", False),
        (b"1.1", b"keep-alive, close", False),
        (b"1.1", b"te ,, foo", True),
        (b"1.0", None, False),
        (b"1.0", b"Keep-Alive", True),
        (b"1.0", b"close, keep-alive", False),
    ],
)
def test_persistence_follows_the_rfc(version: bytes, connection: bytes | None, keep_alive: bool) -> None:
    """RFC 9112 section 9.3: close wins, HTTP/1.1 persists, HTTP/1.0 only when asked."""
    line = b"" if connection is None else b"Connection: " + connection + b"\r\n"
    head = parse_head(b"POST /mcp HTTP/" + version + b"\r\n" + HOST + line + b"\r\n", LIMITS)
    assert head.keep_alive is keep_alive


def test_http_1_0_needs_no_host() -> None:
    """HTTP/1.0 knows no Host; whether '' is served is decided by the Host check."""
    head = parse_head(b"POST /mcp HTTP/1.0\r\n\r\n", LIMITS)
    assert (head.host, head.minor, head.headers) == ("", 0, [])


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b" , chunked ,"])
def test_chunked_is_the_one_coding(value: bytes) -> None:
    """`chunked`, in any case, alone."""
    head = parse_head(post(b"Transfer-Encoding: " + value), LIMITS)
    assert (head.chunked, head.content_length) == (True, None)


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"OPTIONS"])
def test_an_empty_body_is_no_body(method: bytes) -> None:
    """Content-Length: 0 is allowed where a body is not."""
    raw = method + b" /mcp HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n"
    assert parse_head(raw, LIMITS).content_length == 0


@pytest.mark.parametrize(
    ("raw", "expects"),
    [
        (post(b"Expect: 100-Continue", b"Content-Length: 3"), True),
        (post(b"Expect: 100-continue", b"Transfer-Encoding: chunked"), True),
        (post(b"Expect: 100-continue"), False),
        (post(b"Expect: 100-continue", b"Content-Length: 0"), False),
        (b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", False),
    ],
)
def test_expect_counts_only_where_a_body_waits(raw: bytes, expects: bool) -> None:
    """RFC 9110 section 10.1.1: HTTP/1.0 is ignored, and without a body there is nothing to wait for."""
    assert parse_head(raw, LIMITS).expects_continue is expects


def test_a_whole_websocket_handshake_is_recognised() -> None:
    """RFC 6455 section 4.1."""
    assert parse_head(b"GET /ws HTTP/1.1\r\n" + HOST + HANDSHAKE + b"\r\n", LIMITS).upgrade == "websocket"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"GET", b"POST"),
        (b"/1.1", b"/1.0"),
        (b"keep-alive, Upgrade", b"keep-alive"),
        (b": WebSocket", b": h2c"),
        (b": WebSocket", b": websocket, h2c"),
        (b": WebSocket", ": web\u017focket".encode()),
        (b": WebSocket", ": webSoc\u212aet".encode()),
        (b"Version: 13", b"Version: 8"),
        (b"ZQ==", b"ZR=="),
        (b"dGhl", b"dGh"),
        (b"Sec-WebSocket-Key", b"X-Key"),
    ],
)
def test_any_other_upgrade_is_ignored(old: bytes, new: bytes) -> None:
    """A request that asks for another protocol, or asks badly, is an ordinary request."""
    raw = (b"GET /ws HTTP/1.1\r\n" + HOST + HANDSHAKE + b"\r\n").replace(old, new)
    assert raw.count(new)
    assert parse_head(raw, LIMITS).upgrade == ""


# --- what it refuses ------------------------------------------------------------------------------------------------

BAD_REQUESTS = {
    # H1-H8: how long is the body?
    "length and chunked": post(b"Content-Length: 4", b"Transfer-Encoding: chunked"),
    "chunked and length": post(b"Transfer-Encoding: chunked", b"Content-Length: 4"),
    "two lengths": post(b"Content-Length: 4", b"Content-Length: 5"),
    "two equal lengths": post(b"Content-Length: 4", b"content-length: 4"),
    "list of lengths": post(b"Content-Length: 40, 40"),
    **{
        f"length {value!r}": post(b"Content-Length: " + value)
        for value in (
            b"+40", b"-1", b"0x28", b"4_0", b"4 0", b"", b"9" * 19, b"9" * 20, b"0040", b"00", b"4.0",
            "\u0664".encode(), "\u00b2".encode(),
        )
    },
    "blank before colon": post(b"Content-Length : 4"),
    "blank before colon of the coding": post(b"Transfer-Encoding : chunked"),
    **{
        f"coding {value!r}": post(b"Transfer-Encoding: " + value)
        for value in (
            b"xchunked", b'"chunked"', b"\x0bchunked", b"chunked, chunked", b"chunked, identity", b"identity", b"",
            b"chun ked", b"chunked;q=1", "chun\u212aed".encode(), b",",
        )
    },
    "two codings": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "chunked in HTTP/1.0": b"POST /mcp HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
    # H12-H14: lines and names
    **{
        f"value with {byte!r}": post(b"X: a" + byte + b"b")
        for byte in (b"\x00", b"\r", b"\n", b"\x7f", b"\x0b", b"\x1b", b"\x08")
    },
    "bare LF behind a value": POST + HOST + b"X: a\nY: b\r\n\r\n",
    "bare LF behind the request line": POST[:-2] + b"\n" + HOST + b"\r\n",
    "bare LF blank line": POST + HOST + b"\nX: a\r\n\r\n",
    "folded value": post(b"X: a", b" b"),
    "folded value with a tab": post(b"X: a", b"\tb"),
    "blank before the first field": POST + b" " + HOST + b"\r\n",
    "no colon": post(b"Xa"),
    "empty name": post(b": a"),
    "space in name": post(b"X a: b"),
    "non-ASCII name": post("X\u00e9: b".encode()),
    "Kelvin sign in name": post("\u212aind: b".encode()),
    "quote in name": post(b'"X": b'),
    "not UTF-8": post(b"X: \xff\xfe"),
    "overlong UTF-8": post(b"X: \xc0\xaf"),
    "surrogate in UTF-8": post(b"X: \xed\xa0\x80"),
    **{
        f"underscore {name!r}": post(name + b": x")
        for name in (b"Mcp_Method", b"X_Forwarded_For", b"Content_Length", b"Mcp-Param_X", b"x_API_key", b"X_Real-IP")
    },
    # H16, H17: Host
    "no Host": POST + b"\r\n",
    "two Hosts": post(b"Host: proxy.test:8080"),
    "no host in Host": with_host(b"a b"),
    "empty Host": with_host(b""),
    # H18-H21: the target
    "foreign absolute target": get(b"http://evil.test/mcp"),
    "absolute target with another port": get(b"http://proxy.test/mcp"),
    "absolute target with a user": get(b"http://u@proxy.test:8080/mcp"),
    "absolute target without Host": b"GET http://a/ HTTP/1.0\r\n\r\n",
    "dots in the target": get(b"/a/../b"),
    "blank line first": b"\r\n" + TYPICAL,
    # H22, H23: version and method
    "no version": b"GET /mcp\r\n" + HOST + b"\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\n",
    "method in lower case": get(b"/", b"post"),
    # H24: bodies where none belong
    "GET with a body": b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\n",
    "HEAD with a body": b"HEAD / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\n",
    "DELETE with a body": b"DELETE / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
    "OPTIONS with a body": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\n",
    # H27: stripping by Connection
    **{
        f"Connection {value[:20]!r}": post(b"Connection: " + value)
        for value in (
            b"X-Api-Key", b"close, Content-Length", b"mcp-method", b"Mcp-Param-X", b"Authorization", b"Host", b"cookie",
            b"Transfer-Encoding", b"x-forwarded-for", b"Mcp_Name", b"last-event-id", b"a b", b'"close"', b"a/b",
            "\u212aeep-alive".encode(), b"," * 1100,
        )
    },
    # fields that must not repeat
    **{
        f"repeated {name.decode()}": post(name + b": 1", name.upper() + b": 1")
        for name in (
            b"content-type", b"authorization", b"origin", b"mcp-protocol-version", b"mcp-method", b"mcp-name",
            b"mcp-session-id", b"last-event-id", b"x-api-key", b"content-encoding", b"sec-websocket-key",
        )
    },
    "repeated expect": post(b"Expect: 100-continue", b"Expect: 100-continue"),
}  # fmt: skip


@pytest.mark.parametrize("raw", BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_faults_are_bad_requests(raw: bytes) -> None:
    """Whatever two parsers might read differently is refused with 400."""
    with pytest.raises(BadRequest):
        parse_head(raw, LIMITS)


OTHER_REFUSALS = {
    "gzip, chunked": (NotImplementedCoding, post(b"Transfer-Encoding: gzip, chunked")),
    "identity, chunked": (NotImplementedCoding, post(b"Transfer-Encoding: identity, Chunked")),
    "HTTP/0.9": (HttpVersionNotSupported, b"GET / HTTP/0.9\r\n\r\n"),
    "HTTP/2.0": (HttpVersionNotSupported, b"GET / HTTP/2.0\r\n" + HOST + b"\r\n"),
    "HTTP/1.2": (HttpVersionNotSupported, b"GET / HTTP/1.2\r\n" + HOST + b"\r\n"),
    "CONNECT": (MethodNotAllowed, b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n"),
    "TRACE": (MethodNotAllowed, get(b"/", b"TRACE")),
    "other expectation": (ExpectationFailed, post(b"Expect: 200-ok", b"Content-Length: 1")),
    "request line of 9 KB": (UriTooLong, get(b"/" + b"a" * 9000)),
    "field of 9 KB": (HeadersTooLarge, post(b"X: " + b"a" * 9000)),
    "150 fields": (HeadersTooLarge, post(*[b"X: a"] * 149)),
    "960 KB": (HeadersTooLarge, post(*[b"X: " + b"a" * 8000] * 120)),
    "65 KiB of short fields": (HeadersTooLarge, post(*[b"X: " + b"a" * 700] * 95)),
    "body over the limit": (BodyTooLarge, post(b"Content-Length: 4194305")),
    "18 digits": (BodyTooLarge, post(b"Content-Length: " + b"9" * 18)),
}


@pytest.mark.parametrize(("refusal", "raw"), OTHER_REFUSALS.values(), ids=OTHER_REFUSALS.keys())
def test_faults_with_a_status_of_their_own(refusal: type[Refusal], raw: bytes) -> None:
    """Limits, versions, methods, codings and expectations are told apart from bad grammar."""
    with pytest.raises(refusal):
        parse_head(raw, LIMITS)


def test_limits_are_inclusive() -> None:
    """A line, a number of fields and a body at the limit pass; one more does not."""
    limits = Limits(header_line=256, headers=1024, header_count=8, body=1024)
    line = b"GET /" + b"a" * (256 - 14) + b" HTTP/1.1"
    assert len(line) == 256
    parse_head(line + b"\r\n" + HOST + b"X: " + b"a" * 253 + b"\r\n\r\n", limits)
    parse_head(post(*[b"X: a"] * 7), limits)
    parse_head(post(b"Content-Length: 1024"), limits)
    for refusal, raw in (
        (UriTooLong, b"GET /a" + line[5:] + b"\r\n" + HOST + b"\r\n"),
        (HeadersTooLarge, post(b"X: " + b"a" * 254)),
        (HeadersTooLarge, post(*[b"X: a"] * 8)),
        (HeadersTooLarge, post(*[b"X: " + b"a" * 200] * 5)),
        (BodyTooLarge, post(b"Content-Length: 1025")),
    ):
        with pytest.raises(refusal):
            parse_head(raw, limits)


def test_underscores_in_names_of_their_own_pass() -> None:
    """Only a name that a gateway could take for a known field is refused."""
    assert parse_head(post(b"X_Tenant_Id: a", b"_x: b"), LIMITS).fields["x_tenant_id"] == "a"


def test_names_are_remembered_in_bounds() -> None:
    """A client that invents names cannot make the memory of names grow without end."""
    from proxy.dataplane import head as module

    for turn in range(40):
        parse_head(post(*[b"X-%d-%d: a" % (turn, index) for index in range(90)]), LIMITS)
    parse_head(post(b"X-" + b"a" * 4000 + b": a"), LIMITS)
    assert len(module._names) <= 1024
    assert max(map(len, module._names)) <= 64


def test_refusals_name_no_input() -> None:
    """Neither text nor detail of a refusal holds a byte of what was sent."""
    for raw in (post(b"X-MARKER MARKER: MARKER"), get(b"/MARKER\\"), with_host(b"MARKER/"), get(b"/", b"MARKE@")):
        with pytest.raises(BadRequest) as caught:
            parse_head(raw, LIMITS)
        assert "MARKE" not in f"{caught.value!r} {caught.value.detail}"


# --- refusing early -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [TYPICAL, get(b"/mcp?" + b"a" * 8000), b"OPTIONS * HTTP/1.0\r\n\r\n", post(b"X: a", "Y: \u00e9\t ".encode())],
)
def test_a_good_head_is_never_refused_early(raw: bytes) -> None:
    """Every prefix of a good head may still become one, wherever the packets are cut."""
    seen = 0
    for end in range(len(raw)):
        assert early_refusal(raw[:end], LIMITS) is None
        assert early_refusal(bytearray(raw[:end]), LIMITS, seen) is None
        seen = end


EARLY = {
    "TLS hello": (BadRequest, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "SSH banner": (BadRequest, b"SSH-2.0-OpenSSH_9.2p1\r\n"),
    "half an SSH banner": (BadRequest, b"SSH-2.0"),
    "PROXY line": (BadRequest, b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"),
    "PROXY v2": (BadRequest, b"\r\n\r\n\x00\r\nQUIT\n"),
    "blank line": (BadRequest, b"\r\n"),
    "lower case": (BadRequest, b"g"),
    "bare LF": (BadRequest, b"GET / HTTP/1.1\nHost: a\n\n"),
    "bare LF in a field": (BadRequest, b"GET / HTTP/1.1\r\nHost: a\n\n"),
    "bare CR in a field": (BadRequest, b"GET / HTTP/1.1\r\nHost: a\rb"),
    "endless request line": (UriTooLong, b"GET /" + b"a" * 9000),
    "endless field": (HeadersTooLarge, b"GET / HTTP/1.1\r\nX: " + b"a" * 9000),
    "endless head": (HeadersTooLarge, b"GET / HTTP/1.1\r\n" + (b"X: " + b"a" * 1000 + b"\r\n") * 70),
}


@pytest.mark.parametrize(("refusal", "partial"), EARLY.values(), ids=EARLY.keys())
def test_garbage_is_refused_before_its_end(refusal: type[Refusal], partial: bytes) -> None:
    """What cannot become a request is not waited for."""
    assert type(early_refusal(partial, LIMITS)) is refusal


@given(st.integers(1, 60), st.sampled_from([b"\n", b"\r"]))
def test_a_bare_line_end_is_found_wherever_the_packets_are_cut(cut: int, bare: bytes) -> None:
    """`seen` skips nothing that matters."""
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nX: a" + bare + b"b\r\nY: c and some more to come"
    found = early_refusal(raw[:cut], LIMITS) or early_refusal(raw, LIMITS, cut)
    assert isinstance(found, BadRequest)


# --- properties -----------------------------------------------------------------------------------------------------

NAMES = st.text("abcXYZ019!#$%&'*+-.^`|~", min_size=1, max_size=12).map(lambda name: f"x-{name}")
VALUES = st.text(
    st.characters(
        blacklist_categories=("Cs",), blacklist_characters="".join(map(chr, [*range(9), *range(10, 32), 127]))
    ),
    max_size=40,
).map(lambda value: value.strip(" \t"))
BLANKS = st.text(" \t", max_size=3)


@given(st.lists(st.tuples(NAMES, BLANKS, VALUES, BLANKS), max_size=20))
def test_fields_come_out_as_they_went_in(fields: list[tuple[str, str, str, str]]) -> None:
    """Names and values survive in order, case and repeats kept, whatever blanks stand around the values."""
    lines = [f"{name}:{before}{value}{after}".encode() for name, before, value, after in fields]
    head = parse_head(post(*lines), LIMITS)
    assert head.headers[1:] == [(name, value) for name, _, value, _ in fields]
    for name, _, _, _ in fields:
        values = [value for other, _, value, _ in fields if other.lower() == name.lower()]
        assert head.fields[name.lower()] == ", ".join(values)


@given(st.binary(max_size=200))
@example(b"")
@example(b"\r\n\r\n")
@example(b"GET / HTTP/1.1\r\n\r\n")
def test_any_bytes_give_a_head_or_a_refusal(raw: bytes) -> None:
    """Nothing but a Refusal is ever raised."""
    early_refusal(raw, LIMITS)
    with suppress(Refusal):
        parse_head(raw + b"\r\n\r\n", LIMITS)


SEEDS = [
    TYPICAL,
    post(b"Transfer-Encoding: chunked", b"Expect: 100-continue"),
    b"GET /ws HTTP/1.1\r\n" + HOST + HANDSHAKE + b"\r\n",
    b"DELETE /a/mcp?x=y HTTP/1.1\r\n" + HOST + b"Connection: close\r\nMcp-Session-Id: 1\r\n\r\n",
]
INTERESTING = [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b"\x00", b"\xff", b"_", b";", b"/", b"..", b"%2e", b"0",
               b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"\r\n\r\n"]  # fmt: skip


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A good head with one to three bytes deleted, inserted or replaced."""
    raw = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw)))
        gone = draw(st.integers(0, 2))
        new = draw(st.one_of(st.just(b""), st.binary(max_size=2), st.sampled_from(INTERESTING)))
        raw = raw[:at] + new + raw[at + gone :]
    return raw


@settings(max_examples=500)
@given(mutants())
def test_a_second_parser_reads_what_was_accepted_alike(raw: bytes) -> None:
    """Whatever passes, h11 reads with the same method, target, fields and framing, and with the same end."""
    end = raw.find(b"\r\n\r\n")
    if end < 0:
        return
    raw = raw[: end + 4]
    try:
        head = parse_head(raw, LIMITS)
    except Refusal:
        return
    other = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    other.receive_data(raw)
    event = other.next_event()
    assert isinstance(event, h11.Request)
    assert event.method.decode() == head.method
    assert event.http_version.decode() == f"1.{head.minor}"
    assert event.target.decode().endswith(f"{head.path}?{head.query}" if head.query else head.path)
    assert [(name.decode(), value.decode()) for name, value in event.headers] == [
        (name.lower(), value.lower() if name.lower() == "transfer-encoding" else value) for name, value in head.headers
    ]
    assert other.trailing_data == (b"", False)


UGLY = {
    "short fields": b"a:\r\n",
    "empty names": b":\r\n",
    "long values": b"x: " + b"y" * 8000 + b"\r\n",
    "long blanks": b"x:" + b"\t" * 8000 + b"y\r\n",
    "blanks inside": b"x: a" + b" \t" * 4000 + b"b\r\n",
    "UTF-8": b"x: " + "\u00e9".encode() * 4000 + b"\r\n",
    "long names": b"x" * 8000 + b"\r\n",
    "commas": b"connection: " + b"," * 8000 + b"\r\n",
    "codings": b"transfer-encoding: " + b"a," * 4000 + b"\r\n",
    "bare CR": b"\r",
    "bare LF": b"\n",
}


@pytest.mark.parametrize("unit", UGLY.values(), ids=UGLY.keys())
def test_the_ugliest_64_kib_cost_little(unit: bytes) -> None:
    """Neither grammar nor limits can be made to backtrack: a head at its limit takes milliseconds."""
    start = POST + HOST
    raw = start + unit * ((LIMITS.headers - len(start) - 2) // len(unit)) + b"\r\n\r\n"

    def cost_s() -> float:
        began = time.process_time()
        early_refusal(raw, LIMITS)
        with suppress(Refusal):
            parse_head(raw, LIMITS)
        return time.process_time() - began

    assert min(cost_s() for _ in range(5)) < 0.02  # about 0.001 on the machine this was written on
