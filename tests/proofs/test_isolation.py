"""The proof of isolation in short form, that it can fail, and what remains of it when queries lose their conditions."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import pkgutil
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

import proxy.store
from proxy.store import learned
from proxy.store.database import Session
from tests.proofs.isolation import EXPECTED, Findings, Length, World, run
from tests.proofs.isolation_calls import CALLS, LEARNING, TENANTS, Tenant

ACME, OTHER, SYSTEM = TENANTS


def test_no_tenant_sees_or_changes_a_foreign_row() -> None:
    """In three hundred steps of nearly every kind."""
    found = run(Length(steps=300))
    assert (found.foreign_rows, found.notes) == (0, [])
    assert found.steps >= 300
    assert len(found.kinds) >= 8
    assert sum(found.done[name] for name in LEARNING) >= 20
    assert found.own_rows > 200


@pytest.mark.parametrize(
    "hole",
    [
        "ALTER POLICY tenant_isolation ON server_tools USING (true) WITH CHECK (true)",
        "ALTER TABLE mcp_servers DISABLE ROW LEVEL SECURITY",
        "ALTER ROLE mcp_manager_app BYPASSRLS",
        "CREATE POLICY hole ON enhanced_api_keys TO mcp_manager_app USING (usage_count = 0)",
    ],
)
def test_a_hole_is_found(hole: str) -> None:
    """The proof can fail: with any of these it does."""
    try:
        found = run(Length(steps=200, hole=hole))
    finally:
        if "ROLE" in hole:  # roles are the cluster's, which other tests use
            asyncio.run(_close_the_role())
    assert found.foreign_rows > 0
    assert found.notes


async def _close_the_role() -> None:
    world = World(asyncio.get_running_loop(), Findings())
    try:
        await world.open()
        await world.owner.execute("ALTER ROLE mcp_manager_app NOBYPASSRLS")
    finally:
        await world.close()


def test_every_function_of_the_store_that_takes_a_session_is_called() -> None:
    """A new one has to be added to the calls."""
    taking = set()
    for module in pkgutil.iter_modules(proxy.store.__path__):
        loaded = importlib.import_module(f"proxy.store.{module.name}")
        for name, function in inspect.getmembers(loaded, inspect.iscoroutinefunction):
            ours = function.__module__ == loaded.__name__ and not name.startswith("_")
            if ours and any(each.annotation == "Session" for each in inspect.signature(function).parameters.values()):
                taking.add(f"{module.name}.{name}")
    assert taking == set(CALLS)


async def test_every_call_is_one_that_the_function_takes(world: World) -> None:
    """It may be refused, in one of the ways that callers reckon with."""
    for name in CALLS:
        for number in range(2):
            with suppress(*EXPECTED):
                async with world.database.tenant(ACME.id) as session:
                    await world.call(session, name, ACME, OTHER, number)
    assert world.found.foreign_rows == 0


# --- queries without their conditions -------------------------------------------------------------------------------


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Three tenants with one row each in every table."""
    world = World(asyncio.get_running_loop(), Findings())
    try:
        await world.open()
        yield world
    finally:
        await world.close()


def without_where(value: Any) -> Any:
    """A statement, or a mapping of some, none of whose conditions keeps any row out."""
    if isinstance(value, str):
        return value.replace("WHERE ", "WHERE true OR ")
    return {key: without_where(each) for key, each in value.items()}


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> int:
    """Takes the conditions out of every statement of `learned.py`; how many there were."""
    changed = 0
    for name, value in list(vars(learned).items()):
        statements = value.values() if isinstance(value, dict) else [value]
        if all(isinstance(each, str) and each.startswith("/* learned.") for each in statements) and name[0] == "_":
            changed += sum("WHERE " in each for each in statements)
            monkeypatch.setattr(learned, name, without_where(value))
    return changed


async def test_statements_that_lost_their_conditions_show_and_change_nothing_of_others(
    world: World, careless: int
) -> None:
    """Every tenant calls everything, aimed at everyone: rows that are not its own stay as they are."""
    assert careless >= 15
    for me in TENANTS:
        for aim in TENANTS:
            for name in LEARNING:
                for number in range(3):
                    if name != "learned.ensure_rows" or me is SYSTEM:
                        async with world.database.tenant(me.id) as session:
                            await world.call(session, name, me, aim, number)
                            await world.look(session, me)
                    await world.settle([me])
    assert world.found.foreign_rows == 0
    assert set(world.found.done) == set(LEARNING)


async def test_the_conditions_were_what_kept_a_tenants_own_rows_apart(world: World, careless: int) -> None:
    """Without them a call that aims at another tenant's server changes all of one's own, and nothing else."""
    async with world.database.tenant(ACME.id) as session:
        await learned.keep_offers(session, "server_tools", OTHER.id, [])
        assert await shown(session) == [(ACME.id, False)]
    await world.settle([ACME])
    rows = await world.owner.fetch("SELECT tenant_id::text, is_available FROM server_tools ORDER BY 1")
    assert [tuple(row) for row in rows] == [(SYSTEM.id, True), (ACME.id, False), (OTHER.id, True)]


async def test_the_ids_of_all_servers_are_those_of_ones_own(world: World, careless: int) -> None:
    """The query behind `ensure_rows` without its condition names every server that there is, for this tenant."""
    async with world.database.tenant(ACME.id) as session:
        names = await session.fetch(learned._IDS, [])
    assert [tuple(row) for row in names] == [("one", ACME.id)]


async def shown(session: Session) -> list[tuple[str, bool]]:
    rows = await session.fetch("/* test.tools */ SELECT tenant_id::text, is_available FROM server_tools")
    return [tuple(row) for row in rows]


def test_a_tenant_has_rows_of_its_own() -> None:
    """The system tenant exists already; each has a key whose id is its own."""
    assert isinstance(SYSTEM, Tenant)
    assert "INSERT INTO tenants" in ACME.rows
    assert "INSERT INTO tenants (" not in SYSTEM.rows
    assert len({tenant.key for tenant in TENANTS}) == len(TENANTS)
