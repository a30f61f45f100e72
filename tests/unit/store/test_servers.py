"""Registered servers as rows: added once, disabled and enabled, beside those of the configuration file."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from proxy.store import servers, tenants
from proxy.store.accounts import Rejected
from proxy.store.servers import ADDED, SAME, TAKEN, NewServer
from proxy.store.tenants import NewTenant
from tests.unit.store.administered import Administered, administered

GITHUB = NewServer(
    "github",
    "https://h.example/mcp?token=planted",
    headers={"Authorization": "Bearer ${TENANT_ACME_TOKEN}"},
    options={"timeouts": {"connect": "2s"}},
)


@pytest.fixture
async def here() -> AsyncIterator[Administered]:
    """A database with a tenant that may have two servers."""
    async with administered() as made:
        async with made.session() as session:
            await tenants.create(session, NewTenant("acme", "Acme", max_servers=2))
        yield made


async def add(here: Administered, *wanted: NewServer, slug: str = "acme") -> list[str]:
    """What became of each."""
    async with here.session() as session:
        return await servers.add(session, slug, wanted)


async def test_a_server_is_added_once(here: Administered) -> None:
    """The same again changes nothing, another one of its name is not taken for it."""
    assert await add(here, GITHUB) == [ADDED]
    assert await add(here, GITHUB, NewServer("github", "https://other.example/")) == [SAME, TAKEN]
    assert await add(here, GITHUB, slug="system") == [ADDED]
    async with here.session() as session:
        [row] = await servers.listed(session, "acme")
        assert len(await servers.listed(session, None)) == 2
    assert (row["tenant"], row["name"], row["url"]) == ("acme", "github", GITHUB.endpoint_url)
    assert (row["transport"], row["enabled"], row["health"]) == ("streamable_http", True, "UNKNOWN")
    assert (row["headers"], row["options"]) == (["Authorization"], GITHUB.options)
    assert await here.events() == ["tenant_created", "servers_added", "servers_added"]


async def test_a_tenant_has_no_more_servers_than_it_may(here: Administered) -> None:
    """All of a list or none."""
    wanted = [NewServer(name, "http://x/") for name in ("a", "b", "c")]
    with pytest.raises(Rejected, match="2 servers"):
        await add(here, *wanted)
    assert await here.rows("SELECT id FROM mcp_servers") == []
    assert await add(here, *wanted[:2]) == [ADDED, ADDED]
    assert await add(here, *wanted[:2]) == [SAME, SAME]


async def test_a_server_is_disabled_and_enabled(here: Administered) -> None:
    """Once each; the row stays."""
    await add(here, GITHUB)
    for enabled in (False, True):
        for outcome in (True, False):
            async with here.session() as session:
                assert await servers.set_enabled(session, "acme", "github", enabled) is outcome
        assert await here.rows("SELECT is_enabled FROM mcp_servers") == [{"is_enabled": enabled}]
    assert (await here.events())[2:] == ["server_disabled", "server_enabled"]
    with pytest.raises(Rejected, match="no server of this name"):
        async with here.session() as session:
            await servers.set_enabled(session, "system", "github", False)


async def test_a_server_of_the_configuration_file_gives_its_row_away(here: Administered) -> None:
    """The id stays, and what refers to it; until then it cannot be disabled here."""
    [before] = await here.rows(
        "INSERT INTO mcp_servers (tenant_id, name, endpoint_url, tags) SELECT id, 'github', 'http://x/', "
        "'{configuration-file,other}' FROM tenants WHERE slug = 'system' RETURNING id"
    )
    with pytest.raises(Rejected, match="configuration file"):
        async with here.session() as session:
            await servers.set_enabled(session, "system", "github", False)
    assert await add(here, GITHUB, slug="system") == [ADDED]
    assert await here.rows("SELECT id, tags, endpoint_url FROM mcp_servers") == [
        {**before, "tags": ["other"], "endpoint_url": GITHUB.endpoint_url}
    ]
    async with here.session() as session:
        assert await servers.set_enabled(session, "system", "github", False)


async def test_a_server_can_be_added_for_later(here: Administered) -> None:
    """Disabled from the first."""
    assert await add(here, NewServer("later", "http://x/", is_enabled=False)) == [ADDED]
    assert await here.rows("SELECT is_enabled FROM mcp_servers") == [{"is_enabled": False}]


async def test_what_may_be_secret_is_in_no_repr() -> None:
    """Of a server: where it is, and its headers."""
    assert "planted" not in repr(GITHUB)
    assert "TENANT_ACME_TOKEN" not in repr(GITHUB)
