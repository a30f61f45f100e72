"""The form of a segment: records in a row, each behind its length and its checksum.

Owns `<u32 length><u32 CRC-32><record>`, little endian, and how it is read back: up to the first bytes that are no whole
record, which is where a crash tore it or a disk spoilt it. Knows nothing of what a record says.
"""

from __future__ import annotations

from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

#: Bytes before each record.
HEAD: Final = 8
#: The largest record, bytes; a length above it is damage.
LARGEST: Final = 8 << 20
_head: Final = Struct("<II")


class Piece(NamedTuple):
    """Some records of a segment."""

    records: list[bytes]
    offset: int
    """Where to go on."""
    torn: bool
    """What begins at `offset` is no whole record. At the end of a segment in use: not yet; elsewhere: damage."""


def frame(record: bytes) -> bytes:
    """A record as it is written. Raises ValueError for an empty one, which zeros on a disk would pass for."""
    if not 0 < len(record) <= LARGEST:
        raise ValueError(f"a record has between 1 and {LARGEST} bytes")
    return _head.pack(len(record), crc32(record)) + record


def read(path: Path, offset: int, limit_bytes: int) -> Piece:
    """Records from `offset` on: about as many bytes as the limit, and at least one record. Raises OSError."""
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read(max(limit_bytes, HEAD))
        records, used, wanted = _split(content)
        if not records and len(content) < wanted <= HEAD + LARGEST:
            content += file.read(wanted - len(content))
            records, used, wanted = _split(content)
        rest = len(content) - used
        # bytes are left that the file goes on after: a record that only the limit cut
        torn = rest > 0 and not (wanted > rest and file.read(1))
    return Piece(records, offset + used, torn or _impossible(wanted))


def read_from(content: bytes, offset: int, limit_bytes: int) -> Piece:
    """The same of a segment that is no file, and is whole."""
    records, used, wanted = _split(content[offset : offset + max(limit_bytes, HEAD)])
    if not records and wanted:
        records, used, _ = _split(content[offset : offset + wanted])
    return Piece(records, offset + used, False)


def _split(content: bytes) -> tuple[list[bytes], int, int]:
    """Whole records, their bytes, and the bytes that the next record wants (0: none begins)."""
    records: list[bytes] = []
    at, end = 0, len(content)
    while at + HEAD <= end:
        length, checksum = _head.unpack_from(content, at)
        wanted = HEAD + length
        if not length or _impossible(wanted) or at + wanted > end:
            return records, at, wanted
        record = content[at + HEAD : at + wanted]
        if crc32(record) != checksum:
            return records, at, wanted
        records.append(record)
        at += wanted
    return records, at, HEAD if at < end else 0


def _impossible(wanted: int) -> bool:
    return wanted > HEAD + LARGEST


def next_whole(path: Path, offset: int) -> int | None:
    """Where the next whole record begins behind damage at `offset`; None when there is none. Raises OSError.

    Every record is a JSON object, so that a frame is only looked for eight bytes before a brace.
    """
    content = path.read_bytes()
    at = content.find(b"{", offset + HEAD + 1)
    while at >= 0:
        length, checksum = _head.unpack_from(content, at - HEAD)
        if 0 < length <= LARGEST and at + length <= len(content) and crc32(content[at : at + length]) == checksum:
            return at - HEAD
        at = content.find(b"{", at + 1)
    return None
