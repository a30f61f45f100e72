"""Copies go to a shadow, whatever it does, and nothing of it reaches the real request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.harness import CALL, Wire, answer_json, free_port, scripted_upstream
from tests.unit.dataplane.asked import ask
from tests.unit.dataplane.fakes import Proxy, proxying


def copy(proxy: Proxy, percent: float = 100.0, *fields: tuple[str, str], body: bytes | None = CALL) -> None:
    """Ask for a copy of a call to the shadow."""
    snapshot = proxy.live.snapshot
    proxy.parts.mirrors.copy(ask(snapshot, "/up/mcp", *fields, body=body), snapshot.upstreams["shadow"], percent)


def servers(shadow: str) -> dict[str, str]:
    return {"up": "http://up.test/mcp", "shadow": shadow}


async def test_a_copy_is_the_request_without_its_session() -> None:
    """The shadow never issued that session; everything else is there."""
    async with scripted_upstream() as shadow, proxying(servers(shadow.url)) as proxy:
        copy(proxy, 100.0, ("mcp-session-ID", "secret"), ("X-A", "1"), ("Content-Length", str(len(CALL))))
        [(name, sending)] = proxy.copies
        await sending
        assert name == "mirror shadow"
        [seen] = shadow.seen
        assert seen.startswith(b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:")
        assert b"\r\nX-A: 1\r\n" in seen
        assert b"secret" not in seen
        assert seen.endswith(b"\r\n\r\n" + CALL)
        assert (proxy.metrics.mirror_sent, proxy.metrics.mirror_dropped) == (1, 0)


@pytest.mark.parametrize(
    ("drawn", "percent", "copies"), [(0.0, 0.0, 0), (0.09, 10.0, 1), (0.1, 10.0, 0), (0.99, 100.0, 1)]
)
async def test_chance_decides_by_the_share(drawn: float, percent: float, copies: int) -> None:
    """All of them at 100, none at 0."""
    async with proxying(servers("http://shadow.test")) as proxy:
        proxy.drawn = drawn
        copy(proxy, percent)
        assert len(proxy.copies) == copies


async def test_a_request_whose_body_is_not_here_has_no_copy() -> None:
    """A stream, or a route that inspects nothing."""
    async with proxying(servers("http://shadow.test")) as proxy:
        copy(proxy, body=None)
        assert (proxy.copies, proxy.metrics.mirror_sent, proxy.metrics.mirror_dropped) == ([], 0, 0)


async def test_too_many_copies_are_dropped_and_counted() -> None:
    """The real request goes on either way."""
    async with proxying(servers("http://shadow.test")) as proxy:
        for _ in range(3):
            copy(proxy)
        assert (proxy.metrics.mirror_sent, proxy.metrics.mirror_dropped) == (1, 2)


async def _silent_end(wire: Wire) -> None:
    await wire.request()


async def _half_an_answer(wire: Wire) -> None:
    await wire.request()
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")


async def _endless(wire: Wire) -> None:
    await wire.request()
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
    while True:
        await wire.send(b": more\n" * 9000)


@pytest.mark.parametrize("script", [_silent_end, _half_an_answer, _endless, answer_json])
async def test_whatever_the_shadow_does_is_swallowed(script: Callable[[Wire], Awaitable[None]]) -> None:
    """Also a stream without end: a megabyte of it is enough."""
    async with scripted_upstream(script) as shadow, proxying(servers(shadow.url)) as proxy:
        copy(proxy)
        await proxy.copies[0][1]
        upstream = proxy.live.snapshot.upstreams["shadow"]
        assert (upstream.in_flight, upstream.metrics.pool_in_use) == (0, 0)


async def test_a_shadow_that_is_not_there_is_nobodys_trouble() -> None:
    """It is as if there were none."""
    async with proxying(servers(f"http://127.0.0.1:{free_port()}/mcp")) as proxy:
        copy(proxy)
        await proxy.copies[0][1]
        assert proxy.live.snapshot.upstreams["shadow"].in_flight == 0
