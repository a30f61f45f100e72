"""Pieces pass as they come, the client sets the pace, and what breaks off never looks complete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.dataplane.context import RequestContext
from proxy.dataplane.relay import relay
from proxy.errors import UpstreamFailed
from tests.harness import Wire, scripted_upstream
from tests.unit.dataplane.fakes import PATIENCE_S, Client, Proxy, proxying

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(text: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(text), text)


class Run:
    """A relay under way: its client, its upstream's end, and the task."""

    def __init__(self, proxy: Proxy, client: Client, ctx: RequestContext, wire: Wire) -> None:
        self.proxy, self.client, self.ctx, self.wire = proxy, client, ctx, wire
        self.task: asyncio.Task[None]

    async def say(self, raw: bytes, *, got: bytes | None = None) -> None:
        """Let the upstream send, and wait until the client has `got` in all."""
        await self.wire.send(raw)
        if got is not None:
            await self.client.until(lambda: self.client.got == got)

    async def ended(self) -> str:
        """Wait for the end of the relay; how the answer ended."""
        done, _ = await asyncio.wait([self.task], timeout=PATIENCE_S)  # and never cancel it: that might end it
        assert done
        self.task.result()
        assert self.task.cancelling() == 0  # it may serve another request
        return self.client.end


@asynccontextmanager
async def relaying(
    head: bytes, *, method: str = "POST", before: Callable[[Run], object] = lambda _: None, **server: Any
) -> AsyncIterator[Run]:
    """A relay of an answer that begins with `head`; `before` runs when the head is here and nothing is relayed."""
    wires: asyncio.Queue[Wire] = asyncio.Queue()
    over = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(head)
        wires.put_nowait(wire)
        await over.wait()

    async with scripted_upstream(script) as upstream, proxying({"up": {"url": upstream.url, **server}}) as proxy:
        request = proxy.request(method=method)
        ctx, client = request.ctx, request.client
        ctx.upstream = proxy.live.snapshot.upstreams["up"]
        response = await ctx.upstream.client.send("POST", "", [("Host", "h"), ("Content-Length", "0")], b"")
        run = Run(proxy, client, ctx, await wires.get())
        before(run)
        run.task = asyncio.ensure_future(relay(ctx, response, proxy.parts))
        try:
            yield run
        finally:
            run.task.cancel()
            await asyncio.gather(run.task, return_exceptions=True)
            response.close()
            over.set()
            assert len(proxy.streams) == 0
            assert ctx.upstream.metrics.open_streams == 0


# --- any answer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [PLAIN, EVENTS], ids=["plain", "events"])
async def test_the_head_goes_ahead_and_each_piece_follows_at_once(head: bytes) -> None:
    """Nothing waits for what comes next, and every byte is counted."""
    async with relaying(head) as run:
        await run.client.until(lambda: "flush" in run.client.steps)
        assert (run.client.status, run.client.got) == (200, b"")
        await run.say(chunk(b"data: 1\n\n"), got=b"data: 1\n\n")
        await run.say(chunk(b"data"), got=b"data: 1\n\ndata")
        await run.say(chunk(b": 2\n\n"), got=b"data: 1\n\ndata: 2\n\n")
        await run.say(END)
        assert await run.ended() == "finish"
        assert run.ctx.bytes_out == len(run.client.got)
        assert (run.ctx.status, run.ctx.outcome) == (200, "")


@pytest.mark.parametrize("head", [PLAIN, EVENTS], ids=["plain", "events"])
async def test_an_answer_that_is_all_here_goes_out_at_once(head: bytes) -> None:
    """Head, body and end in one step: one write, later, for the transport."""
    async with relaying(head + chunk(b"data: 1\n\n") + END) as run:
        assert await run.ended() == "finish"
        assert run.client.steps == ["start", "finish"]
        assert run.client.got == b"data: 1\n\n"


@pytest.mark.parametrize("head", [PLAIN, EVENTS], ids=["plain", "events"])
async def test_an_empty_body_is_a_whole_answer(head: bytes) -> None:
    """Also one that is seen to be empty only later."""
    async with relaying(head) as run:
        await run.client.until(lambda: "flush" in run.client.steps)
        await run.say(END)
        assert await run.ended() == "finish"
        assert run.client.got == b""


@pytest.mark.parametrize("head", [PLAIN, EVENTS], ids=["plain", "events"])
async def test_a_client_that_does_not_read_holds_the_relay_back(head: bytes) -> None:
    """After each write it waits until the client reads again."""
    async with relaying(head, before=lambda run: setattr(run.client, "paused", True)) as run:
        await run.say(chunk(b"data: 1\n\n"), got=b"data: 1\n\n")
        await run.client.until(lambda: run.client.steps[-1] == "drain")
        await run.say(chunk(b"data: 2\n\n") + END)
        assert run.client.got == b"data: 1\n\n"
        run.client.resumed.set()
        assert await run.ended() == "finish"
        assert run.client.got == b"data: 1\n\ndata: 2\n\n"


@pytest.mark.parametrize("head", [PLAIN, EVENTS], ids=["plain", "events"])
async def test_a_client_that_leaves_while_it_is_waited_for_ends_the_relay(head: bytes) -> None:
    """As a ConnectionError, which the handler knows."""
    async with relaying(head, before=lambda run: setattr(run.client, "paused", True)) as run:
        await run.say(chunk(b"data: 1\n\n"), got=b"data: 1\n\n")
        run.client.gone = True
        run.client.resumed.set()
        with pytest.raises(ConnectionResetError):
            await run.ended()


async def test_a_body_over_its_cap_is_cut_behind_it() -> None:
    """What may pass has passed; the rest makes it a failure of the upstream, and the caller resets the connection."""
    async with relaying(PLAIN, answers={"max_body": 16}) as run:
        await run.say(chunk(b"0123456789"), got=b"0123456789")
        await run.say(chunk(b"0123456789"))
        with pytest.raises(UpstreamFailed, match="max_body"):
            await run.ended()
        assert run.client.got == b"0123456789012345"
        assert run.ctx.bytes_out == 16
        assert run.client.end == ""


@pytest.mark.parametrize("end", [b"", END])
async def test_a_body_over_its_cap_is_cut_when_it_is_all_here(end: bytes) -> None:
    """Also where its last piece is the one too large."""
    async with relaying(PLAIN + chunk(b"x" * 17) + end, answers={"max_body": 16}) as run:
        with pytest.raises(UpstreamFailed, match="max_body"):
            await run.ended()
        assert run.client.got == b"x" * 16


@pytest.mark.parametrize("cap", [16, 0])
async def test_a_body_of_just_its_cap_passes(cap: int) -> None:
    """And any body where there is none."""
    async with relaying(PLAIN + chunk(b"x" * 16) + END, answers={"max_body": cap}) as run:
        assert await run.ended() == "finish"
        assert run.client.got == b"x" * 16


async def test_a_body_that_says_it_is_over_its_cap_is_refused_up_front() -> None:
    """Before the client has got anything."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    async with relaying(head % 17, answers={"max_body": 16}) as run:
        with pytest.raises(UpstreamFailed, match="announced"):
            await run.ended()
        assert run.client.steps == []
    async with relaying(head % 16 + b"x" * 16, answers={"max_body": 16}) as run:
        assert await run.ended() == "finish"


async def test_an_event_over_its_cap_is_cut_and_small_ones_are_not() -> None:
    """Each event begins the count anew, wherever the pieces are cut; a stream of any length passes."""
    async with relaying(EVENTS, answers={"max_event": 16, "max_body": 1}) as run:
        sent = b""
        for piece in (b"data: 1\n\n", b"data: 2\n\ndata", b": 3\n\ndata: ", b"4\n", b"\ndata: 5"):
            sent += piece
            await run.say(chunk(piece), got=sent)
        await run.say(chunk(b"x" * 64))
        with pytest.raises(UpstreamFailed, match="max_event"):
            await run.ended()
        assert run.client.got == sent + b"x" * 9
        assert run.ctx.bytes_out == len(sent) + 9


@pytest.mark.parametrize("head", [PLAIN, EVENTS], ids=["plain", "events"])
@pytest.mark.parametrize("reset", [False, True])
async def test_an_answer_that_breaks_off_is_aborted(head: bytes, reset: bool) -> None:
    """What came before it has passed; the record knows why."""
    async with relaying(head) as run:
        await run.say(chunk(b"data: 1\n\n"), got=b"data: 1\n\n")
        run.wire.reset() if reset else run.wire.writer.close()
        assert await run.ended() == "abort"
        assert run.ctx.outcome == "upstream_truncated"


@pytest.mark.parametrize("head", [PLAIN, EVENTS], ids=["plain", "events"])
async def test_an_answer_that_falls_silent_is_aborted(head: bytes) -> None:
    """After `timeouts.idle`, when one is set."""
    async with relaying(head, timeouts={"idle": "20ms"}) as run:
        assert await run.ended() == "abort"
        assert run.ctx.outcome == "timeout"


# --- events ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "streams"),
    [
        (b"text/event-stream", True), (b"Text/Event-Stream; charset=utf-8", True), (b"text/event-strea", False),
        (b"application/json", False),
    ],
)  # fmt: skip
async def test_only_an_event_stream_counts_as_one(content_type: bytes, streams: bool) -> None:
    """Case and parameters of the media type do not matter."""
    async with relaying(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: 9\r\n\r\n" % content_type) as run:
        await run.client.until(lambda: "flush" in run.client.steps)
        assert run.ctx.streaming == streams
        assert len(run.proxy.streams) == streams
        run.proxy.time.now += 3
        await run.say(b"data: 1\n\n")
        assert await run.ended() == "finish"
        assert (run.ctx.first_byte_at == run.proxy.time.now) == streams


async def test_a_drain_ends_a_stream_nobody_waits_on_between_two_events() -> None:
    """In order: the client comes back."""
    async with relaying(EVENTS, method="GET") as run:
        await run.say(chunk(b"data: 1\n\n"), got=b"data: 1\n\n")
        run.proxy.streams.end_listening()
        assert await run.ended() == "finish"
        assert (run.ctx.outcome, run.client.got) == ("drained", b"data: 1\n\n")


async def test_a_drain_never_cuts_an_event() -> None:
    """It waits for the rest of the one that has begun."""
    async with relaying(EVENTS, method="GET") as run:
        await run.say(chunk(b"data: "), got=b"data: ")
        run.proxy.streams.end_listening()
        await run.say(chunk(b"1\n"), got=b"data: 1\n")
        assert not run.task.done()
        await run.say(chunk(b"\n"))
        assert await run.ended() == "finish"
        assert (run.ctx.outcome, run.client.got) == ("drained", b"data: 1\n\n")


async def test_a_stream_that_begins_in_a_drain_ends_at_once() -> None:
    """Even when its upstream never says a word."""
    async with relaying(EVENTS, method="GET", before=lambda run: run.proxy.streams.end_listening()) as run:
        assert await run.ended() == "finish"
        assert (run.client.status, run.ctx.outcome) == (200, "drained")


async def test_a_stream_that_owes_an_answer_is_left_alone_until_the_grace_is_over() -> None:
    """And then it breaks: it must not look as if it had given the answer."""
    async with relaying(EVENTS) as run:
        await run.say(chunk(b"data: 1\n\n"), got=b"data: 1\n\n")
        run.proxy.streams.end_listening()
        await run.say(chunk(b"data: 2\n\n"), got=b"data: 1\n\ndata: 2\n\n")
        run.proxy.streams.end_all()
        assert await run.ended() == "abort"
        assert run.ctx.outcome == "drained"


async def test_a_client_that_leaves_in_a_drain_has_left() -> None:
    """Its cancellation passes; nothing is written to it any more."""
    async with relaying(EVENTS, method="GET") as run:
        await run.say(chunk(b"data: 1\n\n"), got=b"data: 1\n\n")
        run.proxy.streams.end_listening()
        run.client.gone = True
        with pytest.raises(asyncio.CancelledError):
            await run.ended()
        assert run.client.end == ""


RESPONSE = b'event: message\r\ndata: {"jsonrpc":"2.0","id":1,"result":{"content":[]}}\r\n\r\n'
PROGRESS = b'event: message\r\ndata: {"jsonrpc":"2.0","method":"notifications/progress","params":{}}\r\n\r\n'


@pytest.mark.parametrize("pieces", [[RESPONSE], [PROGRESS + RESPONSE], [PROGRESS, RESPONSE[:80], RESPONSE[80:]]])
async def test_a_client_that_leaves_when_it_has_its_answer_was_served(pieces: list[bytes]) -> None:
    """It need not wait for the end of the stream."""
    async with relaying(EVENTS) as run:
        for number, piece in enumerate(pieces):
            await run.say(chunk(piece), got=b"".join(pieces[: number + 1]))
        run.client.gone = True
        run.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run.ended()
        assert run.ctx.outcome == "ok"


@pytest.mark.parametrize("piece", [PROGRESS, RESPONSE[:-2], RESPONSE + b"data:", RESPONSE + PROGRESS])
async def test_a_client_that_leaves_before_its_answer_has_left(piece: bytes) -> None:
    """Also one that has most of it; and what comes behind an answer makes it doubtful that it was one."""
    async with relaying(EVENTS) as run:
        await run.say(chunk(piece), got=piece)
        run.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run.ended()
        assert run.ctx.outcome == ""  # the handler knows the word


async def test_a_stream_that_has_given_its_answer_ends_in_order_in_a_drain() -> None:
    """Its server may take its time with the end."""
    async with relaying(EVENTS) as run:
        await run.say(chunk(RESPONSE), got=RESPONSE)
        run.proxy.streams.end_all()
        assert await run.ended() == "finish"
        assert run.ctx.outcome == "ok"


async def test_a_cancellation_that_no_drain_asked_for_passes() -> None:
    """The client left while the upstream was silent."""
    async with relaying(EVENTS) as run:
        await run.client.until(lambda: "flush" in run.client.steps)
        run.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run.ended()


# --- how streams go -------------------------------------------------------------------------------------------------


def seconds(run: Run) -> dict[str, list[float]]:
    """Of the streams of the server: how often, and how long together."""
    assert run.ctx.upstream is not None
    times = run.proxy.streams.times.of(run.ctx.upstream.metrics)
    each = {"first": times.first_events, "gaps": times.gaps, "durations": times.durations}
    return {name: [sum(found.counts), found.total_s] for name, found in each.items()}


async def test_a_stream_is_timed_from_its_request_to_its_end() -> None:
    """First piece, pauses between pieces, and all of it; its bytes are those that were sent on."""
    async with relaying(EVENTS) as run:
        time, run.ctx.started_at = run.proxy.time, run.proxy.time.now - 1
        await run.client.until(lambda: "flush" in run.client.steps)
        time.now += 2
        await run.say(chunk(b"data: 1\n\n"), got=b"data: 1\n\n")
        time.now += 4
        await run.say(chunk(b"data: 2\n\n"), got=b"data: 1\n\ndata: 2\n\n")
        time.now += 8
        await run.say(END)
        assert await run.ended() == "finish"
        assert seconds(run) == {"first": [1, 3], "gaps": [1, 4], "durations": [1, 14]}
        assert run.ctx.upstream is not None
        times = run.proxy.streams.times.of(run.ctx.upstream.metrics)
        assert (times.begun, times.bytes) == (1, 18)


async def test_a_stream_without_a_piece_has_only_a_duration() -> None:
    """However it ends."""
    async with relaying(EVENTS, method="GET", before=lambda run: run.proxy.streams.end_listening()) as run:
        assert await run.ended() == "finish"
        assert [count for count, _ in seconds(run).values()] == [0, 0, 1]


async def test_an_answer_that_is_no_stream_is_not_timed_as_one() -> None:
    """It has the metrics of every request."""
    async with relaying(PLAIN) as run:
        await run.say(chunk(b"{}") + END)
        assert await run.ended() == "finish"
        assert seconds(run)["durations"] == [0, 0]
