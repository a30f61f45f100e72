"""What commands read and print."""

from __future__ import annotations

import io
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.commands import console
from proxy.commands.console import Misuse, local, printable, read_text, show_json, show_table, told


def test_a_table_has_columns_of_equal_width(capsys: pytest.CaptureFixture[str]) -> None:
    """None is a dash, lists are words, so are true and false, no line ends in blanks."""
    show_table(("A", "LONGER"), [["aaa", None], [("x", "y"), ()], [1, "z"], [True, False]])
    assert capsys.readouterr().out == "A    LONGER\naaa  -\nx y  -\n1    z\nyes  no\n"


def test_a_remark_that_nobody_can_read_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that has done its work ends as such."""
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        console.remark("done")
        monkeypatch.undo()
        with suppress(OSError):
            full.close()


def test_a_time_is_shown_as_people_write_it(capsys: pytest.CaptureFixture[str]) -> None:
    """To the minute, with the offset."""
    show_table(("AT",), [[datetime(2026, 11, 22, 12, 30, 59, tzinfo=UTC)]])
    assert datetime.fromisoformat(capsys.readouterr().out.splitlines()[1]) == datetime(2026, 11, 22, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Los_Angeles", "UTC"])
def test_the_ends_of_time_are_shown(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In UTC where the zone of the machine has no such time."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for moment in (datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)):
            shown = datetime.fromisoformat(local(moment, "microseconds"))
            assert shown.replace(tzinfo=None) - (shown.utcoffset() or timedelta()) == moment.replace(tzinfo=None)
            assert local(moment.replace(tzinfo=None))
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.text(max_size=100))
def test_nothing_printable_moves_the_cursor(text: str) -> None:
    """Escape sequences of a terminal least of all."""
    shown = printable(text)
    assert shown.isprintable() and len(shown) <= 64


def test_json_holds_times_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    """RFC 3339."""
    show_json({"at": datetime(2026, 11, 22, tzinfo=UTC)})
    assert "2026-11-22T00:00:00+00:00" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"\xff", b"x" * 200])
def test_a_file_that_is_no_text_or_too_large_is_refused(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Likewise standard input."""
    monkeypatch.setattr(console, "_LARGEST", 100)
    (tmp_path / "file").write_bytes(content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    for name in (str(tmp_path / "file"), "-"):
        with pytest.raises(Misuse, match=r"^the file (is not UTF-8|cannot be read)"):
            read_text(name)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (FileNotFoundError(2, "No such file or directory", "/x/y"), "/x/y: No such file or directory"),
        (PermissionError(13, "Permission denied", "/x"), "/x: Permission denied; run the command as the user who runs"),
        (PermissionError("/x: chmod 600 it"), "/x: chmod 600 it"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_before_the_reason(error: OSError, sentence: str) -> None:
    """Without the number of the error; who is not allowed is told who is."""
    assert told(error).startswith(sentence) and "Errno" not in told(error)


def test_a_standard_input_that_is_closed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mcp-manager servers import - <&-`."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(Misuse, match="standard input is closed"):
        read_text("-")


def test_a_mark_at_the_beginning_is_no_part_of_a_text(tmp_path: Path) -> None:
    """Editors of one system write it."""
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfx")
    assert read_text(str(tmp_path / "file")) == "x"
