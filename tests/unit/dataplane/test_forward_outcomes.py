"""Whatever two servers do, and whenever clients leave: nothing is held afterwards, and no call is made twice."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


LEAVING = st.sampled_from([None, None, 0.0, 0.0005, 0.001, 0.002, 0.004])
ROUNDS = st.lists(
    st.builds(
        Round,
        st.sampled_from([0.0, 0.2, 4.0, 30.0]),
        st.lists(st.builds(Asked, st.sampled_from(sorted(BODIES)), LEAVING), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=4,
)
PLANS = st.lists(st.sampled_from(OUTCOMES), max_size=10)


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


async def ask(proxy: Proxy, asked: Asked, number: int) -> None:
    """One request, whose client may leave. Whatever is no refusal is a bug."""
    body = b'{"jsonrpc":"2.0","id":%d,"method":%b}' % (number, BODIES[asked.kind])
    request: Request = proxy.request("/all", body=(body,))
    task = asyncio.ensure_future(send(proxy, request))
    if asked.leaves_after_s is not None:
        asyncio.get_running_loop().call_later(asked.leaves_after_s, task.cancel)
    with suppress(Refusal, asyncio.CancelledError):
        await task


async def live(rounds: list[Round], servers: dict[str, Server], strategy: str, hedged: bool) -> None:
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
            kinds: list[str] = []
            for each in rounds:
                proxy.time.now += each.gap_s
                first = len(kinds)
                kinds += [asked.kind for asked in each.requests]
                await asyncio.gather(*(ask(proxy, asked, first + n) for n, asked in enumerate(each.requests)))
                check_rest(proxy)
            for number, kind in enumerate(kinds):
                sent = sum(server.times(number) for server in servers.values())
                assert sent <= (1 if kind == "write" else ATTEMPTS)


@settings(max_examples=150, deadline=None)
@given(ROUNDS, PLANS, PLANS, st.sampled_from(["priority", "round_robin", "power_of_two"]), st.booleans())
def test_whatever_happens_nothing_is_held_and_no_call_is_made_twice(
    rounds: list[Round], plan_a: list[str], plan_b: list[str], strategy: str, hedged: bool
) -> None:
    """After each round all counters are at rest, and every breaker may be asked."""
    servers = {"a": Server(plan_a), "b": Server(plan_b)}
    asyncio.run(live(rounds, servers, strategy, hedged))


@pytest.mark.parametrize("first", OUTCOMES)
@pytest.mark.parametrize("second", OUTCOMES)
async def test_every_pair_of_outcomes_leaves_nothing(first: str, second: str) -> None:
    """Of a read that races, of one that does not, and of a call."""
    rounds = [Round(0.0, [Asked(kind, None)]) for kind in ("read", "write")]
    for hedged in (True, False):
        servers = {"a": Server([first] * 2), "b": Server([second] * 2)}
        await live(rounds, servers, "priority", hedged)
