"""Where the parts of a JSON text stand, so that one part can change and every other byte stay as it is.

Owns a cursor that walks objects and arrays and reads every byte once; values are skipped by the standard library's
scanner in C. It knows nothing of what a document means. Everything raises ValueError for text that is not JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecoder
from typing import Any, Final, NamedTuple

_SCAN: Final[Any] = vars(JSONDecoder())["scan_once"]
_BLANKS: Final = re.compile(r"[ \t\n\r]*")


class Edit(NamedTuple):
    """New text for a span."""

    start: int
    end: int
    text: str


class Cursor:
    """A place in a text, always in front of a value or at the end of one."""

    __slots__ = ("at", "text")

    def __init__(self, text: str, at: int = 0) -> None:
        self.text = text
        self.at = at
        self._skip_blanks()

    @property
    def opens(self) -> str:
        """The character that the value begins with, '' at the end of the text."""
        return self.text[self.at : self.at + 1]

    def value(self) -> Any:
        """Read the value here and go behind it."""
        try:
            value, self.at = _SCAN(self.text, self.at)
        except StopIteration:
            raise ValueError("no value") from None
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return value

    def members(self) -> Iterator[str]:
        """The names in the object here, each with the cursor in front of its value, which the caller must go behind."""
        if self._enter("{", "}"):
            return
        while True:
            name = self.value()
            if not isinstance(name, str):
                raise ValueError("not a name")
            self._skip_blanks()
            self._expect(":")
            yield name
            if self._leave("}"):
                return

    def items(self) -> Iterator[int]:
        """The places of the items of the array here, each with the cursor on it; the caller must go behind it."""
        if self._enter("[", "]"):
            return
        while True:
            yield self.at
            if self._leave("]"):
                return

    def end(self) -> None:
        """Make sure that nothing but white space follows."""
        self._skip_blanks()
        if self.at != len(self.text):
            raise ValueError("more than one value")

    def _enter(self, opening: str, closing: str) -> bool:
        """Go into an array or object; whether it is empty (then behind it)."""
        self._expect(opening)
        if self.opens != closing:
            return False
        self.at += 1
        return True

    def _leave(self, closing: str) -> bool:
        """Go behind the comma (False) or behind the closing bracket (True)."""
        self._skip_blanks()
        if self.opens == closing:
            self.at += 1
            return True
        self._expect(",")
        return False

    def _expect(self, character: str) -> None:
        if self.opens != character:
            raise ValueError(f"not a {character}")
        self.at += 1
        self._skip_blanks()

    def _skip_blanks(self) -> None:
        if self.text[self.at : self.at + 1] in " \t\n\r" and (match := _BLANKS.match(self.text, self.at)):
            self.at = match.end()


def edited(text: str, edits: list[Edit]) -> str:
    """The text with all edits, which come in order and do not overlap."""
    pieces: list[str] = []
    at = 0
    for edit in edits:
        pieces += (text[at : edit.start], edit.text)
        at = edit.end
    return "".join((*pieces, text[at:]))
