"""What of a call's content is kept for the record, where that is configured: arguments, and results as they pass.

Owns which part of a message that is, and its bounds. Arguments are read from the body that is held already; an answer
is overheard while it is relayed, never delayed and never changed. Of what is too large, encoded or no JSON only the
size is kept: `{"omitted": why, "bytes": n}`. Everything else goes through `audit/sanitise.py` first. Nothing raises.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

import orjson

from proxy.audit.sanitise import Limits, Sanitiser, digest
from proxy.identity.json_spans import Cursor
from proxy.mcp.envelope import Kind
from proxy.mcp.methods import METHODS

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Headers
    from proxy.mcp.envelope import Envelope

#: Larger bodies are not taken apart: 10 ms or so.
_LARGEST: Final = 256 << 10
#: Messages of a batch, and answers of one stream.
_MOST: Final = 20
#: Where the arguments are; of other methods that are known there are none, of those that are not, all parameters are.
_ARGUMENTS: Final = {"tools/call": "arguments", "prompts/get": "arguments", "completion/complete": "argument"}
_BOUNDARY: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_LINE: Final = re.compile(rb"\r\n|\n|\r")


class Arguments(NamedTuple):
    """What is kept of the arguments of one request."""

    value: Any
    """JSON without secrets; None when only the digest is kept."""
    digest: str
    """Keyed, of their bytes as they were sent; of a batch, and of a body above 256 KiB, of the whole body."""


@dataclass(frozen=True, slots=True)
class Captures:
    """What is kept, as configured."""

    arguments: Literal["none", "hashed", "sanitised"]
    results: Literal["none", "sanitised"]
    max_bytes: int
    key: bytes
    """Of the digests. There is none without it."""

    def __repr__(self) -> str:
        return f"Captures(arguments={self.arguments!r}, results={self.results!r}, max_bytes={self.max_bytes})"

    def of_request(self, body: bytes | None, envelope: Envelope | None) -> Arguments | None:
        """What is kept of a request; None when there is nothing. 10 to 30 µs for a small one, nothing when none is."""
        if self.arguments == "none" or body is None or envelope is None:
            return None
        if envelope.batch or len(body) > _LARGEST:
            return self._of_whole(body, envelope)
        message = envelope.first
        member = _ARGUMENTS.get(message.method, "" if message.method in METHODS else "params")
        if not member or message.kind is Kind.RESPONSE:
            return None
        try:
            found = _found(body.decode(), member)
        except ValueError:  # the envelope was read from it, so it is JSON; still, nothing here may fail
            return Arguments(omitted("not JSON", len(body)), self._digest(body))
        if found is None:
            return None
        sent = found[1].encode()
        return Arguments(self._kept(found[0], len(sent)), self._digest(sent))

    def of_answer(self, headers: Headers) -> Capture | None:
        """What overhears an answer with these fields; None when nothing is kept."""
        return Capture(self.max_bytes, *_described(headers)) if self.results == "sanitised" else None

    def _of_whole(self, body: bytes, envelope: Envelope) -> Arguments:
        if len(body) > min(self.max_bytes, _LARGEST):
            value = omitted("too large", len(body)) if self.arguments == "sanitised" else None
            return Arguments(value, self._digest(body))
        documents = orjson.loads(body)
        found = [
            document["params"].get(_ARGUMENTS.get(message.method, "arguments"))
            for message, document in zip(envelope.messages[:_MOST], documents, strict=False)
            if isinstance(document.get("params"), dict)
        ]
        return Arguments(self._kept(found, len(body)), self._digest(body))

    def _kept(self, value: Any, size: int) -> Any:
        if self.arguments != "sanitised":
            return None
        if size > self.max_bytes:
            return omitted("too large", size)
        return Sanitiser(Limits(text=self.max_bytes, total=self.max_bytes)).value(value)

    def _digest(self, sent: bytes) -> str:
        return digest(sent, self.key) if self.key else ""


class Capture:
    """One answer: `feed` it what passes, and ask for the `result` at the end."""

    __slots__ = ("_buffer", "_coded", "_cut", "_form", "_found", "_lost", "_most", "_room", "_searched", "size")

    def __init__(self, max_bytes: int, content_type: str, coding: str) -> None:
        #: Bytes that have passed.
        self.size = 0
        self._most = self._room = max_bytes
        self._coded = coding not in ("", "identity")
        self._form = content_type.partition(";")[0].strip()
        self._buffer = bytearray()
        self._searched = 0
        #: Events that hold answers, and how many there was no room for; the one under way is among these.
        self._found: list[bytes] = []
        self._lost = 0
        self._cut = False

    def feed(self, chunk: bytes) -> None:
        """The next bytes. 0.3 µs."""
        self.size += len(chunk)
        if self._coded:
            return
        if self._form == "text/event-stream":
            self._feed_events(chunk)
        elif self.size <= self._most:
            self._buffer += chunk
        elif self._buffer:
            self._buffer = bytearray()

    def result(self) -> Any:
        """What is kept: the result or the error of the answer, a list of them when there are several, without secrets;
        None for an answer without content."""
        if not self.size:
            return None
        if self._coded:
            return omitted("encoded", self.size)
        if self._form == "text/event-stream":
            return self._result_of_events()
        if self._form != "application/json":
            return omitted("no JSON", self.size)
        if self.size > self._most:
            return omitted("too large", self.size)
        return self._clean([_answer(bytes(self._buffer), self.size)])

    def _result_of_events(self) -> Any:
        found = [_answer(_content(event), len(event)) for event in self._found]
        if self._lost:
            found.append(omitted("too large", self.size))
        return self._clean(found) if found else None

    def _clean(self, found: list[Any]) -> Any:
        value = found[0] if len(found) == 1 else found
        return Sanitiser(Limits(text=self._most, total=self._most)).value(value)

    def _feed_events(self, chunk: bytes) -> None:
        """Only events that hold an answer are kept, so that progress does not use up the room."""
        buffer = self._buffer
        buffer += chunk
        while (end := _BOUNDARY.search(buffer, self._searched)) is not None:
            self._keep(bytes(buffer[: end.start()]))
            del buffer[: end.end()]
            self._searched = 0
        if len(buffer) > self._most:
            self._lost += not self._cut
            self._cut = True
            del buffer[:-3]
        self._searched = max(0, len(buffer) - 3)

    def _keep(self, event: bytes) -> None:
        if self._cut:
            self._cut = False
        elif b'"result"' in event or b'"error"' in event:
            if len(event) > self._room or len(self._found) >= _MOST:
                self._lost += 1
                return
            self._room -= len(event)
            self._found.append(event)


class Passing(Protocol):
    """An answer that is being relayed."""

    @property
    def ended(self) -> bool: ...
    def read_nowait(self) -> bytes: ...
    async def read(self) -> bytes: ...


class Overheard:
    """An answer whose capture gets what is read of it."""

    def __init__(self, answer: Passing, capture: Capture) -> None:
        self._answer = answer
        self._capture = capture

    @property
    def ended(self) -> bool:
        """The body is complete and all of it was read."""
        return self._answer.ended

    def read_nowait(self) -> bytes:
        """What has arrived of the body."""
        chunk = self._answer.read_nowait()
        self._capture.feed(chunk)
        return chunk

    async def read(self) -> bytes:
        """The next piece of the body, b'' at its end."""
        chunk = await self._answer.read()
        self._capture.feed(chunk)
        return chunk


def omitted(why: str, size: int) -> dict[str, Any]:
    """Stands in the place of what is not kept."""
    return {"omitted": why, "bytes": size}


def _answer(body: bytes, size: int) -> Any:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return omitted("not JSON", size)
    if isinstance(document, list):
        return [_outcome(item) for item in document[:_MOST]]
    return _outcome(document)


def _outcome(document: Any) -> Any:
    if isinstance(document, dict) and "error" in document:
        return {"error": document["error"]}
    return document.get("result") if isinstance(document, dict) else document


def _content(event: bytes) -> bytes:
    """The data of an event (WHATWG HTML, "Interpreting an event stream")."""
    lines = [line[5:].removeprefix(b" ") for line in _LINE.split(event) if line.startswith(b"data:")]
    return b"\n".join(lines)


def _found(text: str, member: str) -> tuple[Any, str] | None:
    """A member of `params`, or `params` itself: its value, and its text as it was sent."""
    cursor = Cursor(text)
    found: tuple[Any, str] | None = None
    for name in cursor.members():
        if name != "params":
            cursor.value()
        elif member == "params" or cursor.opens != "{":
            value = _value(cursor)
            found = value if member == "params" else None
        else:
            for inner in cursor.members():
                value = _value(cursor)
                found = value if inner == member else found
    return found


def _value(cursor: Cursor) -> tuple[Any, str]:
    start = cursor.at
    value = cursor.value()
    return value, cursor.text[start : cursor.at]


def _described(headers: Headers) -> tuple[str, str]:
    """Media type and coding, lower-case."""
    content_type, coding = "", ""
    for name, value in headers:
        lower = name.lower()
        if lower == "content-type":
            content_type = value.lower()
        elif lower == "content-encoding":
            coding = value.strip().lower()
    return content_type, coding
