"""What the spool counts, as metrics.

Owns names, types and labels; docs/operations.md lists them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from proxy.backend_metrics import keyed, single

if TYPE_CHECKING:
    from proxy.metrics import Family
    from proxy.spool.bounds import Numbers


def spool_families(numbers: Numbers) -> Iterator[Family]:
    """The metrics of a journal."""
    dropped = {str(grade): float(count) for grade, count in numbers.dropped.items()}
    yield single("gauge", "spool_bytes", "Bytes of the spool on disk, of all processes", numbers.size)
    yield single("gauge", "spool_used_share", "The same, as a part of what there may be", numbers.share)
    yield single("gauge", "spool_memory_bytes", "Bytes of records that wait in memory for the disk", numbers.ring)
    yield single("gauge", "spool_open_requests", "Recorded requests that have not ended", numbers.open)
    yield single("gauge", "spool_failing", "Whether records do not get onto the disk", numbers.failing)
    yield single("counter", "spool_records", "Records written to the spool", numbers.written)
    yield single("counter", "spool_refused", "Calls refused because they could not be recorded", numbers.refused)
    yield keyed("counter", "spool_dropped", "Records counted instead of kept", "grade", dropped)
    yield single("counter", "spool_syncs", "Times that records were put on the disk", numbers.syncs)
    yield single("counter", "spool_sync_failures", "Of these, failed", numbers.sync_failures)
    yield single("counter", "spool_sync_seconds", "Seconds spent on it", numbers.sync_s)
