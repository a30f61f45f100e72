"""How the tests connect: the official Python client in each of its modes, and plain HTTP for what it cannot express."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import aiohttp
from mcp import Client
from mcp.client.sse import sse_client

from tests.acceptance.conftest import Stack

MODERN: Final = "2026-07-28"
LEGACY: Final = "2025-11-25"
#: Every way the Python client can reach the fixture; `sse` is the transport of 2024-11-05.
MODES: Final = ("auto", "legacy", MODERN, "sse")
_BOTH_TYPES: Final = "application/json, text/event-stream"


def connect(stack: Stack, mode: str, server: str = "fixture", **callbacks: Any) -> Client:
    """The official client through the proxy; `async with` connects it."""
    if mode == "sse":
        return Client(sse_client(stack.url(f"{server}-sse")), mode="legacy", read_timeout_seconds=20, **callbacks)
    return Client(stack.url(server), mode=mode, read_timeout_seconds=20, **callbacks)


async def journal_has(stack: Stack, entry: str, within_s: float) -> bool:
    """Whether the fixture's own journal, asked directly, holds `entry` before the time is over."""
    deadline = time.monotonic() + within_s
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{stack.fixture.origin}/journal") as answer:
                if entry in await answer.json():
                    return True
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.02)


class RawClient:
    """Plain HTTP to one endpoint, with the headers of a session: for dropping streams and reading event ids."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url
        self.headers = {"Accept": _BOTH_TYPES, "Content-Type": "application/json"}

    async def initialize(self) -> None:
        """Shake hands as a 2025-11-25 client; later requests carry the session id that came back."""
        params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
        async with self.post("initialize", params, 0) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()
            self.headers |= {"MCP-Protocol-Version": LEGACY, "Mcp-Session-Id": answer.headers["Mcp-Session-Id"]}
        async with self.post("notifications/initialized", {}, None) as answer:
            assert answer.status == 202

    def post(self, method: str, params: dict[str, Any], request_id: int | None, **headers: str) -> Any:
        """A JSON-RPC request, or a notification without an id; `async with` gives the answer once its head is here."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if request_id is not None:
            message["id"] = request_id
        return self.session.post(self.url, data=json.dumps(message), headers=self.headers | headers)

    def call(self, tool: str, arguments: dict[str, Any], request_id: int = 1) -> Any:
        """A legacy tools/call that asks for progress."""
        params = {"name": tool, "arguments": arguments, "_meta": {"progressToken": request_id}}
        return self.post("tools/call", params, request_id)

    def call_modern(self, tool: str, arguments: dict[str, Any], request_id: int = 1) -> Any:
        """A self-contained tools/call of 2026-07-28 that asks for progress."""
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "progressToken": request_id,
        }
        headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": tool}
        return self.post("tools/call", {"name": tool, "arguments": arguments, "_meta": meta}, request_id, **headers)

    def stream(self, last_event_id: str | None = None) -> Any:
        """GET: the session's own stream, or the rest of a broken one after `last_event_id`."""
        headers = {"Last-Event-ID": last_event_id} if last_event_id is not None else {}
        return self.session.get(self.url, headers=self.headers | {"Accept": "text/event-stream"} | headers)


@asynccontextmanager
async def raw_client(url: str) -> AsyncIterator[RawClient]:
    """A `RawClient` whose connections are all its own, so that leaving a response closes its connection."""
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True), timeout=timeout) as session:
        yield RawClient(session, url)


async def first_events(answer: aiohttp.ClientResponse, wanted: int) -> list[tuple[str, dict[str, Any] | None]]:
    """The first `wanted` events of a stream, or fewer if it ends before; the rest stays unread."""
    found: list[tuple[str, dict[str, Any] | None]] = []
    async with aclosing(events(answer)) as arriving:
        async for event in arriving:
            found.append(event)
            if len(found) == wanted:
                break
    return found


async def events(answer: aiohttp.ClientResponse) -> AsyncGenerator[tuple[str, dict[str, Any] | None], None]:
    """The (id, message) pairs of an event stream as they arrive; priming events have no message."""
    identifier, payload = "", ""
    async for line_bytes in answer.content:
        line = line_bytes.decode().rstrip("\r\n")
        if line.startswith("id:"):
            identifier = line[3:].strip()
        elif line.startswith("data:"):
            payload += line[5:].strip()
        elif not line and (identifier or payload):
            yield identifier, json.loads(payload) if payload else None
            identifier, payload = "", ""
