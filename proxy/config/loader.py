"""From a file to a `Config`, or to everything that is wrong with it: the only reader of YAML.

Owns the YAML subset (plain data: no tags, anchors, aliases or second document; numbers and booleans as in YAML 1.2, so
that `no` and `22:00` stay text) and the order of the steps: read, replace variables, validate, check across keys. What
a key means is in `models.py`; what its values look like is in `fields.py` and `units.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from proxy.config import files
from proxy.config.checks import cross_check
from proxy.config.models import Config
from proxy.config.problems import ConfigError, Items, Location, Place, Problem, Report, Table
from proxy.config.wording import explain

#: A configuration is six levels deep; what goes much deeper is an attack on recursion.
_DEEPEST: Final = 32
#: Scalars and containers: fifty for each of 10,000 servers and 10,000 routes.
_MOST_VALUES: Final = 1_000_000
_NULLS: Final = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})")
_NUMBER: Final = re.compile(r"[-+]?(?:[0-9]{1,18}\.?[0-9]{0,18}|\.[0-9]{1,18})(?:[eE][-+]?[0-9]{1,3})?")


def load(path: Path, env: Mapping[str, str]) -> Config:
    """The configuration in the file `path`. Raises ConfigError."""
    try:
        text = files.read_bounded(path, files.CONFIG_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError((Problem(str(path), line, 1, "", "not UTF-8 text"),)) from None
    except ValueError as error:
        raise ConfigError((Problem(str(path), 0, 0, "", str(error)),)) from None
    return parse(text, str(path), env, path.absolute().parent)


def parse(text: str, file: str, env: Mapping[str, str], base: Path) -> Config:
    """The configuration that `text` describes.

    `file` is its name in problems, `env` the variables, `base` the directory that relative paths start from. Reads the
    secret and TLS files that are named. Raises ConfigError with every problem.
    """
    report = Report(file)
    named = files.Files(base)
    root = _Reader(env, report).read(text)
    config = None
    if isinstance(root, Table):
        config = _validate(root, named, report)
        cross_check(root, named, report)
    elif not report:
        report.add(Place(1, 1), (), "expected keys and values at the top, at least 'servers:'")
    if report or config is None:
        raise ConfigError(report.problems(), named.seen)
    config._files = named.seen
    return config


def document(text: str, env: Mapping[str, str]) -> object:
    """What is written in `text`, with the place of every key and item, and variables of `env` replaced. Nothing is
    checked; None when it cannot be read."""
    return _Reader(env, Report("")).read(text)


def _validate(root: Table, named: files.Files, report: Report) -> Config | None:
    try:
        return Config.model_validate(root, context={"base": named.base, "read_secret": named.read_secret})
    except ValidationError as error:
        for location, message in explain(error):
            report.add_at(root, location, message)
    return None


class _Halt(Exception):
    """Reading cannot go on; the reason is in the report."""


class _Open:
    """A container that is being read, and for a mapping the key whose value comes next."""

    __slots__ = ("key", "key_place", "node", "place")

    def __init__(self, node: Table | Items, place: Place) -> None:
        self.node = node
        self.place = place
        self.key: str | None = None
        self.key_place = Place(1, 1)


class _Reader:
    """Builds plain values from YAML events, which arrive one by one: nothing recurses, nothing is expanded."""

    def __init__(self, env: Mapping[str, str], report: Report) -> None:
        self._env = env
        self._report = report
        self._stack: list[_Open] = []
        self._root: object = None
        self._documents = 0
        self._values = 0
        self._take = {
            yaml.DocumentStartEvent: self._document,
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._mapping,
            yaml.SequenceStartEvent: self._sequence,
            yaml.MappingEndEvent: self._end,
            yaml.SequenceEndEvent: self._end,
            yaml.AliasEvent: self._alias,
        }

    def read(self, text: str) -> object:
        """The document's value; None when it has none or cannot be read, which is in the report then."""
        try:
            self._read(text)
        except _Halt:
            return None
        except yaml.MarkedYAMLError as error:
            self._report.add(_place(error.problem_mark or error.context_mark), (), _syntax(error, text))
            return None
        except yaml.reader.ReaderError as error:
            before = max(0, text.find(chr(error.character)))
            self._report.add(Place(text.count("\n", 0, before) + 1, 1), (), "YAML text cannot hold this character")
            return None
        except UnicodeEncodeError as error:
            self._report.add(Place(text.count("\n", 0, error.start) + 1, 1), (), "YAML text cannot hold this character")
            return None
        if not self._documents:
            self._report.add(Place(1, 1), (), "the file is empty; it needs at least 'servers:'")
        return self._root

    def _read(self, text: str) -> None:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        try:
            while (event := loader.get_event()) is not None:
                take = self._take.get(type(event))
                if take is not None:
                    take(event)
        finally:
            loader.dispose()

    def _document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            self._report.add(_place(event.start_mark), (), "only one YAML document is read; remove the '---'")
            raise _Halt

    def _scalar(self, event: Any) -> None:
        place = self._begin(event)
        top = self._stack[-1] if self._stack else None
        if top is not None and top.key is None and isinstance(top.node, Table):
            self._key(top, top.node, event.value, place)
            return
        value = _plain(event.value) if event.implicit[0] else event.value
        if isinstance(value, str) and "${" in value:
            try:
                value = files.substitute(value, self._env)
            except ValueError as error:
                self._report.add(place, self._location(), str(error))
        self._put(value, place)

    def _key(self, top: _Open, node: Table, key: str, place: Place) -> None:
        top.key, top.key_place = key, place
        if key in node:
            self._report.add(place, self._location(), f"this key was set on line {node.places[key].line} already")

    def _mapping(self, event: Any) -> None:
        self._open(Table(), event)

    def _sequence(self, event: Any) -> None:
        self._open(Items(), event)

    def _open(self, node: Table | Items, event: Any) -> None:
        place = self._begin(event)
        if len(self._stack) >= _DEEPEST:
            self._report.add(place, (), f"nested deeper than {_DEEPEST} levels")
            raise _Halt
        self._stack.append(_Open(node, place))

    def _end(self, event: Any) -> None:
        closed = self._stack.pop()
        self._put(closed.node, closed.place)

    def _alias(self, event: Any) -> None:
        place = _place(event.start_mark)
        self._report.add(place, self._location(), "anchors and aliases are not supported; write the value out")
        self._put(None, place)

    def _begin(self, event: Any) -> Place:
        """The place of a value; complains about what a configuration has no use for."""
        place = _place(event.start_mark)
        self._values += 1
        if self._values > _MOST_VALUES:
            self._report.add(place, (), f"more than {_MOST_VALUES} values")
            raise _Halt
        if event.anchor is not None:
            self._report.add(place, self._location(), "anchors and aliases are not supported; write the value out")
        if event.tag is not None:
            self._report.add(place, self._location(), "YAML tags ('!...') are not supported")
        return place

    def _put(self, value: object, place: Place) -> None:
        if not self._stack:
            self._root = value
            return
        top = self._stack[-1]
        if isinstance(top.node, Items):
            top.node.append(value)
            top.node.places.append(place)
        else:
            if top.key is None:
                self._report.add(place, self._location(), "a key is plain text")
                raise _Halt
            top.node[top.key] = value
            top.node.places[top.key] = top.key_place
            top.key = None

    def _location(self) -> Location:
        """Where the next value goes."""
        elements = [len(opened.node) if isinstance(opened.node, Items) else opened.key for opened in self._stack]
        return tuple(element for element in elements if element is not None)


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1) if mark is not None else Place(1, 1)


def _plain(text: str) -> object:
    """The value of an unquoted scalar."""
    if text in _NULLS:
        return None
    if text[0] in "+-.0123456789":
        if _INTEGER.fullmatch(text):
            return int(text)
        return float(text) if _NUMBER.fullmatch(text) else text
    return _BOOLEANS.get(text, text)


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    """One sentence about a syntax error."""
    mark = error.problem_mark
    lines = text.split("\n", mark.line + 1) if mark is not None else []
    if mark is not None and mark.line < len(lines) and lines[mark.line][mark.column : mark.column + 1] == "\t":
        return "YAML does not allow tabs here; use blanks"
    context = f"{error.context}: " if error.context else ""
    return f"not valid YAML: {context}{error.problem}"
