"""Server-sent events as bytes: where one ends, and the first event of the 2024-11-05 transport.

Owns the line rules of the format (WHATWG HTML, "Interpreting an event stream"): CRLF, LF and CR end a line, an empty
line ends an event. Streams are followed, never rebuilt: whoever relays sends the bytes on as they came. Each reader may
be fed chunks cut anywhere. It knows no message, no session and no socket.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from proxy.errors import UpstreamFailed

#: Bytes in which the `endpoint` event of a 2024-11-05 stream must be complete.
MAX_FIRST_EVENT: Final = 64 << 10

#: Bytes of an event from which one tells what it is: its type, its id and the first members of its message.
_OPENING: Final = 1024
#: A message that has a result or an error before it has anything but its version and its id.
_RESPONSE: Final = re.compile(
    rb'(?:\A|[\r\n])data:\s*+\{\s*+(?:"(?:jsonrpc|id)"\s*+:\s*+(?:"[^"\\\\]*+"|[-+.\w]++)\s*+,\s*+)*+"(?:result|error)"\s*+:'
)

_BOM: Final = b"\xef\xbb\xbf"
#: An empty line: a line end (or the start of the stream) and another line end.
_EMPTY_LINE: Final = re.compile(rb"(?:\A|\n|\r(?!\n))(?:\r\n|\n|\r)")
#: A line with content, and its end.
_LINE: Final = re.compile(rb"([^\r\n]+)(?:\r\n|\n|\r)")


class BoundaryTracker:
    """Tells whether a stream stands between two events, where it can be ended or joined without tearing one."""

    __slots__ = ("_after_cr", "_ended", "at_boundary", "event_bytes")

    def __init__(self) -> None:
        self.at_boundary = True
        """Nothing has come yet, or the last line that came was empty."""
        self.event_bytes = 0
        """Bytes of the event that is not complete yet; a CR or LF of the line end before it may be among them."""
        self._ended = True
        """The last byte ended a line."""
        self._after_cr = False
        """That byte was a CR: an LF right behind it belongs to the same line end."""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes into account. The last three are enough: three bytes of line ends hold an empty line."""
        if chunk.endswith((b"\n\n", b"\r\n\r\n")):
            self.at_boundary, self._ended, self._after_cr = True, True, False
            self.event_bytes = 0
            return
        self._count(chunk)
        for byte in chunk[-3:]:
            if byte == 0x0A and self._after_cr:
                self._after_cr = False
            elif byte in b"\r\n":
                self.at_boundary, self._ended, self._after_cr = self._ended, True, byte == 0x0D
            else:
                self.at_boundary = self._ended = self._after_cr = False
        if self.at_boundary:
            self.event_bytes = 0

    def _count(self, chunk: bytes) -> None:
        """Two line ends in a row, of which one may have come before, begin the count anew; CR LF is one line end."""
        at = -1
        if b"\n" in chunk:
            at = chunk.rfind(b"\n\n")
        if b"\r" in chunk:
            at = max(at, chunk.rfind(b"\n\r"), chunk.rfind(b"\r\r"))
        if at >= 0:
            self.event_bytes = len(chunk) - at - 2
        elif self._ended and chunk.startswith(b"\r" if self._after_cr else (b"\r", b"\n")):
            self.event_bytes = len(chunk) - 1
        else:
            self.event_bytes += len(chunk)


class LastEvent:
    """Remembers how the last event of a stream began, so that one can tell afterwards whether it was a response.

    0.3 µs for each chunk, however long it is; the last chunk is kept.
    """

    __slots__ = ("_between", "_last", "_opening")

    def __init__(self) -> None:
        self._opening = self._last = b""
        self._between = True

    def feed(self, chunk: bytes, tracker: BoundaryTracker) -> None:
        """Take the next bytes, which `tracker` has taken."""
        if not chunk:
            return
        begins = 0 if tracker.at_boundary else len(chunk) - tracker.event_bytes
        if self._between or begins > 0:
            self._opening = chunk[begins : begins + _OPENING]
        elif len(self._opening) < _OPENING:
            self._opening += chunk[:_OPENING]
        self._last, self._between = chunk, tracker.at_boundary

    @property
    def is_response(self) -> bool:
        """Whether it is complete, and a response (JSON-RPC 2.0, section 5) as far as its beginning says."""
        if not self._between:
            return False
        end = len(self._last) - 1  # the empty line at the end begins no event
        empty = max(self._last.rfind(b"\n\n", 0, end), self._last.rfind(b"\n\r\n", 0, end))
        opening = self._opening if empty < 0 else self._last[empty + 1 : empty + _OPENING]
        return _RESPONSE.search(opening) is not None


class FirstEvent:
    """Holds a 2024-11-05 stream back until its first event is there, which must be `event: endpoint`.

    Feed it until `feed` says so, then send `rewritten(...)` and everything after it as it comes. Comments, `retry`
    and other fields before or inside the event stay as they are.
    """

    __slots__ = ("_end", "_held", "_searched", "_start", "endpoint")

    def __init__(self) -> None:
        self.endpoint = ""
        """The URI in the event, once `feed` has returned True."""
        self._held = bytearray()
        self._start = 0
        self._end = 0
        self._searched = 0

    def feed(self, chunk: bytes) -> bool:
        """Whether the event is complete. Raises UpstreamFailed when the stream begins with anything else.

        Call it no more once it has returned True.
        """
        self._held += chunk
        while (empty := _EMPTY_LINE.search(self._held, self._searched)) is not None:
            self._end = self._searched = empty.end()
            if self._end > MAX_FIRST_EVENT:
                break
            if self._read_block():
                return True
            self._start = self._end
        if len(self._held) > MAX_FIRST_EVENT:
            raise UpstreamFailed("no endpoint event at the start of the stream")
        # Of an empty line that is still to come, only the line end before it can be here: the last byte.
        self._searched = max(self._start, len(self._held) - 1)
        return False

    def rewritten(self, endpoint: str) -> bytes:
        """Every byte so far, with `endpoint` (without line ends) in place of the data of the event."""
        data = b"data: " + endpoint.encode()
        sent, position = bytearray(), 0
        for name, _, start, match in self._fields():
            if name == b"data":
                sent += self._held[position:start] + data
                # of several data lines the first stays; the others go with their line ends
                position = match.end(1) if data else match.end()
                data = b""
        return bytes(sent + self._held[position:])

    def _read_block(self) -> bool:
        """Read the fields between two empty lines; without data they make no event."""
        event, lines = b"", []
        for name, value, _, _ in self._fields():
            if name == b"event":
                event = value
            elif name == b"data":
                lines.append(value)
        if not lines:
            return False
        if event != b"endpoint":
            raise UpstreamFailed("the stream does not begin with an endpoint event")
        try:
            self.endpoint = b"\n".join(lines).decode()
        except UnicodeDecodeError:
            raise UpstreamFailed("the endpoint event is not UTF-8") from None
        return True

    def _fields(self) -> Iterator[tuple[bytes, bytes, int, re.Match[bytes]]]:
        """Name, value and start of each line of the block, and its match."""
        for match in _LINE.finditer(self._held, self._start, self._end):
            line, start = bytes(match[1]), match.start()
            if start == 0 and line.startswith(_BOM):
                start = len(_BOM)
            name, _, value = line[start - match.start() :].partition(b":")
            yield name, value.removeprefix(b" "), start, match
