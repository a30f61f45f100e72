"""Sums up the requests that went by: by tenant and server for the last hour, and by minute for the database.

Owns what counts as failed, whose a request is, and when a minute is over. Requests are summed up beside the requests
that are under way, in slices of less than a millisecond. The sums of this process only: those of all are in the
database.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from sys import maxsize
from typing import TYPE_CHECKING, Final

from ddsketch.mapping import LogarithmicMapping

from proxy.background.recent import KEPT_S, SLOT_S, Recent
from proxy.background.sums import OTHER_TOOLS, KeySum, Sum, quantiles
from proxy.identity.principal import Source
from proxy.identity.records import SYSTEM_TENANT
from proxy.mcp.methods import METHODS

if TYPE_CHECKING:
    from proxy.background.traffic_rows import TrafficRows
    from proxy.dataplane.tally import Sample, Tally
    from proxy.dataplane.upstream import Upstream
    from proxy.dataplane.usage import Named
    from proxy.identity.access import Server
    from proxy.identity.principal import Principal
    from proxy.mcp.envelope import Envelope

#: How often `step` is called, seconds.
STEP_S: Final = 0.5
#: Largest relative error of a quantile.
ACCURACY: Final = 0.01
#: Pieces of work between two looks at what else is to do, each less than a millisecond.
_SAMPLES: Final = 150
_DELTAS: Final = 4
_AGED: Final = 50
_CLOSED: Final = 100
#: Sums of tenants and servers that a value has to be added up from besides.
_MOST_UNSETTLED: Final = 64
#: A minute is closed so long after its end: the last of its requests are summed up by then.
_GRACE_S: Final = 1.0
#: Credentials with sums at a time.
MAX_KEYS: Final = 20_000
#: How a request ends that failed, whatever its status says; a status of 500 and up is a failure besides.
FAILED: Final = frozenset(("upstream_error", "upstream_truncated", "timeout", "internal"))
_LONG_LIVED: Final = frozenset(name for name, method in METHODS.items() if method.long_lived)
#: Status of a tunnel.
_UPGRADED: Final = 101
#: Credentials that have rows.
_WITH_ROWS: Final = frozenset((Source.KEY, Source.LEGACY_KEY, Source.BEARER))
_SHARES: Final[Mapping[str, float]] = {"p50_ms": 0.50, "p95_ms": 0.95, "p99_ms": 0.99}
#: Shortest duration that is told from none, seconds.
_SHORTEST_S: Final = 1e-6

_MAPPING: Final = LogarithmicMapping(ACCURACY)
_KEY: Final = _MAPPING.key


def bin_of(seconds: float) -> int:
    """The bin that a duration falls into."""
    bin_number: int = _KEY(seconds * 1e3 if seconds > _SHORTEST_S else _SHORTEST_S * 1e3)
    return bin_number


def milliseconds(bin_number: int) -> float:
    """What a bin stands for: within `ACCURACY` of every duration in it."""
    value: float = _MAPPING.value(bin_number)
    return value


def quantiles_ms(total: Sum, *shares: float) -> list[float]:
    """Quantiles of a sum's durations, ascending; none without any."""
    return [milliseconds(found) for found in quantiles(total.bins, shares)]


class _ServerSum(Sum):
    """Requests to one server in one minute."""

    __slots__ = ("upstream",)

    def __init__(self, upstream: Upstream) -> None:
        super().__init__()
        self.upstream = upstream


class _CredentialSum(KeySum):
    """Requests of one credential in one minute."""

    __slots__ = ("table", "tenant")

    def __init__(self, principal: Principal) -> None:
        super().__init__()
        self.tenant = principal.tenant
        self.table = principal.source.value


class Traffic:
    """The sums of a process. `step` keeps them going; `value` tells how things are."""

    def __init__(
        self,
        tally: Tally,
        rows: TrafficRows,
        servers: Callable[[], Mapping[str, Upstream]],
        named: Named,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """`servers` are those in force; `named` says whether a list has named a tool. `clock` gives monotonic seconds,
        the same that requests are timed with; `wall` seconds since 1970."""
        #: Requests that were not counted for their credential, for want of room.
        self.keys_crowded = 0
        self.tally = tally
        self.recent = Recent()
        self._rows, self._servers, self._named = rows, servers, named
        self._clock, self._wall = clock, wall
        #: Monotonic, as the other clock may be set back to before it.
        self._began = clock()
        self._closed = int((wall() - _GRACE_S) // 60)
        self._taken: deque[Sample] = deque()
        self._deltas: dict[tuple[int, str, Upstream | None], Sum] = {}
        self._of_servers: dict[tuple[int, Server], _ServerSum] = {}
        self._of_tenants: dict[tuple[int, str], Sum] = {}
        self._of_keys: dict[tuple[int, str], _CredentialSum] = {}

    def value(self, metric: str, tenant: str, server: str, window_s: float) -> float | None:
        """How things went in the last `window_s` seconds (more than an hour is an hour), in this process.

        `tenant`: an id, '' for all; `server`: its full name, '' for all and for requests that reached none. `metric`:
        `requests` (how many), `requests_per_minute` (of the time that was watched), `error_rate` (failed of all, 0 to
        1), `p50_ms`, `p95_ms`, `p99_ms`. None where there was nothing to measure, and for a metric that is none of
        these. Takes 0.2 ms as a rule, 1 at worst.
        """
        now, window_s = self._wall(), min(window_s, KEPT_S)
        since, until = int((now - window_s) // SLOT_S), int(now // SLOT_S)
        total = self.recent.total(tenant, server, since, until)
        for (slot, of_tenant, upstream), delta in self._deltas.items():
            of_server = not server or (upstream is not None and upstream.name == server)
            if of_server and since <= slot <= until and tenant in ("", of_tenant or SYSTEM_TENANT):
                total.add(delta)
        if metric == "requests":
            return float(total.requests)
        if metric == "requests_per_minute":
            return 60.0 * total.requests / max(min(now - since * SLOT_S, self._clock() - self._began), 1.0)
        if metric == "error_rate":
            return total.errors / total.requests if total.requests else None
        share = _SHARES.get(metric)
        found = quantiles_ms(total, share) if share is not None else None
        return found[0] if found else None

    # --- steps ----------------------------------------------------------------------------------------------------

    async def step(self) -> None:
        """Sum up what came since the last time, and close the minutes that are over."""
        now = self._wall()
        await self._sum_up(int(now // SLOT_S))
        aging = True
        while aging:
            aging = self.recent.age(int(now // SLOT_S), _AGED)
            await asyncio.sleep(0)
        minute = int((now - _GRACE_S) // 60)
        if minute != self._closed:
            everything = minute < self._closed  # the clock was set back: those minutes come again
            self._closed = minute
            self._note_streams(minute - 1)
            await self._close(maxsize if everything else minute)

    async def finish(self) -> None:
        """Sum up the rest and close every minute, at the end."""
        await self._sum_up(-1)
        await self._close(maxsize)

    async def _sum_up(self, current: int) -> None:
        """Sums of the current slot are not settled yet: one that many requests were added to takes no longer."""
        self._taken.extend(self.tally.take())
        offset_s = self._wall() - self._clock()
        taken = self._taken
        while taken:
            self._fold([taken.popleft() for _ in range(min(len(taken), _SAMPLES))], offset_s)
            await asyncio.sleep(0)
        many = len(self._deltas) > _MOST_UNSETTLED
        for number, key in enumerate([key for key in self._deltas if many or key[0] != current], 1):
            self._settle(key, self._deltas.pop(key))
            if not number % _DELTAS:
                await asyncio.sleep(0)

    def _fold(self, samples: list[Sample], offset_s: float) -> None:
        """Add requests to the sums of their slot, tenant and server, and of their credential."""
        deltas, of_keys = self._deltas, self._of_keys
        for who, upstream, envelope, outcome, method, streamed, status, ended, took, bytes_in, bytes_out in samples:
            at = ended + offset_s
            key = (int(at // SLOT_S), who.tenant, upstream)
            delta = deltas.get(key)
            if delta is None:
                delta = deltas[key] = Sum()
            own = of_keys.get((int(at // 60), who.key_id)) or self._new_key_sum(who, int(at // 60))
            failed = status >= 500 or outcome in FAILED
            listens = (streamed or status == _UPGRADED) and _listens(method, envelope)
            bin_number = bin_of(took) if not listens else None
            for total in (delta,) if own is None else (delta, own):
                total.requests += 1
                total.errors += failed
                total.bytes_in += bytes_in
                total.bytes_out += bytes_out
                if bin_number is not None:
                    total.timed += 1
                    total.seconds += took
                    total.bins[bin_number] = total.bins.get(bin_number, 0) + 1
            if envelope is not None and upstream is not None:
                self._count_tools(envelope, upstream, delta, own)

    def _new_key_sum(self, who: Principal, minute: int) -> _CredentialSum | None:
        if not who.key_id or who.source not in _WITH_ROWS:
            return None
        if len(self._of_keys) >= MAX_KEYS:
            self.keys_crowded += 1
            return None
        own = self._of_keys[minute, who.key_id] = _CredentialSum(who)
        return own

    def _count_tools(self, envelope: Envelope, upstream: Upstream, delta: Sum, own: KeySum | None) -> None:
        """A tool that no list has named has no name here either: it would be the client's to choose."""
        for message in envelope.messages:
            if message.method == "tools/call":
                delta.tool_calls += 1
                if own is not None:
                    own.tool_calls += 1
                    tool = (upstream.name, message.target)
                    known = tool in own.tools or self._named(upstream.name, "tool", message.target)
                    own.count_tool(tool if known else OTHER_TOOLS)

    def _settle(self, key: tuple[int, str, Upstream | None], delta: Sum) -> None:
        slot, tenant, upstream = key
        tenant = tenant or SYSTEM_TENANT
        minute = slot * SLOT_S // 60
        self.recent.add(slot, tenant, upstream.name if upstream is not None else "", delta)
        total = self._of_tenants.get((minute, tenant))
        if total is None:
            total = self._of_tenants[minute, tenant] = Sum()
        total.add_counts(delta)
        if upstream is not None:
            self._server_sum(minute, upstream).add(delta)

    def _server_sum(self, minute: int, upstream: Upstream) -> Sum:
        found = self._of_servers.get((minute, upstream.place))
        if found is None:
            found = self._of_servers[minute, upstream.place] = _ServerSum(upstream)
        return found

    # --- the ends of minutes --------------------------------------------------------------------------------------

    def _note_streams(self, minute: int) -> None:
        """Servers whose streams are all that happened have a row, too."""
        for upstream in self._servers().values():
            if upstream.open_streams:
                self._server_sum(minute, upstream)

    async def _close(self, before: int) -> None:
        """Hand over the sums of the minutes before this one."""
        closed = 0
        for (minute, place), of_server in [each for each in self._of_servers.items() if each[0][0] < before]:
            del self._of_servers[minute, place]
            self._rows.add_server(place, minute, of_server, of_server.upstream.open_streams)
            closed = await _breathe(closed)
        for minute, identity in [key for key in self._of_keys if key[0] < before]:
            own = self._of_keys.pop((minute, identity))
            self._rows.add_key(own.table, identity, own.tenant, minute, own)
            closed = await _breathe(closed)
        for minute, tenant in [key for key in self._of_tenants if key[0] < before]:
            self._rows.add_tenant(tenant, minute, self._of_tenants.pop((minute, tenant)))
            closed = await _breathe(closed)


def _listens(method: str, envelope: Envelope | None) -> bool:
    """Whether a stream is open for as long as somebody listens: how long says nothing of the server."""
    return method == "GET" or (envelope is not None and envelope.messages[0].method in _LONG_LIVED)


async def _breathe(closed: int) -> int:
    """One more was closed; requests go first."""
    if closed % _CLOSED == _CLOSED - 1:
        await asyncio.sleep(0)
    return closed + 1
