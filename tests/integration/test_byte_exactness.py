"""What the upstream saw is what the client sent, and what the client saw is what the upstream sent, byte for byte."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness import RawClient, ScriptedUpstream, answer_in_pieces, scripted_upstream
from tests.inprocess import LANES, running_app

#: Names that no rule of the proxy touches.
_NAMES = st.sampled_from(
    [
        "Accept",
        "ACCEPT-language",
        "User-Agent",
        "x-custom",
        "X-Custom",
        "Mcp-Param-Region",
        "traceparent",
        "Last-Event-ID",
    ]
)
_VALUES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=40).map(str.strip)
_FIELDS = st.lists(st.tuples(_NAMES, _VALUES), max_size=8).filter(
    lambda fields: [name.lower() for name, _ in fields].count("last-event-id") < 2
)
_BODIES = (
    st.binary(max_size=5000)
    | st.sampled_from([b"", b"\x1f\x8b\x08", b"0\r\n\r\n"])
    | st.integers(0, 200_000).map(lambda length: b"x" * length)
)
_CODINGS = st.sampled_from([[], [("Content-Encoding", "gzip")], [("content-encoding", "br"), ("Content-Type", "x/y")]])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
_SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n\t", " : ")])


def _cut(body: bytes, cuts: list[float]) -> list[bytes]:
    """`body` in pieces, cut at these shares of its length; none of them empty."""
    places = sorted({int(len(body) * cut) for cut in cuts} | {0, len(body)})
    return [body[start:end] for start, end in pairwise(places)]


def _chunked(pieces: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def _fields(head: bytes) -> list[tuple[str, str]]:
    pairs = []
    for line in head.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        pairs.append((name.decode(), value.decode().strip(" \t")))
    return pairs


class _Drawn(NamedTuple):
    """A message: its fields, its body, and how it is cut and framed."""

    fields: list[tuple[str, str]]
    body: bytes
    cuts: list[float]
    chunked: bool

    def pieces(self, start: str) -> list[bytes]:
        framing = "Transfer-Encoding: chunked" if self.chunked else f"Content-Length: {len(self.body)}"
        framed = _chunked(_cut(self.body, self.cuts)) if self.chunked else self.body
        return _cut(f"{start}\r\n{_lines(self.fields)}{framing}\r\n\r\n".encode() + framed, self.cuts)


_MESSAGES = st.builds(
    lambda fields, coding, *rest: _Drawn([*fields, *coding], *rest),
    _FIELDS, _CODINGS, _BODIES, st.lists(st.floats(0, 1), max_size=5), st.booleans(),
)  # fmt: skip

_OURS = {"host", "via", "x-request-id", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "content-length",
         "transfer-encoding"}  # fmt: skip


def _passed(head: bytes) -> list[tuple[str, str]]:
    return [pair for pair in _fields(head) if pair[0].lower() not in _OURS]


def _body(message: bytes) -> bytes:
    head, _, body = message.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return body
    whole = b""
    while not body.startswith(b"0\r\n"):
        size, _, body = body.partition(b"\r\n")
        whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return whole


async def _exchange(
    upstream: ScriptedUpstream, port: int, request: list[bytes], answer: list[bytes]
) -> tuple[bytes, bytes, bytes]:
    """Send `request` piece by piece, answer piece by piece; what the upstream saw, and head and body the client saw."""

    upstream.answer = answer
    upstream.seen.clear()
    client = await RawClient.connect(port)
    try:
        for piece in request:
            await client.send(piece)
            await asyncio.sleep(0)
        head = await client.head()
        body = b""
        if b"\r\ntransfer-encoding: chunked" in head.lower():
            while chunk := await client.chunk():
                body += chunk
        else:
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = await client.reader.readexactly(length)
        return upstream.seen[0], head, body
    finally:
        await client.close()


@pytest.mark.parametrize("lane", LANES)
async def test_an_uninspected_route_changes_no_byte_in_either_direction(lane: str) -> None:
    """Any body, cut anywhere, with a length or in chunks, with any fields in any order, encoded or not."""

    async with scripted_upstream(answer_in_pieces) as upstream:
        config = {
            "servers": {"up": {"url": upstream.url}},
            "routes": [{"name": "raw", "path": "/raw", "servers": "up", "inspect": "none"}],
            "log": {"access": False},
        }
        async with running_app(config, lane) as (_, port):
            loop = asyncio.get_running_loop()

            @settings(max_examples=150, deadline=None)
            @given(_MESSAGES, _MESSAGES)
            def check(up: _Drawn, down: _Drawn) -> None:
                asyncio.run_coroutine_threadsafe(compare(up, down), loop).result(30)

            async def compare(up: _Drawn, down: _Drawn) -> None:
                request = up.pieces("POST /raw HTTP/1.1\r\nHost: 127.0.0.1")
                saw, got_head, got = await _exchange(upstream, port, request, down.pieces("HTTP/1.1 207 Multi-Status"))
                assert _passed(saw) == up.fields
                assert _body(saw) == up.body
                assert _passed(got_head) == down.fields, got_head
                assert got == down.body

            await asyncio.to_thread(check)


@pytest.mark.parametrize("lane", LANES)
async def test_an_inspected_body_is_forwarded_as_the_bytes_that_were_inspected(lane: str) -> None:
    """Whatever blanks and spellings the client chose."""

    async with scripted_upstream(answer_in_pieces) as upstream:
        config = {"servers": {"up": {"url": upstream.url}}, "log": {"access": False}}
        async with running_app(config, lane) as (_, port):
            loop = asyncio.get_running_loop()

            @settings(max_examples=100, deadline=None)
            @given(_JSON, _SEPARATORS, st.booleans(), st.lists(st.floats(0, 1), max_size=4))
            def check(arguments: object, separators: tuple[str, str], ascii_only: bool, cuts: list[float]) -> None:
                asyncio.run_coroutine_threadsafe(compare(arguments, separators, ascii_only, cuts), loop).result(30)

            async def compare(
                arguments: object, separators: tuple[str, str], ascii_only: bool, cuts: list[float]
            ) -> None:
                call = {
                    "jsonrpc": "2.0",
                    "id": 7,
                    "method": "tools/call",
                    "params": {"name": "t", "arguments": {"a": arguments}},
                }
                body = json.dumps(call, separators=separators, ensure_ascii=ascii_only).encode()
                head = (
                    "POST /up/mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n"
                ).encode()
                answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
                saw, _, got = await _exchange(upstream, port, _cut(head + body, cuts), [answer])
                assert _body(saw) == body
                assert got == b"{}"

            await asyncio.to_thread(check)


def _lines(fields: list[tuple[str, str]]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in fields)
