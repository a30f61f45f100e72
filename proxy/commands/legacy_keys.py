"""A list of legacy keys, read: lines `name key` or bare keys, or JSON.

Owns the forms of the list and what a key may look like. What comes out holds digests; no sentence repeats a key, and
because a mistake may put one where a name belongs, none repeats a name either: lines are told by their number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from proxy.identity.keys import MAX_LENGTH, PREFIX, digest_of
from proxy.store.keys import LegacyKey

#: What a client can show as a credential (`identity/credentials.py`).
_KEY: Final = re.compile(rf"[!-+\--~]{{1,{MAX_LENGTH}}}")
_SCOPES: Final = frozenset(("read", "write", "proxy", "admin"))
#: Shorter ones can be guessed. What is longer than that and stands before a shorter word is a key, not a name.
_SHORTEST: Final = 16
_LONGEST_NAME: Final = 200
_MOST: Final = 100_000


@dataclass(frozen=True, slots=True)
class Line:
    """One key of the list."""

    number: int
    """From 1: its line, or its place in the JSON list."""
    key: LegacyKey | None
    problem: str = ""
    """Why there is none, or what is to be said of the one there is."""


def read(text: str, scopes: tuple[str, ...]) -> list[Line]:
    """Every key of the list; `scopes` are those of keys that name none. Raises ValueError for no list at all."""
    given = _items(text) if text.lstrip()[:1] in ("[", "{") else _lines(text)
    lines = [_line(number, name, key, own or scopes) for number, name, key, own in given]
    if not lines:
        raise ValueError("there is no key in this file")
    if len(lines) > _MOST:
        raise ValueError(f"more than {_MOST} keys")
    return lines


def _lines(text: str) -> Iterator[tuple[int, str, object, tuple[str, ...]]]:
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            *words, key = stripped.split()
            yield number, " ".join(words), key, ()


def _items(text: str) -> Iterator[tuple[int, str, object, tuple[str, ...]]]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("the file is not JSON") from None
    if not isinstance(found, list):
        raise ValueError('the JSON is a list of {"name": ..., "key": ...}')
    for number, item in enumerate(found, 1):
        if not isinstance(item, dict):
            yield number, "", item, ()
            continue
        name, own = item.get("name"), item.get("scopes", [])
        good = isinstance(own, list) and all(isinstance(scope, str) and scope in _SCOPES for scope in own)
        yield (
            number,
            name if isinstance(name, str) else "",
            item.get("key") if good else None,
            tuple(own if good else ()),
        )


def _line(number: int, name: str, key: object, scopes: tuple[str, ...]) -> Line:
    problem = _problem(name, key)
    if problem or not isinstance(key, str):
        return Line(number, None, problem)
    note = f"shorter than {_SHORTEST} characters: it can be guessed" if len(key) < _SHORTEST else ""
    return Line(number, LegacyKey(name.strip() or f"imported key {number}", digest_of(key), scopes), note)


def _problem(name: str, key: object) -> str:
    """Why this cannot be a key and its name; '' when it can."""
    if not isinstance(key, str):
        return 'a key is text, or {"name": ..., "key": ..., "scopes": [...]} with scopes that exist'
    if _KEY.fullmatch(key) is None:
        return f"a key has 1 to {MAX_LENGTH} printable ASCII characters without blanks and commas"
    if key.startswith(PREFIX):
        return "this is no legacy key; what is kept of it is a hash that this file does not have"
    if not name.isprintable() or len(name) > _LONGEST_NAME:
        return f"a name has at most {_LONGEST_NAME} printable characters"
    if len(key) < _SHORTEST < len(name) and " " not in name:
        return "the name comes first, then the key"
    return ""
