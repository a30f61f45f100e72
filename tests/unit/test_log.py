"""Log lines are whole, in order and safe to show, and nobody waits for their reader."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy import log
from proxy.batched_stream import BatchedStream
from proxy.log import AccessLog, configure, logger, printable, redact

pytestmark = pytest.mark.usefixtures("logging_restored")


class Journal:
    """A stream into a file, and what it says in the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.stream = BatchedStream(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))

    def text(self) -> str:
        """All that was written; the journal ends with it."""
        self.stream.close()
        return self._path.read_bytes().decode()

    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "log")


# --- lines ----------------------------------------------------------------------------------------------------------


def test_a_line_is_one_json_object_with_time_level_and_event_first(journal: Journal) -> None:
    """Every line begins the same way, then says who speaks and what was given."""
    configure("info", "json", journal.stream)
    logger("app").info("serving", port=8080)
    (line,) = journal.lines()
    assert list(line) == ["timestamp", "level", "event", "component", "port"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z", line["timestamp"])
    assert (line["level"], line["event"], line["component"], line["port"]) == ("info", "serving", "app", 8080)


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_lines_below_the_level_are_not_written(journal: Journal, level: str, shown: list[str]) -> None:
    """The level is the lowest that appears."""
    configure(level, "json", journal.stream)
    speaker = logger("app")
    for say in (speaker.debug, speaker.info, speaker.warning, speaker.error):
        say("x")
    assert [line["level"] for line in journal.lines()] == shown


def test_a_reload_changes_the_level_of_loggers_in_use(journal: Journal) -> None:
    """`configure` may be called again; nobody needs a new logger."""
    configure("error", "json", journal.stream)
    speaker = logger("app")
    speaker.info("before")
    configure("info", "json", journal.stream)
    speaker.info("after")
    assert [line["event"] for line in journal.lines()] == ["after"]


def test_an_exception_is_one_field_of_one_line(journal: Journal) -> None:
    """The traceback does not spill into lines of its own, and a message that looks like a line does not become one."""
    configure("info", "json", journal.stream)
    try:
        raise ValueError('evil\n{"event":"fake"}\x1b[31m')
    except ValueError:
        logger("app").exception("failed")
    (line,) = journal.lines()
    assert line["event"] == "failed"
    assert line["level"] == "error"
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert 'ValueError: evil\n{"event":"fake"}' in line["exception"]
    assert "exc_info" not in line


def test_an_exception_can_be_handed_in(journal: Journal) -> None:
    """A failed task's exception is logged after the fact; its end is kept when it is too long."""
    configure("info", "json", journal.stream)
    logger("app").error("failed", exc_info=ValueError("x" * 100_000 + " the cause"))
    (line,) = journal.lines()
    assert len(line["exception"]) <= 16 << 10
    assert line["exception"].rstrip().endswith("the cause")


def test_what_json_cannot_hold_is_written_as_text(journal: Journal) -> None:
    """A value nobody foresaw must not lose the line: huge numbers, lone surrogates, bytes, objects, odd keys."""
    configure("info", "json", journal.stream)
    logger("app").info(
        "odd",
        huge=1 << 70,
        lone="\ud800",
        raw=b"\xff",
        path=Path("/x"),
        inner={1: frozenset((2,))},
    )
    logger("app").info("bytes", raw=b"a\xff", inner={1: "one"})
    odd, plain = journal.lines()
    assert odd["huge"] == str(1 << 70)
    assert odd["lone"] == "'\\ud800'"
    assert odd["inner"] == {"1": "frozenset({2})"}
    assert odd["path"] == "/x"
    assert odd["timestamp"].endswith("Z")
    assert plain["raw"] == "a\\xff"
    assert plain["inner"] == {"1": "one"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=50), st.dictionaries(st.from_regex(r"x_[a-z]{1,8}", fullmatch=True), json_values, max_size=4))
@pytest.mark.parametrize("format", ["json", "console"])
def test_any_event_is_one_line(format: Any, event: str, fields: dict[str, Any]) -> None:
    """Whatever is logged, in either format, it is one line, and a terminal only prints it (reliability D4)."""
    reading, writing = os.pipe()
    stream = BatchedStream(writing)
    configure("info", format, stream)
    logger("app").info(event, **fields)
    stream.close()
    os.close(writing)
    with open(reading, "rb") as pipe:
        written = pipe.read()
    assert written.endswith(b"\n")
    assert written.count(b"\n") == 1
    if format == "json":
        assert not re.search(rb"[\x00-\x09\x0b-\x1f]", written)
        assert orjson.loads(written)["component"] == "app"
    else:
        assert written.decode().rstrip("\n").isprintable()


def test_the_console_shows_hostile_text_as_escapes(journal: Journal) -> None:
    """Colours and line breaks are the renderer's alone, also inside of a traceback."""
    configure("info", "console", journal.stream)
    try:
        raise ValueError("evil\x1b[2J")
    except ValueError:
        logger("app").exception("red\x1b[31m\nfake", name="a\nb\u009b2J")
    text = journal.text()
    assert "red\\x1b[31m\\nfake" in text
    assert "a\\nb\\x9b2J" in text
    assert "ValueError: evil\\x1b[2J" in text
    assert "\x1b" not in text
    assert "Traceback (most recent call last):\n" in text


# --- secrets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "Authorization", "cookie", "Set-Cookie", "x-api-key", "X_API_KEY", "token", "access_token", "secret",
        "client_secret", "password", "db_password", "Mcp-Session-Id", "proxy-authorization", "private_key",
    ],
)  # fmt: skip
def test_values_named_like_secrets_are_redacted(journal: Journal, name: str) -> None:
    """At the top, in a mapping, in a list of header fields."""
    configure("info", "json", journal.stream)
    logger("app").info(
        "x", **{name: "hunter2"}, headers={"deep": {name: "hunter2"}}, pairs=[(name, "hunter2"), ("a", "b")]
    )
    text = journal.text()
    assert "hunter2" not in text
    assert text.count("[redacted]") == 3
    assert '["a","b"]' in text


@pytest.mark.parametrize("name", ["port", "tokens_left", "key", "affinity_key", "path", "secretary"])
def test_other_names_are_left_alone(name: str) -> None:
    """Redaction goes by the name, and an over-eager one would hide what an operator needs."""
    assert redact(None, "info", {name: "shown"}) == {name: "shown"}


def test_deep_nesting_is_cut_rather_than_searched(journal: Journal) -> None:
    """A secret cannot hide below the depth that is looked at."""
    value: object = {"token": "hunter2"}
    for _ in range(50):
        value = {"a": [value]}
    configure("info", "json", journal.stream)
    logger("app").info("x", nested=value)
    assert "hunter2" not in journal.text()


@given(st.text(), st.integers(0, 40))
def test_printable_text_is_printable_and_bounded(text: str, limit: int) -> None:
    """Text that is harmless and short stays as it is; everything else becomes escapes."""
    shown = printable(text, limit)
    assert shown.isprintable()
    if len(text) <= limit and text.isprintable():
        assert shown == text
    assert len(shown) <= (limit + 3) * 10


def test_the_secret_of_a_key_is_not_printed_wherever_it_stands() -> None:
    """In a path, behind an escape, cut off by the limit; the id tells which key has to be revoked."""
    secret = "S" * 43
    for text in (
        f"/acme/mcpm_0123456789aB_{secret}_01234567",
        f"/%6dcpm_0123456789aB_{secret}",
        f"{'x' * 20}_{secret}",
    ):
        for limit in (40, 60, 256):
            assert "S" * 10 not in printable(text, limit)
    assert printable(f"/mcpm_0123456789aB_{secret}_01234567/mcp", 99) == f"/mcpm_0123456789aB_{'*' * 43}_01234567/mcp"
    two = f"/mcpm_0123456789aB_{secret}/mcpm_0123456789aB_{secret}"
    assert all("S" not in printable(two, limit) for limit in range(130))
    assert printable(f"/a-long-but-harmless-path/{'x' * 43}", 99).endswith("x" * 43)


# --- other libraries ------------------------------------------------------------------------------------------------


def test_warnings_of_other_libraries_join_the_log(journal: Journal) -> None:
    """`logging` at warning and above arrives with its logger's name; below it does not."""
    configure("info", "json", journal.stream)
    logging.getLogger("asyncio").info("chatter")
    logging.getLogger("asyncio").warning("slow %s\n", "callback")
    try:
        raise OSError("boom")
    except OSError:
        logging.getLogger("aiohttp.server").exception("failed")
    first, second = journal.lines()
    assert (first["level"], first["component"], first["event"]) == ("warning", "asyncio", "slow callback\\n")
    assert (second["level"], second["component"]) == ("error", "aiohttp.server")
    assert "OSError: boom" in second["exception"]


def test_what_others_say_of_a_url_is_without_what_may_be_a_key(journal: Journal) -> None:
    """User, password and query, in messages and in tracebacks; a question is not a query."""
    told = "Max retries with url: /v1/traces?token=s3cret (Caused by 'https://me:s3cret@host/x?a=s3cret')? Why?"
    configure("info", "json", journal.stream)
    logging.getLogger("some.library").warning(told)
    try:
        raise ConnectionError(told)
    except ConnectionError:
        logger("app").exception("failed")
    first, second = journal.lines()
    assert first["event"] == "Max retries with url: /v1/traces?... (Caused by 'https://...@host/x?...')? Why?"
    assert second["exception"].endswith(f"ConnectionError: {first['event']}\n")


def test_a_library_that_logs_wrongly_does_not_hear_of_it(journal: Journal) -> None:
    """It would fail where it only wanted to say something; what can be said is."""

    class Broken:
        def __str__(self) -> str:
            raise ValueError

    configure("info", "json", journal.stream)
    for message, values in (("%d of %s", ("one",)), (Broken(), ())):  # not by a logger: others listen there, too
        log._Foreign().handle(logging.LogRecord("some.library", logging.WARNING, "", 1, message, values, None))
    assert [line["event"] for line in journal.lines()] == ["%d of %s (its values do not fit)", "(no text)"]


def test_a_flood_from_another_library_is_cut_and_counted(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio logs a traceback per failed accept: 20 lines a second appear, then the number of the rest."""
    now = [100.0]
    monkeypatch.setattr(log, "monotonic", lambda: now[0])
    configure("info", "json", journal.stream)
    for _ in range(1000):
        logging.getLogger("asyncio").error("socket.accept() out of system resource")
    now[0] = 101.0
    logging.getLogger("asyncio").error("again")
    lines = journal.lines()
    assert len(lines) == 21
    assert lines[-1]["suppressed"] == 980


def test_configuring_again_does_not_double_the_lines_of_others(journal: Journal) -> None:
    """One handler, however many reloads."""
    for _ in range(3):
        configure("info", "json", journal.stream)
    logging.getLogger("asyncio").warning("once")
    assert len(journal.lines()) == 1


# --- the access line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["json", "console"])
def test_the_access_line_has_the_format_of_all_lines(journal: Journal, format: Any) -> None:
    """JSON as given, or the console's key=value without the fields that are absent."""
    AccessLog(journal.stream, format).write(
        {"timestamp": "t", "level": "info", "event": "request", "status": 200, "reason": None}
    )
    text = journal.text()
    if format == "json":
        assert text == '{"timestamp":"t","level":"info","event":"request","status":200,"reason":null}\n'
    else:
        assert "request" in text
        assert "status=200" in text
        assert "reason" not in text
