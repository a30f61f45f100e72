"""Rows of traffic that wait to be written: minutes of servers and credentials, and what tenants used.

Owns what waits while PostgreSQL is away, and its bounds. Every minute of a server or credential is a row of its own,
whose identity is made once; use of tenants is added up, in batches that are numbered, so that one whose commit was lost
on the way is not added twice. When much waits, minutes are kept merged, by the hour; what finds no room then is lost,
and counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final

import orjson

from proxy.background.sums import KeySum, Sum
from proxy.background.traffic import quantiles_ms
from proxy.metrics import Family
from proxy.store import traffic as store
from proxy.store.learned import Unusable
from proxy.store.observations import patient, plain
from proxy.store.pool import TooSlow, Unavailable
from proxy.store.traffic import KeyWindow, Quantity, ServerWindow
from proxy.store.violations import tenant_of

if TYPE_CHECKING:
    from uuid import UUID

    from proxy.background.traffic import Traffic
    from proxy.identity.access import Server
    from proxy.store.database import Database

#: How often `step` is called, seconds.
STEP_S: Final = 1.0
#: Minutes of servers and credentials that wait; from half of it on they are merged by the hour.
MOST_WINDOWS: Final = 20_000
#: Sums of tenants that wait; from half of it on there are none of minutes, from three quarters on none of hours.
MOST_USAGE: Final = 40_000
#: Tenants whose rows are written in one step, each in a transaction of its own.
_MOST_TENANTS: Final = 100
#: Windows of one transaction.
_MOST_SENT: Final = 400
#: Rows that are made up at a time.
_SLICE: Final = 5

_HOUR_S: Final = 3600
#: Columns of `tenant_usage.metric`, in the order in which they are counted.
METRICS: Final = ("requests", "errors", "tool_calls", "bytes_in", "bytes_out")


@dataclass(slots=True)
class _Window:
    """A minute (or an hour) of a server or a credential."""

    id: UUID
    table: str
    """Of the credential; '' for a server."""
    identity: str
    start: int
    """Seconds since 1970."""
    length_s: int
    total: Sum
    open_streams: int = 0


@dataclass(slots=True)
class _Waiting:
    """What waits for one tenant."""

    windows: dict[UUID, _Window] = field(default_factory=dict)
    usage: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    """(granularity, begin) -> quantities in the order of METRICS."""
    batch: tuple[int, list[Quantity]] | None = None
    """Use that was sent, perhaps in vain; with its number."""


class TrafficRows:
    """What is told here is written soon."""

    def __init__(self, database: Database | None, new_id: Callable[[], UUID], instance: str) -> None:
        """`instance` names this process in its rows; no other may ever have had the name. Without a database there are
        no rows."""
        #: Rows that were written, requests whose rows were lost for want of room, rows that PostgreSQL refused.
        self.written = self.lost = self.refused = 0
        self._database = database
        self._new_id = new_id
        self._instance = instance
        self._batches = 0
        self._waiting: dict[str, _Waiting] = {}
        self._windows = self._usage = 0
        #: Merged hours that were not sent yet.
        self._hours: dict[tuple[str, str, int], _Window] = {}

    @property
    def waiting(self) -> int:
        """Sums that are not written yet."""
        return self._windows + self._usage

    # --- what is told ---------------------------------------------------------------------------------------------

    def add_server(self, place: Server, minute: int, total: Sum, open_streams: int) -> None:
        """A minute (since 1970) of a server; one that has no row in the database has none here either."""
        if place.id:
            self._add(place.tenant, "", place.id, minute, total, open_streams)

    def add_key(self, table: str, identity: str, tenant: str, minute: int, total: KeySum) -> None:
        """A minute of a credential, a row of this table."""
        self._add(tenant, table, identity, minute, total)

    def _add(self, tenant: str, table: str, identity: str, minute: int, total: Sum, open_streams: int = 0) -> None:
        if self._database is None:
            return
        start, length_s = minute * 60, 60
        if self._windows >= MOST_WINDOWS // 2:
            start, length_s = start // _HOUR_S * _HOUR_S, _HOUR_S
            hour = self._hours.get((table, identity, start))
            if hour is not None:
                hour.total.add(total)
                hour.open_streams = open_streams
                return
        if self._windows >= MOST_WINDOWS:
            self.lost += total.requests
            return
        window = _Window(self._new_id(), table, identity, start, length_s, total, open_streams)
        self._of(tenant_of(tenant)).windows[window.id] = window
        self._windows += 1
        if length_s == _HOUR_S:
            self._hours[table, identity, start] = window

    def add_tenant(self, tenant: str, minute: int, total: Sum) -> None:
        """What a tenant used in a minute: added to its minute, hour, day and month."""
        if self._database is None:
            return
        quantities = [total.requests, total.errors, total.tool_calls, total.bytes_in, total.bytes_out]
        usage = self._of(tenant_of(tenant)).usage
        for (granularity, start), most in zip(_periods(minute * 60), _ROOM, strict=True):
            found = usage.get((granularity, start))
            if found is not None:
                usage[granularity, start] = [one + other for one, other in zip(found, quantities, strict=True)]
            elif self._usage < most:
                usage[granularity, start] = list(quantities)
                self._usage += 1
            elif granularity == "month":  # the others can be told from the rows of the server
                self.lost += total.requests

    def _of(self, tenant: str) -> _Waiting:
        found = self._waiting.get(tenant)
        if found is None:
            found = self._waiting[tenant] = _Waiting()
        return found

    # --- writing --------------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """Write all that waits, at the end, as long as some of it is taken. The deadline is the caller's."""
        written = -1
        while self._waiting and self.written + self.refused > written:
            written = self.written + self.refused
            await self.step()

    async def step(self) -> None:
        """Write what waits. Quiet while PostgreSQL is away."""
        if self._database is None:
            return
        for tenant in list(islice(self._waiting, _MOST_TENANTS)):
            waiting = self._waiting[tenant]
            try:
                await self._write(self._database, tenant, waiting)
            except TooSlow:  # the others need not wait for it; it goes to the end
                self._waiting[tenant] = self._waiting.pop(tenant)
                continue
            except Unavailable:
                return
            if not (waiting.windows or waiting.usage or waiting.batch):
                del self._waiting[tenant]

    async def _write(self, database: Database, tenant: str, waiting: _Waiting) -> None:
        """One transaction: the next rows of a tenant. Raises Unavailable; they stay as they are then."""
        windows = list(islice(waiting.windows.values(), _MOST_SENT))
        servers, keys = await self._rows(windows)
        batch = waiting.batch = waiting.batch or self._batch(waiting)
        rows = len(windows) + (len(batch[1]) if batch is not None else 0)
        for attempt in ("first", "last"):
            try:
                async with patient(database.tenant(tenant)) as session:
                    await store.add_servers(session, self._instance, servers)
                    await store.add_keys(session, self._instance, keys)
                    if batch is not None:
                        await store.add_usage(session, self._instance, *batch)
            except Unusable:  # a server went meanwhile, which the next attempt sees; or the tenant is gone
                self.refused += rows if attempt == "last" else 0
            else:
                self.written += rows
                break
        waiting.batch = None
        for window in windows:
            del waiting.windows[window.id]
        self._windows -= len(windows)

    async def _rows(self, windows: Iterable[_Window]) -> tuple[list[ServerWindow], list[KeyWindow]]:
        """Nothing is added to them any more: they may be written, whatever is heard of it."""
        servers: list[ServerWindow] = []
        keys: list[KeyWindow] = []
        for number, window in enumerate(windows, 1):
            self._hours.pop((window.table, window.identity, window.start), None)
            if window.table:
                keys.append(_key_window(window))
            else:
                servers.append(_server_window(window))
            if not number % _SLICE:
                await asyncio.sleep(0)
        return servers, keys

    def _batch(self, waiting: _Waiting) -> tuple[int, list[Quantity]] | None:
        """The next batch of a tenant's use, with a number that is larger than all before."""
        if not waiting.usage:
            return None
        self._batches += 1
        rows: list[Quantity] = []
        for key in list(islice(waiting.usage, store.MOST_ROWS // len(METRICS))):
            granularity, start = key
            at = datetime.fromtimestamp(start, UTC)
            quantities = zip(METRICS, waiting.usage.pop(key), strict=True)
            rows += [Quantity(at, granularity, metric, quantity) for metric, quantity in quantities if quantity]
            self._usage -= 1
        return self._batches, rows


#: How many sums may wait for one of each granularity to be added.
_ROOM: Final = (MOST_USAGE // 2, MOST_USAGE * 3 // 4, MOST_USAGE, MOST_USAGE)


def _periods(start: int) -> Iterator[tuple[str, int]]:
    """Granularity and begin of every period that a moment is in; seconds since 1970."""
    yield "minute", start
    yield "hour", start // _HOUR_S * _HOUR_S
    yield "day", start // 86400 * 86400
    first = datetime.fromtimestamp(start, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    yield "month", int(first.timestamp())


def _server_window(window: _Window) -> ServerWindow:
    total = window.total
    end = datetime.fromtimestamp(window.start + window.length_s, UTC)
    return ServerWindow(
        window.id, end, window.identity, window.length_s, total.requests, total.errors, *_times(total),
        total.bytes_in, total.bytes_out, window.open_streams, *_sketch(total),
    )  # fmt: skip


def _key_window(window: _Window) -> KeyWindow:
    total = window.total
    tools: dict[str, dict[str, int]] = {}
    for (server, tool), calls in total.tools.items() if isinstance(total, KeySum) else ():
        tools.setdefault(plain(server), {})[plain(tool)] = calls
    return KeyWindow(
        window.id, datetime.fromtimestamp(window.start, UTC), window.table, window.identity, window.length_s,
        total.requests, total.errors, total.tool_calls, total.bytes_in, total.bytes_out, *_times(total),
        *_sketch(total), orjson.dumps(tools).decode(),
    )  # fmt: skip


def _times(total: Sum) -> tuple[float | None, float | None, float | None, float | None]:
    """Mean, median, 95th and 99th percentile, milliseconds."""
    if not total.timed:
        return None, None, None, None
    p50, p95, p99 = quantiles_ms(total, 0.50, 0.95, 0.99)
    return 1000 * total.seconds / total.timed, p50, p95, p99


def _sketch(total: Sum) -> tuple[str, str]:
    """Bins and how many fell into each, as PostgreSQL writes arrays: it has no arrays of arrays of any length."""
    bins = sorted(total.bins)
    return f"{{{','.join(map(str, bins))}}}", f"{{{','.join(str(total.bins[key]) for key in bins)}}}"


def families(traffic: Traffic, rows: TrafficRows) -> Iterator[Family]:
    """The metrics of all this."""
    numbers = (
        ("gauge", "rows_waiting", "Sums of traffic that are not written yet", rows.waiting),
        ("counter", "rows_written", "Rows of traffic that were written", rows.written),
        ("counter", "rows_refused", "Rows of traffic whose tenant is gone", rows.refused),
        ("counter", "requests_lost", "Requests that are missing in rows for want of room", rows.lost),
        ("counter", "requests_unsummed", "Requests that were not summed up at all", traffic.tally.overflowed),
        ("counter", "requests_keyless", "Requests not counted for their credential", traffic.keys_crowded),
        ("counter", "sums_crowded", "Sums of the last hour without room", traffic.recent.crowded),
    )
    for kind, name, purpose, value in numbers:
        yield Family(kind, f"mcp_proxy_traffic_{name}", purpose, (("", value),))
