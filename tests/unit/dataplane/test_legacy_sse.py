"""A 2024-11-05 client posts to the URL that it opened, and its messages reach the server's own endpoint."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane.affinity import ENDPOINT, SESSION
from proxy.dataplane.context import RequestContext
from proxy.dataplane.legacy_sse import EndpointEvent, public_endpoint, target_of
from proxy.errors import SessionGone, UpstreamFailed
from tests.unit.dataplane.asked import ask, sealer, snapshot, somebody

OLD: dict[str, Any] = {
    "old": {"url": "http://old.test:9000/deep/sse", "transport": "sse"},
    "new": "http://new.test/mcp",
}


def stream(path: str = "/old/sse", **config: Any) -> RequestContext:
    """The GET that opens a stream."""
    return ask(snapshot(OLD, **config), path, method="GET")


def posted(uri: str, servers: dict[str, Any] | None = None, **options: Any) -> tuple[str, str] | None:
    """Server and URL that a POST to `uri` means."""
    found = target_of(ask(snapshot(servers or OLD), uri, **options))
    return None if found is None else (found[0].server, found[1])


def event(endpoint: str) -> bytes:
    return f"event: endpoint\r\ndata: {endpoint}\r\n\r\n".encode()


# --- the event ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("/messages/?session_id=0a1b", "http://old.test:9000/messages/?session_id=0a1b"),
        ("/message?sessionId=0a1b", "http://old.test:9000/message?sessionId=0a1b"),
        ("message", "http://old.test:9000/deep/message"),
        ("?session=1", "http://old.test:9000/deep/sse?session=1"),
        ("http://OLD.test:9000/m?x=%2F&y", "http://old.test:9000/m?x=%2F&y"),
        ("//old.test:9000", "http://old.test:9000/"),
        ("//old.test:9000//a", "http://old.test:9000//a"),
        ("/m#fragment", "http://old.test:9000/m"),
    ],
)
def test_a_post_to_the_sealed_endpoint_reaches_the_servers_own(endpoint: str, url: str) -> None:
    """Whatever form the upstream wrote, the client gets its own URL of the stream, and its POST arrives."""
    uri = public_endpoint(stream(), endpoint)
    assert uri.startswith("/old/sse?session_id=v1.")
    assert "0a1b" not in uri
    assert posted(uri) == ("old", url)


def test_the_endpoint_is_relative_to_the_root_of_the_client() -> None:
    """With a prefix in `public_url` the client's own URL has it, and clients resolve the endpoint against that URL."""
    public = "https://example.com/tools"
    uri = public_endpoint(stream(listen={"public_url": public}), "/messages")
    resolved = urlsplit(urljoin(f"{public}/old/sse", uri))
    assert (resolved.netloc, resolved.path) == ("example.com", "/tools/old/sse")


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://evil.test/m", "https://old.test:9000/m", "http://old.test/m", "//evil.test/m", "http://old.test:9001/",
        "http://u@old.test:9000/m", "http://old.test:x/m", "http://[", "javascript:x",
        "/m\u00e4", "/a b", "/a\tb", "/a\nb",
        "/" + "x" * 4096,
    ],
)  # fmt: skip
def test_an_endpoint_elsewhere_fails_the_stream(endpoint: str) -> None:
    """An upstream cannot send us to another origin, nor give a URI that is none; the refusal does not repeat it."""
    with pytest.raises(UpstreamFailed) as refused:
        public_endpoint(stream(), endpoint)
    assert endpoint not in str(refused.value)


@given(
    st.lists(st.integers(0, 200), max_size=12),
    st.sampled_from((b"", b": ping\n\n", b"retry: 3\n\n\xc3\xa4", b"event: x")),
)
def test_only_the_first_event_changes(cuts: list[int], rest: bytes) -> None:
    """However the stream is cut: the endpoint is replaced, and every other byte passes."""
    whole = b": hello\n\n" + event("/m?s=1") + rest
    ctx = stream()
    rewriter = EndpointEvent(ctx)
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    passed = b"".join(rewriter.feed(whole[start:end]) for start, end in pairwise(places))
    head, _, tail = passed.partition(b"data: ")
    uri, _, tail = tail.partition(b"\r\n")
    assert head == b": hello\n\nevent: endpoint\r\n"
    assert tail == b"\r\n" + rest
    assert posted(uri.decode()) == ("old", "http://old.test:9000/m?s=1")


def test_a_stream_passes_untouched_after_its_first_event() -> None:
    """The rewriter then hands back the very chunks it is given."""
    rewriter = EndpointEvent(stream())
    assert rewriter.feed(b"event: endpoint\n") == b""
    assert rewriter.feed(b"data: /m\n\n").startswith(b"event: endpoint\ndata: /old/sse?session_id=")
    chunk = b"event: endpoint\ndata: /m\n\n"
    assert rewriter.feed(chunk) is chunk


def test_a_stream_that_begins_otherwise_fails() -> None:
    """Without an endpoint the client could not answer, and a later one would lead it past us."""
    with pytest.raises(UpstreamFailed):
        EndpointEvent(stream()).feed(b"event: message\ndata: {}\n\n")


# --- the POST -------------------------------------------------------------------------------------------------------


def test_a_post_without_a_session_goes_to_the_server_as_it_is() -> None:
    """Its 404 or 405 is how newer clients learn that this is the old transport."""
    assert posted("/old/sse") is None
    assert posted("/old/mcp?x=1") is None
    assert posted("/old/sse?my_session_id=1") is None


def test_only_a_post_to_a_legacy_server_is_looked_at() -> None:
    """`session_id` in the query means nothing on other methods and other transports."""
    uri = public_endpoint(stream(), "/messages")
    assert posted(uri, method="GET") is None
    assert posted("/new/mcp?session_id=anything") is None
    assert posted("/nowhere?session_id=anything") is None


@pytest.mark.parametrize("query", ["session_id=0a1b", "session_id=", "session_id=v1.AAAA", "x=1&session_id=0a1b"])
def test_an_endpoint_that_we_never_made_is_gone(query: str) -> None:
    """The upstream's own session ids are no way in."""
    with pytest.raises(SessionGone):
        posted(f"/old/sse?{query}")


@pytest.mark.parametrize("form", ["{0}&session_id=x", "{0}&sessionId=x", "{0}&", "{0}&{0}", "x=1&{0}"])
def test_nothing_may_stand_beside_a_sealed_endpoint(form: str) -> None:
    """A second parameter could name another session to an upstream that reads the last one."""
    path, _, query = public_endpoint(stream(), "/messages?session_id=1").partition("?")
    with pytest.raises(SessionGone):
        posted(f"{path}?{form.format(query)}")


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/old/sse", {"principal": somebody("someone")}),
        ("/old/sse", {"principal": somebody("anonymous", "acme")}),
        ("/old/sse", {"host": "other.test"}),
        ("/old/mcp", {}),
    ],
)
def test_an_endpoint_serves_nobody_else_and_nowhere_else(path: str, options: dict[str, Any]) -> None:
    """As a session id, it is bound to principal, tenant, host and path."""
    query = public_endpoint(stream(), "/messages").partition("?")[2]
    with pytest.raises(SessionGone):
        posted(f"{path}?{query}", **options)


def test_a_session_id_is_no_endpoint() -> None:
    """A seal made for `Mcp-Session-Id` does not open as a URL on the server, where a client could choose the path."""
    seal, ctx = sealer(), stream()
    session = seal.begin(ctx, "old", "/admin")
    assert posted(f"/old/sse?session_id={seal.seal(session, ENDPOINT)}") == ("old", "http://old.test:9000/admin")
    with pytest.raises(SessionGone):
        posted(f"/old/sse?session_id={seal.seal(session, SESSION)}")


@pytest.mark.parametrize("left", [{"new": "http://new.test/mcp"}, {"old": "http://old.test:9000/mcp"}])
def test_a_session_whose_server_is_gone_is_gone(left: dict[str, Any]) -> None:
    """After a reload the server may not exist, or speak another transport: the client starts again."""

    def shared(servers: dict[str, Any], *names: str) -> Any:
        return snapshot(servers, routes=[{"name": "shared", "path": "/shared", "servers": list(names)}])

    uri = public_endpoint(ask(shared(OLD, "old"), "/shared", method="GET"), "/messages")
    assert target_of(ask(shared(OLD, "old"), uri)) is not None
    other = {"url": "http://other.test/sse", "transport": "sse"}
    with pytest.raises(SessionGone):
        target_of(ask(shared({**left, "other": other}, "other"), uri))
