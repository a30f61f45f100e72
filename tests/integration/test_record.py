"""What a running proxy writes down of requests, in PostgreSQL: complete, once, without secrets, and verifiable."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.harness import json_answer
from tests.integration.identified import Identified, Key, api_key, call, command, identified, stream_of, streaming

#: Records are in PostgreSQL within this time, seconds; it takes 0.3.
WRITTEN_S = 30.0
SECRET = "ghp_" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"


@pytest.fixture(scope="module")
def world() -> Iterator[Identified]:
    """A proxy that keeps arguments and results, and whose tenant globex is recorded strictly."""
    record = {"arguments": "sanitised", "results": "sanitised", "tenants": {"globex": "strict"}}
    with identified(record=record) as world:
        yield world
        assert world.proxy.stderr() == ""


@pytest.fixture(scope="module")
def key(world: Identified) -> Key:
    key = world.key("acme")
    world.settle()
    return key


def rows_of(world: Identified, name: str, number: int = 2) -> list[dict[str, Any]]:
    """The rows of a request, once there are so many."""
    until = time.monotonic() + WRITTEN_S
    while True:
        rows = world.sql("SELECT * FROM audit_logs WHERE id = $1::text::uuid ORDER BY seq", name)
        if len(rows) >= number:
            return [dict(row) for row in rows]
        assert time.monotonic() < until, f"{len(rows)} rows"
        time.sleep(0.05)


def soon(look: Callable[[], Any]) -> Any:
    """What it sees, once that is something."""
    until = time.monotonic() + WRITTEN_S
    while not (found := look()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def test_a_call_has_an_intent_an_outcome_and_a_line_of_the_request_log(world: Identified, key: Key) -> None:
    """Under the name that the client was told, with who, what, where and how it went."""
    answered = world.call("tools", api_key(key.text), "User-Agent: test/1", body=call("search"))
    name = answered.fields["x-request-id"]
    intent, outcome = rows_of(world, name)
    same = ("tenant_id", "actor_type", "key_id", "action", "resource_type", "resource_id", "server_name", "user_agent",
            "auth_source", "http_method", "route_name", "server_id", "segment", "instance", "risk_level")  # fmt: skip
    assert [intent["kind"], outcome["kind"]] == ["intent", "outcome"]
    assert [intent[column] for column in same] == [outcome[column] for column in same]
    assert str(outcome["tenant_id"]) == world.tenants["acme"]
    assert (outcome["actor_type"], outcome["key_id"], outcome["auth_source"]) == (
        "api_key",
        key.id,
        "enhanced_api_keys",
    )
    assert (outcome["action"], outcome["resource_type"], outcome["resource_id"]) == ("tools/call", "tool", "search")
    assert (outcome["server_name"].split("/")[-1], outcome["user_agent"]) == ("tools", "test/1")
    assert (outcome["status_code"], outcome["outcome"], outcome["tries"]) == (200, "ok", 1)
    assert outcome["bytes_out"] == len(answered.body)
    assert 0 < outcome["auth_ms"] <= outcome["first_byte_ms"] <= outcome["duration_ms"]
    assert outcome["seq"] == intent["seq"] + 1
    [row] = soon(lambda: world.sql("SELECT * FROM request_logs WHERE id = $1::text::uuid", name))
    assert (row["method"], row["tool_name"], row["status_code"], row["api_key_id"]) == (
        "tools/call",
        "search",
        200,
        key.id,
    )


def test_a_refusal_has_one_row(world: Identified, key: Key) -> None:
    """With its reason; that of a stranger belongs to nobody."""
    refused = world.call("globex", api_key(key.text))
    stranger = world.call("tools", api_key("mcpm_none"))
    for answered, tenant in ((refused, "acme"), (stranger, "system")):
        [row] = rows_of(world, answered.fields["x-request-id"], 1)
        assert (row["kind"], row["status_code"], row["outcome"]) == ("denied", answered.status, "refused")
        assert str(row["tenant_id"]) == world.tenants[tenant]
        assert row["reason"]


def test_arguments_and_results_are_kept_without_secrets(world: Identified, key: Key) -> None:
    """By name and by shape; what was sent can be recognised by its digest."""
    arguments = {
        "query": "weather",
        "password": "hunter2",
        "note": f"use {SECRET} for it",
        "card": "4111 1111 1111 1111",
    }
    answer = {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": f"token: {SECRET}"}]}}

    async def answering(wire: Any) -> None:
        while await wire.request():
            await wire.send(json_answer(json.dumps(answer).encode()))

    world.upstreams["acme"].script = answering
    answered = world.call("acme", api_key(key.text), body=call("search", arguments=arguments))
    assert SECRET.encode() in answered.body  # the client gets what the server said
    intent, outcome = rows_of(world, answered.fields["x-request-id"])
    kept, result = json.loads(intent["arguments"]), json.loads(outcome["result"])
    assert kept["query"] == "weather"
    assert len(intent["arguments_hash"]) == 32
    text = json.dumps([kept, result])
    assert "hunter2" not in text
    assert SECRET not in text
    assert "4111" not in text
    assert "redacted" in text


def test_what_breaks_off_and_who_leaves_is_written_down(world: Identified, key: Key) -> None:
    """A stream whose client leaves has an outcome as well."""
    with streaming(world.proxy, stream_of("/tools/mcp", api_key(key.text))):
        pass
    [row] = soon(
        lambda: world.sql(
            "SELECT * FROM audit_logs WHERE outcome = 'client_gone' AND action = 'GET' AND kind = 'outcome'"
        )
    )
    assert row["streamed"] is True
    assert len(rows_of(world, str(row["id"]))) == 2


def test_a_strict_tenant_is_served_too(world: Identified) -> None:
    """Its calls wait for the disk before they are sent."""
    key = world.key("globex")
    world.settle()
    answered = world.call("tools", api_key(key.text))
    assert answered.status == 200
    assert len(rows_of(world, answered.fields["x-request-id"])) == 2


def test_the_rows_are_a_chain_that_verifies(world: Identified, key: Key) -> None:
    """And a row that is changed is found."""
    world.call("tools", api_key(key.text))
    name = world.call("tools", api_key(key.text)).fields["x-request-id"]
    rows_of(world, name)
    whole = command(world, "audit", "verify", "--tenant", "acme")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    change = "UPDATE audit_logs SET outcome = 'refused' WHERE id = $1::text::uuid AND kind = 'outcome'"
    world.sql(change, name)
    try:
        found = command(world, "audit", "verify", "--tenant", "acme")
        assert found.returncode == 1, found.stdout + found.stderr
    finally:
        world.sql(change.replace("refused", "ok"), name)
    assert command(world, "audit", "verify", "--tenant", "acme").returncode == 0


def test_an_operator_finds_a_call(world: Identified, key: Key) -> None:
    """By tenant and tool."""
    name = world.call("tools", api_key(key.text), body=call("unusual")).fields["x-request-id"]
    rows_of(world, name)
    found = command(world, "audit", "search", "--tenant", "acme", "--target", "unusual", "--json")
    assert found.returncode == 0, found.stderr
    assert name in found.stdout


def test_functions_and_views_answer_from_the_rows(world: Identified, key: Key) -> None:
    """What the front end asks for comes from requests that really were."""
    name = world.call("tools", api_key(key.text)).fields["x-request-id"]
    rows_of(world, name)
    soon(lambda: world.sql("SELECT FROM get_tenant_usage_summary() WHERE tenant_slug = 'acme' AND requests > 0"))
    soon(lambda: world.sql("SELECT FROM get_request_performance_summary() WHERE total_requests > 0"))


def test_records_wait_while_postgresql_is_away(world: Identified, key: Key) -> None:
    """And come when it is back, each once."""
    with world.away():
        names = [world.call("tools", api_key(key.text)).fields["x-request-id"] for _ in range(5)]
    for name in names:
        assert [row["kind"] for row in rows_of(world, name)] == ["intent", "outcome"]


def test_the_spool_shows_what_it_holds(world: Identified) -> None:
    """In the metrics, and to a command."""
    assert soon(lambda: world.proxy.metric("mcp_proxy_spool_records_total")) > 0
    assert soon(lambda: world.proxy.metric("mcp_proxy_record_rows_total")) > 0
    shown = command(world, "spool", "status", "--json")
    assert shown.returncode == 0, shown.stderr


def test_starts_and_reloads_are_events(world: Identified) -> None:
    """Those that come into force, and those that cannot."""
    world.reload()
    world.proxy.reload({"servers": {}})
    kinds = {"start", "reload", "reload_refused"}
    soon(lambda: kinds <= {row["event_type"] for row in world.sql("SELECT event_type FROM system_events")})
