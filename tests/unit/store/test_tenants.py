"""Tenants are made, listed, suspended and brought back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from proxy.store import tenants
from proxy.store.accounts import Rejected
from proxy.store.tenants import NewTenant
from tests.unit.store.administered import Administered, administered


@pytest.fixture
async def here() -> AsyncIterator[Administered]:
    """A database."""
    async with administered() as made:
        yield made


async def test_a_tenant_that_was_made_is_listed_beside_the_system(here: Administered) -> None:
    """In the order of their slugs, with their limits."""
    async with here.session() as session:
        made = await tenants.create(session, NewTenant("acme", "Acme Inc.", "team", 5, 7))
        listed = await tenants.listed(session)
    assert [row["slug"] for row in listed] == ["acme", "system"]
    assert {key: listed[0][key] for key in made} == made
    assert (made["name"], made["plan"], made["max_servers"], made["max_api_keys"]) == ("Acme Inc.", "team", 5, 7)
    assert await here.events() == ["tenant_created"]


async def test_a_slug_is_taken_once(here: Administered) -> None:
    """The second is rejected, and the first stays as it was."""
    async with here.session() as session:
        await tenants.create(session, NewTenant("acme", "One"))
    with pytest.raises(Rejected, match="already"):
        async with here.session() as session:
            await tenants.create(session, NewTenant("acme", "Two"))
    assert [row["name"] for row in await here.rows("SELECT name FROM tenants WHERE slug = 'acme'")] == ["One"]
    assert await here.events() == ["tenant_created"]


async def test_suspended_and_brought_back(here: Administered) -> None:
    """Each time only once, with the moment kept while it lasts."""
    query = "SELECT status, suspended_at IS NOT NULL AS dated FROM tenants WHERE slug = 'acme'"
    async with here.session() as session:
        await tenants.create(session, NewTenant("acme", "Acme"))
    for change, expected in ((tenants.suspend, ("suspended", True)), (tenants.activate, ("active", False))):
        for outcome in (True, False):
            async with here.session() as session:
                assert await change(session, "acme") is outcome
        assert [tuple(row.values()) for row in await here.rows(query)] == [expected]
    assert await here.events() == ["tenant_created", "tenant_status", "tenant_status"]


async def test_the_system_tenant_cannot_be_suspended(here: Administered) -> None:
    """Everybody's servers are its."""
    with pytest.raises(Rejected, match="system tenant"):
        async with here.session() as session:
            await tenants.suspend(session, "system")


async def test_an_unknown_tenant_is_answered_with_those_there_are(here: Administered) -> None:
    """The first twenty."""
    async with here.session() as session:
        for number in range(30):
            await tenants.create(session, NewTenant(f"t{number:02}", "x"))
    with pytest.raises(Rejected, match=r"there are: system, t00.*, t18, \.\.\.$"):
        async with here.session() as session:
            await tenants.activate(session, "nobody")
