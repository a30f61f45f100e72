"""Hostile requests below JSON: what is wrong with the head or the framing, and the answer each must get.

Group letters: H is HTTP, M the headers of MCP, A credentials. Every input carries `MARKER`, which no answer may repeat.
"""

# ruff: noqa: E501 - one case on one line is easier to compare with its neighbours

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

MARKER = b"zqMARKERqz"
NOTE = b"X-Note: " + MARKER
CALL = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"text":"%b"}}}' % MARKER
JSON = b"Content-Type: application/json"
HOST = b"Host: 127.0.0.1"
#: What stands behind each input, to see whether it is taken for a request.
SMUGGLED = b"GET /up/mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Smuggled: " + MARKER + b"\r\n\r\n"

Raw = bytes | Callable[[], bytes]
Step = tuple[str, Raw, int | tuple[int, ...]]


@dataclass(frozen=True)
class Refused:
    """An input, and the answer to it: `status` (any of), JSON-RPC `code` (default: the status), and what comes then."""

    name: str
    raw: Raw
    status: tuple[int, ...]
    code: int | None = None
    closes: bool | None = True
    """None: it depends on how much of the body was here when the answer went out, and the answer says which."""

    @property
    def bytes(self) -> bytes:
        return self.raw if isinstance(self.raw, bytes) else self.raw()


@dataclass(frozen=True)
class Passed:
    """An input that looks odd and is good: the upstream must see `shows` in it, and not `hides`."""

    name: str
    raw: bytes
    shows: tuple[bytes, ...] = ()
    hides: tuple[bytes, ...] = ()


def head(*lines: bytes, first: bytes = b"POST /up/mcp HTTP/1.1") -> bytes:
    """A head of exactly these lines."""
    return b"\r\n".join((first, *lines)) + b"\r\n\r\n"


def sized(*lines: bytes, body: bytes = CALL) -> bytes:
    """A good POST with further lines."""
    return head(HOST, JSON, b"Content-Length: %d" % len(body), *lines) + body


def chunked(framed: bytes, *lines: bytes) -> bytes:
    """A POST whose body is framed by hand."""
    return head(HOST, JSON, NOTE, b"Transfer-Encoding: chunked", *lines) + framed


def in_chunks(size: int, body: bytes = CALL) -> bytes:
    """`body` in chunks of `size` bytes, whole."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def with_length(value: bytes) -> bytes:
    return head(HOST, JSON, NOTE, b"Content-Length: " + value) + CALL


def get(target: bytes, *lines: bytes, method: bytes = b"GET", version: bytes = b"HTTP/1.1") -> bytes:
    return head(HOST, NOTE, *lines, first=b" ".join((method, target, version)))


def with_host(value: bytes) -> bytes:
    return head(b"Host: " + value, JSON, NOTE, b"Content-Length: %d" % len(CALL)) + CALL


LENGTH = b"Content-Length: %d" % len(CALL)
FRAMED = in_chunks(40)

FRAMING: list[Step] = [
    ("H1 length, then chunked", chunked(FRAMED, LENGTH), 400),
    ("H1 chunked, then length", head(HOST, JSON, NOTE, LENGTH, b"Transfer-Encoding: chunked") + FRAMED, 400),
    ("H2 two lengths", sized(b"Content-Length: 3"), 400),
    ("H2 two equal lengths", sized(LENGTH), 400),
    ("H2 a list of lengths", with_length(b"%d, %d" % (len(CALL), len(CALL))), 400),
    *[(f"H3 length {value!r}", with_length(value), 400)
      for value in (b"+40", b"-1", b"0x28", b"4_0", b"4 0", b"", b"1" * 20, b"4e1")],
    ("H4 length 0040", with_length(b"00%d" % len(CALL)), 400),
    ("H5 blank before the colon of the length", head(HOST, JSON, NOTE, b"Content-Length : 9") + CALL, 400),
    ("H5 blank before the colon of the coding", head(HOST, NOTE, b"Transfer-Encoding : chunked") + FRAMED, 400),
    *[(f"H6 coding {value!r}", head(HOST, JSON, NOTE, b"Transfer-Encoding: " + value) + FRAMED, 400)
      for value in (b"xchunked", b'"chunked"', b"\x0bchunked", b"chunked, chunked", b"chunked, identity", b"identity")],
    ("H6 two codings", chunked(FRAMED, b"Transfer-Encoding: chunked"), 400),
    *[(f"H7 coding {value!r}", head(HOST, JSON, NOTE, b"Transfer-Encoding: " + value) + FRAMED, 501)
      for value in (b"gzip, chunked", b"identity, chunked")],
    ("H8 chunked in HTTP/1.0",
     head(HOST, JSON, NOTE, b"Transfer-Encoding: chunked", first=b"POST /up/mcp HTTP/1.0") + FRAMED, 400),
    *[(f"H9 chunk {framed[:20]!r}", chunked(framed), 400)
      for framed in (b"-1\r\n", b"0x5\r\nhello\r\n", b"f" * 18 + b"\r\n", b"5 \r\nhello\r\n", b"5\nhello\n0\n\n",
                     b"5\r\nhel\r\n0\r\n\r\n", b"5\r\nhellohello\r\n", b"\r\n", b"g\r\n")],
    ("H9 a size over every limit", chunked(b"f" * 16 + b"\r\n"), 413),
    *[(f"H10 extension of {size} bytes", lambda size=size: chunked(b"5;" + b"a" * size + b"\r\nhello\r\n0\r\n\r\n"), 400)
      for size in (257, 9 << 10, 1 << 20, 20 << 20)],
    ("H10 extension with LF", chunked(b"5;a\nb\r\nhello\r\n0\r\n\r\n"), 400),
    ("H11 endless trailers", lambda: chunked(in_chunks(40)[:-2] + b"A: b\r\n" * 9000 + b"\r\n"), 431),
    ("H11 a trailer that is no field", chunked(in_chunks(40)[:-2] + b"no colon\r\n\r\n"), 400),
    ("H28b 900,000 chunks of one byte", lambda: chunked(in_chunks(1, b" " * 900_000)), (400, 413)),
    ("H30 4 MiB + 1 with its length", with_length(b"%d" % ((4 << 20) + 1)), 413),
    ("H30 4 MiB + 1 in chunks", lambda: chunked(in_chunks(65536, b" " * ((4 << 20) + 1))), 413),
]  # fmt: skip

FIELDS: list[Step] = [
    *[(f"H12 value with {byte!r}", sized(b"X-A: a" + byte + b"b", NOTE), 400) for byte in (b"\x00", b"\r", b"\x7f", b"\x1b")],
    ("H12 bare LF between fields", sized(b"X-A: a\nX-B: b", NOTE), 400),
    ("H12 bare LF everywhere", sized(NOTE).replace(b"\r\n", b"\n"), 400),
    ("H12 folded line", sized(b"X-A: a", b" b", NOTE), 400),
    ("H12 blank before the first field", head(b" " + HOST, NOTE), 400),
    *[(f"H13 field {line!r}", sized(line, NOTE), 400)
      for line in (b"X-A", b": a", b"X A: b", b"X\xc3\xa9: a", b"X-A\x00: b", b"(X): a")],
    *[(f"H14 name {name!r}", sized(name + b": " + MARKER), 400)
      for name in (b"Mcp_Method", b"X_Forwarded_For", b"Content_Length", b"Mcp-Param_X", b"x_api_key", b"Transfer_Encoding")],
    *[(f"H15 value {value!r}", sized(b"X-A: " + value, NOTE), 400) for value in (b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80")],
    ("H16 no Host", head(JSON, NOTE, LENGTH) + CALL, 400),
    ("H16 two Hosts", sized(b"Host: 127.0.0.1", NOTE), 400),
    ("H16 two Hosts that differ", sized(b"host: localhost", NOTE), 400),
    *[(f"H17 Host {value[:20]!r}", with_host(value), 400)
      for value in (b"a b", b"a@b", b"a,b", b"a/b", b"a:b", b"a:99999", b"[::1", b"a" * 300, b"", b"127.0.0.1:", b"localhost.")],
    ("H24 GET with a body", get(b"/up/mcp", b"Content-Length: 3") + b"abc", 400),
    ("H24 DELETE with chunks", get(b"/up/mcp", b"Transfer-Encoding: chunked", method=b"DELETE") + b"0\r\n\r\n", 400),
    ("H25 another expectation", sized(NOTE, b"Expect: 200-ok"), 417),
    *[(f"H27 Connection: {value.decode()}", sized(NOTE, b"Connection: " + value), 400)
      for value in (b"X-Api-Key", b"Content-Length", b"close, Mcp-Method", b"X-Api-Key, Content-Length, Mcp-Method",
                    b"Authorization", b"mcp-session-id", b"X-Forwarded-For", b"Host")],
    ("H28 request line of 9 KB", get(b"/up/mcp?" + MARKER * 900), 414),
    ("H28 field of 9 KB", sized(b"X-A: " + MARKER * 900), 431),
    ("H28 150 fields", sized(*[NOTE] * 150), 431),
    ("H28b 960 KB of fields", lambda: sized(*[b"X-A: " + MARKER * 800] * 120), 431),
    ("H32 two content types", sized(JSON, NOTE), 400),
    ("H31 two content codings", sized(b"Content-Encoding: gzip", b"Content-Encoding: gzip", NOTE), 400),
    ("A4 two credentials", sized(b"Authorization: Bearer " + MARKER, b"Authorization: Bearer b"), 400),
    ("A4 two API keys", sized(b"X-Api-Key: " + MARKER, b"X-API-KEY: b"), 400),
    *[(f"M2 two {name.decode()}", sized(name + b": " + MARKER, name.lower() + b": " + MARKER), 400)
      for name in (b"Mcp-Name", b"Mcp-Method", b"MCP-Protocol-Version", b"Mcp-Session-Id", b"Last-Event-ID")],
    *[(f"M10 Origin {value.decode()}", sized(NOTE, b"Origin: " + value), 403)
      for value in (b"http://evil.test", b"null", b"http://localhost.evil.test", b"http://127.0.0.1.evil.test",
                    b"http://localhost@evil.test", b"file://")],
    ("M10 two Origins", sized(NOTE, b"Origin: http://localhost", b"Origin: http://evil.test"), (400, 403)),
    *[(f"M11 Host {value.decode()}", with_host(value), 403) for value in (b"evil.test", b"127.0.0.1.evil.test", b"0.0.0.0", b"[::2]")],
    *[(f"M12 session with {byte!r}", sized(b"Mcp-Session-Id: " + MARKER + byte), 400) for byte in (b"\x00x", b"\x7fx", b"\rx")],
    ("M13 event id with CR", sized(b"Last-Event-ID: " + MARKER + b"\rx"), 400),
]  # fmt: skip

LINES: list[Step] = [
    ("T4 TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + MARKER, 400),
    ("T4 SSH banner", b"SSH-2.0-" + MARKER + b"\r\n", 400),
    ("T5 HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + MARKER, 400),
    ("T8 PROXY line", b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + sized(NOTE), 400),
    ("blank line first", b"\r\n" + sized(NOTE), 400),
    ("H18 another host in the target", get(b"http://evil.test/up/mcp"), 400),
    ("H18 another port in the target", get(b"http://127.0.0.1:81/up/mcp"), 400),
    ("H18 a user in the target", get(b"http://" + MARKER + b"@127.0.0.1/up/mcp"), 400),
    ("H19 fragment", get(b"/up/mcp#" + MARKER), 400),
    ("H19 two blanks", get(b" /up/mcp"), 400),
    ("H19 blank in the target", get(b"/up/mcp?a b"), 400),
    *[(f"H20 target {target!r}", get(target), 400) for target in (b"!", b"/\x00", b"/\xc3\xa9", b"/a\tb", b"*", b"up/mcp")],
    *[(f"H21 target {target.decode()}", get(target), (400, 404))
      for target in (b"/up/../up/mcp", b"/up%2fmcp", b"/a%2f..%2fup/mcp", b"/%2e%2e/up/mcp", b"//up/mcp", b"/up//mcp",
                     b"/up/mcp;x", b"/up/mcp/.", b"/up/%00", b"/%zz", b"/up/mcp%", b"/up\\mcp", b"/up/mcp/..%2f")],
    *[(f"H22 {version.decode()}", get(b"/up/mcp", version=version), (400, 505))
      for version in (b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"HTTP/1.11", b"http/1.1", b"HTTP/1.1x", b"")],
    *[(f"H23 method {method.decode()}", get(b"/up/mcp", method=method), 400) for method in (b"P@ST", b"post", b"G\x00T", b"")],
    ("H23 TRACE", get(b"/up/mcp", method=b"TRACE"), 405),
    *[(f"H23 method {method.decode()}", get(b"/up/mcp", method=method), 405) for method in (b"PUT", b"PATCH", b"OST", b"M-SEARCH")],
    ("H23 CONNECT", get(b"evil.test:443", method=b"CONNECT"), 405),
]  # fmt: skip

#: Understood, refused by the pipeline, and the connection goes on.
POLICY: list[Step] = [
    ("no such path", get(b"/" + MARKER), 404),
    ("U1 no such server", head(HOST, JSON, LENGTH, first=b"POST /nope/mcp HTTP/1.1") + CALL, 404),
    *[(f"H31 coding {value.decode()}", sized(NOTE, b"Content-Encoding: " + value), 415)
      for value in (b"gzip", b"foo", b"gzip, gzip", b"identity, gzip")],
    *[(f"H32 type {value.decode()!r}", sized(NOTE, b"Content-Type: " + value).replace(JSON + b"\r\n", b""), 415)
      for value in (b"text/plain", b"application/json; charset=utf-16", b"application/json, text/plain", b"",
                    b"application/x-www-form-urlencoded", b"multipart/form-data", b"application/jsonx")],
    ("H32 no type", sized(NOTE).replace(JSON + b"\r\n", b""), 415),
    *[(f"M12 session {value[:12].decode()}", sized(b"Mcp-Session-Id: " + value), 404)
      for value in (MARKER, b"x" * 8000, b"", b"../" + MARKER)],
    ("M12 session of a stream", get(b"/up/mcp", b"Mcp-Session-Id: " + MARKER), 404),
    ("M13 event of a session that is none", get(b"/up/mcp", b"Mcp-Session-Id: " + MARKER, b"Last-Event-ID: 5"), 404),
]  # fmt: skip

PASSED = [
    Passed("H11 trailers are dropped", chunked(FRAMED[:-2] + b"X-Api-Key: forged\r\nHost: evil\r\n\r\n"),
           (NOTE, CALL), (b"forged", b"evil", b"X-Api-Key")),
    Passed("small chunk extensions", chunked(b'3;a="b;c"\r\n' + CALL[:3] + b"\r\n" + in_chunks(40, CALL[3:])),
           (CALL,), (b"b;c",)),
    Passed("1,000 tiny chunks", chunked(in_chunks(1, CALL + b" " * 900)), (CALL + b" " * 900,)),
    Passed("H14 an underscore of its own", sized(b"X_Tenant_Id: 5"), (b"X_Tenant_Id: 5",)),
    Passed("H15 UTF-8 value", sized("X-A: grüße \U0001f680".encode()), ("X-A: grüße \U0001f680".encode(),)),
    Passed("blanks around a value", sized(b"X-A:  \t a  b \t"), (b"X-A: a  b\r\n",)),
    Passed("repeats of a list field", sized(b"Accept: a", b"X-B: 1", b"ACCEPT: b"), (b"Accept: a\r\nX-B: 1\r\nACCEPT: b\r\n",)),
    Passed("H18 our own address in the target",
           head(HOST, JSON, LENGTH, first=b"POST HTTP://127.0.0.1/up/mcp HTTP/1.1") + CALL, (b"POST /mcp HTTP/1.1", CALL)),
    Passed("a query as browsers write it", get(b"/up/mcp?f[0]={a|b}^`c`&d=%2F;e'!$?&&=+%20"), (b"GET /mcp?f[0]={a|b}^`c`&d=%2F;e'!$?&&=+%20 HTTP/1.1",)),
    Passed("an empty query", get(b"/up/mcp?"), (b"GET /mcp",)),
    Passed("OPTIONS", get(b"/up/mcp", b"Access-Control-Request-Method: POST", method=b"OPTIONS"), (b"OPTIONS /mcp HTTP/1.1",)),
    Passed("H27 harmless options", sized(b"Connection: keep-alive, X-Hop", b"X-Hop: 1", b"TE: trailers"),
           (CALL,), (b"X-Hop", b"TE:", b"keep-alive")),
    Passed("forged X-Forwarded-For", sized(b"X-Forwarded-For: 6.6.6.6", b"X-Real-IP: 6.6.6.6", b"Forwarded: for=6.6.6.6"),
           (b"X-Forwarded-For: 127.0.0.1",), (b"6.6.6.6",)),
    Passed("A4 bearer in lower case", sized(b"authorization:   bearer x"), (b"authorization: bearer x",)),
    Passed("M10 our own Origin", sized(b"Origin: http://localhost:3000"), (b"Origin: http://localhost:3000",)),
    Passed("an empty value", sized(b"X-A:"), (b"X-A: \r\n",)),
    Passed("HTTP/1.0", head(HOST, JSON, LENGTH, b"Connection: keep-alive", first=b"POST /up/mcp HTTP/1.0") + CALL, (CALL,)),
]  # fmt: skip


def refused_below_json() -> Iterator[Refused]:
    """All inputs of this file that must be refused."""
    for steps, closes in ((FRAMING, True), (FIELDS, True), (LINES, True), (POLICY, False)):
        for name, raw, status in steps:
            yield Refused(name, raw, (status,) if isinstance(status, int) else status, closes=closes)
    bomb = sized(NOTE, b"Content-Encoding: gzip", body=b"\x1f\x8b" * 100_000)
    yield Refused("H31 a gzip bomb", bomb, (415,), closes=None)
