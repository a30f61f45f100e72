"""The official clients with API keys, through a proxy that lets nobody else in: what they see, may do, and are refused.

Python's and JavaScript's, in each of their modes. A key that is revoked ends what its client has open.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import httpx2
import pytest
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from tests.acceptance.clients import LEGACY, MODERN, events, first_events, raw_client
from tests.conformance.npm import Node
from tests.conformance.processes import Running, fixture_server
from tests.integration.identified import Identified, Key, identified

_VISIT: Final = Path(__file__).resolve().parent / "node" / "keyed.mjs"
_VISIT_S: Final = 60
#: What the narrow key may call, all of it in its lists.
ALLOWED: Final = ["echo", "slow_steps"]
MODES: Final = (("auto", MODERN), ("legacy", LEGACY), (MODERN, MODERN), ("sse", LEGACY))
SDKS: Final = ("sdk-http", "sdk-sse", "client-legacy", "client-auto")


class Guarded:
    """The proxy in front of the fixture, whose lists are filtered, and two keys."""

    def __init__(self, world: Identified, fixture: Running) -> None:
        self.world = world
        self.fixture = fixture
        self.wide = world.key("acme")
        self.narrow = world.key("acme", allowed_tools=ALLOWED)
        self.reader = world.key("acme", scopes=["proxy", "read"])
        world.settle()

    def url(self, mode: str = "") -> str:
        return f"{self.world.proxy.url}/{'fixture-sse/sse' if 'sse' in mode else 'fixture/mcp'}"


@pytest.fixture(scope="module")
def guarded(scratch: Path) -> Iterator[Guarded]:
    """Shared by both tenants; anonymous clients are refused."""
    with fixture_server(scratch) as fixture:
        servers = {
            "fixture": {"url": f"{fixture.origin}/mcp"},
            "fixture-sse": {"url": f"{fixture.origin}/sse", "transport": "sse"},
        }
        routes = [
            {"name": "filtered", "path": "/fixture/mcp", "servers": "fixture", "filter_lists": True},
            {"name": "filtered-sse", "path": "/fixture-sse/sse", "servers": "fixture-sse", "filter_lists": True},
        ]
        with identified(servers=servers, routes=routes) as world:
            yield Guarded(world, fixture)


@asynccontextmanager
async def connect(guarded: Guarded, mode: str, key: str, **callbacks: Any) -> AsyncIterator[Client]:
    """The Python client with a key as bearer."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with AsyncExitStack() as stack:
        if mode == "sse":
            transport: Any = sse_client(guarded.url(mode), headers=headers)
        else:
            timeout = httpx2.Timeout(20, read=60)
            http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=timeout))
            transport = streamable_http_client(guarded.url(mode), http_client=http)
        client = Client(transport, mode="legacy" if mode == "sse" else mode, read_timeout_seconds=20, **callbacks)
        yield await stack.enter_async_context(client)


# --- the Python client -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "revision"), MODES)
async def test_a_client_with_a_key_sees_and_calls_what_the_key_allows(guarded: Guarded, mode: str, revision: str):
    """In every mode: the list is its own, a call passes, one that is not in the list is refused by its own number."""
    async with connect(guarded, mode, guarded.narrow.text) as client:
        assert client.protocol_version == revision
        assert sorted(tool.name for tool in (await client.list_tools()).tools) == ALLOWED
        echoed: Any = await client.call_tool("echo", {"message": "grüße"})
        assert echoed.content[0].text == "grüße"
        if mode != "sse":  # a refused POST of legacy SSE has no answer on the stream, and the client waits for one
            with pytest.raises(MCPError) as refused:
                await client.call_tool("test_simple_text", {})
            assert refused.value.error.code == 403
            again: Any = await client.call_tool("echo", {"message": "still here"})
            assert again.content[0].text == "still here"


@pytest.mark.parametrize(("mode", "revision"), MODES)
async def test_a_wide_key_sees_everything_and_a_reading_one_calls_nothing(guarded: Guarded, mode: str, revision: str):
    """Resources and prompts are for readers, too; tools are of no use to them."""
    async with connect(guarded, mode, guarded.wide.text) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names > {*ALLOWED, "test_simple_text"}
    async with connect(guarded, mode, guarded.reader.text) as client:
        assert (await client.list_tools()).tools == []
        assert (await client.list_resources()).resources != []
        assert (await client.list_prompts()).prompts != []
        read: Any = await client.read_resource("test://template/42/data")
        assert "42" in read.contents[0].text


@pytest.mark.parametrize(("mode", "revision"), MODES)
async def test_progress_is_heard_while_a_tool_runs(guarded: Guarded, mode: str, revision: str):
    """Filtering lists holds nothing else up."""
    heard: list[tuple[float, float]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        heard.append((done, time.monotonic()))

    async with connect(guarded, mode, guarded.narrow.text) as client:
        arguments = {"label": f"keyed-{mode}", "steps": 4, "pause": 0.1}
        await client.call_tool("slow_steps", arguments, progress_callback=progress)
    assert [done for done, _ in heard] == [1, 2, 3, 4]
    assert heard[-1][1] - heard[0][1] > 0.2


@pytest.mark.parametrize(("mode", "revision"), MODES)
async def test_a_client_without_a_good_key_gets_nowhere(guarded: Guarded, mode: str, revision: str):
    """Neither without one nor with one that nobody has; what the server is, it does not learn."""
    for key in ("", guarded.narrow.text[:-1] + "x", "mcpm_nothing"):
        with pytest.raises(Exception) as failed:
            async with asyncio.timeout(15):
                async with connect(guarded, mode, key) as client:
                    await client.list_tools()  # a client that is told its revision says nothing before
        assert "conformance-fixture" not in str(failed.value)


# --- the JavaScript clients ------------------------------------------------------------------------------------------


class Visits:
    """Runs each visit once and remembers its report."""

    def __init__(self, node: Node, guarded: Guarded) -> None:
        self._node = node
        self._guarded = guarded
        self._reports: dict[tuple[str, str], dict[str, Any]] = {}

    def report(self, sdk: str, key: str) -> dict[str, Any]:
        """What happened on the visit of this SDK with this key."""
        if (sdk, key) not in self._reports:
            command = [str(self._node.binary), str(_VISIT), sdk, self._guarded.url(sdk), key]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_VISIT_S, check=False)
            assert done.returncode == 0, f"{done.stdout}{done.stderr}"
            self._reports[sdk, key] = json.loads(done.stdout.splitlines()[-1])
        return self._reports[sdk, key]


@pytest.fixture(scope="module")
def visits(node: Node, guarded: Guarded) -> Visits:
    """All visits of this module."""
    return Visits(node, guarded)


@pytest.mark.parametrize("sdk", SDKS)
def test_a_javascript_client_with_a_key_does_what_the_key_allows(visits: Visits, guarded: Guarded, sdk: str):
    """Its list is filtered, its call passes, the other is refused with 403, and progress arrives in order."""
    report = visits.report(sdk, guarded.narrow.text)
    assert report["connected"] is True
    assert report["tools"] == ALLOWED
    assert report["echo"] == "grüße"
    assert "403" in json.dumps(report["refused"]) or "Not allowed" in json.dumps(report["refused"])
    assert report["progress"] == [1, 2, 3]
    assert report["closed"] is True


@pytest.mark.parametrize("sdk", SDKS)
def test_a_javascript_client_without_a_good_key_gets_nowhere(visits: Visits, sdk: str):
    """It learns the status, and that is all."""
    report = visits.report(sdk, "mcpm_nothing")
    assert report.keys() == {"connected"}
    assert "401" in json.dumps(report) or "Unauthorized" in json.dumps(report)


# --- revoked in the middle -------------------------------------------------------------------------------------------


async def revoke(guarded: Guarded, key: Key) -> float:
    """Revoke a key; when that was, monotonic seconds."""
    statement = "UPDATE enhanced_api_keys SET revoked_at = now() WHERE id = $1"
    await asyncio.to_thread(guarded.world.sql, statement, key.id)
    return time.monotonic()


async def new_key(guarded: Guarded) -> Key:
    key = await asyncio.to_thread(guarded.world.key, "acme")
    await asyncio.to_thread(guarded.world.settle)
    return key


async def test_a_stream_ends_when_its_key_is_revoked(guarded: Guarded):
    """Within five seconds, in the middle of an answer and between two events; then nothing works any more."""
    key = await new_key(guarded)
    async with raw_client(guarded.url()) as client:
        client.headers["X-API-Key"] = key.text
        await client.initialize()
        arguments = {"label": "revoked", "steps": 600, "pause": 0.1}
        async with client.stream() as standing, client.call("slow_steps", arguments) as running:
            assert (standing.status, running.status) == (200, 200)
            await first_events(running, 3)
            revoked_at = await revoke(guarded, key)
            for answer in (running, standing):
                with pytest.raises((aiohttp.ClientError, ConnectionError)):
                    async for _ in events(answer):
                        pass
            assert time.monotonic() - revoked_at < 5
        async with client.post("tools/list", {}, 7) as refused:
            assert refused.status == 401


async def test_a_client_whose_key_is_revoked_is_told(guarded: Guarded):
    """A running call of the official client ends in an error, and so does the next one."""
    key = await new_key(guarded)
    begun = asyncio.Event()

    async def progress(done: float, total: float | None, message: str | None) -> None:
        begun.set()

    async with connect(guarded, MODERN, key.text) as client:
        arguments = {"label": "told", "steps": 600, "pause": 0.1}
        running = asyncio.create_task(client.call_tool("slow_steps", arguments, progress_callback=progress))
        await asyncio.wait_for(begun.wait(), 10)
        revoked_at = await revoke(guarded, key)
        with pytest.raises(MCPError):
            await asyncio.wait_for(running, 8)
        assert time.monotonic() - revoked_at < 5
        with pytest.raises(MCPError):  # a 401 is sent before the message is read: it has no id, and the SDK no words
            await client.call_tool("echo", {"message": "?"})
