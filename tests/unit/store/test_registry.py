"""The registry, read from a database with every table: everything at once, row by row, and by what changed."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.store import registry, rows
from proxy.store.database import Bounds, Database, Places
from proxy.store.registry import TABLES, Fingerprints, Hashes, Registry, Unreadable, differing, fingerprints, merged
from tests.unit.store.engine import empty_database, execute, login_dsn, migrated_database, owner_dsn

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
INSERT INTO rate_limit_configs (tenant_id, name, level, capacity, refill_per_minute, costs)
  VALUES ('{SYSTEM}', 'g', 'global', 9, 5000, '{{"tools": {{"a/b": 2}}}}');
INSERT INTO feature_flags (tenant_id, key, rules, variants)
  VALUES ('{ACME}', 'f', '[{{"x": 1}}]', '{{"a": 1, "b": 3}}');
INSERT INTO maintenance_windows (tenant_id, title, starts_at, ends_at, recurrence)
  VALUES ('{ACME}', 'now', now(), now() + '1 h', 'Sun 02:00-04:00 Europe/Berlin'),
    ('{ACME}', 'past', now() - '2 h'::interval, now() - '1 h'::interval, NULL);
INSERT INTO breaker_orders (tenant_id, server_id, state)
  SELECT tenant_id, id, 'open' FROM mcp_servers WHERE name = 'search';
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
    async with registry.reading(database) as session:
        return await registry.read_everything(session)


async def fingerprints_of(database: Database) -> Fingerprints:
    """Of every table."""
    async with registry.reading(database) as session:
        return await registry.read_fingerprints(session)


async def hashes_of(database: Database, *asked: tuple[str, str]) -> Hashes:
    """Of what was asked; of everything for nothing."""
    async with registry.reading(database) as session:
        return await registry.read_hashes(session, asked or [(name, "") for name in TABLES])


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
    limit = only(found, "rate_limit_configs")
    assert (limit.name, limit.refill_per_minute, limit.enforce, limit.costs) == ("g", 5000, True, {"tools": {"a/b": 2}})
    flag = only(found, "feature_flags")
    assert (flag.rules, flag.variants) == ([{"x": 1}], {"a": 1, "b": 3})
    window = only(found, "maintenance_windows")
    assert (window.status, window.title, window.drain_s) == ("scheduled", "now", 30)
    assert window.recurrence == "Sun 02:00-04:00 Europe/Berlin"
    order = only(found, "breaker_orders")
    assert (order.tenant_id, order.server_id, order.state) == (ACME, server.id, "open")
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


#: What the registry does not read: counters, observations, words for people.
QUIET = (
    "UPDATE enhanced_api_keys SET usage_count = 7, last_used_at = now(), last_used_ip = '10.0.0.1', name = 'other'",
    "UPDATE api_keys SET usage_count = 7, last_used_at = now()",
    "UPDATE mcp_servers SET health_status = 'HEALTHY', avg_response_time = 7, description = 'other'",
    "UPDATE \"user\" SET name = 'Other', image = 'x'",
    "UPDATE tenants SET billing_email = 'x@example.com'",
    "UPDATE session SET user_agent = 'x' WHERE id = 'live'",
    "INSERT INTO session (id, expires_at, token, user_id) VALUES ('o', now() - '1 h'::interval, 'o', 'ada')",
    "DELETE FROM session WHERE id = 'over'",
)
#: Table -> a change of its one row that matters.
NEWS = {
    "tenants": "UPDATE tenants SET status = 'suspended' WHERE slug = 'acme'",
    "user": 'UPDATE "user" SET banned = false',
    "session": "UPDATE session SET expires_at = now() + '2 h' WHERE id = 'live'",
    "mcp_servers": 'UPDATE mcp_servers SET headers = \'{"X-Key": "${KEY2}"}\'',
    "routing_rules": 'UPDATE routing_rules SET target_servers = \'[{"name": "search", "weight": 3}]\'',
    "server_access_control": "UPDATE server_access_control SET daily_until = '06:31'",
    "enhanced_api_keys": "UPDATE enhanced_api_keys SET revoked_at = now()",
    "api_keys": "UPDATE api_keys SET scopes = '{read}'",
    "api_tokens": "UPDATE api_tokens SET token_hash = sha256('u')",
    "rate_limit_configs": "UPDATE rate_limit_configs SET refill_per_minute = 5000.5",
    "feature_flags": "UPDATE feature_flags SET rollout_percent = 50",
    "maintenance_windows": "UPDATE maintenance_windows SET status = 'cancelled' WHERE title = 'now'",
    "breaker_orders": "UPDATE breaker_orders SET state = state",
    "system_configs": "UPDATE system_configs SET value = '\"z\"'",
}


@pytest.mark.parametrize("statement", QUIET)
async def test_a_fingerprint_stays_when_nothing_changed_that_matters(
    statement: str, name: str, database: Database
) -> None:
    """Counters count without anything being read again."""
    before = await fingerprints_of(database)
    await execute(owner_dsn(name), statement)
    assert await fingerprints_of(database) == before


async def test_every_change_that_matters_shows_in_the_fingerprint_of_its_table_and_in_one_hash(
    name: str, database: Database
) -> None:
    """And nowhere else; no table is without a change to try."""
    assert NEWS.keys() == TABLES.keys()
    for table, statement in NEWS.items():
        known, before = await hashes_of(database), await fingerprints_of(database)
        assert fingerprints(known) == before
        await execute(owner_dsn(name), statement)
        after = await fingerprints_of(database)
        assert {one for one in after if after[one] != before[one]} == {table}
        asked = [(table, "")]
        changed = differing(known, asked, await hashes_of(database, *asked))
        assert [one for one, _ in changed] == [table]
        assert fingerprints(await hashes_of(database)) == after


async def test_two_rows_that_swap_a_value_change_the_fingerprint(name: str, database: Database) -> None:
    """As one server that is enabled while another one is disabled."""
    insert = "INSERT INTO mcp_servers (tenant_id, name, endpoint_url, is_enabled) VALUES ($1, $2, 'http://x/', $3)"
    for number in range(2):
        await execute(owner_dsn(name), insert, ACME, f"s{number}", bool(number))
    before = await fingerprints_of(database)
    await execute(owner_dsn(name), "UPDATE mcp_servers SET is_enabled = NOT is_enabled WHERE name IN ('s0', 's1')")
    assert (await fingerprints_of(database))["mcp_servers"] != before["mcp_servers"]


async def test_a_database_without_tables_or_roles_is_unreadable_and_no_error(database: Database) -> None:
    """It may be migrated any moment."""
    async with empty_database() as name:
        empty = Database(Places(login_dsn(name)), {})
        await empty.open()
        with pytest.raises(Unreadable, match="UndefinedTable"):
            await everything(empty)
        await empty.close()


async def test_ids_that_cannot_be_are_passed_over(database: Database) -> None:
    """Whoever may send notices may send these."""
    odd = [(table, odd) for table in TABLES for odd in ("\0", "no uuid", "{" + ACME + "}", "x" * 9000)]
    async with registry.reading(database) as session:
        assert not any((await registry.read_changes(session, odd)).values())
        assert not any((await registry.read_hashes(session, odd)).values())


async def test_a_row_whose_json_cannot_be_read_or_written_is_left_out(name: str, database: Database) -> None:
    """One row of one tenant must not keep all others from being read."""
    insert = "INSERT INTO system_configs (tenant_id, key, value) VALUES ($1, $2, $3)"
    for number, value in enumerate(("1e400", "[" * 2000 + "]" * 2000, "[" * 251 + "]" * 251, "[" * 240 + "]" * 240)):
        await execute(owner_dsn(name), insert, SYSTEM, f"k{number}", value)
    found = (await everything(database))["system_configs"].values()
    assert {row.key for row in found if isinstance(row, rows.SettingRow)} == {"x", "k3"}


FLAGS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 9))


def flags(values: dict[str, int]) -> dict[str, rows.Row]:
    """A table of flags."""
    return {key: rows.FlagRow(key, SYSTEM, key, True, value, [], {}) for key, value in values.items()}


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


@given(FLAGS, FLAGS, st.lists(st.sampled_from(["a", "b", "c", ""])))
def test_only_what_differs_is_named(old: dict[str, int], new: dict[str, int], ids: list[str]) -> None:
    """Of what was asked, and each by its id, also when a whole table was asked for."""
    asked = [("feature_flags", identity) for identity in ids]
    read = {"feature_flags": new if "" in ids else {key: new[key] for key in new if key in ids}}
    expected = {key for key in "abc" if old.get(key) != new.get(key) and (key in ids or "" in ids)}
    assert {key for _, key in differing({"feature_flags": old}, asked, read)} == expected


@given(FLAGS, FLAGS)
def test_a_fingerprint_is_that_of_the_rows_and_not_of_how_they_came(old: dict[str, int], new: dict[str, int]) -> None:
    """Merging leads to the same one as reading."""
    known, read = {"feature_flags": old}, {"feature_flags": new}
    changed = differing(known, [("feature_flags", "")], read)
    assert fingerprints(merged(known, changed, read)) == fingerprints(read)
