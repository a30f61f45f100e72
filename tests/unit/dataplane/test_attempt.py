"""Whatever a try has taken is given back once, and the server is judged by what it did itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane.attempt import Attempt, Lease, circuit_open, enter
from proxy.dataplane.breaker import Breaker
from proxy.dataplane.context import RequestContext
from proxy.dataplane.maintenance import Active
from proxy.dataplane.upstream import Upstream
from proxy.errors import (
    BodyTooLarge,
    CircuitOpen,
    ConnectFailed,
    PoolExhausted,
    QueueFull,
    Refusal,
    UnderMaintenance,
    UpgradeRequired,
    UpstreamFailed,
    UpstreamTimeout,
)
from tests.harness import CALL
from tests.unit.dataplane.asked import ask
from tests.unit.dataplane.fakes import PATIENCE_S, Proxy

DISCOVER = b'{"jsonrpc":"2.0","id":1,"method":"server/discover"}'
FAILING = {"failures": 1, "open_for": "5s", "max_open_for": "60s"}


class Bench:
    """One server `up` and requests for it, on the test's time."""

    def __init__(self, **server: Any) -> None:
        self.proxy = Proxy({"servers": {"up": {"url": "http://127.0.0.1:9/mcp", **server}}})
        self.time = self.proxy.time
        self.up: Upstream = self.proxy.live.snapshot.upstreams["up"]

    def ask(self, body: bytes | None = CALL) -> RequestContext:
        """A request of one message; without one it is a GET for a stream."""
        return ask(self.proxy.live.snapshot, "/up/mcp", method="GET" if body is None else "POST", body=body)

    async def enter(self, body: bytes | None = CALL) -> Attempt:
        """A try that has come in."""
        return await enter(self.ask(body), self.up, self.proxy.parts)

    @property
    def held(self) -> tuple[int, int, int, int]:
        """In flight, open streams, and who runs and waits in the queue."""
        queue = self.up.queue
        assert queue is not None
        return self.up.in_flight, self.up.open_streams, queue.running, queue.pending


async def waiting(bench: Bench, count: int = 1) -> None:
    """Until so many wait in the queue."""
    assert bench.up.queue is not None
    async with asyncio.timeout(PATIENCE_S):
        while bench.up.queue.pending != count:
            await asyncio.sleep(0)


# --- how it went ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "good"),
    [(200, True), (202, True), (400, True), (404, True), (429, True), (500, True), (501, True), (505, True),
     (502, False), (503, False), (504, False)],
)  # fmt: skip
async def test_only_answers_of_a_server_that_cannot_serve_are_failures(status: int, good: bool) -> None:
    """500 may be about the one request; 502 to 504 are about the server."""
    bench = Bench()
    before = await bench.enter()
    before.failed(ConnectFailed())
    attempt = await bench.enter()
    attempt.answered(status, [])
    attempt.end()
    breaker = bench.up.breaker
    assert breaker.by_origin["upstream_5xx"] == (not good)
    assert breaker.failures == (0 if good else 1)
    assert bench.up.health.wavering == (not good)
    fresh = Bench()
    (await fresh.enter()).answered(status, [])
    assert fresh.up.health.wavering == (not good)


@pytest.mark.parametrize(
    ("error", "origin"),
    [
        (ConnectFailed("ConnectionRefusedError"), "connect"),
        (ConnectFailed("ClientConnectorSSLError"), "tls"),
        (ConnectFailed("ConnectionTimeoutError"), "timeout"),
        (UpstreamTimeout("first_byte"), "timeout"),
        (UpstreamFailed("ServerDisconnectedError"), "reset"),
    ],
)
async def test_failures_on_the_way_are_told_apart(error: Refusal, origin: str) -> None:
    """Each counts once, however often it is told of."""
    bench = Bench()
    attempt = await bench.enter()
    attempt.failed(error)
    attempt.failed(error)
    attempt.end()
    assert {name: count for name, count in bench.up.breaker.by_origin.items() if count} == {origin: 1}
    assert bench.up.health.wavering


@pytest.mark.parametrize("error", [PoolExhausted(), BodyTooLarge(), UpgradeRequired()])
async def test_what_is_not_the_servers_fault_says_nothing_of_it(error: Refusal) -> None:
    """Our own pool, and the client's mistakes."""
    bench = Bench(breaker=FAILING)
    attempt = await bench.enter()
    attempt.failed(error)
    attempt.end()
    assert bench.up.breaker.state == "closed"
    assert not any(bench.up.breaker.by_origin.values())


async def test_what_comes_after_the_head_of_the_answer_says_nothing() -> None:
    """The server was judged by its head."""
    bench = Bench(breaker=FAILING)
    attempt = await bench.enter()
    attempt.answered(200, [])
    attempt.failed(UpstreamFailed())
    attempt.end()
    assert bench.up.breaker.state == "closed"


async def test_what_comes_after_the_end_says_nothing() -> None:
    """It was ended because another server was sooner: what goes wrong there is not this one's fault."""
    bench = Bench(breaker=FAILING)
    attempt = await bench.enter()
    attempt.end()
    attempt.failed(UpstreamFailed())
    assert bench.up.breaker.state == "closed"
    assert not any(bench.up.breaker.by_origin.values())


async def test_a_trial_that_ended_without_an_outcome_is_given_back() -> None:
    """The client left: the next request is the trial."""
    bench = Bench(breaker=FAILING)
    (await bench.enter()).failed(ConnectFailed())
    bench.time.now += 7
    trial = await bench.enter()
    assert (bench.up.breaker.state, bench.up.breaker.ready()) == ("half_open", False)
    trial.end()
    assert bench.up.breaker.ready()
    (await bench.enter()).answered(200, [])
    assert bench.up.breaker.state == "closed"


# --- Retry-After ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "open_s"),
    [("30", 30.0), ("999999999", 60.0), ("9" * 10, 5.5), ("1", 5.5), ("", 5.5), ("-3", 5.5), ("2.5", 5.5),
     ("Wed, 21 Oct 2026 07:28:00 GMT", 5.5)],
)  # fmt: skip
async def test_a_server_that_says_how_long_is_left_alone_for_so_long(value: str, open_s: float) -> None:
    """Within `max_open_for`, and not for less than usual; a date, or what is none at all, counts for nothing."""
    bench = Bench(breaker=FAILING)
    (await bench.enter()).answered(503, [("X", "1"), ("rEtry-aFter", value)])
    assert bench.up.breaker.state == "open"
    assert bench.up.breaker.next_attempt_at - bench.time.now == pytest.approx(open_s)


async def test_too_many_requests_make_others_preferred_for_as_long_as_it_says() -> None:
    """That is no failure, and without a time there is nothing to wait for."""
    bench = Bench()
    (await bench.enter()).answered(429, [])
    assert bench.up.available()
    (await bench.enter()).answered(429, [("Retry-After", "20")])
    assert (bench.up.available(), bench.up.possible()) == (False, True)
    bench.time.now += 20
    assert bench.up.available()
    assert not any(bench.up.breaker.by_origin.values())


async def test_a_time_with_any_other_answer_means_nothing_here() -> None:
    """A 200 with `Retry-After` is about something else."""
    bench = Bench()
    (await bench.enter()).answered(200, [("Retry-After", "20")])
    assert bench.up.available()


@pytest.mark.parametrize(("left_s", "told"), [(0.01, "1"), (1.0, "1"), (1.2, "2"), (59.9, "60"), (0.0, "1")])
def test_a_refusal_tells_whole_seconds(left_s: float, told: str) -> None:
    """Rounded up: who comes back then is not too early."""
    assert circuit_open(left_s).headers == (("Retry-After", told),)


# --- coming in ------------------------------------------------------------------------------------------------------


async def test_an_open_breaker_refuses_and_gives_the_place_back() -> None:
    """With the seconds until the next trial."""
    bench = Bench(breaker=FAILING, queue={"max_concurrent": 2})
    first = await bench.enter()
    first.failed(ConnectFailed())
    first.end()
    with pytest.raises(CircuitOpen) as refused:
        await bench.enter()
    assert dict(refused.value.headers) == {"Retry-After": "6"}
    assert bench.held == (0, 0, 0, 0)


async def test_a_breaker_that_opens_while_a_request_waits_refuses_it() -> None:
    """And its place is free for the next."""
    bench = Bench(breaker=FAILING, queue={"max_concurrent": 1})
    first = await bench.enter()
    second = asyncio.ensure_future(bench.enter())
    await waiting(bench)
    first.failed(UpstreamFailed())
    first.end()
    with pytest.raises(CircuitOpen):
        await second
    assert bench.held == (0, 0, 0, 0)


async def test_a_window_that_begins_while_requests_wait_refuses_them_one_after_the_other() -> None:
    """Each gives its place to the next; one who finds the window over goes in."""
    bench = Bench(queue={"max_concurrent": 1})
    first = await bench.enter()
    waiters = [asyncio.ensure_future(bench.enter()) for _ in range(3)]
    await waiting(bench, 3)
    now = time.time()
    bench.up.window = Active("disk", now + 9.5, now + 5)
    first.end()
    for waiter in waiters:
        with pytest.raises(UnderMaintenance, match="maintenance") as refused:
            await waiter
        assert refused.value.headers == (("Retry-After", "10"),)
    assert bench.held == (0, 0, 0, 0)
    first = await bench.enter()
    last = asyncio.ensure_future(bench.enter())
    await waiting(bench)
    bench.up.window = Active("disk", now - 1, now - 1)
    first.end()
    (await last).end()


async def test_a_higher_class_has_the_next_place_and_the_time_is_kept() -> None:
    """Whoever waited says how long."""
    bench = Bench(queue={"max_concurrent": 1})
    first = await bench.enter()
    low, high = bench.ask(), bench.ask()
    low.priority, high.priority = 2, 0
    tasks = []
    for count, ctx in enumerate((low, high), 1):
        tasks.append(asyncio.ensure_future(enter(ctx, bench.up, bench.proxy.parts)))
        await waiting(bench, count)
    bench.time.now += 0.25
    first.end()
    served = await tasks[1]
    assert not tasks[0].done()
    bench.time.now += 0.5
    served.end()
    (await tasks[0]).end()
    assert (high.queued_s, low.queued_s) == (0.25, 0.75)
    assert bench.held == (0, 0, 0, 0)


async def test_tenants_have_their_weights_in_the_queue() -> None:
    """Each is asked for its own."""
    bench = Bench(queue={"max_concurrent": 1})
    asked: list[str] = []

    def weight_of(tenant: str) -> float:
        asked.append(tenant)
        return 2.0

    first = await bench.enter()
    ctx = bench.ask()
    task = asyncio.ensure_future(enter(ctx, bench.up, bench.proxy.parts._replace(weight_of=weight_of)))
    await waiting(bench)
    first.end()
    (await task).end()
    assert asked == [ctx.principal.tenant]


async def test_who_leaves_while_waiting_leaves_nothing() -> None:
    """Neither a place nor an admission was taken; the time counts all the same."""
    bench = Bench(queue={"max_concurrent": 1})
    first = await bench.enter()
    ctx = bench.ask()
    task = asyncio.ensure_future(enter(ctx, bench.up, bench.proxy.parts))
    await waiting(bench)
    bench.time.now += 3
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.held == (1, 0, 1, 0)
    assert ctx.queued_s == 3
    first.end()
    assert bench.held == (0, 0, 0, 0)


async def test_a_full_queue_refuses() -> None:
    """At once."""
    bench = Bench(queue={"max_concurrent": 1, "max_pending": 0})
    first = await bench.enter()
    with pytest.raises(QueueFull) as refused:
        await bench.enter()
    assert int(dict(refused.value.headers)["Retry-After"]) >= 1
    assert bench.held == (1, 0, 1, 0)
    first.end()


@pytest.mark.parametrize(("total", "waits"), [("1s", False), ("0", True)])
async def test_nobody_waits_for_longer_than_the_whole_exchange_may_take(total: str, waits: bool) -> None:
    """`timeouts.total` is the longest wait that is worth anything, where it is set."""
    bench = Bench(queue={"max_concurrent": 1}, timeouts={"total": total})
    first = await bench.enter()
    bench.time.now += 2  # a place comes free every two seconds, as far as is known
    if waits:
        task = asyncio.ensure_future(bench.enter())
        await waiting(bench)
        first.end()
        (await task).end()
    else:
        with pytest.raises(QueueFull):
            await bench.enter()
        first.end()
    assert bench.held == (0, 0, 0, 0)


async def test_who_asks_whether_the_server_is_there_does_not_queue() -> None:
    """It takes no place, and gives none back."""
    bench = Bench(queue={"max_concurrent": 1, "max_pending": 0})
    first = await bench.enter()
    discovery = await bench.enter(DISCOVER)
    assert bench.held == (2, 0, 1, 0)
    discovery.end()
    assert bench.held == (1, 0, 1, 0)
    first.end()


# --- streams --------------------------------------------------------------------------------------------------------


async def test_a_stream_frees_its_place_and_counts_as_a_stream() -> None:
    """Until its end, at which nothing is given back twice."""
    bench = Bench(queue={"max_concurrent": 1})
    stream = await bench.enter(None)
    assert bench.held == (1, 1, 1, 0)
    stream.answered(200, [])
    stream.streams()
    assert bench.held == (1, 1, 0, 0)
    call = await bench.enter()
    stream.end()
    assert bench.held == (1, 0, 1, 0)
    call.end()
    assert bench.held == (0, 0, 0, 0)


LISTEN = b'{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{}}'


@pytest.mark.parametrize("body", [None, LISTEN])
async def test_beyond_the_most_streams_none_is_opened_but_calls_go_on(body: bytes | None) -> None:
    """Whether a stream is asked for by a GET or by a message."""
    bench = Bench(queue={"max_concurrent": 5, "max_streams": 1})
    stream = await bench.enter(body)
    stream.streams()
    with pytest.raises(QueueFull) as refused:
        await bench.enter(body)
    assert refused.value.headers == (("Retry-After", "1"),)
    (await bench.enter()).end()
    stream.end()
    (await bench.enter(body)).end()
    assert bench.held == (0, 0, 0, 0)


async def test_streams_that_are_just_being_opened_count_among_them() -> None:
    """A crowd of clients that all come back at once does not get past the bound."""
    bench = Bench(queue={"max_concurrent": 5, "max_streams": 2})
    opening = [await bench.enter(None) for _ in range(2)]
    with pytest.raises(QueueFull):
        await bench.enter(None)
    for attempt in opening:
        attempt.streams()
    assert bench.held == (2, 2, 0, 0)
    for attempt in opening:
        attempt.end()
    assert bench.held == (0, 0, 0, 0)


async def test_a_stream_that_waited_until_there_were_enough_is_not_opened() -> None:
    """Its place is free for others."""
    bench = Bench(queue={"max_concurrent": 1, "max_streams": 1})
    first = await bench.enter()
    tasks = []
    for count in (1, 2):
        tasks.append(asyncio.ensure_future(bench.enter(None)))
        await waiting(bench, count)
    first.end()
    (await tasks[0]).streams()
    with pytest.raises(QueueFull):
        await tasks[1]
    assert bench.held == (1, 1, 0, 0)
    (await tasks[0]).end()


async def test_an_answer_that_became_a_stream_counts_although_none_was_asked_for() -> None:
    """A call may be answered by events."""
    bench = Bench(queue={"max_concurrent": 5, "max_streams": 1})
    call = await bench.enter()
    call.streams()
    with pytest.raises(QueueFull):
        await bench.enter(None)
    call.end()
    assert bench.held == (0, 0, 0, 0)


# --- what a retry has borrowed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 503])
async def test_what_a_retry_has_borrowed_is_given_back_with_the_head(status: int) -> None:
    """Once, although whoever borrowed it ends it, too."""
    bench = Bench()
    budget = bench.proxy.parts.budget
    assert budget.take()
    attempt, lease = await bench.enter(), Lease(budget)
    attempt.lease = lease
    assert budget.retrying == 1
    attempt.answered(status, [])
    assert budget.retrying == 0
    lease.end()
    attempt.end()
    assert budget.retrying == 0


async def test_a_retry_that_got_no_head_leaves_what_it_has_borrowed_to_the_next() -> None:
    """It is one retry as long as it takes."""
    bench = Bench()
    budget = bench.proxy.parts.budget
    assert budget.take()
    attempt, lease = await bench.enter(), Lease(budget)
    attempt.lease = lease
    attempt.failed(ConnectFailed())
    attempt.end()
    assert budget.retrying == 1
    lease.end()
    assert budget.retrying == 0


# --- once, whatever happens -----------------------------------------------------------------------------------------


class Ledger(Breaker):
    """Keeps which tickets it gave, and which of them were ended."""

    __slots__ = ("ended", "given")

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.given: list[int] = []
        self.ended: list[int] = []

    def admit(self) -> int:
        ticket = super().admit()
        self.given.append(ticket)
        return ticket

    def succeeded(self, ticket: int) -> None:
        self.ended.append(ticket)
        super().succeeded(ticket)

    def failed(self, ticket: int, *details: Any) -> None:
        self.ended.append(ticket)
        super().failed(ticket, *details)

    def neutral(self, ticket: int) -> None:
        self.ended.append(ticket)
        super().neutral(ticket)


STEPS: dict[str, Callable[[Attempt], None]] = {
    "ok": lambda attempt: attempt.answered(200, []),
    "busy": lambda attempt: attempt.answered(503, []),
    "streams": Attempt.streams,
    "unreachable": lambda attempt: attempt.failed(ConnectFailed()),
    "lost": lambda attempt: attempt.failed(UpstreamFailed()),
    "refused": lambda attempt: attempt.failed(BodyTooLarge()),
    "end": Attempt.end,
}


#: What comes first, if the server answers at all; failures and ends come at any time after it.
HEADS = st.sampled_from([[], ["ok"], ["busy"], ["ok", "streams"]])
LATER = st.lists(st.sampled_from(["unreachable", "lost", "refused", "end"]), max_size=5)


@given(HEADS, LATER, st.booleans(), st.sampled_from([CALL, None, DISCOVER]))
def test_whatever_was_taken_is_given_back_exactly_once(
    head: list[str], later: list[str], trial: bool, body: bytes | None
) -> None:
    """However a try goes on: every ticket of the breaker is ended once, and nothing is held afterwards."""
    bench = Bench(queue={"max_concurrent": 3}, breaker=FAILING)
    ledger = bench.up.breaker = Ledger(bench.up.config.breaker, bench.time, lambda: 0.5)
    if trial:
        ledger.failed(ledger.admit(), "connect")
        bench.time.now += 7
    attempt = asyncio.run(bench.enter(body))
    for step in (*head, *later, "end"):
        STEPS[step](attempt)
    assert bench.held == (0, 0, 0, 0)
    assert ledger.ended == ledger.given
    assert ledger.state != "half_open" or ledger.ready()
