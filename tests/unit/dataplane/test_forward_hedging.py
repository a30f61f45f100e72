"""A second server is asked when the first is late; one answer is relayed, and nothing of the other is left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy.config.models import RetryBudget as RetryBudgetSettings
from proxy.dataplane.forward import forward
from proxy.dataplane.upstream import Upstream
from proxy.errors import PoolExhausted, UpstreamFailed, UpstreamTimeout
from tests.harness import CALL, RESULT, json_answer, scripted_upstream
from tests.unit.dataplane.fakes import PATIENCE_S, Proxy, proxying
from tests.unit.dataplane.walking import (
    LIST,
    LOSES,
    Held,
    answering,
    bound,
    check_rest,
    gone,
    hint,
    open_breaker,
    route,
    send,
    under_way,
    walk,
)

OTHER = b'{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}'
#: Soon; and so late that nobody waits for it.
SOON, LATE = {"hedge": {"after": "1ms"}}, {"hedge": {"after": "1h"}}
QUEUED: dict[str, Any] = {"queue": {"max_concurrent": 4}}


def racing(*names: str, retry: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """A route whose requests race."""
    return [route(*(names or ("a", "b")), retry=SOON | (retry or {}))]


def upstreams(proxy: Proxy) -> list[Upstream]:
    return list(proxy.live.snapshot.upstreams.values())


def origins(upstream: Upstream) -> dict[str, int]:
    """What it is blamed for."""
    return {origin: count for origin, count in upstream.breaker.by_origin.items() if count}


async def test_the_second_server_answers_when_the_first_is_late() -> None:
    """The first is left at once, without a word against it; the record names the second."""
    slow = Held()
    async with scripted_upstream(slow) as first, scripted_upstream(answering(json_answer(OTHER))) as second:
        servers = {"a": {"url": first.url, **QUEUED}, "b": {"url": second.url, **QUEUED}}
        async with proxying(servers, routes=racing()) as proxy:
            request = proxy.request("/all", body=(LIST,))
            client = await walk(proxy, request)
            assert (client.status, client.got, client.end) == (200, OTHER, "finish")
            assert (request.ctx.tries, request.ctx.upstream) == (2, upstreams(proxy)[1])
            async with asyncio.timeout(PATIENCE_S):
                await slow.left.wait()
            assert [origins(upstream) for upstream in upstreams(proxy)] == [{}, {}]
            assert [upstream.breaker.failures for upstream in upstreams(proxy)] == [0, 0]


async def test_the_first_server_may_be_sooner_yet() -> None:
    """Then the second is left."""
    late, later = Held(json_answer(OTHER)), Held()
    async with scripted_upstream(late) as first, scripted_upstream(later) as second:
        servers = {"a": {"url": first.url, **QUEUED}, "b": {"url": second.url, **QUEUED}}
        async with proxying(servers, routes=racing()) as proxy:
            request = proxy.request("/all", body=(LIST,))
            async with under_way(proxy, request) as task:
                await later.asked.wait()
                assert [upstream.in_flight for upstream in upstreams(proxy)] == [1, 1]
                assert proxy.parts.budget.retrying == 1
                late.go.set()
                assert (await task).got == OTHER
                await later.left.wait()
            assert request.ctx.upstream is upstreams(proxy)[0]
            check_rest(proxy)


async def test_a_first_server_in_time_is_the_only_one() -> None:
    """Nothing of the budget is taken."""
    async with scripted_upstream() as first, scripted_upstream() as second:
        routes = [route("a", "b", retry=LATE)]
        async with proxying({"a": first.url, "b": second.url}, routes=routes) as proxy:
            assert (await walk(proxy, proxy.request("/all", body=(LIST,)))).got == RESULT
            assert (second.connections, proxy.parts.budget.taken) == (0, 0)


async def test_the_budget_is_given_back_with_the_head_of_the_answer_that_it_paid_for() -> None:
    """What is left is one request at one server."""
    slow = Held()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
    events = Held(head)
    async with scripted_upstream(slow) as first, scripted_upstream(events) as second:
        servers = {"a": {"url": first.url, **QUEUED}, "b": {"url": second.url, **QUEUED}}
        async with proxying(servers, routes=racing()) as proxy:
            request = proxy.request("/all", body=(LIST,))
            async with under_way(proxy, request) as task:
                await events.asked.wait()
                events.go.set()
                await request.client.until(lambda: b"data: 1" in request.client.got)
                assert proxy.parts.budget.retrying == 0
                one, other = upstreams(proxy)
                assert (one.in_flight, other.in_flight) == (0, 1)
                assert (one.open_streams, other.open_streams) == (0, 1)
                assert (one.queue and one.queue.running, other.queue and other.queue.running) == (0, 0)
                task.cancel()
            check_rest(proxy)


async def test_a_race_after_a_failover_gives_back_both_that_it_borrowed() -> None:
    """Whoever wins: the stream that follows keeps nothing."""
    slow, events = Held(), Held(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
    async with (
        scripted_upstream(slow) as second,
        scripted_upstream(events) as third,
        proxying({"a": gone(), "b": second.url, "c": third.url}, routes=racing(*"abc")) as proxy,
    ):
        request = proxy.request("/all", body=(LIST,))
        async with under_way(proxy, request) as task:
            await events.asked.wait()
            assert (proxy.parts.budget.retrying, request.ctx.tries) == (2, 3)
            events.go.set()
            await request.client.until(lambda: bool(request.client.got))
            assert proxy.parts.budget.retrying == 0
            task.cancel()
        check_rest(proxy)


@pytest.mark.parametrize("body", [CALL, b'{"jsonrpc":"2.0","method":"notifications/progress"}'])
async def test_only_what_may_be_sent_again_is_sent_twice(body: bytes) -> None:
    """A call waits for its one server, however long."""
    slow = Held()
    async with (
        scripted_upstream(slow) as first,
        scripted_upstream() as second,
        proxying({"a": first.url, "b": second.url}, routes=racing()) as proxy,
    ):
        async with under_way(proxy, proxy.request("/all", body=(body,))) as task:
            await slow.asked.wait()
            await asyncio.wait((task,), timeout=0.01)
            slow.go.set()
            await task
        assert (len(first.seen), second.connections) == (1, 0)
        check_rest(proxy)


@pytest.mark.parametrize(("other", "twice"), [({"readOnlyHint": True}, True), ({}, False)])
async def test_a_call_is_sent_twice_when_both_servers_say_it_is_harmless(other: dict[str, bool], twice: bool) -> None:
    """And the route takes their word."""
    slow = Held()
    async with scripted_upstream(slow) as first, scripted_upstream() as second:
        servers = {"a": first.url, "b": second.url}
        async with proxying(servers, routes=racing(retry={"tools": "hinted"})) as proxy:
            hint(proxy, "a", readOnlyHint=True)
            hint(proxy, "b", **other)
            async with under_way(proxy, proxy.request("/all")) as task:
                await slow.asked.wait()
                if not twice:
                    await asyncio.wait((task,), timeout=0.01)
                    slow.go.set()
                await task
            assert len(second.seen) == int(twice)
            check_rest(proxy)


async def test_a_request_of_a_session_does_not_race() -> None:
    """No other server knows it."""
    slow = Held()
    async with (
        scripted_upstream(slow) as first,
        scripted_upstream() as second,
        proxying({"a": first.url, "b": second.url}, routes=racing()) as proxy,
    ):
        request = proxy.request("/all", body=(LIST,))
        await bound(proxy, request, "a")
        task = asyncio.ensure_future(forward(request.ctx, proxy.parts))
        async with asyncio.timeout(PATIENCE_S):
            await slow.asked.wait()
            await asyncio.wait((task,), timeout=0.01)
            slow.go.set()
            await task
        assert (request.ctx.tries, second.connections) == (1, 0)


async def test_without_budget_nobody_races() -> None:
    """The first server is waited for."""
    slow = Held()
    async with (
        scripted_upstream(slow) as first,
        scripted_upstream() as second,
        proxying({"a": first.url, "b": second.url}, routes=racing()) as proxy,
    ):
        proxy.parts.budget.config = RetryBudgetSettings(percent=0, minimum=0)
        async with under_way(proxy, proxy.request("/all", body=(LIST,))) as task:
            await slow.asked.wait()
            while not proxy.parts.budget.refused:
                await asyncio.sleep(0)
            slow.go.set()
            assert (await task).status == 200
        assert second.connections == 0
        check_rest(proxy)


async def test_a_trial_that_lost_the_race_is_given_back() -> None:
    """The breaker is not left waiting for it."""
    slow = Held()
    async with (
        scripted_upstream(slow) as first,
        scripted_upstream() as second,
        proxying({"a": first.url, "b": second.url}, routes=racing()) as proxy,
    ):
        breaker = upstreams(proxy)[0].breaker
        open_breaker(upstreams(proxy)[0])
        failures = dict(breaker.by_origin)
        proxy.time.now += 7
        assert (await walk(proxy, proxy.request("/all", body=(LIST,)))).status == 200
        assert (breaker.state, breaker.ready(), len(second.seen)) == ("half_open", True, 1)
        assert breaker.by_origin == failures


async def test_a_trial_in_the_second_place_closes_its_breaker_when_it_wins() -> None:
    """Its answer counts like any other."""
    slow = Held()
    async with (
        scripted_upstream(slow) as first,
        scripted_upstream() as second,
        proxying({"a": first.url, "b": second.url}, routes=racing()) as proxy,
    ):
        open_breaker(upstreams(proxy)[1])
        proxy.time.now += 7
        await walk(proxy, proxy.request("/all", body=(LIST,)))
        assert upstreams(proxy)[1].breaker.state == "closed"


async def test_a_client_that_leaves_ends_both() -> None:
    """Both servers see it, and nothing is held."""
    one, two = Held(), Held()
    async with scripted_upstream(one) as first, scripted_upstream(two) as second:
        servers = {"a": {"url": first.url, **QUEUED}, "b": {"url": second.url, **QUEUED}}
        async with proxying(servers, routes=racing()) as proxy:
            async with under_way(proxy, proxy.request("/all", body=(LIST,))) as task:
                await one.asked.wait()
                await two.asked.wait()
                task.cancel()
                await asyncio.wait((task,))
                check_rest(proxy)
                await one.left.wait()
                await two.left.wait()
            assert task.cancelled()
            assert [origins(upstream) for upstream in upstreams(proxy)] == [{}, {}]


async def test_a_client_that_leaves_while_the_second_waits_in_a_queue_leaves_that_too() -> None:
    """The second server is never asked."""
    slow = Held()
    async with scripted_upstream(slow) as first, scripted_upstream() as second:
        servers = {"a": first.url, "b": {"url": second.url, "queue": {"max_concurrent": 1}}}
        async with proxying(servers, routes=racing()) as proxy:
            queue = upstreams(proxy)[1].queue
            assert queue is not None
            assert queue.try_enter()
            async with under_way(proxy, proxy.request("/all", body=(LIST,))) as task:
                while not queue.pending:
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait((task,))
            assert (queue.pending, queue.running, queue.abandoned) == (0, 1, 1)
            queue.leave()
            check_rest(proxy)
            assert second.connections == 0


async def test_a_second_server_that_fails_leaves_it_to_the_first() -> None:
    """It is blamed, and the first goes on."""
    late = Held()
    async with scripted_upstream(late) as first:
        servers = {"a": first.url, "b": gone()}
        async with proxying(servers, routes=racing()) as proxy:
            one, other = upstreams(proxy)
            async with under_way(proxy, proxy.request("/all", body=(LIST,))) as task:
                while not origins(other):
                    await asyncio.sleep(0)
                late.go.set()
                assert (await task).status == 200
            check_rest(proxy)
            assert (origins(one), origins(other)) == ({}, {"connect": 1})


async def test_when_both_lose_the_connection_they_are_all_the_attempts_there_are() -> None:
    """The request has been sent twice, as often as the route says: not a third time."""
    one, two = Held(b"no HTTP"), Held(b"no HTTP")
    async with scripted_upstream(one) as first, scripted_upstream(two) as second, scripted_upstream() as third:
        servers = {"a": first.url, "b": second.url, "c": third.url}
        async with proxying(servers, routes=racing(*"abc")) as proxy:
            async with under_way(proxy, proxy.request("/all", body=(LIST,))) as task:
                await one.asked.wait()
                await two.asked.wait()
                one.go.set()
                two.go.set()
                with pytest.raises(UpstreamFailed):
                    await task
            check_rest(proxy)
            assert (len(first.seen), len(second.seen), third.connections) == (1, 1, 0)
            assert [origins(upstream) for upstream in upstreams(proxy)] == [{"reset": 1}, {"reset": 1}, {}]


async def test_when_both_lose_the_connection_a_third_attempt_follows_if_the_route_has_one() -> None:
    """At the third server, and alone: a further race would be one attempt too many."""
    one, two, last = Held(b"no HTTP"), Held(b"no HTTP"), Held()
    async with (
        scripted_upstream(one) as first,
        scripted_upstream(two) as second,
        scripted_upstream(last) as third,
        scripted_upstream() as fourth,
    ):
        servers = {"a": first.url, "b": second.url, "c": third.url, "d": fourth.url}
        async with proxying(servers, routes=racing(*"abcd", retry={"attempts": 3})) as proxy:
            request = proxy.request("/all", body=(LIST,))
            async with under_way(proxy, request) as task:
                await one.asked.wait()
                await two.asked.wait()
                one.go.set()
                two.go.set()
                await last.asked.wait()
                await asyncio.wait((task,), timeout=0.01)
                last.go.set()
                assert (await task).status == 200
            check_rest(proxy)
            assert (len(third.seen), fourth.connections, request.ctx.tries) == (1, 0, 3)


@pytest.mark.parametrize(("attempts", "answers"), [(1, False), (2, True)])
async def test_what_the_second_server_may_have_got_counts_when_the_first_got_nothing(
    attempts: int, answers: bool
) -> None:
    """The first had no connection free for it in time; the second lost its own meanwhile."""
    full = {"url": gone(), "pool": {"max_connections": 1}, "timeouts": {"connect": "200ms"}}
    async with (
        scripted_upstream(LOSES) as second,
        scripted_upstream() as third,
        proxying(
            {"a": full, "b": second.url, "c": third.url}, routes=racing(*"abc", retry={"attempts": attempts})
        ) as proxy,
    ):
        slots = upstreams(proxy)[0].client.slots
        slots.used = 1
        request = proxy.request("/all", body=(LIST,))
        if answers:
            assert (await walk(proxy, request)).status == 200
        else:
            with pytest.raises(PoolExhausted):
                await walk(proxy, request)
        assert (len(second.seen), len(third.seen)) == (1, int(answers))
        slots.used = 0


async def test_a_first_server_that_fails_before_its_time_is_followed_as_ever() -> None:
    """By a retry, not by a race."""
    async with scripted_upstream(LOSES) as first, scripted_upstream() as second:
        routes = [route("a", "b", retry=LATE)]
        async with proxying({"a": first.url, "b": second.url}, routes=routes) as proxy:
            request = proxy.request("/all", body=(LIST,))
            assert (await walk(proxy, request)).status == 200
            assert (request.ctx.tries, proxy.parts.budget.taken) == (2, 1)


async def test_an_answer_that_cannot_pass_is_its_own_servers_and_not_the_losers() -> None:
    """The first server, which was only slow, is not blamed for what the second sent."""
    slow = Held()
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n" + b"x" * 90
    async with scripted_upstream(slow) as first, scripted_upstream(answering(large)) as second:
        servers = {"a": first.url, "b": {"url": second.url, "answers": {"max_body": 80}}}
        async with proxying(servers, routes=racing()) as proxy:
            with pytest.raises(UpstreamFailed):
                await walk(proxy, proxy.request("/all", body=(LIST,)))
            assert origins(upstreams(proxy)[0]) == {}


async def test_the_deadline_of_a_whole_exchange_ends_both() -> None:
    """The first server, whose deadline it is, is blamed; the second was hardly asked."""
    one, two = Held(), Held()
    async with scripted_upstream(one) as first, scripted_upstream(two) as second:
        servers = {"a": {"url": first.url, "timeouts": {"total": "200ms"}}, "b": second.url}
        async with proxying(servers, routes=racing()) as proxy:
            with pytest.raises(UpstreamTimeout):
                await walk(proxy, proxy.request("/all", body=(LIST,)))
            assert [origins(upstream) for upstream in upstreams(proxy)] == [{"timeout": 1}, {}]
            async with asyncio.timeout(PATIENCE_S):
                await one.left.wait()
                await two.left.wait()


async def test_races_one_after_the_other_leave_nothing() -> None:
    """Whoever wins: connections go back to their pools, and counters to rest."""
    async with scripted_upstream() as first, scripted_upstream() as second:
        servers = {"a": {"url": first.url, **QUEUED}, "b": {"url": second.url, **QUEUED}}
        async with proxying(servers, routes=[route("a", "b", retry={"hedge": {"after": "1ms"}})]) as proxy:
            await asyncio.gather(*(send(proxy, proxy.request("/all", body=(LIST,))) for _ in range(50)))
            check_rest(proxy)
            assert [origins(upstream) for upstream in upstreams(proxy)] == [{}, {}]
