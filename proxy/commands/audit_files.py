"""Exported files, verified without a database: in two processes when there are two cores.

Owns the division of a file. Each process reads a part and knows all heads, which come first; what it saw of a chain is
joined to what the others saw.
"""

from __future__ import annotations

import gzip
import itertools
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO, Final, cast

from proxy.audit.chain import Head
from proxy.audit.findings import Finding
from proxy.audit.heads import Verifies, believed, orphans
from proxy.audit.passages import Strange, heads_first, take
from proxy.audit.verify import SIGNED, Report, Trail
from proxy.commands.console import Misuse

#: Bytes from which on it is worth to start another process.
_WORTH: Final = 16 << 20
_MOST_PARTS: Final = 8
_BLOCK: Final = 1 << 20
_LONGEST_LINE: Final = 64 << 20
_GZIP: Final = b"\x1f\x8b"
#: Microseconds: a chain has a head so long after its first row.
_SETTLED_US: Final = 600_000_000
_NEVER_US: Final = 1 << 62


def verified(paths: Sequence[Path], keys: Mapping[str, Verifies], *, together: bool = False) -> Report:
    """What is wrong with these files, each of which is verified by itself, or all `together` as parts of one trail, of
    which each row is in one. Raises Misuse."""
    report = Report()
    for some in [paths] if together else [[path] for path in paths]:
        try:
            _verify(some, keys, report)
        except (OSError, EOFError, zlib.error) as error:
            raise Misuse(f"a file cannot be read: {error}") from None
        except Strange as error:
            report.add(Finding("unreadable", "", "", 0, 0, str(error)))
    return report


def _verify(paths: Sequence[Path], keys: Mapping[str, Verifies], report: Report) -> None:
    kept = [head for path in paths for head in _heads(path)]
    heads = list(believed(kept, keys, report))
    places = sorted({(head.tenant, head.segment) for head, _, _ in kept})
    trail, unchained, strange = Trail(), dict[str, int](), 0
    for part, found, without in (part for path in paths for part in _parts(path, places, heads)):
        trail.merge(part)
        strange += found
        for tenant, count in without.items():
            unchained[tenant] = unchained.get(tenant, 0) + count
    newest = max((head.last_us for head in heads), default=_NEVER_US)
    trail.report(report, newest - _SETTLED_US)
    for finding in orphans(heads):
        report.add(finding)
    for tenant, count in unchained.items():
        report.add(Finding("unchained", tenant, "", 0, count), count)
    if strange:
        report.add(Finding("unreadable", "", "", 0, 0, f"{strange} of them"), strange)


def _heads(path: Path) -> Sequence[tuple[Head, str | None, bytes | None]]:
    with _opened(path) as file:
        return heads_first(lines(file, 0, None))


Part = tuple[Trail, int, dict[str, int]]
"""What was seen; lines that are none; rows without a chain by tenant."""


def _parts(path: Path, places: Sequence[tuple[str, str]], heads: Sequence[Head]) -> Iterator[Part]:
    size, cores = path.stat().st_size, len(os.sched_getaffinity(0))
    with open(path, "rb") as file:
        is_packed = file.read(len(_GZIP)) == _GZIP
    count = 1 if is_packed else min(cores, _MOST_PARTS, size // _WORTH + 1)
    if count == 1:
        yield _part(path, 0, None, places, heads)
        return
    edges = [size * number // count for number in range(count + 1)]
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(_part, path, start, end, places, heads) for start, end in itertools.pairwise(edges)]
        for each in running:
            yield each.result()


def _part(path: Path, start: int, end: int | None, places: Sequence[tuple[str, str]], heads: Sequence[Head]) -> Part:
    trail = Trail()
    for place in places:
        trail.strand(place, (), SIGNED)
    for head in heads:
        trail.strand((head.tenant, head.segment), [head])
    with _opened(path) as file:
        strange, unchained = take(trail, lines(file, start, end))
    return trail, strange, unchained


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with open(path, "rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        if not packed:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield cast(BinaryIO, unpacked)


def lines(file: BinaryIO, start: int, end: int | None) -> Iterator[bytes]:
    """The lines that begin in this part of a file, `end` excluded. Raises Strange for one without an end."""
    at = max(start - 1, 0)
    file.seek(at)
    rest, skips = b"", start > 0
    while block := file.read(_BLOCK):
        found = (rest + block).split(b"\n")
        rest = found.pop()
        for line in found:
            begins = at
            at += len(line) + 1
            if skips:  # the end of a line that begins in the part before
                skips = False
                continue
            if end is not None and begins >= end:
                return
            if line:
                yield line
        if len(rest) > _LONGEST_LINE:
            raise Strange("a line does not end")
    if rest and not skips and (end is None or at < end):
        yield rest
