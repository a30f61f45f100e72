"""Reading the lists that were overheard: an answer, whatever its form, becomes pages of lists.

Owns the forms: one message or a batch, JSON or events, with the codings that the standard library reads. Pure. Answers
are matched with requests by their ids, as clients do it; what belongs to no request for a list is passed over.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

if TYPE_CHECKING:
    from proxy.identity.access import Server

EVENT_STREAM: Final = "text/event-stream"
#: Values of Content-Encoding that can be read, lower-case.
CODINGS: Final = frozenset(("", "identity", "gzip", "x-gzip", "deflate"))
#: Bytes of a list that came compressed.
MAX_PLAIN_BYTES: Final = 4 << 20

#: Method -> what its items are, and the member of the result in which they are.
_LISTS: Final = MappingProxyType(
    {
        "tools/list": ("tool", "tools"),
        "prompts/list": ("prompt", "prompts"),
        "resources/list": ("resource", "resources"),
        "resources/templates/list": ("template", "resourceTemplates"),
    }
)


class Lesson(NamedTuple):
    """An answer to a request for a list, as the server sent it."""

    server: str
    place: Server
    request: bytes
    content_type: str
    coding: str
    pieces: list[bytes]


class Page(NamedTuple):
    """A list, or a part of one."""

    kind: str
    """tool, prompt, resource or template."""
    items: list[Any]
    """As the server sent them."""
    cursor: str | None
    """Where it begins; None: at the beginning."""
    next_cursor: str | None
    """Where it goes on; None: it does not."""


def pages_of(lesson: Lesson) -> list[Page]:
    """The pages in an answer that belong to what was asked. Raises ValueError for an answer that cannot be read."""
    asked = _asked(orjson.loads(lesson.request))
    body = _plain(b"".join(lesson.pieces), lesson.coding)
    answers = _events(body) if lesson.content_type.startswith(EVENT_STREAM) else _flat(orjson.loads(body))
    pages = (_page(answer, asked) for answer in answers)
    return [page for page in pages if page is not None]


_Asked = Mapping[tuple[bool, object], tuple[str, str | None]]
"""(the id is text, id) -> method, and the cursor, of each request for a list."""


def _asked(request: Any) -> _Asked:
    asked: dict[tuple[bool, object], tuple[str, str | None]] = {}
    for message in _flat(request):
        method, identity = message.get("method"), message.get("id")
        if method in _LISTS and isinstance(identity, str | int):
            params = message.get("params")
            cursor = params.get("cursor") if isinstance(params, dict) else None
            asked[isinstance(identity, str), identity] = (method, cursor if cursor is None else str(cursor))
    return asked


def _page(answer: Any, asked: _Asked) -> Page | None:
    if not isinstance(answer, dict) or not isinstance(answer.get("id"), str | int):
        return None
    method, cursor = asked.get((isinstance(answer["id"], str), answer["id"]), ("", None))
    result = answer.get("result")
    if not method or not isinstance(result, dict):
        return None
    kind, member = _LISTS[method]
    items, next_cursor = result.get(member), result.get("nextCursor")
    if not isinstance(items, list):
        return None
    return Page(kind, items, cursor, next_cursor if next_cursor is None else str(next_cursor))


def _plain(body: bytes, coding: str) -> bytes:
    """The body without its coding. Raises ValueError when it is broken, or much larger than it looked."""
    if coding in ("", "identity"):
        return body
    # 47: zlib or gzip, whichever it is; some send `deflate` without the header of zlib
    decoder = zlib.decompressobj(47 if coding != "deflate" or body[:1] == b"\x78" else -15)
    try:
        plain = decoder.decompress(body, MAX_PLAIN_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if decoder.unconsumed_tail or not decoder.eof:
        raise ValueError("a compressed list that is broken or too large")
    return plain


def _flat(document: Any) -> list[Any]:
    """The messages of a batch, or the one message."""
    return document if isinstance(document, list) else [document]


def _events(body: bytes) -> Iterable[Any]:
    """The messages in an event stream (WHATWG HTML, "Interpreting an event stream"); others than JSON are none."""
    text = body.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for event in text.split(b"\n\n"):
        fields = [line.partition(b":") for line in event.split(b"\n")]
        message = b"\n".join(value.removeprefix(b" ") for name, _, value in fields if name == b"data")
        if message and all(value.strip() in (b"", b"message") for name, _, value in fields if name == b"event"):
            with suppress(ValueError):
                yield from _flat(orjson.loads(message))
