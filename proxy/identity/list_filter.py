"""The lists of a server without what a principal may not use: tools, prompts, resources and resource templates.

Owns the one place where the result of a request is rewritten, as JSON or as an event of a stream. Removed items are cut
out and `cacheScope` becomes `private`, since the list is no longer the same for everyone (MCP 2026-07-28, "Caching");
every other byte stays. Who may use what is the caller's answer. An item without a readable name is removed.

This hides; it does not protect: `access.py` refuses the call whatever the list said.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from proxy.errors import UpstreamFailed
from proxy.identity.json_spans import Cursor, Edit, edited

Keep = Callable[[str, str], bool]
"""(kind, name) -> whether the item stays. Kinds: tool, prompt, resource (its URI), template (its URI template)."""


class _List(NamedTuple):
    kind: str
    """What the predicate is asked about."""
    name: str
    """Member of an item that names it."""


#: Methods whose results are filtered.
METHODS: Final = frozenset(("tools/list", "prompts/list", "resources/list", "resources/templates/list"))
_LISTS: Final = MappingProxyType(
    {
        "tools": _List("tool", "name"),
        "prompts": _List("prompt", "name"),
        "resources": _List("resource", "uri"),
        "resourceTemplates": _List("template", "uriTemplate"),
    }
)
#: Members that only results of modern revisions have; legacy results need no `cacheScope`.
_MODERN: Final = frozenset(("resultType", "ttlMs"))
_PRIVATE: Final = '"private"'
#: Bytes of one answer or event that is rewritten.
MAX_BYTES: Final = 4 << 20

_BOM: Final = b"\xef\xbb\xbf"
#: A line end, and the empty line behind it.
_EVENT_END: Final = re.compile(rb"(?:\A|\n|\r(?!\n))(?:\r\n|\n|\r)")
_LINE: Final = re.compile(rb"([^\r\n]*)(\r\n|\n|\r|\Z)")


def filter_json(body: bytes, keep: Keep, limit: int = MAX_BYTES) -> bytes:
    """An `application/json` answer, one message or a batch, with its lists filtered; unchanged when nothing is removed.

    Raises UpstreamFailed when the body is too large or no JSON: an unfiltered list never passes.
    """
    if len(body) > limit:
        raise UpstreamFailed("a list too large to be filtered")
    try:
        text = body.decode()
        return edited(text, _edits(text, keep)).encode()
    except ValueError:
        raise UpstreamFailed("a list that is not JSON") from None


class EventFilter:
    """The same for a `text/event-stream` answer, whatever its pieces. Each event leaves when it is complete."""

    __slots__ = ("_fresh", "_held", "_keep", "_limit", "_searched")

    def __init__(self, keep: Keep, limit: int = MAX_BYTES) -> None:
        self._keep = keep
        self._limit = limit
        self._held = bytearray()
        self._searched = 0
        self._fresh = True
        """Nothing has left yet: a byte order mark may stand in front of the first line."""

    def feed(self, chunk: bytes) -> bytes:
        """The next bytes in, complete events out. Raises UpstreamFailed for an event that cannot be filtered."""
        self._held += chunk
        passed, start = [], 0
        while (end := _EVENT_END.search(self._held, max(start, self._searched))) is not None:
            passed.append(self._filtered(bytes(self._held[start : end.end()])))
            start = self._searched = end.end()
        del self._held[:start]
        # of an empty line still to come, only the line end before it can be here: the last byte
        self._searched = max(0, len(self._held) - 1)
        if len(self._held) > self._limit:
            raise UpstreamFailed("an event too large to be filtered")
        return b"".join(passed)

    def finish(self) -> bytes:
        """What is left when the stream ends: an event without its empty line is none, but some clients take it."""
        rest = self._filtered(bytes(self._held))
        self._held.clear()
        return rest

    def _filtered(self, event: bytes) -> bytes:
        mark = _BOM if self._fresh and event.startswith(_BOM) else b""
        self._fresh = self._fresh and not event
        return mark + filter_event(event[len(mark) :], self._keep, self._limit)


def filter_event(event: bytes, keep: Keep, limit: int = MAX_BYTES) -> bytes:
    """One event, with its empty line or without, with the lists in its message filtered. Raises UpstreamFailed.

    Comments, ids and other fields stay. Events of other types than `message` and events without text hold no message.
    """
    lines = [(match[1], match[2]) for match in _LINE.finditer(event) if match[0]]
    fields = [_field(line) for line, _ in lines]
    message = b"\n".join(value for name, value in fields if name == b"data")
    types = [value for name, value in fields if name == b"event"]
    if not message.strip() or (types and types[-1] not in (b"", b"message")):
        return event
    changed = filter_json(message, keep, limit)
    if changed == message:
        return event
    pieces = []
    replaced = False
    for (line, line_end), (name, _) in zip(lines, fields, strict=True):
        if name != b"data":
            pieces.append(line + line_end)
        elif not replaced:
            replaced = True
            pieces += [b"data: " + part + (line_end or b"\n") for part in changed.split(b"\n")]
    return b"".join(pieces)


def _field(line: bytes) -> tuple[bytes, bytes]:
    """Name and value of a line of an event stream (WHATWG HTML, section 9.2.6)."""
    name, _, value = line.partition(b":")
    return name, value.removeprefix(b" ")


def _edits(text: str, keep: Keep) -> list[Edit]:
    """The changes to a message, or to every message of a batch."""
    cursor = Cursor(text)
    edits: list[Edit] = []
    if cursor.opens == "[":
        for _ in cursor.items():
            edits += _edits_of_message(cursor, keep)
    else:
        edits += _edits_of_message(cursor, keep)
    cursor.end()
    return edits


def _edits_of_message(cursor: Cursor, keep: Keep) -> list[Edit]:
    edits: list[Edit] = []
    if cursor.opens != "{":
        cursor.value()
        return edits
    for name in cursor.members():
        if name == "result" and cursor.opens == "{":
            edits += _edits_of_result(cursor, keep)
        else:
            cursor.value()
    return edits


def _edits_of_result(cursor: Cursor, keep: Keep) -> list[Edit]:
    """The changes to its lists, and to `cacheScope` when it has any list."""
    start = cursor.at + 1
    edits: list[Edit] = []
    names = set()
    for name in cursor.members():
        names.add(name)
        if name in _LISTS and cursor.opens == "[":
            edits += _edits_of_list(cursor, _LISTS[name], keep)
            continue
        at = cursor.at
        cursor.value()
        if name == "cacheScope":
            edits.append(Edit(at, cursor.at, _PRIVATE))
    if names.isdisjoint(_LISTS):
        return []
    if "cacheScope" not in names and not names.isdisjoint(_MODERN):
        edits.insert(0, Edit(start, start, f'"cacheScope":{_PRIVATE},'))
    return edits


def _edits_of_list(cursor: Cursor, kind: _List, keep: Keep) -> list[Edit]:
    """One edit for the list when something goes, none when everything stays."""
    start, whole = cursor.at, True
    kept = []
    for at in cursor.items():
        if _stays(cursor, kind, keep):
            kept.append(cursor.text[at : cursor.at])
        else:
            whole = False
    return [] if whole else [Edit(start, cursor.at, f"[{','.join(kept)}]")]


def _stays(cursor: Cursor, kind: _List, keep: Keep) -> bool:
    """Whether the item here has one readable name, and the name may be used; goes behind it."""
    start = cursor.at
    item = cursor.value()
    name = item.get(kind.name) if isinstance(item, dict) else None
    if not isinstance(name, str) or not keep(kind.kind, name):
        return False
    # A name that stands there twice could be read as the other one.
    text = cursor.text
    if text.count(f'"{kind.name}"', start, cursor.at) == 1 and text.find("\\u", start, cursor.at) < 0:
        return True
    return _names_of(Cursor(text, start), kind.name) == [name]


def _names_of(item: Cursor, wanted: str) -> list[Any]:
    """Every value that an object has under one name."""
    found = []
    for name in item.members():
        value = item.value()
        if name == wanted:
            found.append(value)
    return found
