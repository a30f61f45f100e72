"""No health check opens a session: counted at SDK servers of both eras, which open one for a client the same way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import uvicorn
from mcp.server.lowlevel import Server as SdkServer
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from proxy.config.models import Server
from proxy.dataplane import tcp
from proxy.dataplane.probe import Probe
from tests.acceptance.clients import RawClient
from tests.harness import free_port

_ROUNDS = 5
_PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


def probe(url: str, transport: str = "streamable_http", **check: Any) -> Probe:
    """As the health checks make it."""
    server = Server.model_validate({"url": url, "transport": transport, "health_check": check})
    assert server.health_check is not None
    return Probe(server, server.health_check, tcp.new_socket, None)


class Sessions:
    """A Python SDK server of both eras, and how often it began a session, kept or not."""

    def __init__(self, url: str, manager: StreamableHTTPSessionManager) -> None:
        self.url = url
        self.manager = manager
        self.begun = 0
        admit = manager._admit_session

        def counting(*arguments: Any) -> Any:
            self.begun += 1
            return admit(*arguments)

        vars(manager)["_admit_session"] = counting

    @property
    def open(self) -> int:
        return len(self.manager._server_instances)


@asynccontextmanager
async def python_sdk() -> AsyncIterator[Sessions]:
    """Serves in this process, so that its sessions can be counted."""
    server: SdkServer[Any] = SdkServer("counted")
    port = free_port()
    app = server.streamable_http_app()
    serving = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=1))
    task = asyncio.create_task(serving.serve())
    try:
        while not serving.started:
            await asyncio.sleep(0.01)
        yield Sessions(f"http://127.0.0.1:{port}/mcp", server.session_manager)
    finally:
        serving.should_exit = True
        await task


@pytest.mark.parametrize(
    ("era", "check"), [("", {}), ("legacy", {}), ("", {"kind": "http"}), ("", {"kind": "tcp"})], ids=str
)
async def test_a_python_server_begins_no_session_for_a_check(era: Any, check: dict[str, Any]) -> None:
    """Of either era, and whatever the kind. Asked without a session id it begins one even for a request it refuses."""
    async with python_sdk() as sdk:
        asked = probe(sdk.url, **check)
        asked.era = era
        for _ in range(_ROUNDS):
            result = await asked.ask()
            assert result.ok, result
        assert (sdk.begun, sdk.open) == (0, 0)
        assert asked.era == (era or ("modern" if asked.kind == "mcp" else ""))
        async with aiohttp.ClientSession() as session:
            fields = {"Accept": "application/json, text/event-stream"}
            async with session.post(sdk.url, json=_PING, headers=fields) as answer:
                assert answer.status == 400
            assert sdk.begun == 1
            await RawClient(session, sdk.url).initialize()
        assert (sdk.begun, sdk.open) == (2, 1)


@pytest.mark.usefixtures("everything")
@pytest.mark.parametrize("kind", ["mcp", "http", "tcp"])
async def test_a_legacy_node_server_begins_no_session_for_a_check(
    everything_ports: dict[str, int], scratch: Any, kind: str
) -> None:
    """Neither on streamable HTTP nor on the transport of 2024-11-05, where a GET would begin one."""
    at = {name: f"http://127.0.0.1:{port}" for name, port in everything_ports.items()}
    asked = [
        probe(f"{at['everything']}/mcp", kind=kind),
        probe(f"{at['everything-sse']}/sse", transport="sse", kind=kind),
    ]
    logs = [(scratch / "everything.log", "Session initialized"), (scratch / "everything-sse.log", "Client Connected")]

    def begun() -> list[int]:
        return [path.read_text().count(line) for path, line in logs]

    before = begun()
    for _ in range(_ROUNDS):
        for each in asked:
            result = await each.ask()
            assert result.ok, result
    if kind == "mcp":
        assert [each.era for each in asked] == ["legacy", "legacy"]
    async with aiohttp.ClientSession() as session, asyncio.timeout(30):
        await RawClient(session, f"{at['everything']}/mcp").initialize()
        async with session.get(f"{at['everything-sse']}/sse") as stream:
            await stream.content.readline()
        while not all(now > then for now, then in zip(begun(), before, strict=True)):
            await asyncio.sleep(0.02)
    assert begun() == [count + 1 for count in before]  # those of the two clients, and lines come in order
