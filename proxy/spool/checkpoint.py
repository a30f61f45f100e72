"""How far a journal was shipped: kept beside it, and only after PostgreSQL has said that it has the rows.

Owns this file. One that is damaged or missing says "nothing yet": to ship again what was shipped is harmless, because
rows have ids of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from proxy.spool.layout import CHECKPOINT, put_file, sync_folder

#: No segment has a greater number or size.
_MOST: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything before this place is in the database."""

    segment: int = 0
    """Number of the segment in which shipping goes on; those before are shipped whole. 0: nothing was shipped."""
    offset: int = 0
    """Where in it, bytes."""
    chains: dict[str, Any] = field(default_factory=dict)
    """How far the hash chains of the segment are, as JSON values: the shipper's own."""


def load(journal: Path) -> Checkpoint:
    """The checkpoint of a journal. Raises OSError when it is there and cannot be read."""
    try:
        found = orjson.loads((journal / CHECKPOINT).read_bytes())
        segment, offset, chains = found["segment"], found["offset"], found["chains"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return Checkpoint()
    whole = type(segment) is int and type(offset) is int and isinstance(chains, dict)
    if not whole or not 0 <= segment <= _MOST or not 0 <= offset <= _MOST:
        return Checkpoint()
    return Checkpoint(segment, offset, chains)


def forget(journal: Path) -> None:
    """Nothing was shipped of what is left of a journal, for all that is known. Blocks. Raises OSError."""
    (journal / CHECKPOINT).unlink(missing_ok=True)
    sync_folder(journal)


def save(journal: Path, reached: Checkpoint) -> None:
    """Keep a checkpoint: whole and on the disk, or the one before stays. Blocks. Raises OSError."""
    about = {"segment": reached.segment, "offset": reached.offset, "chains": reached.chains}
    put_file(journal / CHECKPOINT, orjson.dumps(about))
