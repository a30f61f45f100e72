"""Sessions, windows, health, rests and queues as a request meets them: over sockets, to the end of the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.config.resilience import RetryBudget
from proxy.dataplane.forward import forward
from proxy.dataplane.maintenance import Active
from proxy.dataplane.shedding import EVERYONE, refuse_waiting
from proxy.dataplane.upstream import Upstream
from proxy.errors import CircuitOpen, QueueFull, SessionGone, Shed, UnderMaintenance, UpstreamFailed
from tests.harness import CALL, Wire, json_answer, scripted_upstream
from tests.unit.dataplane.fakes import Client, Proxy, Request, proxying
from tests.unit.dataplane.walking import (
    LIST,
    LOSES,
    Held,
    answering,
    bound,
    check_rest,
    gone,
    message,
    open_breaker,
    route,
    send,
    under_way,
    walk,
)

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def of(proxy: Proxy, name: str) -> Upstream:
    return proxy.live.snapshot.upstreams[name]


def maintain(upstream: Upstream, drains_s: float = 30.0) -> None:
    """It is in a window of ten minutes."""
    upstream.window = Active("disk", time.time() + 600.5, time.time() + drains_s)


async def in_session(proxy: Proxy, server: str, body: bytes = CALL) -> int:
    """The status of a request of a session at that server."""
    request = proxy.request("/all", body=(body,))
    await bound(proxy, request, server)
    try:
        await forward(request.ctx, proxy.parts)
    finally:
        check_rest(proxy)
    assert request.ctx.upstream is of(proxy, server)
    return request.client.status


# --- sessions -------------------------------------------------------------------------------------------------------


async def test_a_session_whose_server_cannot_be_reached_begins_anew() -> None:
    """404, and the other server is not asked for what it does not know."""
    async with (
        scripted_upstream() as other,
        proxying({"a": gone(), "b": other.url}, routes=[route("a", "b")]) as proxy,
    ):
        with pytest.raises(SessionGone):
            await in_session(proxy, "a")
        assert other.connections == 0


async def test_a_session_whose_server_fails_begins_anew_when_another_server_can_take_it() -> None:
    """Else it is told when its server is tried again."""
    async with (
        scripted_upstream() as first,
        scripted_upstream() as other,
        proxying({"a": first.url, "b": other.url}, routes=[route("a", "b")]) as proxy,
    ):
        open_breaker(of(proxy, "a"))
        with pytest.raises(SessionGone):
            await in_session(proxy, "a")
        open_breaker(of(proxy, "b"))
        with pytest.raises(CircuitOpen) as refused:
            await in_session(proxy, "a")
        assert dict(refused.value.headers) == {"Retry-After": "6"}
        assert (first.connections, other.connections) == (0, 0)
        proxy.time.now += 7
        assert await in_session(proxy, "a") == 200


async def test_a_session_whose_server_loses_a_connection_reads_there_once_more_and_calls_never() -> None:
    """No other server knows it."""
    async with (
        scripted_upstream(LOSES) as first,
        scripted_upstream() as other,
        proxying({"a": first.url, "b": other.url}, routes=[route("a", "b")]) as proxy,
    ):
        for body, times in ((LIST, 2), (CALL, 3)):
            with pytest.raises(UpstreamFailed):
                await in_session(proxy, "a", body)
            assert len(first.seen) == times
        assert other.connections == 0


# --- maintenance ----------------------------------------------------------------------------------------------------


async def test_during_a_drain_sessions_go_on_and_what_is_new_goes_elsewhere() -> None:
    """After it the session does, too, by beginning anew."""
    async with (
        scripted_upstream() as first,
        scripted_upstream() as other,
        proxying({"a": first.url, "b": other.url}, routes=[route("a", "b")]) as proxy,
    ):
        maintain(of(proxy, "a"))
        assert (await walk(proxy, proxy.request("/all"))).status == 200
        assert await in_session(proxy, "a") == 200
        assert (len(first.seen), len(other.seen)) == (1, 1)
        maintain(of(proxy, "a"), drains_s=-1)
        with pytest.raises(SessionGone):
            await in_session(proxy, "a")
        assert len(first.seen) == 1


async def test_when_every_server_is_maintained_clients_are_told_why_and_until_when() -> None:
    """A session after its drain, too."""
    async with (
        scripted_upstream() as first,
        proxying({"a": first.url, "b": first.url}, routes=[route("a", "b")]) as proxy,
    ):
        for name in "ab":
            maintain(of(proxy, name), drains_s=-1)
        with pytest.raises(UnderMaintenance) as refused:
            await walk(proxy, proxy.request("/all"))
        assert (refused.value.title, refused.value.headers) == ("disk", (("Retry-After", "601"),))
        with pytest.raises(UnderMaintenance):
            await in_session(proxy, "a")
        assert first.connections == 0


async def test_a_window_that_begins_during_a_failover_is_kept() -> None:
    """Its server is not the next one; without another the failure is the answer."""

    async def script(wire: Wire) -> None:
        await wire.request()
        maintain(of(proxy, "b"))
        wire.reset()

    async with (
        scripted_upstream(script) as first,
        scripted_upstream() as other,
        proxying({"a": first.url, "b": other.url}, routes=[route("a", "b")]) as proxy,
    ):
        with pytest.raises(UpstreamFailed):
            await walk(proxy, proxy.request("/all", body=(LIST,)))
        assert (len(first.seen), other.connections) == (2, 0)


@asynccontextmanager
async def waiting(proxy: Proxy, request: Request) -> AsyncIterator[asyncio.Task[Client]]:
    """A request that waits in the queue of `a`, whose only place is taken until the end of this."""
    queue = of(proxy, "a").queue
    assert queue is not None
    assert queue.try_enter()
    async with under_way(proxy, request) as task:
        while not queue.pending:
            await asyncio.sleep(0)
        yield task
    check_rest(proxy)


def through(proxy: Proxy) -> None:
    """The place at `a` comes free."""
    queue = of(proxy, "a").queue
    assert queue is not None
    queue.leave()


async def test_who_waits_when_a_window_begins_goes_to_another_server() -> None:
    """However many wait: it is no failure, and takes nothing of the budget of retries."""
    async with (
        scripted_upstream() as first,
        scripted_upstream() as other,
        proxying({"a": queued(first.url), "b": other.url}, routes=[route("a", "b")]) as proxy,
    ):
        proxy.parts.budget.config = RetryBudget(percent=0, minimum=0)
        request = proxy.request("/all")
        async with waiting(proxy, request) as task:
            maintain(of(proxy, "a"))
            through(proxy)
            assert (await task).status == 200
        assert (first.connections, len(other.seen), request.ctx.tries) == (0, 1, 1)
        assert request.ctx.upstream is of(proxy, "b")
        assert (proxy.parts.budget.taken, proxy.parts.budget.refused) == (0, 0)


async def test_what_follows_when_the_other_server_fails_is_about_that_one() -> None:
    """It lost the connection, so it is asked once more; the one under maintenance never is."""
    async with (
        scripted_upstream() as first,
        scripted_upstream(LOSES) as other,
        proxying({"a": queued(first.url), "b": other.url}, routes=[route("a", "b")]) as proxy,
    ):
        async with waiting(proxy, proxy.request("/all", body=(LIST,))) as task:
            maintain(of(proxy, "a"))
            through(proxy)
            with pytest.raises(UpstreamFailed):
                await task
        assert (first.connections, len(other.seen)) == (0, 2)


async def test_who_waits_for_the_only_server_when_a_window_begins_is_told_so() -> None:
    """Why, and until when."""
    async with scripted_upstream() as first, proxying({"a": queued(first.url)}, routes=[route("a")]) as proxy:
        async with waiting(proxy, proxy.request("/all")) as task:
            maintain(of(proxy, "a"))
            through(proxy)
            with pytest.raises(UnderMaintenance) as refused:
                await task
        assert (refused.value.title, refused.value.headers) == ("disk", (("Retry-After", "601"),))
        assert first.connections == 0


@pytest.mark.parametrize(("drains_s", "served"), [(30, True), (-1, False)])
async def test_a_session_that_waits_when_a_window_begins_is_served_until_the_drain_is_over(
    drains_s: float, served: bool
) -> None:
    """Then it begins anew elsewhere."""
    async with (
        scripted_upstream() as first,
        scripted_upstream() as other,
        proxying({"a": queued(first.url), "b": other.url}, routes=[route("a", "b")]) as proxy,
    ):
        request = proxy.request("/all")
        await bound(proxy, request, "a")
        queue = of(proxy, "a").queue
        assert queue is not None
        assert queue.try_enter()
        task = asyncio.ensure_future(forward(request.ctx, proxy.parts))
        while not queue.pending:
            await asyncio.sleep(0)
        maintain(of(proxy, "a"), drains_s=drains_s)
        through(proxy)
        if served:
            await task
        else:
            with pytest.raises(SessionGone):
                await task
        assert (len(first.seen), other.connections) == (served, 0)
        check_rest(proxy)


async def test_a_call_that_may_have_been_made_is_not_told_as_refused_because_a_window_begins() -> None:
    """A client that hears of maintenance sends it again."""

    async def script(wire: Wire) -> None:
        await wire.request()
        maintain(of(proxy, "a"), drains_s=-1)
        wire.reset()

    async with (
        scripted_upstream(script) as first,
        scripted_upstream() as other,
        proxying({"a": first.url, "b": other.url}, routes=[route("a", "b")]) as proxy,
    ):
        with pytest.raises(UpstreamFailed):
            await in_session(proxy, "a")
        assert (len(first.seen), other.connections) == (1, 0)


# --- memory ----------------------------------------------------------------------------------------------------------


async def test_when_memory_is_short_the_largest_that_wait_are_refused_and_nothing_of_them_was_sent() -> None:
    """As many as it takes: the others wait on. Nor are they sent to another server, or counted as sent."""
    padded = [CALL + b" " * size for size in (10, 3000, 200, 5000)]
    async with (
        scripted_upstream() as first,
        scripted_upstream() as other,
        proxying({"a": queued(first.url, max_pending=4), "b": other.url}, routes=[route("a", "b")]) as proxy,
    ):
        queue, load = of(proxy, "a").queue, proxy.parts.load
        assert queue is not None
        assert queue.try_enter()
        tasks = []
        for number, body in enumerate(padded, 1):
            tasks.append(asyncio.ensure_future(send(proxy, proxy.request("/all", body=(body,)))))
            while queue.pending < number:
                await asyncio.sleep(0)
        load.excess = 6000
        refuse_waiting(load, [queue])
        assert queue.pending == 4, "what is short is not the memory"
        load.refused_from = EVERYONE
        refuse_waiting(load, [queue])
        assert (queue.pending, load.excess < 0) == (2, True)
        refuse_waiting(load, [queue])
        queue.leave()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Client, Shed, Client, Shed]
        assert (len(first.seen), other.connections) == (2, 0)
        check_rest(proxy)


# --- health, rests ---------------------------------------------------------------------------------------------------


async def test_servers_that_are_said_to_be_down_are_asked_when_there_are_no_others() -> None:
    """A check may err; what the traffic finds is counted."""
    checked: dict[str, Any] = {"health_check": {"unhealthy_after": 1, "slow_start": "0"}}
    async with scripted_upstream() as first, scripted_upstream() as other:
        servers = {"a": {"url": first.url, **checked}, "b": {"url": other.url, **checked}}
        async with proxying(servers, routes=[route("a", "b")]) as proxy:
            of(proxy, "a").health.checked(False, 0.1)
            await walk(proxy, proxy.request("/all"))
            assert (len(first.seen), len(other.seen)) == (0, 1)
            of(proxy, "b").health.checked(False, 0.1)
            await walk(proxy, proxy.request("/all"))
            assert (len(first.seen), len(other.seen)) == (1, 1)


async def test_after_too_many_requests_others_are_asked_for_as_long_as_the_server_says() -> None:
    """The client whose request it was sees the server's answer."""
    busy = json_answer(b"{}", b"429 Too Many Requests\r\nRetry-After: 30")
    async with (
        scripted_upstream(answering(busy)) as first,
        scripted_upstream() as other,
        proxying({"a": first.url, "b": other.url}, routes=[route("a", "b")]) as proxy,
    ):
        client = await walk(proxy, proxy.request("/all"))
        assert (client.status, dict(client.headers)["Retry-After"]) == (429, "30")
        proxy.time.now += 29
        assert (await walk(proxy, proxy.request("/all"))).status == 200
        proxy.time.now += 2
        assert (await walk(proxy, proxy.request("/all"))).status == 429
        assert (len(first.seen), len(other.seen)) == (2, 1)


# --- queues ---------------------------------------------------------------------------------------------------------


def queued(url: str, **keys: Any) -> dict[str, Any]:
    """A server with room for one."""
    return {"url": url, "queue": {"max_concurrent": 1, **keys}}


def load(proxy: Proxy) -> tuple[int, int, int, int]:
    """In flight, streams, and who runs and waits in the queue of `up`."""
    upstream = of(proxy, "up")
    assert upstream.queue is not None
    return upstream.in_flight, upstream.open_streams, upstream.queue.running, upstream.queue.pending


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_stream_holds_its_place_until_its_head_has_come(method: str) -> None:
    """Then a call goes through while it is open; at its end nothing is given back twice."""

    async def script(wire: Wire) -> None:
        if method.encode() in await wire.request() and not go.is_set():
            asked.set()
            await go.wait()
            await wire.send(EVENTS + b"data: 1\n\n")
            await wire.reader.read()
        else:
            await wire.send(json_answer())

    asked, go = asyncio.Event(), asyncio.Event()
    async with scripted_upstream(script) as upstream, proxying({"up": queued(upstream.url)}) as proxy:
        request = proxy.request(method=method)
        async with under_way(proxy, request) as task:
            await asked.wait()
            assert load(proxy) == (1, int(method == "GET"), 1, 0)
            go.set()
            await request.client.until(lambda: request.client.got == b"data: 1\n\n")
            assert load(proxy) == (1, 1, 0, 0)
            assert (await send(proxy, proxy.request())).status == 200
            assert load(proxy) == (1, 1, 0, 0)
            task.cancel()
        check_rest(proxy)


async def test_an_answer_that_is_no_stream_holds_its_place_until_its_end() -> None:
    """Its body is work for the server yet."""
    go = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        await go.wait()
        await wire.send(b"k")

    async with scripted_upstream(script) as upstream, proxying({"up": queued(upstream.url)}) as proxy:
        request = proxy.request()
        async with under_way(proxy, request) as task:
            await request.client.until(lambda: request.client.got == b"o")
            assert load(proxy) == (1, 0, 1, 0)
            go.set()
            await task
        assert request.client.got == b"ok"
        check_rest(proxy)


async def test_who_waits_gets_the_place_of_who_is_through() -> None:
    """However that one ended."""
    held = Held()
    async with scripted_upstream(held) as upstream, proxying({"up": queued(upstream.url)}) as proxy:
        async with under_way(proxy, proxy.request()) as first:
            await held.asked.wait()
            request = proxy.request()
            async with under_way(proxy, request) as second:
                while load(proxy) != (1, 0, 1, 1):
                    await asyncio.sleep(0)
                proxy.time.now += 0.5
                first.cancel()
                held.go.set()
                assert (await second).status == 200
                assert request.ctx.queued_s == 0.5
        check_rest(proxy)


async def test_a_client_that_leaves_leaves_the_queue() -> None:
    """Its request never reaches the server."""
    held = Held()
    async with scripted_upstream(held) as upstream, proxying({"up": queued(upstream.url)}) as proxy:
        async with under_way(proxy, proxy.request()) as first:
            await held.asked.wait()
            async with under_way(proxy, proxy.request()) as second:
                while load(proxy) != (1, 0, 1, 1):
                    await asyncio.sleep(0)
                second.cancel()
            assert load(proxy) == (1, 0, 1, 0)
            held.go.set()
            await first
        check_rest(proxy)
        assert len(upstream.seen) == 1


async def test_who_asks_whether_the_server_is_there_does_not_queue() -> None:
    """It is answered while the only place is taken, and leaves it taken."""
    held = Held()

    async def script(wire: Wire) -> None:
        if b"server/discover" in (request := await wire.request()):
            await wire.send(json_answer())
        elif request:
            held.asked.set()
            await held.go.wait()
            await wire.send(json_answer())

    async with scripted_upstream(script) as upstream, proxying({"up": queued(upstream.url, max_pending=0)}) as proxy:
        async with under_way(proxy, proxy.request()) as first:
            await held.asked.wait()
            assert (await send(proxy, proxy.request(body=(message("server/discover"),)))).status == 200
            assert load(proxy) == (1, 0, 1, 0)
            with pytest.raises(QueueFull):
                await send(proxy, proxy.request())
            held.go.set()
            await first
        check_rest(proxy)


async def test_a_server_with_all_its_streams_leaves_the_next_to_another() -> None:
    """Calls still go there; without another server the stream is refused."""

    async def script(wire: Wire) -> None:
        if (await wire.request()).startswith(b"GET"):
            await wire.send(EVENTS + b"data: 1\n\n")
            await wire.reader.read()
        else:
            await wire.send(json_answer())

    async with scripted_upstream(script) as first, scripted_upstream() as other:
        servers = {"up": queued(first.url, max_streams=1), "b": other.url}
        async with proxying(servers, routes=[route("up", "b")]) as proxy:
            stream = proxy.request("/all", method="GET")
            async with under_way(proxy, stream) as task:
                await stream.client.until(lambda: bool(stream.client.got))
                second = proxy.request("/all", method="GET")
                assert (await send(proxy, second)).status == 200
                assert second.ctx.upstream is of(proxy, "b")
                with pytest.raises(QueueFull):
                    await send(proxy, proxy.request("/up/mcp", method="GET"))
                call = proxy.request("/all")
                await send(proxy, call)
                assert call.ctx.upstream is of(proxy, "up")
                task.cancel()
            check_rest(proxy)


@pytest.mark.parametrize("ending", ["reset", "too large", "deadline", "unreachable"])
async def test_however_a_request_fails_its_place_is_free(ending: str) -> None:
    """At once, for the next."""
    scripts = {"reset": LOSES, "too large": answering(json_answer(b"x" * 90)), "deadline": Held()}
    async with scripted_upstream(scripts.get(ending, LOSES)) as upstream:
        server = queued(upstream.url if ending != "unreachable" else gone(), max_pending=0)
        server |= {"answers": {"max_body": 80}, "timeouts": {"total": "20ms" if ending == "deadline" else "0"}}
        async with proxying({"up": server}) as proxy:
            for _ in range(2):
                with pytest.raises(Exception, match=r".") as refused:
                    await walk(proxy, proxy.request())
                assert not isinstance(refused.value, QueueFull)
