"""A drain finds every open stream, and ends each as it may be ended."""

from __future__ import annotations

import asyncio

import pytest

from proxy.dataplane.context import RequestContext
from proxy.dataplane.streams import OpenStream, Streams
from tests.unit.dataplane.asked import ask, snapshot

SNAPSHOT = snapshot({"up": "http://up.test/mcp"})


def request(method: str) -> RequestContext:
    """`GET`, or a POST of a JSON-RPC method; `raw` is one whose body was not read."""
    if method in ("GET", "raw"):
        return ask(SNAPSHOT, "/up/mcp", method="GET" if method == "GET" else "POST")
    return ask(SNAPSHOT, "/up/mcp", body=b'{"jsonrpc":"2.0","id":1,"method":"%b"}' % method.encode())


class Streaming:
    """A task that streams for ever."""

    def __init__(self, streams: Streams, method: str) -> None:
        self._streams = streams
        self._method = method
        self.stream: OpenStream
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        self.stream = self._streams.open(request(self._method))
        try:
            await asyncio.Event().wait()
        finally:
            self._streams.close(self.stream)


async def streaming(streams: Streams, method: str) -> Streaming:
    each = Streaming(streams, method)
    await asyncio.sleep(0)
    return each


async def ended(each: Streaming) -> bool:
    """Whether its task was ended; if not, it is now."""
    for _ in range(3):
        await asyncio.sleep(0)
    done = each.task.done()
    each.task.cancel()
    await asyncio.gather(each.task, return_exceptions=True)
    return done


@pytest.mark.parametrize(
    ("method", "listens"),
    [("GET", True), ("subscriptions/listen", True), ("tools/call", False), ("unknown", False), ("raw", False)],
)
async def test_only_listening_streams_end_at_once(method: str, listens: bool) -> None:
    """On the others somebody waits for an answer: they end with the grace."""
    streams = Streams()
    each = await streaming(streams, method)
    assert len(streams) == 1
    streams.end_listening()
    assert each.stream.ending == listens
    assert await ended(each) == listens
    assert len(streams) == 0


@pytest.mark.parametrize("method", ["GET", "tools/call"])
async def test_with_the_grace_every_stream_ends(method: str) -> None:
    """Whatever it is for."""
    streams = Streams()
    each = await streaming(streams, method)
    streams.end_all()
    assert await ended(each)


async def test_a_stream_inside_an_event_is_asked_and_not_cut() -> None:
    """Its relay ends it at the boundary; asking twice changes nothing."""
    streams = Streams()
    each = await streaming(streams, "GET")
    each.stream.tracker.feed(b"data: half")
    streams.end_listening()
    streams.end_all()
    assert each.stream.ending
    assert not await ended(each)


@pytest.mark.parametrize(("method", "ending"), [("GET", True), ("tools/call", False)])
async def test_a_stream_that_begins_in_a_drain_knows_it(method: str, ending: bool) -> None:
    """From then on, until the process ends."""
    streams = Streams()
    streams.end_listening()
    each = await streaming(streams, method)
    assert each.stream.ending == ending
    await ended(each)


async def test_a_stream_that_is_over_is_not_ended() -> None:
    """Its task may serve another request by now."""
    streams = Streams()
    stream = streams.open(request("GET"))
    streams.close(stream)
    streams.close(stream)
    streams.end_all()
    await asyncio.sleep(0)
    assert not stream.ending
