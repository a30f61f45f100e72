"""The composition root: builds every object once, and owns the order of starting, reloading and stopping.

    start   metrics -> first snapshot -> admin -> listener -> loops -> ready
    stop    not ready -> (delay) -> stop accepting -> finish what runs -> end streams between events -> close

The only module that knows everyone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from proxy import log
from proxy.admin.readiness import Readiness
from proxy.admin.server import AdminServer
from proxy.background.config_watch import ConfigWatch
from proxy.background.supervisor import Supervisor
from proxy.config.loader import load
from proxy.config.models import restart_keys
from proxy.config.problems import ConfigError, Problem
from proxy.dataplane.affinity import Sealer, load_or_create_key
from proxy.dataplane.deadlines import Deadlines
from proxy.dataplane.handler import Handler
from proxy.dataplane.lane_aiohttp import AiohttpLane
from proxy.dataplane.listener import TICK_S, Listener
from proxy.dataplane.mirror import Mirrors
from proxy.dataplane.parts import Parts
from proxy.dataplane.recorder import Recorder
from proxy.dataplane.snapshot import Live, SnapshotBuilder
from proxy.dataplane.streams import Streams
from proxy.mcp.methods import metric_label
from proxy.metrics import Metrics, new_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxy.config.models import Config
    from proxy.dataplane.exchange import Lane, Pipeline

#: How often the configuration file is looked at, retired servers are closed, and log lines are written, seconds.
_WATCH_S: Final = 1.0
_RETIRE_S: Final = 1.0
_FLUSH_S: Final = 0.1
_WATCHDOG_S: Final = 5.0
#: How often a drain looks whether it is done, and how long the last writes may take once the grace is over, seconds.
_DRAIN_STEP_S: Final = 0.02
_LAST_WRITES_S: Final = 1.0
#: How long loops and connections may take to end, seconds.
_STOP_S: Final = 2.0

_MISUSED: Final = 2


class App:
    """One proxy process: everything it is made of, and how it starts, reloads and stops."""

    def __init__(
        self, path: Path, config: Config, stream: log.BatchedStream, lane: Callable[[Pipeline], Lane] = AiohttpLane
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
        self._supervisor = Supervisor(log.logger("background"), on_step=self.metrics.loop_step, rng=self._draw)
        self._deadlines = Deadlines(time.monotonic)
        self._builder = SnapshotBuilder(
            self.metrics, _sealer_of, self._deadlines, lambda: datetime.now(UTC), self._draw
        )
        self._prepared = self._builder.build(config, None)
        self.live = Live(self._prepared)
        self._recorder = Recorder(self.metrics, log.AccessLog(stream, config.log.format), _logs_access(config))
        self._streams = Streams()
        self._listener = Listener(config.listen, self.metrics, self._recorder.refused_early)
        self._admin = AdminServer(config.admin.host, config.admin.port, self.metrics, self.readiness)
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()

    async def start(self) -> tuple[int, int]:
        """Bind both ports and begin. Returns the data port and the admin port. Raises OSError when one is taken."""
        config = self.live.snapshot.config
        mirrors = Mirrors(self._supervisor.spawn, self.metrics, self._draw)
        handler = Handler(self.live, Parts(self._streams, mirrors, time.monotonic), self._recorder)
        with _naming("admin", config.admin.host, config.admin.port):
            admin_port = await self._admin.start()
        with _naming("listen", config.listen.host, config.listen.port):
            port = await self._listener.start(config.listen, self._lane(handler))
        watch = ConfigWatch(self._path, self._prepare, self._apply, self._report, config.files)
        self._supervisor.every("downstream deadlines", TICK_S, self._listener.tick)
        self._supervisor.every("upstream deadlines", TICK_S, self._deadlines.tick)
        self._supervisor.every("log", _FLUSH_S, self._stream.flush)
        self._supervisor.every("config", _WATCH_S, watch.step_aside)
        self._supervisor.every("watchdog", _WATCHDOG_S, self._watch_loops)
        self._supervisor.every("retired", _RETIRE_S, self.live.close_retired)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: self._supervisor.spawn("reload", watch.reload_aside()))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_or_hurry)
        self.metrics.reloaded(1, time.time())
        self.readiness.set("config", True)
        self.readiness.set("listener", True)
        self._log.info("serving", port=port, admin_port=admin_port, servers=len(config.servers))
        return port, admin_port

    def _watch_loops(self) -> None:
        self.readiness.set("loops", *self._supervisor.check())

    def _prepare(self) -> Config:
        """Load the configuration and compile it, in a thread: ten thousand routes take a second. Raises ConfigError."""
        config = load(self._path, os.environ)
        try:
            self._prepared = self._builder.build(config, self.live.snapshot)
        except (OSError, ValueError) as error:  # a file that was there when it was checked
            raise ConfigError((Problem(str(self._path), 0, 0, "", str(error)),), config.files) from None
        return config

    def _apply(self, config: Config) -> None:
        """Put a reloaded configuration in force; what cannot change without a restart stays, with a warning."""
        before, snapshot = self.live.snapshot, self._prepared
        needs_restart = restart_keys(before.config, config)
        if needs_restart:
            self._log.warning("restart needed", keys=needs_restart)
        log.configure(config.log.level, config.log.format, self._stream)
        self._recorder.enabled = _logs_access(config)
        self._listener.configure(config.listen)
        self.live.swap(snapshot)
        self.metrics.reloaded(snapshot.generation, time.time())
        self.readiness.set("config", True)
        self._log.info("configuration in force", generation=snapshot.generation, servers=len(config.servers))

    def _report(self, error: ConfigError) -> None:
        """A configuration that cannot be used: the one in force goes on serving."""
        self.metrics.reload_failed()
        self._log.error("configuration refused", problems=[str(problem) for problem in error.problems])

    # --- stopping -------------------------------------------------------------------------------------------------

    def _stop_or_hurry(self) -> None:
        """The first signal drains, the second ends now."""
        if self._stopping.is_set():
            self._hurried.set()
        self._stopping.set()

    async def run_until_stopped(self) -> None:
        """Serve until a signal comes, then drain and stop."""
        await self._stopping.wait()
        await self.drain()
        await self.stop()

    async def drain(self) -> None:
        """Turn not ready, let the load balancer notice, then stop accepting and let what runs finish. From the first
        moment on each answer is the last one on its connection.

        Streams on which nobody waits for an answer are ended between two events at once; the others, and calls, have
        until the grace is over. Then streams end at their next event boundary, and the rest is reset.
        """
        drain = self.live.snapshot.config.listen.drain
        self.readiness.set("listener", False, "draining")
        self._log.info("draining", grace_s=drain.grace, delay_s=drain.delay)
        self._listener.draining = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurried.wait(), drain.delay)
        await self._listener.stop_accepting()
        self._streams.end_listening()
        if not await self._idle_within(drain.grace):
            self._streams.end_all()
            await self._idle_within(_LAST_WRITES_S)

    async def _idle_within(self, seconds: float) -> bool:
        """Whether every connection ended in time; a second signal ends the waiting."""
        until = time.monotonic() + seconds
        while self._listener.connections and time.monotonic() < until and not self._hurried.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), _DRAIN_STEP_S)
        return not self._listener.connections

    async def stop(self) -> None:
        """End loops, upstream connections and the admin port, in this order; metrics are readable to the last."""
        await self._listener.stop_accepting()
        self._listener.abort_all()
        await self._supervisor.stop(_STOP_S)
        await self.live.close()
        await self._admin.stop()
        self._log.info("stopped")


@contextlib.contextmanager
def _naming(key: str, host: str, port: int) -> Iterator[None]:
    """Say which address cannot be bound."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{key} {host}:{port}: {os.strerror(error.errno or 0)}") from None


def _logs_access(config: Config) -> bool:
    return config.log.access and config.log.level in ("debug", "info")


def _version() -> str:
    try:
        return version("mcp-manager-proxy")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


def _sealer_of(config: Config) -> Sealer:
    """The configured keys, or the one that is kept in the state directory."""
    keys = [key.get_secret_value().encode() for key in config.sessions.keys] or [load_or_create_key(config.state_dir)]
    return Sealer(keys, config.sessions.ttl, time.time, os.urandom)


async def _run(path: Path, config: Config, stream: log.BatchedStream) -> None:
    app = App(path, config, stream)
    try:
        await app.start()
    except BaseException:
        await app.stop()
        raise
    await app.run_until_stopped()


def serve(path: Path) -> int:
    """Run a proxy with the configuration in `path` until SIGTERM or SIGINT. Returns the exit code.

    2 with one line per problem on standard error when the configuration, a port or a file cannot be used.
    """
    try:
        config = load(path, os.environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return _MISUSED
    stream = log.BatchedStream(sys.stdout.fileno())
    log.configure(config.log.level, config.log.format, stream)
    try:
        uvloop.run(_run(path, config, stream))
    except OSError as error:
        print(f"mcp-manager: cannot start: {error.strerror or error}", file=sys.stderr)
        return _MISUSED
    finally:
        stream.close()
    return 0
