"""The structured log: one JSON object per line, secrets taken out, and never a wait for whoever reads it.

Owns structlog (no other module imports it), the format of a line, and what is taken out of it; lines leave by
`batched_stream.py`. It knows nothing of requests; the access line's fields are `recorder.py`'s.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from codecs import unicode_escape_encode  # found by name, it would be imported when first used
from collections.abc import Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import Final, Literal, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger

from proxy.batched_stream import BatchedStream

Logger = FilteringBoundLogger
"""What `logger()` gives; modules type their `log` parameter with it."""

#: An exception with its traceback; the end is kept, where the cause is.
_EXCEPTION_CHARS: Final = 16 << 10
#: Lines of other libraries (asyncio, aiohttp) per second; with all descriptors in use asyncio alone logs 300.
_FOREIGN_PER_S: Final = 20
_FOREIGN_CHARS: Final = 8000
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_SECRET_NAMES: Final = frozenset(
    ("authorization", "proxy-authorization", "cookie", "set-cookie", "api-key", "apikey", "token", "secret", "password",
     "passwd", "credential", "credentials", "private-key", "session-id")
)  # fmt: skip
_SECRET_ENDS: Final = ("-token", "-secret", "-password", "-api-key", "-private-key", "-session-id", "-credential")
#: An API key, wherever somebody wrote it; its id may be shown.
_API_KEY: Final = re.compile(r"([A-Za-z0-9]{12}_)[A-Za-z0-9]{43}")
#: In what others say: user and password of a URL, and its query.
_URL_USER: Final = re.compile(r"(?<=://)[^\s/@'\"]+@")
_URL_QUERY: Final = re.compile(r"(?<=[\w/%.~:-])\?[\w%][^\s'\")>\]]*")
_NESTING: Final = 4
_PLAIN: Final = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
_ANY_KEY: Final = _PLAIN | orjson.OPT_NON_STR_KEYS


def printable(text: str, limit: int) -> str:
    """About `limit` characters, no secret of an API key, and escapes for what could move a cursor or end a line."""
    text = text if len(text) < 56 else _API_KEY.sub(rf"\1{'*' * 43}", text[: limit + 43])
    text = text if len(text) <= limit else f"{text[:limit]}..."
    return text if text.isprintable() else unicode_escape_encode(text)[0].decode("ascii")


def _without_keys(text: str) -> str:
    """What libraries and exceptions say names URLs as they are: without what may be a key in them."""
    return _URL_QUERY.sub("?...", _URL_USER.sub("...@", text))


def _is_secret(name: str) -> bool:
    name = name.lower().replace("_", "-")
    return name in _SECRET_NAMES or name.endswith(_SECRET_ENDS)


def _redacted(name: object, value: object, depth: int = 0) -> object:
    if isinstance(name, str) and _is_secret(name):
        return "[redacted]"
    if isinstance(value, Mapping | list | tuple) and depth == _NESTING:
        return "[nested]"
    if isinstance(value, Mapping):
        return {key: _redacted(key, item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        if len(value) == 2 and isinstance(value[0], str):  # a header field: (name, value)
            return [value[0], _redacted(value[0], value[1], depth + 1)]
        return [_redacted("", item, depth + 1) for item in value]
    return value


def redact(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Replace the values of keys named like secrets, also inside of mappings and lists of header fields."""
    return {name: _redacted(name, value) for name, value in event.items()}


def _stamp(_logger: object, method: str, event: EventDict) -> EventDict:
    level = "error" if method == "exception" else method
    return {"timestamp": datetime.now(UTC), "level": level, "event": event.pop("event", ""), **event}


def _exception(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Turn `exc_info` into one text, so that a traceback is one field of one line."""
    cause = event.pop("exc_info", None)
    if cause is True:
        cause = sys.exc_info()
    error = cause[1] if isinstance(cause, tuple) else cause
    if isinstance(error, BaseException):
        event["exception"] = _without_keys("".join(traceback.format_exception(error))[-_EXCEPTION_CHARS:])
    return event


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _json_line(event: Mapping[str, object]) -> bytes:
    try:
        return orjson.dumps(event, _text, _ANY_KEY)
    except TypeError:  # a lone surrogate, a huge integer: that field alone is written as text
        return orjson.dumps({printable(name, 200): _encodable(value) for name, value in event.items()}, _text, _ANY_KEY)


def _encodable(value: object) -> object:
    try:
        orjson.dumps(value, _text, _ANY_KEY)
    except TypeError:
        return printable(ascii(value), 2000)
    return value


def _json(_logger: object, _method: str, event: EventDict) -> bytes:
    return _json_line(event)


class _Console:
    """Lines for people: time, level, event, then key=value; hostile text is escaped before it is coloured."""

    def __init__(self, colors: bool) -> None:
        self._render = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0, sort_keys=False)

    def __call__(self, _logger: object, method: str, event: EventDict) -> bytes:
        shown: EventDict = {}
        for name, value in event.items():
            if name == "exception":
                shown[name] = "\n".join(printable(line, _EXCEPTION_CHARS) for line in _text(value).split("\n"))
            elif isinstance(value, datetime):
                shown[name] = value.strftime("%H:%M:%S.%f")[:-3]
            elif value is not None:
                shown[name] = printable(_text(value), 2000)
        return self._render(None, method, shown).encode("utf-8", "backslashreplace") + b"\n"


class AccessLog:
    """The line of each request. It takes the same format and stream as every other line, but skips structlog's chain.

    The fields are fixed and hold no secrets, so there is nothing to filter or redact: 1.4 us instead of 27.
    """

    __slots__ = ("_console", "_stream")

    def __init__(self, stream: BatchedStream, format: Literal["json", "console"]) -> None:
        self._stream = stream
        self._console = _Console(stream.terminal) if format == "console" else None

    def write(self, line: dict[str, object]) -> None:
        """Write one line, which begins with `timestamp`, `level` and `event` as all do.

        Its values must be safe to show: bounded, free of secrets, text of the client made `printable`.
        """
        if self._console is None:
            self._stream.write(orjson.dumps(line, _text, _PLAIN))
        else:
            self._stream.write(self._console(None, "info", line))

    def write_line(self, line: bytes) -> None:
        """The same for a line that is JSON already, its newline included."""
        if self._console is None:
            self._stream.write(line)
        else:
            fields = orjson.loads(line)
            self.write({**fields, "timestamp": datetime.fromisoformat(fields["timestamp"])})


class _Sink:
    """The end of structlog's chain: a warning or worse leaves at once."""

    def __init__(self, stream: BatchedStream) -> None:
        self._stream = stream
        self.debug = self.info = stream.write

    def warning(self, line: bytes) -> None:
        self._stream.write(line)
        self._stream.flush()

    error = critical = warning


class _Foreign(logging.Handler):
    """Takes what other libraries say through `logging` into the same log, at most `_FOREIGN_PER_S` lines a second."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._second = 0
        self._count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; those over the rate are counted, and the number goes with the next one written."""
        second = int(monotonic())
        fields = {}
        if second != self._second:
            if self._count > _FOREIGN_PER_S:
                fields["suppressed"] = self._count - _FOREIGN_PER_S
            self._second, self._count = second, 0
        self._count += 1
        if self._count <= _FOREIGN_PER_S:
            say = logger(record.name).error if record.levelno >= logging.ERROR else logger(record.name).warning
            say(printable(_without_keys(_message(record)[:_FOREIGN_CHARS]), 2000), exc_info=record.exc_info, **fields)


def _message(record: logging.LogRecord) -> str:
    """What a library says; a mistake in how it says it must not come back to it as an exception."""
    try:
        return record.getMessage()
    except (TypeError, ValueError, LookupError, AttributeError):  # of formatting
        return f"{record.msg:.1000} (its values do not fit)" if isinstance(record.msg, str) else "(no text)"


def logger(name: str) -> Logger:
    """A logger whose lines say `component: name`. It follows every later `configure`, unless it was bound further."""
    return cast(Logger, structlog.get_logger(component=name))


def configure(level: str, format: Literal["json", "console"], stream: BatchedStream) -> None:
    """Set up logging of the whole process, warnings of other libraries included; a reload calls it again."""
    structlog.configure(
        processors=[_stamp, _exception, redact, _Console(stream.terminal) if format == "console" else _json],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: _Sink(stream),
        cache_logger_on_first_use=False,  # else the level of a reload would not reach loggers in use
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Foreign)]:
        root.removeHandler(handler)
    root.addHandler(_Foreign())
    root.setLevel(logging.WARNING)
