"""Rows as files, before they are deleted: compressed JSON Lines, each file with a manifest beside it.

Owns names, and which rows are in which file: a file is never replaced by rows of another origin. How they reach the
disk is `archive_files.py`'s. Nothing here knows PostgreSQL. What is slow and lets other threads run (the disk,
compression, digests) is done in threads, a piece at a time; the rest in slices of less than a millisecond, since a
thread would not let requests go on.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from proxy.background import archive_files as files
from proxy.background.archive_files import SUFFIX, Archived, Lines, Unsettled

#: Files of one partition: more would mean that it came back and was archived anew every time.
_MOST_FILES: Final = 1000
#: Log lines compress to a tenth; this is to be sure.
_SHARE_NEEDED: Final = 2
#: Lines that are put into one text, and compressed, at a time.
_PIECE: Final = 100


class NoRoom(Exception):
    """The archive cannot take this; the text says why."""


class _Content(NamedTuple):
    """Of a file."""

    batches: AsyncIterator[Sequence[str]]
    heads: Sequence[str]


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
            raise NoRoom(_cannot("read", error)) from None

    async def put(
        self, table: str, partition: str, origin: str, batches: AsyncIterator[Sequence[str]], heads: Sequence[str] = ()
    ) -> Archived:
        """Write the rows of a partition behind `heads`, unless they were written before: then `batches` is not read.

        Raises NoRoom; nothing is left of a file that could not be finished.
        """
        return await self._put(table, partition, origin, _Content(batches, heads), files.publish)

    # --- rows of a transaction ------------------------------------------------------------------------------------

    async def put_rows(self, table: str, partition: str, tenant: str, rows: Sequence[str]) -> Archived:
        """Write some rows of a tenant, before the transaction ends that deletes them: `settle` says that it did. The
        same rows again make the same file. Raises NoRoom."""
        digest = hashlib.sha256()
        async for piece in _pieces(rows):
            await asyncio.to_thread(digest.update, _text(piece))
        origin = digest.hexdigest()
        content, place = _Content(_pieces(rows), ()), f"{partition}.{tenant}.{origin[:16]}"
        return await self._put(table, place, origin, content, files.publish_unsettled)

    async def unsettled(self, table: str) -> list[Unsettled]:
        """Files of `put_rows` that were neither settled nor discarded. Raises NoRoom."""
        try:
            return await asyncio.to_thread(files.unsettled, self.directory, table)
        except (OSError, EOFError, ValueError, TypeError) as error:
            raise NoRoom(_cannot("read", error)) from None

    async def settle(self, archived: Archived) -> None:
        """The rows of a file are deleted: it is part of the archive. Raises NoRoom."""
        await self._moved(files.settle, archived)

    async def discard(self, archived: Archived) -> None:
        """They were not: remove it. Raises NoRoom."""
        await self._moved(files.discard, archived)

    async def _moved(self, move: Callable[[Path], object], archived: Archived) -> None:
        try:
            await asyncio.to_thread(move, self.directory / archived.file)
        except OSError as error:
            raise NoRoom(_cannot("changed", error)) from None

    # --- files ----------------------------------------------------------------------------------------------------

    async def _put(
        self, table: str, partition: str, origin: str, content: _Content, publish: Callable[[Path, Archived], None]
    ) -> Archived:
        try:
            name, known = await asyncio.to_thread(self._place, table, partition, origin)
            if known is not None:
                return known
            rows, size, digest = await self._write(self.directory / table / f".{name}.part", content)
            heads = len(content.heads)
            archived = Archived(f"{table}/{name}", table, partition, origin, rows, size, digest, heads)
            await asyncio.to_thread(publish, self.directory / archived.file, archived)
            return archived
        except OSError as error:
            raise NoRoom(_cannot("written", error)) from None

    def _place(self, table: str, partition: str, origin: str) -> tuple[str, Archived | None]:
        """The name of the file, and what it is when it is there already and sound."""
        folder = self.directory / table
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(1, _MOST_FILES):
            name = f"{partition}{SUFFIX}" if number == 1 else f"{partition}.{number}{SUFFIX}"
            known = files.manifest_of(folder / name)
            if known is None:
                return name, None
            if known.origin == origin:
                return name, known if files.is_sound(folder / name, known) else None
        raise NoRoom("there are too many files of this partition in the archive")

    async def _write(self, aside: Path, content: _Content) -> tuple[int, int, str]:
        """Rows, bytes and digest of what is on disk then."""
        rows = 0
        file = await asyncio.to_thread(Lines, aside)
        try:
            async for piece in _pieces(content.heads):
                await asyncio.to_thread(file.add, _text(piece))
            async for batch in content.batches:
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


def _cannot(be: str, error: Exception) -> str:
    why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "a file is damaged"
    return f"the archive cannot be {be}: {why}"
