"""Journals of processes that are gone, put in order one after the other, beside everything else.

Owns which is next, and that one which cannot be used is left alone for a while and does not stop the others. To put one
in order takes seconds when it is large, and for ever on a disk that hangs: that is done in a thread of its own, and
nobody waits for it longer than he wants to.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.spool.adoption import Adopted, adopt, orphans

if TYPE_CHECKING:
    from proxy.log import Logger

#: Between two looks for journals, when there was none; and how long one that cannot be used is left alone; seconds.
_LOOK_S: Final = 2.0
_AVOID_S: Final = 60.0
#: Rest of the thread after each piece, for the sake of the others; seconds.
_REST_S: Final = 0.001


class _Ending(Exception):
    """The process ends: the journal is left to others."""


class _Found(NamedTuple):
    """What a look has brought: a journal in order, or one that cannot be used and why, or neither."""

    adopted: Adopted | None = None
    path: Path | None = None
    error: OSError | None = None


class Adopting:
    """Finds them. One for a process."""

    def __init__(self, spool: Path, log: Logger, clock: Callable[[], float]) -> None:
        """`clock`: seconds, of any beginning."""
        self._spool = spool
        self._log = log
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="adoption")
        self._running: asyncio.Future[_Found] | None = None
        self._looked_at = float("-inf")
        self._ends = False
        #: Journals that are left alone, and until when.
        self._avoided: dict[Path, float] = {}
        #: How often one could not be used.
        self.failures = 0

    @property
    def busy(self) -> bool:
        """Whether one is being put in order."""
        return self._running is not None

    @property
    def avoided(self) -> frozenset[Path]:
        """Journals that could not be used, and are left alone for now."""
        now = self._clock()
        return frozenset(path for path, until in self._avoided.items() if now < until)

    async def next(self, within_s: float) -> Adopted | None:
        """A journal that is in order, and ours; None when there is none, or none within so many seconds: ask again."""
        if self._running is None:
            if self._clock() - self._looked_at < _LOOK_S:
                return None
            look = partial(self._look, self.avoided)
            self._running = asyncio.get_running_loop().run_in_executor(self._thread, look)
        done, _ = await asyncio.wait((self._running,), timeout=within_s)
        if not done:
            return None
        ended, self._running = self._running, None
        found = ended.result()
        if found.adopted is None:
            self._looked_at = self._clock()
        if found.error is not None and found.path is not None:
            self.avoid(found.path, found.error)
        return found.adopted

    def avoid(self, path: Path, error: Exception) -> None:
        """A journal cannot be used: leave it alone for a while."""
        now = self._clock()
        self._avoided = {each: until for each, until in self._avoided.items() if now < until}
        self._avoided[path] = now + _AVOID_S
        self.failures += 1
        self._log.error("journal cannot be used", journal=path.name, error=type(error).__name__)

    def close(self) -> None:
        """Let go of what is being put in order, as soon as that can be; wait for nothing."""
        self._ends = True
        if self._running is not None:
            self._running.add_done_callback(_let_go)
        self._thread.shutdown(wait=False)

    def _look(self, avoided: frozenset[Path]) -> _Found:
        """In the thread: the first that can be had."""
        try:
            for path in orphans(self._spool):
                if path in avoided:
                    continue
                try:
                    adopted = adopt(path, self._rest)
                except OSError as error:
                    return _Found(path=path, error=error)
                if adopted is not None:
                    return _Found(adopted)
        except OSError as error:
            return _Found(path=self._spool, error=error)
        return _Found()

    def _rest(self) -> None:
        if self._ends:
            raise _Ending
        time.sleep(_REST_S)


def _let_go(running: asyncio.Future[_Found]) -> None:
    if not running.cancelled() and running.exception() is None and (adopted := running.result().adopted) is not None:
        adopted.release()
