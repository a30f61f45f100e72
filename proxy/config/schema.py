"""The configuration as a JSON Schema, as a flat list of its keys, and as the tables of the reference manual.

Owns no key itself: everything comes from the models and their docstrings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from proxy.config.models import Config
from proxy.config.units import Written


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the configuration file, with descriptions, and defaults as people write them."""
    body = Config.model_json_schema()
    for kind in _models(Config):
        definition = body["$defs"].get(kind.__name__, body)
        for name, field in kind.model_fields.items():
            if not field.is_required() and "default" in definition["properties"][name]:
                definition["properties"][name]["default"] = _default(field)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **body,
        "title": "MCP Manager configuration",
    }


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the configuration file."""

    path: str
    """`servers.NAME.pool.keepalive`, `routes[].when.tool`."""
    required: bool
    """It has no default."""
    default: Any
    """As in the file: text, numbers, lists; None when it has none or is itself a group of keys."""
    meaning: str
    """Its docstring on one line."""
    group: bool
    """It holds keys of its own, which follow."""
    choices: tuple[str, ...]
    """The words it takes; none when it takes more than a few words."""


def keys() -> Iterator[Key]:
    """Every key, in the order of the models; a group comes before its keys."""
    yield from _keys(Config, "")


def markdown() -> str:
    """Tables of all keys, a section for each key at the top: the middle part of docs/configuration.md."""
    sections: dict[str, list[Key]] = {}
    for key in keys():
        sections.setdefault(re.split(r"[.\[]", key.path)[0], []).append(key)
    return "\n\n".join(_section(name, rows) for name, rows in sections.items()) + "\n"


def _section(name: str, rows: list[Key]) -> str:
    lines = [f"### {name}", "", "| Key | Default | Meaning |", "| --- | --- | --- |"]
    lines += [f"| `{key.path}` | {_shown(key)} | {_explained(key)} |" for key in rows]
    return "\n".join(lines)


def _explained(key: Key) -> str:
    choices = f" One of {', '.join(f'`{choice}`' for choice in key.choices)}." if key.choices else ""
    return key.meaning.replace("|", "\\|") + choices


def _shown(key: Key) -> str:
    if key.required:
        return "required"
    return "" if key.default is None else f"`{json.dumps(key.default).strip(chr(34))}`"


def _keys(kind: type[BaseModel], prefix: str) -> Iterator[Key]:
    for name, field in kind.model_fields.items():
        inner = _model_in(field.annotation)
        meaning = " ".join((field.description or "").split())
        default = None if inner or field.is_required() else _default(field)
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        yield Key(f"{prefix}{name}", field.is_required(), default, meaning, inner is not None, choices)
        if inner is not None:
            yield from _keys(inner, f"{prefix}{name}{_step(field.annotation)}.")


def _models(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield kind
    for field in kind.model_fields.values():
        inner = _model_in(field.annotation)
        if inner is not None:
            yield from _models(inner)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds: itself, optional, as items of a tuple or as values of a dict."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _step(annotation: Any) -> str:
    """How the path goes on under a field: through a name, an index, or directly."""
    origin = get_origin(annotation)
    if origin is dict:
        return ".NAME"
    return "[]" if origin is tuple else ""


def _default(field: FieldInfo) -> Any:
    """The default as it would be written in the file."""
    value = field.default
    for mark in field.metadata:
        if isinstance(mark, Written):
            return mark.text(value)
    return None if value is PydanticUndefined else _compact(value)


def _compact(value: Any) -> Any:
    """JSON for a default; of a group only what makes it one, for its keys show theirs."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return {} if isinstance(value, BaseModel) else to_jsonable_python(value)
