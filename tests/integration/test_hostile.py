"""Hostile inputs over raw sockets: the answer, no echo, the state of the connection, and nothing at the upstream."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import pytest

from tests.harness import CALL as GOOD_CALL
from tests.harness import RESULT, ProxyProcess, ScriptedUpstream, Wire, json_answer, post, running_proxy
from tests.integration import hostile_corpus as corpus
from tests.integration import hostile_messages as messages
from tests.integration.blocking import Client, Server, connected
from tests.integration.hostile_corpus import CALL, HOST, JSON, MARKER, NOTE, SMUGGLED, Passed, Refused

#: What a hostile run may leave behind in memory: allocator slack after bodies of 20 MiB, no more.
SLACK_BYTES: Final = 48 << 20


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """Records every request it gets."""
    with Server() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def proxy(upstream: ScriptedUpstream) -> Iterator[ProxyProcess]:
    """One proxy for all inputs; when they are through it must be as sound as before."""
    servers = {"up": {"url": upstream.url}, "raw": {"url": upstream.url}}
    routes = [{"name": "raw", "path": "/raw/mcp", "servers": "raw", "inspect": "none"}]
    with running_proxy({"servers": servers, "routes": routes}) as proxy:
        for _ in range(20):
            assert good_call(proxy) == (200, RESULT)
        before = proxy.rss_bytes()
        yield proxy
        assert good_call(proxy) == (200, RESULT)
        assert proxy.rss_bytes() - before < SLACK_BYTES
        assert proxy.stderr() == ""


def good_call(proxy: ProxyProcess) -> tuple[int, bytes]:
    with connected(proxy) as client:
        client.send(post())
        status, _, body = client.answer()
        return status, body


def assert_refusal(case_status: tuple[int, ...], code: int | None, answer: tuple[int, dict[str, str], bytes]) -> None:
    """The answer is ours, in the fixed form, and tells nothing of the input or of what we are."""
    status, fields, body = answer
    assert status in case_status
    assert not {"server", "x-powered-by", "date", "via"} & fields.keys()
    assert fields["content-type"] == "application/json"
    document: dict[str, Any] = json.loads(body)
    error = document["error"]
    assert document["jsonrpc"] == "2.0"
    assert document.keys() <= {"jsonrpc", "id", "error"}
    assert document.get("id", 7) in (7, 1)
    assert error["data"]["source"] == "proxy"
    assert error["code"] == (status if code is None else code) or code == 0
    whole = body + repr(fields).encode()
    assert MARKER not in whole
    assert b"aiohttp" not in whole.lower()
    if status == 405:
        assert fields["allow"]


REFUSED = [*corpus.refused_below_json(), *messages.refused_messages()]
PASSED = [*corpus.PASSED, *messages.PASSED]


def test_every_input_has_a_name_of_its_own() -> None:
    """Test ids tell which input fails."""
    names = [case.name for case in (*REFUSED, *PASSED)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", REFUSED, ids=[case.name for case in REFUSED])
def test_hostile_input_is_refused(case: Refused, proxy: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """The stated answer, once, in the fixed form; then the connection is closed or good for another request."""
    seen = len(upstream.seen)
    with connected(proxy) as client:
        client.send(case.bytes + (SMUGGLED if case.closes else b""))
        answer = client.answer()
        assert_refusal(case.status, case.code, answer)
        assert len(upstream.seen) == seen
        closes = answer[1].get("connection") == "close"
        assert case.closes is None or closes is case.closes
        if closes:
            assert client.rest() == b""
            assert len(upstream.seen) == seen
        else:
            client.send(post())
            assert client.answer()[0] == 200


SHORT = [case for case in REFUSED if isinstance(case.raw, bytes) and len(case.raw) < 2000]


@pytest.mark.parametrize("case", SHORT, ids=[case.name for case in SHORT])
def test_the_answer_does_not_depend_on_how_the_bytes_are_cut(case: Refused, proxy: ProxyProcess) -> None:
    """Short inputs sent in small packets get the same refusal; long ones arrive in pieces anyway."""
    raw = case.bytes
    with connected(proxy) as client:
        for at in range(0, len(raw), 61):
            client.send(raw[at : at + 61])
        client.send(SMUGGLED if case.closes else b"")
        assert_refusal(case.status, case.code, client.answer())
        if case.closes:
            assert client.rest() == b""


@pytest.mark.parametrize("case", PASSED, ids=[case.name for case in PASSED])
def test_odd_but_good_input_passes(case: Passed, proxy: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """What only looks odd is forwarded, once, and the connection goes on."""
    seen = len(upstream.seen)
    with connected(proxy) as client:
        client.send(case.raw + post())
        assert [client.answer()[0] for _ in range(2)] == [200, 200]
    assert len(upstream.seen) == seen + 2
    request = upstream.seen[seen]
    assert [part for part in case.shows if part not in request] == []
    assert [part for part in case.hides if part in request] == []


FRAMING_FAULTS = [
    case for case in REFUSED if case.name.startswith(("H9", "H10", "H11", "H28b 900", "H30")) and case.closes
]


@pytest.mark.parametrize("case", FRAMING_FAULTS, ids=[case.name for case in FRAMING_FAULTS])
def test_a_bad_body_that_streams_through_never_ends_well(
    case: Refused, proxy: ProxyProcess, upstream: ScriptedUpstream
) -> None:
    """Where nothing is inspected the body is on its way already: the upstream gets no end, the client no success."""
    seen = len(upstream.seen)
    with connected(proxy) as client:
        client.send(case.bytes.replace(b"/up/mcp", b"/raw/mcp") + SMUGGLED)
        answer = client.rest()
    assert MARKER not in answer
    assert answer == b"" or int(answer.split()[1]) in case.status
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert len(upstream.seen) == seen


# --- bodies that come too late to be read ---------------------------------------------------------------------------


def test_a_body_behind_a_refusal_is_not_swallowed(proxy: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """H29: after a 413 at most some 64 KiB more are read, and a request behind the body is never seen."""
    size = 20 << 20
    seen = len(upstream.seen)
    with connected(proxy) as client:
        client.send(corpus.head(HOST, JSON, NOTE, b"Content-Length: %d" % size))
        answer = client.answer()
        assert_refusal((413,), None, answer)
        sent = 0
        client.socket.settimeout(5)
        with suppress(ConnectionError):
            while sent < size:
                sent += client.socket.send(b" " * 65536)
        assert sent < size // 2  # what the buffers of both sockets hold
    assert len(upstream.seen) == seen


def test_a_refusal_before_the_body_closes_in_time(proxy: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """H29: a request that is refused on its head alone is answered without its body, and the rest is no request."""
    seen = len(upstream.seen)
    with connected(proxy) as client:
        client.send(corpus.head(HOST, b"Content-Type: text/plain", NOTE, b"Content-Length: 100000") + b"x" * 1000)
        answer = client.answer()
        assert_refusal((415,), None, answer)
        assert answer[1]["connection"] == "close"
        client.send(b"x" * 99_000 + SMUGGLED)
        assert client.rest() == b""
    assert len(upstream.seen) == seen


def test_continue_is_said_only_to_who_may_send(proxy: ProxyProcess) -> None:
    """H25: 100 comes when the body is wanted, never before a refusal."""
    with connected(proxy) as client:
        length = b"Content-Length: %d" % len(CALL)
        client.send(corpus.head(HOST, JSON, length, b"Expect: 100-continue"))
        while not client.read.endswith(b"\r\n\r\n"):
            assert client.receive()
        assert client.read == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.read = b""
        client.send(CALL)
        assert client.answer()[0] == 200
        client.send(corpus.head(HOST, NOTE, b"Content-Type: text/plain", length, b"Expect: 100-continue"))
        assert_refusal((415,), None, client.answer())


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c", b"foo", b"TLS/1.2"])
def test_an_upgrade_that_nobody_takes_is_no_tunnel(
    protocol: bytes, proxy: ProxyProcess, upstream: ScriptedUpstream
) -> None:
    """H26: the request is an ordinary one, `Upgrade` goes nowhere, and what stands behind is the next request."""
    seen = len(upstream.seen)
    lines = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + protocol, b"HTTP2-Settings: AAMAAABkAARAAAA",
             b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip
    with connected(proxy) as client:
        client.send(corpus.get(b"/up/mcp", *lines) + post())
        assert [client.answer()[0] for _ in range(2)] == [200, 200]
    first, second = upstream.seen[seen:]
    assert first.startswith(b"GET /mcp HTTP/1.1\r\n")
    assert b"pgrade" not in first
    assert b"HTTP2" not in first
    assert second.endswith(GOOD_CALL)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("200,000 keys", b'{%b"x":0}' % b"".join(b'"k%d":0,' % index for index in range(200_000))),
        ("one string", b'{"x":"%b"}' % (b"a" * (4 << 20))),
        ("1,000,000 empty arrays", b"[%b[]]" % (b"[]," * 1_000_000)),
    ],
)
@pytest.mark.alone
def test_ugly_json_costs_little(name: str, body: bytes, proxy: ProxyProcess) -> None:
    """J8: a body at its limit takes well under a second in all; others wait no longer than that."""
    raw = corpus.sized(body=messages.arguing(body)[: 4 << 20])
    with connected(proxy) as client:
        began = time.monotonic()
        client.send(raw)
        status = client.answer()[0]
        assert time.monotonic() - began < 2
    assert status in (200, 400, 413)


# --- time -----------------------------------------------------------------------------------------------------------

#: How late a deadline may be on a busy machine, seconds: those that hold by default are later still.
LATE_S = 9.0


@pytest.fixture(scope="module")
def impatient(upstream: ScriptedUpstream) -> Iterator[ProxyProcess]:
    """A proxy that waits for nobody."""
    timeouts = {"head": "600ms", "body": "600ms", "body_total": "2s", "keepalive": "600ms"}
    with running_proxy(
        {"listen": {"port": 0, "timeouts": timeouts}, "servers": {"up": {"url": upstream.url}}}
    ) as proxy:
        yield proxy


def drip(client: Client, raw: bytes, every_s: float, until_s: float) -> float:
    """Send byte after byte until an answer comes; how long that took, seconds."""
    began = time.monotonic()
    for at in range(len(raw)):
        client.send(raw[at : at + 1])
        if select.select([client.socket], [], [], every_s)[0] or time.monotonic() - began > until_s:
            break
    return time.monotonic() - began


def test_silence_is_closed(impatient: ProxyProcess) -> None:
    """T1: who connects and says nothing is let go without a word."""
    began = time.monotonic()
    with connected(impatient) as client:
        assert client.rest() == b""
        assert 0.5 < time.monotonic() - began < LATE_S


def test_a_kept_connection_is_closed_when_idle(impatient: ProxyProcess) -> None:
    """The same between two requests."""
    with connected(impatient) as client:
        began = time.monotonic()
        client.send(post())
        assert client.answer()[0] == 200
        assert client.rest() == b""
        assert 0.5 < time.monotonic() - began < LATE_S


def test_a_dripping_head_gets_408(impatient: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """T2: the deadline is for the whole head, however busy the client looks."""
    seen = len(upstream.seen)
    with connected(impatient) as client:
        assert 0.5 < drip(client, corpus.sized(NOTE), 0.1, LATE_S) < LATE_S
        assert_refusal((408,), None, client.answer())
        assert client.rest() == b""
    assert len(upstream.seen) == seen


@pytest.mark.parametrize("sent", [3, len(CALL) - 1])
def test_a_stalled_body_gets_408(sent: int, impatient: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """T3: a body that stops arriving."""
    seen = len(upstream.seen)
    with connected(impatient) as client:
        raw = corpus.sized(NOTE)
        began = time.monotonic()
        client.send(raw[: len(raw) - len(CALL) + sent])
        answer = client.answer()
        assert 0.5 < time.monotonic() - began < LATE_S
        assert_refusal((408,), None, answer)
        assert client.rest() == b""
    assert len(upstream.seen) == seen


def test_a_dripping_body_gets_408(impatient: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """A body that always moves and never ends meets the deadline for all of it."""
    seen = len(upstream.seen)
    with connected(impatient) as client:
        client.send(corpus.chunked(b"fff\r\n"))
        assert 1.5 < drip(client, b" " * 4095, 0.1, LATE_S) < LATE_S
        assert_refusal((408,), None, client.answer())
        assert client.rest() == b""
    assert len(upstream.seen) == seen


def test_a_hundred_pipelined_requests_are_answered_in_order(proxy: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """T6: one packet, a hundred answers, no request overtakes another."""
    seen = len(upstream.seen)
    calls = [GOOD_CALL.replace(b'"hi"', b'"%d"' % number) for number in range(100)]
    with connected(proxy) as client:
        client.send(b"".join(post("/up/mcp", call) for call in calls))
        assert [client.answer()[0] for _ in calls] == [200] * 100
    assert [request.partition(b"\r\n\r\n")[2] for request in upstream.seen[seen:]] == calls


# --- hostile upstreams ----------------------------------------------------------------------------------------------

ODD_EVENTS: Final = (
    b"\xef\xbb\xbf: byte order mark\r\n\r\n"
    b"id: a\x00b\ndata: {\"a\":\"x\\nevent: y\\ndata:\"}\n\n"
    b"data: lone CR\rdata: more\r\r"
    b"data: " + b"z" * (1 << 20) + b"\n\nevent: x\ndata:\n\n: no end"
)  # fmt: skip


@contextmanager
def answering(upstream: ScriptedUpstream, raw: bytes) -> Iterator[None]:
    """The upstream gives this answer to each request, on connections opened from now on."""

    async def answer(wire: Wire) -> None:
        while await wire.request():
            await wire.send(raw)

    script, upstream.script = upstream.script, answer
    try:
        yield
    finally:
        upstream.script = script


@pytest.fixture
def fresh(upstream: ScriptedUpstream) -> Iterator[ProxyProcess]:
    """A proxy without open connections, so that the next request meets the upstream's new script."""
    with running_proxy({"servers": {"up": {"url": upstream.url}}}) as proxy:
        yield proxy


def test_odd_events_pass_untouched(fresh: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """M15: whatever an SSE stream holds reaches the client byte for byte, and nothing is added."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(ODD_EVENTS)
    with answering(upstream, head + ODD_EVENTS), connected(fresh) as client:
        client.send(post())
        assert client.answer()[2] == ODD_EVENTS


def test_what_is_meant_for_the_upstreams_own_host_does_not_pass(
    fresh: ProxyProcess, upstream: ScriptedUpstream
) -> None:
    """M16: cookies are bound to the server's path, Alt-Svc is dropped, a challenge passes."""
    extra = b"Set-Cookie: a=b; Path=/; Domain=evil.test\r\nAlt-Svc: clear\r\nWWW-Authenticate: Bearer\r\n"
    raw = json_answer(status=b"401 Unauthorized").replace(b"\r\n", b"\r\n" + extra, 1)
    with answering(upstream, raw), connected(fresh) as client:
        client.send(post())
        status, fields, _ = client.answer()
    assert (status, fields["www-authenticate"]) == (401, "Bearer")
    assert fields["set-cookie"] == "a=b; Path=/up/mcp"
    assert "alt-svc" not in fields


def test_a_redirect_elsewhere_is_not_followed(fresh: ProxyProcess, upstream: ScriptedUpstream) -> None:
    """M16: neither the proxy nor the client is sent to an address that the upstream names."""
    connections = upstream.connections
    elsewhere = b"http://localhost:%d/" % upstream.port
    raw = json_answer(status=b"307 Temporary Redirect").replace(b"\r\n", b"\r\nLocation: " + elsewhere + b"\r\n", 1)
    with answering(upstream, raw), connected(fresh) as client:
        client.send(post())
        status, fields, body = client.answer()
    assert_refusal((502,), None, (status, fields, body))
    assert "location" not in fields
    assert upstream.connections == connections + 1
