"""Copies for a shadow server: they arrive, their answers are dropped, and nobody waits for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.harness import (
    CALL,
    PATIENCE_S,
    RESULT,
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
from tests.integration.talk import SSE_HEAD, ask, chunk, event, get, hang, id_of, numbered, values

MAIN, SHADOW, DEAD = free_port(), free_port(), free_port()
COUNT = 40


@pytest.fixture(scope="module")
def proxy() -> Iterator[ProxyProcess]:
    """Routes with copies of all, of none, of half, to a dead server, and where no body is read."""

    def server(port: int, **keys: Any) -> dict[str, Any]:
        return {"url": f"http://127.0.0.1:{port}/mcp", **keys}

    servers = {
        "main": server(MAIN),
        "shadow": server(SHADOW, headers={"Authorization": "shadow"}),
        "dead": server(DEAD),
    }
    mirrors: dict[str, dict[str, Any]] = {
        "all": {"server": "shadow"},
        "half": {"server": "shadow", "percent": 50},
        "none": {"server": "shadow", "percent": 0},
        "gone": {"server": "dead"},
    }
    routes: list[dict[str, Any]] = [
        {"name": name, "path": f"/{name}", "servers": "main", "mirror": mirror} for name, mirror in mirrors.items()
    ]
    routes.append({"name": "raw", "path": "/raw", "servers": "main", "inspect": "none", "mirror": {"server": "shadow"}})
    with running_proxy({"servers": servers, "routes": routes}) as process:
        yield process


@pytest.fixture
async def main(proxy: ProxyProcess) -> AsyncIterator[ScriptedUpstream]:
    """The server whose answers count."""
    async with scripted_upstream(port=MAIN) as each:
        yield each


@pytest.fixture
async def shadow(proxy: ProxyProcess) -> AsyncIterator[ScriptedUpstream]:
    """The server that gets copies; its answers would be noticed."""

    async def script(wire: Wire) -> None:
        while await wire.request():
            await wire.send(json_answer(b'{"shadow":true}', b"500 Oops"))

    async with scripted_upstream(script, SHADOW) as each:
        yield each


async def copies(shadow: ScriptedUpstream, count: int) -> list[bytes]:
    """The copies, once so many have come; a moment later, in case there are more."""
    async with asyncio.timeout(PATIENCE_S):
        while len(shadow.seen) < count:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    return shadow.seen


async def test_every_call_is_copied_and_the_copys_answer_is_dropped(
    proxy: ProxyProcess, main: ScriptedUpstream, shadow: ScriptedUpstream
) -> None:
    """Same body, the shadow's own Host and headers, and no session id, which it never issued."""
    client = await RawClient.connect(proxy.port)
    for number in range(COUNT):
        await client.send(numbered(number, "/all", "X-Mine: 1", "Authorization: Bearer x"))
        status, _, body = await client.answer()
        assert (status, body) == (200, RESULT)
    await client.close()
    seen = await copies(shadow, COUNT)
    assert sorted(id_of(request) for request in seen) == list(range(COUNT))
    for request in seen:
        assert values(request, "host") == [f"127.0.0.1:{SHADOW}"]
        assert (values(request, "x-mine"), values(request, "authorization")) == (["1"], ["shadow"])
        assert request.endswith(CALL.partition(b"1,")[2])


async def test_a_session_is_not_shown_to_the_shadow(
    proxy: ProxyProcess, main: ScriptedUpstream, shadow: ScriptedUpstream
) -> None:
    """Neither the sealed id nor the server's own."""

    async def script(wire: Wire) -> None:
        while await wire.request():
            await wire.send(json_answer().replace(b"\r\n", b"\r\nMcp-Session-Id: s-1\r\n", 1))

    main.script = script
    sealed = (await ask(proxy.port, post("/all"))).fields["mcp-session-id"]
    assert (await ask(proxy.port, post("/all", CALL, f"Mcp-Session-Id: {sealed}"))).status == 200
    assert values(main.seen[1], "mcp-session-id") == ["s-1"]
    for request in await copies(shadow, 2):
        assert not values(request, "mcp-session-id")


@pytest.mark.parametrize(("path", "least", "most"), [("/none", 0, 0), ("/half", 5, 35), ("/raw", 0, 0)])
async def test_the_share_is_kept_and_only_bodies_that_are_read_are_copied(
    proxy: ProxyProcess, main: ScriptedUpstream, shadow: ScriptedUpstream, path: str, least: int, most: int
) -> None:
    """Of forty calls none, about half (one in a million runs is outside), and none of those that stream through."""
    for number in range(COUNT):
        assert (await ask(proxy.port, numbered(number, path))).status == 200
    assert least <= len(await copies(shadow, least)) <= most
    assert len(main.seen) == COUNT


async def test_streams_and_ends_of_sessions_are_not_copied(
    proxy: ProxyProcess, main: ScriptedUpstream, shadow: ScriptedUpstream
) -> None:
    """GET and DELETE carry no message."""
    assert (await ask(proxy.port, get("/all"))).status == 200
    assert (await ask(proxy.port, get("/all", method="DELETE"))).status == 200
    assert await copies(shadow, 0) == []


async def _never_accepts(wire: Wire) -> None:
    await hang(wire)


async def _streams_for_ever(wire: Wire) -> None:
    await wire.request()
    await wire.send(SSE_HEAD)
    while True:
        await wire.send(chunk(event(1) * 1000))


async def _resets(wire: Wire) -> None:
    wire.reset()


@pytest.mark.parametrize(
    "script", [_never_accepts, _streams_for_ever, _resets, None], ids=["hung", "endless", "reset", "dead"]
)
async def test_a_bad_shadow_delays_nobody(proxy: ProxyProcess, main: ScriptedUpstream, script: Any) -> None:
    """Hung, endless, resetting or dead: every call is answered as without it."""
    before = proxy.rss_bytes()
    async with scripted_upstream(script, SHADOW if script else 0):
        path = "/all" if script else "/gone"
        start = time.monotonic()
        for number in range(COUNT):
            assert (await ask(proxy.port, numbered(number, path))).body == RESULT
        assert time.monotonic() - start < 10  # who waited for a copy would wait for 30 s
        assert len(main.seen) == COUNT
    assert proxy.rss_bytes() - before < 32 << 20
    assert proxy.metric("mcp_proxy_mirror_copies_total") > 0
