"""One proxy process for most tests, in front of one scripted upstream: each test sets the script it needs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.harness import (
    UNENFORCED,
    ProxyProcess,
    RawClient,
    ScriptedUpstream,
    free_port,
    running_proxy,
    scripted_upstream,
)
from tests.proofs.load import Clients

#: The scripted upstream of this session; its port is fixed so that the proxy's configuration can name it first.
UPSTREAM_PORT = free_port()


@pytest.fixture(scope="session")
def proxy() -> Iterator[ProxyProcess]:
    """A proxy with one server `up`, and `raw`, a route to it that inspects nothing.

    Tests make the server fail on purpose, and must not close it to those that follow: its breaker refuses nothing.
    """
    up = {"url": f"http://127.0.0.1:{UPSTREAM_PORT}/mcp", "breaker": UNENFORCED}
    ws = {"url": f"ws://127.0.0.1:{UPSTREAM_PORT}/ws", "transport": "websocket", "breaker": UNENFORCED}
    config = {
        "servers": {"up": up, "ws": ws},
        "routes": [{"name": "raw", "path": "/raw", "servers": "up", "inspect": "none", "sessions": "passthrough"}],
    }
    with running_proxy(config) as process:
        yield process


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """The upstream behind `proxy`, on its own loop's connections; answers an empty result until told otherwise."""
    async with scripted_upstream(port=UPSTREAM_PORT) as each:
        yield each


@pytest.fixture
async def client(proxy: ProxyProcess) -> AsyncIterator[RawClient]:
    """A connection to the proxy."""
    each = await RawClient.connect(proxy.port)
    yield each
    await each.close()


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    """Connections that are all closed when the test is over."""
    each = Clients()
    yield each
    await each.close()
