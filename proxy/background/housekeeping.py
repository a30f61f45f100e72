"""What PostgreSQL has to be told regularly: to make partitions, and to refresh its materialized views.

Owns when, and what of it is worth a line in the log. While PostgreSQL is away, or is not migrated yet, that is no
news: others say so. It knows no SQL.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proxy.store.pool import TooSlow, Unavailable
from proxy.store.upkeep import create_partitions, refresh_views

if TYPE_CHECKING:
    from proxy.log import Logger
    from proxy.store.database import Database

#: Seconds. Each view has its own interval in PostgreSQL, so views are offered a refresh with each step.
_DAY_S: Final = 86_400.0
_EACH_STEP_S: Final = 0.0


@dataclass(slots=True)
class _Job:
    name: str
    every_s: float
    run: Callable[[], Awaitable[None]]
    due_at: float
    too_slow: bool = False


class Housekeeping:
    """`step()` is meant for a loop of a minute or so, and for the start."""

    def __init__(self, database: Database, log: Logger, clock: Callable[[], float]) -> None:
        """`database` is one of its own, whose purpose `write` has a single connection and a long deadline: the work
        takes seconds, and must keep no other writer waiting. `clock` gives monotonic seconds."""
        self._database = database
        self._log = log
        self._clock = clock
        self._failing: frozenset[str] = frozenset()
        self._jobs = (
            _Job("partitions", _DAY_S, self._make_partitions, clock()),
            _Job("materialized views", _EACH_STEP_S, self._refresh_views, clock()),
        )

    async def step(self) -> None:
        """Do what is due. What cannot be done is due again with the next step."""
        await self._database.probe()
        for job in self._jobs:
            if self._clock() >= job.due_at:
                await self._run(job)

    async def _run(self, job: _Job) -> None:
        try:
            await job.run()
        except TooSlow:
            if not job.too_slow:
                self._log.warning("housekeeping took too long and was given up", job=job.name)
            job.too_slow = True
        except Unavailable:
            return
        else:
            job.too_slow = False
            job.due_at = self._clock() + job.every_s

    async def _make_partitions(self) -> None:
        made = await create_partitions(self._database)
        if made:
            self._log.info("partitions made", number=len(made))

    async def _refresh_views(self) -> None:
        """Each view that begins to fail is named once."""
        done = await refresh_views(self._database)
        failed = {name for name, well in done.items() if not well}
        if failed - self._failing:
            self._log.warning(
                "materialized views were not refreshed; see the table materialized_views",
                views=sorted(failed - self._failing),
            )
        self._failing = (self._failing - done.keys()) | failed
