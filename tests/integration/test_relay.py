"""What the upstream sends is what the client gets, as it comes; what breaks off never looks complete."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.harness import CALL, PATIENCE_S, RESULT, ProxyProcess, RawClient, ScriptedUpstream, Wire, json_answer, post

SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(number: int) -> bytes:
    return b'event: message\ndata: {"n":%d}\n\n' % number


async def test_a_call_reaches_the_configured_url_and_its_answer_comes_back(
    upstream: ScriptedUpstream, client: RawClient
) -> None:
    """The main job."""
    await client.send(post())
    status, fields, body = await client.answer()
    assert (status, body) == (200, RESULT)
    assert "server" not in fields
    assert upstream.seen[0].startswith(b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % upstream.port)
    assert upstream.seen[0].endswith(b"\r\n\r\n" + CALL)


async def test_events_arrive_one_by_one_while_the_stream_is_open(upstream: ScriptedUpstream, client: RawClient) -> None:
    """Each event is at the client before the next one is written."""
    step = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(SSE_HEAD)
        for number in range(3):
            await step.wait()
            step.clear()
            await wire.send(chunk(event(number)))
        await wire.send(b"0\r\n\r\n")

    upstream.script = script
    await client.send(post())
    assert b"200 OK" in await client.head()  # before any event: the head does not wait for one
    for number in range(3):
        step.set()
        assert await client.chunk() == event(number)
    assert await client.chunk() == b""


@pytest.mark.parametrize("head", [SSE_HEAD, json_answer(b"x" * 400)[:-400]], ids=["chunked", "content-length"])
async def test_an_answer_cut_at_any_byte_never_looks_complete(
    upstream: ScriptedUpstream, proxy: ProxyProcess, head: bytes
) -> None:
    """Offsets 0 to 600: before the head is whole the client gets 502, after it a broken connection."""
    body = chunk(event(1) * 15) + b"0\r\n\r\n" if head is SSE_HEAD else b"x" * 400
    whole = head + body
    looked_complete = []
    for first in range(0, min(601, len(whole)), 50):
        cuts = range(first, min(first + 50, len(whole), 601))
        outcomes = await asyncio.gather(*[_cut(upstream, proxy, whole, cut, reset=cut % 2 == 0) for cut in cuts])
        looked_complete += [cut for cut, complete in zip(cuts, outcomes, strict=True) if complete]
    assert looked_complete == []


async def _cut(upstream: ScriptedUpstream, proxy: ProxyProcess, whole: bytes, cut: int, *, reset: bool) -> bool:
    async def script(wire: Wire) -> None:
        request = await wire.request()
        if not request:
            return
        offset = int(request.split(b'"cut":')[1].split(b"}")[0])
        if offset:
            await wire.send(whole[:offset])
            await asyncio.sleep(0.005)
        if offset % 2 == 0:
            wire.reset()

    upstream.script = script
    client = await RawClient.connect(proxy.port)
    try:
        await client.send(post("/up/mcp", CALL.replace(b'"text":"hi"', b'"cut":%d' % cut)))
        status, _, _ = await client.answer()
    except (asyncio.IncompleteReadError, ConnectionError):
        return False
    finally:
        await client.close()
    return status != 502


async def test_a_body_that_ends_with_the_connection_is_complete_only_after_an_orderly_close(
    upstream: ScriptedUpstream, proxy: ProxyProcess
) -> None:
    """Without length and chunks a reset is the only sign of a cut, and it is passed on."""
    outcomes = {}
    for reset in (False, True):

        async def script(wire: Wire, reset: bool = reset) -> None:
            await wire.request()
            await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + event(1))
            await asyncio.sleep(0.05)
            if reset:
                wire.reset()

        upstream.script = script
        client = await RawClient.connect(proxy.port)
        await client.send(post())
        try:
            outcomes[reset] = (await client.answer())[2]
        except (asyncio.IncompleteReadError, ConnectionError):
            outcomes[reset] = b"cut"
        await client.close()
    assert outcomes == {False: event(1), True: b"cut"}


@pytest.mark.alone
async def test_the_upstream_connection_closes_as_soon_as_the_client_leaves(
    upstream: ScriptedUpstream, proxy: ProxyProcess
) -> None:
    """Closing the stream is how a modern client cancels; the upstream learns within 50 ms."""
    gone_at: list[float] = []

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(SSE_HEAD + chunk(event(1)))
        await wire.reader.read(1)
        gone_at.append(time.monotonic())

    upstream.script = script
    client = await RawClient.connect(proxy.port)
    await client.send(post())
    await client.head()
    await client.chunk()
    left_at = time.monotonic()
    await client.close()
    while not gone_at:
        await asyncio.sleep(0.001)
    assert gone_at[0] - left_at < 0.05
    line = proxy.wait_for(lambda line: line.get("outcome") == "client_gone")
    assert line["status"] == 200


async def test_the_upstream_learns_of_a_client_that_leaves_before_the_answer(
    upstream: ScriptedUpstream, proxy: ProxyProcess
) -> None:
    """Also while no byte of an answer has come."""
    gone = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.reader.read(1)
        gone.set()

    upstream.script = script
    client = await RawClient.connect(proxy.port)
    await client.send(post())
    while not upstream.seen:
        await asyncio.sleep(0.001)
    await client.close()
    async with asyncio.timeout(PATIENCE_S):
        await gone.wait()


async def test_a_large_body_passes_both_ways_unharmed(upstream: ScriptedUpstream, client: RawClient) -> None:
    """3 MiB up, 8 MiB down."""
    text = b"y" * (3 << 20)
    answer = b'{"jsonrpc":"2.0","id":1,"result":"%b"}' % (b"z" * (8 << 20))

    async def script(wire: Wire) -> None:
        while await wire.request():
            await wire.send(json_answer(answer))

    upstream.script = script
    await client.send(post(body=CALL.replace(b"hi", text)))
    status, _, body = await client.answer()
    assert (status, body == answer) == (200, True)
    assert upstream.seen[0].endswith(CALL.replace(b"hi", text))


async def test_a_client_that_does_not_read_holds_the_upstream_back(
    upstream: ScriptedUpstream, proxy: ProxyProcess
) -> None:
    """Back-pressure: a stalled reader costs buffers, not the whole answer."""
    sent = 0

    async def script(wire: Wire) -> None:
        nonlocal sent
        await wire.request()
        await wire.send(SSE_HEAD)
        while sent < (256 << 20):
            await wire.send(chunk(b"data: " + b"x" * 65000 + b"\n\n"))
            sent += 65008

    upstream.script = script
    before = proxy.rss_bytes()
    client = await RawClient.connect(proxy.port)
    client.stop_reading()
    await client.send(post())
    stalled_at = -1
    while not sent or stalled_at != sent:
        stalled_at = sent
        await asyncio.sleep(0.3)
    assert 0 < sent < 32 << 20  # the kernel's buffers, and a little of ours
    assert proxy.rss_bytes() - before < 4 << 20
    await client.close()


@pytest.mark.parametrize("status", [b"202 Accepted", b"204 No Content", b"304 Not Modified"])
async def test_answers_without_a_body_keep_the_connection_usable(
    upstream: ScriptedUpstream, client: RawClient, status: bytes
) -> None:
    """202 for a notification is followed by the next request on the same connection."""

    async def script(wire: Wire) -> None:
        while await wire.request():
            length = b"Content-Length: 0\r\n" if status.startswith(b"202") else b""
            await wire.send(b"HTTP/1.1 %b\r\n%b\r\n" % (status, length))

    upstream.script = script
    for _ in range(2):
        await client.send(post())
        assert (await client.answer())[0] == int(status[:3])


async def test_pipelined_requests_are_answered_in_order(upstream: ScriptedUpstream, client: RawClient) -> None:
    """A hundred requests in one packet; the upstream sees one at a time from this connection."""

    async def script(wire: Wire) -> None:
        while request := await wire.request():
            number = int(request.split(b'"id":')[1].split(b",")[0])
            await asyncio.sleep(0.001 if number % 2 else 0)
            await wire.send(json_answer(b'{"jsonrpc":"2.0","id":%d,"result":{}}' % number))

    upstream.script = script
    await client.send(b"".join(post(body=CALL.replace(b'"id":1', b'"id":%d' % n)) for n in range(100)))
    for number in range(100):
        assert (await client.answer())[2] == b'{"jsonrpc":"2.0","id":%d,"result":{}}' % number


async def test_http_1_0_gets_a_body_that_ends_with_the_connection(
    upstream: ScriptedUpstream, client: RawClient
) -> None:
    """No chunks for a client that does not know them."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(SSE_HEAD + chunk(event(1)) + b"0\r\n\r\n")

    upstream.script = script
    await client.send(post().replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n"))
    status, fields, body = await client.answer()
    assert (status, body) == (200, event(1))
    assert "transfer-encoding" not in fields
    assert fields["connection"] == "close"
