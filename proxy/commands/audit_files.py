"""Exported files, verified without a database: in as many processes as there are cores.

Owns the division of a file. Each process reads parts of it and knows all heads, which come first; what was seen of a
chain in one part is joined to what was in the others.
"""

from __future__ import annotations

import gzip
import itertools
import os
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO, Final, cast

from proxy.audit.chain import Head
from proxy.audit.findings import Finding
from proxy.audit.heads import Verifies, believed, orphans, unended
from proxy.audit.passages import Strange, heads_first, take
from proxy.audit.verify import SIGNED, Place, Report, Trail
from proxy.commands.console import Misuse, told

#: Bytes of a part; at least so many for each chain, as all are prepared for each part.
_WORTH: Final = 8 << 20
_OF_A_CHAIN: Final = 4096
_MOST_PARTS: Final = 16
_MOST_PROCESSES: Final = 8
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
            reason = told(error) if isinstance(error, OSError) else error
            raise Misuse(f"a file cannot be read: {reason}") from None
        except Strange as error:
            report.add(Finding("unreadable", "", "", 0, 0, str(error)))
    return report


def _verify(paths: Sequence[Path], keys: Mapping[str, Verifies], report: Report) -> None:
    kept = [head for path in paths for head in _heads(path)]
    heads = list(believed(kept, keys, report))
    places = sorted({(head.tenant, head.segment) for head, _, _ in kept})
    trail, unchained, strange = _trail(places, heads), dict[str, int](), 0
    for part, found, without in (part for path in paths for part in _parts(path, places, heads)):
        trail.merge(part)
        strange += found
        for tenant, count in without.items():
            unchained[tenant] = unchained.get(tenant, 0) + count
    if not (trail.strands or trail.scattered or unchained or strange):
        raise Misuse("nothing was verified: a file holds neither rows nor heads")
    newest = max((head.last_us for head in heads), default=_NEVER_US)
    trail.report(report, newest - _SETTLED_US)
    for finding in (*orphans(heads), *unended(heads, newest - _SETTLED_US)):
        report.add(finding)
    for tenant, count in unchained.items():
        report.add(Finding("unchained", tenant, "", 0, count), count)
    if strange:
        report.add(Finding("unreadable", "", "", 0, 0, f"{strange} of them"), strange)


def _heads(path: Path) -> Sequence[tuple[Head, str | None, bytes | None]]:
    with _opened(path) as file:
        kept = heads_first(itertools.chain.from_iterable(lines(file, 0, None)))
    for head, key_id, _ in kept:
        texts = [head.tenant, head.segment, *(each for each in (head.previous, key_id) if each is not None)]
        if not all(isinstance(each, str) for each in texts):
            raise Strange("a head that cannot be read")
    return kept


Part = tuple[Trail, int, dict[str, int]]
"""What was seen; lines that are none; rows without a chain by tenant."""


def _trail(places: Sequence[Place], heads: Sequence[Head]) -> Trail:
    trail = Trail()
    for place in places:
        trail.strand(place, (), SIGNED)
    for head in heads:
        trail.strand((head.tenant, head.segment), [head])
    return trail


def _parts(path: Path, places: Sequence[Place], heads: Sequence[Head]) -> Iterator[Part]:
    """What was seen in the parts of a file, in their order. This process reads parts from the last one on, which
    others, who begin a while after it, have not come to."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        is_packed = file.read(len(_GZIP)) == _GZIP
    count = 1 if is_packed else max(1, min(_MOST_PARTS, size // max(_WORTH, _OF_A_CHAIN * len(places))))
    more = min(count, len(os.sched_getaffinity(0)), _MOST_PROCESSES) - 1
    if more < 1:
        yield _part(path, 0, None, places, heads)
        return
    spans = list(itertools.pairwise(size * number // count for number in range(count + 1)))
    with ProcessPoolExecutor(more, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(_part, path, *span, places, heads) for span in spans]
        ours = [_part(path, *spans[at], places, heads) for at in reversed(range(count)) if running[at].cancel()]
        for each in running:
            yield ours.pop() if each.cancelled() else each.result()


def _part(path: Path, start: int, end: int | None, places: Sequence[Place], heads: Sequence[Head]) -> Part:
    trail = _trail(places, heads)
    with _opened(path) as file:
        strange, unchained = take(trail, lines(file, start, end))
    trail.strands = {place: strand for place, strand in trail.strands.items() if strand.rows}
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


def lines(file: BinaryIO, start: int, end: int | None) -> Iterator[list[bytes]]:
    """The lines that begin in this part of a file, `end` excluded, in portions. Raises Strange for one without an
    end."""
    file.seek(0)
    at = max(start - 1, 0 if start or file.read(len(BOM_UTF8)) != BOM_UTF8 else len(BOM_UTF8))
    file.seek(at)
    rest, skips = b"", start > 0
    while block := file.read(_BLOCK):
        block = rest + block
        found = block.split(b"\n")
        rest = found.pop()
        begins, at = at, at + len(block) - len(rest)
        if end is not None and at > end:
            found = _beginning(found, end - begins)
        if skips and found:  # the end of a line that begins in the part before
            skips = False
            del found[0]
        yield [line for line in found if line]
        if end is not None and at >= end:
            return
        if len(rest) > _LONGEST_LINE:
            raise Strange("a line does not end")
    if rest and not skips:
        yield [rest]


def _beginning(found: list[bytes], size: int) -> list[bytes]:
    """Those of some lines that begin in so many bytes from the first one's begin."""
    begins = 0
    for number, line in enumerate(found):
        if begins >= size:
            return found[:number]
        begins += len(line) + 1
    return found
