"""The next server is asked only when nothing was sent to the one before, and every counter comes back to rest."""

from __future__ import annotations

import asyncio

import pytest

from proxy.dataplane.forward import forward
from proxy.dataplane.inspect import read_message
from proxy.dataplane.match import match_route
from proxy.errors import (
    BodyTooLarge,
    ConnectFailed,
    NoServer,
    PoolExhausted,
    UpgradeRequired,
    UpstreamFailed,
    UpstreamTimeout,
)
from tests.harness import CALL, RESULT, Wire, json_answer, scripted_upstream
from tests.unit.dataplane.fakes import proxying
from tests.unit.dataplane.walking import answering, gone, route, walk


async def test_an_answer_comes_from_the_server_of_the_route() -> None:
    """The main job."""
    async with scripted_upstream() as upstream, proxying({"up": upstream.url}) as proxy:
        request = proxy.request()
        client = await walk(proxy, request)
        assert (client.status, client.got, client.end) == (200, RESULT, "finish")
        assert (request.ctx.tries, request.ctx.upstream) == (1, proxy.live.snapshot.upstreams["up"])
        assert upstream.seen[0].endswith(CALL)


async def test_a_server_that_is_not_there_leaves_it_to_the_next() -> None:
    """Nothing was sent, so nothing is repeated."""
    async with scripted_upstream() as upstream:
        servers = {"a": gone(), "b": gone(), "c": upstream.url}
        async with proxying(servers, routes=[route("a", "b", "c")]) as proxy:
            request = proxy.request("/all")
            client = await walk(proxy, request)
            assert (client.status, request.ctx.tries) == (200, 3)
            assert len(upstream.seen) == 1


async def test_a_server_whose_pool_is_full_leaves_it_to_the_next() -> None:
    """The same holds when no connection came free."""
    async with scripted_upstream() as upstream:
        full = {"url": gone(), "pool": {"max_connections": 1}, "timeouts": {"connect": "10ms"}}
        async with proxying({"full": full, "b": upstream.url}, routes=[route("full", "b")]) as proxy:
            taken = proxy.live.snapshot.upstreams["full"]
            taken.client._slots.used = 1
            request = proxy.request("/all")
            await walk(proxy, request)
            assert request.ctx.tries == 2
            taken.client._slots.used = 0


@pytest.mark.parametrize(("raw", "reset"), [(b"", False), (b"", True), (b"no", False)])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_request_that_may_have_arrived_is_never_sent_again(raw: bytes, reset: bool, streamed: bool) -> None:
    """However the server failed; the one beside it sees nothing."""
    async with scripted_upstream(answering(raw, reset)) as broken, scripted_upstream() as other:
        routes = [route("a", "b", inspect="none" if streamed else "full")]
        async with proxying({"a": broken.url, "b": other.url}, routes=routes) as proxy:
            request = proxy.request("/all")
            with pytest.raises(UpstreamFailed):
                await walk(proxy, request)
            assert (len(broken.seen), other.connections, request.ctx.tries) == (1, 0, 1)
            assert not request.client.started


@pytest.mark.parametrize("status", [b"404 Not Found", b"500 Oops", b"502 Bad Gateway", b"503 Busy"])
async def test_an_answer_is_an_answer_whatever_its_status(status: bytes) -> None:
    """An error of the upstream's is the client's to see, not a reason to ask another."""
    async with (
        scripted_upstream(answering(json_answer(b"{}", status))) as first,
        scripted_upstream() as other,
        proxying({"a": first.url, "b": other.url}, routes=[route("a", "b")]) as proxy,
    ):
        client = await walk(proxy, proxy.request("/all"))
        assert (client.status, other.connections) == (int(status[:3]), 0)


async def test_when_no_server_can_be_reached_the_last_failure_is_the_answer() -> None:
    """Each was tried once."""
    async with proxying({"a": gone(), "b": gone()}, routes=[route("a", "b")]) as proxy:
        request = proxy.request("/all")
        with pytest.raises(ConnectFailed):
            await walk(proxy, request)
        assert request.ctx.tries == 2


async def test_a_route_that_has_no_server_left_says_when_to_come_back() -> None:
    """A server of weight 0 takes no new traffic."""
    routes = [route(strategy="weighted") | {"servers": [{"name": "a", "weight": 0}]}]
    async with proxying({"a": gone()}, routes=routes) as proxy:
        with pytest.raises(NoServer) as refused:
            await walk(proxy, proxy.request("/all"))
        assert refused.value.headers == (("Retry-After", "1"),)


async def test_a_bound_request_goes_to_its_server_or_nowhere() -> None:
    """A session cannot move: its server alone is asked, once."""
    async with scripted_upstream() as upstream, proxying({"a": gone(), "b": upstream.url}) as proxy:
        request = proxy.request("/b/mcp")
        await read_message(request.ctx)
        match_route(request.ctx)
        request.ctx.pinned = proxy.live.snapshot.upstreams["a"]
        with pytest.raises(ConnectFailed):
            await forward(request.ctx, proxy.parts)
        assert (upstream.connections, request.ctx.tries) == (0, 1)


@pytest.mark.parametrize(
    ("own", "asked", "sent"), [("", "", ""), ("", "?a=%20b", "?a=%20b"), ("?k=1", "", "?k=1"), ("?k=1", "?a=2", "?k=1")]
)
async def test_the_clients_query_goes_along_unless_the_url_has_its_own(own: str, asked: str, sent: str) -> None:
    """As it was written."""
    async with scripted_upstream() as upstream, proxying({"up": upstream.url + own}) as proxy:
        await walk(proxy, proxy.request(f"/up/mcp{asked}"))
        assert upstream.seen[0].startswith(f"POST /mcp{sent} HTTP/1.1\r\n".encode())


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_only_calls_tell_how_fast_a_server_is(method: str) -> None:
    """The head of a stream comes at once, whatever the server has to do."""
    async with proxying({"up": "http://replaced"}) as proxy:

        async def script(wire: Wire) -> None:
            await wire.request()
            proxy.time.now += 2.0
            await wire.send(json_answer())

        async with scripted_upstream(script) as upstream:
            proxy.configure(servers={"up": {"url": upstream.url}})
            request = proxy.request(method=method)
            await walk(proxy, request)
            assert proxy.live.snapshot.upstreams["up"].latency_ewma_s == (2.0 if method == "POST" else 0.0)
            assert request.ctx.first_byte_at == proxy.time.now
            await proxy.live.close()


RAW = [route("up", inspect="none", sessions="passthrough")]


async def test_a_body_that_nobody_inspects_streams_through() -> None:
    """Piece by piece, and counted."""
    async with scripted_upstream() as upstream, proxying({"up": upstream.url}, routes=RAW) as proxy:
        request = proxy.request("/all", body=(b"not ", b"JSON"))
        await walk(proxy, request)
        assert upstream.seen[0].endswith(b"\r\n\r\n4\r\nnot \r\n4\r\nJSON\r\n0\r\n\r\n")
        assert (request.ctx.bytes_in, request.ctx.body) == (8, None)


@pytest.mark.parametrize("length", [0, 3])
async def test_a_body_of_known_length_keeps_it(length: int) -> None:
    """No body of length 0 becomes a chunked one."""
    async with scripted_upstream() as upstream, proxying({"up": upstream.url}, routes=RAW) as proxy:
        await walk(proxy, proxy.request("/all", body=(b"abc"[:length],), length=length))
        assert f"\r\nContent-Length: {length}\r\n".encode() in upstream.seen[0]
        assert b"chunked" not in upstream.seen[0]
        assert upstream.seen[0].endswith(b"\r\n\r\n" + b"abc"[:length])


async def test_a_fault_of_the_clients_body_is_the_answer() -> None:
    """Not the failure that it causes upstream."""

    async def script(wire: Wire) -> None:
        await wire.reader.read()

    fault = BodyTooLarge()
    async with scripted_upstream(script) as upstream, proxying({"up": upstream.url}, routes=RAW) as proxy:
        with pytest.raises(BodyTooLarge) as refused:
            await walk(proxy, proxy.request("/all", body=(b"a", fault)))
        assert refused.value is fault


async def test_the_deadline_for_a_whole_exchange_ends_it_before_or_after_its_answer_began() -> None:
    """With 504 while that can still be said, else by breaking off."""

    async def script(wire: Wire) -> None:
        while request := await wire.request():
            if b"tools/call" in request:
                await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
            await wire.reader.read()

    async with (
        scripted_upstream(script) as upstream,
        proxying({"up": {"url": upstream.url, "timeouts": {"total": "30ms"}}}) as proxy,
    ):
        request = proxy.request()
        client = await walk(proxy, request)
        assert (client.end, request.ctx.outcome) == ("abort", "timeout")
        with pytest.raises(UpstreamTimeout):
            await walk(proxy, proxy.request(body=(b'{"jsonrpc":"2.0","id":1,"method":"ping"}',)))


async def test_a_server_that_speaks_websocket_refuses_a_plain_request() -> None:
    """It is never even connected to."""
    async with proxying({"ws": {"url": "ws://127.0.0.1:9/ws", "transport": "websocket"}}) as proxy:
        with pytest.raises(UpgradeRequired):
            await walk(proxy, proxy.request("/ws/mcp"))


async def test_a_client_that_leaves_leaves_nothing_in_flight() -> None:
    """The cancellation passes through every counter."""
    asked = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        asked.set()
        await wire.reader.read()

    async with scripted_upstream(script) as upstream, proxying({"up": upstream.url}) as proxy:
        task = asyncio.ensure_future(walk(proxy, proxy.request()))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_mirrored_route_starts_a_copy_beside_the_request() -> None:
    """The answer is the real server's."""
    async with scripted_upstream() as upstream:
        routes = [route("a", mirror={"server": "b"})]
        async with proxying({"a": upstream.url, "b": gone()}, routes=routes) as proxy:
            client = await walk(proxy, proxy.request("/all"))
            assert client.status == 200
            assert [name for name, _ in proxy.copies] == ["mirror b"]


async def test_a_full_pool_is_the_answer_when_there_is_no_other_server() -> None:
    """With its own reason and the time to come back."""
    full = {"url": gone(), "pool": {"max_connections": 1}, "timeouts": {"connect": "10ms"}}
    async with proxying({"up": full}) as proxy:
        slots = proxy.live.snapshot.upstreams["up"].client._slots
        slots.used = 1
        with pytest.raises(PoolExhausted) as refused:
            await walk(proxy, proxy.request())
        assert refused.value.headers == (("Retry-After", "1"),)
        slots.used = 0


async def test_a_server_that_is_denied_is_never_asked() -> None:
    """The next one is; with none left there is none."""
    async with (
        scripted_upstream() as denied,
        scripted_upstream() as allowed,
        proxying({"one": denied.url, "two": allowed.url}, routes=[route("one", "two")]) as proxy,
    ):
        request = proxy.request("/all")
        request.ctx.denied = ["one"]
        assert (await walk(proxy, request)).status == 200
        assert (len(denied.seen), len(allowed.seen), request.ctx.tries) == (0, 1, 1)
        request = proxy.request("/all")
        request.ctx.denied = ["one", "two"]
        with pytest.raises(NoServer):
            await walk(proxy, request)
