"""OAuth through the proxy: clients that know only our URL find the server's documents, and challenges pass."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.harness import (
    ProxyProcess,
    RawClient,
    ScriptedUpstream,
    Wire,
    free_port,
    json_answer,
    post,
    running_proxy,
    scripted_upstream,
)
from tests.integration.talk import ask, get

PORT = free_port()
DOCUMENT = b'{"resource":"https://mcp.example.com/git/mcp","authorization_servers":["https://login.example.com"]}'
CHALLENGE = 'Bearer resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/git/mcp", error="x"'

CONFIG: dict[str, Any] = {
    "servers": {
        "git": {"url": f"http://127.0.0.1:{PORT}/v1"},
        "root": {"url": f"http://127.0.0.1:{PORT}/"},
        "live": {"url": f"ws://127.0.0.1:{PORT}/socket", "transport": "websocket"},
    },
    "routes": [
        {"name": "alias", "path": "/team/git", "servers": "git"},
        {"name": "pool", "path": "/pool", "servers": ["git", "root"]},
    ],
}
RESOURCE, ISSUER, OPENID = (
    f"/.well-known/{name}"
    for name in ("oauth-protected-resource", "oauth-authorization-server", "openid-configuration")
)


@pytest.fixture(scope="module")
def proxy() -> Iterator[ProxyProcess]:
    """A proxy that knows its public URL."""
    with running_proxy({**CONFIG, "listen": {"public_url": "https://mcp.example.com"}}) as process:
        yield process


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """A server that answers any path with the same document and POSTs with a challenge."""

    async def script(wire: Wire) -> None:
        while request := await wire.request():
            if request.startswith(b"POST"):
                fields = f"WWW-Authenticate: {CHALLENGE}\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
                await wire.send(b"HTTP/1.1 401 Unauthorized\r\n" + fields.encode())
            else:
                await wire.send(json_answer(DOCUMENT))

    async with scripted_upstream(script, PORT) as each:
        yield each


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        (f"{RESOURCE}/git/mcp", f"{RESOURCE}/v1"),
        (f"{ISSUER}/git/mcp", f"{ISSUER}/v1"),
        (f"{OPENID}/git/mcp", f"{OPENID}/v1"),
        (f"/git/mcp{OPENID}", f"/v1{OPENID}"),
        (f"{RESOURCE}/team/git", f"{RESOURCE}/v1"),
        (f"{RESOURCE}/root/mcp", RESOURCE),
        (f"{RESOURCE}/live/mcp", f"{RESOURCE}/socket"),
        (f"{ISSUER}/root/mcp", ISSUER),
        (f"/root/mcp{OPENID}", OPENID),
    ],
)
async def test_the_same_form_of_path_is_asked_upstream(
    proxy: ProxyProcess, upstream: ScriptedUpstream, asked: str, sent: str
) -> None:
    """RFC 9728, RFC 8414 and both forms of OpenID Connect; the document comes back byte for byte."""
    answered = await ask(proxy.port, get(asked, "Origin: http://localhost:3000", "MCP-Protocol-Version: 2025-11-25"))
    assert (answered.status, answered.body) == (200, DOCUMENT)
    (seen,) = upstream.seen
    assert seen.startswith(f"GET {sent} HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\n".encode())


@pytest.mark.parametrize(
    "path", [f"{RESOURCE}/pool", f"{RESOURCE}/none/mcp", RESOURCE, ISSUER, f"{RESOURCE}/git", f"{RESOURCE}/git/mcp/x"]
)
async def test_paths_that_stand_for_no_single_server_are_404(
    proxy: ProxyProcess, upstream: ScriptedUpstream, path: str
) -> None:
    """Nobody guesses whose document was meant."""
    assert (await ask(proxy.port, get(path))).reason == "no_route"
    assert not upstream.seen


async def test_discovery_is_for_reading(proxy: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """A POST is 405 with the methods that work; OPTIONS passes."""
    refused = await ask(proxy.port, post(f"{RESOURCE}/git/mcp"))
    assert (refused.status, refused.fields["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert (await ask(proxy.port, get(f"{RESOURCE}/git/mcp", method="OPTIONS"))).status == 200
    assert [request.split()[0] for request in upstream.seen] == [b"OPTIONS"]


async def test_challenges_pass_untouched(proxy: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """They name the public URL when the server is configured with it; both fields arrive in order."""
    answered = await ask(proxy.port, post("/git/mcp"))
    assert answered.status == 401
    assert answered.reason == ""
    client = await RawClient.connect(proxy.port)
    await client.send(post("/git/mcp"))
    assert f"WWW-Authenticate: {CHALLENGE}\r\nWWW-Authenticate: Basic\r\n".encode() in await client.head()
    await client.close()


@pytest.mark.parametrize("servers", [("git", "root"), ("git",)])
async def test_without_a_public_url_there_is_no_discovery(upstream: ScriptedUpstream, servers: tuple[str, ...]) -> None:
    """And with one server and a public URL the root stands for it, as clients of 2025-03-26 expect."""
    only = {"servers": {name: CONFIG["servers"][name] for name in servers}}
    with running_proxy(only) as proxy:
        assert (await ask(proxy.port, get(f"{RESOURCE}/git/mcp"))).reason == "no_route"
        assert not upstream.seen
        proxy.reload({**only, "listen": {"public_url": "https://mcp.example.com/prefix"}})
        assert (await ask(proxy.port, get(f"{RESOURCE}/prefix/git/mcp"))).status == 200
        assert (await ask(proxy.port, get(RESOURCE))).status == (200 if len(servers) == 1 else 404)
