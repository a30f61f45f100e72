"""Hostile messages: JSON, JSON-RPC and `Mcp-*` headers that two servers could read differently, and their answers.

Group letters: J is JSON, R JSON-RPC, M the headers of MCP. Where the design and the corpus differ (batches, headers on
legacy traffic, the code of bad `params`), the design counts.
"""

# ruff: noqa: E501 - one case on one line is easier to compare with its neighbours

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator

from tests.integration.hostile_corpus import CALL, HOST, JSON, MARKER, Passed, Refused, get, head, sized

PARSE, INVALID, MISMATCH = -32700, -32600, -32020
MODERN = b"MCP-Protocol-Version: 2026-07-28"
META = (
    b'"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}'
)

Body = bytes | Callable[[], bytes]


def call(members: bytes, arguments: bytes = b"{}") -> bytes:
    """A tools/call whose `params` have these members besides `arguments`."""
    return (
        b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{%b,"arguments":%b,"note":"%b"}}'
        % (members, arguments, MARKER)
    )  # fmt: skip


def arguing(value: bytes) -> bytes:
    """A good call with this JSON value among its arguments."""
    return call(b'"name":"echo"', b'{"value":%b}' % value)


def message(members: bytes) -> bytes:
    """An object with these members and the marker."""
    return b'{%b,"note":"%b"}' % (members, MARKER)


def modern(*lines: bytes, method: bytes = b"tools/call", params: bytes = b'"name":"echo"', meta: bytes = META) -> bytes:
    """A modern request with these header lines."""
    body = b'{"jsonrpc":"2.0","id":7,"method":"%b","params":{%b,%b,"note":"%b"}}' % (method, params, meta, MARKER)
    return sized(MODERN, *lines, body=body)


def named(name: bytes, header: bytes) -> bytes:
    """A modern tools/call of `name` (as in JSON) whose `Mcp-Name` is `header`."""
    return modern(b"Mcp-Method: tools/call", b"Mcp-Name: " + header, params=b'"name":"%b"' % name)


def base64(text: bytes) -> bytes:
    return b"=?base64?" + b64encode(text) + b"?="


TOOL = b'"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo"}'

BODIES: list[tuple[str, Body, int]] = [
    *[(f"J1 {what} twice", body, INVALID) for what, body in {
        "method": message(b'"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call"'),
        "escaped method": message(b'"jsonrpc":"2.0","id":1,"method":"tools/list","\\u006dethod":"tools/call"'),
        "params": message(TOOL + b',"params":{"name":"danger"}'),
        "id": message(TOOL + b',"id":8'),
        "jsonrpc": message(TOOL + b',"jsonrpc":"1.0"'),
        "name": call(b'"name":"echo","name":"danger"'),
        "escaped name": call(b'"name":"echo","n\\u0061me":"danger"'),
        "uri": message(b'"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"a:b","uri":"file:///x"}'),
        "_meta": call(b'"name":"echo","_meta":{},"_meta":{}'),
    }.items()],
    *[(f"J2 {key} for method", message(b'"jsonrpc":"2.0","id":1,"method":"tools/list","%b":"tools/call"' % key.encode()),
       INVALID) for key in ("Method", "METHOD", "meth\u200bod", "\uff4dethod")],
    *[(f"J2 {key} for name", call(b'"name":"echo","%b":"danger"' % key.encode()), INVALID)
      for key in ("Name", "NAME", "nam\uff45")],
    ("J2 long s for params", message(TOOL + ',"param\u017f":{"name":"danger"}'.encode()), INVALID),
    ("J2 Kelvin sign for taskId",
     message('"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":"a","tas\u212aId":"b"}'.encode()), INVALID),
    ("J2 Method alone", message(b'"jsonrpc":"2.0","id":1,"Method":"tools/call"'), INVALID),
    *[(f"J3 key {key!r}", message(TOOL + b',"%b":"x"' % key), INVALID)
      for key in (b"method\\u0000", b"method ", b" method", "meth\u200dod".encode(), b"\\tmethod", "\ufeffid".encode())],
    ("J3 name with a blank", call(b'"name":"echo","name ":"danger"'), INVALID),
    *[(f"J4 {what}", body, PARSE) for what, body in {
        "BOM": b"\xef\xbb\xbf" + CALL,
        "UTF-16": CALL.decode().encode("utf-16"),
        "UTF-16 without BOM": CALL.decode().encode("utf-16-le"),
        "bad UTF-8": arguing(b'"\xff\xfe"'),
        "CESU surrogates": arguing(b'"\xed\xa0\xbd\xed\xb8\x80"'),
        "overlong NUL": arguing(b'"\xc0\x80"'),
    }.items()],
    *[(f"J5 {value[:10].decode()}", arguing(value), PARSE) for value in (b"NaN", b"Infinity", b"-Infinity", b"1e400", b"9" * 5000)],
    ("J7 65 levels", arguing(b"[" * 62 + b"]" * 62), INVALID),
    ("J7 1024 levels", arguing(b"[" * 1024 + b"]" * 1024), 0),
    ("J7 100,000 levels", lambda: arguing(b"[" * 100_000 + b"]" * 100_000), 0),
    ("J7 100,000 levels that never end", lambda: arguing(b"[" * 100_000), 0),
    *[(f"J9 {what}", body, PARSE) for what, body in {
        "trailing letter": CALL + b"x",
        "two objects": CALL + CALL,
        "NUL behind": CALL + b"\x00",
        "comment": b"/* " + MARKER + b" */" + CALL,
        "single quotes": CALL.replace(b'"', b"'"),
        "trailing comma": CALL[:-1] + b",}",
        "nothing": b"",
        "blanks": b" " * 40,
        "half an object": CALL[:-1],
        "form data": b"a=b&c=" + MARKER,
    }.items()],
    ("J10 lone surrogate", arguing(b'"\\ud800"'), PARSE),
    ("J11 NUL in a name", call(b'"name":"echo\\u0000danger"'), INVALID),
    ("R1 empty batch", b"[]", INVALID),
    ("R1 10,000 messages", lambda: b"[" + b",".join([message(TOOL)] * 10_000) + b"]", INVALID),
    ("R1 batch with a bad element", b"[%b,%b]" % (CALL, message(b'"jsonrpc":"2.0","id":null,"method":"x"')), INVALID),
    ("R1 batch in a batch", b"[[%b]]" % CALL, INVALID),
    *[(f"R2 jsonrpc {value.decode()}", message(b'%b"id":7,"method":"tools/list"' % value), INVALID)
      for value in (b"", b'"jsonrpc":"1.0",', b'"jsonrpc":2,', b'"jsonrpc":2.0,', b'"jsonrpc":null,', b'"jsonrpc":"2.0 ",')],
    *[(f"R3 id {value[:8].decode()}", message(b'"jsonrpc":"2.0","id":%b,"method":"tools/list"' % value), INVALID)
      for value in (b"null", b"{}", b"[]", b"[1]", b"true", b'"%b"' % (MARKER * 110_000))],
    *[(f"R4 method {value[-8:].decode()}", message(b'"jsonrpc":"2.0","id":7,"method":%b' % value), INVALID)
      for value in (b"5", b"null", b"[]", b'""', b'"%b"' % (b"m" * 10_240), b'"tools/call\\r\\n"', b'"tools/call\\u0000"')],
    ("R4 no method, no result", message(b'"jsonrpc":"2.0","id":7'), INVALID),
    ("R4 call and response in one", message(TOOL + b',"result":{}'), INVALID),
    *[(f"R7 params {value.decode()}", message(b'"jsonrpc":"2.0","id":7,"method":"tools/call","params":%b' % value), INVALID)
      for value in (b"[]", b'["echo"]', b'"echo"', b"5", b"true")],
    *[(f"R7 name {value.decode()}", call(b'"name":%b' % value), INVALID) for value in (b"5", b"[]", b"{}", b'"a\\nb"')],
    ("R8 notification with an id", message(b'"jsonrpc":"2.0","id":7,"method":"notifications/initialized"'), INVALID),
    *[(f"not an object: {body.decode()}", body, INVALID) for body in (b"5", b'"' + MARKER + b'"', b"null", b"true")],
]  # fmt: skip

HEADERS: list[tuple[str, bytes, int]] = [
    ("M1 another method", modern(b"Mcp-Method: tools/list", b"Mcp-Name: echo"), MISMATCH),
    ("M2 another name", named(b"danger", b"echo"), MISMATCH),
    ("M2 another task",
     modern(b"Mcp-Method: tasks/get", b"Mcp-Name: a", method=b"tasks/get", params=b'"taskId":"b"'), MISMATCH),
    ("M2 another resource",
     modern(b"Mcp-Method: resources/read", b"Mcp-Name: a:b", method=b"resources/read", params=b'"uri":"a:c"'), MISMATCH),
    ("M3 no method", modern(b"Mcp-Name: echo"), MISMATCH),
    ("M3 no name", modern(b"Mcp-Method: tools/call"), MISMATCH),
    ("M4 method in capitals", modern(b"Mcp-Method: TOOLS/CALL", b"Mcp-Name: echo"), MISMATCH),
    ("M5 bad padding", named(b"foo", b"=?base64?Zm9?="), MISMATCH),
    ("M5 bad alphabet", named(b"foo", b"=?base64?Zm9!?="), MISMATCH),
    ("M5 base64 of another name", named(b"foo", base64(b"bar")), MISMATCH),
    ("M5 not the shortest base64", named(b"fo", b"=?base64?Zm9=?="), MISMATCH),
    ("M6 base64 of a line end", named(b"foo", base64(b"foo\r\n")), MISMATCH),
    ("M6 base64 of no UTF-8", named(b"foo", base64(b"\xff\xfe")), MISMATCH),
    ("M7 another revision in the body", modern(b"Mcp-Method: tools/call", b"Mcp-Name: echo",
     meta=META.replace(b"2026-07-28", b"2025-11-25")), MISMATCH),
    ("M7 modern body without header", modern().replace(MODERN + b"\r\n", b""), MISMATCH),
    ("M7 modern body under a legacy header", modern().replace(MODERN, MODERN[:-10] + b"2025-11-25"), MISMATCH),
    ("R5 a response on modern traffic", sized(MODERN, body=message(b'"jsonrpc":"2.0","id":7,"result":{}')), INVALID),
    ("R1 batch on modern traffic", sized(MODERN, body=b"[%b]" % CALL), INVALID),
]  # fmt: skip


def refused_messages() -> Iterator[Refused]:
    """All inputs of this file that must be refused; the connection goes on after each. Code 0 stands for either."""
    for name, body, code in BODIES:
        raw = (lambda body=body: sized(body=body())) if callable(body) else sized(body=body)
        yield Refused(name, raw, (400,), code, closes=False)
    for name, raw, code in HEADERS:
        yield Refused(name, raw, (400,), code, closes=False)


def _exact(name: str, body: bytes, *lines: bytes) -> Passed:
    return Passed(name, sized(*lines, body=body), (b"\r\n\r\n" + body, *lines))


def _id(value: bytes) -> bytes:
    return b'{"jsonrpc":"2.0", "id":%b ,"method":"tools/list"}' % value


PASSED = [
    *[_exact(f"J6 id {value.decode()}", _id(value)) for value in (b"9007199254740993", b"18446744073709551617", b"1.0", b"-0", b"1e2")],
    _exact("J7 64 levels", arguing(b"[" * 61 + b"]" * 61)),
    _exact("J8 one string of 3 MiB", arguing(b'"%b"' % (b"a" * (3 << 20)))),
    _exact("J8 1 MiB of blanks", CALL + b" " * (1 << 20)),
    _exact("J11 NUL in an argument", arguing(b'"a\\u0000b"')),
    _exact("J12 prototype keys", arguing(b'{"__proto__":{"x":1},"constructor":{"prototype":1}}')),
    _exact("equal keys among arguments", arguing(b'{"method":1,"method":2,"Method":3}')),
    _exact("blanks and escapes stay", b'\n\t {"jsonrpc" : "2.0","id":"\\u0041","method":"tools\\/list" }\r\n'),
    _exact("R1 a legacy batch", b"[%b,%b]" % (CALL, _id(b"8"))),
    _exact("R4 an unknown method", message(b'"jsonrpc":"2.0","id":7,"method":"vendor/do.it"')),
    _exact("R5 a response on legacy traffic", message(b'"jsonrpc":"2.0","id":7,"result":{}')),
    _exact("R6 an id used twice", _id(b"7")),
    _exact("R8 a call without id", b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"echo"}}'),
    Passed("M2b a name where none is known", modern(b"Mcp-Method: tools/list", b"Mcp-Name: x", method=b"tools/list", params=b'"a":1'),
           (b"Mcp-Name: x",)),
    Passed("M4 header name in any case", modern(b"mcp-METHOD: tools/call", b"MCP-NAME: echo"), (b"mcp-METHOD: tools/call",)),
    Passed("M5 base64", named(b"foo", base64(b"foo")), (base64(b"foo"),)),
    Passed("M5 base64 of UTF-8", named("gr\u00fc\u00dfe".encode(), base64("gr\u00fc\u00dfe".encode()))),
    Passed("M5 a capital marker is literal", named(b"=?BASE64?Zm9v?=", b"=?BASE64?Zm9v?="), (b"Mcp-Name: =?BASE64?Zm9v?=",)),
    Passed("M7 an unknown revision is the server's to refuse", sized(b"MCP-Protocol-Version: 2031-01-01"), (b"2031-01-01",)),
    _exact("M7 no header and a legacy body", CALL),
    _exact("M8 Mcp-* headers on legacy traffic", CALL, b"MCP-Protocol-Version: 2025-11-25", b"Mcp-Method: tools/list", b"Mcp-Name: no"),
    _exact("M9 unknown parameter headers", CALL, b"Mcp-Param-X: \xc3\xa9", b"Mcp-Param-X: 2"),
    Passed("M14 GET is the server's to refuse", get(b"/up/mcp", MODERN), (b"GET /mcp HTTP/1.1", MODERN)),
    Passed("M14 DELETE is the server's to refuse", head(HOST, MODERN, first=b"DELETE /up/mcp HTTP/1.1"), (b"DELETE /mcp",)),
    Passed("A type with a charset", sized(b"Content-Type: application/json ; charset=UTF-8").replace(JSON + b"\r\n", b"")),
]  # fmt: skip
