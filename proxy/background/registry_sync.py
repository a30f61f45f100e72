"""Keeps the registry of PostgreSQL in memory, as fresh as can be known, with a sealed copy of it on disk.

Owns the current registry and whether it can be trusted. Notices say at once what changed. Whoever cuts them says
nothing (a pooler, a trigger that is gone), so fingerprints are compared regularly besides; that also is the one way
back from every failure: whatever was missed meanwhile differs. It must not know what a row means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proxy import log
from proxy.store.pool import Unavailable
from proxy.store.registry import (
    TABLES,
    Hashes,
    Registry,
    differing,
    fingerprints,
    merged,
    read_changes,
    read_everything,
    read_fingerprints,
    read_hashes,
    reading,
)

if TYPE_CHECKING:
    from proxy.store.database import Database, Session
    from proxy.store.listen import Notices
    from proxy.store.registry_file import RegistryFile

Changed = frozenset[tuple[str, str]]
"""The (table, id) pairs that changed."""
Apply = Callable[[Registry, Changed | None], Awaitable[None]]

#: All times are in seconds. PostgreSQL is asked this often whether it is there, and for the fingerprint of each table.
_ASK_S: Final = 1.0
_COMPARE_S: Final = 3.0
#: Rows, or a whole table, that are compared before notices are looked at again.
_AT_ONCE: Final = 5000
#: Without an answer for this long, nothing is known to be as it was.
_TRUST_S: Final = 3.0
#: Pause after a failure; the pools answer at once while they know that nobody is there.
_RETRY_S: Final = 0.2
#: The longest that the start waits for PostgreSQL to answer, then for all rows, and the end for the copy.
_ANSWER_S: Final = 1.8
_LOAD_S: Final = 10.0
_CLOSE_S: Final = 2.0
#: What was not taken is offered again after so long, and twice as late each time, up to the longest.
_OFFER_S: Final = 1.0
_LONGEST_S: Final = 60.0
#: The copy is written this often at most, in a twentieth of the time at most, and rarely while that fails.
_COPY_S: Final = 1.0
_COPY_SHARE: Final = 20
_COPY_FAILED_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class _News:
    registry: Registry
    hashes: Hashes
    changed: Changed | None
    """None: perhaps everything."""


class RegistrySync:
    """The registry of a process: `load()` once, then `step()` from a loop, every 0.05 s or so, and `close()`."""

    def __init__(
        self,
        database: Database,
        notices: Notices,
        file: RegistryFile,
        apply: Apply,
        freshness: Callable[[bool], None],
        clock: Callable[[], float],
    ) -> None:
        """`apply` is given every new registry and what changed in it (None: perhaps everything); `freshness` is told
        at first, and whenever it changes, whether what was applied is what PostgreSQL says. `clock`: monotonic."""
        self._database = database
        self._notices = notices
        self._apply = apply
        self._freshness = freshness
        self._clock = clock
        self._log = log.logger("registry")
        self._copy = _Copy(file, clock)
        self.registry: Registry = {name: {} for name in TABLES}
        """As it was read last; never changed, only replaced."""
        self.fresh: bool | None = None
        """Whether it can be trusted; None before `load`."""
        #: Of the rows in memory; None when these are not from PostgreSQL.
        self._hashes: Hashes | None = None
        self._named: set[tuple[str, str]] = set()
        #: Something may have changed that nobody named.
        self._unsure = True
        self._answered_at = self._ask_at = self._retry_at = clock()
        #: When each table is to be compared, in this order.
        self._due = dict.fromkeys(TABLES, clock())
        #: When to apply everything anew, because `apply` failed; None: it did not.
        self._offer_at: float | None = None
        self._offer_s = _OFFER_S

    async def load(self) -> Registry:
        """The registry to start with: PostgreSQL's, else the copy, else an empty one. Takes two seconds at most when
        PostgreSQL does not answer, besides reading the copy; applies nothing."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_ANSWER_S) as deadline, reading(self._database) as session:
                deadline.reschedule(loop.time() + _LOAD_S)  # it answers; each statement has a deadline of its own
                news = await _everything(session)
        except (Unavailable, TimeoutError) as error:
            self._doubt(str(error) or "PostgreSQL takes too long")
            self.registry = await self._copy.read() or self.registry
        else:
            self._learn(news)
            self._trust()
        return self.registry

    async def step(self) -> None:
        """Hear what changed, read it and apply it. Takes a second when nothing happens, some more while PostgreSQL
        hangs. Raises only what `apply` does."""
        self._doubt_silence()
        heard = await self._notices.step(self._patience())
        self._doubt_silence()
        self._named.update((notice.table, notice.id) for notice in heard.notices)
        self._unsure |= heard.missed
        if self._patience() <= 0:
            await self._catch_up()
        if self._offer_at is not None and self._clock() >= self._offer_at:
            await self._offer(None)
        self._copy.step()

    async def close(self) -> None:
        """Finish the copy, within two seconds. No step may run any more."""
        await self._copy.close()

    def _patience(self) -> float:
        """How long PostgreSQL need not be asked."""
        due = 0.0 if self._named or self._unsure else min(self._ask_at, next(iter(self._due.values())))
        return max(0.0, max(due, self._retry_at) - self._clock())

    def _to_compare(self) -> list[str]:
        """The tables whose turn it is, but no more than a notice can wait for; all of them when unsure."""
        if self._unsure or self._hashes is None:
            return list(TABLES)
        now, rows, names = self._clock(), 0, list[str]()
        for name, due_at in self._due.items():
            rows += len(self._hashes[name])
            if due_at > now or (names and rows > _AT_ONCE):
                break
            names.append(name)
        return names

    async def _catch_up(self) -> None:
        """Read what changed, as far as anyone said or fingerprints show, and apply it."""
        compare = self._to_compare()
        named, self._named = self._named, set()
        self._unsure = True  # unless this succeeds: comparing finds what was named, too
        try:
            async with reading(self._database) as session:
                news = await self._read(session, named, compare)
        except Unavailable as error:
            self._retry_at = self._clock() + _RETRY_S
            self._doubt(str(error))
            return
        for table in compare:
            del self._due[table]
            self._due[table] = self._clock() + _COMPARE_S
        self._unsure = False
        self._learn(news)
        if news.changed is None or news.changed:
            await self._offer(news.changed)
        self._trust()

    async def _read(self, session: Session, named: set[tuple[str, str]], compare: list[str]) -> _News:
        """Rows whose hash is another one; most often that is none, and then PostgreSQL has shown that it answers."""
        known = self._hashes
        if known is None:
            return await _everything(session)
        found = await read_fingerprints(session, compare)
        ours = fingerprints({name: known[name] for name in compare})
        named = named | {(table, "") for table in compare if found[table] != ours[table]}
        hashes = await read_hashes(session, named)
        changed = differing(known, named, hashes)
        if not changed:
            return _News(self.registry, known, changed)
        rows = await read_changes(session, changed)
        return _News(merged(self.registry, changed, rows), merged(known, named, hashes), changed)

    def _learn(self, news: _News) -> None:
        """PostgreSQL answered."""
        self._answered_at = self._clock()
        self._ask_at = self._answered_at + _ASK_S
        if self.registry is not news.registry:
            self.registry, self._hashes = news.registry, news.hashes
            self._copy.want(news.registry)

    async def _offer(self, changed: Changed | None) -> None:
        """Apply, and remember to apply everything should that fail: not at once, so that one bad row does not keep
        later changes waiting."""
        before = self._offer_at, self._offer_s
        self._offer_at = self._clock() + self._offer_s
        self._offer_s = min(_LONGEST_S, 2 * self._offer_s)
        await self._apply(self.registry, changed)
        self._offer_at, self._offer_s = (None, _OFFER_S) if changed is None else before

    def _trust(self) -> None:
        if self.fresh is not True:
            self.fresh = True
            self._freshness(True)

    def _doubt(self, cause: str) -> None:
        if self.fresh is not False:
            self.fresh = False
            self._log.warning("the registry cannot be kept up to date", cause=cause)
            self._freshness(False)

    def _doubt_silence(self) -> None:
        if self._clock() - self._answered_at > _TRUST_S:
            self._doubt("nothing was heard of PostgreSQL for too long")


async def _everything(session: Session) -> _News:
    registry = await read_everything(session)
    return _News(registry, await read_hashes(session, [(name, "") for name in TABLES]), None)


class _Copy:
    """The file, written in a thread, and never waited for: a disk may hang."""

    def __init__(self, file: RegistryFile, clock: Callable[[], float]) -> None:
        self._file = file
        self._clock = clock
        self._log = log.logger("registry")
        self._wanted: Registry | None = None
        self._written: Registry | None = None
        self._writing: asyncio.Future[OSError | None] | None = None
        self._next_at = clock()
        self._failing = False

    async def read(self) -> Registry | None:
        """What was written last, if anything."""
        return await asyncio.to_thread(self._file.read)

    def want(self, registry: Registry) -> None:
        """This is what should be in the file."""
        self._wanted = registry

    def step(self) -> None:
        """Begin to write what is wanted, if it is time."""
        if self._writing is not None and self._writing.done():
            ended, self._writing = self._writing, None
            self._report(ended.result())
        if self._writing is None and self._wanted is not None and self._clock() >= self._next_at:
            self._written, self._wanted = self._wanted, None
            self._writing = asyncio.get_running_loop().run_in_executor(None, self._write, self._written)

    async def close(self) -> None:
        """Write what is wanted, as far as time allows."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                for _ in range(2):  # the one under way, and one of what is wanted
                    self._next_at = self._clock()
                    self.step()
                    if self._writing is not None:
                        await asyncio.wait([self._writing])
                self.step()

    def _write(self, registry: Registry) -> OSError | None:
        """In a thread."""
        began = self._clock()
        try:
            self._file.write(registry)
        except OSError as error:
            self._next_at = self._clock() + _COPY_FAILED_S
            return error
        now = self._clock()
        self._next_at = now + max(_COPY_S, _COPY_SHARE * (now - began))
        return None

    def _report(self, error: OSError | None) -> None:
        """To the log: that it begins to fail, and that this ends. What was not written is wanted again, or the next."""
        if error is not None:
            self._wanted = self._wanted or self._written
        if error is not None and not self._failing:
            self._log.warning("no copy of the registry can be kept", cause=error.strerror or type(error).__name__)
        elif error is None and self._failing:
            self._log.info("a copy of the registry is kept again")
        self._failing = error is not None
