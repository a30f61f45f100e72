"""What was learned and counted reaches the database, also when that was away, and never twice for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.background import learning as module
from proxy.background.learning import Learning
from proxy.dataplane.catalogue import Catalogue
from proxy.dataplane.lessons import Lessons
from proxy.dataplane.list_pages import Lesson
from proxy.dataplane.usage import CredentialUse, ItemUse, Usage, Uses
from proxy.identity.access import Server
from proxy.identity.principal import Source
from proxy.store import learned, pool
from proxy.store.database import Database, Places
from tests.unit.background.doubtful import FAILURES, Doubtful
from tests.unit.store.engine import PATIENT, execute, login_dsn, migrated_database, owner_dsn

ACME = "11111111-1111-1111-1111-111111111111"
OTHER = "22222222-2222-2222-2222-222222222222"
UP = Server("up", "33333333-3333-3333-3333-333333333333", ACME)
FAR = Server("far", "44444444-4444-4444-4444-444444444444", OTHER)
TOKEN = "55555555-5555-5555-5555-555555555555"
ROWS = f"""
INSERT INTO tenants (id, slug, name) VALUES ('{ACME}', 'acme', 'Acme'), ('{OTHER}', 'other', 'Other');
INSERT INTO mcp_servers (id, tenant_id, name, endpoint_url)
  VALUES ('{UP.id}', '{ACME}', 'up', 'http://s/'), ('{FAR.id}', '{OTHER}', 'far', 'http://f/');
INSERT INTO enhanced_api_keys (id, tenant_id, name, secret_hmac)
  VALUES ('abcdefghijkl', '{ACME}', 'k', sha256('k')), ('mnopqrstuvwx', '{OTHER}', 'f', sha256('f'));
INSERT INTO api_tokens (id, tenant_id, name, token_hash) VALUES ('{TOKEN}', '{ACME}', 't', sha256('t'));
"""
NOON = 1_800_000_000.0
MEMBERS = {"tools/list": "tools", "prompts/list": "prompts", "resources/list": "resources",
           "resources/templates/list": "resourceTemplates"}  # fmt: skip


class Bench:
    """Everything that learning is made of; time is the test's."""

    def __init__(self, name: str, database: Database | None) -> None:
        self.name = name
        self.now = 100.0
        self.lessons, self.catalogue = Lessons(), Catalogue()
        self.usage = Usage(self.catalogue.names)
        self.learning = Learning(
            self.lessons, self.catalogue, self.usage, database, lambda: self.now, lambda: self.now + NOON
        )

    def overhear(self, *items: Any, method: str = "tools/list", place: Server = UP, body: bytes | None = None) -> None:
        """A list with items, or an answer that is something else, has passed."""
        request = orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method})
        answer = orjson.dumps({"jsonrpc": "2.0", "id": 1, "result": {MEMBERS[method]: items}})
        self.lessons._count += 1
        self.lessons._of_server[place.name] = self.lessons._of_server.get(place.name, 0) + 1
        lesson = Lesson(place.name, place, request, "application/json", "", [answer if body is None else body])
        self.lessons.put(lesson, 0)

    async def rows(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        found = await execute(owner_dsn(self.name), f"SELECT {columns} FROM {table}")
        return sorted((tuple(row) for row in found), key=str)


@pytest.fixture
async def name() -> AsyncIterator[str]:
    """Two tenants with a server and a key each."""
    async with migrated_database() as name:
        for statement in filter(str.strip, ROWS.split(";\n")):
            await execute(owner_dsn(name), statement)
        yield name


class Away:
    """A database that goes away and comes back."""

    def __init__(self, name: str) -> None:
        self.now = 0.0
        bounds = replace(PATIENT, connections=2)
        self.database = Database(Places(login_dsn(name)), {"write": bounds}, lambda: self.now)

    async def back(self) -> None:
        await self.database.open()
        self.now += 1
        await self.database.probe()


@pytest.fixture
async def away(name: str) -> AsyncIterator[Away]:
    each = Away(name)
    await each.back()
    yield each
    await each.database.close()


@pytest.fixture
def bench(name: str, away: Away) -> Bench:
    return Bench(name, away.database)


# --- what servers offer ---------------------------------------------------------------------------------------------


async def test_lists_that_passed_are_in_the_database_after_a_step(bench: Bench) -> None:
    """Of every kind and tenant; what a whole list no longer names is not available."""
    bench.overhear({"name": "echo", "annotations": {"readOnlyHint": True}}, {"name": "add"})
    bench.overhear({"name": "p"}, method="prompts/list")
    bench.overhear({"uri": "a:1"}, method="resources/list")
    bench.overhear({"uriTemplate": "a:{x}"}, method="resources/templates/list")
    bench.overhear({"name": "echo"}, place=FAR)
    await bench.learning.learn()
    bench.overhear({"name": "echo", "title": "Echo"})
    bench.overhear(method="resources/templates/list")
    await bench.learning.learn()
    assert await bench.rows("server_tools", "tenant_id::text, name, title, is_available") == [
        (ACME, "add", None, False), (ACME, "echo", "Echo", True), (OTHER, "echo", None, True),
    ]  # fmt: skip
    assert await bench.rows("server_prompts", "name, is_available") == [("p", True)]
    assert await bench.rows("server_resources", "uri_template, is_template, is_available") == [
        ("a:1", False, True), ("a:{x}", True, False),
    ]  # fmt: skip


async def test_what_is_no_news_asks_the_database_nothing(bench: Bench, away: Away) -> None:
    """A server may be listed all day."""
    for _ in range(3):
        bench.overhear({"name": "echo"})
        await bench.learning.learn()
    assert away.database.numbers()["write"].units == 1


async def test_news_wait_while_the_database_is_away(bench: Bench, away: Away) -> None:
    """Quietly; hints are known at once; later news of the same server are put to them."""
    await away.database.close()
    bench.overhear({"name": "old"}, {"name": "echo"})
    await bench.learning.learn()
    bench.overhear({"name": "echo", "annotations": {"readOnlyHint": True}})
    await bench.learning.learn()
    item = bench.catalogue.tool("up", "echo")
    assert item is not None
    assert item.hints.read_only
    await away.back()
    await bench.learning.learn()
    assert await bench.rows("server_tools", "name, is_available, annotations") == [
        ("echo", True, '{"readOnlyHint": true}'), ("old", False, "{}"),
    ]  # fmt: skip
    assert bench.learning._waiting_bytes == 0


async def test_without_room_news_come_with_the_next_list(
    bench: Bench, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else is forgotten."""
    await away.database.close()
    monkeypatch.setattr(module, "_MAX_WAITING_BYTES", 500)
    bench.overhear({"name": "echo"}, place=FAR)
    bench.overhear({"name": "echo", "description": "d" * 500})
    await bench.learning.learn()
    assert bench.learning.dropped == 1
    await away.back()
    await bench.learning.learn()
    assert await bench.rows("server_tools", "tenant_id::text") == [(OTHER,)]
    monkeypatch.undo()
    bench.overhear({"name": "echo", "description": "d" * 500})
    await bench.learning.learn()
    assert len(await bench.rows("server_tools", "name")) == 2


async def test_a_step_writes_so_many_servers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the rest in the next one."""
    monkeypatch.setattr(module, "_MOST_SERVERS", 1)
    for place in (UP, FAR):
        bench.overhear({"name": "echo"}, place=place)
    for written in (1, 2):
        await bench.learning.learn()
        assert len(await bench.rows("server_tools", "name")) == written


async def test_servers_that_are_gone_or_have_no_row_are_passed_over(bench: Bench) -> None:
    """The others are written all the same."""
    await execute(owner_dsn(bench.name), "DELETE FROM mcp_servers WHERE name = 'up'")
    for place in (UP, Server("file"), FAR):
        bench.overhear({"name": "echo"}, place=place)
    await bench.learning.learn()
    assert await bench.rows("server_tools", "tenant_id::text") == [(OTHER,)]
    assert bench.catalogue.tool("file", "echo") is not None


async def test_another_server_of_the_same_name_is_another(bench: Bench, away: Away) -> None:
    """News of the one before do not become its own."""
    await away.database.close()
    bench.overhear({"name": "old"}, place=UP)
    await bench.learning.learn()
    bench.overhear({"name": "new"}, place=replace(FAR, name="up"))
    await bench.learning.learn()
    await away.back()
    await bench.learning.learn()
    assert await bench.rows("server_tools", "server_id::text, name") == [(FAR.id, "new")]


async def test_what_cannot_be_read_or_written_is_counted(bench: Bench) -> None:
    """And holds nothing up: it is not tried again with each list."""
    bench.overhear(body=b"{")
    bench.overhear({"name": "echo"})
    await execute(owner_dsn(bench.name), "ALTER TABLE server_tools ADD CHECK (name <> 'echo')")
    await bench.learning.learn()
    bench.overhear({"name": "echo"})
    bench.overhear({"name": "add"}, place=FAR)
    await bench.learning.learn()
    assert (bench.learning.unreadable, bench.learning.refused) == (1, 1)
    assert await bench.rows("server_tools", "name") == [("add",)]


async def test_without_a_database_hints_are_known() -> None:
    """Nothing waits, and counts are kept for nobody."""
    bench = Bench("", None)
    bench.overhear({"name": "echo"})
    await bench.learning.learn()
    await bench.learning.count()
    assert bench.catalogue.tool("up", "echo") is not None
    assert not bench.catalogue.learn("up", UP, [], 100.0)
    assert (bench.learning._waiting, bench.learning._waiting_bytes) == ({}, 0)


# --- how often things were used -------------------------------------------------------------------------------------


def uses() -> Uses:
    """Two tenants, two tables of credentials, two kinds of things, and what there is no row for."""
    return Uses(
        {
            "abcdefghijkl": CredentialUse(Source.KEY, ACME, 3, 90.0, "192.0.2.1"),
            TOKEN: CredentialUse(Source.BEARER, ACME, 2, 91.0, "192.0.2.1"),
            "mnopqrstuvwx": CredentialUse(Source.KEY, OTHER, 1, 92.0, "local"),
            "gone": CredentialUse(Source.KEY, OTHER, 1, 92.0, ""),
        },
        {
            ("up", "tool", "echo"): ItemUse(UP, 4, 1, 2.0, 93.0),
            ("up", "tool", "gone"): ItemUse(UP, 4, 1, 2.0, 93.0),
            ("up", "prompt", "p"): ItemUse(UP, 5, 0, 2.0, 94.0),
            ("file", "tool", "echo"): ItemUse(Server("file"), 9, 0, 2.0, 94.0),
        },
    )


COUNTS = "usage_count::int, (extract(epoch FROM last_used_at) - 1800000000)::int"


async def totals(bench: Bench) -> list[tuple[Any, ...]]:
    """Every counter that is not 0."""
    found = []
    for table in ("enhanced_api_keys", "api_tokens", "server_tools", "server_prompts"):
        found += [row for row in await bench.rows(table, COUNTS) if row[0]]
    return found


@pytest.fixture
async def offering(bench: Bench) -> Bench:
    """With rows for what is used."""
    bench.overhear({"name": "echo"})
    bench.overhear({"name": "p"}, method="prompts/list")
    await bench.learning.learn()
    return bench


@pytest.mark.parametrize("most_rows", [1000, 1])
async def test_counts_are_in_the_database_after_a_step(
    offering: Bench, most_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the moment in wall clock time; what is gone is passed over; however few go into one transaction."""
    monkeypatch.setattr(learned, "MOST_ROWS", most_rows)
    offering.usage.give_back(uses())
    await offering.learning.count()
    assert await totals(offering) == [(1, 92), (3, 90), (2, 91), (4, 93), (5, 94)]
    assert not offering.usage.take()
    await offering.learning.count()
    assert len(await totals(offering)) == 5


async def test_counts_wait_while_the_database_is_away(offering: Bench, away: Away) -> None:
    """Those of meanwhile are added; nothing is lost."""
    await away.database.close()
    for _ in range(3):
        offering.usage.give_back(uses())
        await offering.learning.count()
    await away.back()
    await offering.learning.count()
    assert await totals(offering) == [(3, 92), (9, 90), (6, 91), (12, 93), (15, 94)]


async def test_a_tenant_whose_rows_are_locked_does_not_stop_the_others(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its counts come later."""
    monkeypatch.setattr(pool, "_GRACE_S", 20.0)  # PostgreSQL says so, however busy the machine is
    database = Database(Places(login_dsn(name)), {"write": replace(PATIENT, statement_s=1.0)})
    await database.open()
    bench = Bench(name, database)
    bench.usage.give_back(uses())
    async with database.tenant(ACME) as other:
        await other.execute("/* test.lock */ SELECT id FROM enhanced_api_keys FOR UPDATE")
        await bench.learning.count()
    assert await totals(bench) == [(1, 92)]
    await bench.learning.count()
    assert await totals(bench) == [(1, 92), (3, 90), (2, 91)]
    await database.close()


async def test_counts_that_are_refused_are_let_go(offering: Bench) -> None:
    """Once, and counted as such."""
    await execute(owner_dsn(offering.name), "ALTER TABLE enhanced_api_keys ADD CHECK (usage_count < 2)")
    offering.usage.give_back(uses())
    await offering.learning.count()
    assert offering.learning.refused == 1
    assert await totals(offering) == [(1, 92)]
    assert not offering.usage.take()


async def test_nothing_counts_twice_and_nothing_is_lost(offering: Bench, away: Away) -> None:
    """Whatever happens to transactions, commits whose answer was lost among it: in the end each was counted once."""
    loop = asyncio.get_running_loop()
    doubtful = Doubtful(away.database)
    database: Any = doubtful
    times = 0

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.lists(st.sampled_from(["", *FAILURES]), max_size=3), max_size=4))
    def run(failures: list[list[str]]) -> None:
        asyncio.run_coroutine_threadsafe(follow(failures), loop).result(30)

    async def follow(failures: list[list[str]]) -> None:
        nonlocal times
        learning = Learning(offering.lessons, offering.catalogue, offering.usage, database, lambda: 0.0, lambda: NOON)
        for fails in failures:
            times += 1
            doubtful.fails = list(fails)
            offering.usage.give_back(uses())
            await learning.count()
        doubtful.fails.clear()
        await learning.count()
        await learning.count()
        assert not offering.usage.take()

    await asyncio.to_thread(run)
    assert times > 30
    each = {92: 1, 90: 3, 91: 2, 93: 4, 94: 5}
    assert {at: count for count, at in await totals(offering)} == {at: count * times for at, count in each.items()}
