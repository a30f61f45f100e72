"""Real servers and the real proxy, started once per session, for tests that speak to it as any client does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.npm import Node
from tests.conformance.processes import Running, fixture_server, free_port, proxy, running
from tests.conformance.require import require_node

_EVERYTHING = "@modelcontextprotocol/server-everything"


@dataclass(frozen=True, slots=True)
class Stack:
    """The proxy and what stands behind it. Each server is reached at /NAME/mcp."""

    proxy: Running
    fixture: Running

    def url(self, server: str) -> str:
        """Where a client finds this server behind the proxy."""
        return f"{self.proxy.origin}/{server}/mcp"


@pytest.fixture(scope="session")
def node() -> Node:
    """Node and the npm packages; skips without npm, fails without it in CI."""
    return require_node()


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs and the proxy's configuration."""
    return tmp_path_factory.mktemp("acceptance")


@pytest.fixture(scope="session")
def everything_ports() -> dict[str, int]:
    """Ports of server-everything, known before it runs: the proxy is configured first."""
    return {"everything": free_port(), "everything-sse": free_port()}


@pytest.fixture(scope="session")
def stack(scratch: Path, everything_ports: dict[str, int]) -> Iterator[Stack]:
    """The proxy with default settings in front of the fixture and server-everything, both transports of each."""
    with ExitStack() as running_processes:
        fixture = running_processes.enter_context(fixture_server(scratch))
        servers = {
            "fixture": {"url": f"{fixture.origin}/mcp"},
            "fixture-sse": {"url": f"{fixture.origin}/sse", "transport": "sse"},
            "everything": {"url": f"http://127.0.0.1:{everything_ports['everything']}/mcp"},
            "everything-sse": {
                "url": f"http://127.0.0.1:{everything_ports['everything-sse']}/sse",
                "transport": "sse",
            },
        }
        yield Stack(running_processes.enter_context(proxy(scratch, servers)), fixture)


@pytest.fixture(scope="session")
def everything(node: Node, scratch: Path, everything_ports: dict[str, int]) -> Iterator[None]:
    """npm's server-everything in its streamable HTTP and its SSE mode."""
    with ExitStack() as running_processes:
        for name, mode in (("everything", "streamableHttp"), ("everything-sse", "sse")):
            port = everything_ports[name]
            command = node.script(_EVERYTHING, "dist/index.js", mode)
            running_processes.enter_context(running(name, command, port, scratch, {"PORT": str(port)}))
        yield
