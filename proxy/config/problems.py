"""What is wrong with a configuration, and where: `Problem`, `ConfigError`, and the `Report` that collects them.

Owns places and wording of places only; what counts as a problem is the loader's, the models' and the checks' business.
A problem shows keys, never values, so no secret can end up in one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

Location = tuple[str | int, ...]
"""Keys and indexes from the root of the document."""

#: More are counted, not shown: nobody reads them, and a hostile file must not become a hostile log.
_MOST_SHOWN: Final = 1000
_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_.\-/]{1,64}")


class Place(NamedTuple):
    """Where something was written, counted from 1; line 0 means the file as a whole."""

    line: int
    column: int


class Table(dict[str, object]):
    """A YAML mapping that remembers where each key was written."""

    __slots__ = ("places",)

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, Place] = {}


class Items(list[object]):
    """A YAML sequence that remembers where each item was written."""

    __slots__ = ("places",)

    def __init__(self) -> None:
        super().__init__()
        self.places: list[Place] = []


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend."""

    file: str
    """The configuration file as it was named."""
    line: int
    """From 1; 0 when the file as a whole is meant."""
    column: int
    """From 1; 0 when the file as a whole is meant."""
    path: str
    """Dotted keys such as `servers.github.timeouts.connect` or `routes[3].when`; '' for the whole document."""
    message: str
    """One sentence without the offending value."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class ConfigError(Exception):
    """The configuration cannot be used; `problems` is everything that is wrong with it, in the order of the file."""

    def __init__(self, problems: tuple[Problem, ...], files: tuple[str, ...] = ()) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
        #: Secret and TLS files that the configuration named: a change of one may mend it.
        self.files = files


class Report:
    """Collects the problems of one file."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._found: list[tuple[Place, Problem]] = []
        self._locations: set[Location] = set()
        self._more = 0

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, place: Place, location: Location, message: str) -> None:
        """Note one problem; `location` is complained about only once."""
        if location and location in self._locations:
            return
        self._locations.add(location)
        if len(self._found) < _MOST_SHOWN:
            self._found.append((place, Problem(self._file, place.line, place.column, path_text(location), message)))
        else:
            self._more += 1

    def add_at(self, root: object, location: Location, message: str) -> None:
        """Note a problem at a location of the document `root`, unless something at or above it was noted already."""
        location, place = locate(root, location)
        if not any(location[:depth] in self._locations for depth in range(1, len(location) + 1)):
            self.add(place, location, message)

    def problems(self) -> tuple[Problem, ...]:
        """Everything found, in the order of the file."""
        found = [problem for _, problem in sorted(self._found, key=lambda entry: entry[0])]
        if self._more:
            found.append(Problem(self._file, 0, 0, "", f"and {self._more} more problems"))
        return tuple(found)


def locate(root: object, location: Sequence[str | int]) -> tuple[Location, Place]:
    """The part of `location` that the document has, and the place of its last element.

    A last element that is missing from a mapping is kept, with the place of the mapping: it names a required key.
    """
    place, known, node = Place(1, 1), 0, root
    for element in location:
        found = _place_of(node, element)
        if found is None:
            break
        place, node = found, node[element]  # type: ignore[index]
        known += 1
    if known == len(location) - 1 and isinstance(node, Table) and isinstance(location[known], str):
        known += location[known] != "[key]"
    return tuple(location[:known]), place


def _place_of(node: object, element: str | int) -> Place | None:
    """Where the child `element` of `node` was written; None when there is no such child."""
    if isinstance(node, Table) and isinstance(element, str):
        return node.places.get(element) if element in node else None
    if isinstance(node, Items) and isinstance(element, int) and 0 <= element < len(node):
        return node.places[element]
    return None


def path_text(location: Iterable[str | int]) -> str:
    """`servers.github.url`, `routes[3].when`; keys with other characters are quoted and cut."""
    text = ""
    for element in location:
        if isinstance(element, int):
            text += f"[{element}]"
            continue
        key = element if _PLAIN_KEY.fullmatch(element) else json.dumps(element[:64])
        text += f".{key}" if text else key
    return text
