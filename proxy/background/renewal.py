"""Puts configuration and registry in force: builds what requests read in a thread, then swaps it by assignment.

Owns which of both a change concerns, and that two changes never overtake each other. What is built is the data plane's
(`snapshot.py`, `admission.py`); whence the rows come is `registry_sync.py`'s. It starts no task.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from proxy.config.models import Config
from proxy.dataplane.admission import CONCERNS, Admission, AdmissionBuilder, Change, Rows
from proxy.dataplane.allowance import CONCERNS as LIMITING
from proxy.dataplane.allowance import Allowance, allowance_of
from proxy.dataplane.estates import estates_of
from proxy.dataplane.flags import CONCERNS as FLAGGING
from proxy.dataplane.flags import TABLE as FLAGS
from proxy.dataplane.flags import FlagBook
from proxy.dataplane.snapshot import Live, Snapshot, SnapshotBuilder

_NO_ROWS: Final[Rows] = {}
#: Tables that servers, routes and flags are made of.
_ROUTED: Final = FLAGGING | {"mcp_servers", "routing_rules"}


@dataclass(frozen=True, slots=True)
class Built:
    """What was prepared and is not in force yet."""

    config: Config
    snapshot: Snapshot
    admission: Admission
    allowance: Allowance


class Renewal:
    """The one who swaps. Methods without `await` may run in a thread; hold `turn` around them and what follows."""

    def __init__(
        self,
        live: Live,
        snapshots: SnapshotBuilder,
        admissions: AdmissionBuilder,
        report: Callable[[Collection[str]], object],
        env: Mapping[str, str] = os.environ,
    ) -> None:
        """`report` is told the problems of rows, when they are others than before; `env` is what headers may name."""
        self._live = live
        self._snapshots = snapshots
        self._admissions = admissions
        self._report = report
        self._env = env
        self._rows = _NO_ROWS
        self._reported: tuple[str, ...] = ()
        #: Whoever builds and swaps has it.
        self.turn: Final = asyncio.Lock()

    def build(self, config: Config) -> Built:
        """Everything anew for a configuration. Raises OSError or ValueError when a file it names cannot be used."""
        rows = self._rows
        before = self._live.snapshot
        estates, flags = estates_of(rows, config, self._env, before.estates), FlagBook.of(config.flags, rows)
        snapshot = self._snapshots.build(config, estates, before, flags)
        return Built(config, snapshot, self._admissions.build(config, rows), allowance_of(config, rows))

    def swap(self, built: Built) -> None:
        """Put it in force for every request that begins from now on."""
        self._live.admission = built.admission
        self._live.allowance = built.allowance
        self._live.swap(built.snapshot)
        self._tell()

    async def apply(self, rows: Rows, changes: Collection[Change] | None) -> None:
        """Put rows in force: those named in `changes`, or all for None. Who may come in is decided first."""
        async with self.turn:
            self._rows = rows
            if changes is None or any(table in CONCERNS for table, _ in changes):
                self._live.admission = await asyncio.to_thread(self._admit, changes)
            if changes is None or any(table in _ROUTED for table, _ in changes):
                snapshot = await asyncio.to_thread(self._route, self._flagged(changes))
                if snapshot is not None:
                    self._live.swap(snapshot)
            if changes is None or any(table in LIMITING for table, _ in changes):
                self._live.allowance = await asyncio.to_thread(allowance_of, self._live.snapshot.config, rows)
            self._tell()

    def _flagged(self, changes: Collection[Change] | None) -> bool:
        """Whether flags may be others: by their rows, or by the tenants of these."""
        return changes is None or any(
            table == FLAGS or (table in FLAGGING and bool(self._rows.get(FLAGS))) for table, _ in changes
        )

    def _admit(self, changes: Collection[Change] | None) -> Admission:
        if changes is None or any(row == "" for _, row in changes):
            return self._admissions.build(self._live.snapshot.config, self._rows)
        return self._admissions.patched(self._live.admission, self._rows, changes)

    def _route(self, flagged: bool) -> Snapshot | None:
        """The next snapshot; None when the rows that changed do not matter to it. `flagged`: those of flags may."""
        before = self._live.snapshot
        estates = estates_of(self._rows, before.config, self._env, before.estates)
        if estates == before.estates and not flagged:
            return None
        flags = FlagBook.of(before.config.flags, self._rows) if flagged else before.flags
        return self._snapshots.build(before.config, estates, before, flags)

    def _tell(self) -> None:
        snapshot = self._live.snapshot
        problems = (*snapshot.estates.problems, *snapshot.flags.problems, *self._live.allowance.problems)
        if problems != self._reported:
            self._reported = problems
            self._report(problems)
