"""Files of the archive on their way to the disk: compressed lines, and the manifest that says they are whole.

Owns the order in which things reach the disk: the file under another name, fsync, rename; then its manifest in the same
way; then the directory. Nothing is left of a file that cannot be finished. Rows that are deleted in a transaction are
in a file before it ends: until that is known, the manifest has another name, and is there before the file. Which rows
are in which file is `archive.py`'s. All of it may take long, and belongs into threads.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

SUFFIX: Final = ".jsonl.gz"
#: Of the manifest of a file whose rows may not have been deleted.
PENDING: Final = ".pending"
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Archived:
    """One file, as its manifest has it."""

    file: str
    table: str
    partition: str
    origin: str
    """What identifies the rows: the table they were in, or a digest of their lines."""
    rows: int
    bytes: int
    sha256: str
    """Of the file as it lies on the disk."""
    heads: int = 0
    """Lines before the rows: signed heads of the audit trail."""


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A file of rows of which it is not known whether they were deleted."""

    archived: Archived
    line: str
    """The first of them."""


class _Hashing:
    """A file that knows the digest of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, content: Any) -> int:
        """As of a file."""
        self.digest.update(content)
        self.size += len(content)
        return self.file.write(content)

    def flush(self) -> None:
        """As of a file."""
        self.file.flush()


class Lines:
    """A compressed file that is being written. The same lines make the same bytes."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._path = path
        self._out = _Hashing(open(descriptor, "wb"))  # noqa: SIM115 - closed by finish() or abandon()
        self._gzip = gzip.GzipFile(filename="", mode="wb", fileobj=self._out, compresslevel=6, mtime=0)

    def add(self, content: bytes) -> None:
        self._gzip.write(content)

    def finish(self) -> tuple[int, str]:
        """Bytes and digest of what is now on the disk."""
        self._gzip.close()
        self._out.flush()
        os.fsync(self._out.file.fileno())
        self._out.file.close()
        return self._out.size, self._out.digest.hexdigest()

    def abandon(self) -> None:
        """Nothing stays."""
        with suppress(OSError, ValueError):
            self._gzip.close()
        with suppress(OSError):
            self._out.file.close()
        self._path.unlink(missing_ok=True)


def publish(path: Path, archived: Archived) -> None:
    """Nothing stays of a file that gets no manifest."""
    try:
        part_path(path).rename(path)
        _fsync_folder(path.parent)
        _write_manifest(manifest_path(path), archived)
        _fsync_folder(path.parent)
    except OSError:
        _unlink(path, part_path(path), part_path(manifest_path(path)))
        raise


def publish_unsettled(path: Path, archived: Archived) -> None:
    """Whatever happens, the file is not there without its manifest."""
    try:
        _write_manifest(pending_path(path), archived)
        part_path(path).rename(path)
        _fsync_folder(path.parent)
    except OSError:
        _unlink(path, part_path(path), part_path(pending_path(path)), pending_path(path))
        raise


def unsettled(directory: Path, table: str) -> list[Unsettled]:
    """Files of `publish_unsettled` that were neither settled nor discarded. Raises OSError, EOFError, ValueError and
    TypeError for what cannot be read."""
    found = []
    for pending in sorted((directory / table).glob(f".*{SUFFIX}{PENDING}")):
        archived = Archived(**orjson.loads(pending.read_bytes()))
        try:
            with gzip.open(directory / archived.file, "rt", encoding="utf-8", newline="\n") as file:
                found.append(Unsettled(archived, file.readline().rstrip("\n")))
        except FileNotFoundError:  # it was not there yet, or not any more
            pending.unlink()
    return found


def settle(path: Path) -> None:
    """A file is part of the archive from now on. It may be so already."""
    with suppress(FileNotFoundError):
        pending_path(path).rename(manifest_path(path))


def discard(path: Path) -> None:
    """Remove a file that is not settled."""
    path.unlink(missing_ok=True)
    pending_path(path).unlink(missing_ok=True)


def _write_manifest(path: Path, archived: Archived) -> None:
    part = part_path(path)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(orjson.dumps(asdict(archived), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


def _unlink(*paths: Path) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def part_path(path: Path) -> Path:
    return path.with_name(f".{path.name.removeprefix('.')}.part")


def pending_path(path: Path) -> Path:
    return path.with_name(f".{path.name}{PENDING}")


def manifest_path(path: Path) -> Path:
    return path.with_name(f"{path.name.removesuffix(SUFFIX)}.manifest.json")


def manifest_of(path: Path) -> Archived | None:
    """What the manifest of a file says; None without one, or with one that is damaged."""
    try:
        return Archived(**orjson.loads(manifest_path(path).read_bytes()))
    except (OSError, orjson.JSONDecodeError, TypeError):
        return None


def is_sound(path: Path, archived: Archived) -> bool:
    """Whether a file is what its manifest says."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError:
        return False
    return digest.hexdigest() == archived.sha256
