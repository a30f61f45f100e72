"""The official Python client through the proxy, in every mode it has, against a server of every revision."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from mcp.client.subscriptions import ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequestParams,
    ElicitResult,
    TextContent,
    ToolListChangedNotification,
)

from tests.acceptance.clients import LEGACY, MODERN, MODES, connect, journal_has
from tests.acceptance.conftest import Stack


def _text(result: Any) -> str:
    return str(result.content[0].text)


async def _sample(context: Any, params: CreateMessageRequestParams) -> CreateMessageResult:
    return CreateMessageResult(role="assistant", content=TextContent(type="text", text="Paris"), model="test")


async def _elicit(context: Any, params: ElicitRequestParams) -> ElicitResult:
    return ElicitResult(action="accept", content={"username": "alice", "email": "a@example.com", "name": "Alice"})


@pytest.mark.parametrize(
    ("mode", "revision"), [("auto", MODERN), ("legacy", LEGACY), (MODERN, MODERN), ("sse", LEGACY)]
)
async def test_every_mode_negotiates_behind_the_proxy_what_it_would_negotiate_directly(
    stack: Stack, mode: str, revision: str
):
    """The proxy adds no version of its own: each mode ends at the revision that the server offers it."""
    async with connect(stack, mode) as client:
        assert client.protocol_version == revision
        assert client.server_info is None or client.server_info.name == "conformance-fixture"


@pytest.mark.parametrize("mode", MODES)
async def test_tools_resources_and_prompts_work_in_every_mode(stack: Stack, mode: str):
    """Lists, calls and reads return exactly what the server holds, text outside ASCII included."""
    async with connect(stack, mode) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        resources = {str(resource.uri) for resource in (await client.list_resources()).resources}
        echoed = await client.call_tool("echo", {"message": "grüße, 世界 \U0001f980"})
        failed = await client.call_tool("test_error_handling", {})
        read = await client.read_resource("test://template/42/data")
        prompt = await client.get_prompt("test_prompt_with_arguments", {"arg1": "one", "arg2": "two"})

    assert {"echo", "slow_steps", "test_image_content"} <= tools
    assert "test://static-text" in resources
    assert _text(echoed) == "grüße, 世界 \U0001f980"
    assert failed.is_error
    assert '"id": "42"' in read.contents[0].text
    assert "arg1='one', arg2='two'" in prompt.messages[0].content.text


@pytest.mark.parametrize("mode", MODES)
async def test_progress_arrives_in_order_and_while_the_tool_still_runs(stack: Stack, mode: str):
    """Notifications reach the client at the pace of the server: a hop that buffers would deliver them together."""
    seen: list[tuple[float, float]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, time.monotonic()))

    async with connect(stack, mode) as client:
        arguments = {"label": f"progress-{mode}", "steps": 5, "pause": 0.1}
        result = await client.call_tool("slow_steps", arguments, progress_callback=note)

    assert _text(result) == f"progress-{mode}: 5 steps"
    assert [progress for progress, _ in seen] == [1, 2, 3, 4, 5]
    assert seen[-1][1] - seen[0][1] > 0.25, "the server took 0.4 s between the first and the last"


@pytest.mark.parametrize("mode", MODES)
async def test_a_call_that_was_answered_is_recorded_as_such(stack: Stack, mode: str):
    """Although the client hangs up on a stream as soon as it has its answer, without waiting for the end."""
    start = stack.proxy.log.stat().st_size
    async with connect(stack, mode) as client:
        for _ in range(5):
            await client.call_tool("slow_steps", {"label": "", "steps": 2, "pause": 0})

    def outcomes() -> list[str]:
        lines = map(json.loads, stack.proxy.log.read_bytes()[start:].splitlines())
        return [line["outcome"] for line in lines if line.get("target") == "slow_steps"]

    async with asyncio.timeout(10):
        while len(found := outcomes()) < 5:
            await asyncio.sleep(0.05)
    assert found == ["ok"] * 5


@pytest.mark.parametrize("mode", ["legacy", "sse"])
async def test_the_server_can_ask_the_client_in_the_middle_of_a_call(stack: Stack, mode: str):
    """Sampling and elicitation travel down the open stream and their answers up in requests of their own."""
    async with connect(stack, mode, sampling_callback=_sample, elicitation_callback=_elicit) as client:
        sampled = await client.call_tool("test_sampling", {"prompt": "capital of France?"})
        elicited = await client.call_tool("test_elicitation", {"message": "who?"})

    assert _text(sampled) == "LLM response: Paris"
    assert "action=accept" in _text(elicited)
    assert "alice" in _text(elicited)


@pytest.mark.parametrize("mode", ["auto", MODERN])
async def test_modern_rounds_of_questions_pass_with_their_state_unchanged(stack: Stack, mode: str):
    """Multi-round answers of 2026-07-28 work: the sealed request state comes back to the server bit for bit."""
    async with connect(stack, mode, sampling_callback=_sample, elicitation_callback=_elicit) as client:
        greeted = await client.call_tool("test_input_required_result_elicitation", {})
        stated = await client.call_tool("test_input_required_result_request_state", {})
        twice = await client.call_tool("test_input_required_result_multi_round", {})

    assert _text(greeted) == "Hello, Alice!"
    assert _text(stated) == "state-ok"
    assert _text(twice).startswith("Alice likes")


@pytest.mark.parametrize("mode", ["legacy", "sse"])
async def test_a_change_of_the_tool_list_reaches_a_legacy_client_on_its_own_stream(stack: Stack, mode: str):
    """Unsolicited notifications pass on the standing stream, not on the response of a call."""
    changed = asyncio.Event()

    async def note(message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            changed.set()

    async with connect(stack, mode, message_handler=note) as client:
        for _ in range(20):  # the client opens its stream in the background; before that there is nobody to tell
            await client.call_tool("test_trigger_tool_change", {})
            try:
                await asyncio.wait_for(changed.wait(), 0.25)
                break
            except TimeoutError:
                continue

    assert changed.is_set()


async def test_a_change_of_the_tool_list_reaches_a_modern_client_that_listens(stack: Stack):
    """A subscriptions/listen stream stays open through the proxy and carries the event at once."""
    async with connect(stack, MODERN) as client, client.listen(tools_list_changed=True) as subscription:
        await client.call_tool("test_trigger_tool_change", {})
        async with asyncio.timeout(5):
            event = await anext(aiter(subscription))

    assert isinstance(event, ToolsListChanged)


@pytest.mark.parametrize("mode", MODES)
async def test_giving_up_a_call_stops_the_tool_at_the_server(stack: Stack, mode: str):
    """Cancellation arrives whichever way the revision says it: as a notification, or as a closed stream."""
    label = f"given-up-{mode}"
    running = asyncio.Event()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        running.set()

    async with connect(stack, mode) as client:
        arguments = {"label": label, "steps": 200, "pause": 0.05}
        call = asyncio.ensure_future(client.call_tool("slow_steps", arguments, progress_callback=note))
        async with asyncio.timeout(10):
            await running.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await journal_has(stack, f"cancelled:{label}", within_s=3)
        assert _text(await client.call_tool("echo", {"message": "still here"})) == "still here"


@pytest.mark.parametrize("mode", MODES)
async def test_answers_of_concurrent_calls_never_get_mixed_up(stack: Stack, mode: str):
    """Fifty calls at once on one connection: each gets its own answer."""
    async with connect(stack, mode) as client:
        results = await asyncio.gather(*(client.call_tool("echo", {"message": str(n)}) for n in range(50)))

    assert [_text(result) for result in results] == [str(n) for n in range(50)]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_an_error_of_the_server_reaches_the_client_as_the_server_worded_it(stack: Stack, mode: str):
    """Code, message and data of a JSON-RPC error are the server's, not the proxy's."""
    async with connect(stack, mode) as client:
        with pytest.raises(MCPError) as caught:
            await client.read_resource("test://nothing-here")

    assert caught.value.error.code == -32602
    assert caught.value.error.message == "Resource not found"
    assert caught.value.error.data == {"uri": "test://nothing-here"}


@pytest.mark.parametrize("mode", ["auto", "legacy", "sse"])
async def test_a_server_of_an_older_generation_is_reached_just_as_well(stack: Stack, everything: None, mode: str):
    """server-everything knows 2025-11-25 at most: the client finds that out through the proxy and falls back."""
    async with connect(stack, mode, server="everything") as client:
        echoed = await client.call_tool("echo", {"message": "hello"})
        assert client.protocol_version == LEGACY

    assert _text(echoed) == "Echo: hello"
