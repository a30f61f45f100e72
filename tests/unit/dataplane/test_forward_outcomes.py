"""Whatever two servers do, whenever clients leave and windows begin: nothing is held afterwards, no call is made twice,
and what was written down before it was sent has one outcome."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config.record import Record
from proxy.dataplane.maintenance import Active
from proxy.dataplane.recorder import Kept, Recorder
from proxy.dataplane.reject import reject
from proxy.dataplane.upstream import Upstream
from proxy.errors import Refusal
from tests.harness import ScriptedUpstream, Wire, json_answer, scripted_upstream
from tests.unit.dataplane.fakes import Proxy, Request, proxying
from tests.unit.dataplane.walking import check_rest, hint, route, send

ATTEMPTS = 2
#: A race waits so long for its first server; a slow one takes longer. Seconds.
RACES_AFTER, SLOW_S = "1ms", 0.003
#: What a server does with one request.
OUTCOMES = ("ok", "busy", "too many", "large", "stream", "slow", "slow stream", "lost", "lost slowly", "cut", "refused")
#: What is asked, with its parameters; the first may never be sent twice.
BODIES = {
    "write": b'"tools/call","params":{"name":"pay"}',
    "hinted": b'"tools/call","params":{"name":"echo"}',
    "read": b'"tools/list"',
    "discover": b'"server/discover"',
}
FIELDS = b"Connection: close\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\n" + FIELDS + b"Content-Type: text/event-stream\r\n\r\ndata: 1\n\n"


class Asked(NamedTuple):
    """One request of a client."""

    kind: str
    leaves_after_s: float | None


class Round(NamedTuple):
    """What comes at once, a while after what came before."""

    gap_s: float
    requests: list[Asked]
    window_after_s: float | None
    """When a window of the first server begins, which lasts as long as the round."""


LEAVING = st.sampled_from([None, None, 0.0, 0.0005, 0.001, 0.002, 0.004])
ROUNDS = st.lists(
    st.builds(
        Round,
        st.sampled_from([0.0, 0.2, 4.0, 30.0]),
        st.lists(st.builds(Asked, st.sampled_from(sorted(BODIES)), LEAVING), min_size=1, max_size=4),
        st.sampled_from([None, None, 0.0, 0.001, 0.003]),
    ),
    min_size=1,
    max_size=4,
)
PLANS = st.lists(st.sampled_from(OUTCOMES), max_size=10)
DISK = st.lists(st.sampled_from(["", "", "", "full", "broken"]), max_size=20)
NO_LINES: Any = None


class Server:
    """Does what is planned, one outcome for each connection; all is well when the plan is through."""

    def __init__(self, plan: list[str]) -> None:
        self._plan = iter(plan)
        self._next: list[str] = []
        self.upstream: ScriptedUpstream

    def connect(self, address: Any) -> socket.socket:
        """A socket to it, unless it refuses."""
        outcome = next(self._plan, "ok")
        if outcome == "refused":
            raise ConnectionRefusedError
        self._next.append(outcome)
        return socket.socket(address[0], address[1])

    async def __call__(self, wire: Wire) -> None:
        outcome = self._next.pop(0)
        if not await wire.request():
            return
        if "slow" in outcome:
            await asyncio.sleep(SLOW_S)
        await ANSWERS[outcome](wire)

    def times(self, number: int) -> int:
        """How often it got the request of this number."""
        return sum(b'"id":%d,' % number in request for request in self.upstream.seen)


def _sends(answer: bytes) -> Callable[[Wire], Any]:
    async def answered(wire: Wire) -> None:
        await wire.send(answer)

    return answered


async def _streams(wire: Wire) -> None:
    await wire.send(EVENTS)
    await asyncio.sleep(SLOW_S)
    await wire.send(b"data: 2\n\n")


async def _loses(wire: Wire) -> None:
    wire.reset()


ANSWERS: dict[str, Callable[[Wire], Any]] = {
    "ok": _sends(json_answer(status=b"200 OK\r\nConnection: close")),
    "slow": _sends(json_answer(status=b"200 OK\r\nConnection: close")),
    "busy": _sends(json_answer(status=b"503 Busy\r\nConnection: close\r\nRetry-After: 1")),
    "too many": _sends(json_answer(status=b"429 No\r\nConnection: close\r\nRetry-After: 2")),
    "large": _sends(json_answer(b"x" * 2000, b"200 OK\r\nConnection: close")),
    "cut": _sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"),
    "stream": _streams,
    "slow stream": _streams,
    "lost": _loses,
    "lost slowly": _loses,
}


class Book:
    """A journal of strict records on a disk that takes its time, and fails when it is said to."""

    def __init__(self, disk: list[str]) -> None:
        self._disk = iter(disk)
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.appended: list[dict[str, Any]] = []

    def begin(self, key: str, record: bytes, grade: Kept) -> bool:
        if next(self._disk, "") == "full":
            return False
        self.begun.append(key)
        return True

    def end(self, key: str, record: bytes, grade: Kept) -> bool:
        self.ended.append(key)
        return True

    def append(self, record: bytes, grade: Kept, tenant: str) -> bool:
        self.appended.append(orjson.loads(record))
        return True

    def skip(self, tenant: str) -> None:
        raise AssertionError("nobody is blocked here")

    async def durable(self) -> bool:
        await asyncio.sleep(0.001)
        return next(self._disk, "") != "broken"


async def ask(proxy: Proxy, asked: Asked, number: int) -> None:
    """One request, whose client may leave, from its begin to its record. Whatever is no refusal is a bug."""
    recorder = proxy.parts.recorder
    assert recorder is not None
    body = b'{"jsonrpc":"2.0","id":%d,"method":%b}' % (number, BODIES[asked.kind])
    request: Request = proxy.request("/all", body=(body,))
    request.ctx.id = str(number)
    recorder.begin(request.ctx)
    task = asyncio.ensure_future(send(proxy, request))
    if asked.leaves_after_s is not None:
        asyncio.get_running_loop().call_later(asked.leaves_after_s, task.cancel)
    try:
        await task
    except Refusal as refusal:
        reject(request.ctx, refusal)
    except asyncio.CancelledError:
        request.ctx.outcome = "client_gone"
    finally:
        recorder.record(request.ctx, proxy.time.now)


def begin_window(upstream: Upstream) -> None:
    """It takes nothing new from now on."""
    upstream.window = Active("disk", time.time() + 60, time.time() + 30)


async def live(rounds: list[Round], servers: dict[str, Server], strategy: str, hedged: bool, disk: list[str]) -> None:
    """Let all of it happen, and check what is left."""
    async with scripted_upstream(servers["a"]) as one, scripted_upstream(servers["b"]) as two:
        servers["a"].upstream, servers["b"].upstream = one, two
        keys = {
            "queue": {"max_concurrent": 2, "max_pending": 1, "max_wait": "3s"},
            "breaker": {"failures": 2, "open_for": "3s", "max_open_for": "6s"},
            "answers": {"max_body": 1000},
        }
        retry = {"attempts": ATTEMPTS, "tools": "hinted"} | ({"hedge": {"after": RACES_AFTER}} if hedged else {})
        configured = {"a": {"url": one.url, **keys}, "b": {"url": two.url, **keys}}
        routes = [route("a", "b", retry=retry, strategy=strategy)]
        async with proxying(configured, routes=routes) as proxy:
            for name, server in servers.items():
                proxy.live.snapshot.upstreams[name].client.new_socket = server.connect
                hint(proxy, name, readOnlyHint=True)
            book, recorder = Book(disk), Recorder(proxy.metrics, NO_LINES, False, config=Record(audit="strict"))
            recorder.journal = book
            proxy.parts = proxy.parts._replace(recorder=recorder)
            first_server = proxy.live.snapshot.upstreams["a"]
            kinds: list[str] = []
            for each in rounds:
                proxy.time.now += each.gap_s
                first = len(kinds)
                kinds += [asked.kind for asked in each.requests]
                if each.window_after_s is not None:
                    asyncio.get_running_loop().call_later(each.window_after_s, begin_window, first_server)
                await asyncio.gather(*(ask(proxy, asked, first + n) for n, asked in enumerate(each.requests)))
                first_server.window = None
                check_rest(proxy)
                check_book(book, servers, len(kinds))
            for number, kind in enumerate(kinds):
                sent = sum(server.times(number) for server in servers.values())
                assert sent <= (1 if kind == "write" else ATTEMPTS)


def check_book(book: Book, servers: dict[str, Server], requests: int) -> None:
    """What was begun was ended, once; what was never begun never left."""
    assert sorted(book.begun) == sorted(book.ended)
    assert len(set(book.begun)) == len(book.begun)
    assert len(book.begun) + len(book.appended) == requests
    for number in set(range(requests)) - set(map(int, book.begun)):
        assert not any(server.times(number) for server in servers.values())


@settings(max_examples=150, deadline=None)
@given(ROUNDS, PLANS, PLANS, st.sampled_from(["priority", "round_robin", "power_of_two"]), st.booleans(), DISK)
def test_whatever_happens_nothing_is_held_and_no_call_is_made_twice(
    rounds: list[Round], plan_a: list[str], plan_b: list[str], strategy: str, hedged: bool, disk: list[str]
) -> None:
    """After each round all counters are at rest, and every breaker may be asked."""
    servers = {"a": Server(plan_a), "b": Server(plan_b)}
    asyncio.run(live(rounds, servers, strategy, hedged, disk))


@pytest.mark.parametrize("first", OUTCOMES)
@pytest.mark.parametrize("second", OUTCOMES)
async def test_every_pair_of_outcomes_leaves_nothing(first: str, second: str) -> None:
    """Of a read that races, of one that does not, and of a call."""
    rounds = [Round(0.0, [Asked(kind, None)], None) for kind in ("read", "write")]
    for hedged in (True, False):
        servers = {"a": Server([first] * 2), "b": Server([second] * 2)}
        await live(rounds, servers, "priority", hedged, [])
