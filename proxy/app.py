"""The composition root: builds every object once, and owns the order of starting, reloading and stopping.

    start   databases -> registry -> admin -> listener -> loops -> ready
    stop    drain -> loops -> upstream connections -> databases -> admin

The only module that knows everyone.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy import log
from proxy.admin.readiness import Readiness
from proxy.admin.server import AdminServer
from proxy.backend import Backend
from proxy.background.config_watch import ConfigWatch
from proxy.background.overrides import Overrides
from proxy.background.overrides import families as setting_families
from proxy.background.renewal import Built, Renewal
from proxy.background.supervisor import Supervisor
from proxy.batched_stream import BatchedStream
from proxy.config.loader import load
from proxy.config.models import restart_keys
from proxy.config.problems import ConfigError, Problem
from proxy.dataplane.admission import AdmissionBuilder, Freshness
from proxy.dataplane.affinity import sealer_of
from proxy.dataplane.allowance import allowance_of
from proxy.dataplane.bans import policy_of
from proxy.dataplane.deadlines import Deadlines
from proxy.dataplane.estates import estates_of
from proxy.dataplane.handler import Handler
from proxy.dataplane.lane_aiohttp import AiohttpLane
from proxy.dataplane.listener import TICK_S, Listener
from proxy.dataplane.mirror import Mirrors
from proxy.dataplane.parts import Parts
from proxy.dataplane.snapshot import Live, SnapshotBuilder
from proxy.dataplane.streams import Streams
from proxy.dataplane.upstream import Around
from proxy.drain import Drain
from proxy.mcp.methods import metric_label
from proxy.metrics import Metrics, new_registry
from proxy.protection import Protection
from proxy.record import Process, Records
from proxy.store.peppers import pepper_ring

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from proxy.config.models import Config
    from proxy.dataplane.context import RequestContext
    from proxy.dataplane.exchange import Lane, Pipeline
    from proxy.dataplane.upstream import Upstream
    from proxy.errors import Refusal
    from proxy.identity.list_filter import Keep

#: How often the configuration file is looked at, retired servers are closed, and log lines are written, seconds.
_WATCH_S: Final = 1.0
_RETIRE_S: Final = 1.0
_FLUSH_S: Final = 0.1
_WATCHDOG_S: Final = 5.0
#: How often open streams are asked whose they are, seconds.
_REVOKE_S: Final = 1.0
#: How long loops and connections may take to end, seconds.
_STOP_S: Final = 2.0
#: Problems of rows in one line of the log.
_MOST_PROBLEMS: Final = 20


class App:
    """One proxy process: everything it is made of, and how it starts, reloads and stops."""

    def __init__(
        self, path: Path, config: Config, stream: BatchedStream, lane: Callable[[Pipeline], Lane] = AiohttpLane
    ) -> None:
        self._path = path
        self._lane = lane
        self._draw = random.Random().random  # noqa: S311 - spreads load, guards nothing
        self._log = log.logger("app")
        self._stream = stream
        self.metrics = Metrics(new_registry(), config.metrics.max_servers, metric_label)
        self.metrics.build_info(_version())
        self.metrics.dropped_lines = lambda: stream.dropped
        self.readiness = Readiness("listener", "config")
        self._supervisor = Supervisor(
            log.logger("background"), on_step=self.metrics.loop_step, on_failure=self._failed, rng=self._draw
        )
        self._deadlines = Deadlines(time.monotonic)
        freshness = Freshness()
        self._protection = Protection(config)
        around = Around(time.monotonic, self._draw, self._protection.breaker_changed)
        snapshots = SnapshotBuilder(self.metrics, sealer_of, self._deadlines, lambda: datetime.now(UTC), around)
        admissions = AdmissionBuilder(pepper_ring, freshness)
        # without the registry, which is read at the start: nothing of it serves
        self.live = Live(
            snapshots.build(config, estates_of({}, config, os.environ), None),
            admissions.build(config, {}),
            allowance_of(config, {}),
        )
        self._renewal = Renewal(self.live, snapshots, admissions, self._report_rows)
        self._overrides = Overrides(self._renewal, config, self._put, self._report_rows)
        self._started = False
        self._backend = Backend(config, self.live, freshness, self._draw, self.readiness.set)
        self.metrics.more = lambda: chain(
            self._backend.families(),
            self._protection.families(),
            self._records.families(),
            self._streams.times.families(),
            setting_families(self._overrides.outcome),
        )
        self._prepared: Built | None = None
        self._handler: Handler | None = None
        self._records = Records(config, self.metrics, stream, self._backend)
        self._recorder = self._records.recorder
        self._streams = Streams()
        self._protection.begin(self.live, self._streams, self._supervisor, self._draw)
        self._listener = Listener(config.listen, self.metrics, self._refused_early, self._protection.load)
        self._admin = AdminServer(config.admin.host, config.admin.port, self.metrics, self.readiness)
        self._drain = Drain(self._listener, self._streams, self.readiness)

    async def start(self) -> tuple[int, int]:
        """Start the databases, bind both ports and begin. Returns the data port and the admin port.

        Raises OSError when a port is taken, EmbeddedError and MigrationError when an embedded database is no use.
        """
        await self._backend.start(self._overrides)
        config, backend, protection = self.live.snapshot.config, self._backend, self._protection
        protection.record(backend.database, backend.rows, backend.ids, backend.instance)
        await self._records.start(config, Process(self.live, protection.load, self._supervisor, self._draw))
        mirrors = Mirrors(self._supervisor.spawn, self.metrics, self._draw)
        parts = Parts(
            self._streams, mirrors, time.monotonic, protection.load, protection.budget, backend.catalogue, self._keeps,
            backend.lessons, backend.limiter, backend.violated, self._recorder, self.live.weight_of,
        )  # fmt: skip
        self._handler = Handler(self.live, backend.bans, parts, self._recorder)
        with _naming("admin", config.admin.host, config.admin.port):
            admin_port = await self._admin.start()
        with _naming("listen", config.listen.host, config.listen.port):
            port = await self._listener.start(config.listen, self._lane(self._handler))
        self._start_loops(config)
        self._started = True
        self._configure(self.live.snapshot.config)  # rows may have changed it since everyone was made
        self.readiness.set("listener", True)
        gc.collect()
        gc.freeze()  # what serves until the end is not looked through again: that takes 0.1 s and more each time
        self._protection.event("start", "info", "The proxy serves", servers=len(self.live.snapshot.upstreams))
        self._log.info("serving", port=port, admin_port=admin_port, servers=len(self.live.snapshot.upstreams))
        return port, admin_port

    def _start_loops(self, config: Config) -> None:
        watch = ConfigWatch(self._path, self._prepare, self._apply, self._report, config.files, self._renewal.turn)
        every = self._supervisor.every
        every("downstream deadlines", TICK_S, self._listener.tick)
        every("upstream deadlines", TICK_S, self._deadlines.tick)
        every("log", _FLUSH_S, self._stream.flush)
        every("config", _WATCH_S, watch.step_aside)
        every("watchdog", _WATCHDOG_S, self._watch_loops)
        every("retired", _RETIRE_S, self.live.close_retired)
        every("revoked", _REVOKE_S, self._cut_revoked)
        for name, interval_s, step in self._backend.steps():
            every(name, interval_s, step)
        of_protection = self._protection.steps(self._listener, self._admin.beat)
        for name, interval_s, step, jitter in chain(of_protection, self._records.steps()):
            every(name, interval_s, step, jitter)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: self._supervisor.spawn("reload", watch.reload_aside()))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._drain.signalled)

    def _refused_early(self, refusal: Refusal, peer: str) -> None:
        """The gate has refused what is no request yet."""
        self._recorder.refused_early(refusal, peer)
        self._backend.bans.note(refusal, peer, time.monotonic())

    def _failed(self, what: str, error: BaseException | str) -> None:
        """A step of a loop or a one-shot has failed."""
        self._records.failed(what, error)

    def _watch_loops(self) -> None:
        self.readiness.set("loops", *self._supervisor.check())

    def _keeps(self, ctx: RequestContext, upstream: Upstream) -> Keep:
        """What says which items of a server's lists the client may use, by the rules in force now."""
        access, principal, place, now = self.live.admission.access, ctx.principal, upstream.place, time.time()
        return lambda kind, name: access.may_use(principal, place, kind, name, now)

    def _cut_revoked(self) -> None:
        now, admission = time.time(), self.live.admission
        self._streams.cut_unless(lambda principal: admission.holds(principal, now))

    def _prepare(self) -> Config:
        """Load the configuration and compile it, in a thread: ten thousand routes take a second. Raises ConfigError."""
        config = load(self._path, os.environ)
        try:
            self._prepared = self._overrides.build(config)
        except (OSError, ValueError) as error:  # a file that was there when it was checked
            raise ConfigError((Problem(str(self._path), 0, 0, "", str(error)),), config.files) from None
        return config

    def _apply(self, _config: Config) -> None:
        """Put a reloaded configuration in force, with what rows change of it."""
        built, self._prepared = self._prepared, None
        assert built is not None  # noqa: S101 - the watch prepares before it applies
        self._put(built)

    def _put(self, built: Built) -> None:
        """Put a configuration in force; what cannot change without a restart stays, with a warning."""
        needs_restart = restart_keys(self.live.snapshot.config, built.config)
        if needs_restart:
            self._log.warning("restart needed", keys=needs_restart)
        self._overrides.swap(built)
        if self._started:
            self._configure(built.config)
            self._protection.event(
                "reload", "info", "A configuration came into force", generation=self.metrics.generation
            )
            self._log.info(
                "configuration in force", generation=built.snapshot.generation, servers=len(built.config.servers)
            )

    def _configure(self, config: Config) -> None:
        """Tell everyone who does not look at the snapshot."""
        log.configure(config.log.level, config.log.format, self._stream)
        self._backend.bans.configure(policy_of(config))
        self._protection.configure(config)
        self._records.configure(config)
        self._listener.configure(config.listen)  # last: files of certificates may be gone
        self.metrics.reloaded(self.live.snapshot.generation, time.time())
        self.readiness.set("config", True)

    def _report(self, error: ConfigError) -> None:
        """A configuration that cannot be used: the one in force goes on serving."""
        self.metrics.reload_failed()
        self._protection.event("reload_refused", "error", "A configuration was refused", problems=len(error.problems))
        self._log.error("configuration refused", problems=[str(problem) for problem in error.problems])

    def _report_rows(self, problems: Collection[str]) -> None:
        """Rows of the registry that cannot be used, and are left out; none any more when they were mended."""
        self._log.warning("rows of the registry left out", problems=list(problems)[:_MOST_PROBLEMS], all=len(problems))

    async def run_until_stopped(self) -> None:
        """Serve until a signal comes, then drain and stop."""
        await self._drain.signal()
        periods = self.live.snapshot.config.listen.drain
        self._log.info("draining", grace_s=periods.grace, delay_s=periods.delay)
        await self._drain.run(periods)
        await self.stop()

    async def stop(self) -> None:
        """End loops, upstream connections, databases and the admin port, in this order; metrics are readable to the
        last."""
        self._protection.event("stop", "info", "The proxy stops")
        await self._listener.stop_accepting()
        if self._handler is not None:
            self._handler.ending = True
        self._listener.abort_all()
        await self._supervisor.stop(_STOP_S)
        await self.live.close()
        await self._protection.finish()
        await self._records.finish()
        await self._backend.stop()
        await self._admin.stop()
        self._log.info("stopped")


@contextlib.contextmanager
def _naming(key: str, host: str, port: int) -> Iterator[None]:
    """Say which address cannot be bound."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{key} {host}:{port}: {os.strerror(error.errno or 0)}") from None


def _version() -> str:
    try:
        return version("mcp-manager-proxy")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
