"""What follows when a server fails: another one if that is harmless, and never more often than the route allows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy.config.models import RetryBudget as RetryBudgetSettings
from proxy.errors import CircuitOpen, ConnectFailed, QueueFull, QueueTimeout, UpstreamFailed
from tests.harness import CALL, RESULT, Wire, scripted_upstream
from tests.unit.dataplane.fakes import Proxy, proxying
from tests.unit.dataplane.walking import (
    LIST,
    LOSES,
    READS,
    Held,
    answering,
    check_rest,
    gone,
    hint,
    message,
    open_breaker,
    route,
    send,
    under_way,
    walk,
)

HINTED = {"tools": "hinted"}
NOTIFICATION = b'{"jsonrpc":"2.0","method":"notifications/progress"}'
LISTEN = message("subscriptions/listen")
ONE_PLACE = {"max_concurrent": 1, "max_pending": 5}


def tight(proxy: Proxy, percent: float = 0, minimum: int = 0) -> None:
    """Another budget for retries."""
    proxy.parts.budget.config = RetryBudgetSettings(percent=percent, minimum=minimum)


# --- nothing was sent -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [CALL, LIST, NOTIFICATION, LISTEN, message("initialize")])
async def test_whatever_could_not_be_sent_goes_to_the_next_server(body: bytes) -> None:
    """However often it may be sent: it was not."""
    routes = [route("a", "b", "c", retry={"attempts": 1})]
    async with (
        scripted_upstream() as upstream,
        proxying({"a": gone(), "b": gone(), "c": upstream.url}, routes=routes) as proxy,
    ):
        request = proxy.request("/all", body=(body,))
        assert (await walk(proxy, request)).status == 200
        assert (len(upstream.seen), request.ctx.tries) == (1, 3)
        assert [proxy.live.snapshot.upstreams[name].breaker.by_origin["connect"] for name in "abc"] == [1, 1, 0]


async def test_a_stream_that_could_not_be_opened_is_opened_at_the_next_server() -> None:
    """A GET, too."""
    async with (
        scripted_upstream() as upstream,
        proxying({"a": gone(), "b": upstream.url}, routes=[route("a", "b")]) as proxy,
    ):
        assert (await walk(proxy, proxy.request("/all", method="GET"))).status == 200


async def test_a_body_that_streams_goes_to_the_next_server_as_long_as_nothing_of_it_was_read() -> None:
    """The whole body arrives there."""
    routes = [route("a", "b", inspect="none")]
    async with scripted_upstream() as upstream, proxying({"a": gone(), "b": upstream.url}, routes=routes) as proxy:
        await walk(proxy, proxy.request("/all", body=(b"one ", b"two")))
        assert upstream.seen[0].endswith(b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n")


async def test_a_server_whose_queue_is_full_leaves_it_to_the_next() -> None:
    """It is asked nothing."""
    full = {"url": gone(), "queue": {"max_concurrent": 1, "max_pending": 0}}
    async with (
        scripted_upstream() as upstream,
        proxying({"a": full, "b": upstream.url}, routes=[route("a", "b")]) as proxy,
    ):
        queue = proxy.live.snapshot.upstreams["a"].queue
        assert queue is not None
        assert queue.try_enter()
        request = proxy.request("/all")
        assert (await send(proxy, request)).status == 200
        assert (request.ctx.tries, queue.rejected) == (1, 1)
        queue.leave()
        check_rest(proxy)


async def test_a_full_queue_is_the_answer_when_there_is_no_other_server() -> None:
    """With the time to come back."""
    full = {"url": gone(), "queue": {"max_concurrent": 1, "max_pending": 0}}
    async with proxying({"a": full}, routes=[route("a")]) as proxy:
        queue = proxy.live.snapshot.upstreams["a"].queue
        assert queue is not None
        assert queue.try_enter()
        with pytest.raises(QueueFull) as refused:
            await send(proxy, proxy.request("/all"))
        assert "Retry-After" in dict(refused.value.headers)
        queue.leave()
        check_rest(proxy)


async def test_who_has_waited_in_vain_is_not_sent_to_wait_elsewhere() -> None:
    """The time is used up."""
    slow = {"url": gone(), "queue": {"max_concurrent": 1, "max_wait": "5ms"}}
    async with (
        scripted_upstream() as upstream,
        proxying({"a": slow, "b": upstream.url}, routes=[route("a", "b")]) as proxy,
    ):
        queue = proxy.live.snapshot.upstreams["a"].queue
        assert queue is not None
        assert queue.try_enter()
        async with under_way(proxy, proxy.request("/all")) as task:
            while not queue.pending:
                await asyncio.sleep(0)
            proxy.time.now += 1
            with pytest.raises(QueueTimeout):
                await task
        assert upstream.connections == 0
        queue.leave()
        check_rest(proxy)


async def test_a_breaker_that_opens_while_a_request_waits_sends_it_to_the_next_server() -> None:
    """Also a call: nothing of it was sent."""
    held = Held(b"no answer")
    async with scripted_upstream(held) as failing, scripted_upstream() as other:
        first = {"url": failing.url, "queue": ONE_PLACE, "breaker": {"failures": 1}}
        async with proxying({"a": first, "b": other.url}, routes=[route("a", "b")]) as proxy:
            queue = proxy.live.snapshot.upstreams["a"].queue
            assert queue is not None
            async with under_way(proxy, proxy.request("/all", body=(LIST,))) as sent:
                await held.asked.wait()
                async with under_way(proxy, proxy.request("/all")) as waits:
                    while not queue.pending:
                        await asyncio.sleep(0)
                    held.go.set()
                    assert ((await sent).status, (await waits).status) == (200, 200)
            assert (len(failing.seen), len(other.seen)) == (1, 2)
            assert proxy.live.snapshot.upstreams["a"].breaker.state == "open"
            check_rest(proxy)


async def test_an_open_breaker_is_passed_over_and_is_the_answer_when_all_are_open() -> None:
    """With the time until the first trial, which is soon when there is nobody else."""
    async with scripted_upstream() as upstream:
        servers = {
            "a": {"url": upstream.url, "breaker": {"open_for": "20s"}},
            "b": {"url": upstream.url, "breaker": {"open_for": "10s"}},
        }
        async with proxying(servers, routes=[route("a", "b")]) as proxy:
            for upstream_ in proxy.live.snapshot.upstreams.values():
                open_breaker(upstream_)
            with pytest.raises(CircuitOpen) as refused:
                await walk(proxy, proxy.request("/all"))
            assert dict(refused.value.headers) == {"Retry-After": "1"}
            assert upstream.connections == 0
            proxy.time.now += 1
            request = proxy.request("/all")
            await walk(proxy, request)
            assert request.ctx.upstream is proxy.live.snapshot.upstreams["a"]
            assert proxy.live.snapshot.upstreams["a"].breaker.state == "closed"


# --- it may have arrived --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(READS))
@pytest.mark.parametrize("raw", [b"", b"no HTTP"])
async def test_what_only_reads_is_sent_again_when_the_connection_is_lost(method: str, raw: bytes) -> None:
    """To the next server."""
    async with (
        scripted_upstream(answering(raw, reset=not raw)) as broken,
        scripted_upstream() as other,
        proxying({"a": broken.url, "b": other.url}, routes=[route("a", "b")]) as proxy,
    ):
        request = proxy.request("/all", body=(message(method),))
        client = await walk(proxy, request)
        assert (client.status, client.got, request.ctx.tries) == (200, RESULT, 2)
        assert (len(broken.seen), len(other.seen)) == (1, 1)
        assert request.ctx.upstream is proxy.live.snapshot.upstreams["b"]
        assert proxy.live.snapshot.upstreams["a"].breaker.by_origin["reset"] == 1


@pytest.mark.parametrize(
    "body", [CALL, NOTIFICATION, LISTEN, message("initialize"), message("logging/setLevel"), message("x/list"),
             b'{"jsonrpc":"2.0","id":1,"result":{}}', b"[%b,%b]" % (LIST, CALL)],
)  # fmt: skip
async def test_anything_else_is_sent_once(body: bytes) -> None:
    """Calls, streams, notifications, answers to the server, what nobody knows, and batches with one of them."""
    async with (
        scripted_upstream(LOSES) as broken,
        scripted_upstream() as other,
        proxying({"a": broken.url, "b": other.url}, routes=[route("a", "b", retry=HINTED | {"attempts": 5})]) as proxy,
    ):
        with pytest.raises(UpstreamFailed):
            await walk(proxy, proxy.request("/all", body=(body,)))
        assert (len(broken.seen), other.connections) == (1, 0)
        assert (proxy.parts.budget.taken, proxy.parts.budget.refused) == (0, 0)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_neither_a_stream_nor_the_end_of_a_session_is_sent_again(method: str) -> None:
    """They are no messages."""
    async with (
        scripted_upstream(LOSES) as broken,
        scripted_upstream() as other,
        proxying({"a": broken.url, "b": other.url}, routes=[route("a", "b")]) as proxy,
    ):
        with pytest.raises(UpstreamFailed):
            await walk(proxy, proxy.request("/all", method=method))
        assert other.connections == 0


async def test_a_body_that_streamed_is_gone() -> None:
    """Even when it held what could be sent again."""
    async with scripted_upstream(LOSES) as broken, scripted_upstream() as other:
        routes = [route("a", "b", inspect="none")]
        async with proxying({"a": broken.url, "b": other.url}, routes=routes) as proxy:
            with pytest.raises(UpstreamFailed):
                await walk(proxy, proxy.request("/all", body=(LIST,)))
            assert other.connections == 0


@pytest.mark.parametrize(
    ("retry", "one", "both", "again"),
    [
        (HINTED, {"readOnlyHint": True}, {"readOnlyHint": True}, True),
        (HINTED, {"idempotentHint": True}, {"readOnlyHint": True}, True),
        (HINTED, {"readOnlyHint": True}, {"readOnlyHint": False}, False),
        (HINTED, {"destructiveHint": False}, {"readOnlyHint": True}, False),
        ({}, {"readOnlyHint": True}, {"readOnlyHint": True}, False),
    ],
)
async def test_a_call_is_sent_again_when_both_servers_say_it_is_harmless_and_the_route_takes_their_word(
    retry: dict[str, Any], one: dict[str, bool], both: dict[str, bool], again: bool
) -> None:
    """Both hints, of both servers."""
    async with (
        scripted_upstream(LOSES) as broken,
        scripted_upstream() as other,
        proxying({"a": broken.url, "b": other.url}, routes=[route("a", "b", retry=retry)]) as proxy,
    ):
        hint(proxy, "a", **one)
        hint(proxy, "b", **both)
        request = proxy.request("/all")
        if again:
            assert (await walk(proxy, request)).status == 200
        else:
            with pytest.raises(UpstreamFailed):
                await walk(proxy, request)
        assert (len(broken.seen), len(other.seen)) == (1, int(again))


async def test_a_third_server_gets_a_call_only_when_it_says_the_same() -> None:
    """Two that do and one that does not are not enough."""
    async with scripted_upstream(LOSES) as one, scripted_upstream(LOSES) as two, scripted_upstream() as three:
        routes = [route("a", "b", "c", retry=HINTED | {"attempts": 3})]
        async with proxying({"a": one.url, "b": two.url, "c": three.url}, routes=routes) as proxy:
            hint(proxy, "a", readOnlyHint=True)
            hint(proxy, "b", readOnlyHint=True)
            with pytest.raises(UpstreamFailed):
                await walk(proxy, proxy.request("/all"))
            assert (len(one.seen), len(two.seen), three.connections) == (1, 1, 0)


@pytest.mark.parametrize("attempts", [1, 2, 3])
async def test_the_route_says_how_often_a_request_is_sent_in_all(attempts: int) -> None:
    """However many servers there are."""
    async with scripted_upstream(LOSES) as upstream:
        servers = {name: upstream.url for name in "abcd"}
        async with proxying(servers, routes=[route(*"abcd", retry={"attempts": attempts})]) as proxy:
            request = proxy.request("/all", body=(LIST,))
            with pytest.raises(UpstreamFailed):
                await walk(proxy, request)
            assert (len(upstream.seen), request.ctx.tries) == (attempts, attempts)


async def test_tries_that_sent_nothing_do_not_count_among_them() -> None:
    """Lost, unreachable, answered."""
    async with scripted_upstream(LOSES) as broken, scripted_upstream() as other:
        servers = {"a": broken.url, "b": gone(), "c": other.url}
        async with proxying(servers, routes=[route(*"abc")]) as proxy:
            request = proxy.request("/all", body=(LIST,))
            assert (await walk(proxy, request)).status == 200
            assert request.ctx.tries == 3


async def test_the_only_server_is_asked_once_more() -> None:
    """It may have lost this one connection only."""
    seen: list[bytes] = []

    async def once(wire: Wire) -> None:
        seen.append(await wire.request())
        if len(seen) == 1:
            wire.reset()
            return
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with scripted_upstream(once) as upstream, proxying({"up": upstream.url}) as proxy:
        request = proxy.request(body=(LIST,))
        assert (await walk(proxy, request)).got == b"ok"
        assert (len(seen), request.ctx.tries) == (2, 2)


async def test_the_only_server_is_not_asked_again_for_a_call_nor_when_it_is_not_there() -> None:
    """The one may have been carried out; the other has just been tried."""
    async with scripted_upstream(LOSES) as upstream, proxying({"up": upstream.url, "none": gone()}) as proxy:
        with pytest.raises(UpstreamFailed):
            await walk(proxy, proxy.request())
        request = proxy.request("/none/mcp", body=(LIST,))
        with pytest.raises(ConnectFailed):
            await walk(proxy, request)
        assert (len(upstream.seen), request.ctx.tries) == (1, 1)


# --- an answer has begun --------------------------------------------------------------------------------------------


async def test_an_answer_that_breaks_off_is_cut_and_not_asked_for_again() -> None:
    """The client has a part of it already."""
    part = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\nabc"
    async with (
        scripted_upstream(answering(part)) as broken,
        scripted_upstream() as other,
        proxying({"a": broken.url, "b": other.url}, routes=[route("a", "b")]) as proxy,
    ):
        request = proxy.request("/all", body=(LIST,))
        client = await walk(proxy, request)
        assert (client.end, request.ctx.outcome, other.connections) == ("abort", "upstream_truncated", 0)


async def test_an_answer_that_cannot_pass_is_not_asked_for_again() -> None:
    """Nothing of it has reached the client, but the server did answer."""
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n" + b"x" * 90
    async with scripted_upstream(answering(large)) as first, scripted_upstream() as other:
        servers = {"a": {"url": first.url, "answers": {"max_body": 80}}, "b": other.url}
        async with proxying(servers, routes=[route("a", "b")]) as proxy:
            with pytest.raises(UpstreamFailed):
                await walk(proxy, proxy.request("/all", body=(LIST,)))
            assert other.connections == 0
            assert not any(proxy.live.snapshot.upstreams["a"].breaker.by_origin.values())


# --- the budget -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [LIST, CALL])
async def test_when_the_budget_is_used_up_the_first_failure_is_the_answer(body: bytes) -> None:
    """So that a failing server is not finished off; the other one is not asked."""
    async with scripted_upstream(LOSES) as broken, scripted_upstream() as other:
        servers = {"a": broken.url if body == LIST else gone(), "b": other.url}
        async with proxying(servers, routes=[route("a", "b")]) as proxy:
            tight(proxy)
            with pytest.raises(UpstreamFailed if body == LIST else ConnectFailed):
                await walk(proxy, proxy.request("/all", body=(body,)))
            assert (other.connections, proxy.parts.budget.refused) == (0, 1)


async def test_a_failure_that_nothing_can_follow_takes_nothing_of_the_budget() -> None:
    """There is no other server."""
    async with proxying({"a": gone()}, routes=[route("a")]) as proxy:
        with pytest.raises(ConnectFailed):
            await walk(proxy, proxy.request("/all"))
        assert (proxy.parts.budget.taken, proxy.parts.budget.refused) == (0, 0)


async def test_the_budget_is_held_until_the_head_of_the_next_servers_answer() -> None:
    """One retry is under way: a second request has no room for its own."""
    held = Held()
    async with (
        scripted_upstream(held) as other,
        proxying({"a": gone(), "b": other.url}, routes=[route("a", "b")]) as proxy,
    ):
        tight(proxy, minimum=1)
        async with under_way(proxy, proxy.request("/all")) as first:
            await held.asked.wait()
            assert proxy.parts.budget.retrying == 1
            with pytest.raises(ConnectFailed):
                await send(proxy, proxy.request("/all"))
            held.go.set()
            assert (await first).status == 200
        check_rest(proxy)
        assert (proxy.parts.budget.taken, proxy.parts.budget.refused) == (1, 1)


@pytest.mark.parametrize("hedged", [True, False])
async def test_streams_that_another_server_took_over_keep_nothing_of_the_budget(hedged: bool) -> None:
    """They may stay for hours: every further request would find the budget used up, and fail."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await wire.reader.read()

    options = {"retry": {"hedge": {"after": "1h"}}} if hedged else {}
    async with (
        scripted_upstream(script) as other,
        proxying({"a": gone(), "b": other.url}, routes=[route("a", "b", **options)]) as proxy,
    ):
        tight(proxy, minimum=1)
        first, second = (proxy.request("/all", body=(LIST,)) for _ in range(2))
        async with under_way(proxy, first) as one:
            await first.client.until(lambda: bool(first.client.got))
            assert proxy.parts.budget.retrying == 0
            async with under_way(proxy, second) as two:
                await second.client.until(lambda: bool(second.client.got))
                two.cancel()
            one.cancel()
        check_rest(proxy)


async def test_a_tunnel_that_another_server_took_over_keeps_nothing_of_the_budget() -> None:
    """Like a stream."""
    accepted = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(accepted + b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello")
        await wire.reader.read()

    async with scripted_upstream(script) as other:
        servers = {
            "a": {"url": gone().replace("http", "ws"), "transport": "websocket"},
            "b": {"url": other.url.replace("http", "ws"), "transport": "websocket"},
        }
        async with proxying(servers, routes=[route("a", "b")]) as proxy:
            tight(proxy, minimum=1)
            request = proxy.request(
                "/all", ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), method="GET",
            )  # fmt: skip
            request.client.stays = True
            async with under_way(proxy, request) as task:
                await request.client.until(lambda: request.client.got == b"hello")
                assert (request.ctx.tries, proxy.parts.budget.taken, proxy.parts.budget.retrying) == (2, 1, 0)
                task.cancel()
            check_rest(proxy)


async def test_a_client_that_leaves_during_a_retry_gives_the_budget_back() -> None:
    """And everything else."""
    held = Held()
    async with scripted_upstream(held) as other:
        queued = {"url": other.url, "queue": ONE_PLACE}
        async with proxying({"a": gone(), "b": queued}, routes=[route("a", "b")]) as proxy:
            async with under_way(proxy, proxy.request("/all")) as task:
                await held.asked.wait()
                task.cancel()
                await held.left.wait()
            assert task.cancelled()
            check_rest(proxy)
