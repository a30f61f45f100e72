"""The registry, read from a database with every table: everything at once, and row by row."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.store import registry, rows
from proxy.store.database import Bounds, Database, Places
from proxy.store.registry import TABLES, Registry, merged
from tests.unit.store.engine import execute, login_dsn, migrated_database, owner_dsn

SYSTEM = "00000000-0000-0000-0000-000000000000"
ACME = "11111111-1111-1111-1111-111111111111"
ROWS = f"""
INSERT INTO tenants (id, slug, name) VALUES ('{ACME}', 'acme', 'Acme');
INSERT INTO "user" (id, name, email, tenant_id, banned) VALUES ('ada', 'Ada', 'a@example.com', '{ACME}', true);
INSERT INTO session (id, expires_at, token, user_id, impersonated_by)
  VALUES ('live', now() + '1 h', 'planted', 'ada', 'root'), ('over', now() - '1 h'::interval, 'old', 'ada', NULL);
INSERT INTO mcp_servers (tenant_id, name, endpoint_url, headers, options, tags)
  VALUES ('{ACME}', 'search', 'https://x/mcp',
    '{{"X-Key": "${{KEY}}"}}', '{{"pool": {{"keepalive": "3s"}}}}', '{{a,b}}');
INSERT INTO routing_rules (tenant_id, name, path, conditions, target_servers)
  VALUES ('{ACME}', 'r', '/r', '{{"method": "tools/call"}}', '[{{"name": "search", "weight": 2}}]');
INSERT INTO server_access_control (tenant_id, subject_type, effect, daily_from, daily_until, days_of_week, tools)
  VALUES ('{ACME}', 'everyone', 'deny', '22:00', '06:30', '{{1,7}}', '{{rm_*}}');
INSERT INTO enhanced_api_keys (id, tenant_id, user_id, name, secret_hmac, allowed_ips)
  VALUES ('abcdefghijkl', '{ACME}', 'ada', 'k', sha256('k'), '{{10.0.0.0/8}}');
INSERT INTO api_keys (tenant_id, name, key_hash) VALUES ('{ACME}', 'l', sha256('l'));
INSERT INTO api_tokens (tenant_id, name, token_hash) VALUES ('{ACME}', 't', sha256('t'));
INSERT INTO rate_limit_configs (tenant_id, name, level, capacity, refill_per_minute)
  VALUES ('{SYSTEM}', 'g', 'global', 9, 5000);
INSERT INTO feature_flags (tenant_id, key, rules) VALUES ('{ACME}', 'f', '[{{"x": 1}}]');
INSERT INTO maintenance_windows (tenant_id, title, starts_at, ends_at)
  VALUES ('{ACME}', 'now', now(), now() + '1 h'), ('{ACME}', 'past', now() - '2 h'::interval, now() - '1 h'::interval);
INSERT INTO system_configs (tenant_id, key, value) VALUES ('{SYSTEM}', 'x', '"y"');
"""


@pytest.fixture
async def name() -> AsyncIterator[str]:
    """A database with a row or two in every table."""
    async with migrated_database() as name:
        for statement in filter(str.strip, ROWS.split(";\n")):
            await execute(owner_dsn(name), statement)
        yield name


@pytest.fixture
async def database(name: str) -> AsyncIterator[Database]:
    """As the proxy uses it."""
    database = Database(Places(login_dsn(name)), {"write": Bounds(statement_s=5)})
    await database.open()
    yield database
    await database.close()


async def everything(database: Database) -> Registry:
    """The whole registry."""
    async with database.snapshot() as session:
        return await registry.read_everything(session)


def only(found: Registry, table: str) -> Any:
    """The one row of a table."""
    (row,) = (row for row in found[table].values() if getattr(row, "slug", "") != "system")
    return row


async def test_every_table_is_read_as_plain_values(database: Database) -> None:
    """JSON is decoded, arrays are tuples, ids are text; what is over is left out."""
    found = await everything(database)
    assert found.keys() == TABLES.keys()
    assert only(found, "tenants") == rows.TenantRow(ACME, "acme", "active", "free", 1.0, "standard")
    assert only(found, "user") == rows.UserRow("ada", ACME, "user", True, None)
    session = only(found, "session")
    assert (session.id, session.impersonated_by) == ("live", "root")
    assert session.token_hash == hashlib.sha256(b"planted").digest()
    server = only(found, "mcp_servers")
    assert (server.tenant_id, server.name, server.tags) == (ACME, "search", ("a", "b"))
    assert (server.headers, server.options) == ({"X-Key": "${KEY}"}, {"pool": {"keepalive": "3s"}})
    route = only(found, "routing_rules")
    assert (route.conditions, route.target_servers) == ({"method": "tools/call"}, [{"name": "search", "weight": 2}])
    access = only(found, "server_access_control")
    assert (access.daily_from, access.daily_until, access.days_of_week) == ("22:00", "06:30", (1, 7))
    key = only(found, "enhanced_api_keys")
    assert (key.id, key.scopes, key.allowed_ips, key.tier) == (
        "abcdefghijkl",
        ("read", "proxy"),
        ("10.0.0.0/8",),
        "user",
    )
    assert only(found, "api_keys").key_hash == hashlib.sha256(b"l").digest()
    assert only(found, "api_tokens").token_hash == hashlib.sha256(b"t").digest()
    assert only(found, "rate_limit_configs").refill_per_minute == 5000
    assert only(found, "feature_flags").rules == [{"x": 1}]
    assert only(found, "maintenance_windows").status == "scheduled"
    assert only(found, "system_configs").value == "y"


async def test_no_token_leaves_the_database(database: Database) -> None:
    """The registry holds digests; nothing in it is what a client presents."""
    assert "planted" not in repr(
        [vars_of(row) for table in (await everything(database)).values() for row in table.values()]
    )


def vars_of(row: rows.Row) -> list[object]:
    """Every value of a row, also those that its repr leaves out."""
    return [getattr(row, name) for kind in type(row).__mro__ for name in getattr(kind, "__slots__", ())]


async def test_rows_that_are_named_are_read_and_merged(name: str, database: Database) -> None:
    """One that changed, one that is gone, one that never was, a whole table, and what is no row of ours."""
    before = await everything(database)
    server, flag = only(before, "mcp_servers"), only(before, "feature_flags")
    await execute(owner_dsn(name), "UPDATE mcp_servers SET is_enabled = false")
    await execute(owner_dsn(name), "DELETE FROM feature_flags")
    await execute(owner_dsn(name), "UPDATE system_configs SET value = '7'")
    changed = [
        ("mcp_servers", server.id), ("feature_flags", flag.id), ("api_keys", "no uuid"), ("system_configs", ""),
        ("request_logs", "1"), ("user", "nobody"),
    ]  # fmt: skip
    async with database.snapshot() as session:
        read = await registry.read_changes(session, changed)
    after = merged(before, changed, read)
    assert not only(after, "mcp_servers").is_enabled
    assert after["feature_flags"] == {}
    assert only(after, "system_configs").value == 7
    assert only(before, "mcp_servers").is_enabled
    assert after["session"] is before["session"]
    assert after == await everything(database)


async def test_a_table_of_several_pages_is_read_whole(name: str, database: Database) -> None:
    """No row twice, none left out."""
    await execute(
        owner_dsn(name),
        f"INSERT INTO mcp_servers (tenant_id, name, endpoint_url) SELECT '{ACME}', 's' || n, 'http://x/' "
        "FROM generate_series(1, 4999) n",
    )
    found = await everything(database)
    assert len({row.name for row in found["mcp_servers"].values() if isinstance(row, rows.ServerRow)}) == 5000


FLAGS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 9))


def flags(values: dict[str, int]) -> dict[str, rows.Row]:
    """A table of flags."""
    return {key: rows.FlagRow(key, SYSTEM, key, True, value, []) for key, value in values.items()}


@given(FLAGS, FLAGS, st.lists(st.sampled_from(["a", "b", "c", ""])))
def test_merging_leaves_rows_alone_that_were_not_named(
    old: dict[str, int], new: dict[str, int], ids: list[str]
) -> None:
    """Those that were named are as they were read, whatever the order and however often."""
    changed = [("feature_flags", identity) for identity in ids]
    read = {"feature_flags": flags(new if "" in ids else {key: new[key] for key in new if key in ids})}
    after = merged({"feature_flags": flags(old), "tenants": {}}, changed, read)["feature_flags"]
    if "" in ids:
        assert after == flags(new)
    else:
        assert after == flags(
            {**{k: v for k, v in old.items() if k not in ids}, **{k: new[k] for k in new if k in ids}}
        )
