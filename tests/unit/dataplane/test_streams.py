"""A drain finds every open stream and ends each as it may be ended; who lost its credential loses its streams."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane.context import ANONYMOUS, RequestContext
from proxy.dataplane.streams import Held, OpenStream, Streams
from proxy.identity.principal import Principal
from proxy.limits.rules import who
from tests.unit.dataplane.asked import ask, snapshot, somebody
from tests.unit.dataplane.fakes import Client

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


@pytest.mark.parametrize(
    ("body", "answered"),
    [(b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}', True), (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', False)],
    ids=["one", "batch"],
)
async def test_a_stream_has_given_its_answer_with_its_first_response(body: bytes, answered: bool) -> None:
    """Of a batch there may be more to come."""
    stream = Streams().open(ask(SNAPSHOT, "/up/mcp", body=body))
    assert not stream.answered
    if stream.last is not None:
        response = b'data: {"jsonrpc":"2.0","id":1,"result":{}}\n\n'
        stream.tracker.feed(response)
        stream.last.feed(response, stream.tracker)
    assert stream.answered is answered


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


# --- whose they are -------------------------------------------------------------------------------------------------

ADA, BOB, EVE = somebody("key:ada", "acme"), somebody("key:bob", "acme"), somebody("key:eve", "evil")


def opened(streams: Streams, principal: Principal, *, tunnel: bool = False) -> tuple[Held, RequestContext, Client]:
    """A stream or tunnel of somebody, in the current task."""
    client = Client(b"GET /up/mcp HTTP/1.1\r\nHost: localhost\r\n\r\n")
    ctx = RequestContext(client, SNAPSHOT, 0.0)
    ctx.principal = principal
    held = streams.open_tunnel(ctx) if tunnel else streams.open(ctx)
    held.task = None  # the test's own
    return held, ctx, client


@given(st.lists(st.tuples(st.sampled_from([ADA, BOB, EVE, ANONYMOUS]), st.booleans(), st.integers(0, 9))))
def test_streams_are_counted_by_client_and_tenant(steps: list[tuple[Principal, bool, int]]) -> None:
    """Whatever opens and closes, in whatever order, and however often something is closed."""
    streams = Streams()

    async def walk() -> None:
        alive: list[Held] = []
        for principal, tunnel, pick in steps:
            if alive and pick < 4:
                held = alive.pop(pick % len(alive))
                streams.close(held)
                streams.close(held)
            else:
                alive.append(opened(streams, principal, tunnel=tunnel)[0])
            for each in (ADA, BOB, EVE, ANONYMOUS):
                assert streams.open_of(who(each, "192.0.2.7")) == sum(held.principal is each for held in alive)
            for tenant in ("acme", "evil", ""):
                assert streams.open_of_tenant(tenant) == sum(held.principal.tenant == tenant for held in alive)
            assert len(streams) == len(alive)
        for held in alive:
            streams.close(held)

    asyncio.run(walk())
    left, empty = vars(streams), vars(Streams())
    assert {**left, "times": None} == {**empty, "times": None}


async def test_who_is_no_longer_let_in_loses_everything_at_once() -> None:
    """Streams and tunnels, by reset, with the word for it; the others stay, and each is asked about once."""
    streams = Streams()
    mine = [opened(streams, ADA), opened(streams, ADA, tunnel=True)]
    others = [opened(streams, BOB), opened(streams, EVE, tunnel=True), opened(streams, ANONYMOUS)]
    asked: list[Principal] = []

    def holds(principal: Principal) -> bool:
        asked.append(principal)
        return principal is not ADA

    assert streams.cut_unless(holds) == 2
    assert sorted(principal.id for principal in asked) == ["anonymous", "key:ada", "key:bob", "key:eve"]
    assert [(client.end, ctx.outcome) for _, ctx, client in mine] == [("abort", "revoked")] * 2
    assert [(client.end, ctx.outcome) for _, ctx, client in others] == [("", "")] * 3
    assert streams.cut_unless(holds) == 0  # those that are cut are on their way out


async def test_anonymous_streams_end_when_nobody_may_be_anonymous_any_more() -> None:
    """As a reload may say."""
    streams = Streams()
    _, ctx, client = opened(streams, ANONYMOUS)
    assert streams.cut_unless(lambda principal: principal is not ANONYMOUS) == 1
    assert (client.end, ctx.outcome) == ("abort", "revoked")


async def test_the_task_of_a_stream_that_is_cut_ends() -> None:
    """Also when its upstream is silent; a drain that comes later finds nothing to end."""
    streams = Streams()
    each = await streaming(streams, "GET")
    each.stream.principal = ADA
    each.stream._ctx.exchange = Client(b"GET /up/mcp HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert streams.cut_unless(lambda principal: False) == 1
    assert await ended(each)
    assert len(streams) == 0


# --- where they come from -------------------------------------------------------------------------------------------


async def from_server(streams: Streams, method: str, server: str) -> Streaming:
    """A task that streams from a server."""
    each = await streaming(streams, method)
    each.stream._ctx.upstream = SNAPSHOT_OF_TWO.upstreams[server]
    each.stream._ctx.exchange = Client(b"GET /up/mcp HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return each


SNAPSHOT_OF_TWO = snapshot({"up": "http://up.test/mcp", "other": "http://other.test/mcp"})


@pytest.mark.parametrize("method", ["GET", "tools/call"])
async def test_streams_of_a_server_that_is_drained_end(method: str) -> None:
    """Those of other servers go on, and so does what has no server yet."""
    streams = Streams()
    one, other, none = (
        await from_server(streams, method, "up"),
        await from_server(streams, method, "other"),
        await streaming(streams, method),
    )
    none.stream._ctx.upstream = None
    assert streams.end_of({"up"}) == 1
    assert (one.stream.ending, other.stream.ending, none.stream.ending) == (True, False, False)
    assert streams.end_of({"up"}) == 0
    assert await ended(one)
    assert not await ended(other) and not await ended(none)


async def test_a_stream_of_a_drained_server_that_stands_inside_an_event_is_reset_in_the_end() -> None:
    """It had its time; the client sees that it is not whole."""
    streams = Streams()
    each = await from_server(streams, "GET", "up")
    each.stream.tracker.feed(b"data: half")
    assert streams.end_of({"up"}) == 1
    assert not each.stream.cut
    assert streams.end_of({"up"}, at_once=True) == 1
    assert streams.end_of({"up"}, at_once=True) == 0
    assert (each.stream._ctx.outcome, each.stream.cut) == ("drained", True)
    assert await ended(each)


async def test_a_tunnel_of_a_drained_server_is_reset() -> None:
    """Where its frames stand is not known."""
    streams = Streams()
    held, ctx, client = opened(streams, ADA, tunnel=True)
    ctx.upstream = SNAPSHOT_OF_TWO.upstreams["up"]
    assert streams.end_of({"other"}) == 0
    assert streams.end_of({"up"}) == 1
    assert (client.end, ctx.outcome, held.cut) == ("abort", "drained", True)
    assert streams.cut_unless(lambda principal: False) == 0
