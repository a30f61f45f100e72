"""Reads what an upstream answers to a WebSocket handshake, strictly and in bounds.

Owns the grammar of that one response: head (RFC 9112 section 4), switch (RFC 6455 section 4.1), and the short body of
an answer that does not switch. It must not know how the connection came about or what follows on it. Every fault is
`UpstreamFailed`; a connection that breaks off raises what `asyncio.StreamReader` raises.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

from proxy.dataplane.framing import ChunkedReader
from proxy.errors import UpstreamFailed

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Headers

#: Longest head: the limit to give to the `StreamReader`.
HEAD_BYTES: Final = 64 << 10
_BODY_BYTES: Final = 64 << 10
_MOST_FIELDS: Final = 256
_MOST_INTERIM: Final = 8

_BODILESS: Final = frozenset((204, 304))
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*+)?\r\n")
_FIELD: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[ \t]*+([^\x00-\x08\x0a-\x1f\x7f]*+)\r\n")
_LENGTH: Final = re.compile(r"0|[1-9][0-9]{0,9}")


async def read_head(reader: asyncio.StreamReader) -> tuple[int, Headers]:
    """Status and fields of the first head that is not interim (RFC 9110 section 15.2); values as `Headers` has them."""
    for _ in range(_MOST_INTERIM):
        status, fields = _parse_head(await reader.readuntil(b"\r\n\r\n"))
        if status == 101:
            _check_switch(fields)
        if status == 101 or status >= 200:
            return status, fields
    raise UpstreamFailed("too many interim answers")


def _parse_head(head: bytes) -> tuple[int, Headers]:
    """Status and fields of a response head that ends with a blank line; UpstreamFailed for any line that is neither."""
    line = _STATUS_LINE.match(head)
    if line is None:
        raise UpstreamFailed("not a status line")
    fields: Headers = []
    position, end = line.end(), len(head) - 2
    while position < end:
        field = _FIELD.match(head, position)
        if field is None or len(fields) == _MOST_FIELDS:
            raise UpstreamFailed("a bad field line in the answer, or too many")
        name, value = field.groups()
        fields.append((name.decode("ascii"), value.rstrip(b" \t").decode(errors="surrogateescape")))
        position = field.end()
    return int(line[1]), fields


def _check_switch(fields: Headers) -> None:
    """The answer must switch to WebSocket and nothing else (RFC 6455 section 4.1)."""
    if [value.lower() for name, value in fields if name.lower() == "upgrade"] != ["websocket"]:
        raise UpstreamFailed("switched to something else")


async def read_body(reader: asyncio.StreamReader, status: int, fields: Headers) -> bytes:
    """The whole body of an answer that did not switch (RFC 9112 section 6.3)."""
    values = {name.lower(): value for name, value in fields}
    if status in _BODILESS:
        return b""
    coding, length = values.get("transfer-encoding"), values.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked" or length is not None:
            raise UpstreamFailed("a body of uncertain length")
        return await _read_chunked(reader)
    if length is None:
        return await _read_to_end(reader)
    if sum(name.lower() == "content-length" for name, _ in fields) > 1 or _LENGTH.fullmatch(length) is None:
        raise UpstreamFailed("a body of uncertain length")
    if int(length) > _BODY_BYTES:
        raise UpstreamFailed("too long a body")
    return await reader.readexactly(int(length))


async def _read_chunked(reader: asyncio.StreamReader) -> bytes:
    framing = ChunkedReader(_BODY_BYTES)
    pieces: list[bytes] = []
    while not framing.done:
        received = await reader.read(_BODY_BYTES)
        if not received:
            raise UpstreamFailed("broke off")
        pieces += framing.feed(received)[0]
    return b"".join(pieces)


async def _read_to_end(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while received := await reader.read(_BODY_BYTES):
        body += received
        if len(body) > _BODY_BYTES:
            raise UpstreamFailed("too long a body")
    return body
