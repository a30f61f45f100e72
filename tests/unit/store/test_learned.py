"""What was learned reaches the rows it is about, once, and nothing else: with the real migrations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from proxy.identity.records import SYSTEM_TENANT
from proxy.store import learned
from proxy.store.database import Bounds, Database, Places
from proxy.store.learned import FileServer, KeyUse, Unusable, Use
from tests.unit.store.engine import execute, login_dsn, migrated_database, owner_dsn

ACME = "11111111-1111-1111-1111-111111111111"
OTHER = "22222222-2222-2222-2222-222222222222"
SERVER = "33333333-3333-3333-3333-333333333333"
FOREIGN = "44444444-4444-4444-4444-444444444444"
TOKEN = "55555555-5555-5555-5555-555555555555"
ROWS = f"""
INSERT INTO tenants (id, slug, name) VALUES ('{ACME}', 'acme', 'Acme'), ('{OTHER}', 'other', 'Other');
INSERT INTO mcp_servers (id, tenant_id, name, endpoint_url)
  VALUES ('{SERVER}', '{ACME}', 's', 'http://s/'), ('{FOREIGN}', '{OTHER}', 'f', 'http://f/');
INSERT INTO enhanced_api_keys (id, tenant_id, name, secret_hmac)
  VALUES ('abcdefghijkl', '{ACME}', 'k', sha256('k')), ('mnopqrstuvwx', '{OTHER}', 'f', sha256('f'));
INSERT INTO api_keys (id, tenant_id, name, key_hash) VALUES ('{TOKEN}', '{ACME}', 'l', sha256('l'));
INSERT INTO api_tokens (id, tenant_id, name, token_hash) VALUES ('{TOKEN}', '{ACME}', 't', sha256('t'));
"""
NOON = 1_800_000_000.0


@pytest.fixture
async def name() -> AsyncIterator[str]:
    """Two tenants with a server and a key each."""
    async with migrated_database() as name:
        for statement in filter(str.strip, ROWS.split(";\n")):
            await execute(owner_dsn(name), statement)
        yield name


@pytest.fixture
async def database(name: str) -> AsyncIterator[Database]:
    """As the proxy uses it."""
    database = Database(Places(login_dsn(name)), {"write": Bounds(connections=4, statement_s=5)})
    await database.open()
    yield database
    await database.close()


def tool(name: str, **columns: object) -> dict[str, object]:
    return {"name": name, "annotations": "{}", **columns}


def resource(uri: str, **columns: object) -> dict[str, object]:
    return {"uri_template": uri, "is_template": False, "name": uri, **columns}


async def put(database: Database, table: learned.OfferTable, *offers: learned.Offer, server: str = SERVER) -> None:
    async with database.tenant(ACME) as session:
        await learned.put_offers(session, table, server, offers)


async def rows(name: str, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
    """As the owner of everything sees them, in the order of the key."""
    key = "uri_template" if table == "server_resources" else "name" if table.startswith("server_") else "id"
    found = await execute(owner_dsn(name), f"SELECT {columns} FROM {table} ORDER BY {key}")
    return [tuple(row) for row in found]


# --- what servers offer ---------------------------------------------------------------------------------------------


async def test_what_a_server_offers_is_added_with_every_column(name: str, database: Database) -> None:
    """JSON becomes JSON, what is absent is null, what is named twice counts once."""
    await put(
        database,
        "server_tools",
        tool("echo", title="Old"),
        tool("echo", title="Echo", description="says it again", input_schema='{"type": "object"}'),
        tool("add", annotations='{"readOnlyHint": true}'),
    )
    assert await rows(name, "server_tools", "tenant_id::text, name, title, description, input_schema, annotations") == [
        (ACME, "add", None, None, None, '{"readOnlyHint": true}'),
        (ACME, "echo", "Echo", "says it again", '{"type": "object"}', "{}"),
    ]
    await put(database, "server_resources", resource("a://1", size_bytes=7), resource("b://{x}", is_template=True))
    assert await rows(name, "server_resources", "uri_template, is_template, size_bytes") == [
        ("a://1", False, 7),
        ("b://{x}", True, None),
    ]
    await put(database, "server_prompts", {"name": "p", "arguments": '[{"name": "x"}]'})
    assert await rows(name, "server_prompts", "name, arguments") == [("p", '[{"name": "x"}]')]


async def test_only_what_differs_is_written(name: str, database: Database) -> None:
    """A row that stays as it is keeps its version; one that changed keeps its counters."""
    await put(database, "server_tools", tool("same", title="S"), tool("changed", title="C"))
    await execute(owner_dsn(name), "UPDATE server_tools SET usage_count = 7")
    before = dict(await rows(name, "server_tools", "name, xmin::text"))
    await put(database, "server_tools", tool("same", title="S"), tool("changed", title="D"))
    after = dict(await rows(name, "server_tools", "name, xmin::text"))
    assert (after["same"] == before["same"], after["changed"] == before["changed"]) == (True, False)
    assert await rows(name, "server_tools", "name, title, usage_count") == [("changed", "D", 7), ("same", "S", 7)]


async def test_a_row_that_is_seen_again_after_a_while_says_so(name: str, database: Database) -> None:
    """`last_seen_at` is at most half an hour behind."""
    await put(database, "server_tools", tool("echo"))
    await execute(owner_dsn(name), "UPDATE server_tools SET last_seen_at = now() - interval '31 min'")
    await put(database, "server_tools", tool("echo"))
    assert await rows(name, "server_tools", "last_seen_at > now() - interval '1 min'") == [(True,)]


async def test_what_is_gone_is_not_available_until_it_comes_back(name: str, database: Database) -> None:
    """Resources and templates are two lists in one table; other servers are not concerned."""
    await put(database, "server_tools", tool("stays"), tool("goes"))
    await put(database, "server_resources", resource("a://1"), resource("a://{x}", is_template=True))
    async with database.tenant(ACME) as session:
        await learned.keep_offers(session, "server_tools", SERVER, ["stays", "never was"])
        await learned.keep_offers(session, "server_tools", str(uuid4()), [])
        await learned.keep_offers(session, "server_resources", SERVER, [], template=True)
    available = "is_available"
    assert await rows(name, "server_tools", f"name, {available}") == [("goes", False), ("stays", True)]
    assert await rows(name, "server_resources", f"uri_template, {available}") == [("a://1", True), ("a://{x}", False)]
    await put(database, "server_tools", tool("goes"))
    assert await rows(name, "server_tools", available) == [(True,), (True,)]


async def test_a_server_that_is_gone_or_foreign_is_passed_over(name: str, database: Database) -> None:
    """Nothing is added, nothing is raised."""
    for server in (str(uuid4()), FOREIGN):
        await put(database, "server_tools", tool("echo"), server=server)
    assert await rows(name, "server_tools") == []


@pytest.mark.parametrize(
    "offer",
    [tool("a\0b"), tool("x", input_schema="{"), tool("x", annotations=None), tool("\x01" + "wörd" * 5000)],
    ids=["NUL", "no JSON", "null", "too long for the index"],
)
async def test_what_the_database_refuses_is_said_to_be_unusable(database: Database, offer: learned.Offer) -> None:
    """So that nobody tries it again for ever."""
    if "wörd" in str(offer["name"]):  # what can be compressed fits
        offer = tool("".join(str(uuid4()) for _ in range(200)))
    with pytest.raises(Unusable):
        await put(database, "server_tools", offer)


async def test_more_rows_than_one_statement_takes(name: str, database: Database) -> None:
    """They go in several."""
    await put(database, "server_tools", *[tool(f"t{number}") for number in range(learned.MOST_ROWS + 1)])
    assert await rows(name, "server_tools", "name") == sorted(
        [(f"t{number}",) for number in range(learned.MOST_ROWS + 1)]
    )


# --- use ------------------------------------------------------------------------------------------------------------


async def test_uses_add_up_and_the_average_moves(name: str, database: Database) -> None:
    """The first calls set the average, later ones move it by a tenth each; the latest moment counts."""
    await put(database, "server_tools", tool("echo"), tool("unused"))
    async with database.tenant(ACME) as session:
        await learned.add_uses(session, "server_tools", [Use(SERVER, "echo", 4, 1, 0.4, NOON)])
        await learned.add_uses(
            session,
            "server_tools",
            [
                Use(SERVER, "echo", 1, 0, 0.2, NOON - 9),
                Use(SERVER, "gone", 1, 0, 1, NOON),
                Use(FOREIGN, "x", 1, 0, 1, 1),
            ],
        )
    counted = "usage_count, error_count, round(avg_duration_ms)::int, extract(epoch FROM last_used_at)::int"
    assert await rows(name, "server_tools", counted) == [(5, 1, 110, int(NOON)), (0, 0, None, None)]
    async with database.tenant(ACME) as session:
        await learned.add_uses(session, "server_tools", [Use(SERVER, "echo", 1_000_000, 0, 3e6, NOON)])
    assert (await rows(name, "server_tools", "round(avg_duration_ms)::int"))[0] == (3000,)


async def test_resources_and_prompts_are_counted_by_their_keys(name: str, database: Database) -> None:
    """A resource by its URI."""
    await put(database, "server_resources", resource("a://1"))
    await put(database, "server_prompts", {"name": "p", "arguments": "[]"})
    async with database.tenant(ACME) as session:
        await learned.add_uses(session, "server_resources", [Use(SERVER, "a://1", 2, 0, 0.1, NOON)])
        await learned.add_uses(session, "server_prompts", [Use(SERVER, "p", 3, 3, 0.1, NOON)])
    assert await rows(name, "server_resources", "usage_count, error_count") == [(2, 0)]
    assert await rows(name, "server_prompts", "usage_count, error_count") == [(3, 3)]


async def test_credentials_are_counted_in_their_tables(name: str, database: Database) -> None:
    """Those of other tenants and those that are gone are passed over; an address that is none changes nothing."""
    async with database.tenant(ACME) as session:
        first = [KeyUse("abcdefghijkl", 2, NOON, "2001:db8::1"), KeyUse("mnopqrstuvwx", 9, NOON, "192.0.2.1")]
        await learned.add_key_uses(session, "enhanced_api_keys", first)
        again = [KeyUse("abcdefghijkl", 1, NOON - 5, "local"), KeyUse("gone", 1, NOON, "")]
        await learned.add_key_uses(session, "enhanced_api_keys", again)
        for table in ("api_keys", "api_tokens"):
            await learned.add_key_uses(session, table, [KeyUse(TOKEN, 4, NOON, "192.0.2.1")])
    used = "usage_count, extract(epoch FROM last_used_at)::int"
    found = await rows(name, "enhanced_api_keys", f"{used}, host(last_used_ip)")
    assert found == [(3, int(NOON), "2001:db8::1"), (0, None, None)]
    for table in ("api_keys", "api_tokens"):
        assert await rows(name, table, used) == [(4, int(NOON))]


async def test_an_address_with_a_zone_is_one(name: str, database: Database) -> None:
    """PostgreSQL knows no zones, so it goes without."""
    async with database.tenant(ACME) as session:
        await learned.add_key_uses(session, "enhanced_api_keys", [KeyUse("abcdefghijkl", 1, NOON, "fe80::1%eth0")])
    assert (await rows(name, "enhanced_api_keys", "host(last_used_ip)"))[0] == ("fe80::1",)


async def test_replicas_that_count_the_same_rows_do_not_lose_a_call(name: str, database: Database) -> None:
    """Whatever the order in which each names them."""
    tools = [tool(f"t{number}") for number in range(50)]
    await put(database, "server_tools", *tools)

    async def count(step: int) -> None:
        uses = [Use(SERVER, str(each["name"]), 1, 0, 0.1, NOON) for each in tools[::step]]
        async with database.tenant(ACME) as session:
            await learned.add_uses(session, "server_tools", uses)

    await asyncio.gather(*(count(step) for step in (1, -1, 1, -1)))
    assert set(await rows(name, "server_tools", "usage_count")) == {(4,)}


# --- servers of the configuration file ------------------------------------------------------------------------------


async def ensure(database: Database, *servers: FileServer) -> dict[str, str]:
    async with database.tenant(SYSTEM_TENANT) as session:
        return await learned.ensure_rows(session, servers)


STATE = "name, endpoint_url, transport_type, is_enabled, tags"


async def test_servers_of_the_file_have_rows_while_they_are_in_it(name: str, database: Database) -> None:
    """The ids stay the same; a server that goes is disabled and comes back as it is then; nothing is written twice."""
    a, b = FileServer("a", "http://a/", "streamable_http"), FileServer("b", "http://b/sse", "sse")
    first = await ensure(database, a, b)
    assert first.keys() == {"a", "b"}
    version = await rows(name, "mcp_servers WHERE name = 'a'", "xmin::text")
    assert await ensure(database, a) == {"a": first["a"]}
    assert await rows(name, "mcp_servers WHERE name = 'a'", "xmin::text") == version
    tags = ["configuration-file"]
    mine = f"mcp_servers WHERE tenant_id = '{SYSTEM_TENANT}'"
    assert set(map(str, await rows(name, mine, STATE))) == {
        str(("a", "http://a/", "streamable_http", True, tags)),
        str(("b", "http://b/sse", "sse", False, tags)),
    }
    moved = FileServer("b", "wss://b/ws", "websocket")
    assert await ensure(database, moved) == {"b": first["b"]}
    assert ("b", "wss://b/ws", "websocket", True, tags) in await rows(name, mine, STATE)


async def test_rows_that_somebody_made_are_left_alone(name: str, database: Database) -> None:
    """One of the same name lends its id; one that is not in the file stays enabled; those of tenants, too."""
    insert = f"INSERT INTO mcp_servers (tenant_id, name, endpoint_url) VALUES ('{SYSTEM_TENANT}', $1, 'http://own/')"
    for each in ("a", "z"):
        await execute(owner_dsn(name), insert, each)
    before = await rows(name, "mcp_servers", f"{STATE}, id, xmin::text")
    found = await ensure(database, FileServer("a", "http://a/", "sse"), FileServer("a", "http://b/", "sse"))
    assert await rows(name, "mcp_servers", f"{STATE}, id, xmin::text") == before
    assert found == {row[0]: str(row[5]) for row in before if row[0] == "a"}


async def test_a_file_without_servers(database: Database) -> None:
    """Has no rows."""
    assert await ensure(database) == {}
