"""Glob patterns, and a table that finds every pattern a text may match without trying them one by one.

Owns `Glob` and `GlobTable`. Only `*` is special; everything else, case included, stands for itself. There are no
regular expressions here, so no pattern can be made to backtrack. Nothing here knows requests, routes or sockets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final, Generic, NamedTuple, TypeVar

V = TypeVar("V")


class Glob:
    """One pattern: `head*middle*tail`."""

    __slots__ = ("_middle", "_shortest", "head", "literal", "tail")

    def __init__(self, pattern: str) -> None:
        pieces = pattern.split("*")
        #: No `*` at all: the pattern is `head`.
        self.literal = len(pieces) == 1
        self.head = pieces[0]
        self.tail = "" if self.literal else pieces[-1]
        self._middle = tuple(piece for piece in pieces[1:-1] if piece)
        self._shortest = len(self.head) + len(self.tail)

    @property
    def anything(self) -> bool:
        """Whether the pattern is `*`: every text fits."""
        return not self.literal and not self._middle and not self._shortest

    @property
    def headed(self) -> bool:
        """Whether `head` alone decides: the pattern is a literal or `head*`."""
        return not self._middle and not self.tail

    @property
    def tailed(self) -> bool:
        """Whether `tail` alone decides: the pattern is a literal or `*tail`."""
        return self.literal or (not self._middle and not self.head)

    def matches(self, text: str) -> bool:
        """Whether the whole text fits. The leftmost place for each piece is always a right one: no backtracking."""
        if self.literal:
            return text == self.head
        if len(text) < self._shortest or not text.startswith(self.head) or not text.endswith(self.tail):
            return False
        at, end = len(self.head), len(text) - len(self.tail)
        for piece in self._middle:
            at = text.find(piece, at, end)
            if at < 0:
                return False
            at += len(piece)
        return True


class Anchor(Enum):
    """Where the text of a key must stand."""

    WHOLE = "whole"
    HEAD = "head"
    TAIL = "tail"


class Key(NamedTuple):
    """What a text must be, begin with or end in."""

    anchor: Anchor
    text: str


def keys_of(globs: Sequence[Glob]) -> tuple[Key, ...]:
    """Keys of which a text fits one when it fits any of the globs; none when there is nothing to go by.

    A text never fits two of them: a route filed under each key is met at most once, so that its percentage is drawn
    once. That is why heads and tails are not mixed, and why a key under a wider one is dropped.
    """
    if any(glob.anything for glob in globs):
        return (Key(Anchor.HEAD, ""),)
    if len(globs) == 1 and globs[0].head:
        return (_key(globs[0], Anchor.HEAD),)
    for anchor in (Anchor.HEAD, Anchor.TAIL):
        keys = {_key(glob, anchor) for glob in globs}
        if all(key.text for key in keys):
            return _widest(keys, -1 if anchor is Anchor.TAIL else 1)
    return ()


def keys_decide(globs: Sequence[Glob]) -> bool:
    """Whether a text that fits one of `keys_of(globs)` certainly fits one of the globs."""
    return (
        any(glob.anything for glob in globs) or all(glob.headed for glob in globs) or all(glob.tailed for glob in globs)
    )


def _key(glob: Glob, anchor: Anchor) -> Key:
    if glob.literal:
        return Key(Anchor.WHOLE, glob.head)
    return Key(anchor, glob.head if anchor is Anchor.HEAD else glob.tail)


def _widest(keys: set[Key], step: int) -> tuple[Key, ...]:
    """The keys without those under another one; `step` -1 reads tails as heads."""
    kept: list[Key] = []
    cover: str | None = None  # sorted, a head comes right before all that it covers
    for key in sorted(keys, key=lambda key: (key.text[::step], key.anchor is Anchor.WHOLE)):
        text = key.text[::step]
        if cover is not None and text.startswith(cover):
            continue
        kept.append(key)
        if key.anchor is not Anchor.WHOLE:
            cover = text
    return tuple(kept)


class GlobTable(Generic[V]):
    """Values filed under keys; `lookup` finds those of every key that a text fits."""

    __slots__ = ("_heads", "_longest_tail", "_tails", "_whole")

    def __init__(self, values: Mapping[Key, V]) -> None:
        parts: dict[Anchor, dict[str, V]] = {anchor: {} for anchor in Anchor}
        for (anchor, text), value in values.items():
            parts[anchor][text[::-1] if anchor is Anchor.TAIL else text] = value
        self._whole = parts[Anchor.WHOLE]
        self._heads = _Prefixes(parts[Anchor.HEAD]) if parts[Anchor.HEAD] else None
        #: Tails are heads of the text read backwards.
        self._tails = _Prefixes(parts[Anchor.TAIL]) if parts[Anchor.TAIL] else None
        self._longest_tail = max(map(len, parts[Anchor.TAIL]), default=0)

    def lookup(self, text: str) -> list[V]:
        """The values of every key that `text` fits, in no particular order."""
        value = self._whole.get(text)
        found = [] if value is None else [value]
        if self._heads is not None:
            self._heads.collect(text, found)
        if self._tails is not None:
            self._tails.collect(text[: -self._longest_tail - 1 : -1], found)
        return found


class _Prefixes(Generic[V]):
    """Values filed under prefixes, found in a time that their number does not change.

    Most sets of prefixes end at a separator (`/team-7/`, `search_`). Those are filed by how many of it they hold and
    looked up once per such depth: ten thousand of them cost what ten do. The others are looked up once per distinct
    length.
    """

    __slots__ = ("_by_depth", "_by_length", "_longest", "_separator")

    def __init__(self, values: Mapping[str, V]) -> None:
        self._separator: Final = _separator(values)
        depths: dict[int, dict[str, V]] = {}
        lengths: dict[int, dict[str, V]] = {}
        self._longest = 0
        for prefix, value in values.items():
            if prefix and prefix[-1] == self._separator:
                depths.setdefault(prefix.count(self._separator), {})[prefix] = value
                self._longest = max(self._longest, len(prefix))
            else:
                lengths.setdefault(len(prefix), {})[prefix] = value
        #: One table per depth from 1 on, empty where no prefix is that deep.
        self._by_depth = tuple(depths.get(depth, {}) for depth in range(1, max(depths, default=0) + 1))
        self._by_length = tuple(sorted(lengths.items()))

    def collect(self, text: str, found: list[V]) -> None:
        """Append the values of all prefixes of `text`."""
        end, separator, longest = 0, self._separator, self._longest
        for values in self._by_depth:
            end = text.find(separator, end, longest) + 1
            if not end:
                break
            if values:
                value = values.get(text[:end])
                if value is not None:
                    found.append(value)
        for length, values in self._by_length:
            value = values.get(text[:length])
            if value is not None:
                found.append(value)


def _separator(prefixes: Mapping[str, object]) -> str:
    """The character, neither letter nor digit, that most prefixes end in; '' (no prefix ends so) when there is none."""
    ends = Counter(prefix[-1] for prefix in prefixes if prefix and not prefix[-1].isalnum())
    return min(ends, key=lambda end: (-ends[end], end), default="")
