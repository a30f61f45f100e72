"""Streams that break, and sessions: what must happen at the server when a client goes away, seen from both ends."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.acceptance.clients import RawClient, events, first_events, journal_has, raw_client
from tests.acceptance.conftest import Stack

SLOW = {"steps": 8, "pause": 0.1}


async def test_a_dropped_stream_resumes_after_the_last_event_without_loss_or_repeat(stack: Stack):
    """The client cuts its response stream half-way and later asks for the rest by Last-Event-ID: each comes once."""
    async with raw_client(stack.url("fixture")) as client:
        await client.initialize()
        async with client.call("slow_steps", {"label": "resumed", **SLOW}) as answer:
            before = await first_events(answer, 4)
        assert await journal_has(stack, "finished:resumed", within_s=20)
        async with client.stream(last_event_id=before[-1][0]) as answer:
            assert answer.status == 200
            after = []
            async for _, message in events(answer):
                after.append(message)
                if message is not None and "result" in message:
                    break

    messages = [message for _, message in before] + after
    steps = [m["params"]["progress"] for m in messages if m is not None and m.get("method") == "notifications/progress"]
    assert steps == list(range(1, 9))
    assert after[-1] is not None
    assert after[-1]["result"]["content"][0]["text"] == "resumed: 8 steps"


async def test_a_legacy_tool_runs_on_when_its_client_goes_away(stack: Stack):
    """Up to 2025-11-25 a disconnect is not a cancellation: the proxy closes the stream and cancels nothing."""
    async with raw_client(stack.url("fixture")) as client:
        await client.initialize()
        async with client.call("slow_steps", {"label": "left-alone", **SLOW}) as answer:
            await first_events(answer, 2)
        assert await journal_has(stack, "finished:left-alone", within_s=20)


async def test_a_modern_tool_stops_at_once_when_its_client_goes_away(stack: Stack):
    """In 2026-07-28 closing the stream is the cancellation: a tool that says nothing for 30 s still learns of it."""
    async with raw_client(stack.url("fixture")) as client:
        async with client.call_modern("slow_steps", {"label": "hung-up", "steps": 2, "pause": 30}) as answer:
            assert answer.status == 200
            ((_, progress),) = await first_events(answer, 1)
            assert progress is not None
        assert await journal_has(stack, "cancelled:hung-up", within_s=10)


async def _opens(client: RawClient) -> bool:
    """Whether the standing stream is free; it is left again."""
    async with client.stream() as answer:
        assert answer.status in (200, 409)
        return answer.status == 200


async def test_the_standing_stream_can_be_opened_again_right_after_it_broke(stack: Stack):
    """A server allows one standing stream per session: it is free again because the proxy gave up the old one."""
    async with raw_client(stack.url("fixture")) as client:
        await client.initialize()
        for _ in range(3):
            async with asyncio.timeout(10):
                while not await _opens(client):
                    await asyncio.sleep(0.02)


async def test_the_head_of_a_stream_arrives_before_its_first_event(stack: Stack):
    """A standing stream is silent at first: its status must not wait for a body."""
    async with raw_client(stack.url("fixture")) as client:
        await client.initialize()
        began = time.monotonic()
        async with client.stream() as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert time.monotonic() - began < 10


async def test_an_ended_session_answers_404_so_that_clients_start_again(stack: Stack):
    """DELETE ends the session at the server; afterwards its id is refused with the status that means: initialize."""
    async with raw_client(stack.url("fixture")) as client:
        await client.initialize()
        async with client.session.delete(client.url, headers=client.headers) as answer:
            assert answer.status == 200
        async with client.post("tools/list", {}, 1) as answer:
            assert answer.status == 404


@pytest.mark.parametrize("session_id", ["made-up", "x" * 300])
async def test_an_unknown_session_answers_404(stack: Stack, session_id: str):
    """A session id that nobody minted is no way in, and no 400 or 500 either."""
    async with raw_client(stack.url("fixture")) as client:
        client.headers["Mcp-Session-Id"] = session_id
        client.headers["MCP-Protocol-Version"] = "2025-11-25"
        async with client.post("tools/list", {}, 1) as answer:
            assert answer.status == 404


async def test_two_clients_of_one_server_hear_only_their_own_streams(stack: Stack):
    """Each message of a server goes to exactly one stream: no fan-out, no crossing of sessions."""
    async with raw_client(stack.url("fixture")) as one, raw_client(stack.url("fixture")) as two:
        await one.initialize()
        await two.initialize()
        assert one.headers["Mcp-Session-Id"] != two.headers["Mcp-Session-Id"]
        async with one.stream() as hearing, two.stream() as silent:
            async with one.call("test_trigger_tool_change", {}) as answer:
                await answer.read()
            async with asyncio.timeout(20):
                ((_, heard),) = await first_events(hearing, 1)
            assert heard == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await first_events(silent, 1)
