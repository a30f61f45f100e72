"""Name look-ups of upstream servers: none of them holds up the servers of other names, and one that fails or hangs does
not take away an address that was good.

Owns a few threads of its own and what they found. The event loop's own look-ups share four to six threads with
everything else, so that a name server that hangs would stop connections to all other servers. A name has one look-up
at a time, whoever asks. It knows no connection and no server; its shape is aiohttp's `AbstractResolver`.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final

#: Numeric addresses with their families, as `look_up` finds them.
Addresses = Sequence[tuple[int, str]]
Lookup = Callable[[str], Addresses]

#: After so long an address is looked up again while it goes on being used, seconds.
REFRESH_S: Final = 10.0
#: After so long a new look-up is waited for.
FRESH_S: Final = 60.0
#: So long an address is used when look-ups fail or hang.
STALE_S: Final = 600.0
#: Where there is an old address, a look-up is waited for so long from its start.
PATIENCE_S: Final = 1.0
#: A failure is the answer for so long.
FAILURE_S: Final = 1.0
#: Look-ups at a time; names beyond wait for one to end.
MOST_THREADS: Final = 16
_NUMERIC: Final = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


def look_up(host: str) -> Addresses:
    """The addresses of a name, by the system's resolver. Blocks; raises OSError, UnicodeError for what is no name."""
    found = []
    for family, _, _, _, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG):
        text = str(address[0])
        scope = address[3] if len(address) == 4 else 0
        found.append((int(family), f"{text}%{scope}" if scope and "%" not in text else text))
    return found


class _Name:
    """What is known of one name."""

    __slots__ = ("addresses", "failed_at", "failure", "found_at", "lookup", "started_at", "turn", "used_at")

    def __init__(self) -> None:
        self.addresses: Addresses = ()
        self.found_at = 0.0
        #: Of the last look-up, until one succeeds.
        self.failure: OSError | None = None
        self.failed_at = 0.0
        #: The look-up under way; it never fails itself.
        self.lookup: asyncio.Future[None] | None = None
        self.started_at = 0.0
        self.used_at = 0.0
        self.turn = 0


class Resolver:
    """Addresses of names, for all servers of the process. Its threads end with it: none delays an exit."""

    def __init__(
        self, lookup: Lookup = look_up, clock: Callable[[], float] = monotonic, most_threads: int = MOST_THREADS
    ) -> None:
        self._look_up = lookup
        self._clock = clock
        self._most_threads = most_threads
        self._names: dict[str, _Name] = {}
        self._waiting: deque[str] = deque()
        #: Threads that look something up now.
        self.running = 0
        #: Look-ups so far, those that failed, and answers with an old address because of a failure or a wait.
        self.lookups = 0
        self.failures = 0
        self.stale_answers = 0

    @property
    def waiting(self) -> int:
        """Names that wait for a thread."""
        return len(self._waiting)

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list[dict[str, Any]]:
        """Addresses of `host` to connect to, each time another one first. Raises OSError when there are none.

        Waits without end for a name of which nothing is known: whoever connects has a deadline of its own.
        """
        name = self._names.get(host) or self._remember(host)
        now = name.used_at = self._clock()
        age = now - name.found_at if name.addresses else STALE_S + 1
        if age > REFRESH_S:
            self._refresh(host, name, now)
            if age > STALE_S:
                name.addresses = ()
            if age > FRESH_S:
                await self._settle(name, now)
        if not name.addresses:
            raise name.failure or OSError("no address")
        return _results(name, host, port, family)

    async def close(self) -> None:
        """A connector is done with it; others are not."""

    def _refresh(self, host: str, name: _Name, now: float) -> None:
        """Have the name looked up, unless that is under way or failed just now."""
        if name.lookup is not None or (name.failure is not None and now - name.failed_at < FAILURE_S):
            return
        name.lookup = asyncio.get_running_loop().create_future()
        name.started_at = now
        self._waiting.append(host)
        self._start()

    async def _settle(self, name: _Name, now: float) -> None:
        """Wait for the look-up under way: for long only where there is no address at all."""
        if name.lookup is not None:
            if not name.addresses:
                await asyncio.shield(name.lookup)
                return
            left_s = name.started_at + PATIENCE_S - now
            if left_s > 0:
                await asyncio.wait((name.lookup,), timeout=left_s)
        if name.lookup is not None or name.failure is not None:
            self.stale_answers += 1

    def _remember(self, host: str) -> _Name:
        """A new name; those that nobody has asked for in a long time go."""
        now = self._clock()
        old = [other for other, known in self._names.items() if known.lookup is None and now - known.used_at > STALE_S]
        for other in old:
            del self._names[other]
        name = self._names[host] = _Name()
        return name

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self.running < self._most_threads:
            host = self._waiting.popleft()
            self.running += 1
            self.lookups += 1
            threading.Thread(target=self._run, args=(loop, host), name="resolver", daemon=True).start()

    def _run(self, loop: asyncio.AbstractEventLoop, host: str) -> None:
        """In a thread: one look-up."""
        found: Addresses = ()
        failure: OSError | None = None
        try:
            found = self._look_up(host)
        except OSError as error:
            failure = error
        except (UnicodeError, ValueError):  # a label that is empty or too long, a NUL
            failure = OSError("not a name")
        try:
            loop.call_soon_threadsafe(self._ended, host, found, failure)
        except RuntimeError:
            return  # the process is ending, and the loop is gone

    def _ended(self, host: str, found: Addresses, failure: OSError | None) -> None:
        self.running -= 1
        name, now = self._names[host], self._clock()
        if found:
            name.addresses, name.found_at, name.failure = found, now, None
        else:
            self.failures += 1
            name.failure, name.failed_at = failure or OSError("no address"), now
        lookup, name.lookup = name.lookup, None
        if lookup is not None and not lookup.done():
            lookup.set_result(None)
        self._start()


def _results(name: _Name, host: str, port: int, family: int) -> list[dict[str, Any]]:
    """In aiohttp's shape (`ResolveResult`)."""
    usable = [pair for pair in name.addresses if family in (socket.AF_UNSPEC, pair[0])]
    if not usable:
        raise OSError("no address of that family")
    first = name.turn % len(usable)
    name.turn += 1
    return [
        {"hostname": host, "host": address, "port": port, "family": kind, "proto": 0, "flags": _NUMERIC}
        for kind, address in usable[first:] + usable[:first]
    ]
