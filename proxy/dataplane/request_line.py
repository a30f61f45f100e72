"""The request line and `Host`: where a request says it wants to go, in the one spelling that all parsers read alike.

Owns RFC 9112 section 3 and the authority of RFC 9110 section 7.2. It must not know which hosts or paths are served.
Both readers remember short inputs, because a client sends the same line with every request.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Final, NamedTuple

from proxy.errors import BadRequest, HttpVersionNotSupported, MethodNotAllowed

#: POST carries messages; GET opens streams, DELETE ends sessions; OPTIONS is a browser's preflight; HEAD is GET.
METHODS: Final = ("GET", "POST", "DELETE", "OPTIONS", "HEAD")
#: Would make a tunnel or an echo of us: refused as such, whatever else the line says.
_NEVER: Final = frozenset(("CONNECT", "TRACE"))
#: Longest line that is remembered, characters; with the number of lines it bounds the memory.
_REMEMBERED: Final = 512

_METHOD: Final = "[A-Z][A-Z-]{0,31}+"
_LINE: Final = re.compile(rf"({_METHOD}) ([!-~]++) HTTP/([0-9])\.([0-9])")
_WHOLE: Final = re.compile(rf"{_METHOD} [!-~]++ HTTP/[0-9]\.[0-9]\r\n".encode())
_PREFIX: Final = re.compile(rf"{_METHOD}(?: (?:[!-~]++(?: [HTP/0-9.]{{0,8}}\r?)?)?)?".encode())

_PATH: Final = r"/[A-Za-z0-9\-._~!$&'()*+,=:@/%]*+"
#: The query may hold what browsers leave unescaped there (WHATWG URL, query percent-encode set).
_ORIGIN_FORM: Final = re.compile(rf"({_PATH})(?:\?([A-Za-z0-9\-._~!$&'()*+,;=:@/?%|^`\[\]{{}}]*+))?")
_ABSOLUTE_FORM: Final = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://([^/?]++)(/.*+)")
_DOT_SEGMENT: Final = re.compile(r"/\.{1,2}(?:/|\Z)")
#: An escape that is none, or that hides a control byte or one of `% . / ; \` from whoever decodes at another time.
_PATH_ESCAPE_FAULT: Final = re.compile(r"%(?:[01][0-9A-Fa-f]|2[5EFef]|3[Bb]|5[Cc]|7[Ff]|(?![0-9A-Fa-f]{2}))")
_ESCAPE_FAULT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")

_LABEL: Final = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST: Final = re.compile(rf"({_LABEL}(?:\.{_LABEL})*|\[([0-9A-Fa-f:.]{{2,45}})\])(?::([1-9][0-9]{{0,4}}))?")


class RequestLine(NamedTuple):
    """A request line that passed."""

    method: str
    path: str
    """As sent, without dot segments, empty segments and encoded slashes or dots; `*` for the whole server."""
    query: str
    minor: int
    """0 for HTTP/1.0, 1 for HTTP/1.1."""
    authority: str
    """Authority of a target in absolute-form, lower-case: `Host` has to say the same. Else ''."""


def may_begin(partial: bytes | bytearray) -> bool:
    """Whether `partial`, which holds no line end yet, can still become a request line."""
    return not partial or _PREFIX.fullmatch(partial) is not None


def begins(partial: bytes | bytearray) -> bool:
    """Whether `partial` begins with a whole line that looks like a request line."""
    return _WHOLE.match(partial) is not None


def read_request_line(line: str) -> RequestLine:
    """Read a request line, given without its line end. Raises BadRequest, HttpVersionNotSupported, MethodNotAllowed."""
    return _remembered(line) if len(line) <= _REMEMBERED else _read(line)


def method_not_allowed() -> MethodNotAllowed:
    """405 with what is allowed (RFC 9110 section 15.5.6)."""
    return MethodNotAllowed(headers=(("Allow", ", ".join(METHODS)),))


def _read(line: str) -> RequestLine:
    match = _LINE.fullmatch(line)
    if match is None:
        raise BadRequest("not a request line")
    method, target, major, minor = match.groups()
    if method in _NEVER:
        raise method_not_allowed()
    if target == "*" and method == "OPTIONS":
        path, query, authority = "*", "", ""
    else:
        path, query, authority = _read_target(target)
    if major != "1" or minor > "1":
        raise HttpVersionNotSupported()
    if method not in METHODS:
        raise method_not_allowed()
    return RequestLine(method, path, query, int(minor), authority)


_remembered: Final = lru_cache(512)(_read)


def _read_target(target: str) -> tuple[str, str, str]:
    """Path, query and authority of a target in origin-form or absolute-form (RFC 9112 section 3.2)."""
    authority = ""
    if target[0] != "/":
        absolute = _ABSOLUTE_FORM.fullmatch(target)
        if absolute is None:
            raise BadRequest("the target is not a path")
        authority, target = absolute[1].lower(), absolute[2]
    parts = _ORIGIN_FORM.fullmatch(target)
    if parts is None:
        raise BadRequest("a byte in the target that does not belong there")
    path, query = parts.groups("")
    if "//" in path or _DOT_SEGMENT.search(path) is not None:
        raise BadRequest("an empty or dot segment in the path")
    if _PATH_ESCAPE_FAULT.search(path) is not None or _ESCAPE_FAULT.search(query) is not None:
        raise BadRequest("a bad escape in the target")
    return path, query, authority


@lru_cache(256)
def read_host(value: str) -> str:
    """The host of a `Host` value: lower-case, without its port, IPv6 in brackets. Raises BadRequest."""
    match = _HOST.fullmatch(value) if len(value) <= 260 else None
    if match is None:
        raise BadRequest("not a host")
    host, address, port = match.groups("")
    if len(host) > 253 or (port and int(port) > 65535) or (address and not _is_ipv6(address)):
        raise BadRequest("not a host")
    return str(host).lower()


def _is_ipv6(address: str) -> bool:
    try:
        IPv6Address(address)
    except AddressValueError:
        return False
    return True
