"""A reload replaces the configuration whole, without a request noticing; one that is broken changes nothing."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from tests.harness import (
    CALL,
    PATIENCE_S,
    ProxyProcess,
    RawClient,
    ScriptedUpstream,
    Wire,
    post,
    running_proxy,
    scripted_upstream,
)  # fmt: skip
from tests.proofs import reloads
from tests.proofs.load import MARKER, SSE_HEAD, Callers, Clients, answering, chunk, event
from tests.proofs.reloads import Length


@pytest.mark.alone
async def test_twenty_reloads_under_load_fail_no_request_and_split_none() -> None:
    """By SIGHUP and by file: server, marker and generation always belong together; streams go on to their end."""
    found = await reloads.run(Length(reloads=20, by_file=1, clients=6, streams=10, pause_s=0.1))
    assert (found.failed, found.mixed, found.unlogged, found.broken_streams) == (0, 0, 0, 0), found.notes
    assert found.calls > 200
    assert found.generations == 21
    assert found.longest_close_s < 6


@pytest.fixture
async def upstreams() -> Any:
    """Two named servers."""
    async with scripted_upstream(answering("a").script) as a, scripted_upstream(answering("b").script) as b:
        yield a, b


async def status_of(proxy: ProxyProcess, path: str) -> int:
    client = await RawClient.connect(proxy.port)
    await client.send(post(path))
    status = (await client.answer())[0]
    await client.close()
    return status


async def test_a_broken_configuration_changes_nothing_and_is_reported(
    upstreams: tuple[ScriptedUpstream, ScriptedUpstream],
) -> None:
    """One line that names file and line, one count; calls go on under the old generation."""
    a, b = upstreams
    good = {"servers": {"up": {"url": a.url}}}
    with running_proxy(good) as proxy:
        callers = Callers(proxy.port, 2)
        broken: dict[str, Any] = {"servers": {"up": {"url": b.url}}, "routes": [{"name": "r", "path": "/x"}]}
        line = await asyncio.to_thread(proxy.reload, broken)
        assert line["event"] == "configuration refused"
        assert line["level"] == "error"
        text = proxy.path.read_text().splitlines()
        at = 1 + next(number for number, content in enumerate(text) if "name: r" in content)
        assert any(f"{proxy.path}:{at}: routes[0].servers" in problem for problem in line["problems"])
        await asyncio.sleep(0.1)
        outcome = await callers.stop()
        assert outcome.failures == []
        assert {call.answered_by for call in outcome.calls} == {"a"}
        assert proxy.metric("mcp_proxy_config_reloads_total", result="error") == 1
        assert proxy.metric("mcp_proxy_config_generation") == 1
        assert sum(line.get("event") == "configuration refused" for line in proxy.lines) == 1
        # and the mended one is taken
        assert (await asyncio.to_thread(proxy.reload, {"servers": {"up": {"url": b.url}}}))["generation"] == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"servers: [", b"\x00", b"servers: {up: {url: 'http://127.0.0.1:1/mcp', tls: {ca: nowhere.pem}}}", None],
    ids=["empty", "yaml", "nul", "missing file", "gone"],
)
async def test_whatever_is_wrong_the_old_configuration_serves(
    upstreams: tuple[ScriptedUpstream, ScriptedUpstream], content: bytes | None
) -> None:
    """Also a file that is gone."""
    with running_proxy({"servers": {"up": {"url": upstreams[0].url}}}) as proxy:
        if content is None:
            proxy.path.unlink()
        else:
            proxy.path.write_bytes(content)
        proxy.process.send_signal(signal.SIGHUP)
        line = await asyncio.to_thread(proxy.wait_for, lambda line: line.get("event") == "configuration refused")
        assert str(proxy.path) in line["problems"][0]
        assert await status_of(proxy, "/up/mcp") == 200
        assert proxy.metric("mcp_proxy_config_reloads_total", result="error") == 1


async def test_a_removed_server_is_gone_for_new_requests_and_its_running_one_ends_well() -> None:
    """404 for the path at once; the call that had begun gets its answer; then its connection is closed."""
    async with (
        scripted_upstream(answering("slow", pause_s=1.0).script) as slow,
        scripted_upstream(answering("kept").script) as kept,
    ):
        both = {"servers": {"slow": {"url": slow.url}, "kept": {"url": kept.url}}}
        with running_proxy(both) as proxy:
            client = await RawClient.connect(proxy.port)
            await client.send(post("/slow/mcp"))
            while not slow.open:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(proxy.reload, {"servers": {"kept": {"url": kept.url}}})
            assert await status_of(proxy, "/slow/mcp") == 404
            assert (await client.answer())[0] == 200
            await client.send(post("/slow/mcp"))
            assert (await client.answer())[0] == 404  # on the same connection
            async with asyncio.timeout(PATIENCE_S):
                while slow.open:
                    await asyncio.sleep(0.02)
            assert await status_of(proxy, "/kept/mcp") == 200
            await client.close()


async def test_an_unchanged_server_keeps_its_connections(
    upstreams: tuple[ScriptedUpstream, ScriptedUpstream],
) -> None:
    """Reloads that change another server open no new connection to it, and its counters go on."""
    a, b = upstreams
    with running_proxy({"servers": {"a": {"url": a.url}, "b": {"url": b.url}}}) as proxy:
        assert await status_of(proxy, "/a/mcp") == 200
        for number in range(3):
            servers = {"a": {"url": a.url}, "b": {"url": b.url, "headers": {MARKER: f"m{number}"}}}
            await asyncio.to_thread(proxy.reload, {"servers": servers})
            assert await status_of(proxy, "/a/mcp") == 200
        assert a.connections == 1
        assert proxy.metric("mcp_proxy_pool_connects_total", server="a") == 1
        assert proxy.metric("mcp_proxy_pool_reuses_total", server="a") == 3
        assert proxy.metric("mcp_proxy_requests_total", server="a", outcome="ok") == 4


async def test_a_changed_server_is_let_go_while_an_unchanged_one_is_busy() -> None:
    """A stream on another server, opened under the new configuration, does not keep old connections open."""

    async def hold(wire: Wire) -> None:
        await wire.request()
        await wire.send(SSE_HEAD + chunk(event(0)))
        await wire.reader.read()

    clients = Clients()
    async with scripted_upstream(hold) as a, scripted_upstream(answering("b").script) as b:
        servers: dict[str, Any] = {"a": {"url": a.url}, "b": {"url": b.url, "pool": {"keepalive": "60s"}}}
        with running_proxy({"servers": servers}) as proxy:
            first = await clients.started(proxy.port, post("/a/mcp"))
            assert await status_of(proxy, "/b/mcp") == 200
            servers = {**servers, "b": {"url": a.url}}
            await asyncio.to_thread(proxy.reload, {"servers": servers})
            await clients.started(proxy.port, post("/a/mcp"))
            await first.close()  # the last request of the old configuration
            async with asyncio.timeout(PATIENCE_S):
                while b.open:
                    await asyncio.sleep(0.02)
            assert a.open == 1
            await clients.close()


async def test_limits_and_deadlines_follow_a_reload() -> None:
    """A smaller body limit holds for the next request, on a connection that was open before."""
    async with scripted_upstream() as upstream:
        content: dict[str, Any] = {"servers": {"up": {"url": upstream.url}}}
        with running_proxy(content) as proxy:
            client = await RawClient.connect(proxy.port)
            big = CALL.replace(b"hi", b"x" * 5000)
            await client.send(post(body=big))
            assert (await client.answer())[0] == 200
            content["listen"] = {"limits": {"body": "1KiB"}}
            await asyncio.to_thread(proxy.reload, content)
            await client.send(post(body=big))
            assert (await client.answer())[0] == 413
            await client.close()


async def test_what_needs_a_restart_is_named_and_stays() -> None:
    """Another port is not taken; the log says so."""
    async with scripted_upstream() as upstream:
        with running_proxy({"servers": {"up": {"url": upstream.url}}}) as proxy:
            await asyncio.to_thread(proxy.reload, {"servers": {"up": {"url": upstream.url}}, "admin": {"port": 1}})
            line = proxy.wait_for(lambda line: line.get("event") == "restart needed")
            assert line["keys"] == ["admin"]
            assert await status_of(proxy, "/up/mcp") == 200
            assert '"alive"' in proxy.admin("/livez")
