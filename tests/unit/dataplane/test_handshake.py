"""The upstream's answer to a handshake is read to the letter, in bounds, or not at all."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane.exchange import Headers
from proxy.dataplane.handshake import HEAD_BYTES, read_body, read_head
from proxy.errors import Refusal, UpstreamFailed

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def received(raw: bytes) -> asyncio.StreamReader:
    """All that the upstream ever sends."""
    reader = asyncio.StreamReader(limit=HEAD_BYTES)
    reader.feed_data(raw)
    reader.feed_eof()
    return reader


async def head(raw: bytes) -> tuple[int, Headers]:
    return await read_head(received(raw))


async def body(raw: bytes, *fields: tuple[str, str], status: int = 403) -> bytes:
    return await read_body(received(raw), status, list(fields))


async def test_a_head_is_read_with_order_case_and_repeats() -> None:
    """Blanks around a value are no part of it; bytes that are no UTF-8 stay recognisable."""
    raw = b"HTTP/1.0 403\r\nX-B:  1 \t\r\nx-a: gr\xc3\xbcn\r\nX-B:\r\nX-C: \xff\r\n\r\n"
    assert await head(raw) == (403, [("X-B", "1"), ("x-a", "grün"), ("X-B", ""), ("X-C", "\udcff")])


async def test_what_follows_a_switch_belongs_to_the_tunnel() -> None:
    """Frames that came with the head stay in the reader."""
    reader = received(SWITCH + b"\x81\x02hi")
    assert (await read_head(reader))[0] == 101
    assert await reader.read() == b"\x81\x02hi"


async def test_interim_answers_are_passed_over() -> None:
    """100 and 103 may come first, but not for ever."""
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    assert (await head(b"HTTP/1.1 100 Continue\r\n\r\n" + hint + SWITCH))[0] == 101
    with pytest.raises(UpstreamFailed):
        await head(hint * 8 + SWITCH)


@pytest.mark.parametrize(
    "switch",
    [
        b"HTTP/1.1 101 x\r\n\r\n",
        b"HTTP/1.1 101 x\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 101 x\r\nUpgrade: websocket, h2c\r\n\r\n",
        b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n",
    ],
)
async def test_only_a_switch_to_websocket_counts(switch: bytes) -> None:
    """Anything else would be a tunnel for a protocol that nobody asked for."""
    with pytest.raises(UpstreamFailed):
        await head(switch)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/2 101 x\r\n\r\n", b"HTTP/1.1 99 x\r\n\r\n", b"HTTP/1.1 1011 x\r\n\r\n", b"HTTP/1.1  200 x\r\n\r\n",
        b"http/1.1 200 x\r\n\r\n", b"\r\nHTTP/1.1 200 x\r\n\r\n", b"HTTP/1.1 200 x\nA: b\r\n\r\n", b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 x\r\nA : b\r\n\r\n", b"HTTP/1.1 200 x\r\n b\r\n\r\n", b"HTTP/1.1 200 x\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 x\r\nA\r\n\r\n", b"HTTP/1.1 200 x\r\n: b\r\n\r\n", b"HTTP/1.1 200 x\r\nA: b\nB: c\r\n\r\n",
        b"HTTP/1.1 200 x\r\nA: b\rc\r\n\r\n", b"HTTP/1.1 200 x\r\nA: b\0\r\n\r\n", b"HTTP/1.1 200 x\0\r\n\r\n",
        b"HTTP/1.1 200 x\r\n\xc3\xa4: b\r\n\r\n", b"HTTP/1.1 200 x\r\n" + b"A: b\r\n" * 257 + b"\r\n",
    ],
)  # fmt: skip
async def test_a_head_that_could_be_read_in_two_ways_is_refused(raw: bytes) -> None:
    """Folded lines, blanks before colons, bare line ends, control bytes, too many fields."""
    with pytest.raises(UpstreamFailed):
        await head(raw)


@given(st.binary(max_size=300))
def test_garbage_never_passes_for_an_answer(raw: bytes) -> None:
    """Whatever the upstream sends, reading ends with an answer or a fault that the caller expects."""
    for start in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nA: "):
        try:
            status, _ = asyncio.run(head(start + raw + b"\r\n\r\n"))
        except UpstreamFailed:
            continue
        assert 101 <= status <= 599


async def test_a_head_without_end_is_bounded() -> None:
    """64 KiB without a blank line is no head."""
    with pytest.raises(asyncio.LimitOverrunError):
        await head(b"HTTP/1.1 200 OK\r\nA: " + b"x" * (HEAD_BYTES + 1))
    with pytest.raises(asyncio.IncompleteReadError):
        await head(b"HTTP/1.1 200 OK\r\n")


async def test_a_body_is_as_long_as_its_head_says() -> None:
    """By length, by chunks, or to the end of the connection."""
    assert await body(b"no!and more", ("content-LENGTH", "3")) == b"no!"
    assert await body(b"2\r\nno\r\n1\r\n!\r\n0\r\n\r\n", ("Transfer-Encoding", "Chunked")) == b"no!"
    assert await body(b"no!") == b"no!"
    assert await body(b"whatever", ("Content-Length", "8"), status=304) == b""


@pytest.mark.parametrize(
    "fields",
    [
        [("Content-Length", "3"), ("Content-Length", "3")],
        [("Content-Length", "3"), ("Transfer-Encoding", "chunked")],
        [("Content-Length", "+3")],
        [("Content-Length", "3, 3")],
        [("Content-Length", "")],
        [("Transfer-Encoding", "gzip, chunked")],
    ],
)
async def test_a_body_of_uncertain_length_is_refused(fields: Headers) -> None:
    """Two lengths, a strange one, or a coding besides chunked."""
    with pytest.raises(UpstreamFailed):
        await body(b"0\r\n\r\n", *fields)


async def test_a_long_body_is_refused_whole() -> None:
    """A refusal of a handshake is short; a cut one would look complete."""
    with pytest.raises(UpstreamFailed):
        await body(b"", ("Content-Length", str(HEAD_BYTES + 1)))
    with pytest.raises(UpstreamFailed):
        await body(b"x" * (HEAD_BYTES + 1))
    with pytest.raises(Refusal):
        await body(b"%x\r\n" % (HEAD_BYTES + 1), ("Transfer-Encoding", "chunked"))


async def test_a_body_that_breaks_off_is_refused() -> None:
    """Shorter than its length, or without its last chunk."""
    with pytest.raises(asyncio.IncompleteReadError):
        await body(b"no", ("Content-Length", "3"))
    with pytest.raises(UpstreamFailed):
        await body(b"2\r\nno\r\n", ("Transfer-Encoding", "chunked"))
