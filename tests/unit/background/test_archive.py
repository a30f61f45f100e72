"""Files of the archive: whole or not there, never replaced by other rows, and checked before they are trusted."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.background import archive as module
from proxy.background.archive import Archive, NoRoom
from proxy.background.archive_files import Lines, is_sound, manifest_of


async def batches(*given: list[str]) -> AsyncIterator[list[str]]:
    """As they come from the database."""
    for each in given:
        yield each


async def never() -> AsyncIterator[list[str]]:
    """Rows that nobody should ask for."""
    raise AssertionError("read again")
    yield []


def read(path: Path) -> list[str]:
    """The lines of a file."""
    return gzip.decompress(path.read_bytes()).decode().splitlines()


async def test_rows_become_lines_of_a_compressed_file_with_a_manifest(tmp_path: Path) -> None:
    """The manifest holds their number and the digest of the file; only we can read them."""
    made = await Archive(tmp_path / "new").put("audit_logs", "audit_logs_20261101", "7", batches(["{}", "[]"], ["1"]))
    path = tmp_path / "new" / made.file
    assert path == tmp_path / "new/audit_logs/audit_logs_20261101.jsonl.gz"
    assert read(path) == ["{}", "[]", "1"]
    assert (made.rows, made.bytes) == (3, path.stat().st_size)
    assert made.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest_of(path) == made
    assert {each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {0o600}
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "audit_logs_20261101.jsonl.gz", "audit_logs_20261101.manifest.json"
    ]  # fmt: skip


async def test_what_was_archived_is_not_written_again(tmp_path: Path) -> None:
    """Unless the file is damaged or its manifest is not there: then it is as if nothing had been."""
    archive = Archive(tmp_path)
    made = await archive.put("t", "p", "7", batches(["a"]))
    assert await archive.put("t", "p", "7", never()) == made
    assert await archive.find("t", "p", "7") == made
    assert await archive.find("t", "p", "8") is None
    path = tmp_path / made.file
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_sound(path, made)
    assert await archive.put("t", "p", "7", batches(["a"])) == made
    (tmp_path / "t/p.manifest.json").write_text("{")
    assert await archive.put("t", "p", "8", batches(["b"])) != made
    assert read(path) == ["b"]


async def test_rows_of_another_origin_get_a_file_of_their_own(tmp_path: Path) -> None:
    """A partition that was made again because rows came late."""
    archive = Archive(tmp_path)
    made = [await archive.put("t", "p", str(number), batches([str(number)])) for number in range(3)]
    assert [each.file for each in made] == ["t/p.jsonl.gz", "t/p.2.jsonl.gz", "t/p.3.jsonl.gz"]
    assert [read(tmp_path / each.file) for each in made] == [["0"], ["1"], ["2"]]


async def test_the_same_rows_of_a_tenant_make_the_same_file(tmp_path: Path) -> None:
    """A batch whose transaction was not committed comes again."""
    archive = Archive(tmp_path)
    many = [str(number) for number in range(1200)]
    archived = await archive.put_rows("t", "many", "tenant", many)
    assert gzip.decompress((tmp_path / archived.file).read_bytes()).decode().splitlines() == many
    assert archived.rows == 1200
    first, again = [await archive.put_rows("t", "p", "tenant", ["a", "b"]) for _ in range(2)]
    other = await archive.put_rows("t", "p", "tenant", ["a", "c"])
    assert first == again
    assert first.file.startswith("t/p.tenant.")
    assert other.file != first.file


async def test_rows_of_a_transaction_are_part_of_the_archive_when_it_is_over(tmp_path: Path) -> None:
    """Until then it is asked whether its first row is still there; what was undone leaves nothing."""
    archive = Archive(tmp_path)
    assert await archive.unsettled("t") == []
    made = [await archive.put_rows("t", "p", "tenant", [f'{{"a":"{name}"}}', "{}"]) for name in "kgü"]
    assert [manifest_of(tmp_path / each.file) for each in made] == [None] * 3
    found = {each.line: each.archived for each in await Archive(tmp_path).unsettled("t")}
    assert found == dict(zip(('{"a":"k"}', '{"a":"g"}', '{"a":"ü"}'), made, strict=True))
    await archive.settle(made[0])
    await archive.settle(made[0])
    await archive.discard(made[1])
    (tmp_path / made[2].file).unlink()
    assert await archive.unsettled("t") == []
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == sorted(
        (Path(made[0].file).name, Path(made[0].file).name.replace(".jsonl.gz", ".manifest.json"))
    )
    assert manifest_of(tmp_path / made[0].file) == made[0]
    assert await archive.put_rows("t", "p", "tenant", ['{"a":"k"}', "{}"]) == made[0]


@pytest.mark.parametrize("at", range(3))
async def test_a_death_at_any_rename_leaves_no_rows_of_which_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """A file is not there without a manifest, of one name or the other."""
    renames = 0
    rename = Path.rename

    def dies(self: Path, target: Any) -> Path:
        nonlocal renames
        if renames == at:
            raise KeyboardInterrupt
        renames += 1
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dies)
        with pytest.raises(KeyboardInterrupt):
            await Archive(tmp_path).settle(await Archive(tmp_path).put_rows("t", "p", "tenant", ["a"]))
    there = [path.name for path in (tmp_path / "t").glob("*.jsonl.gz")]
    unsettled = await Archive(tmp_path).unsettled("t")
    assert [Path(each.archived.file).name for each in unsettled] == there
    assert len(there) == (1 if at == 2 else 0)


async def test_what_is_not_known_any_more_is_said(tmp_path: Path) -> None:
    """A damaged file is no reason to end a run in disorder."""
    made = await Archive(tmp_path).put_rows("t", "p", "tenant", ["a"])
    (tmp_path / made.file).write_bytes(b"damaged")
    with pytest.raises(NoRoom, match="cannot be read: a file is damaged"):
        await Archive(tmp_path).unsettled("t")


async def test_a_file_that_cannot_be_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full; the next try begins anew."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(NoRoom, match="No space left"):
            await Archive(tmp_path).put("t", "p", "7", batches(["a"]))
    assert list((tmp_path / "t").iterdir()) == []

    async def torn() -> AsyncIterator[list[str]]:
        yield ["a"]
        raise ConnectionError

    with pytest.raises(NoRoom):
        await Archive(tmp_path).put("t", "p", "7", torn())
    assert list((tmp_path / "t").iterdir()) == []
    assert read(tmp_path / (await Archive(tmp_path).put("t", "p", "7", batches(["a"]))).file) == ["a"]


@pytest.mark.parametrize("last", ["file", "manifest"])
async def test_a_death_at_any_rename_leaves_a_state_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """Without a manifest a file is not taken for whole."""
    renamed: list[str] = []
    rename = Path.rename

    def dies(self: Path, target: Any) -> Path:
        if (last == "manifest") == self.name.endswith(".manifest.json.part"):
            raise KeyboardInterrupt
        renamed.append(self.name)
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dies)
        with pytest.raises(KeyboardInterrupt):
            await Archive(tmp_path).put("t", "p", "7", batches(["a"]))
    assert len(renamed) == (1 if last == "manifest" else 0)
    assert manifest_of(tmp_path / "t/p.jsonl.gz") is None
    made = await Archive(tmp_path).put("t", "p", "7", batches(["a"]))
    assert (made.rows, is_sound(tmp_path / made.file, made)) == (1, True)


async def test_room_is_asked_for_before_anything_is_detached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the size of the table, and a directory that can be written to."""
    await Archive(tmp_path / "new").check(1000)
    with pytest.raises(NoRoom, match="not enough room"):
        await Archive(tmp_path).check(1 << 60)
    (tmp_path / "file").write_text("")
    with pytest.raises(NoRoom, match="cannot be used"):
        await Archive(tmp_path / "file").check(0)
    monkeypatch.setattr(module.os, "access", lambda path, mode: False)
    with pytest.raises(NoRoom, match="cannot be written to"):
        await Archive(tmp_path).check(0)


@given(lines=st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"])), max_size=20))
def test_every_line_comes_back_as_it_was(lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever is in it."""
    file = Lines(path := tmp_path_factory.mktemp("lines") / "x")
    file.add(module._text(lines))
    file.finish()
    assert gzip.decompress(path.read_bytes()).decode() == "".join(f"{line}\n" for line in lines)
