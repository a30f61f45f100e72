"""Calls over real sockets are found in the tables of use, once, and in what the front end asks about them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from proxy.app import App
from tests.harness import PATIENCE_S, RawClient, ScriptedUpstream, Wire, json_answer, post, scripted_upstream
from tests.inprocess import running_app
from tests.integration.talk import SSE_HEAD, ask, chunk
from tests.unit.identity.rows import MINTED
from tests.unit.store.engine import execute, login_dsn, migrated_database, owner_dsn

ACME = "11111111-1111-1111-1111-111111111111"
KEY_ROW = "INSERT INTO enhanced_api_keys (id, tenant_id, name, scopes, secret_hmac) VALUES ($1, $2, 'k', $3, $4)"
WHO = f"X-API-Key: {MINTED.text}"
LIST = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"%b"}}'
LISTED = b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"open"}]}}'


class Bench(NamedTuple):
    """A proxy with PostgreSQL, and its one server."""

    name: str
    app: App
    port: int
    upstream: ScriptedUpstream

    async def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await execute(owner_dsn(self.name), statement, *values)]

    async def say(self, body: bytes, *fields: str) -> int:
        return (await ask(self.port, post("/up/mcp", body, *fields))).status

    async def soon(self, statement: str) -> Any:
        """The first value, once it is one."""
        async with asyncio.timeout(PATIENCE_S):
            while not (found := (await self.rows(statement))[0][0]):
                await asyncio.sleep(0.02)
        return found


async def speak(wire: Wire) -> None:
    """Lists as JSON; calls of `bad` fail, of `open` are answered by a stream of two events."""
    request = await wire.request()
    if request and b"tools/list" in request:
        await wire.send(json_answer(LISTED))
    elif request and b'"bad"' in request:
        await wire.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    elif request:
        await wire.send(SSE_HEAD + chunk(b"data: 1\n\n"))
        await asyncio.sleep(0.05)
        await wire.send(chunk(b"data: 2\n\n") + b"0\r\n\r\n")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A key of a tenant, and a server of the configuration file that has its row."""
    upstream: ScriptedUpstream
    async with migrated_database() as name, scripted_upstream(speak) as upstream:
        await execute(owner_dsn(name), "INSERT INTO tenants (id, slug, name) VALUES ($1, 'acme', 'A')", ACME)
        await execute(owner_dsn(name), KEY_ROW, MINTED.id, ACME, ["proxy", "read", "write"], MINTED.secret_hmac)
        config = {
            "servers": {"up": {"url": upstream.url}},
            "auth": {"peppers": {1: "a pepper of sixteen or more"}, "anonymous": False},
            "postgres": {"dsn": login_dsn(name)},
        }
        async with running_app(config) as (app, port):
            async with asyncio.timeout(PATIENCE_S):
                while not app.live.snapshot.upstreams["up"].place.id:
                    await asyncio.sleep(0.02)
            yield Bench(name, app, port, upstream)


async def test_calls_are_found_in_every_table_of_use(bench: Bench) -> None:
    """By server, credential and tenant; refused ones for the tenant that they are of."""
    assert await bench.say(LIST, WHO) == 200
    assert await bench.soon("SELECT count(*) = 1 FROM server_tools")
    statuses = [await bench.say(CALL % tool, WHO) for tool in (b"open", b"open", b"hidden", b"bad")]
    assert statuses == [200, 200, 200, 500]
    assert await bench.say(CALL % b"open") == 401
    records = bench.app._records
    await records._traffic.finish()
    await records._rows.finish()
    servers = "SELECT sum(request_count)::int, sum(error_count)::int, min(p50_ms) > 0 FROM server_metrics"
    assert await bench.rows(servers) == [(5, 1, True)]
    keys = "SELECT sum(request_count)::int, sum(error_count)::int, sum(tool_call_count)::int FROM api_key_usage"
    assert await bench.rows(keys) == [(5, 1, 4)]
    tools = """SELECT server, tool, sum(calls::bigint)::int FROM api_key_usage, jsonb_each(tools) AS s (server, called),
        jsonb_each_text(called) AS t (tool, calls) GROUP BY 1, 2 ORDER BY 1"""
    assert await bench.rows(tools) == [("", "", 2), ("up", "open", 2)]
    used = """SELECT t.slug, sum(u.quantity)::int FROM tenant_usage AS u JOIN tenants AS t ON t.id = u.tenant_id
        WHERE metric = 'requests' AND granularity = 'day' GROUP BY 1 ORDER BY 1"""
    assert await bench.rows(used) == [("acme", 5), ("system", 1)]


async def test_what_the_front_end_asks_is_answered_from_rows(bench: Bench) -> None:
    """Functions and views, of requests as they were shipped."""
    for tool in (b"open", b"bad"):
        await bench.say(CALL % tool, WHO)
    assert await bench.soon("SELECT count(*) = 2 FROM request_logs")
    records = bench.app._records
    await records._traffic.finish()
    await records._rows.finish()
    await execute(owner_dsn(bench.name), "SELECT refresh_materialized_views()")
    asked = "SELECT total_requests, failed_requests, p99_ms > 0 FROM get_request_performance_summary()"
    assert await bench.rows(asked) == [(2, 1, True)]
    later = "SELECT total_requests::int, failed_requests::int FROM get_server_traffic_summary(now() - $1, now() + $1)"
    assert await bench.rows(later.replace("$1", "interval '1 hour'")) == [(2, 1)]
    usage = "SELECT requests, failed_requests FROM get_tenant_usage_summary() WHERE tenant_slug = 'acme'"
    assert await bench.rows(usage) == [(2, 1)]
    assert await bench.rows("SELECT total_servers FROM get_server_health_summary()") == [(1,)]
    parts = "SELECT total_count, healthy_count FROM performance_monitoring WHERE component = 'requests'"
    assert await bench.rows(parts) == [(2, 1)]
    for view in ("server_performance_hourly", "tenant_usage_daily"):
        assert await bench.rows(f"SELECT sum(requests)::int, sum(failed_requests)::int FROM {view}") == [(2, 1)]


async def test_streams_are_timed_and_sums_counted(bench: Bench) -> None:
    """By server: a stream of two events, with a pause between them."""
    come = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(SSE_HEAD + chunk(b"data: 1\n\n"))
        await come.wait()
        await asyncio.sleep(0.05)
        await wire.send(chunk(b"data: 2\n\n") + b"0\r\n\r\n")

    bench.upstream.script = script
    client = await RawClient.connect(bench.port)
    await client.send(post("/up/mcp", CALL % b"open", WHO))
    await client.head()
    assert await client.chunk() == b"data: 1\n\n"
    come.set()
    assert await client.chunk() == b"data: 2\n\n"
    await client.close()

    def shown() -> dict[str, dict[str, float]]:
        return {family.name: dict(family.rows) for family in bench.app._streams.times.families()}

    async with asyncio.timeout(PATIENCE_S):
        while shown()["mcp_proxy_stream_duration_seconds"].get('_count{server="up"}') != 1:
            await asyncio.sleep(0.01)
    found = shown()
    assert found["mcp_proxy_streams"] == {'{server="up"}': 1}
    for name in ("first_event", "gap", "duration"):
        times = found[f"mcp_proxy_stream_{name}_seconds"]
        assert times['_count{server="up"}'] == 1
        assert 0 < times['_sum{server="up"}'] < PATIENCE_S
    assert found["mcp_proxy_stream_gap_seconds"]['_sum{server="up"}'] >= 0.05
    _, text = bench.app.metrics.exposition("")
    assert b"\nmcp_proxy_traffic_rows_waiting " in text
