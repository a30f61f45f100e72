"""Rows as files, before they are deleted: compressed JSON Lines, each file with a manifest beside it.

Owns names, and the order in which things reach the disk: the file under another name, fsync, rename; then its manifest
in the same way; then the directory. What has a manifest is whole. A file is never replaced by rows of another origin.
Nothing here knows PostgreSQL. What is slow and lets other threads run (the disk, compression, digests) is done in
threads, a piece at a time; the rest in slices of less than a millisecond, since a thread would not let requests go on.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

_SUFFIX: Final = ".jsonl.gz"
#: Files of one partition: more would mean that it came back and was archived anew every time.
_MOST_FILES: Final = 1000
#: Log lines compress to a tenth; this is to be sure.
_SHARE_NEEDED: Final = 2
_CHUNK: Final = 1 << 20
#: Lines that are put into one text, and compressed, at a time.
_PIECE: Final = 100


class NoRoom(Exception):
    """The archive cannot take this; the text says why."""


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


class Archive:
    """The files below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def check(self, size: int) -> None:
        """Raise NoRoom unless a table of so many bytes would find room."""
        await asyncio.to_thread(self._check, size)

    def _check(self, size: int) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(self.directory, os.W_OK | os.X_OK):
                raise NoRoom("the archive directory cannot be written to")
            free = shutil.disk_usage(self.directory).free
        except OSError as error:
            raise NoRoom(f"the archive directory cannot be used: {os.strerror(error.errno or 0)}") from None
        if free < size // _SHARE_NEEDED:
            raise NoRoom("there is not enough room in the archive directory")

    async def find(self, table: str, partition: str, origin: str) -> Archived | None:
        """A sound file of these rows that is there already. Raises NoRoom."""
        try:
            return (await asyncio.to_thread(self._place, table, partition, origin))[1]
        except OSError as error:
            raise NoRoom(f"the archive cannot be read: {os.strerror(error.errno or 0)}") from None

    async def put(
        self, table: str, partition: str, origin: str, batches: AsyncIterator[Sequence[str]], heads: Sequence[str] = ()
    ) -> Archived:
        """Write the rows of a partition behind `heads`, unless they were written before: then `batches` is not read.

        Raises NoRoom; nothing is left of a file that could not be finished.
        """
        try:
            name, known = await asyncio.to_thread(self._place, table, partition, origin)
            if known is not None:
                return known
            rows, size, digest = await self._write(self.directory / table / f".{name}.part", batches, heads)
            archived = Archived(f"{table}/{name}", table, partition, origin, rows, size, digest, len(heads))
            await asyncio.to_thread(_publish, self.directory / table, name, archived)
            return archived
        except OSError as error:
            raise NoRoom(f"the archive cannot be written: {os.strerror(error.errno or 0)}") from None

    async def put_rows(self, table: str, partition: str, tenant: str, rows: Sequence[str]) -> Archived:
        """Write some rows of a tenant. The same rows again make the same file. Raises NoRoom."""
        digest = hashlib.sha256()
        async for piece in _pieces(rows):
            await asyncio.to_thread(digest.update, _text(piece))
        origin = digest.hexdigest()
        return await self.put(table, f"{partition}.{tenant}.{origin[:16]}", origin, _pieces(rows))

    def _place(self, table: str, partition: str, origin: str) -> tuple[str, Archived | None]:
        """The name of the file, and what it is when it is there already and sound."""
        folder = self.directory / table
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(1, _MOST_FILES):
            name = f"{partition}{_SUFFIX}" if number == 1 else f"{partition}.{number}{_SUFFIX}"
            known = manifest_of(folder / name)
            if known is None:
                return name, None
            if known.origin == origin:
                return name, known if is_sound(folder / name, known) else None
        raise NoRoom("there are too many files of this partition in the archive")

    async def _write(
        self, aside: Path, batches: AsyncIterator[Sequence[str]], heads: Sequence[str]
    ) -> tuple[int, int, str]:
        """Rows, bytes and digest of what is on disk then."""
        rows = 0
        file = await asyncio.to_thread(_Lines, aside)
        try:
            async for piece in _pieces(heads):
                await asyncio.to_thread(file.add, _text(piece))
            async for batch in batches:
                await asyncio.to_thread(file.add, _text(batch))
                rows += len(batch)
            return rows, *await asyncio.to_thread(file.finish)
        except BaseException:
            file.abandon()
            raise


async def _pieces(lines: Sequence[str]) -> AsyncIterator[Sequence[str]]:
    for start in range(0, len(lines), _PIECE):
        yield lines[start : start + _PIECE]


def _text(lines: Sequence[str]) -> bytes:
    return "\n".join((*lines, "")).encode()


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


class _Lines:
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


def _publish(folder: Path, name: str, archived: Archived) -> None:
    path = folder / name
    (folder / f".{name}.part").rename(path)
    _fsync_folder(path.parent)
    manifest = _manifest_path(path)
    part = manifest.with_name(f".{manifest.name}.part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(orjson.dumps(asdict(archived), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        file.flush()
        os.fsync(file.fileno())
    part.rename(manifest)
    _fsync_folder(path.parent)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _manifest_path(path: Path) -> Path:
    return path.with_name(f"{path.name.removesuffix(_SUFFIX)}.manifest.json")


def manifest_of(path: Path) -> Archived | None:
    """What the manifest of a file says; None without one, or with one that is damaged."""
    try:
        return Archived(**orjson.loads(_manifest_path(path).read_bytes()))
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
