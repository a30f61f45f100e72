"""What of calls and answers is kept: nothing unless configured, no secrets, and never more than is allowed."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane.capture import Arguments, Capture, Captures, Overheard
from proxy.mcp.envelope import read_envelope

KEY = b"k" * 32
JSON = [("Content-Type", "application/json")]
EVENTS = [("content-type", "text/event-stream; charset=utf-8")]


def captures(arguments: Any = "sanitised", results: Any = "sanitised", most: int = 8192) -> Captures:
    return Captures(arguments, results, most, KEY)


def call(arguments: Any, method: str = "tools/call", **params: Any) -> bytes:
    given = {"name": "t", "arguments": arguments, **params} if arguments is not None else params
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": given}).encode()


def kept(body: bytes, **settings: Any) -> Arguments | None:
    return captures(**settings).of_request(body, read_envelope(body, {}))


def digest(text: str) -> str:
    return hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()


# --- arguments --------------------------------------------------------------------------------------------------------


def test_nothing_is_kept_unless_configured() -> None:
    """Neither of requests nor of answers."""
    assert kept(call({"a": 1}), arguments="none") is None
    assert captures(results="none").of_answer(JSON) is None
    assert captures().of_request(None, None) is None


def test_arguments_are_kept_without_secrets() -> None:
    """With a digest of what was sent, byte for byte."""
    body = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments": {"q" : 1, "password":"x7"}}}'
    )
    assert kept(body) == ({"q": 1, "password": "[redacted:password]"}, digest('{"q" : 1, "password":"x7"}'))


def test_hashed_arguments_are_a_digest_alone() -> None:
    """The same for the same arguments, whatever the id of the request."""
    one, two = kept(call({"a": "hunter2"}), arguments="hashed"), kept(call({"a": "hunter2"}, x=1), arguments="hashed")
    assert one == (None, digest('{"a": "hunter2"}'))
    assert one == two
    assert kept(call({"a": 2}), arguments="hashed") != one


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (call({"a": 1}, "prompts/get"), {"a": 1}),
        (
            call(None, "completion/complete", ref={"type": "ref/prompt", "name": "p"}, argument={"name": "l"}),
            {"name": "l"},
        ),
        (call(None, "acme/unknown", a={"token": "a1b2c3d4"}), {"a": {"token": "[redacted:token]"}}),
    ],
)
def test_other_methods_have_arguments_too(body: bytes, value: Any) -> None:
    """Of a method that is not known all parameters are kept."""
    found = kept(body)
    assert found is not None
    assert found.value == value


@pytest.mark.parametrize(
    "body",
    [
        call(None, "tools/list"),
        call(None, "resources/read", uri="file:///x"),
        call(None, name="t"),
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}',
        b'{"jsonrpc":"2.0","id":1,"result":{"token":"x"}}',
    ],
)
def test_what_has_no_arguments_keeps_none(body: bytes) -> None:
    """Lists, resources, answers of the client."""
    assert kept(body) is None


def test_of_large_arguments_the_size_is_kept() -> None:
    """And the digest."""
    text = json.dumps({"a": "x" * 9000})
    found = kept(call({"a": "x" * 9000}))
    assert found == ({"omitted": "too large", "bytes": len(text)}, digest(text))


def test_a_batch_is_kept_in_one() -> None:
    """With a digest of the whole body."""
    body = (
        b"[" + call({"token": "a1b2c3d4"}) + b"," + call({"b": 2}) + b',{"jsonrpc":"2.0","method":"notifications/x"}]'
    )
    found = kept(body)
    assert found == ([{"token": "[redacted:token]"}, {"b": 2}], digest(body.decode()))
    large = b"[" + call({"a": "x" * 9000}) + b"]"
    assert kept(large) == ({"omitted": "too large", "bytes": len(large)}, digest(large.decode()))


def test_a_very_large_body_is_not_taken_apart() -> None:
    """Its digest is that of the body."""
    body = call({"a": "x" * 300_000})
    assert kept(body, most=1 << 20) == ({"omitted": "too large", "bytes": len(body)}, digest(body.decode()))
    assert kept(body, most=1 << 20, arguments="hashed") == (None, digest(body.decode()))


def test_the_key_is_not_shown() -> None:
    """Settings end up in logs."""
    assert "kkkk" not in repr(captures())


# --- answers ----------------------------------------------------------------------------------------------------------


def heard(headers: list[tuple[str, str]], *chunks: bytes, most: int = 8192) -> Any:
    capture = captures(most=most).of_answer(headers)
    assert capture is not None
    for chunk in chunks:
        capture.feed(chunk)
    return capture.result()


def answer(**members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, **members}).encode()


def test_the_result_of_an_answer_is_kept_without_secrets() -> None:
    """In whatever pieces it came."""
    body = answer(result={"content": [{"type": "text", "text": "password=hunter2"}]})
    value = {"content": [{"type": "text", "text": "password=[redacted:password]"}]}
    assert heard(JSON, body) == value
    assert heard(JSON, *(body[at : at + 1] for at in range(len(body)))) == value
    assert heard(JSON, answer(error={"code": 1, "message": "m"})) == {"error": {"code": 1, "message": "m"}}
    assert heard(JSON, b"[" + answer(result=1) + b"," + answer(result=2) + b"]") == [1, 2]


@pytest.mark.parametrize(
    ("headers", "body", "why"),
    [
        (JSON, b"x" * 9000, "too large"),
        (JSON, b"{", "not JSON"),
        ([*JSON, ("Content-Encoding", "gzip")], b"zz", "encoded"),
        ([("content-type", "text/html")], b"<html>", "no JSON"),
        ([], b"x", "no JSON"),
    ],
)
def test_of_everything_else_the_size_is_kept(headers: list[tuple[str, str]], body: bytes, why: str) -> None:
    """With the reason."""
    assert heard(headers, body) == {"omitted": why, "bytes": len(body)}


def test_an_answer_without_content_has_no_result() -> None:
    """202 for a notification."""
    assert heard(JSON) is None
    assert heard(EVENTS, b": ping\n\n") is None


def event(data: bytes, end: bytes = b"\n") -> bytes:
    return b"event: message" + end + b"id: 7" + end + b"data: " + data + end + end


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_answer_among_events_is_kept(end: bytes) -> None:
    """Progress is not, and uses up no room."""
    progress = event(b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}', end)
    stream = progress * 200 + event(answer(result={"token": "a1b2c3d4"}), end) + progress
    for size in (1, 7, 4096, len(stream)):
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert heard(EVENTS, *pieces, most=512) == {"token": "[redacted:token]"}


def test_data_of_several_lines_is_one_document() -> None:
    """As the format has it."""
    assert heard(EVENTS, b'data: {"id":1,\ndata: "result":\ndata:5}\n\n') == 5


def test_events_that_are_too_large_are_counted_out() -> None:
    """The others are kept."""
    big = event(answer(result="x" * 2000))
    stream = big + event(answer(result=1)) + big
    assert heard(EVENTS, stream, most=1000) == [1, {"omitted": "too large", "bytes": len(stream)}]
    pieces = [stream[at : at + 100] for at in range(0, len(stream), 100)]
    assert heard(EVENTS, *pieces, most=1000) == [1, {"omitted": "too large", "bytes": len(stream)}]


class Pieces:
    """An answer in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    @property
    def ended(self) -> bool:
        return not self.pieces

    def read_nowait(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    async def read(self) -> bytes:
        return self.read_nowait()


async def test_what_is_overheard_passes_unchanged() -> None:
    """However it is read."""
    body = answer(result={"a": 1})
    capture = captures().of_answer(JSON)
    assert capture is not None
    overheard = Overheard(Pieces(body[:5], body[5:9], body[9:]), capture)
    got = overheard.read_nowait() + await overheard.read()
    assert not overheard.ended
    got += await overheard.read()
    assert overheard.ended
    assert got == body
    assert capture.result() == {"a": 1}


@given(st.lists(st.binary(max_size=200), max_size=20), st.sampled_from([JSON, EVENTS]), st.integers(1, 300))
def test_any_bytes_can_pass_and_little_is_held(chunks: list[bytes], headers: list[tuple[str, str]], most: int) -> None:
    """Never more than allowed and one chunk."""
    capture = captures(most=most).of_answer(headers)
    assert isinstance(capture, Capture)
    for chunk in chunks:
        capture.feed(chunk)
        assert len(capture._buffer) <= most + 3
    assert capture.size == sum(map(len, chunks))
    json.dumps(capture.result())
