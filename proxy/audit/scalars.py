"""Single values of a record, each in its canonical form: the one that PostgreSQL gives back.

Owns these forms. Which column a value is for is known by `columns.py`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final
from uuid import UUID

import orjson

#: Durations are kept within these, milliseconds.
_LONGEST_MS: Final = 1e12
_SHORTEST_MS: Final = 1e-3
#: PostgreSQL adds microseconds as floats, which are exact until then.
_LAST_US: Final = 2**53
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_UUID: Final = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_IPV4: Final = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(?:\.(?!$)|$)){4}")


class Unfit(ValueError):
    """A record from which no row can be made; the text shows no value."""


def json_text(value: Any) -> str | None:
    """JSON text; NUL, which most functions of PostgreSQL refuse in it, is replaced."""
    if value is None:
        return None
    text = orjson.dumps(value).decode()
    return orjson.dumps(_without_nul(value)).decode() if "\\u0000" in text else text


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(inner) for key, inner in value.items()}
    return [_without_nul(inner) for inner in value] if isinstance(value, list) else value


def whole(value: Any) -> int | None:
    """An integer; True is none. Raises Unfit."""
    if value is None or value.__class__ is int:
        return value
    raise Unfit("not a whole number")


def truth(value: Any) -> bool | None:
    """True or false; no number is one. Raises Unfit."""
    if value is None or value.__class__ is bool:
        return value
    raise Unfit("neither true nor false")


def millis(value: float | None) -> float | None:
    """Milliseconds within bounds in which PostgreSQL and Python write a float in the same way."""
    if value is None:
        return None
    if _SHORTEST_MS <= value <= _LONGEST_MS:
        return float(value)
    return 0.0 if value < _SHORTEST_MS else _LONGEST_MS


def micros(text: Any) -> int:
    """Microseconds since 1970 of a time as the recorder writes it, or of any other that ISO 8601 knows. Raises Unfit,
    ValueError and TypeError."""
    if len(text) == 27 and text[26] == "Z":
        return _second(text[:20]) + int(text[20:26])
    return _instant(text)


@lru_cache(512)
def _second(text: str) -> int:
    return _instant(f"{text}0Z")


def _instant(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise Unfit("a time without zone")
    micros = (moment - _EPOCH) // _MICROSECOND
    if not 0 <= micros < _LAST_US:
        raise Unfit("a time before 1970 or after 2255")
    return micros


def identity(text: Any) -> str:
    """The id of a record, which is new each time. Raises Unfit."""
    return text if _UUID.fullmatch(text) else uuid(text)


def uuid_or_none(text: str | None) -> str | None:
    """An id that comes often, if there is one. Raises Unfit."""
    return uuid(text) if text else None


@lru_cache(8192)
def uuid(text: str) -> str:
    """An id that comes often. Raises Unfit."""
    try:
        return str(UUID(text))
    except ValueError:
        raise Unfit("no UUID") from None


@lru_cache(8192)
def address(text: str | None) -> str | None:
    """An address as PostgreSQL writes it, which knows no zones; None for what is none."""
    if text and _IPV4.fullmatch(text):
        return text
    try:
        read = ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    return _address6(read) if isinstance(read, IPv6Address) else str(read)


def _address6(read: IPv6Address) -> str:
    """The last half of `::ffff:1.2.3.4` and `::1.2.3.4` is written as IPv4 (as inet_ntop does)."""
    number = int(read)
    if number >> 32 == 0xFFFF:
        return f"::ffff:{IPv4Address(number & 0xFFFFFFFF)}"
    return f"::{IPv4Address(number)}" if 0xFFFF < number <= 0xFFFFFFFF else str(IPv6Address(number))
