"""Brings what the data plane learned and counted to the database, in steps beside the requests.

Owns the order and the bounds of a step, and what waits while PostgreSQL is away: news of servers (the catalogue would
tell them again) and counts (which go back to the counters). It is quiet then. Without a database the catalogue is kept
all the same: hints of tools are of use without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from secrets import token_hex
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from proxy.dataplane.list_pages import pages_of
from proxy.dataplane.usage import Uses
from proxy.store import learned
from proxy.store.learned import KeyTable, KeyUse, OfferTable, Unusable, Use
from proxy.store.pool import TooSlow, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.dataplane.catalogue import Catalogue, Change
    from proxy.dataplane.lessons import Lessons
    from proxy.dataplane.list_pages import Lesson
    from proxy.dataplane.usage import Usage
    from proxy.store.database import Database
    from proxy.store.pool import Session

#: How often `learn` and `count` are called, seconds.
LEARN_S: Final = 1.0
COUNT_S: Final = 5.0
#: Bytes of lists that are read in one step: some milliseconds, in pieces of at most one list.
_READ_BYTES: Final = 1 << 20
#: Servers whose news are written in one step, and bytes of news that wait.
_MOST_SERVERS: Final = 50
_MAX_WAITING_BYTES: Final = 32 << 20

#: What an item is -> where its rows are.
_TABLES: Final[Mapping[str, OfferTable]] = MappingProxyType(
    {"tool": "server_tools", "prompt": "server_prompts", "resource": "server_resources", "template": "server_resources"}
)
_KEY_TABLES: Final[tuple[KeyTable, ...]] = ("enhanced_api_keys", "api_keys", "api_tokens")


class Learning:
    """The steps, and what waits between them."""

    def __init__(
        self,
        lessons: Lessons,
        catalogue: Catalogue,
        usage: Usage,
        database: Database | None,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """`clock` gives monotonic seconds, the same that requests are timed with; `wall` seconds since 1970."""
        #: Lists that could not be read, news for which there was no room, and what PostgreSQL refused for good.
        self.unreadable = self.dropped = self.refused = 0
        self._lessons, self._catalogue, self._usage = lessons, catalogue, usage
        self._database = database
        self._clock, self._wall = clock, wall
        self._waiting: dict[str, Change] = {}
        self._sizes: dict[str, int] = {}
        self._waiting_bytes = 0
        #: Tenant -> counts that were sent, perhaps in vain, with the number of their batch.
        self._unsure: dict[str, tuple[int, Uses]] = {}
        self._batch = 0
        self._writer = f"uses {token_hex(8)}"

    # --- what servers offer ---------------------------------------------------------------------------------------

    async def learn(self) -> None:
        """A step: read lists that passed, and write what is news. Quiet while PostgreSQL is away."""
        for lesson in self._lessons.take(_READ_BYTES):
            self._read(lesson)
            await asyncio.sleep(0)  # requests go first
        if self._database is None:
            return
        for server in list(self._waiting)[:_MOST_SERVERS]:
            change = self._waiting[server]
            try:
                async with self._database.tenant(change.place.tenant) as session:
                    await _write(session, change)
            except Unavailable:
                self._waiting[server] = self._waiting.pop(server)  # one that is slow does not stand before the others
                return
            except Unusable:
                self.refused += 1
            self._catalogue.written(change, self._clock())  # what was refused, too: it is no news for an hour
            self._forget(server)

    def _read(self, lesson: Lesson) -> None:
        try:
            pages = pages_of(lesson)
        except ValueError:
            self.unreadable += 1
            return
        now = self._clock()
        change = self._catalogue.learn(lesson.server, lesson.place, pages, now)
        if self._database is None:
            self._catalogue.written(change, now)
        elif change and change.place.id:
            self._wait(change)

    def _wait(self, change: Change) -> None:
        """Keep news until they are written. Without room they are not kept: the next list tells them again."""
        before = self._waiting.get(change.server)
        if before is not None:
            self._forget(change.server)
            if before.place == change.place:
                before.add(change)
                change = before
        size = change.size
        if self._waiting_bytes + size > _MAX_WAITING_BYTES:
            self.dropped += 1
            return
        self._waiting[change.server] = change
        self._sizes[change.server] = size
        self._waiting_bytes += size

    def _forget(self, server: str) -> None:
        del self._waiting[server]
        self._waiting_bytes -= self._sizes.pop(server)

    # --- how often things were used -------------------------------------------------------------------------------

    async def count(self) -> None:
        """A step: write the counts since the last one, each once, though PostgreSQL be lost in the middle of a commit.
        Those that cannot be written count on. Quiet while it is away. Call it once more at the end."""
        if self._database is None:
            return
        left = list(_batches(self._usage.take()))
        later: list[Uses] = []
        try:
            for tenant in list(self._unsure):
                await self._send(self._database, tenant)
            while left:
                tenant, uses = left.pop()
                if tenant in self._unsure:  # what comes before has to be known first: numbers only grow
                    later.append(uses)
                    continue
                self._batch += 1
                self._unsure[tenant] = (self._batch, uses)
                await self._send(self._database, tenant)
        except Unavailable:
            return
        finally:
            for uses in (*later, *(uses for _, uses in left)):
                self._usage.give_back(uses)

    async def _send(self, database: Database, tenant: str) -> None:
        """Send a tenant's counts, perhaps once more. They are kept until it is known that they are written."""
        number, uses = self._unsure[tenant]
        try:
            async with database.tenant(tenant) as session:
                if await learned.claim(session, self._writer, number):
                    await _count(session, uses, self._wall() - self._clock())
        except TooSlow:  # the others need not wait for it
            return
        except Unusable:
            self.refused += 1
        del self._unsure[tenant]


async def _write(session: Session, change: Change) -> None:
    server = change.place.id
    for table in dict.fromkeys(_TABLES.values()):
        rows = [offered.columns for (kind, _), offered in change.offers.items() if _TABLES[kind] == table]
        await learned.put_offers(session, table, server, rows)
    for kind, names in change.complete.items():
        await learned.keep_offers(session, _TABLES[kind], server, names, template=kind == "template")


async def _count(session: Session, uses: Uses, offset_s: float) -> None:
    """Write counts of one tenant; `offset_s` makes wall clock of monotonic seconds."""
    for keys in _KEY_TABLES:
        of_keys = [
            KeyUse(identity, use.calls, use.at + offset_s, use.ip)
            for identity, use in uses.credentials.items()
            if use.source.value == keys
        ]
        await learned.add_key_uses(session, keys, of_keys)
    for table in dict.fromkeys(_TABLES.values()):
        of_items = [
            Use(use.place.id, name, use.calls, use.errors, use.seconds, use.at + offset_s)
            for (_, kind, name), use in uses.items.items()
            if _TABLES[kind] == table
        ]
        await learned.add_uses(session, table, of_items)


def _batches(uses: Uses) -> Iterator[tuple[str, Uses]]:
    """Tenants with their counts, no more at a time than go into one statement. Servers without a row have none."""
    open_batches: dict[str, Uses] = {}
    entries = [(use.tenant, identity, use) for identity, use in uses.credentials.items()]
    items = [(use.place.tenant, key, use) for key, use in uses.items.items() if use.place.id]
    for tenant, identity, credential in entries:
        open_batches.setdefault(tenant, Uses()).credentials[identity] = credential
        yield from _full(open_batches, tenant)
    for tenant, key, item in items:
        open_batches.setdefault(tenant, Uses()).items[key] = item
        yield from _full(open_batches, tenant)
    yield from open_batches.items()


def _full(batches: dict[str, Uses], tenant: str) -> Iterator[tuple[str, Uses]]:
    batch = batches[tenant]
    if len(batch.credentials) + len(batch.items) >= learned.MOST_ROWS:
        yield tenant, batches.pop(tenant)
