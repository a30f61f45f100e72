"""Files on their way to the disk: what gets no manifest leaves nothing, whichever step fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.background import archive_files as files
from proxy.background.archive_files import Archived, Lines

MADE = Archived("t/p.jsonl.gz", "t", "p", "7", 1, 2, "digest")


def written(tmp_path: Path) -> Path:
    """A file that is to be published under this path."""
    path = tmp_path / MADE.file
    path.parent.mkdir()
    lines = Lines(path.with_name(f".{path.name}.part"))
    lines.add(b"a\n")
    assert lines.finish()[0] == path.with_name(f".{path.name}.part").stat().st_size
    return path


@pytest.mark.parametrize("publish", [files.publish, files.publish_unsettled])
@pytest.mark.parametrize("call", ["fsync", "rename"])
@pytest.mark.parametrize("time", [1, 2])
def test_what_gets_no_manifest_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, publish: Callable[[Path, Archived], None], call: str, time: int
) -> None:
    """The disk fills up between the file and its manifest."""
    path, times = written(tmp_path), 0
    real = getattr(Path if call == "rename" else os, call)

    def full(*given: object) -> object:
        nonlocal times
        times += 1
        if times == time:
            raise OSError(errno.ENOSPC, "full")
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(Path if call == "rename" else os, call, full)
        with pytest.raises(OSError, match="full"):
            publish(path, MADE)
    assert list(path.parent.iterdir()) == []


def test_a_manifest_of_another_form_is_none(tmp_path: Path) -> None:
    """Such as one of a later version: its file is not taken for ours."""
    path = written(tmp_path)
    files.publish(path, MADE)
    assert files.manifest_of(path) == MADE
    files.manifest_path(path).write_text('{"file": "t/p.jsonl.gz"}')
    assert files.manifest_of(path) is None
