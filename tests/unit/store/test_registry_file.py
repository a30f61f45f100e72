"""The sealed copy of the registry: what was written is read, exactly, and nothing else is."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.store import registry_file, rows
from proxy.store.registry import Registry
from proxy.store.registry_file import RegistryFile
from proxy.store.registry_tables import TABLES
from proxy.store.rows import Row

SECRET = b"0123456789abcdef0123456789abcdef"
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
WHOLE = st.integers(-(2**63), 2**63 - 1)
TIME = st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(fold=0))
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
#: Every type that a column has.
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "str": TEXT,
    "str | None": st.none() | TEXT,
    "bool": st.booleans(),
    "int": WHOLE,
    "int | None": st.none() | WHOLE,
    "float": st.floats(allow_nan=False),
    "bytes": st.binary(max_size=40),
    "datetime": TIME,
    "datetime | None": st.none() | TIME,
    "tuple[str, ...]": st.lists(TEXT, max_size=3).map(tuple),
    "tuple[int, ...]": st.lists(WHOLE, max_size=3).map(tuple),
    "dict[str, Any]": st.dictionaries(TEXT, JSON, max_size=3),
    "list[Any]": st.lists(JSON, max_size=3),
    "Any": JSON,
}


def rows_of(kind: type[Row]) -> st.SearchStrategy[Row]:
    """Rows of one table with any values that their columns may have."""
    return st.builds(kind, *(VALUES[str(column.type)] for column in fields(kind)))


def table_of(kind: type[Row]) -> st.SearchStrategy[dict[str, Row]]:
    """A few rows by their ids."""
    return st.lists(rows_of(kind), max_size=2).map(lambda found: {row.id: row for row in found})


REGISTRIES = st.fixed_dictionaries({name: table_of(table.row) for name, table in TABLES.items()})
EMPTY: Registry = {name: {} for name in TABLES}


def limits(number: int) -> Registry:
    """A registry with so many rows, of which one holds a secret."""
    row = rows.ServerRow("s", "t", "planted", "http://x/", "sse", {"Authorization": "planted"}, {}, (), True)
    rest: tuple[Any, ...] = (None, 1, 2.0, 1, None, None, "local", True, {}, True)
    limit = [rows.LimitRow(f"l{n}", "t", f"limit {n}", "global", *rest) for n in range(number)]
    return {**EMPTY, "mcp_servers": {"s": row}, "rate_limit_configs": {one.id: one for one in limit}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file will be."""
    return tmp_path / "registry"


@given(registry=REGISTRIES)
@settings(max_examples=60, deadline=None)
def test_what_was_written_is_read_exactly(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Rows of every table; equal in every type, also where Python says that 1 equals True and 1.0."""
    file = RegistryFile(tmp_path_factory.getbasetemp() / "registry", SECRET)
    file.write(registry)
    read = file.read()
    assert read == registry
    assert {name: list(spelled(read[name])) for name in TABLES} == {n: list(spelled(registry[n])) for n in TABLES}


def spelled(table: Any) -> Iterator[str]:
    """Each row with the values that its repr leaves out."""
    for identity, row in table.items():
        yield repr((identity, type(row), [getattr(row, column.name) for column in fields(row)]))


def test_there_is_nothing_to_read_before_something_was_written(path: Path) -> None:
    """Nor in a folder that is not there, nor when the name is that of a folder, a link or a pipe."""
    assert RegistryFile(path, SECRET).read() is None
    assert RegistryFile(path / "x", SECRET).read() is None
    assert RegistryFile(path.parent, SECRET).read() is None
    os.mkfifo(path)
    assert RegistryFile(path, SECRET).read() is None
    RegistryFile(path.with_name("real"), SECRET).write(EMPTY)
    path.with_name("link").symlink_to(path.with_name("real"))
    assert RegistryFile(path.with_name("link"), SECRET).read() is None


def test_many_rows_are_read_as_they_were_written(path: Path) -> None:
    """In the same order, across the chunks in which they are encoded."""
    registry = limits(1201)
    RegistryFile(path, SECRET).write(registry)
    read = RegistryFile(path, SECRET).read()
    assert read == registry
    assert list(read["rate_limit_configs"]) == list(registry["rate_limit_configs"])


def test_only_its_owner_may_touch_it_and_nobody_can_read_it(path: Path) -> None:
    """Mode 0600 whatever the umask, and nothing of the rows shows."""
    before = os.umask(0)
    try:
        RegistryFile(path, SECRET).write(limits(3))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"planted" not in path.read_bytes()
    assert os.listdir(path.parent) == [path.name]


def test_two_writings_of_the_same_look_different(path: Path) -> None:
    """A nonce is never used twice."""
    file = RegistryFile(path, SECRET)
    file.write(EMPTY)
    first = path.read_bytes()
    file.write(EMPTY)
    assert path.read_bytes() != first


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_file_that_was_changed_is_no_file(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """One bit, a part cut off, a part put on: wherever it is."""
    path = tmp_path_factory.getbasetemp() / "changed"
    file = RegistryFile(path, SECRET)
    file.write(limits(1))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    way = data.draw(st.sampled_from(("flip", "cut", "cut head", "add")))
    if way == "flip":
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    elif way == "cut":
        del content[at:]
    elif way == "cut head":
        del content[: at + 1]
    else:
        content.insert(at, data.draw(st.integers(0, 255)))
    path.write_bytes(content)
    assert file.read() is None


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_what_anybody_writes_is_no_file(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Neither by itself nor behind the right first line."""
    path = tmp_path_factory.getbasetemp() / "foreign"
    for written in (content, registry_file._VERSION + content):
        path.write_bytes(written)
        assert RegistryFile(path, SECRET).read() is None


def test_a_file_of_another_key_is_no_file(path: Path) -> None:
    """Also of one that the same secret gives for another purpose."""
    RegistryFile(path, SECRET).write(limits(1))
    assert RegistryFile(path, SECRET[::-1]).read() is None


@pytest.mark.parametrize(
    ("name", "value"), [("_VERSION", b"mcp-manager registry 2\n"), ("_DERIVATION", b"x"), ("_SHAPES", b'{"x":[]}')]
)
def test_a_file_of_another_version_is_no_file(
    name: str, value: bytes, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another format, another derivation, or other columns."""
    with monkeypatch.context() as other:
        other.setattr(registry_file, name, value)
        RegistryFile(path, SECRET).write(limits(1))
        assert RegistryFile(path, SECRET).read() is not None
    assert RegistryFile(path, SECRET).read() is None


def test_the_shape_names_every_column_with_its_type() -> None:
    """So a column that is added, renamed or retyped makes old files unreadable."""
    for table in TABLES.values():
        for column in fields(table.row):
            assert f'"{column.name}: {column.type}"'.encode() in registry_file._SHAPES
            assert str(column.type) in VALUES


def test_a_failed_writing_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing beside it; a full disk shows when it is synchronised at the latest."""
    file = RegistryFile(path, SECRET)
    file.write(limits(1))

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        file.write(limits(2))
    assert file.read() == limits(1)
    assert os.listdir(path.parent) == [path.name]


def test_what_a_killed_process_left_is_removed_in_time(path: Path) -> None:
    """Not at once: another process may be writing just now."""
    old, new = path.with_name("registry.1.new"), path.with_name("registry.2.new")
    for left in (old, new):
        left.write_bytes(b"half")
    os.utime(old, (0, 0))
    RegistryFile(path, SECRET).write(EMPTY)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_folder_that_is_not_there_is_an_error_of_the_system(path: Path) -> None:
    """Whoever writes decides what to make of it."""
    with pytest.raises(OSError, match="registry"):
        RegistryFile(path / "x" / "registry", SECRET).write(EMPTY)
