"""Mutated traffic: whatever the proxy forwards is what a second parser, h11, reads from the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import h11
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.harness import ProxyProcess, ScriptedUpstream, running_proxy
from tests.integration.blocking import Server, connected
from tests.integration.hostile_corpus import CALL, HOST, JSON, get, head, in_chunks, sized
from tests.integration.hostile_messages import named

#: Fields that the proxy writes itself or that end at each hop; all others must arrive as they were sent.
REWRITTEN = frozenset((
    "accept-encoding", "connection", "content-length", "expect", "forwarded", "host", "http2-settings", "keep-alive",
    "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "via", "x-real-ip",
))  # fmt: skip

CHUNKED = head(HOST, JSON, b"Transfer-Encoding: chunked", b"X-A: 1")
SEEDS = [
    sized(b"X-A: 1", b"Accept: application/json, text/event-stream"),
    CHUNKED + in_chunks(30),
    CHUNKED.replace(b"/up/", b"/raw/") + in_chunks(30),
    sized(b"X-B: a", b"X-B: b").replace(b"/up/", b"/raw/"),
    get(b"/up/mcp?x=y", b"Accept: text/event-stream"),
    get(b"/up/mcp", method=b"DELETE"),
    named(b"echo", b"echo"),
]
#: Behind each mutant: if it is taken for a request of its own the connection ends with it.
LAST = sized(b"X-Last: 1", b"Connection: close")

BITS = st.sampled_from([
    b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b"\x00", b"\xff", b"_", b";", b"/", b"..", b"%2e", b"0", b"-", b"+",
    b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"HTTP/1.0",
    b"Connection: close\r\n", b"Connection: keep-alive, X-A\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n",
])  # fmt: skip


class Seen(NamedTuple):
    """A request as one parser reads it, without what the proxy may rewrite."""

    method: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes


def read_requests(raw: bytes) -> Iterator[Seen]:
    """The requests that h11 reads from the bytes of a connection, up to the first fault or the end."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(raw)
    try:
        while True:
            request = connection.next_event()
            if not isinstance(request, h11.Request):
                return
            body = b""
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if not isinstance(event, h11.Data):
                    return
                body += event.data
            yield Seen(request.method, _passing(request), body)
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE:
                return
            connection.start_next_cycle()
    except h11.RemoteProtocolError:
        return


def _passing(request: h11.Request) -> list[tuple[bytes, bytes]]:
    fields = [(name.decode(), value) for name, value in request.headers]
    named = {
        option.strip().lower()
        for name, value in fields
        if name == "connection"
        for option in value.decode("latin-1").split(",")
    }
    return [
        (name.encode(), value)
        for name, value in fields
        if name not in REWRITTEN and name not in named and not name.startswith("x-forwarded-")
    ]


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """Records every request it gets."""
    with Server() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def proxy(upstream: ScriptedUpstream) -> Iterator[ProxyProcess]:
    """A proxy that does not wait long for what a mutant leaves out."""
    timeouts = {"head": "200ms", "body": "200ms", "keepalive": "200ms"}
    servers = {"up": {"url": upstream.url}, "raw": {"url": upstream.url}}
    routes = [{"name": "raw", "path": "/raw/mcp", "servers": "raw", "inspect": "none"}]
    with running_proxy({"listen": {"port": 0, "timeouts": timeouts}, "servers": servers, "routes": routes}) as proxy:
        yield proxy


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """Two good requests behind each other with one to three faults: bytes deleted, inserted, replaced or doubled."""
    raw = draw(st.sampled_from(SEEDS)) + draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw)))
        if draw(st.integers(0, 4)) == 0:  # double the line that begins somewhere behind `at`
            begin = raw.find(b"\r\n", at) + 2
            end = raw.find(b"\r\n", begin) + 2
            raw = raw[:end] + raw[begin:end] + raw[end:]
        else:
            new = draw(st.one_of(st.just(b""), st.binary(min_size=1, max_size=2), BITS))
            raw = raw[:at] + new + raw[at + draw(st.integers(0, 2)) :]
    return raw


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(mutant=mutants(), cut=st.integers(1, 400))
@example(mutant=b"".join(SEEDS), cut=50)
@example(mutant=SEEDS[1].replace(b"\r\n0\r\n", b"\r\n00\r\n"), cut=400)
def test_what_is_forwarded_is_what_another_parser_reads(
    mutant: bytes, cut: int, proxy: ProxyProcess, upstream: ScriptedUpstream
) -> None:
    """Refused, or forwarded exactly so: same methods, fields and bodies, in the same order, and never one more."""
    raw = mutant + LAST
    seen = len(upstream.seen)
    with connected(proxy) as client:
        client.send(raw[:cut])
        client.send(raw[cut:])
        client.rest()
    forwarded = [request for each in upstream.seen[seen:] for request in read_requests(each)]
    assert len(forwarded) == len(upstream.seen) - seen
    read = read_requests(raw)
    assert [request for request in forwarded if request not in read] == []  # `in` goes on from the last one found


def test_the_second_parser_reads_what_is_good() -> None:
    """The comparison is not empty: h11 reads every seed."""
    assert len(list(read_requests(b"".join(SEEDS) + LAST))) == len(SEEDS) + 1
    assert next(read_requests(SEEDS[1])).body == CALL


def test_the_proxy_forwards_what_is_good(proxy: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """The comparison is not empty: every seed is forwarded."""
    raw = b"".join(SEEDS) + LAST
    seen = len(upstream.seen)
    with connected(proxy) as client:
        client.send(raw)
        client.rest()
    assert [next(read_requests(request)) for request in upstream.seen[seen:]] == list(read_requests(raw))
