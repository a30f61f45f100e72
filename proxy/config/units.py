"""Durations, sizes and other small values as people write them; each parser raises ValueError with one plain sentence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE: Final = re.compile(r"(\d{1,12})(B|KiB|MiB|GiB)?")
_BYTES: Final = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_WINDOW: Final = re.compile(r"(\d\d:\d\d)-(\d\d:\d\d)(?: ([A-Za-z0-9_+\-/]{1,64}))?")
_REVISION_RANGE: Final = re.compile(r"(>=|<=|>|<|=)?(\d{4}-\d\d-\d\d)")


def duration_s(value: object) -> float:
    """Seconds of `5s`, `200ms`, `15m`, or of a bare 0; anything else is a ValueError."""
    if isinstance(value, float | int) and not isinstance(value, bool) and value == 0:
        return 0.0
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a duration is a number and a unit, such as 200ms, 5s, 15m, 1h or 7d (or 0)")
    return float(match[1]) * _SECONDS[match[2]]


def size_bytes(value: object) -> int:
    """Bytes of `64KiB`, `4MiB` or a plain whole number."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a size is a whole number of bytes, or with a unit: 64KiB, 4MiB, 1GiB")
    return int(match[1]) * _BYTES[match[2]]


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be longer than 0")
    return value


_DURATION_SCHEMA: Final = {"type": ["string", "integer"], "pattern": f"^{_DURATION.pattern}$", "examples": ["5s", "200ms"]}
_SIZE_SCHEMA: Final = {"type": ["string", "integer"], "pattern": f"^{_SIZE.pattern}$", "examples": ["4MiB"]}

#: Seconds; 0 means "no deadline" where the key says so.
Duration = Annotated[float, BeforeValidator(duration_s), WithJsonSchema(_DURATION_SCHEMA)]
#: Seconds, more than 0.
PositiveDuration = Annotated[
    float, BeforeValidator(lambda value: _positive(duration_s(value))), WithJsonSchema(_DURATION_SCHEMA)
]
#: Bytes.
Size = Annotated[int, BeforeValidator(size_bytes), WithJsonSchema(_SIZE_SCHEMA)]


class _Written:
    """A value written as one string: pydantic calls `parse`, the JSON Schema shows `pattern`."""

    pattern: Final = ""

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
class TimeWindow(_Written):
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
class RevisionRange(_Written):
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
        """Whether `revision` (an ISO date) lies in the range."""
        if self.operator == "=":
            return revision == self.revision
        if self.operator == ">=":
            return revision >= self.revision
        if self.operator == "<=":
            return revision <= self.revision
        return revision > self.revision if self.operator == ">" else revision < self.revision
