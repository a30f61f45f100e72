"""What a running proxy says of its servers in PostgreSQL, and what operators order there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.identified import Identified, Key, api_key, command, identified

#: What is seen is written within 5 s of a change, on a machine that is not busy.
WRITTEN_S = 30.0
STATES = "SELECT b.state, b.open_count, b.last_failure FROM circuit_breakers AS b JOIN mcp_servers AS s" \
    " ON s.id = b.server_id WHERE s.name = $1"  # fmt: skip


@pytest.fixture(scope="module")
def world() -> Iterator[Identified]:
    """A proxy with PostgreSQL; the server of its configuration has a queue and is checked."""
    with identified() as world:
        options = {"health_check": {"interval": "500ms", "kind": "tcp"}, "queue": {"max_concurrent": 4}}
        world.reload(servers={"shared": {"url": world.upstreams["shared"].url, **options}})
        soon(lambda: world.sql("SELECT FROM mcp_servers WHERE name = 'shared'"))
        yield world


@pytest.fixture
def key(world: Identified) -> Key:
    """Somebody of a tenant."""
    key = world.key("acme")
    world.settle()
    return key


def soon(look: Callable[[], Any], seconds: float = WRITTEN_S) -> Any:
    """What it sees, once that is something."""
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def status(world: Identified, key: Key, server: str) -> int:
    """Of the answer to a call."""
    return world.call(server, api_key(key.text)).status


def test_an_operator_opens_and_closes_a_breaker_of_a_running_proxy(world: Identified, key: Key) -> None:
    """At once, of a server of the configuration file and of a tenant's; the server itself is well all the time."""
    for server, whose in (("shared", ()), ("tools", ("--tenant", "acme"))):
        soon(lambda: status(world, key, server) == 200)  # noqa: B023 - called before the loop goes on
        for action, expected in (("open", 503), ("release", 200), ("open", 503), ("close", 200)):
            done = command(world, "breakers", action, server, *whose)
            assert done.returncode == 0, done.stderr
            soon(lambda: status(world, key, server) == expected)  # noqa: B023
    refused = command(world, "breakers", "open", "shared", "--reason", "wrong answers")
    assert refused.returncode == 0, refused.stderr
    soon(lambda: world.sql(STATES, "shared") and world.sql(STATES, "shared")[0]["state"] == "open")
    [shown] = [
        row for row in json.loads(command(world, "breakers", "list", "--json").stdout) if row["server"] == "shared"
    ]
    assert (shown["state"], shown["ordered"], shown["reason"]) == ("open", "open", "wrong answers")
    assert command(world, "breakers", "close", "shared").returncode == 0
    soon(lambda: status(world, key, "shared") == 200)


def test_a_server_that_refuses_connections_opens_its_breaker_in_the_tables(world: Identified, key: Key) -> None:
    """State, cause and an event of its tenant; nobody ordered that."""
    tenant = world.tenants["acme"]
    world.server("acme", "down", "http://127.0.0.1:1/mcp")
    world.settle()
    for _ in range(8):
        assert status(world, key, "down") in (502, 503)
    row = soon(lambda: [row for row in world.sql(STATES, "down") if row["state"] == "open"])[0]
    assert (row["open_count"], row["last_failure"]) == (1, "connect")
    query = (
        "SELECT severity, component, details FROM system_events WHERE tenant_id = $1 AND event_type = 'breaker_open'"
    )
    found = [json.loads(row["details"]) for row in soon(lambda: world.sql(query, tenant))]
    assert [each["server"] for each in found if each["server"].endswith("down")] == ["acme/down"]


def test_checks_pool_and_queue_of_a_server_are_in_the_tables(world: Identified, key: Key) -> None:
    """With its health in its row; the row of a server without a queue has no queue."""
    assert status(world, key, "shared") == 200
    of = "FROM {} AS t JOIN mcp_servers AS s ON s.id = t.server_id WHERE s.name = 'shared'"
    checks = f"SELECT t.kind, t.status {of.format('server_health_checks')}"
    soon(lambda: ("tcp", "HEALTHY") in [tuple(row) for row in world.sql(checks)])  # one that is slow is DEGRADED
    assert {row["kind"] for row in world.sql(checks)} == {"tcp"}
    soon(lambda: world.sql("SELECT FROM mcp_servers WHERE name = 'shared' AND health_status = 'HEALTHY'"))
    [queue] = soon(lambda: world.sql(f"SELECT max_concurrent, running {of.format('request_queues')}"))
    assert tuple(queue) == (4, 0)
    [pool] = soon(lambda: world.sql(f"SELECT max_connections, waiting {of.format('connection_pools')}"))
    assert pool["max_connections"] > 0 and pool["waiting"] == 0
    assert world.sql("SELECT count(*) FROM request_queues")[0][0] == 1


def test_a_proxy_that_ends_takes_its_rows_with_it(world: Identified) -> None:
    """The last test of its proxy."""
    soon(lambda: world.sql("SELECT FROM circuit_breakers"))
    assert world.proxy.stop() == 0
    for table in ("circuit_breakers", "connection_pools", "request_queues"):
        assert world.sql(f"SELECT FROM {table}") == []
