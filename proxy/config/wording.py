"""Turns pydantic's errors into one plain sentence each.

Owns the sentences and the "did you mean"; it knows the models' keys but no file, no line and no value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from proxy.config.models import Config
from proxy.config.problems import Location
from proxy.config.units import Written

#: Comparing a misspelt name with 10,000 others takes 50 to 80 ms; 25 guesses help as much as ten thousand.
_MOST_GUESSES: Final = 25

_TEXT: Final = "expected text; put the value into quotes"
_SENTENCES: Final[Mapping[str, str]] = {
    "missing": "this key is required",
    "string_type": _TEXT,
    "string_sub_type": _TEXT,
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_parsing_size": "expected a smaller whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "finite_number": "expected a number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "dict_type": "expected keys and values ('key: value')",
    "model_type": "expected keys and values ('key: value')",
    "model_attributes_type": "expected keys and values ('key: value')",
    "tuple_type": "expected a list",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
}
_FORMATS: Final[Mapping[str, str]] = {
    "literal_error": "expected {expected}",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "string_too_long": "must not be longer than {max_length} characters",
    "value_error": "{error}",
}


def explain(error: ValidationError) -> Iterator[tuple[Location, str]]:
    """Location and sentence of each error."""
    guess = Guess()
    for entry in error.errors(include_url=False):
        location, kind = entry["loc"], entry["type"]
        if kind == "extra_forbidden":
            yield location, _unknown(location, guess)
        elif "input" in entry and entry["input"] is None and kind != "missing":
            yield location, "has no value; give it one or remove the key"
        elif kind in _FORMATS:
            yield location, _FORMATS[kind].format(**_written(entry["ctx"], location))
        else:
            yield location, _SENTENCES.get(kind, "not a valid value")


class Guess:
    """Finds the name that was meant, for as many misspellings as are worth the time."""

    def __init__(self) -> None:
        self._left = _MOST_GUESSES

    def __call__(self, written: str, names: Iterable[str]) -> str:
        """`; did you mean 'x'?`, or nothing."""
        if self._left <= 0:
            return ""
        self._left -= 1
        close = get_close_matches(written[:64], names, n=1)
        return f"; did you mean '{close[0]}'?" if close and close[0].isprintable() else ""


def _unknown(location: Location, guess: Callable[[str, Iterable[str]], str]) -> str:
    keys = _keys_at(location[:-1])
    meant = guess(str(location[-1]), keys)
    return f"unknown key{meant or '; known here: ' + ', '.join(keys)}"


def _keys_at(location: Location) -> Sequence[str]:
    """Keys of the model at `location`, in the order of its definition."""
    return list(_fields_at(location))


def _written(bounds: Mapping[str, Any], location: Location) -> dict[str, Any]:
    """The details of an error, with numbers as they are written under the key at `location`: 4MiB, 5s, 65535."""
    field = _fields_at(location[:-1]).get(str(location[-1])) if location else None
    marks = [mark for mark in field.metadata if isinstance(mark, Written)] if field is not None else []
    text = marks[0].text if marks else "{:.15g}".format
    return {name: text(value) if isinstance(value, int | float) else value for name, value in bounds.items()}


def _fields_at(location: Location) -> Mapping[str, FieldInfo]:
    """The fields of the model at `location`; none when something else stands there."""
    kind: Any = Config
    for element in location:
        kind = _inner(kind, element)
    return kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else {}


def _inner(kind: Any, element: str | int) -> Any:
    """The type of what stands under `element` in a value of type `kind`."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(element))
        return _without_none(field.annotation) if field is not None else None
    arguments = get_args(kind)
    if not arguments:
        return None
    return _without_none(arguments[1] if get_origin(kind) is dict else arguments[0])


def _without_none(kind: Any) -> Any:
    """`X` of `X | None` and of `Annotated[X, ...]`."""
    if hasattr(kind, "__metadata__"):
        kind = get_args(kind)[0]
    arguments = get_args(kind)
    return arguments[0] if type(None) in arguments else kind
