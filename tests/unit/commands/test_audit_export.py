"""`audit export`."""

from __future__ import annotations

import csv
import io
import os
import stat
from datetime import timedelta
from pathlib import Path

import orjson
import pytest

from proxy.audit.columns import NAMES
from proxy.commands import audit_source
from tests.unit.commands.auditor import DAY, Auditor, auditor

__all__ = ["auditor"]


class Bytes(io.TextIOWrapper):
    """Standard output of which the bytes are kept."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())

    @property
    def content(self) -> bytes:
        """Everything so far."""
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue()


def written(auditor: Auditor, *arguments: str) -> bytes:
    out = Bytes()
    auditor.monkeypatch.setattr("sys.stdout", out)
    code, _, err = auditor.run("export", *DAY, *arguments)
    assert code == 0, err
    return out.content


def test_rows_are_lines_of_json(auditor: Auditor) -> None:
    """By tenant and time, without what is null; nothing but rows is on standard output."""
    rows = [orjson.loads(line) for line in written(auditor).splitlines()]
    assert len(rows) == 40
    assert rows == sorted(rows, key=lambda row: (row["tenant_id"], row["ts"]))
    assert all(None not in row.values() and row["chain"] for row in rows)


def test_filters_and_tenants_are_as_in_a_search(auditor: Auditor) -> None:
    """Only such rows are written."""
    assert len(written(auditor, "--tenant", "acme").splitlines()) == 26
    assert len(written(auditor, "--tenant", "acme", "--outcome", "ok").splitlines()) == 13
    assert written(auditor, "--target", "nothing") == b""


def test_rows_are_csv(auditor: Auditor) -> None:
    """With a line of headings; no cell is a formula for a spreadsheet."""
    auditor.change("UPDATE audit_logs SET user_agent = '=1+1' WHERE seq = 1")
    auditor.change("UPDATE audit_logs SET user_agent = E'a\"b,\\n' WHERE seq = 2")
    rows = list(csv.DictReader(io.StringIO(written(auditor, "--format", "csv").decode(), newline="")))
    assert list(rows[0]) == [*NAMES, "chain"]
    assert len(rows) == 40
    assert {row["user_agent"] for row in rows} == {"'=1+1", 'a"b,\n', "client/1.0"}
    assert rows[0]["ts"].startswith("2026-11-22T12:00:00.")
    assert rows[0]["reason"] == ""


def test_a_file_is_whole_and_nobody_elses(auditor: Auditor) -> None:
    """It replaces another one of this name."""
    path = auditor.config.parent / "out.jsonl"
    path.write_text("old")
    code, out, err = auditor.run("export", *DAY, "--output", str(path))
    assert (code, out, err) == (0, "", "40 rows\n")
    assert len(path.read_bytes().splitlines()) == 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir() if "part" in each.name] == []


def test_a_file_that_cannot_be_finished_is_not_there(auditor: Auditor) -> None:
    """Neither whole nor in part: the old one stays."""
    path = auditor.config.parent / "out.jsonl"
    path.write_text("old")
    assert "no tenant" in auditor.refused("export", *DAY, "--tenant", "nobody", "--output", str(path))
    assert path.read_text() == "old"
    assert "cannot be written" in auditor.refused("export", "--output", str(path.parent / "no" / "x"))
    assert [each.name for each in path.parent.iterdir() if "part" in each.name] == []


def test_whole_segments_begin_with_their_heads(auditor: Auditor) -> None:
    """All rows of a segment come, whichever of them the range is about."""
    path = auditor.config.parent / "whole.jsonl"
    since = ("--since", "2026-11-22T12:00:00.030Z", "--until", "2026-11-22T13:00Z")
    code, _, err = auditor.run("export", *since, "--whole", "--output", str(path))
    rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert (code, err) == (0, "40 rows, 2 signed heads\n")
    assert [row["kind"] == "head" for row in rows[:3]] == [True, True, False]
    assert len(rows) == 42


def test_each_head_of_a_long_time_is_written_once(auditor: Auditor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it is read in portions, and a segment is in several of them."""
    monkeypatch.setattr(audit_source, "_MOST_PLACES", 1)
    monkeypatch.setattr(audit_source, "_SHORTEST", timedelta(milliseconds=5))
    path = auditor.config.parent / "whole.jsonl"
    time = ("--since", "2026-11-22T12:00:00Z", "--until", "2026-11-22T12:00:00.050Z")
    assert auditor.run("export", *time, "--whole", "--output", str(path))[2] == "40 rows, 2 signed heads\n"
    days = ("--since", "2026-11-19", "--until", "2026-11-25")
    assert auditor.run("export", *days, "--whole", "--output", str(path))[2] == "40 rows, 2 signed heads\n"
    assert auditor.verified("--file", str(path), "--key", str(auditor.write_key()))["complete"]


@pytest.mark.parametrize("more", [("--format", "csv"), ("--outcome", "ok"), ("--risk", "low")])
def test_whole_segments_are_not_filtered(auditor: Auditor, more: tuple[str, str]) -> None:
    """They could not be verified then."""
    assert "--whole" in auditor.refused("export", *DAY, "--whole", *more)


def test_a_reader_that_goes_away_is_not_misuse(auditor: Auditor, tmp_path: Path) -> None:
    """`audit export | head` ends as other commands do; a disk that is full is told."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as pipe:
        auditor.monkeypatch.setattr("sys.stdout", type("Out", (), {"buffer": pipe})())
        with pytest.raises(BrokenPipeError):
            auditor.run("export", *DAY)
    with open("/dev/full", "wb", buffering=0) as full:
        auditor.monkeypatch.setattr("sys.stdout", type("Out", (), {"buffer": full})())
        code, _, err = auditor.run("export", *DAY)
    assert (code, "cannot be written" in err) == (2, True)


@pytest.mark.parametrize("output", ["/", ".", "..", "fifo"])
def test_what_is_no_file_is_not_replaced_by_one(auditor: Auditor, output: str) -> None:
    """A pipe or a device stays what it is, a folder has no rows in it."""
    fifo = auditor.config.parent / "fifo"
    os.mkfifo(fifo)
    assert "is to be a file" in auditor.refused("export", *DAY, "--output", str(auditor.config.parent / output))
    assert stat.S_ISFIFO(fifo.stat().st_mode)
