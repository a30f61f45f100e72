"""Answers that may hold lists are known by what was asked, come in a form that can be read, and pass filtered only."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane.context import RequestContext
from proxy.dataplane.lists import (
    FilteredEvents,
    asks_for_lists,
    check_readable,
    filtered_answer,
    is_filtered,
    keep_nothing,
    plain_headers,
    rewritten_headers,
    wants_plain,
)
from proxy.errors import UpstreamFailed
from tests.unit.dataplane.asked import ask, snapshot

ROUTES = [
    {"name": "filtered", "path": "/f", "servers": "up", "filter_lists": True},
    {"name": "plain", "path": "/p", "servers": "up"},
]
SNAPSHOT = snapshot({"up": "http://up.test/mcp"}, routes=ROUTES)
LISTS = ["tools/list", "prompts/list", "resources/list", "resources/templates/list"]


def message(method: str, number: int = 1) -> dict[str, Any]:
    params = {"uri": "a:b"} if method.startswith("resources/") else {"name": "x"}
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def asking(*methods: str, path: str = "/f", verb: str = "POST") -> RequestContext:
    """A request for one method, or a batch of several; `GET` for none."""
    if not methods:
        return ask(SNAPSHOT, path, method=verb)
    messages = [message(method, number) for number, method in enumerate(methods)]
    fields = [("MCP-Protocol-Version", "2025-03-26")]
    return ask(SNAPSHOT, path, *fields, body=orjson.dumps(messages[0] if len(messages) == 1 else messages))


def keep(kind: str, name: str) -> bool:
    return name != "secret"


def names(*tools: str, **result: Any) -> bytes:
    """An answer with tools of these names."""
    tools_named = [{"name": name} for name in tools]
    return orjson.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools_named, **result}})


# --- which answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", LISTS)
def test_a_request_for_a_list_is_known_alone_and_in_a_batch(method: str) -> None:
    """Wherever it stands in it."""
    for methods in ((method,), (method, "ping"), ("ping", method)):
        assert asks_for_lists(asking(*methods))
        assert wants_plain(asking(*methods))
        assert is_filtered(asking(*methods), 200, events=False)


@pytest.mark.parametrize("methods", [("tools/call",), ("ping", "tools/call"), ("tools/listed",), ("resources/read",)])
def test_other_requests_bring_no_lists(methods: tuple[str, ...]) -> None:
    """Neither as JSON nor as events."""
    ctx = asking(*methods)
    assert not asks_for_lists(ctx)
    assert not wants_plain(ctx)
    assert not is_filtered(ctx, 200, events=True)


def test_a_stream_of_its_own_may_bring_any_list() -> None:
    """Legacy SSE, and streams that are taken up again; what else answers a GET is no list."""
    ctx = asking(verb="GET")
    assert not asks_for_lists(ctx)
    assert wants_plain(ctx)
    assert is_filtered(ctx, 200, events=True)
    assert not is_filtered(ctx, 405, events=False)
    for verb in ("HEAD", "DELETE"):
        assert not wants_plain(asking(verb=verb))


def test_a_body_that_nobody_has_read_may_ask_for_anything() -> None:
    """Such a route cannot filter; if it did, this would hold."""
    assert is_filtered(asking(), 200, events=False)


@pytest.mark.parametrize("methods", [("tools/list",), ()])
def test_a_route_that_does_not_filter_leaves_everything_alone(methods: tuple[str, ...]) -> None:
    """So do requests without a route."""
    ctx = asking(*methods, path="/p", verb="GET")
    assert not wants_plain(ctx)
    ctx.route = None
    assert not wants_plain(ctx)


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_holds_no_list(status: int) -> None:
    """It passes as it is."""
    assert not is_filtered(asking("tools/list"), status, events=False)


def test_nothing_may_be_used_as_long_as_nobody_says_what() -> None:
    """The default closes."""
    ctx = asking("tools/list")
    assert ctx.upstream is not None
    assert not keep_nothing(ctx, ctx.upstream)("tool", "x")


# --- their fields ---------------------------------------------------------------------------------------------------


def test_an_answer_is_asked_for_whole_and_as_it_is() -> None:
    """Whatever the client would take."""
    asked = [("Host", "h"), ("accept-encoding", "gzip"), ("Range", "bytes=0-1"), ("X", "y"), ("Accept-Encoding", "br")]
    assert plain_headers(asked) == [("Host", "h"), ("X", "y"), ("Accept-Encoding", "identity")]
    assert plain_headers([("Host", "h")])[-1] == ("Accept-Encoding", "identity")


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "identity, gzip", "unknown"])
def test_an_answer_with_a_coding_cannot_be_read(coding: str) -> None:
    """None was asked for."""
    with pytest.raises(UpstreamFailed):
        check_readable([("X", "y"), ("content-ENCODING", coding)])


@pytest.mark.parametrize("coding", ["", "identity", " Identity "])
def test_no_coding_has_several_names(coding: str) -> None:
    """It may be named, or not."""
    check_readable([("Content-Encoding", coding)])
    check_readable([])


def test_what_says_something_of_the_bytes_goes_with_them() -> None:
    """Everything else stays, in order."""
    gone = ["ETag", "last-modified", "Content-MD5", "Digest", "Content-Digest", "Repr-Digest", "Content-Length",
            "Accept-Ranges"]  # fmt: skip
    stays = [("Content-Type", "application/json"), ("X", "a"), ("X", "b"), ("Cache-Control", "no-store")]
    assert rewritten_headers([*stays[:2], *((name, "1") for name in gone), *stays[2:]]) == stays


# --- JSON -----------------------------------------------------------------------------------------------------------

HEADERS = [("Content-Type", "application/json"), ("ETag", '"1"'), ("Content-Length", "7")]


def test_an_answer_loses_what_may_not_be_used() -> None:
    """And the fields of the bytes that came."""
    assert filtered_answer(200, HEADERS, names("a", "secret"), keep) == (HEADERS[:1], names("a"))


@pytest.mark.parametrize("status", [200, 202, 400, 404])
def test_an_answer_of_which_nothing_goes_stays_as_it_is(status: int) -> None:
    """The very bytes, with their fields; the length is written anew."""
    for body in (names("a"), b' {"error": {}}\n', b""):
        headers, passed = filtered_answer(status, HEADERS, body, keep)
        assert passed is body
        assert headers == HEADERS[:2]


@pytest.mark.parametrize("body", [b"Accepted", b"<html>", b"{", b"\xff", names("secret") + b"x"])
def test_what_should_be_a_list_and_cannot_be_read_never_passes(body: bytes) -> None:
    """An error page, or what only says that the answer comes elsewhere, may be anything."""
    for status in (200, 201, 206):
        with pytest.raises(UpstreamFailed):
            filtered_answer(status, HEADERS, body, keep)
    for status in (202, 400, 500):
        assert filtered_answer(status, HEADERS, body, keep) == (HEADERS[:2], body)


def test_an_error_that_carries_a_list_is_filtered_too() -> None:
    """Whatever its status."""
    for status in (202, 404, 500):
        assert filtered_answer(status, HEADERS, names("secret"), keep)[1] == names()


# --- events ---------------------------------------------------------------------------------------------------------


class Arriving:
    """An answer in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.ended = False
        self._pieces = pieces

    def read_nowait(self) -> bytes:
        piece = self._pieces.pop(0) if self._pieces else b""
        self.ended = not self._pieces
        return piece

    async def read(self) -> bytes:
        return self.read_nowait()


EVENTS = (
    b": comment\r\n\r\nid: 1\ndata: "
    + names("a", "secret")
    + b"\n\nevent: message\rdata: "
    + names("secret")
    + b"\r\r: ping\n\n"
    + b"data: "
    + names("secret", "b")
)
PASSED = (
    b": comment\r\n\r\nid: 1\ndata: " + names("a") + b"\n\nevent: message\rdata: " + names() + b"\r\r"
    b": ping\n\ndata: " + names("b") + b"\n"
)


@given(st.lists(st.integers(0, len(EVENTS)), max_size=12), st.booleans())
def test_events_lose_the_same_wherever_they_are_cut(cuts: list[int], waits: bool) -> None:
    """Also the last one, which nothing ends; every event leaves whole."""
    edges = [0, *sorted(cuts), len(EVENTS)]
    pieces = [EVENTS[start:end] for start, end in pairwise(edges)]
    events = FilteredEvents(Arriving(pieces), lambda: keep)
    got = []

    async def relay() -> None:
        while not events.ended:
            got.append(await events.read() if waits else events.read_nowait())

    asyncio.run(relay())
    passed = b"".join(got)
    assert passed.rstrip(b"\n") == PASSED.rstrip(b"\n")
    # an event has ended with the CR of its empty line; the LF behind it follows with the next piece
    ends = (b"\n\n", b"\r\n\r\n", b"\r\n\r", b"\r\r")
    assert all(piece.endswith(ends) or piece == b"\n" for piece in got[:-1] if piece)


def test_an_event_that_cannot_be_filtered_never_passes() -> None:
    """Nor does anything behind it."""
    events = FilteredEvents(Arriving([b"data: {\n", b"\n", b"data: 1\n\n"]), lambda: keep)
    assert events.read_nowait() == b""
    with pytest.raises(UpstreamFailed):
        events.read_nowait()


def test_a_stream_may_outlive_the_rules_that_it_began_under() -> None:
    """Each piece is filtered by those in force when it came."""
    event = b"data: " + names("a", "secret") + b"\n\n"
    rules = [keep, lambda kind, name: name == "secret"]
    events = FilteredEvents(Arriving([event, event, b""]), lambda: rules[0])
    assert events.read_nowait() == b"data: " + names("a") + b"\n\n"
    del rules[0]
    assert events.read_nowait() == b"data: " + names("secret") + b"\n\n"
