"""What one item of a list says: name, title, description, hints, and the columns of the row that remembers it.

Owns how an item is read that may hold anything: what is no text is none, what is too long is cut or left out, and what
PostgreSQL cannot hold (NUL) goes. Pure; a key that would have to be cut makes no item, since it would be another one.
"""

from __future__ import annotations

from functools import cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson

#: Bytes of a name or URI: with the id of the server it must fit into a row of an index (2,704 bytes).
MAX_KEY_BYTES: Final = 2000
#: Characters of what is kept in memory, and of what is written.
_MAX_TITLE: Final = 256
_MAX_DESCRIPTION: Final = 16_384
_MAX_KEPT: Final = 512
_MAX_MEDIA_TYPE: Final = 256
#: Bytes of a schema, of annotations and of arguments.
_MAX_JSON: Final = 64 << 10
_MAX_SIZE: Final = (1 << 63) - 1

#: What an item is -> its member that names it.
KEYS: Final = MappingProxyType({"tool": "name", "prompt": "name", "resource": "uri", "template": "uriTemplate"})


class Hints(NamedTuple):
    """What a tool says of itself (MCP `ToolAnnotations`); None: nothing. Hints of a server, no promises."""

    read_only: bool | None = None
    destructive: bool | None = None
    idempotent: bool | None = None
    open_world: bool | None = None


class Offer(NamedTuple):
    """One item."""

    title: str
    description: str
    """Its beginning."""
    hints: Hints
    columns: dict[str, object]
    """Column -> value of its row, JSON as text."""


def key_of(kind: str, item: Any) -> str | None:
    """The name or URI of an item; None for one that has none, or none that can be kept."""
    key = item.get(KEYS[kind]) if isinstance(item, dict) else None
    if not isinstance(key, str) or not key or "\0" in key:
        return None
    return key if len(key) <= MAX_KEY_BYTES // 4 or len(key.encode()) <= MAX_KEY_BYTES else None


def offer_of(kind: str, key: str, item: dict[str, Any]) -> Offer:
    """What an item of that key says."""
    annotations = item.get("annotations")
    annotations = annotations if isinstance(annotations, dict) else {}
    title = _text(item.get("title"), _MAX_TITLE) or (
        _text(annotations.get("title"), _MAX_TITLE) if kind == "tool" else ""
    )
    description = _text(item.get("description"), _MAX_DESCRIPTION)
    columns: dict[str, object] = {"title": title or None, "description": description or None}
    hints = _hints()
    if kind == "tool":
        hints = _hints(*(_flag(annotations.get(f"{name}Hint")) for name in _HINTS))
        columns |= {
            "name": key,
            "input_schema": _json(item.get("inputSchema")),
            "output_schema": _json(item.get("outputSchema")),
            "annotations": _json(annotations) or "{}",
        }
    elif kind == "prompt":
        arguments = item.get("arguments")
        columns |= {"name": key, "arguments": (_json(arguments) if isinstance(arguments, list) else None) or "[]"}
    else:
        columns |= {
            "uri_template": key,
            "is_template": kind == "template",
            "name": _text(item.get("name"), _MAX_TITLE) or key,
            "mime_type": _text(item.get("mimeType"), _MAX_MEDIA_TYPE) or None,
            "size_bytes": _size(item.get("size")),
        }
    return Offer(title, description[:_MAX_KEPT], hints, columns)


_HINTS: Final = ("readOnly", "destructive", "idempotent", "openWorld")


@cache
def _hints(*flags: bool | None) -> Hints:
    """There are only 81 of them: tools share them."""
    return Hints(*flags)


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(value: object, limit: int) -> str:
    return value[:limit].replace("\0", "") if isinstance(value, str) else ""


def _json(value: object) -> str | None:
    """The text of a value; None for none, and for one that cannot be kept."""
    if value is None:
        return None
    try:
        text = orjson.dumps(value)
    except TypeError:  # nested too deeply
        return None
    # jsonb holds no NUL; the few texts in which this stands for a backslash and letters are not worth telling apart
    return text.decode() if len(text) <= _MAX_JSON and b"\\u0000" not in text else None


def _size(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_SIZE else None
