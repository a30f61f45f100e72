"""Reads a request head with one strict grammar: what all HTTP/1 parsers read alike, and nothing else.

Owns RFC 9112 sections 2 and 5, the choice of how the body is framed (section 6), and which refusal a fault gets. It
must not know sockets, routes or policies: bytes and limits in, a `Head` or a `Refusal` out. A head that two parsers
could read differently is a chance to smuggle a request past one of them, so it is refused, never repaired.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from proxy.dataplane.exchange import Head, Headers
from proxy.dataplane.request_line import RequestLine, begins, may_begin, read_host, read_request_line
from proxy.errors import (
    BadRequest,
    BodyTooLarge,
    ExpectationFailed,
    HeadersTooLarge,
    NotImplementedCoding,
    Refusal,
    UriTooLong,
)

if TYPE_CHECKING:
    from proxy.config.models import Limits

_TCHAR: Final = r"!#$%&'*+\-.^_`|~0-9A-Za-z"
_TOKEN: Final = re.compile(rf"[{_TCHAR}]++")
#: One field line, or (with both groups empty) any other line: the matches cover the whole block, so a line that is not
#: a field cannot hide between two that are. Nothing in them can backtrack. The first knows only printable ASCII without
#: blanks at the end, which is nearly every value, and takes two thirds of the time of the second, the whole grammar.
_PLAIN_FIELD: Final = re.compile(rf"([{_TCHAR}]++):[ \t]*+([ -~]*+)(?<! )\r\n|[^\n]*+\n")
_FIELD: Final = re.compile(rf"([{_TCHAR}]++):[ \t]*+([^\x00-\x08\x0a-\x1f\x7f]*+)\r\n|[^\n]*+\n")
#: No CR without LF and no LF without CR; the LF of a CR at the end may still arrive.
_STRICT_LINES: Final = re.compile(rb"[^\r\n]*+(?:\r\n[^\r\n]*+)*+\r?")
#: 16 bytes in base64 (RFC 6455 section 4.1): 128 bits leave the last digit two of its six.
_WEBSOCKET_KEY: Final = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")
#: Digits of a Content-Length: fewer than any 64-bit parser overflows at.
_LENGTH_DIGITS: Final = 18
#: Longest list of tokens that is looked at, characters; real ones have a few words.
_TOKEN_LIST: Final = 1024

#: Fields of which a second copy would leave open which one counts (RFC 9110 section 5.3).
_SINGLE: Final = frozenset((
    "authorization", "content-encoding", "content-length", "content-type", "expect", "host", "last-event-id",
    "mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id", "origin", "proxy-authorization",
    "sec-websocket-key", "sec-websocket-version", "transfer-encoding", "x-api-key",
))  # fmt: skip
#: Fields that no spelling with underscores may pass for: many a gateway interface takes `_` for `-`.
_KNOWN: Final = _SINGLE | {
    "accept", "accept-encoding", "connection", "cookie", "forwarded", "te", "trailer", "upgrade", "via", "x-real-ip",
}  # fmt: skip
_KNOWN_PREFIXES: Final = ("mcp-", "sec-websocket-", "x-forwarded-")
#: Those of them that concern one hop only, so that `Connection` names them rightly (RFC 9110 section 7.6.1).
_HOP_BY_HOP: Final = frozenset(("connection", "te", "trailer", "upgrade"))
_WITHOUT_BODY: Final = frozenset(("GET", "HEAD", "DELETE", "OPTIONS"))
_NO_OPTIONS: Final[frozenset[str]] = frozenset()


class _Names(dict[str, str]):
    """Field name as sent to its lower-case form; looks at each name once and remembers it, in bounds."""

    _MOST: Final = 1024
    _LONGEST: Final = 64

    def __missing__(self, name: str) -> str:
        lower = name.lower()
        if "_" in lower and _is_known(lower.replace("_", "-")):
            raise BadRequest("a field name with underscores passes for a known field")
        if len(name) <= self._LONGEST:
            if len(self) >= self._MOST:
                self.clear()
            self[name] = lower
        return lower


_names: Final = _Names()


def _is_known(name: str) -> bool:
    return name in _KNOWN or name.startswith(_KNOWN_PREFIXES)


def early_refusal(partial: bytes | bytearray, limits: Limits, seen: int = 0) -> Refusal | None:
    """The refusal that an incomplete head deserves already, so that garbage is not waited for; else None.

    `seen` is how many bytes an earlier call found in order; only what came since is searched for bare line ends. No
    blank line is skipped before the request line (RFC 9112 section 2.2 allows one; parsers differ, nobody sends it).
    """
    end = partial.find(b"\r\n", 0, limits.header_line + 2)
    if end < 0:
        if len(partial) > limits.header_line + 1:
            return UriTooLong()
        return None if may_begin(partial) else BadRequest("not a request line")
    if not begins(partial):
        return BadRequest("not a request line")
    if _STRICT_LINES.fullmatch(partial, seen - (partial[seen - 1 : seen] == b"\r")) is None:
        return BadRequest("a bare CR or LF")
    if len(partial) > limits.headers or len(partial) - partial.rfind(b"\r\n") > limits.header_line + 3:
        return HeadersTooLarge()
    return None


def parse_head(raw: bytes | bytearray, limits: Limits) -> Head:
    """Read one request head: `raw` begins with the request line and ends with the blank line, CR LF CR LF.

    Raises BadRequest, UriTooLong, HeadersTooLarge, BodyTooLarge, ExpectationFailed, NotImplementedCoding,
    HttpVersionNotSupported or MethodNotAllowed. After any of them the connection must be closed, whatever the class
    says: what follows cannot be told from a body.
    """
    if len(raw) > limits.header_line:
        _check_sizes(raw, limits)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise BadRequest("the head is not UTF-8") from None
    end = text.find("\r\n")
    line = read_request_line(text[:end])
    headers: Headers = _PLAIN_FIELD.findall(text, end + 2, len(text) - 2)
    fields = {_names[name]: value for name, value in headers}
    if "" in fields:
        headers = _read_fields(text, end + 2)
        fields = {_names[name]: value for name, value in headers}
    if len(headers) > limits.header_count:
        raise HeadersTooLarge()
    if len(fields) != len(headers):
        fields = _joined(headers)
    return _head(line, headers, fields, limits.body)


def _check_sizes(raw: bytes | bytearray, limits: Limits) -> None:
    """Find out which limit, if any, is broken by a head that is longer than one line may be."""
    if raw.find(b"\r\n", 0, limits.header_line + 2) < 0:
        raise UriTooLong()
    lines = raw.split(b"\r\n", limits.header_count + 3)
    if len(raw) > limits.headers or len(lines) > limits.header_count + 3:
        raise HeadersTooLarge()
    if max(map(len, lines)) > limits.header_line:
        raise HeadersTooLarge()


def _read_fields(text: str, start: int) -> Headers:
    """Every field, values without the blanks around them, which are not part of them (RFC 9110 section 5.5)."""
    headers = [(name, value.rstrip(" \t")) for name, value in _FIELD.findall(text, start, len(text) - 2)]
    if any(not name for name, _ in headers):
        raise BadRequest("a field line breaks the grammar")
    return headers


def _joined(headers: Headers) -> dict[str, str]:
    """Lower-case name to value, with repeats joined where a field may repeat (RFC 9110 section 5.3)."""
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(_names[name], []).append(value)
    if any(len(repeats) > 1 and name in _SINGLE for name, repeats in values.items()):
        raise BadRequest("a field that must not repeat came twice")
    return {name: ", ".join(repeats) for name, repeats in values.items()}


def _head(line: RequestLine, headers: Headers, fields: dict[str, str], body_limit: int) -> Head:
    """What the request line and the fields say together."""
    method, path, query, minor, authority = line
    host = read_host(fields["host"]) if "host" in fields else ""
    if not host and minor:
        raise BadRequest("HTTP/1.1 without Host")
    if authority and authority != fields.get("host", "").lower():
        raise BadRequest("the target names another host than Host")
    length = _read_length(fields["content-length"], body_limit) if "content-length" in fields else None
    chunked = "transfer-encoding" in fields and _read_coding(fields, minor)
    has_body = chunked or bool(length)
    if has_body and method in _WITHOUT_BODY:
        raise BadRequest("a body where the method has none")
    options = _read_connection(fields["connection"]) if "connection" in fields else _NO_OPTIONS
    keep_alive = "close" not in options and (minor == 1 or "keep-alive" in options)
    upgrade = _read_upgrade(line, options, fields) if "upgrade" in fields else ""
    expects = "expect" in fields and _read_expect(fields["expect"]) and has_body and minor == 1
    return Head(method, path, query, minor, headers, fields, host, length, chunked, keep_alive, upgrade, expects)


def _read_length(value: str, limit_bytes: int) -> int:
    """Bytes of a `Content-Length`, which has one spelling for each number (RFC 9110 section 8.6)."""
    if not (value.isascii() and value.isdigit() and len(value) <= _LENGTH_DIGITS) or (value[0] == "0" and value != "0"):
        raise BadRequest("not a length")
    length = int(value)
    if length > limit_bytes:
        raise BodyTooLarge()
    return length


def _read_coding(fields: dict[str, str], minor: int) -> bool:
    """True for a chunked body; every other `Transfer-Encoding` is a refusal (RFC 9112 sections 6.1 and 6.3)."""
    if minor == 0 or "content-length" in fields:
        raise BadRequest("the length of the body is stated twice, or chunked in HTTP/1.0")
    codings = _tokens(fields["transfer-encoding"])
    if codings == ["chunked"]:
        return True
    if codings.count("chunked") == 1 and codings[-1] == "chunked":
        raise NotImplementedCoding()
    raise BadRequest("the body does not end where chunked says")


@lru_cache(64)
def _read_connection(value: str) -> frozenset[str]:
    """Options of `Connection`; one that would strip a field that matters is a refusal (RFC 9110 section 7.6.1)."""
    options = frozenset(_tokens(value))
    for option in options:
        if option not in _HOP_BY_HOP and _is_known(option.replace("_", "-")):
            raise BadRequest("Connection names a field that concerns more than one hop")
    return options


def _tokens(value: str) -> list[str]:
    """Elements of a list of tokens, lower-case. ASCII only: the Kelvin sign is a `k` to `str.lower`."""
    if len(value) > _TOKEN_LIST or not value.isascii():
        raise BadRequest("not a list of tokens")
    elements = [element.strip(" \t") for element in value.lower().split(",")]
    tokens = [element for element in elements if element]
    if not all(_TOKEN.fullmatch(token) for token in tokens):
        raise BadRequest("not a list of tokens")
    return tokens


def _read_upgrade(line: RequestLine, options: frozenset[str], fields: dict[str, str]) -> str:
    """`websocket` for a whole opening handshake (RFC 6455 section 4.1), '' for any other wish, which is ignored."""
    if line.method != "GET" or line.minor == 0 or "upgrade" not in options:
        return ""
    protocol, key = fields["upgrade"], fields.get("sec-websocket-key", "")
    if not protocol.isascii() or protocol.lower() != "websocket":
        return ""
    return "websocket" if fields.get("sec-websocket-version") == "13" and _WEBSOCKET_KEY.fullmatch(key) else ""


def _read_expect(value: str) -> bool:
    """True for the one expectation there is (RFC 9110 section 10.1.1)."""
    if not value.isascii() or value.lower() != "100-continue":
        raise ExpectationFailed()
    return True
