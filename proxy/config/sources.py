"""Every value of a configuration, and where it comes from: a default, a line of the file, a variable, a secret file, a
row.

Owns that no secret is shown: of what a variable, a secret file or a key for secrets gives, only that it is set. It
reads the text of the file once more, to see where each key stands. What keys mean is not known here, but that a rule of
alerts has the rest from the one that it changes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from proxy.config.alerts import AlertRule, merge
from proxy.config.fields import Model
from proxy.config.loader import document
from proxy.config.overrides import SETTINGS, Outcome, Override
from proxy.config.problems import Items, Place, Table, path_text
from proxy.config.units import Written

SET: Final = "(set)"
"""Stands for a value that is not shown."""
_FILE: Final = "file:"


@dataclass(frozen=True, slots=True)
class Origin:
    """A value and whence it is."""

    key: str
    """`servers.github.timeouts.connect`, `routes[3].path`."""
    value: Any
    """As people write it, for JSON; `SET` where it is not shown."""
    source: str
    """`default`, `config.yaml:12`, and for what is not shown also which variable or file it is from."""
    override: Override | None = None
    """The one that set it; then `source` says what the file has."""

    @property
    def text(self) -> str:
        """The value on one line."""
        return self.value if isinstance(self.value, str) else orjson.dumps(self.value, default=str).decode()


def origins(outcome: Outcome, text: str, file: str, env: Mapping[str, str]) -> Iterator[Origin]:
    """Every key that has a value, in the order of the models; `text` is that of the file that is named `file`."""
    mark = os.urandom(8).hex()
    seen = document(text, {name: f"{mark}{name}{mark}" if value else "" for name, value in env.items()})
    walk = _Walk(file, re.compile(f"{mark}(.*?){mark}"), {_place_of(each): each for each in outcome.accepted})
    yield from walk.group(outcome.config, "", _Node(seen))


def _place_of(override: Override) -> str:
    """The key of the configuration that an override sets."""
    if not override.tenant:
        return override.key
    return f"{SETTINGS[override.key].by_tenant}.{path_text((override.tenant,))}"


@dataclass(frozen=True, slots=True)
class _Node:
    """What the file has at a place."""

    value: object = None
    place: Place | None = None
    """None: nothing is written there."""

    def below(self, element: str | int) -> _Node:
        """What is written under a key or index; all of a group that is written as one word comes from there."""
        if isinstance(self.value, Table) and isinstance(element, str):
            return _Node(self.value[element], self.value.places[element]) if element in self.value else _Node()
        if isinstance(self.value, Items) and isinstance(element, int) and element < len(self.value):
            return _Node(self.value[element], self.value.places[element])
        return _Node() if isinstance(self.value, Table) else _Node(None, self.place)


class _Walk:
    """Goes through a configuration and the document that it is from, side by side."""

    def __init__(self, file: str, mark: re.Pattern[str], overrides: Mapping[str, Override]) -> None:
        self._file = file
        self._mark = mark
        self._overrides = overrides

    def group(self, group: Model, prefix: str, node: _Node) -> Iterator[Origin]:
        """Every key of a group."""
        for name, field in type(group).model_fields.items():
            yield from self._value(getattr(group, name), f"{prefix}{name}", node.below(name), field)

    def _value(self, value: object, key: str, node: _Node, field: FieldInfo) -> Iterator[Origin]:
        if isinstance(value, Model):
            yield from self.group(value, f"{key}.", node)
        elif isinstance(value, dict) and value:
            for name, inner in value.items():
                # of YAML every key is text, also that of a pepper
                told = merge(str(name), inner) if isinstance(inner, AlertRule) else inner
                yield from self._value(told, f"{key}.{path_text((str(name),))}", node.below(str(name)), field)
        elif isinstance(value, tuple) and any(isinstance(item, Model) for item in value):
            for index, item in enumerate(value):
                yield from self._value(item, f"{key}[{index}]", node.below(index), field)
        else:
            yield self._leaf(value, key, node, field)

    def _leaf(self, value: object, key: str, node: _Node, field: FieldInfo) -> Origin:
        override, written = self._overrides.get(key), isinstance(node.value, str | int | float | bool | Items)
        source = "default" if node.place is None else f"{self._file}:{node.place.line}"
        if override is not None:
            return Origin(key, override.value, source, override)
        hidden = self._hidden(value, node.value)
        if hidden is not None:
            return Origin(key, SET, f"{hidden}, {source}" if hidden else source)
        if not field.repr and isinstance(value, str):
            return Origin(key, _without_query(value), source)
        return Origin(key, to_jsonable_python(node.value) if written else _default(value, field), source)

    def _hidden(self, value: object, written: object) -> str | None:
        """Why a value is not shown; None for one that is."""
        names = sorted({name for text in _texts(written) for name in self._mark.findall(text)})
        if names:
            return f"environment {' '.join(names)}"
        if isinstance(value, SecretStr) or (isinstance(value, tuple) and any(isinstance(i, SecretStr) for i in value)):
            files = [text.removeprefix(_FILE) for text in _texts(written) if text.startswith(_FILE)]
            return f"file {' '.join(map(str, files))}" if files else ""
        return None


def _texts(written: object) -> Iterator[str]:
    if isinstance(written, str):
        yield written
    elif isinstance(written, list):
        for item in written:
            yield from _texts(item)
    elif isinstance(written, dict):
        for item in written.values():
            yield from _texts(item)


def _without_query(url: str) -> str:
    """A URL without what may be a key."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}{'?...' if parts.query else ''}"


def _default(value: object, field: FieldInfo) -> Any:
    """As it would be written."""
    for mark in field.metadata:
        if isinstance(mark, Written) and isinstance(value, int | float):
            return mark.text(value)
    return int(value) if isinstance(value, float) and value.is_integer() else to_jsonable_python(value, fallback=str)
