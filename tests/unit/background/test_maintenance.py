"""Windows come into force and end with the clock; what runs to a server ends with its drain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.background.maintenance import Maintenance
from proxy.dataplane.maintenance import Active
from proxy.dataplane.streams import Held
from proxy.identity.records import SYSTEM_TENANT
from proxy.store.rows import MaintenanceRow
from tests.unit.dataplane.fakes import Client, Proxy, proxying

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()


def row(start: float, end: float, **given: Any) -> MaintenanceRow:
    """Of all servers, in seconds from noon on."""
    columns: dict[str, Any] = {
        "id": "w1", "tenant_id": SYSTEM_TENANT, "server_id": None, "status": "scheduled", "title": "disk",
        "drain_s": 10.0, "recurrence": None,
        "starts_at": datetime.fromtimestamp(NOON + start, UTC), "ends_at": datetime.fromtimestamp(NOON + end, UTC),
    }  # fmt: skip
    return MaintenanceRow(**(columns | given))


def entry(server: str, start: int, end: int, **given: Any) -> dict[str, Any]:
    """The same for one server, as it is configured."""
    begins, ends = (datetime.fromtimestamp(NOON + moment, UTC).isoformat() for moment in (start, end))
    return {"server": server, "title": "disk", "start": begins, "end": ends, "drain": "10s", **given}


SERVERS = {name: {"url": "http://x.test/mcp"} for name in ("up", "other")}


class World:
    """A proxy whose maintenance is stepped by hand."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.now = NOON
        self.rows: dict[str, MaintenanceRow] = {}
        self.told: list[tuple[str, str, str]] = []
        """Kind, tenant, server or number of problems."""
        self.maintenance = Maintenance(proxy.live, proxy.streams, lambda: self.rows, self._tell, lambda: self.now)

    def _tell(
        self, tenant: str, kind: str, severity: str, component: str, message: str, details: Mapping[str, Any]
    ) -> None:
        assert component == "maintenance" and message
        self.told.append((kind, tenant, details["server"] if "server" in details else str(details["all"])))

    def step(self, after: float) -> None:
        """At so many seconds after noon."""
        self.now = NOON + after
        self.maintenance.step()

    def window(self, server: str = "up") -> Active | None:
        return self.proxy.live.snapshot.upstreams[server].window

    def opened(self, server: str = "up", *, tunnel: bool = False) -> tuple[Held, Client]:
        """A stream from a server in the current task; its method is GET."""
        request = self.proxy.request(method="GET")
        request.ctx.upstream = self.proxy.live.snapshot.upstreams[server]
        held = self.proxy.streams.open_tunnel(request.ctx) if tunnel else self.proxy.streams.open(request.ctx)
        held.task = asyncio.create_task(asyncio.Event().wait())
        return held, request.client


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with proxying(SERVERS) as proxy:
        yield World(proxy)


async def gone(held: Held) -> bool:
    """Whether its task was ended; if not, it is now."""
    assert held.task is not None
    await asyncio.sleep(0)
    done = held.task.done()
    held.task.cancel()
    await asyncio.gather(held.task, return_exceptions=True)
    return done


async def test_a_window_is_in_force_for_as_long_as_it_is(world: World) -> None:
    """Told of once when it begins and once when it is over."""
    world.rows = {"w1": row(10, 100, title="New disk")}
    world.step(0)
    assert world.window() is None
    for after in (10, 11, 99):
        world.step(after)
        assert world.window() == world.window("other") == ("New disk", NOON + 100, NOON + 20)
        assert dict(world.maintenance.active) == {name: world.window() for name in ("up", "other")}
    world.step(100)
    assert world.window() is None and not world.maintenance.active
    assert world.told == [
        *(("maintenance_begin", SYSTEM_TENANT, name) for name in ("up", "other")),
        *(("maintenance_end", SYSTEM_TENANT, name) for name in ("up", "other")),
    ]


async def test_a_window_that_is_called_off_or_prolonged_changes_at_once(world: World) -> None:
    """With the next step after the row changed."""
    world.rows = {"w1": row(0, 100)}
    world.step(1)
    world.rows = {"w1": row(0, 200)}
    world.step(2)
    assert world.window() == ("disk", NOON + 200, NOON + 10)
    world.rows = {"w1": row(0, 200, status="cancelled")}
    world.step(3)
    assert world.window() is None
    assert [kind for kind, *_ in world.told].count("maintenance_begin") == 2  # one for each server


async def test_servers_of_a_new_snapshot_know_of_the_window_they_are_in(world: World) -> None:
    """A reload makes another upstream of a server whose configuration changed; nothing begins anew."""
    servers = {**SERVERS, "up": {"url": "http://x.test/mcp"}}
    world.proxy.configure(servers=servers, maintenance=[entry("up", 0, 100)])
    world.step(1)
    before = world.proxy.live.snapshot.upstreams["up"]
    servers["up"] = {"url": "http://y.test/mcp"}
    world.proxy.configure(servers=servers, maintenance=[entry("up", 0, 100)])
    assert world.proxy.live.snapshot.upstreams["up"] is not before
    assert world.window() == before.window
    world.step(2)
    assert world.window() == before.window == ("disk", NOON + 100, NOON + 10)
    world.proxy.configure(servers={"other": SERVERS["other"]})
    world.step(3)
    assert [each[0] for each in world.told] == ["maintenance_begin", "maintenance_end"]


async def test_who_waits_for_a_server_that_was_replaced_meets_the_window_of_the_new_one(world: World) -> None:
    """Its begin, its change and its end; of a server that is gone nobody knows more than before."""
    servers = {**SERVERS, "up": {"url": "http://y.test/mcp"}}
    before = world.proxy.live.snapshot
    old, before.requests = before.upstreams["up"], 1
    world.proxy.configure(servers=servers)
    await world.proxy.live.close_retired()
    for title in ("disk", "still the disk"):
        world.rows = {"w1": row(10, 100, title=title)}
        world.step(10)
        assert old.window == world.window() == (title, NOON + 100, NOON + 20)
    world.rows = {}
    world.step(11)
    assert old.window is world.window() is None
    world.rows = {"w1": row(10, 100)}
    world.step(12)
    world.proxy.configure(servers={"other": SERVERS["other"]})
    world.step(13)
    assert old.window == ("disk", NOON + 100, NOON + 20)


async def test_streams_and_tunnels_end_when_the_drain_is_over(world: World) -> None:
    """And not before; those of other servers go on. What is not a stream is not known here, and goes on."""
    world.proxy.configure(servers=SERVERS, maintenance=[entry("up", 0, 100)])
    stream, _ = world.opened()
    tunnel, client = world.opened(tunnel=True)
    other, _ = world.opened("other")
    for after in (0, 5, 9.9):
        world.step(after)
    assert not stream.ending and not tunnel.cut  # type: ignore[attr-defined]
    world.step(10)
    assert stream.ending and not stream.cut  # type: ignore[attr-defined]
    assert (tunnel.cut, client.end) == (True, "abort")
    assert await gone(stream) and await gone(tunnel) and not await gone(other)


async def test_a_stream_that_does_not_come_to_the_end_of_its_event_is_reset(world: World) -> None:
    """Five seconds later: the server may be gone."""
    world.rows = {"w1": row(0, 100)}
    stream, client = world.opened()
    stream.tracker.feed(b"data: half")  # type: ignore[attr-defined]
    for after, end in ((10, ""), (14.9, ""), (15, "abort")):
        world.step(after)
        assert client.end == end
    assert await gone(stream)


async def test_what_was_drained_stays_so_when_another_window_adjoins(world: World) -> None:
    """Its drain has nothing left to wait for, also when the first row is gone by then."""
    world.rows = {"w1": row(0, 100), "w2": row(100, 200, id="w2", drain_s=50.0)}
    world.step(0)
    world.step(50)
    assert world.window() == ("disk", NOON + 200, NOON + 10)
    world.rows = {"w2": world.rows["w2"]}
    world.step(100)
    assert world.window() == ("disk", NOON + 200, NOON + 10)
    assert [each[0] for each in world.told] == ["maintenance_begin"] * 2


async def test_a_drain_may_be_prolonged_while_it_lasts(world: World) -> None:
    """The operator sees that more time is needed."""
    world.rows = {"w1": row(0, 100)}
    world.step(5)
    world.rows = {"w1": row(0, 100, drain_s=60.0)}
    world.step(9)
    assert world.window() == ("disk", NOON + 100, NOON + 60)


async def test_rows_that_cannot_be_used_are_told_of_once(world: World) -> None:
    """And again when they were mended."""
    world.rows = {"w1": row(0, 100, recurrence="sometimes")}
    world.step(0)
    world.step(1)
    world.rows = {"w1": row(500, 600)}
    world.step(2)
    assert world.told == [("maintenance_unusable", SYSTEM_TENANT, "1"), ("maintenance_unusable", SYSTEM_TENANT, "0")]


async def test_without_windows_a_step_costs_nothing(world: World) -> None:
    """However many servers there are: below 20 µs."""
    world.step(0)
    best = 1.0
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(100):
            world.maintenance.step()
        best = min(best, (time.perf_counter() - began) / 100)
    assert best < 20e-6
