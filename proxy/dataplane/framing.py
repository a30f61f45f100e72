"""Takes the chunked framing off a request body, strictly and in bounds (RFC 9112 section 7.1).

Owns where a chunked body ends and what its pieces are. It must not know sockets, heads or what the pieces are for.
Chunk extensions are read and dropped, trailers are read and dropped: nothing in them ever reaches the fields of a
request. What the parsers of this world disagree on (blanks, bare line ends, signs) is refused.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.errors import BadRequest, BodyTooLarge, HeadersTooLarge

_TCHAR: Final = r"!#$%&'*+\-.^_`|~0-9A-Za-z"
_QUOTED: Final = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*+"'
_EXTENSION: Final = rf";[{_TCHAR}]++(?:=(?:[{_TCHAR}]++|{_QUOTED}))?+"
_SIZE_LINE: Final = re.compile(rf"([0-9A-Fa-f]{{1,16}}+)((?:{_EXTENSION})*+)\r\n".encode())
_TRAILER: Final = re.compile(rf"[{_TCHAR}]++:[^\x00-\x08\x0a-\x1f\x7f]*+\r\n".encode())
#: Such lines while they arrive: what fails these cannot become one.
_SIZE_BEGUN: Final = re.compile(rb"[0-9A-Fa-f]{1,16}+(?:;[^\r\n]*+)?\r?")
_TRAILER_BEGUN: Final = re.compile(rb"[^\r\n]*+\r?")

#: Longest chunk extensions, bytes. No use of them is known; parsers that do not bound them can be drowned in them.
_EXTENSION_BYTES: Final = 256
#: Longest line with a chunk size: 16 digits, the extensions, CR LF.
_SIZE_LINE_BYTES: Final = 16 + _EXTENSION_BYTES + 2
#: Longest trailer section, bytes.
_TRAILER_BYTES: Final = 8 << 10
#: A body may have this many chunks, and one more for each so many bytes of it: a chunk costs far more than a byte.
_FREE_CHUNKS: Final = 1024
_BYTES_PER_CHUNK: Final = 16

_SIZE: Final = 0
_CONTENT: Final = 1
_CONTENT_END: Final = 2
_TRAILERS: Final = 3
_DONE: Final = 4


class ChunkedReader:
    """Reads one chunked body, fed in any pieces; what it costs grows with the bytes fed, not with how they are cut."""

    __slots__ = ("_chunks", "_left", "_limit", "_line", "_received", "_state", "_trailer_bytes")

    def __init__(self, limit_bytes: int) -> None:
        """`limit_bytes` bounds the body without its framing."""
        self._limit = limit_bytes
        self._state = _SIZE
        #: Start of a line whose end has not arrived.
        self._line = b""
        #: Bytes of the current chunk still to come.
        self._left = 0
        self._chunks = 0
        self._received = 0
        self._trailer_bytes = 0

    @property
    def done(self) -> bool:
        """The body is complete, trailers included; `feed` must not be called again."""
        return self._state == _DONE

    def feed(self, received: bytes) -> tuple[list[bytes], int]:
        """Take the next bytes of the connection.

        Returns the pieces of the body in them, none of them empty, and how many bytes were used: all, or fewer when
        the body ended (then `done`), so that the rest belongs to the next request. Raises BadRequest, BodyTooLarge or
        HeadersTooLarge; the connection must then be closed.
        """
        carried = len(self._line)
        fed = self._line + received if carried else received
        self._line = b""
        pieces: list[bytes] = []
        position = 0
        while position < len(fed) and self._state != _DONE:
            if self._state == _CONTENT:
                piece = fed[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _CONTENT_END
                continue
            after = self._read_line(fed, position)
            if after == position:
                self._line = fed[position:]
                return pieces, len(received)
            position = after
        return pieces, position - carried

    def _read_line(self, fed: bytes, position: int) -> int:
        """Read what stands on a line of its own; its end, or `position` when that has not arrived yet."""
        if self._state == _SIZE:
            return self._read_size(fed, position)
        if self._state == _TRAILERS:
            return self._read_trailer(fed, position)
        if fed.startswith(b"\r\n", position):
            self._state = _SIZE
            return position + 2
        if len(fed) == position + 1 and fed[position] == 0x0D:
            return position
        raise BadRequest("a chunk does not end where its size says")

    def _read_size(self, fed: bytes, position: int) -> int:
        match = _SIZE_LINE.match(fed, position)
        if match is None:
            return self._await_line(_SIZE_BEGUN, fed, position, _SIZE_LINE_BYTES)
        size = int(match[1], 16)
        if len(match[2]) > _EXTENSION_BYTES:
            raise BadRequest("chunk extensions are too long")
        self._state, self._left = (_CONTENT, size) if size else (_TRAILERS, 0)
        self._chunks += 1
        self._received += size
        if self._received > self._limit:
            raise BodyTooLarge("chunked")
        if self._chunks > _FREE_CHUNKS + self._received // _BYTES_PER_CHUNK:
            raise BadRequest("too many small chunks")
        return match.end()

    def _read_trailer(self, fed: bytes, position: int) -> int:
        if fed.startswith(b"\r\n", position):
            self._state = _DONE
            return position + 2
        match = _TRAILER.match(fed, position)
        line_bytes = (match.end() if match is not None else len(fed)) - position
        if self._trailer_bytes + line_bytes > _TRAILER_BYTES:
            raise HeadersTooLarge("trailers")
        if match is None:
            return self._await_line(_TRAILER_BEGUN, fed, position, _TRAILER_BYTES)
        self._trailer_bytes += line_bytes
        return match.end()

    @staticmethod
    def _await_line(begun: re.Pattern[bytes], fed: bytes, position: int, longest: int) -> int:
        """`position` when the line that begins there may still become valid; raises BadRequest when it cannot."""
        if len(fed) - position >= longest or begun.fullmatch(fed, position) is None:
            raise BadRequest("not a chunk size or a trailer")
        return position
