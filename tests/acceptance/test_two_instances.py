"""Two instances of one server behind one URL: what belongs together stays together, and losing one is survived."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.sse import sse_client
from mcp_types import ElicitRequestParams, ElicitResult

from tests.acceptance.clients import MODERN, first_events, raw_client
from tests.conformance.processes import Running, fixture_server, proxy

CLIENTS = 8


def _routes(strategy: str = "round_robin") -> list[dict[str, Any]]:
    return [
        {"name": "pair", "path": "/pair/mcp", "servers": ["a", "b"], "strategy": strategy},
        {"name": "pair-sse", "path": "/pair-sse/mcp", "servers": ["a-sse", "b-sse"]},
        {"name": "pinned", "path": "/pinned/mcp", "servers": ["a", "b"], "affinity": {"by": "client_address"}},
    ]


def _servers(instances: dict[str, Running]) -> dict[str, dict[str, Any]]:
    servers: dict[str, dict[str, Any]] = {}
    for name, instance in instances.items():
        servers[name] = {"url": f"{instance.origin}/mcp"}
        servers[f"{name}-sse"] = {"url": f"{instance.origin}/sse", "transport": "sse"}
    return servers


@pytest.fixture(scope="module")
def instances(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    """Two fixture servers that know nothing of each other."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(fixture_server(tmp_path_factory.mktemp(name))) for name in ("a", "b")}


@pytest.fixture(scope="module")
def entrance(instances: dict[str, Running], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The proxy in front of both."""
    with proxy(tmp_path_factory.mktemp("proxy"), _servers(instances), routes=_routes()) as started:
        yield started


def _journal(instance: Running) -> list[str]:
    with urllib.request.urlopen(f"{instance.origin}/journal", timeout=5) as answer:
        return list(json.loads(answer.read()))


def _finished(instance: Running, prefix: str) -> int:
    return sum(entry.startswith(f"finished:{prefix}") for entry in _journal(instance))


def _client(entrance: Running, mode: str) -> Client:
    if mode == "sse":
        return Client(sse_client(f"{entrance.origin}/pair-sse/mcp"), mode="legacy", read_timeout_seconds=20)
    return Client(f"{entrance.origin}/pair/mcp", mode=mode, read_timeout_seconds=20)


@pytest.mark.parametrize("mode", ["legacy", "sse", MODERN])
async def test_every_client_is_served_in_full_and_both_instances_work(
    instances: dict[str, Running], entrance: Running, mode: str
):
    """Sessions stay where they began, so no request of one ever meets the instance that does not know it."""

    async def use(number: int) -> list[float]:
        seen: list[float] = []

        async def note(progress: float, total: float | None, message: str | None) -> None:
            seen.append(progress)

        async with _client(entrance, mode) as client:
            for turn in range(3):
                arguments = {"label": f"{mode}-{number}-{turn}", "steps": 2, "pause": 0.01}
                result = await client.call_tool("slow_steps", arguments, progress_callback=note)
                assert not result.is_error
        return seen

    seen = await asyncio.gather(*(use(number) for number in range(CLIENTS)))

    assert seen == [[1, 2] * 3] * CLIENTS
    shares = [_finished(instance, mode) for instance in instances.values()]
    assert sum(shares) == 3 * CLIENTS
    assert min(shares) > 0


async def test_rounds_of_questions_stay_on_one_instance_when_the_route_pins_its_clients(entrance: Running):
    """The state between two modern rounds is sealed with a key of one process: affinity brings it back to that one."""

    async def agree(context: Any, params: ElicitRequestParams) -> ElicitResult:
        return ElicitResult(action="accept", content={"ok": True})

    async with Client(f"{entrance.origin}/pinned/mcp", mode=MODERN, elicitation_callback=agree) as client:
        for _ in range(5):
            result = await client.call_tool("test_input_required_result_request_state", {})
            assert result.content[0].text == "state-ok"


async def test_a_session_outlives_a_restart_of_the_proxy(instances: dict[str, Running], tmp_path: Path):
    """Nothing about a session is kept in the proxy's memory: the next process carries it on."""
    with proxy(tmp_path, _servers(instances), routes=_routes()) as before:
        async with raw_client(f"{before.origin}/pair/mcp") as client:
            await client.initialize()
            headers = client.headers
    with proxy(tmp_path, _servers(instances), routes=_routes()) as after:
        async with raw_client(f"{after.origin}/pair/mcp") as client:
            client.headers = headers
            for number in range(4):
                async with client.call("echo", {"message": "on"}, number) as answer:
                    assert answer.status == 200
                    *_, (_, message) = await first_events(answer, 2)
                    assert message is not None
                    assert message["result"]["content"][0]["text"] == "on"


@pytest.fixture
def bereaved(instances: dict[str, Running], tmp_path: Path) -> Iterator[tuple[Running, Running]]:
    """A proxy whose first server, which `priority` prefers, is about to die, and that server."""
    with ExitStack() as stack:
        doomed = stack.enter_context(fixture_server(tmp_path))
        servers = _servers({"a": doomed, "b": instances["b"]})
        yield stack.enter_context(proxy(tmp_path, servers, routes=_routes("priority"))), doomed


async def test_a_session_whose_instance_died_answers_404_so_that_its_client_starts_again(
    bereaved: tuple[Running, Running],
):
    """404 is the status that makes clients initialize anew (MCP 2025-11-25 transports); 502 would make them give up."""
    entrance, doomed = bereaved
    async with raw_client(f"{entrance.origin}/pair/mcp") as client:
        await client.initialize()
        doomed.process.kill()
        doomed.process.wait()
        async with client.post("tools/list", {}, 1) as answer:
            assert answer.status == 404
        async with client.stream() as answer:
            assert answer.status == 404
        async with client.session.delete(client.url, headers=client.headers) as answer:
            assert answer.status == 404


@pytest.mark.parametrize("mode", ["legacy", "auto", MODERN])
async def test_a_new_client_never_lands_on_an_instance_that_died(bereaved: tuple[Running, Running], mode: str):
    """A connection that cannot be made costs nothing: the request goes to the next server before a byte left."""
    entrance, doomed = bereaved
    doomed.process.kill()
    doomed.process.wait()
    async with _client(entrance, mode) as client:
        result = await client.call_tool("echo", {"message": "alive"})

    assert result.content[0].text == "alive"


@pytest.mark.parametrize("mode", ["legacy", "sse", MODERN])
async def test_large_arguments_and_results_pass_whole(entrance: Running, mode: str):
    """Three megabytes up and one down (the most that the client takes), in many pieces, arrive as they were sent."""
    echoed = "".join(f"{number:07d} " for number in range(125_000))
    ignored = "x" * 3_000_000
    async with _client(entrance, mode) as client:
        result = await client.call_tool("echo", {"message": echoed, "ignored": ignored})

    assert result.content[0].text == echoed
