"""Maintenance windows as rows: planned, listed, ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from proxy.identity.records import FILE_TAG, SYSTEM_TENANT
from proxy.store import maintenance, servers, tenants
from proxy.store.accounts import Rejected
from proxy.store.maintenance import NewWindow
from proxy.store.servers import NewServer
from proxy.store.tenants import NewTenant
from tests.unit.store.administered import Administered, administered

HOUR = timedelta(hours=1)
SOON = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
async def here() -> AsyncIterator[Administered]:
    """A tenant with a server, and one of the configuration file."""
    async with administered() as made:
        async with made.session() as session:
            await tenants.create(session, NewTenant("acme", "Acme"))
            await servers.add(session, "acme", [NewServer("x", "http://x/")])
        await made.rows(
            "INSERT INTO mcp_servers (tenant_id, name, endpoint_url, tags) VALUES ($1, 'file', 'http://x/', $2)",
            UUID(SYSTEM_TENANT), [FILE_TAG],
        )  # fmt: skip
        yield made


async def add(here: Administered, slug: str, server: str | None, wanted: NewWindow) -> dict[str, Any]:
    async with here.session() as session:
        return await maintenance.add(session, slug, server, wanted)


async def listed(here: Administered, slug: str | None = None) -> list[tuple[str, str | None, str]]:
    """Tenant, server and title of each."""
    async with here.session() as session:
        return [(each.tenant, each.server, each.title) for each in await maintenance.listed(session, slug)]


async def test_a_window_is_planned_for_now_or_later(here: Administered) -> None:
    """Also of a server that stands in the configuration file; each is told of."""
    before = datetime.now(UTC)
    now = await add(here, "system", "file", NewWindow("now", HOUR, 5.0))
    later = await add(here, "acme", "x", NewWindow("later", HOUR, begins_at=SOON))
    assert abs((now["starts_at"] - before).total_seconds()) < 10
    assert (now["ends_at"] - now["starts_at"], later["starts_at"], later["ends_at"]) == (HOUR, SOON, SOON + HOUR)
    assert await listed(here) == [("system", "file", "now"), ("acme", "x", "later")]
    assert await listed(here, "acme") == [("acme", "x", "later")]
    rows = await here.rows("SELECT title, drain_s, status, recurrence FROM maintenance_windows ORDER BY title")
    assert [tuple(row.values()) for row in rows] == [
        ("later", 30.0, "scheduled", None),
        ("now", 5.0, "scheduled", None),
    ]
    assert (await here.events())[-2:] == ["maintenance_planned"] * 2


async def test_what_is_under_way_at_a_server_is_ended(here: Administered) -> None:
    """Once; what is to come, and other servers, keep theirs."""
    for wanted in (NewWindow("one", HOUR), NewWindow("two", HOUR), NewWindow("later", HOUR, begins_at=SOON)):
        await add(here, "acme", "x", wanted)
    await add(here, "system", "file", NewWindow("other", HOUR))
    async with here.session() as session:
        assert await maintenance.end_of_server(session, "acme", "x") == 2
    assert await listed(here) == [("system", "file", "other"), ("acme", "x", "later")]
    rows = await here.rows(
        "SELECT DISTINCT status, ends_at <= now() AS over FROM maintenance_windows WHERE title < 'p'"
    )
    assert {tuple(row.values()) for row in rows} == {
        ("completed", True), ("scheduled", False)
    }  # fmt: skip
    with pytest.raises(Rejected, match="by their id"):
        async with here.session() as session:
            await maintenance.end_of_server(session, "acme", "x")
    assert (await here.events())[-2:] == ["maintenance_stopped"] * 2


async def test_a_window_is_ended_or_called_off_by_its_id(here: Administered) -> None:
    """Under way: it is over now. To come, or again and again: it has no effect any more."""
    now = await add(here, "acme", "x", NewWindow("now", HOUR))
    later = await add(here, "acme", "x", NewWindow("later", HOUR, begins_at=SOON))
    again = await add(here, "acme", "x", NewWindow("again", HOUR))
    await here.rows("UPDATE maintenance_windows SET recurrence = '02:00-03:00' WHERE id = $1", again["id"])
    for made in (now, later, again):
        async with here.session() as session:
            await maintenance.end(session, made["id"])
        with pytest.raises(Rejected, match="no window of this id"):
            async with here.session() as session:
                await maintenance.end(session, made["id"])
    rows = await here.rows("SELECT title, status FROM maintenance_windows ORDER BY title")
    assert [tuple(row.values()) for row in rows] == [
        ("again", "cancelled"),
        ("later", "cancelled"),
        ("now", "completed"),
    ]
    assert await listed(here) == []


async def test_what_comes_back_is_not_ended_with_the_name_of_its_server(here: Administered) -> None:
    """That would end it for good."""
    made = await add(here, "acme", "x", NewWindow("again", HOUR))
    await here.rows("UPDATE maintenance_windows SET recurrence = '02:00-03:00' WHERE id = $1", made["id"])
    with pytest.raises(Rejected, match="by their id"):
        async with here.session() as session:
            await maintenance.end_of_server(session, "acme", "x")


async def test_all_servers_of_a_tenant_are_maintained_together(here: Administered) -> None:
    """What is ended for all is not ended for one, and the other way round."""
    for server in (None, "x"):
        await add(here, "acme", server, NewWindow("t", HOUR))
    assert await listed(here) == [("acme", None, "t"), ("acme", "x", "t")]
    async with here.session() as session:
        assert await maintenance.end_of_server(session, "acme", None) == 1
    assert await listed(here) == [("acme", "x", "t")]
    with pytest.raises(Rejected, match="for all, as you asked"):
        async with here.session() as session:
            await maintenance.end_of_server(session, "acme", None)


async def test_windows_of_all_servers_and_without_an_end_are_listed(here: Administered) -> None:
    """What is over, or was called off, is not."""
    await here.rows(
        "INSERT INTO maintenance_windows (tenant_id, title, starts_at, ends_at, status) SELECT id, v.title, "
        "v.starts_at::timestamptz, v.ends_at::timestamptz, v.status FROM tenants, (VALUES "
        "('ever', '-infinity', 'infinity', 'active'), ('past', '2020-01-01', '2020-01-02', 'scheduled'), "
        "('off', '2020-01-01', 'infinity', 'cancelled')) AS v (title, starts_at, ends_at, status) WHERE slug = 'acme'"
    )
    async with here.session() as session:
        (found,) = await maintenance.listed(session, None)
    assert (found.server, found.title, found.starts_at.year, found.ends_at.year) == (None, "ever", 2, 9999)


@pytest.mark.parametrize(("slug", "server", "sentence"), [("acme", "y", "no server"), ("nobody", "x", "no tenant")])
async def test_what_is_not_there_is_said(here: Administered, slug: str, server: str, sentence: str) -> None:
    """Whatever is asked about it; a server of another tenant is not there."""
    with pytest.raises(Rejected, match=sentence):
        await add(here, slug, server, NewWindow("t", HOUR))
    with pytest.raises(Rejected, match=sentence):
        async with here.session() as session:
            await maintenance.end_of_server(session, slug, server)
    with pytest.raises(Rejected, match="no window of this id"):
        async with here.session() as session:
            await maintenance.end(session, uuid4())
