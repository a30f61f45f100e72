"""The command `audit verify`: of the database a day at a time, or of exported files.

Owns the portions in which the trail is verified, so that memory stays bounded, and what is told of the outcome. What
makes a chain right is `proxy/audit`'s to know.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from proxy.audit.chain import Head
from proxy.audit.copied import Copied
from proxy.audit.findings import Finding
from proxy.audit.heads import Verifies, believed, misses, unended
from proxy.audit.signing import BadKey, public_keys
from proxy.audit.verify import SIGNED, Place, Report, Trail
from proxy.commands import audit_files
from proxy.commands.audit import own_key
from proxy.commands.audit_arguments import span
from proxy.commands.audit_source import DAY, Range, portions, reader_of
from proxy.commands.connection import carried_out
from proxy.commands.console import DONE, Misuse, Sentence, counted, load_config, remark, show_json, show_table
from proxy.config.files import read_bounded
from proxy.config.models import Config
from proxy.store.audit_copy import KeptHead, Reader
from proxy.store.audit_search import Wanted

#: Something is wrong.
FOUND: Final = 1
#: A chain has a head after so long, also when PostgreSQL was away for a moment.
_SETTLED: Final = timedelta(minutes=10)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LARGEST_KEY: Final = 1 << 20


def run(given: Namespace) -> int:
    """Verify what is asked for; DONE, or FOUND when something is wrong. Raises Misuse."""
    keys = dict[str, Verifies]()
    for path in given.key:
        keys.update(_keys(path))
    began = time.monotonic()
    if given.file:
        if not keys or given.tenant or given.since or given.until:
            raise Misuse("files are verified as a whole, with the public key: --file FILE --key FILE")
        report = audit_files.verified(given.file, keys, together=given.together)
    elif given.together:
        raise Misuse("'--together' is for files")
    else:
        config, range_ = load_config(given), span(given)
        if not keys:
            own = own_key(config)
            keys[own.key_id] = own
        report = carried_out(_verified(config, Range(*range_, given.tenant), keys))
    _show(report, time.monotonic() - began, given.json)
    if given.file and report.rows and not report.heads:
        remark("there is no signed head in what was given: an export has them with '--whole' only")
    return DONE if report.complete else FOUND


def _keys(path: Path) -> Mapping[str, Verifies]:
    try:
        return public_keys(read_bounded(path, _LARGEST_KEY))
    except BadKey as error:
        raise Misuse(str(error)) from None
    except ValueError as error:
        raise Misuse(f"the file of the key {error}") from None


async def _verified(config: Config, asked: Range, keys: Mapping[str, Verifies]) -> Report:
    async with reader_of(config) as reader:
        return await verify_database(reader, asked, keys)


async def verify_database(reader: Reader, asked: Range, keys: Mapping[str, Verifies]) -> Report:
    """What is wrong in a range. Raises Unavailable, Rejected."""
    report, tenant = Report(), await reader.tenant_id(asked.tenant)
    async for since, until in portions(reader, asked, tenant):
        await Portion(reader, asked, tenant, since, until).verify(keys, report)
    return report


class Portion:
    """Part of the range: the segments whose last signed row is from within it."""

    def __init__(self, reader: Reader, asked: Range, tenant: UUID | None, since: datetime, until: datetime) -> None:
        self._reader, self._asked, self._tenant = reader, asked, tenant
        self._since, self._until = since, until

    async def verify(self, keys: Mapping[str, Verifies], report: Report) -> None:
        """Add what is found. Raises Unavailable, Rejected."""
        known = await self._reader.heads(self._since - DAY, self._until, self._tenant)
        signed = list(believed(_claims(known), keys, report))
        spans = {_place(kept): kept.span for kept in known if self._is_ours(kept)}
        ours = [head for head in signed if (head.tenant, head.segment) in spans]
        # Who forges a head keeps nobody from looking at the rows.
        others = {(head.tenant, head.segment) for head in signed} - spans.keys()
        trail = Trail()
        for place in {_place(kept) for kept in known} - others:
            trail.strand(place, (), SIGNED)
        for head in ours:
            trail.strand((head.tenant, head.segment), [head])
        rows = Copied(trail, others, (_micros(self._since), _micros(self._until)))
        times = [spans[head.tenant, head.segment] for head in ours]
        since, until = (
            min([self._since, *(span[0] for span in times)]),
            max([self._until, *(span[1] for span in times)]),
        )
        wanted = Wanted(since, until, str(self._tenant) if self._tenant is not None else None)
        await self._reader.rows(wanted, rows.feed, ordered=False)
        if trail.scattered:
            await self._read_again(wanted, trail, {(head.tenant, head.segment): head for head in ours})
        settled_us = _micros(datetime.now(UTC) - _SETTLED)
        trail.report(report, settled_us)
        for finding in unended(signed, settled_us):
            if (finding.tenant, finding.segment) in spans:
                report.add(finding)
        for name, count in rows.unchained.items():
            report.add(Finding("unchained", name, "", 0, count), count)
        await self._find_orphans(ours, {(head.tenant, head.segment) for head in signed if head.is_final}, keys, report)

    async def _find_orphans(
        self, ours: Sequence[Head], ended: Collection[Place], keys: Mapping[str, Verifies], report: Report
    ) -> None:
        """Tell of segments that name one before them which was not ended, although it should be there."""
        gone = {(head.tenant, head.previous): head for head in ours if head.previous is not None}
        gone = {place: head for place, head in gone.items() if place not in ended}
        if gone:
            for head in believed(_claims(await self._reader.finals(gone)), keys, report):
                gone.pop((head.tenant, head.segment), None)
        oldest = await self._reader.oldest({tenant for tenant, _ in gone}) if gone else {}
        for (tenant, previous), head in sorted(gone.items()):
            if misses(head, _micros(oldest[tenant])):
                report.add(Finding("orphaned", tenant, head.segment, 0, 0, previous))

    def _is_ours(self, kept: KeptHead) -> bool:
        """Each segment is of one portion: that of its last head, or the first or last one if that is outside."""
        if kept.last < self._since:
            return self._since == self._asked.since and kept.span[1] > self._since
        return kept.last < self._until or self._until == self._asked.until

    async def _read_again(self, wanted: Wanted, trail: Trail, heads: Mapping[Place, Head]) -> None:
        """Read segments whose rows lie too far from their order once more, in order."""
        ordered, places = Trail(), sorted(trail.scattered)
        for place in places:
            ordered.strand(place, [heads[place]] if place in heads else (), SIGNED)
        rows = Copied(ordered, (), (0, 0))
        await self._reader.rows_of(wanted, [segment for _, segment in places], rows.feed)
        trail.scattered.clear()
        trail.merge(ordered)


def _claims(known: Iterable[KeptHead]) -> Iterator[tuple[Head, str | None, bytes | None]]:
    return ((kept.head, kept.key_id, kept.signature) for kept in known)


def _place(kept: KeptHead) -> Place:
    return kept.head.tenant, kept.head.segment


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _show(report: Report, seconds: float, for_programs: bool) -> None:
    if for_programs:
        findings = [
            {
                "kind": each.kind, "tenant": each.tenant, "segment": each.segment, "first": each.first,
                "last": each.last or each.first, "words": each.words,
            }
            for each in report.findings
        ]  # fmt: skip
        show_json(
            {
                "complete": report.complete, "rows": report.rows, "segments": report.segments, "heads": report.heads,
                "unsigned": report.unsigned, "counts": report.counts, "findings": findings,
                "seconds": round(seconds, 3),
            }
        )  # fmt: skip
        return
    if report.findings:
        rows = [(each.tenant, each.segment, each.first or None) for each in report.findings]
        show_table(
            ("TENANT", "SEGMENT", "ROW", "WHAT"),
            [(*row, Sentence(each.words)) for row, each in zip(rows, report.findings, strict=True)],
        )
    seen = f"{counted(report.rows, 'row')} in {counted(report.segments, 'segment')}"
    remark(f"{seen}, {counted(report.heads, 'signed head')}, {seconds:.1f} s")
    if report.unsigned:
        remark(f"not signed yet, but in their chains: {counted(report.unsigned, 'row')}")
    found = counted(sum(report.counts.values()), "finding")
    whole = "complete and unchanged" if report.rows or report.heads else "nothing was recorded, or all of it is gone"
    remark(whole if report.complete else f"NOT as it was written: {found}")
