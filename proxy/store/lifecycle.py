"""The databases of a process from start to stop: embedded servers, migrations, pools and the ear.

Owns their order. Embedded servers are up and migrated when `start()` returns; a database of one's own may be down at
that time, and for as long as it likes: the pools find it when it comes, and its migrations wait for it in a step.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from proxy.config.stores import Postgres, Redis
from proxy.store.database import Bounds, Database, Places
from proxy.store.embedded import EmbeddedPostgres, EmbeddedRedis
from proxy.store.listen import Notices
from proxy.store.migrate import migrator

#: How long a statement with a batch of records may take, seconds.
_BATCH_S: Final = 5.0


class Stores:
    """Everything behind the sections `postgres` and `redis`; attributes are None for a section that is absent."""

    def __init__(
        self,
        postgres: Postgres | None,
        redis: Redis | None,
        state_dir: Path,
        clock: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        """Nothing is started yet. `clock` gives monotonic seconds, `draw` a number from 0 to 1."""
        self._config = postgres
        self._clock, self._draw = clock, draw
        self._postgres = embedded_postgres(state_dir) if postgres and postgres.embedded else None
        self._redis = EmbeddedRedis(state_dir / "redis") if redis and redis.embedded else None
        self._redis_config = redis
        self._owner_dsn = ""
        self._wants_migration = bool(postgres and (postgres.auto_migrate or postgres.embedded))
        self.database: Database | None = None
        #: A connection of its own for work that takes long, and must keep no other writer waiting.
        self.upkeep: Database | None = None
        #: Connections for records, which come in batches: others would wait for them.
        self.records: Database | None = None
        self.notices: Notices | None = None

    @property
    def redis_url(self) -> str | None:
        """Where Redis is, once `start()` returned. Holds a password."""
        if self._redis is not None:
            return self._redis.url
        given = self._redis_config.url if self._redis_config is not None else None
        return given.get_secret_value() if given is not None else None

    @property
    def migrated(self) -> bool:
        """Whether the tables are up to date, as far as that is ours to see to."""
        return not self._wants_migration

    async def start(self, *, join: bool = False) -> None:
        """Start what is embedded, migrate it, and be ready to connect. `join`: use what another process runs already.

        Raises EmbeddedError or MigrationError for embedded servers only; nothing is left running then.
        """
        try:
            for server in (self._redis, self._postgres):
                if server is not None:
                    await (server.start_or_join() if join else server.start())
            if self._postgres is not None:
                self._owner_dsn = self._postgres.owner_dsn
                await self.migrate()
            if self._config is not None:
                await self._open(self._config)
        except BaseException:
            await self.stop()
            raise

    async def _open(self, config: Postgres) -> None:
        given = [dsn.get_secret_value() if dsn else "" for dsn in (config.dsn, config.read_dsn, config.analytics_dsn)]
        places = Places(*given) if self._postgres is None else Places(self._postgres.dsn)
        if self._postgres is None:
            self._owner_dsn = config.owner_dsn.get_secret_value() if config.owner_dsn else places.dsn
        times, pool = config.timeouts, config.pool
        self.database = Database(
            places,
            {
                "write": Bounds(pool.write, times.connect, times.acquire, times.statement),
                "read": Bounds(pool.read, times.connect, times.acquire, times.statement),
                "analytics": Bounds(pool.analytics, times.connect, times.acquire, times.analytics),
            },
            self._clock,
        )
        long = Bounds(1, times.connect, times.acquire, times.analytics)
        self.upkeep = Database(Places(places.dsn), {"write": long}, self._clock)
        shipping = Bounds(2, times.connect, times.acquire, _BATCH_S)
        self.records = Database(Places(places.dsn), {"write": shipping}, self._clock)
        for database in (self.database, self.upkeep, self.records):
            await database.open()
        self.notices = Notices(places.dsn, self._clock, self._draw)

    async def migrate(self) -> None:
        """A step for a loop: bring the tables up to date, once, if that is wanted. Raises MigrationError, and
        EmbeddedError."""
        if not self._wants_migration:
            return
        async with migrator(self._owner_dsn) as migrations:
            await migrations.up()
            if self._postgres is not None:
                await self._postgres.allow()  # while the lock is ours: GRANTs at the same time get in each other's way
        self._wants_migration = False

    async def keep(self) -> None:
        """A step for a loop: start embedded servers anew that died. Raises EmbeddedError."""
        for server in (self._redis, self._postgres):
            if server is not None:
                await server.keep()

    async def stop(self) -> None:
        """Close every connection, then stop what is embedded."""
        if self.notices is not None:
            await self.notices.close()
        for database in (self.database, self.upkeep, self.records):
            if database is not None:
                await database.close()
        for server in (self._postgres, self._redis):
            if server is not None:
                await server.stop()


def embedded_postgres(state_dir: Path) -> EmbeddedPostgres:
    """The embedded PostgreSQL of a state directory."""
    return EmbeddedPostgres(state_dir / "postgres")
