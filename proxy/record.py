"""What keeps what happened: the record of requests and its spool, sums of traffic, alerts, retention.

Owns their making, the order in which they begin and end, and the steps that keep them going. Part of the composition
root, like `backend.py`, which brings the databases. Without PostgreSQL there is nowhere to keep a record: then requests
leave their log line and metrics only.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy import log
from proxy.audit.signing import BadKey, Signer
from proxy.background import incidents, shipping
from proxy.background import traffic_rows as sums
from proxy.background.alerting import Alerting, Around
from proxy.background.incidents import STEP_S as INCIDENTS_S
from proxy.background.incidents import Incidents
from proxy.background.observing import Clocks
from proxy.background.retention import STEP_S as RETENTION_S
from proxy.background.retention import Retention
from proxy.background.shipping import Shipper
from proxy.background.signals import Sources
from proxy.background.traffic import STEP_S as TRAFFIC_S
from proxy.background.traffic import Traffic
from proxy.background.traffic_rows import TrafficRows
from proxy.config.keyfile import AUDIT_KEY, load_or_create
from proxy.dataplane.facts import Facts
from proxy.dataplane.recorder import Recorder
from proxy.dataplane.resolver import Resolver
from proxy.dataplane.scrutiny import Scrutiny
from proxy.dataplane.tally import Tally
from proxy.dataplane.tracer import Tracer
from proxy.record_metrics import spool_families
from proxy.spool.journal import STEP_S as SYNC_S
from proxy.spool.journal import Bounds, Journal
from proxy.tracing import Spans, open_spans

if TYPE_CHECKING:
    from proxy.backend import Backend
    from proxy.background.supervisor import Step, Supervisor
    from proxy.batched_stream import BatchedStream
    from proxy.config.models import Config
    from proxy.dataplane.shedding import Load
    from proxy.dataplane.snapshot import Live
    from proxy.dataplane.upstream import Upstream
    from proxy.metrics import Family, Metrics

#: How long what waits may take at the end, seconds.
_LAST_ROWS_S: Final = 2.0
_LAST_SUMS_S: Final = 1.0


class Process(NamedTuple):
    """What is watched, and who runs things."""

    live: Live
    load: Load
    supervisor: Supervisor
    draw: Callable[[], float]
    """A number from 0 to 1."""


class Records:
    """Everything that keeps what happened, for the whole process."""

    def __init__(self, config: Config, metrics: Metrics, stream: BatchedStream, backend: Backend) -> None:
        """Made without I/O; records have nowhere to go until `start`."""
        access_log = log.AccessLog(stream, config.log.format)
        facts = Facts(backend.instance)
        self.recorder = Recorder(metrics, access_log, logs_access(config), backend.usage, facts, config.record)
        self.recorder.new_id = backend.ids.text
        self.recorder.tally = self._tally = Tally()
        self._scrutiny: Scrutiny | None = None
        self._backend = backend
        self._journal: Journal | None = None
        self._shipper: Shipper | None = None
        self._retention: Retention | None = None
        self._spans: Spans | None = None
        self.incidents = Incidents(None, backend.ids, time.time)
        self._started = False
        self._rows: TrafficRows
        self._traffic: Traffic
        self._alerting: Alerting

    async def start(self, config: Config, process: Process) -> None:
        """Open the spool and make what watches. Raises OSError when the state directory cannot be used."""
        backend, live = self._backend, process.live
        self._process = process
        database, clocks = backend.database, Clocks(time.time, time.monotonic)
        if config.tracing is not None:
            self._spans = open_spans(config.tracing, backend.instance)
            self.recorder.tracer = Tracer(config.tracing, self._spans.add, clocks.monotonic)

        def servers() -> Mapping[str, Upstream]:
            return live.snapshot.upstreams

        self.incidents = Incidents(database, backend.ids, clocks.wall, backend.instance)
        self.recorder.incidents = self.incidents
        self._rows = TrafficRows(database, backend.ids.new, backend.instance)
        self._traffic = Traffic(
            self._tally, self._rows, servers, backend.catalogue.names, clocks.monotonic, clocks.wall
        )
        sources = Sources(
            self._traffic.value, servers, self._spool_share, backend.postgres_away, backend.redis_away,
            lambda: process.load.lag_s, partial(_memory_share, process.load),
        )  # fmt: skip
        around = Around(
            process.supervisor.spawn, clocks, process.draw, backend.ids, log.logger("alerts"), backend.instance,
            Resolver(),
        )  # fmt: skip
        self._alerting = Alerting(config.alerts, sources, database, around)
        if backend.stores.upkeep is not None:
            self._retention = Retention(
                backend.stores.upkeep, lambda: live.snapshot.config.retention, clocks.wall, asyncio.sleep,
                log.logger("retention"), backend.ids,
            )  # fmt: skip
            self._retention.instance = backend.instance
        self._started = True
        if backend.stores.records is not None:
            await self._open(config, Path(config.state_dir))

    async def _open(self, config: Config, state: Path) -> None:
        settings, records = config.record.spool, self._backend.stores.records
        assert records is not None  # noqa: S101 - start() has looked
        spool = state / "spool"
        bounds = Bounds(settings.max_size, settings.segment, settings.memory)
        self._journal = await asyncio.to_thread(Journal, spool, bounds, time.time)
        try:
            signer = Signer(await asyncio.to_thread(load_or_create, state / AUDIT_KEY))
        except BadKey as error:
            raise OSError(f"{state / AUDIT_KEY}: {error}") from None
        self._shipper = Shipper(records, spool, self._journal, signer, log.logger("record"))
        key = await asyncio.to_thread(load_or_create, state / "arguments.key")
        self._scrutiny = Scrutiny(config.record, self._backend.catalogue, key, time.time)
        self._scrutiny.risky = self.incidents.risky
        self.recorder.scrutiny = self._scrutiny
        self.recorder.journal = self._journal

    def configure(self, config: Config) -> None:
        """A reloaded configuration is in force."""
        self.recorder.enabled = logs_access(config)
        self.recorder.config = config.record
        if self._scrutiny is not None:
            self._scrutiny.configure(config.record)
        self._alerting.configure(config.alerts)

    def failed(self, what: str, error: BaseException | str) -> None:
        """Something of the background has failed."""
        self.incidents.failed(f"loop {what}", error)

    def steps(self) -> Iterator[tuple[str, float, Step, float]]:
        """Name, interval in seconds, step and jitter of every loop."""
        yield "traffic", TRAFFIC_S, self._traffic.step, 0.1
        yield "rows of traffic", sums.STEP_S, self._rows.step, 0.1
        yield "incidents", INCIDENTS_S, self.incidents.step, 0.1
        yield from self._alerting.steps()
        if self._journal is not None and self._shipper is not None:
            yield "spool", SYNC_S, self._journal.sync, 0.0
            yield "shipping", shipping.STEP_S, self._shipper.step, 0.1
        if self._retention is not None:
            yield "retention", RETENTION_S, partial(self._retention.step, self._process.supervisor.spawn), 0.1

    def families(self) -> Iterator[Family]:
        """The metrics of all this."""
        yield from sums.families(self._traffic, self._rows)
        yield from incidents.families(self.incidents)
        yield from self._alerting.families()
        if self._journal is not None and self._shipper is not None:
            yield from spool_families(self._journal.numbers())
            yield from shipping.families(self._shipper)
        if self._retention is not None:
            yield from self._retention.families()
        if self._spans is not None:
            yield from self._spans.families()

    async def finish(self) -> None:
        """Write the last rows, and ship the rest of the spool; what PostgreSQL does not take stays on disk."""
        try:
            if self._started:
                await self._finish()
        finally:
            if self._journal is not None:
                shipped = self._shipper is not None and await self._shipper.finish(_LAST_ROWS_S)
                await self._journal.close(remove=shipped)

    async def _finish(self) -> None:
        await self._traffic.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_SUMS_S):
                await self._rows.finish()
                await self.incidents.finish()
        await self._alerting.finish()
        if self._spans is not None:
            await self._spans.close(_LAST_SUMS_S)

    def _spool_share(self) -> float | None:
        return self._journal.numbers().share if self._journal is not None else None


def logs_access(config: Config) -> bool:
    """Whether each request has a line."""
    return config.log.access and config.log.level in ("debug", "info")


def _memory_share(load: Load) -> float | None:
    return load.memory_bytes / load.memory_limit if load.memory_limit else None
