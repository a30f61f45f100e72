"""Log lines are whole, in order and safe to show, and nobody waits for their reader."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy import log
from proxy.log import AccessLog, BatchedStream, configure, logger, printable, redact

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


# --- the stream -----------------------------------------------------------------------------------------------------


class Pipe:
    """A pipe whose reader reads when told."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self._open = {self.reading, self.writing}
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 4096)

    def fill(self) -> None:
        """From now on a write blocks until somebody reads."""
        os.write(self.writing, b"-" * 4096)

    def read_all(self) -> bytes:
        """What comes until the writing end is closed."""
        seen = b""
        while piece := os.read(self.reading, 65536):
            seen += piece
        return seen

    def close(self, *ends: int) -> None:
        """Close these ends, or both; the reading end first, so that a writer that is stuck comes free."""
        for end in ends or (self.reading, self.writing):
            if end in self._open:
                self._open.remove(end)
                os.close(end)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def wait_for(condition: Callable[[], bool]) -> None:
    """Give the writer thread its turn; a second is far more than it needs."""
    turn = threading.Event()
    for _ in range(1000):
        if condition():
            return
        turn.wait(0.001)
    raise AssertionError("the writer thread did not get there")


def test_lines_wait_for_a_flush(pipe: Pipe) -> None:
    """Nothing is written line by line."""
    stream = BatchedStream(pipe.writing)
    os.set_blocking(pipe.reading, False)
    stream.write(b"one\n")
    stream.write(b"two\n")
    with pytest.raises(BlockingIOError):
        os.read(pipe.reading, 100)
    stream.close()
    assert os.read(pipe.reading, 100) == b"one\ntwo\n"


def test_a_warning_does_not_wait(pipe: Pipe) -> None:
    """Warnings and errors leave at once, behind what was collected before them."""
    stream = BatchedStream(pipe.writing)
    configure("info", "json", stream)
    logger("app").info("first")
    logger("app").warning("second")
    seen = b""
    while seen.count(b"\n") < 2:
        seen += os.read(pipe.reading, 4096)
    assert [orjson.loads(line)["event"] for line in seen.splitlines()] == ["first", "second"]
    stream.close()


def test_a_full_batch_does_not_wait(pipe: Pipe) -> None:
    """Memory is bounded without anyone calling flush."""
    stream = BatchedStream(pipe.writing)
    line = b"x" * 1023 + b"\n"
    for _ in range(256):
        stream.write(line)
    assert os.read(pipe.reading, 1024) == line
    reader = threading.Thread(target=pipe.read_all)
    reader.start()
    stream.close()
    pipe.close(pipe.writing)
    reader.join(5)
    assert stream.dropped == 0


def test_a_reader_that_stalls_costs_lines_but_never_time(pipe: Pipe) -> None:
    """Beyond what may wait, lines are dropped and counted; write and flush return although the pipe is full."""
    pipe.fill()
    stream = BatchedStream(pipe.writing, waiting_bytes=20_000)
    line = b"x" * 999 + b"\n"
    for _ in range(100):
        stream.write(line)
        stream.flush()
    assert stream.dropped == 80
    reader = threading.Thread(target=lambda: seen.append(pipe.read_all()))
    seen: list[bytes] = []
    reader.start()
    stream.close()
    pipe.close(pipe.writing)
    reader.join(5)
    assert seen[0][4096:] == line * 20


def test_writing_goes_on_when_the_reader_comes_back(pipe: Pipe) -> None:
    """A stall is no end: what comes after it is written again."""
    pipe.fill()
    stream = BatchedStream(pipe.writing, waiting_bytes=8000)
    for number in range(20):
        stream.write(b"%03d" % number + b"x" * 996 + b"\n")
        stream.flush()
    assert stream.dropped == 12
    seen = b""
    while len(seen) < 4096 + 8 * 1000:
        seen += os.read(pipe.reading, 4096)
    wait_for(lambda: stream._handed == 0)
    stream.write(b"back\n")
    stream.close()
    assert os.read(pipe.reading, 4096).endswith(b"back\n")


def test_a_reader_that_left_costs_lines_and_nothing_else(pipe: Pipe) -> None:
    """A broken pipe is counted, not raised."""
    stream = BatchedStream(pipe.writing)
    pipe.close(pipe.reading)
    stream.write(b"one\n")
    stream.write(b"two\n")
    stream.close()
    assert stream.dropped == 2


def test_a_non_blocking_descriptor_is_waited_for(pipe: Pipe) -> None:
    """A parent may have made our standard output non-blocking: then nothing is lost all the same."""
    pipe.fill()
    os.set_blocking(pipe.writing, False)
    stream = BatchedStream(pipe.writing)
    lines = [b"%05d\n" % number for number in range(5000)]
    for line in lines:
        stream.write(line)
    stream.flush()
    wait_for(stream._queue.empty)
    seen = b""
    while len(seen) < 4096 + 30_000 and not stream.dropped:
        seen += os.read(pipe.reading, 4096)
    stream.close()
    assert seen[4096:] == b"".join(lines)
    assert stream.dropped == 0


def test_close_does_not_wait_for_ever(pipe: Pipe) -> None:
    """A reader that never reads delays the exit by the timeout at most; later lines are counted as lost."""
    stream = BatchedStream(pipe.writing)
    stream.write(b"x" * 100_000 + b"\n")
    stream.close(timeout_s=0.01)
    stream.write(b"late\n")
    stream.flush()
    assert stream.dropped == 1
    stream.close(timeout_s=0.01)


def test_lines_of_many_threads_are_whole(journal: Journal) -> None:
    """Anyone may log from any thread."""

    def work(name: int) -> None:
        for number in range(500):
            journal.stream.write(b'{"thread":%d,"number":%d}\n' % (name, number))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = journal.lines()
    for name in range(4):
        assert [line["number"] for line in lines if line["thread"] == name] == list(range(500))
