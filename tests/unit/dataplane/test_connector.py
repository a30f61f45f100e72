"""A connection that may be stale is never used again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.models import Server
from proxy.dataplane.client import UpstreamClient, UpstreamResponse
from proxy.dataplane.connector import Keepalive
from proxy.dataplane.deadlines import Deadlines
from proxy.errors import UpstreamFailed
from proxy.metrics import ServerMetrics
from tests.harness import Wire, json_answer, scripted_upstream
from tests.unit.dataplane.fakes import Time

# --- keep-alive -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("announced", "reuse_s"),
    [
        ("timeout=5", 2.5), ("timeout=5, max=100", 2.5), ("max=100, timeout=4", 2.0), ("timeout=0", 0.0),
        ("timeout=6", 3.0), ("timeout=60", 3.0), ("max=100", 3.0), ("", 3.0), ("timeout=", 3.0), ("timeout=-1", 3.0),
        ("timeout=1.5", 3.0), ("timeout=999999999999", 3.0),
    ],
)  # fmt: skip
def test_half_of_what_the_server_announces_is_used_when_that_is_less(announced: str, reuse_s: float) -> None:
    """What cannot be read changes nothing."""
    keepalive = Keepalive(3.0)
    keepalive.learn(announced)
    assert keepalive.reuse_s == reuse_s
    assert keepalive.hasty == (reuse_s < 3.0)


@given(st.lists(st.text() | st.integers(0, 20).map("timeout={}".format)))
def test_the_time_never_grows(announcements: list[str]) -> None:
    """Whatever is announced in whatever order: the least counts."""
    keepalive = Keepalive(3.0)
    for announced in announcements:
        before = keepalive.reuse_s
        keepalive.learn(announced)
        assert 0.0 <= keepalive.reuse_s <= before


# --- connections ----------------------------------------------------------------------------------------------------


class Sender:
    """A client of one scripted upstream."""

    def __init__(self, url: str) -> None:
        self.metrics = ServerMetrics("up", str)
        self.client = UpstreamClient(Server.model_validate({"url": url}), self.metrics, Deadlines(Time()))

    async def call(self) -> int:
        """One whole round trip; the status."""
        headers = [("Host", "up.test"), ("Content-Length", "0")]
        response = await self.client.send("POST", "", headers, b"")
        await drained(response)
        return response.status

    @property
    def connections(self) -> tuple[int, int]:
        """New ones, and uses of old ones."""
        return self.metrics.pool_connects, self.metrics.pool_reuses


async def drained(response: UpstreamResponse) -> bytes:
    """The whole body, and the response closed."""
    body = response.read_nowait()
    while not response.ended:
        body += await response.read()
    response.close()
    return body


async def test_a_connection_is_used_again() -> None:
    """Many calls one after the other go over one connection."""
    async with scripted_upstream() as upstream:
        sender = Sender(upstream.url)
        assert [await sender.call() for _ in range(5)] == [200] * 5
        assert sender.connections == (1, 4)
        assert upstream.connections == 1
        assert sender.client.idle == 1
        await sender.client.close()
        await asyncio.sleep(0)
        assert sender.client.idle == 0


def once_then(leave: Callable[[Wire], None], left: asyncio.Semaphore) -> Callable[[Wire], asyncio.Future[None]]:
    """A script that answers once and then leaves its connection in some way."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(json_answer())
        leave(wire)
        await asyncio.sleep(0)
        left.release()
        await wire.reader.read()

    return script  # type: ignore[return-value]


@pytest.mark.parametrize(
    "leave",
    [
        lambda wire: wire.writer.write_eof(),
        lambda wire: wire.reset(),
        lambda wire: wire.writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"),
        lambda wire: wire.writer.write(json_answer(b'"an answer to nothing"')),
    ],
    ids=["closed", "reset", "refused when idle", "an answer to nothing"],
)
async def test_a_connection_that_was_left_is_not_used_again(leave: Callable[[Wire], None]) -> None:
    """However the upstream left it while it was idle: the next request finds a new one and its own answer."""
    left = asyncio.Semaphore(0)
    async with scripted_upstream(once_then(leave, left)) as upstream:
        sender = Sender(upstream.url)
        for count in range(1, 4):
            assert await sender.call() == 200
            await left.acquire()
            assert sender.connections[0] == count
        assert sender.connections == (3, 0)
        await sender.client.close()


async def test_a_server_that_keeps_no_connection_gets_a_new_one_each_time() -> None:
    """`Keep-Alive: timeout=0` holds from the first connection on, on which it was announced."""

    async def script(wire: Wire) -> None:
        while await wire.request():
            await wire.send(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=0\r\nContent-Length: 2\r\n\r\n{}")

    async with scripted_upstream(script) as upstream:
        sender = Sender(upstream.url)
        assert [await sender.call() for _ in range(3)] == [200] * 3
        assert sender.connections == (3, 0)
        await sender.client.close()


@pytest.mark.parametrize("version", ["HTTP/0.9", "HTTP/2.0"])
async def test_another_version_is_no_answer(version: str) -> None:
    """Whatever comes behind it means something else there."""

    async def answer(wire: Wire) -> None:
        await wire.request()
        await wire.send(json_answer().replace(b"HTTP/1.1", version.encode()))

    async with scripted_upstream(answer) as upstream:
        sender = Sender(upstream.url)
        with pytest.raises(UpstreamFailed):
            await sender.call()
        await sender.client.close()
