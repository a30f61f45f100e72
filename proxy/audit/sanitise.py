"""What may be kept of a JSON value: everything but its secrets, within bounds.

Owns the walk: which key says that its value is secret, where a value is cut, and what stands in the place of what is
gone: `[redacted:KIND]`, `[cut: ...]`. A key decides together with its value (`names.py`), text also by itself
(`shapes.py`). A secret is looked for before a text is cut, so that no beginning of one stays. Never raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import HMAC
from itertools import islice
from math import isfinite
from typing import Any, Final

from proxy.audit.names import Kind, is_template, kind_of
from proxy.audit.numbers import is_card
from proxy.audit.shapes import redact
from proxy.audit.tokens import redact_tokens

#: Characters of a key.
_KEY: Final = 256
#: Characters that are looked at behind the last one that is kept: a secret may begin before it.
_MARGIN: Final = 1024
#: Numbers beyond this are written as text: not every JSON reader knows them.
_LARGEST: Final = 1 << 63
#: Keys of a JSON Schema whose value is one of the secret, not about it.
_EXAMPLES: Final = frozenset(("default", "const", "example", "examples", "value"))
_TYPES: Final = frozenset(("string", "object", "integer", "number", "boolean", "array", "null"))
_SCHEMA: Final = ("$ref", "anyOf", "oneOf", "allOf")
#: Keys beside a secret that say what it is for.
_ABOUT: Final = frozenset(
    """type kind name username user id email scheme algorithm alg format description title enabled method host port url
    uri database region account project_id client_id client_email realm issuer scope scopes label path file placeholder
    pattern provider version role expires_in expires_at created_at token_type token_uri auth_uri universe_domain
    """.split()  # noqa: SIM905
)
#: Keys of an object that is itself a key and a value: an environment variable, a header field.
_NAMES: Final = (
    "name",
    "key",
    "header",
    "field",
    "Name",
    "Key",
    "variable",
    "selector",
    "element",
    "label",
    "ParameterKey",
    "OutputKey",
)
#: Names of columns, and rows, as tools for data bases return them.
_COLUMNS: Final = ("columns", "fields", "headers", "header")
_ROWS: Final = frozenset(("rows", "data", "values", "records"))
_MOST_COLUMNS: Final = 256
_SAYING: Final = frozenset(_NAMES)
_FIELD: Final = re.compile(" (?:field|input|box|textbox)$")
_VALUES: Final = ("value", "val", "Value", "secret_value", "default", "text", "ParameterValue", "OutputValue")
_USER: Final = Kind("password", lambda text: ":" in text.strip(":") and not is_template(text.partition(":")[2]))
#: What a Secret of Kubernetes holds, whatever its names are.
_OPAQUE: Final = Kind("secret", lambda text: not is_template(text))
#: Members of a private JSON Web Key (RFC 7518 section 6).
_PRIVATE: Final = frozenset("d p q dp dq qi oth k".split())  # noqa: SIM905


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what is kept of one value."""

    depth: int = 32
    """Levels of arrays and objects."""
    values: int = 2000
    """Values of any kind, keys not counted."""
    text: int = 4096
    """Characters of one text."""
    total: int = 32_768
    """Characters of all texts."""


class Sanitiser:
    """Makes values fit to be kept. Holds no state of them."""

    __slots__ = ("_limits",)

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()

    def value(self, value: object) -> Any:
        """A copy that JSON can hold, without secrets. 20 µs for a few keys, 0.15 µs a character of prose."""
        return _Walk(self._limits).any(value, 0, None)


def digest(body: bytes, key: bytes) -> str:
    """HMAC-SHA256 (RFC 2104) of arguments as they were sent, in hex: the same for the same bytes, and no way back for
    whoever has not the key."""
    return HMAC(key, body, sha256).hexdigest()


class _Walk:
    """One walk through one value."""

    __slots__ = ("_depth", "_text", "_total", "_values")

    def __init__(self, limits: Limits) -> None:
        self._depth = limits.depth
        self._text = limits.text
        self._total = limits.total
        self._values = limits.values

    def any(self, value: object, depth: int, kind: Kind | None) -> Any:
        """`kind`: what the key promises that the value stands under."""
        self._values -= 1
        if isinstance(value, str):
            return self._of_text(value, kind)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return _of_number(value, kind)
        if depth >= self._depth:
            return "[cut: nested too deeply]"
        if isinstance(value, Mapping):
            return self._of_object(value, depth, kind)
        if isinstance(value, list | tuple):
            return self._of_list(value, depth, kind)
        return f"[cut: {type(value).__name__}]"

    def _of_text(self, text: str, kind: Kind | None) -> str:
        if kind is not None and kind.holds(text):
            return f"[redacted:{kind.name}]"
        most = min(self._text, self._total)
        if most <= 0 and text:
            return f"[cut: {len(text)} characters]"
        clean = redact(plain(text[: most + _MARGIN]))
        self._total -= min(len(clean), most)
        if len(clean) <= most and len(text) <= most + _MARGIN:
            return clean
        return f"{clean[:most]}[cut: {max(0, len(text) - most)} more characters]"

    def _of_object(self, members: Mapping[Any, Any], depth: int, kind: Kind | None) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        schema = kind if kind is not None and _is_schema(members) else None  # it says what a secret is like
        special, columns = _secret_members(members), _columns(members)
        for key, value in members.items():
            if self._values <= 0:
                kept["[cut]"] = f"{len(members) - len(kept)} more members"
                break
            name = key if isinstance(key, str) else str(key)
            if columns and name in _ROWS and isinstance(value, list) and depth + 2 < self._depth:
                kept[self._of_key(name)] = self._of_rows(value, depth + 1, columns)
                continue
            of_value = special.get(name) or self._kind_below(name, kind, schema)
            kept[self._of_key(name)] = self.any(value, depth + 1, of_value)
        return kept

    def _of_rows(self, rows: list[Any], depth: int, columns: list[Kind | None]) -> list[Any]:
        """The result of a query: what is in a row has the names of the columns."""
        kept: list[Any] = []
        self._values -= 1
        for row in rows:
            if self._values <= 0:
                kept.append(f"[cut: {len(rows) - len(kept)} more items]")
                break
            if isinstance(row, list) and len(row) == len(columns) <= self._values:
                self._values -= 1
                kept.append([self.any(item, depth + 2, kind) for item, kind in zip(row, columns, strict=True)])
            else:
                kept.append(self.any(row, depth + 1, None))
        return kept

    def _kind_below(self, name: str, outer: Kind | None, schema: Kind | None) -> Kind | None:
        if schema is not None:
            return schema if name in _EXAMPLES else None  # only examples are some
        return kind_of(name) or (outer if name.lower() not in _ABOUT or outer is _OPAQUE else None)

    def _of_list(self, items: list[Any] | tuple[Any, ...], depth: int, kind: Kind | None) -> list[Any]:
        kept: list[Any] = []
        pairs = kind is None and _are_pairs(items)
        option: Kind | None = None
        for item in items:
            if self._values <= 0:
                kept.append(f"[cut: {len(items) - len(kept)} more items]")
                break
            if pairs and depth + 1 < self._depth:
                self._values -= 1
                kept.append([self.any(item[0], depth + 2, None), self.any(item[1], depth + 2, kind_of(item[0]))])
                continue
            kept.append(self.any(item, depth + 1, kind or option))
            option = _of_option(item)
        return kept

    def _of_key(self, name: str) -> str:
        if len(name) > 16:
            name = redact_tokens(plain(name[: _KEY + _MARGIN]))
            return name if len(name) <= _KEY else f"{name[:_KEY]}[cut]"
        return plain(name)


def plain(text: str) -> str:
    """Text that UTF-8 can hold: half a surrogate pair becomes a question mark."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode()


def _of_number(number: float, kind: Kind | None) -> Any:
    if isinstance(number, int):
        if abs(number) >= _LARGEST:
            return "[cut: a number of many digits]"
        digits = str(abs(number))
        if kind is not None and kind.numbers and kind.holds(digits):
            return f"[redacted:{kind.name}]"
        return "[redacted:card]" if len(digits) >= 14 and is_card(digits) else number
    return number if isfinite(number) else None


def _is_schema(members: Mapping[Any, Any]) -> bool:
    kind = members.get("type")
    if isinstance(kind, str):
        return kind in _TYPES
    return isinstance(kind, list) or any(name in members for name in _SCHEMA)


def _of_option(item: object) -> Kind | None:
    """What an argument of a command promises of the next: `--password`, `-u` with user and password."""
    if not isinstance(item, str) or not item.startswith("-") or "=" in item:
        return None
    return _USER if item in ("-u", "--user", "--proxy-user") else kind_of(item)


def _are_pairs(items: Iterable[Any]) -> bool:
    """Header fields and the like: a list of names with their values."""
    some = list(islice(items, 64))
    return bool(some) and all(
        isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str) for item in items
    )


def _columns(members: Mapping[Any, Any]) -> list[Kind | None]:
    """What the columns of a table promise; nothing if it is none, or none of them promises anything."""
    if _ROWS.isdisjoint(members):
        return []
    names = next((names for each in _COLUMNS if isinstance(names := members.get(each), list)), None)
    if names is None:  # as in a spreadsheet, where the first row may have them
        rows = members.get("values")
        names = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], list) else []
    said = [each.get("name") if isinstance(each, Mapping) else each for each in names[:_MOST_COLUMNS]]
    kinds = [kind_of(name) if isinstance(name, str) else None for name in said]
    return kinds if any(kinds) else []


def _secret_members(members: Mapping[Any, Any]) -> dict[str, Kind]:
    """Members that are secret because of what stands beside them."""
    if "kty" in members and not _PRIVATE.isdisjoint(members):
        return {name: Kind("private_key", lambda text: not is_template(text)) for name in _PRIVATE}
    if members.get("kind") == "Secret":  # of Kubernetes
        return dict.fromkeys(("data", "stringData"), _OPAQUE)
    if _SAYING.isdisjoint(members):
        return {}
    for name in _NAMES:
        said = members.get(name)
        if isinstance(said, str) and said.count(" ") < 3 and (kind := kind_of(_FIELD.sub("", said))) is not None:
            return dict.fromkeys(_VALUES, kind)
    return {}
