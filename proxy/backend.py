"""What stands behind the data plane: databases, the registry in memory, and what is learned and counted on the way.

Owns their making, the order in which they start and stop, and the steps that keep them going. Requests never wait for
anything here. Part of the composition root; without `postgres` and `redis` in the configuration nearly nothing happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from proxy import log
from proxy.backend_metrics import RuleCounts, families
from proxy.background.ban_sync import STEP_S as BANS_S
from proxy.background.ban_sync import BanSync
from proxy.background.file_servers import STEP_S, FileServers
from proxy.background.housekeeping import Housekeeping
from proxy.background.learning import COUNT_S, LEARN_S, Learning
from proxy.background.registry_sync import RegistrySync
from proxy.background.violation_log import STEP_S as VIOLATIONS_S
from proxy.background.violation_log import ViolationLog
from proxy.config.keyfile import load_or_create
from proxy.dataplane.bans import Bans, policy_of
from proxy.dataplane.catalogue import Catalogue
from proxy.dataplane.lessons import Lessons
from proxy.dataplane.ratelimit import Limiter
from proxy.dataplane.redis_link import RedisLink
from proxy.dataplane.shared_bans import SharedBans
from proxy.dataplane.usage import Usage
from proxy.identity.uuid7 import RecordIds
from proxy.store.first_start import first_start
from proxy.store.lifecycle import Stores
from proxy.store.peppers import pepper_ring
from proxy.store.registry_file import RegistryFile

if TYPE_CHECKING:
    from proxy.background.overrides import Overrides
    from proxy.background.supervisor import Step
    from proxy.config.models import Config
    from proxy.dataplane.admission import Freshness
    from proxy.dataplane.snapshot import Live
    from proxy.limits.rules import Rule
    from proxy.metrics import Family
    from proxy.store.database import Database

_NO_ROWS: Final[Mapping[str, Any]] = {}
Ready = Callable[[str, bool, str], None]

#: How often databases are looked after, and notices of changes are heard, seconds.
_PROBE_S: Final = 0.25
_MIGRATE_S: Final = 2.0
_LISTEN_S: Final = 0.05
_KEEP_S: Final = 1.0
_UPKEEP_S: Final = 60.0
_LIMITS_S: Final = 0.25
#: How long the last counts may take at the end, seconds.
_LAST_COUNTS_S: Final = 2.0


class Backend:
    """Everything that the data plane is served by, and serves."""

    def __init__(
        self, config: Config, live: Live, freshness: Freshness, draw: Callable[[], float], ready: Ready
    ) -> None:
        """`ready(check, ok, detail)` is told whether there is anything to serve by."""
        self._config = config
        self._ready = ready
        self._live = live
        self._freshness = freshness
        self._draw = draw
        self._log = log.logger("registry")
        self._stores = Stores(config.postgres, config.redis, Path(config.state_dir), time.monotonic, draw)
        self._sync: RegistrySync | None = None
        self._learning: Learning | None = None
        self.catalogue = Catalogue()
        self.lessons = Lessons()
        self.usage = Usage(self.catalogue.names)
        self.instance = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}"
        self.bans = Bans(policy_of(config), sharing=config.redis is not None)
        self.limiter = Limiter(None, time.monotonic, self.instance)
        self.ids = RecordIds(time.time, os.urandom)
        self.violations = ViolationLog(None, self.ids, time.time, self._log)
        self._ban_sync: BanSync | None = None
        self._rules = RuleCounts()

    @property
    def database(self) -> Database | None:
        """PostgreSQL, if it is configured."""
        return self._stores.database

    @property
    def stores(self) -> Stores:
        """The databases themselves."""
        return self._stores

    def postgres_away(self) -> bool | None:
        """Whether PostgreSQL is taken for gone; None without one."""
        database = self._stores.database
        return database.numbers()["write"].circuit_open if database is not None else None

    def redis_away(self) -> bool | None:
        """The same of Redis."""
        return not self.limiter.remote if self._config.redis is not None else None

    def violated(self, rule: Rule, subject: str, tenant: str, ip: str, limit: float, wait_s: float) -> None:
        """A rule refused a request or, when it is not enforced, would have; see `parts.Violated`."""
        self._rules.count(rule)
        self.violations.violated(rule, subject, tenant, ip, limit, wait_s)

    def rows(self, table: str) -> Mapping[str, Any]:
        """The rows of a table of the registry by id; the same object for as long as none changed."""
        return self._sync.registry[table] if self._sync is not None else _NO_ROWS

    def families(self) -> Iterator[Family]:
        """The metrics of all this."""
        database = self._stores.database
        return families(self._freshness, database, self.limiter, self._rules, self.bans, self.violations)

    async def start(self, renewal: Overrides) -> None:
        """Start the databases, and put the rows in force: those of PostgreSQL, else those of the last copy on disk.

        Raises EmbeddedError and MigrationError when an embedded database is no use, OSError for the state directory.
        """
        stores, config = self._stores, self._config
        await stores.start()
        database = stores.database
        self._learning = Learning(self.lessons, self.catalogue, self.usage, database, time.monotonic, time.time)
        await self._start_limits(database)
        if database is None or stores.notices is None:
            return
        if config.postgres is not None and config.postgres.embedded:
            await self._first_start(database)
        state = Path(config.state_dir)
        file = RegistryFile(state / "registry", load_or_create(state / "registry.key"))
        self._sync = RegistrySync(database, stores.notices, file, renewal.apply, self._fresh, time.monotonic)
        rows = await self._sync.load()
        await renewal.apply(rows, None)
        known = self._freshness.current or any(rows.values())
        self._ready("registry", known, "" if known else "PostgreSQL does not answer, and there is no copy of its rows")

    async def _start_limits(self, database: Database | None) -> None:
        """Limits and bans: of all replicas together when there is Redis, which may be away."""
        url, instance = self._stores.redis_url, self.instance
        link = RedisLink(url, time.monotonic, self._draw) if url is not None else None
        self.limiter = Limiter(link, time.monotonic, instance)
        await self.limiter.open()
        self.violations = ViolationLog(database, self.ids, time.time, log.logger("limits"), instance)
        shared = SharedBans(link, instance) if link is not None else None
        self._ban_sync = BanSync(self.bans, shared, self.violations.blocked, instance, time.monotonic)

    async def _first_start(self, database: Database) -> None:
        made = await first_start(database, pepper_ring(self._config), Path(self._config.state_dir))
        if made is not None:
            self._log.info("first start: made a tenant and a key", tenant="default", file=str(made))

    def steps(self) -> Iterator[tuple[str, float, Step]]:
        """Name, interval in seconds and step of every loop that keeps this going."""
        stores, database = self._stores, self._stores.database
        if self._learning is not None:
            yield "learning", LEARN_S, self._learning.learn
        if self._ban_sync is not None:
            yield "bans", BANS_S, self._ban_sync.step
        yield "limits", _LIMITS_S, self.limiter.probe
        yield "shares of tenants", _LIMITS_S, self.limiter.share
        yield "violations", VIOLATIONS_S, self.violations.step
        if self._config.postgres is not None or self._config.redis is not None:
            yield "embedded databases", _KEEP_S, stores.keep
        if database is None or self._sync is None or self._learning is None:
            return
        yield "database", _PROBE_S, database.probe
        yield "migrations", _MIGRATE_S, stores.migrate
        yield "registry", _LISTEN_S, self._sync.step
        yield "usage", COUNT_S, self._learning.count
        if stores.upkeep is not None:
            yield "housekeeping", _UPKEEP_S, Housekeeping(stores.upkeep, self._log, time.monotonic).step
        yield "servers of the file", STEP_S, FileServers(database, lambda: self._live.snapshot.config.servers).step

    def _fresh(self, current: bool) -> None:
        """Whether credentials in memory are those of the database: told by whoever reads them."""
        if current != self._freshness.current:
            self._freshness.current = current
            if current:
                self._ready("registry", True, "")
                self._log.info("the registry is current")
            else:
                self._log.warning("the registry may be stale: PostgreSQL does not answer")

    async def stop(self) -> None:
        """Write the last counts and the copy of the registry, close every connection, stop what is embedded."""
        if self._learning is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_COUNTS_S):
                    await self._learning.count()
                    await self.violations.finish()
        if self._sync is not None:
            await self._sync.close()
        await self.limiter.close()
        await self._stores.stop()
