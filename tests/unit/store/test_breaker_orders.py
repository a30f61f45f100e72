"""Orders to breakers, with the real migrations: one for each server, told to every instance."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from proxy.store import breaker_orders, registry
from proxy.store.accounts import Rejected
from proxy.store.rows import BreakerOrderRow
from tests.unit.store.administered import Administered, administered

ACME = "11111111-1111-1111-1111-111111111111"
SERVER = "22222222-2222-2222-2222-222222222222"


@pytest.fixture
async def here() -> AsyncIterator[Administered]:
    """A database with a tenant's server."""
    async with administered() as here:
        await here.rows(f"INSERT INTO tenants (id, slug, name) VALUES ('{ACME}', 'acme', 'Acme')")
        await here.rows(
            "INSERT INTO mcp_servers (id, tenant_id, name, endpoint_url) "
            f"VALUES ('{SERVER}', '{ACME}', 'search', 'https://x/mcp')"
        )
        yield here


async def orders(here: Administered) -> list[BreakerOrderRow]:
    """What every instance of the proxy reads."""
    async with registry.reading(here.database) as session:
        found = await registry.read_everything(session)
    return [row for row in found["breaker_orders"].values() if isinstance(row, BreakerOrderRow)]


async def test_an_order_reaches_the_registry_and_leaves_it(here: Administered) -> None:
    """Given twice it is one row, and a later one."""
    async with here.session() as session:
        await breaker_orders.give(session, "acme", "search", "open", "wrong answers")
    [first] = await orders(here)
    assert (first.tenant_id, first.server_id, first.state) == (ACME, SERVER, "open")
    async with here.session() as session:
        await breaker_orders.give(session, "acme", "search", "open", None)
    [second] = await orders(here)
    assert second.id == first.id and second.updated_at > first.updated_at
    async with here.session() as session:
        assert await breaker_orders.end(session, "acme", "search")
    assert await orders(here) == []
    async with here.session() as session:
        assert not await breaker_orders.end(session, "acme", "search")
    assert await here.events() == ["breaker_ordered_open", "breaker_ordered_open", "breaker_released"]


async def test_an_order_goes_with_its_server(here: Administered) -> None:
    """Nothing is left to obey."""
    async with here.session() as session:
        await breaker_orders.give(session, "acme", "search", "closed", None)
    await here.rows("DELETE FROM mcp_servers")
    assert await orders(here) == []


async def test_a_server_is_one_of_the_tenant(here: Administered) -> None:
    """Another tenant's of the same name is not meant."""
    for slug in ("system", "nobody"):
        async with here.session() as session:
            with pytest.raises(Rejected):
                await breaker_orders.give(session, slug, "search", "open", None)
    assert await orders(here) == []


async def test_what_instances_see_is_listed_beside_the_order(here: Administered) -> None:
    """One row for each; a server of which nothing is known is left out."""
    async with here.session() as session:
        assert await breaker_orders.listed(session, None) == []
        await breaker_orders.give(session, "acme", "search", "open", "why")
    for instance in ("b", "a"):
        await here.rows(
            f"INSERT INTO circuit_breakers (tenant_id, server_id, instance) VALUES ('{ACME}', '{SERVER}', '{instance}')"
        )
    async with here.session() as session:
        found = await breaker_orders.listed(session, "acme")
        assert await breaker_orders.listed(session, "system") == []
    assert [(row["instance"], row["state"], row["ordered"], row["reason"]) for row in found] == [
        ("a", "closed", "open", "why"), ("b", "closed", "open", "why")
    ]  # fmt: skip
