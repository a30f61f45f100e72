"""Where things are in a spool.

    <spool>/<journal>/00000001.seg ...   what a process has recorded
    <spool>/<journal>/lock               held for as long as somebody writes or ships the journal
    <spool>/<journal>/checkpoint         how far it was shipped
    <spool>/<journal>/sealed             nothing is left open in it
    <spool>/quarantine                   records that the database does not take

Owns these names. A journal under construction, or on its way out, begins with a dot and is nobody's.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

LOCK: Final = "lock"
CHECKPOINT: Final = "checkpoint"
SEALED: Final = "sealed"
QUARANTINE: Final = "quarantine"
_SUFFIX: Final = ".seg"
#: The name that a journal gets (`held.make`). Other folders are somebody else's, such as a copy of one.
_JOURNAL: Final = re.compile("[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}")


def segment_path(journal: Path, number: int) -> Path:
    """The file of a segment; they are counted from 1."""
    return journal / f"{number:08}{_SUFFIX}"


def segments(journal: Path) -> list[int]:
    """Numbers of the segments that are there, in order; none when the journal is gone."""
    with suppress(FileNotFoundError):
        names = [name.removesuffix(_SUFFIX) for name in os.listdir(journal) if name.endswith(_SUFFIX)]
        return sorted(int(name) for name in names if name.isdecimal())
    return []


def journals(spool: Path) -> list[Path]:
    """The journals of a spool, by the time of their beginning; none when there is no spool."""
    with suppress(FileNotFoundError):
        return sorted(
            Path(each.path)
            for each in os.scandir(spool)
            if _JOURNAL.fullmatch(each.name) and each.is_dir(follow_symlinks=False)
        )
    return []


def bytes_of(spool: Path) -> int:
    """Bytes of all segments of all journals that can be looked at, and of the quarantine. Raises OSError."""
    return sum(map(bytes_in, journals(spool))) + size_of(spool / QUARANTINE)


def bytes_in(journal: Path) -> int:
    """Bytes of the segments of a journal; 0 when they cannot be looked at."""
    with suppress(OSError):  # one that cannot be read is no reason to write none
        return sum(size_of(segment_path(journal, number)) for number in segments(journal))
    return 0


def measured(spool: Path) -> tuple[int, int]:
    """Bytes of the spool, and how many it could have on its disk. Raises OSError."""
    size, disk = bytes_of(spool), os.statvfs(spool)
    return size, size + disk.f_bavail * disk.f_frsize


def size_of(path: Path) -> int:
    """Bytes of a file; 0 when it is gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def remove_segments(journal: Path, through: int) -> None:
    """Delete segments up to a number, the oldest first: what is left is always the end of the journal. Raises
    OSError."""
    for number in segments(journal):
        if number <= through:
            segment_path(journal, number).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Put names in a folder on the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_file(path: Path, content: bytes) -> None:
    """Write a small file: whole and on the disk, or not at all. Raises OSError."""
    new = path.with_name(f".{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.fsync(descriptor)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    new.replace(path)
    sync_folder(path.parent)
