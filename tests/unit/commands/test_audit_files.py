"""`audit verify --file`: exports, verified with nothing but the public key."""

from __future__ import annotations

import gzip
import io
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.audit.passages import Strange
from proxy.commands import audit_files
from proxy.commands.audit_files import lines
from tests.unit.commands.auditor import DAY, Auditor, auditor

__all__ = ["auditor"]


@pytest.fixture
def export(auditor: Auditor) -> Path:
    """Whole segments; there is neither a database nor a key of this installation any more."""
    path = auditor.export()
    auditor.config.write_text("no configuration at all")
    return path


def verified(auditor: Auditor, *paths: Path) -> dict[str, object]:
    files = itertools.chain.from_iterable(("--file", str(path)) for path in paths)
    return auditor.verified(*files, "--key", str(auditor.config.parent / "public.pem"))


def test_an_export_is_complete(auditor: Auditor, export: Path) -> None:
    """Without a database and a configuration."""
    report = verified(auditor, export)
    assert (report["complete"], report["rows"], report["heads"]) == (True, 40, 2)


def test_several_are_verified_each_by_itself(auditor: Auditor, export: Path) -> None:
    """They may hold the same segments; compressed ones count, too."""
    packed = export.with_suffix(".gz")
    packed.write_bytes(gzip.compress(export.read_bytes()))
    assert verified(auditor, export, packed)["rows"] == 80
    packed.write_bytes(packed.read_bytes()[:-20])
    assert "cannot be read" in auditor.refused("verify", "--file", str(packed), "--key", str(
        auditor.config.parent / "public.pem"
    ))  # fmt: skip


def test_files_that_are_parts_of_one_trail_are_verified_together(auditor: Auditor, export: Path) -> None:
    """Rows of a segment may be in several; each row is in one."""
    rows = export.read_bytes().splitlines(keepends=True)
    one, other = export.with_name("one.jsonl"), export.with_name("other.jsonl.gz")
    one.write_bytes(b"".join(rows[:20]))
    other.write_bytes(gzip.compress(b"".join(rows[:2] + rows[20:])))
    assert verified(auditor, one, other)["counts"] == {"missing": 40}
    key = str(auditor.config.parent / "public.pem")
    files = ("--together", "--file", str(one), "--file", str(other), "--key", key)
    report = auditor.verified(*files)
    assert (report["complete"], report["rows"], report["segments"]) == (True, 40, 2)
    one.write_bytes(b"".join(rows[:21]))
    assert auditor.verified(*files)["counts"] == {"inserted": 1}
    assert "--together" in auditor.refused("verify", "--together")


@pytest.mark.parametrize(
    ("kind", "place", "old", "new"),
    [
        ("changed", 9, '"tools/call"', '"tools/list"'), ("changed", 9, '"messages":1', '"messages":2'),
        ("missing", 9, None, ""), ("inserted", 9, None, "{line}\n{line}"), ("unreadable", 9, None, "{line}\n{{"),
        ("forged", 0, '"row_count":', '"row_count":1'),
        ("unreadable", 0, '"head":"', '"head":"x'), ("unreadable", 0, '"tenant_id":', '"tenant_id":5,"was":'),
        ("unreadable", 0, '"segment":', '"segment":["x"],"was":'), ("unreadable", 0, '"key_id":', '"key_id":{},"was":'),
        ("unreadable", 0, '"previous":', '"previous":[],"was":'),
    ],
)  # fmt: skip
def test_what_was_done_to_an_export_is_told(
    auditor: Auditor, export: Path, kind: str, place: int, old: str | None, new: str
) -> None:
    """Lines and heads alike."""
    rows = export.read_text().splitlines()
    if old is None:
        rows[place] = new.format(line=rows[place])
    else:
        assert old in rows[place]
        rows[place] = rows[place].replace(old, new)
    export.write_text("\n".join(rows))
    report = verified(auditor, export)
    assert kind in report["counts"]


def test_what_editors_do_to_ends_of_lines_and_the_begin_of_a_file_changes_nothing(
    auditor: Auditor, export: Path
) -> None:
    """A mark of the order of bytes, ends of lines as of Windows, and lines between."""
    content = export.read_bytes()
    for edited in (b"\xef\xbb\xbf" + content, content.replace(b"\n", b"\r\n"), content.replace(b"\n", b"\n\n")):
        export.write_bytes(edited)
        report = verified(auditor, export)
        assert (report["complete"], report["rows"], report["heads"]) == (True, 40, 2)


def test_a_chain_without_a_head_is_told(auditor: Auditor, export: Path) -> None:
    """Of its rows it is said that they are not signed; once there are later heads, it should have one."""
    export.write_bytes(b"\n".join(export.read_bytes().splitlines()[1:]))
    report = verified(auditor, export)
    assert (report["complete"], report["unsigned"]) == (True, 26)
    auditor.monkeypatch.setattr(audit_files, "_SETTLED_US", 0)
    assert verified(auditor, export)["counts"] == {"headless": 1}


def test_an_export_that_ends_early_is_told(auditor: Auditor, export: Path) -> None:
    """What is missing at its end, as heads come first."""
    export.write_bytes(b"\n".join(export.read_bytes().splitlines()[:30]))
    assert verified(auditor, export)["counts"] == {"missing": 12}


def test_an_export_in_parts_is_read_by_several_processes(
    auditor: Auditor, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They find together what one finds."""
    monkeypatch.setattr(audit_files, "_WORTH", 2_000)
    monkeypatch.setattr(audit_files, "_OF_A_CHAIN", 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    assert verified(auditor, export)["rows"] == 40
    rows = export.read_text().splitlines()
    rows[20] = rows[20].replace('"github"', '"gitlab"')
    del rows[30]
    export.write_text("\n".join(rows) + "\n")
    assert verified(auditor, export)["counts"] == {"changed": 1, "missing": 1}


def test_files_need_a_key_and_nothing_else(auditor: Auditor, export: Path) -> None:
    """Code 2, as for a file that is not there."""
    public = str(auditor.config.parent / "public.pem")
    assert "--key" in auditor.refused("verify", "--file", str(export))
    assert "--key" in auditor.refused("verify", *DAY, "--file", str(export), "--key", public)
    assert "cannot be read: /nowhere: No such file" in auditor.refused("verify", "--file", "/nowhere", "--key", public)


def test_an_export_of_some_rows_proves_little(auditor: Auditor) -> None:
    """Those that are not whole segments have no heads."""
    path = auditor.config.parent / "part.jsonl"
    auditor.run("export", *DAY, "--output", str(path))
    counts = verified(auditor, path)["counts"]
    assert json.loads(json.dumps(counts)) == {"headless": 2}
    public = str(auditor.config.parent / "public.pem")
    assert "with '--whole' only" in auditor.run("verify", "--file", str(path), "--key", public)[2]


@given(st.lists(st.binary(max_size=5).map(lambda each: each.replace(b"\n", b"x")), max_size=8), st.data())
def test_every_line_is_in_one_part(content: list[bytes], data: st.DataObject) -> None:
    """Wherever a file is divided, with and without an end of the last line."""
    text = b"\n".join(content) + data.draw(st.sampled_from([b"", b"\n"]))
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=4).map(sorted))
    edges = [0, *cuts, len(text)]
    found = [
        line
        for start, end in itertools.pairwise(edges)
        for some in lines(io.BytesIO(text), start, end)
        for line in some
    ]
    assert found == [line for line in text.split(b"\n") if line]


def test_a_line_without_an_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no row."""
    monkeypatch.setattr(audit_files, "_LONGEST_LINE", 100)
    monkeypatch.setattr(audit_files, "_BLOCK", 64)
    with pytest.raises(Strange):
        list(lines(io.BytesIO(b"x" * 1000), 0, None))


@pytest.mark.parametrize("content", [b"", b"\n\n", gzip.compress(b"", mtime=0)])
def test_an_empty_file_proves_nothing(auditor: Auditor, content: bytes) -> None:
    """Whoever cuts off all of an export must not hear that it is complete."""
    public, path = auditor.write_key(), auditor.config.parent / "export.jsonl"
    path.write_bytes(content)
    assert "nothing was verified" in auditor.refused("verify", "--file", str(path), "--key", str(public))
