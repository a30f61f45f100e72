"""Durations, sizes and other small values as people write them.

Owns their grammar and how they are written back; each parser raises ValueError with one plain sentence. No key is known
here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time
from typing import Annotated, Any, ClassVar, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

_DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE: Final = re.compile(r"([0-9]{1,12})(B|KiB|MiB|GiB)?")
_BYTES: Final = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
#: Longer would overflow timers, and is a slip of the pen anyway.
_LONGEST_S: Final = 10 * 365 * 86400.0
_WINDOW: Final = re.compile(r"([0-9]{2}:[0-9]{2})-([0-9]{2}:[0-9]{2})(?: ([A-Za-z0-9_+\-/]{1,64}))?")
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_RECURRENCE: Final = re.compile(
    r"(?:([A-Za-z]{3}(?:[,-][A-Za-z]{3}){0,6}) )?([0-9]{2}:[0-9]{2})-([0-9]{2}:[0-9]{2})(?: ([A-Za-z0-9_+\-/]{1,64}))?"
)
_REVISION_RANGE: Final = re.compile(r"(>=|<=|>|<|=)?([0-9]{4}-[0-9]{2}-[0-9]{2})")


def duration_s(value: object) -> float:
    """Seconds of `5s`, `200ms`, `15m`, or of a bare 0; anything else is a ValueError."""
    if value == "0" or (isinstance(value, float | int) and not isinstance(value, bool) and value == 0):
        return 0.0
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a duration is a number and a unit, such as 200ms, 5s, 15m, 1h or 7d (or 0)")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds > _LONGEST_S:
        raise ValueError("a duration is at most ten years")
    return seconds


def duration_text(seconds: float) -> str:
    """The shortest way to write a duration: 900.0 is `15m`."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= _SECONDS[unit] and seconds % _SECONDS[unit] == 0:
            return f"{int(seconds / _SECONDS[unit])}{unit}"
    return f"{round(seconds * 1000)}ms" if seconds else "0"


def size_bytes(value: object) -> int:
    """Bytes of `64KiB`, `4MiB` or a plain whole number."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a size is a whole number of bytes, or with a unit: 64KiB, 4MiB, 1GiB")
    return int(match[1]) * _BYTES[match[2]]


def size_text(size: int) -> str:
    """The shortest way to write a size: 4194304 is `4MiB`."""
    for unit in ("GiB", "MiB", "KiB"):
        if size >= _BYTES[unit] and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return str(size)


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be longer than 0")
    return value


_DURATION_SCHEMA: Final = {"type": "string", "pattern": f"^{_DURATION.pattern}$", "examples": ["5s", "200ms", "15m"]}
_NO_DEADLINE_SCHEMA: Final = {"anyOf": [_DURATION_SCHEMA, {"enum": [0, "0"]}]}
_SIZE_SCHEMA: Final = {
    "type": ["string", "integer"],
    "pattern": f"^{_SIZE.pattern}$",
    "minimum": 0,
    "examples": ["4MiB"],
}


@dataclass(frozen=True, slots=True)
class Written:
    """Marks a number that people write as text, and says how it is written back (defaults in the references)."""

    text: Callable[[Any], str]


_AS_DURATION: Final = Written(duration_text)
#: Seconds; 0 means "no deadline" where the key says so.
Duration = Annotated[float, BeforeValidator(duration_s), WithJsonSchema(_NO_DEADLINE_SCHEMA), _AS_DURATION]
#: Seconds, more than 0.
PositiveDuration = Annotated[
    float, BeforeValidator(lambda value: _positive(duration_s(value))), WithJsonSchema(_DURATION_SCHEMA), _AS_DURATION
]
#: Bytes.
Size = Annotated[int, BeforeValidator(size_bytes), WithJsonSchema(_SIZE_SCHEMA), Written(size_text)]


class _Parsed:
    """A value written as one string: pydantic calls `parse`, the JSON Schema shows `pattern`."""

    pattern: ClassVar[str] = ""

    @classmethod
    def parse(cls, value: object) -> Any:
        raise NotImplementedError

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(cls.parse)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": cls.pattern}


@dataclass(frozen=True, slots=True)
class TimeWindow(_Parsed):
    """`22:00-06:00 Europe/Berlin`: a daily window, start included, end excluded; it may pass midnight. Default UTC."""

    start: time
    end: time
    zone: ZoneInfo

    pattern = f"^{_WINDOW.pattern}$"

    @classmethod
    def parse(cls, value: object) -> TimeWindow:
        if isinstance(value, cls):
            return value
        match = _WINDOW.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError("a time window looks like 22:00-06:00 Europe/Berlin (UTC when no zone is named)")
        try:
            start, end = time.fromisoformat(match[1]), time.fromisoformat(match[2])
            zone = ZoneInfo(match[3] or "UTC")
        except (ValueError, ZoneInfoNotFoundError, OSError):
            raise ValueError("a time window needs hours 00:00 to 23:59 and a known IANA time zone") from None
        if start == end:
            raise ValueError("a time window needs two different times")
        return cls(start, end, zone)

    def holds(self, moment: datetime) -> bool:
        """Whether an aware `moment` falls into the window."""
        now = moment.astimezone(self.zone).time()
        if self.start < self.end:
            return self.start <= now < self.end
        return now >= self.start or now < self.end


@dataclass(frozen=True, slots=True)
class RevisionRange(_Parsed):
    """`>=2026-07-28`: protocol revisions are ISO dates, so they compare as text."""

    operator: str
    revision: str

    pattern = f"^{_REVISION_RANGE.pattern}$"

    @classmethod
    def parse(cls, value: object) -> RevisionRange:
        if isinstance(value, cls):
            return value
        match = _REVISION_RANGE.fullmatch(str(value))  # YAML reads a bare 2025-06-18 as a date
        if match is None:
            raise ValueError("a protocol revision looks like 2025-11-25 or >=2026-07-28")
        return cls(match[1] or "=", match[2])

    def holds(self, revision: str) -> bool:
        """Whether `revision` (an ISO date) lies in the range; '' (unknown) lies in none."""
        if not revision:
            return False
        if self.operator == "=":
            return revision == self.revision
        if self.operator == ">=":
            return revision >= self.revision
        if self.operator == "<=":
            return revision <= self.revision
        return revision > self.revision if self.operator == ">" else revision < self.revision


@dataclass(frozen=True, slots=True)
class Recurrence(_Parsed):
    """`Sun 02:00-04:00 Europe/Berlin`: a window that comes back on some weekdays, or daily when none is named.

    Days are written `Sun`, `Mon,Wed` or `Mon-Fri`, and say when a window begins; it may pass midnight. Default UTC.
    """

    days: frozenset[int]
    """Weekdays of the begin, Monday is 0."""
    start: time
    end: time
    zone: ZoneInfo

    pattern = f"^{_RECURRENCE.pattern}$"

    @classmethod
    def parse(cls, value: object) -> Recurrence:
        if isinstance(value, cls):
            return value
        match = _RECURRENCE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError(
                "a recurring window looks like Sun 02:00-04:00 Europe/Berlin, Mon-Fri 22:00-23:00 or 02:00-02:30"
            )
        hours = f"{match[2]}-{match[3]} {match[4]}" if match[4] else f"{match[2]}-{match[3]}"
        daily = TimeWindow.parse(hours)
        return cls(_weekdays(match[1]), daily.start, daily.end, daily.zone)


def _weekdays(text: str | None) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.lower().split(","):
        first, _, last = part.partition("-")
        if first not in _DAYS or (last or first) not in _DAYS:
            raise ValueError("weekdays are Mon, Tue, Wed, Thu, Fri, Sat and Sun")
        begin, end = _DAYS.index(first), _DAYS.index(last or first)
        days.update(range(begin, end + 1) if begin <= end else (*range(begin, 7), *range(end + 1)))
    return frozenset(days)
