"""Lists on their way: filtered where the route says so, kept for learning as the server sent them, never unfiltered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.dataplane.context import RequestContext
from proxy.dataplane.lessons import Lessons
from proxy.dataplane.list_pages import pages_of
from proxy.dataplane.relay import relay
from proxy.dataplane.upstream import Upstream
from proxy.errors import UpstreamFailed, UpstreamTimeout
from proxy.identity.list_filter import MAX_BYTES, Keep
from proxy.mcp.envelope import read_envelope
from tests.harness import Wire, scripted_upstream
from tests.unit.dataplane.fakes import PATIENCE_S, Client, proxying

ASK = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}'
LIST = b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"open"},{"name":"secret"}]}}'
SHORT = b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"open"}]}}'
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nETag: x\r\nTransfer-Encoding: chunked\r\n\r\n"
ROUTES = [
    {"name": "filtered", "path": "/f", "servers": "up", "filter_lists": True},
    {"name": "plain", "path": "/p", "servers": "up"},
]


def json_answer(body: bytes, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    typed = b"" if any(field.startswith(b"Content-Type") for field in fields) else b"Content-Type: application/json\r\n"
    head = b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n" % (status, typed, len(body))
    return head + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def event(body: bytes) -> bytes:
    return b"event: message\ndata: " + body + b"\n\n"


def chunk(text: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(text), text)


def keeps(ctx: RequestContext, upstream: Upstream) -> Keep:
    """Everything but `secret`."""
    assert upstream is ctx.upstream
    return lambda kind, name: name != "secret"


class Run:
    """A relay under way."""

    def __init__(self, client: Client, ctx: RequestContext, lessons: Lessons, wire: Wire) -> None:
        self.client, self.ctx, self.lessons, self.wire = client, ctx, lessons, wire
        self.task: asyncio.Task[None]

    async def ended(self) -> str:
        async with asyncio.timeout(PATIENCE_S):
            await self.task
        return self.client.end

    @property
    def fields(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.client.headers}

    def learned(self) -> list[str]:
        """Names in the lists that were kept."""
        lessons = self.lessons.take(1 << 30)
        return [item["name"] for lesson in lessons for page in pages_of(lesson) for item in page.items]


@asynccontextmanager
async def relaying(head: bytes, body: bytes = ASK, path: str = "/f", **server: object) -> AsyncIterator[Run]:
    """A relay of an answer that begins with `head` to a request with `body`, a GET for none."""
    wires: asyncio.Queue[Wire] = asyncio.Queue()
    over = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(head)
        wires.put_nowait(wire)
        await over.wait()

    async with (
        scripted_upstream(script) as scripted,
        proxying({"up": {"url": scripted.url, **server}}, routes=ROUTES) as proxy,
    ):
        request = proxy.request(path, method="POST" if body else "GET")
        ctx = request.ctx
        if body:
            ctx.body, ctx.envelope = body, read_envelope(body, ctx.fields)
            ctx.message = ctx.envelope.first
        ctx.route = ctx.routing.match(ctx)
        upstream = ctx.upstream = proxy.live.snapshot.upstreams["up"]
        response = await upstream.client.send("POST", "", [("Host", "h"), ("Content-Length", "0")], b"")
        lessons = Lessons()
        run = Run(request.client, ctx, lessons, await wires.get())
        parts = proxy.parts._replace(keeps=keeps, lessons=lessons)
        run.task = asyncio.ensure_future(relay(ctx, response, parts))
        try:
            yield run
        finally:
            run.task.cancel()
            await asyncio.gather(run.task, return_exceptions=True)
            response.close()
            over.set()
            assert len(proxy.streams) == 0
            lessons.take(1 << 30)
            lessons.skipped = 0
            assert vars(lessons) == vars(Lessons())  # whatever happened, nothing is held


# --- JSON -----------------------------------------------------------------------------------------------------------


async def test_a_list_passes_without_what_may_not_be_used_and_is_learned_whole() -> None:
    """With its own length, and nothing that was said of the bytes that came."""
    async with relaying(json_answer(LIST, b'ETag: "1"', b"X-A: b")) as run:
        assert await run.ended() == "respond"
        assert (run.client.status, run.client.got, run.ctx.bytes_out) == (200, SHORT, len(SHORT))
        assert run.fields.keys() & {"etag", "content-length", "x-a"} == {"x-a"}  # `respond` adds the length
        assert run.learned() == ["open", "secret"]


async def test_a_route_that_does_not_filter_passes_every_byte_and_learns_too() -> None:
    """As it comes."""
    async with relaying(json_answer(LIST, b'ETag: "1"'), path="/p") as run:
        assert await run.ended() == "finish"
        assert (run.client.got, run.fields["etag"], run.fields["content-length"]) == (LIST, '"1"', str(len(LIST)))
        assert run.learned() == ["open", "secret"]


async def test_other_answers_pass_as_they_come() -> None:
    """Also on a route that filters; there is nothing to learn from them."""
    async with relaying(json_answer(LIST, b'ETag: "1"'), CALL) as run:
        assert await run.ended() == "finish"
        assert (run.client.got, run.fields["etag"], run.learned()) == (LIST, '"1"', [])


async def test_a_list_that_comes_in_pieces_is_sent_whole() -> None:
    """Nothing leaves before all of it is here."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with relaying(head) as run:
        for start in range(0, len(LIST), 20):
            await run.wire.send(chunk(LIST[start : start + 20]))
            await asyncio.sleep(0.001)
            assert run.client.steps == []
        await run.wire.send(b"0\r\n\r\n")
        await run.ended()
        assert (run.client.steps, run.client.got, run.learned()) == (["respond"], SHORT, ["open", "secret"])


@pytest.mark.parametrize(
    "answer",
    [
        json_answer(LIST, b"Content-Encoding: gzip"), json_answer(b"no list"),
        json_answer(LIST, b"Content-Type: x/y")[:-1] + b"x", json_answer(b" " * (MAX_BYTES + 1)),
        EVENTS.replace(b"ETag: x", b"Content-Encoding: br") + chunk(event(LIST)) + b"0\r\n\r\n",
    ],
    ids=["gzip", "text", "broken", "large", "events with a coding"],
)  # fmt: skip
async def test_what_cannot_be_filtered_is_refused(answer: bytes) -> None:
    """As a bad gateway, before anything was sent."""
    async with relaying(answer) as run:
        with pytest.raises(UpstreamFailed):
            await run.ended()
        assert run.client.steps == []


@pytest.mark.parametrize("route", ["/f", "/p"])
async def test_a_list_that_breaks_off_is_not_learned(route: str) -> None:
    """A client of whom nothing was sent gets a refusal, any other a reset."""
    async with relaying(json_answer(LIST)[:-5], path=route) as run:
        run.wire.reset()
        if route == "/f":
            with pytest.raises(UpstreamFailed):
                await run.ended()
            assert run.client.steps == []
        else:
            assert await run.ended() == "abort"
        assert run.learned() == []


async def test_a_list_that_never_comes_to_its_end_is_a_time_out() -> None:
    """After `timeouts.idle`."""
    async with relaying(json_answer(LIST)[:-5], timeouts={"idle": "20ms"}) as run:
        with pytest.raises(UpstreamTimeout):
            await run.ended()


@pytest.mark.parametrize("status", [b"404 Not Found", b"202 Accepted"])
async def test_an_error_passes_with_its_fields(status: bytes) -> None:
    """Though it is no JSON."""
    async with relaying(json_answer(b"gone", b'ETag: "1"', b"Content-Type: text/plain", status=status)) as run:
        assert await run.ended() == "respond"
        assert (run.client.got, run.fields["etag"], run.learned()) == (b"gone", '"1"', [])


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_an_answer_without_a_body_passes(status: bytes) -> None:
    """With its fields."""
    async with relaying(b"HTTP/1.1 %b\r\nETag: x\r\n\r\n" % status) as run:
        assert await run.ended() == "finish"
        assert (run.client.got, run.fields) == (b"", {"etag": "x", "via": "1.1 mcp-manager"})


# --- events ---------------------------------------------------------------------------------------------------------


async def test_events_are_filtered_one_by_one() -> None:
    """Each leaves when it is complete; what was said of the bytes is gone; all is learned as the server said it."""
    async with relaying(EVENTS) as run:
        await run.client.until(lambda: "flush" in run.client.steps)
        await run.wire.send(chunk(b": wait\n\n" + event(LIST)[:-1]))
        await run.client.until(lambda: run.client.got == b": wait\n\n")
        await run.wire.send(chunk(b"\n"))
        await run.client.until(lambda: run.client.got == b": wait\n\n" + event(SHORT))
        await run.wire.send(b"0\r\n\r\n")
        assert await run.ended() == "finish"
        assert run.fields.keys() & {"etag", "content-length"} == set()
        assert run.ctx.bytes_out == len(run.client.got)
        assert run.learned() == ["open", "secret"]


async def test_a_stream_of_its_own_is_filtered_too() -> None:
    """A GET, which may bring the answer to any request; it is not kept, as nobody knows what was asked."""
    async with relaying(EVENTS, b"") as run:
        await run.wire.send(chunk(event(LIST)))
        await run.client.until(lambda: run.client.got == event(SHORT))
        assert run.learned() == []


async def test_an_event_that_cannot_be_filtered_breaks_the_stream() -> None:
    """By what the handler turns into a reset; the events before it have passed."""
    async with relaying(EVENTS, b"") as run:
        await run.wire.send(chunk(event(LIST)))
        await run.client.until(lambda: run.client.got == event(SHORT))
        await run.wire.send(chunk(b"data: {\n\n"))
        with pytest.raises(UpstreamFailed):
            await run.ended()
        assert run.client.got == event(SHORT)


STREAM = b": hi\n\n" + event(LIST) + event(b'{"jsonrpc":"2.0","method":"notifications/x"}') + b"id: 7\n" + event(LIST)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=6), st.booleans())
def test_wherever_a_stream_is_cut_the_client_gets_the_same(cuts: list[int], filtered: bool) -> None:
    """And the same is learned, filtered or not."""

    async def run_it() -> None:
        async with relaying(EVENTS, path="/f" if filtered else "/p") as run:
            for start, end in pairwise([0, *sorted(cuts), len(STREAM)]):
                if end > start:
                    await run.wire.send(chunk(STREAM[start:end]))
                    await asyncio.sleep(0)
            await run.wire.send(b"0\r\n\r\n")
            assert await run.ended() == "finish"
            assert run.client.got == (STREAM.replace(LIST, SHORT) if filtered else STREAM)
            assert run.learned() == ["open", "secret"] * 2

    asyncio.run(run_it())
