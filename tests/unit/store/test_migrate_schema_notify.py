"""What the database tells on the channel `mcp_manager`, and what it keeps to itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.unit.store.engine import migrated_database, owner_dsn

A, B = UUID(int=0xA), UUID(int=0xB)
SETUP = f"""
    INSERT INTO tenants (id, slug, name) VALUES ('{A}', 'a', 'A'), ('{B}', 'b', 'B');
    INSERT INTO "user" (id, name, email) VALUES ('u1', 'U', 'u@example.org');
    INSERT INTO mcp_servers (id, tenant_id, name, endpoint_url) VALUES ('{A}', '{A}', 's', 'https://s.example')"""

#: Table -> a row: the columns and the values.
ROWS = {
    "tenants": "(id, slug, name) VALUES ('{id}', 'c', 'C')",
    "mcp_servers": "(id, tenant_id, name, endpoint_url) VALUES ('{id}', '{a}', 't', 'https://t.example')",
    "routing_rules": "(id, tenant_id, name, path, target_servers) VALUES ('{id}', '{a}', 'r', '/r', '[1]')",
    "enhanced_api_keys": "(id, tenant_id, name, secret_hmac) VALUES ('{key}', '{a}', 'planted', sha256('planted'))",
    "api_keys": "(id, tenant_id, name, key_hash) VALUES ('{id}', '{a}', 'k', sha256('k'))",
    "api_tokens": "(id, tenant_id, name, token_hash) VALUES ('{id}', '{a}', 'k', sha256('k'))",
    "server_access_control": "(id, tenant_id, subject_type, effect) VALUES ('{id}', '{a}', 'everyone', 'deny')",
    "rate_limit_configs":
        "(id, tenant_id, name, level, capacity, refill_per_minute) VALUES ('{id}', '{a}', 'l', 'key', 1, 1)",
    "feature_flags": "(id, tenant_id, key) VALUES ('{id}', '{a}', 'f')",
    "maintenance_windows": "(id, tenant_id, title, starts_at, ends_at) VALUES ('{id}', '{a}', 'm', now(), 'infinity')",
    "breaker_orders": "(id, tenant_id, server_id, state) VALUES ('{id}', '{a}', '{a}', 'open')",
    "system_configs": "(id, tenant_id, key, value) VALUES ('{id}', '{a}', 'k', '1')",
    '"user"': "(id, tenant_id, name, email) VALUES ('{id}', '{a}', 'V', 'v@example.org')",
    "session": "(id, token, expires_at, user_id) VALUES ('{id}', 'planted', now(), 'u1')",
}  # fmt: skip


class Ear:
    """A listener, and another connection that makes changes."""

    def __init__(self, listener: Any, writer: Any) -> None:
        self._listener = listener
        self._writer = writer
        self._heard: asyncio.Queue[str] = asyncio.Queue()

    @classmethod
    async def open(cls, dsn: str) -> Ear:
        """Listen."""
        ear = cls(await asyncpg.connect(dsn), await asyncpg.connect(dsn))
        await ear._writer.execute(SETUP)
        await ear._listener.add_listener("mcp_manager", lambda *told: ear._heard.put_nowait(told[3]))
        return ear

    async def after(self, statement: str) -> list[str]:
        """All that is told when the statement is committed; a last notification of our own ends the list."""
        await self._writer.execute(statement)
        await self._writer.execute("SELECT pg_notify('mcp_manager', 'end')")
        told = []
        while (payload := await asyncio.wait_for(self._heard.get(), 5)) != "end":
            told.append(payload)
        return told

    async def close(self) -> None:
        """Both connections."""
        await self._writer.close()
        await self._listener.close()


@pytest.fixture
async def ear() -> AsyncIterator[Ear]:
    """A listener on a database with two tenants, a user and a server."""
    async with migrated_database() as name:
        each = await Ear.open(owner_dsn(name))
        yield each
        await each.close()


@pytest.mark.parametrize("table", ROWS)
async def test_every_change_of_what_the_data_plane_knows_is_told(ear: Ear, table: str) -> None:
    """Table, operation, tenant and id; nothing else of the row."""
    key = "0123456789aB" if table == "enhanced_api_keys" else str(UUID(int=7))
    tenant = {"tenants": key, "session": None}.get(table, str(A))
    name = "name" if "name" in ROWS[table].split(")")[0] and table != "session" else None
    column = name or {"feature_flags": "key", "system_configs": "key", "maintenance_windows": "title",
                      "server_access_control": "reason", "breaker_orders": "reason",
                      "session": "impersonated_by"}[table]  # fmt: skip
    steps = {
        "insert": f"INSERT INTO {table} " + ROWS[table].format(id=key, key=key, a=A),
        "update": f"UPDATE {table} SET {column} = 'changed' WHERE id = '{key}'",
        "delete": f"DELETE FROM {table} WHERE id = '{key}'",
    }
    for operation, statement in steps.items():
        told = await ear.after(statement)
        expected = {"table": table.strip('"'), "op": operation, "tenant": tenant, "id": key}
        assert [json.loads(payload) for payload in told] == [expected]
        assert "planted" not in told[0]


@pytest.mark.parametrize("table", ROWS)
async def test_an_emptied_table_is_told(ear: Ear, table: str) -> None:
    """TRUNCATE has no rows to name."""
    told = [json.loads(payload) for payload in await ear.after(f"TRUNCATE {table} CASCADE")]
    assert {"table": table.strip('"'), "op": "truncate", "tenant": None, "id": None} in told


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE mcp_servers SET health_status = 'HEALTHY', avg_response_time = 3, next_health_check_at = now()",
        "UPDATE mcp_servers SET updated_at = now()",
        "UPDATE mcp_servers SET name = name",
        "UPDATE \"user\" SET image = 'x', updated_at = now()",
        "UPDATE mcp_servers SET name = 'x' WHERE false",
    ],
)
async def test_counting_and_observing_is_no_news(ear: Ear, statement: str) -> None:
    """Otherwise every request that is counted would make every instance read its snapshot again."""
    assert await ear.after(statement) == []


async def test_use_of_a_key_is_no_news_but_its_revocation_is(ear: Ear) -> None:
    """In the same table."""
    await ear.after("INSERT INTO enhanced_api_keys " + ROWS["enhanced_api_keys"].format(key="0123456789aB", a=A))
    used = "UPDATE enhanced_api_keys SET usage_count = usage_count + 1, last_used_at = now(), last_used_ip = '10.0.0.1'"
    assert await ear.after(used) == []
    assert len(await ear.after("UPDATE enhanced_api_keys SET revoked_at = now()")) == 1


async def test_a_row_that_changes_its_tenant_is_told_to_both(ear: Ear) -> None:
    """The one that lost it and the one that has it."""
    await ear.after(f"INSERT INTO feature_flags (tenant_id, key) VALUES ('{A}', 'f')")
    told = await ear.after(f"UPDATE feature_flags SET tenant_id = '{B}'")
    assert [json.loads(payload)["tenant"] for payload in told] == [str(A), str(B)]


async def test_what_is_taken_back_is_not_told(ear: Ear) -> None:
    """NOTIFY belongs to the transaction."""
    assert await ear.after("BEGIN; UPDATE tenants SET name = 'x'; ROLLBACK") == []
