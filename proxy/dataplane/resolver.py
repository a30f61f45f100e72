"""Name look-ups of upstream servers: none of them holds up the servers of other names, those of one owner never all of
another's, and one that fails or hangs does not take away an address that was good.

Owns a few threads of its own and what they found. The event loop's own look-ups share four to six threads with
everything else, so that a name server that hangs would stop connections to all other servers. A name has one look-up
at a time, whoever asks. It knows no connection, no server and no tenant; its shape is aiohttp's `AbstractResolver`.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from copy import copy
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
#: Where all threads that an owner may have hang for so long, others of its names that have no address fail at once.
STUCK_S: Final = 2.0
#: Look-ups at a time; names beyond wait for one to end. One that hangs takes up to half a minute (resolv.conf(5)).
MOST_THREADS: Final = 64
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

    __slots__ = ("addresses", "failed_at", "failure", "found_at", "lookup", "running", "started_at", "turn", "used_at")

    def __init__(self) -> None:
        self.addresses: Addresses = ()
        self.found_at = 0.0
        #: Of the last look-up, until one succeeds.
        self.failure: OSError | None = None
        self.failed_at = 0.0
        #: The look-up under way; it never fails itself.
        self.lookup: asyncio.Future[None] | None = None
        #: Since when it is wanted, and whether it has a thread.
        self.started_at = 0.0
        self.running = False
        self.used_at = 0.0
        self.turn = 0


class _Line:
    """The look-ups that one owner of servers waits for."""

    __slots__ = ("running", "started_at", "waiting")

    def __init__(self) -> None:
        self.running = 0
        #: When the last one was started.
        self.started_at = 0.0
        #: Names that wait for a thread, in order.
        self.waiting: dict[str, None] = {}


class Lookups:
    """The threads, who waits for one, and what was found: of all owners together.

    Threads that hang cannot be had back, so an owner gets another one only while more are free than it has: one gets
    half of them at most, the next one half of the rest.
    """

    def __init__(self, lookup: Lookup, clock: Callable[[], float], most_threads: int) -> None:
        self._look_up = lookup
        self.clock = clock
        self._most_threads = most_threads
        self.names: dict[str, _Name] = {}
        #: By owner; those who neither have nor want a thread are not there.
        self.lines: dict[str, _Line] = {}
        #: Threads that look something up now.
        self.running = 0
        #: Look-ups so far, those that failed, and answers with an old address because of a failure or a wait.
        self.started = self.failures = self.stale_answers = 0

    def stuck(self, owner: str, now: float) -> bool:
        """Whether all threads that an owner may have hang."""
        line = self.lines.get(owner)
        return bool(line and line.running and now - line.started_at > STUCK_S and not self._has_room(line))

    def refresh(self, host: str, name: _Name, owner: str, now: float) -> None:
        """Have the name looked up, unless that is under way or failed just now. It may wait in the lines of several."""
        if name.lookup is None:
            if name.failure is not None and now - name.failed_at < FAILURE_S:
                return
            name.lookup = asyncio.get_running_loop().create_future()
            name.started_at, name.running = now, False
        if not name.running:
            line = self.lines.get(owner)
            if line is None:
                line = self.lines[owner] = _Line()
            line.waiting[host] = None
            self._start()

    def name(self, host: str) -> _Name:
        """What is known of a name. Of a new one nothing; then those that nobody has asked for in a long time go."""
        known = self.names.get(host)
        if known is not None:
            return known
        now = self.clock()
        old = [other for other, name in self.names.items() if name.lookup is None and now - name.used_at > STALE_S]
        for other in old:
            del self.names[other]
        name = self.names[host] = _Name()
        return name

    def _has_room(self, line: _Line) -> bool:
        return line.running < self._most_threads - self.running

    def _start(self) -> None:
        """Start what may be started, one of each owner in turn."""
        ready = [line for line in self.lines.values() if line.waiting]
        while ready and self.running < self._most_threads:
            ready = [line for line in ready if line.waiting and self._has_room(line)]
            for line in ready:
                if self._has_room(line):
                    self._start_one(line)

    def _start_one(self, line: _Line) -> None:
        host = next(iter(line.waiting))
        del line.waiting[host]
        name = self.names.get(host)
        if name is None or name.lookup is None or name.running:  # it was another owner's turn before
            return
        name.running, line.started_at = True, self.clock()
        line.running += 1
        self.running += 1
        self.started += 1
        loop = asyncio.get_running_loop()
        threading.Thread(target=self.run, args=(loop, host, line), name="resolver", daemon=True).start()

    def run(self, loop: asyncio.AbstractEventLoop, host: str, line: _Line) -> None:
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
            loop.call_soon_threadsafe(self._ended, host, line, found, failure)
        except RuntimeError:
            return  # the process is ending, and the loop is gone

    def _ended(self, host: str, line: _Line, found: Addresses, failure: OSError | None) -> None:
        self.running -= 1
        line.running -= 1
        name, now = self.names[host], self.clock()
        if found:
            name.addresses, name.found_at, name.failure = found, now, None
        else:
            self.failures += 1
            name.failure, name.failed_at = failure or OSError("no address"), now
        name.running = False
        lookup, name.lookup = name.lookup, None
        if lookup is not None and not lookup.done():
            lookup.set_result(None)
        self._start()
        self.lines = {owner: each for owner, each in self.lines.items() if each.running or each.waiting}


class Resolver:
    """Addresses of names, for the servers of one owner. The threads end with the process: none delays an exit."""

    def __init__(
        self, lookup: Lookup = look_up, clock: Callable[[], float] = monotonic, most_threads: int = MOST_THREADS
    ) -> None:
        self.lookups = Lookups(lookup, clock, most_threads)
        self.owner = ""

    def of(self, owner: str) -> Resolver:
        """The same for another owner, who shares what is found and has threads of its own."""
        other = copy(self)
        other.owner = owner
        return other

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list[dict[str, Any]]:
        """Addresses of `host` to connect to, each time another one first. Raises OSError when there are none, or none
        that can be asked for now.

        Waits without end for a name of which nothing is known: whoever connects has a deadline of its own.
        """
        lookups = self.lookups
        name = lookups.name(host)
        now = name.used_at = lookups.clock()
        age = now - name.found_at if name.addresses else STALE_S + 1
        if age > REFRESH_S:
            if age > STALE_S:
                name.addresses = ()
                if not name.running and lookups.stuck(self.owner, now):
                    raise OSError("look-ups hang")
            lookups.refresh(host, name, self.owner, now)
            if age > FRESH_S:
                await self._settle(name, now)
        if not name.addresses:
            raise name.failure or OSError("no address")
        return _results(name, host, port, family)

    async def close(self) -> None:
        """A connector is done with it; others are not."""

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
            self.lookups.stale_answers += 1


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
