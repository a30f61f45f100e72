"""Chunked bodies: what comes out is what went in, however it is cut, and every ambiguity is refused."""

from __future__ import annotations

import time

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.dataplane.framing import ChunkedReader
from proxy.errors import BadRequest, BodyTooLarge, HeadersTooLarge, Refusal

LIMIT = 1 << 20


def read(framed: bytes, limit_bytes: int = LIMIT) -> tuple[bytes, int, bool]:
    """Body, bytes used and whether it ended, of a body fed at once."""
    reader = ChunkedReader(limit_bytes)
    pieces, used = reader.feed(framed)
    assert all(pieces)
    return b"".join(pieces), used, reader.done


def chunked(pieces: list[bytes], extension: bytes = b"", trailers: bytes = b"") -> bytes:
    """`pieces` in chunked framing."""
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces if piece)
    return b"%b0%b\r\n%b\r\n" % (chunks, extension, trailers)


# --- what it accepts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "framed",
    [
        b"5\r\nhello\r\n0\r\n\r\n",
        b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"0000000000000005\r\nhello\r\n000\r\n\r\n",
        b'5;a;b=c;d="e;\\"f,\tg"\r\nhello\r\n0;last\r\n\r\n',
        b"5\r\nhello\r\n0\r\nX-Api-Key: forged\r\nHost: evil\r\nEmpty:\r\n\r\n",
    ],
    ids=["plain", "two chunks", "leading zeros", "extensions", "trailers"],
)
def test_the_body_comes_out_and_nothing_else(framed: bytes) -> None:
    """Sizes, extensions and trailers are gone; what follows the body is left alone."""
    assert read(framed + b"POST /next") == (b"hello", len(framed), True)


def test_hexadecimal_has_two_cases() -> None:
    """`1A` and `1a` are the same size."""
    for size in (b"1A", b"1a"):
        assert read(size + b"\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n")[0] == b"x" * 26


def test_an_empty_body_is_a_body() -> None:
    """Only the last chunk."""
    assert read(b"0\r\n\r\n") == (b"", 5, True)


def test_pieces_are_handed_out_as_they_arrive() -> None:
    """A chunk is not waited for: what is here of it is given on."""
    reader = ChunkedReader(LIMIT)
    assert reader.feed(b"a\r\n01234") == ([b"01234"], 8)
    assert reader.feed(b"56") == ([b"56"], 2)
    assert reader.feed(b"789\r\n0\r\n\r") == ([b"789"], 9)
    assert not reader.done
    assert reader.feed(b"\nGET /") == ([], 1)
    assert reader.done


CHUNKS = st.lists(st.binary(min_size=1, max_size=300), max_size=12)
EXTENSIONS = st.sampled_from([b"", b";x", b";x=y", b';x="a\\"b"'])
TRAILERS = st.sampled_from([b"", b"A: b\r\n", b"A:\r\nB: c d\r\n", b"A: \xff\r\n"])


@given(CHUNKS, EXTENSIONS, TRAILERS, st.binary(max_size=40), st.lists(st.integers(1, 40), max_size=200))
def test_any_cut_gives_the_same_body(
    pieces: list[bytes], extension: bytes, trailers: bytes, behind: bytes, cuts: list[int]
) -> None:
    """However the bytes arrive, the body is the same and exactly its own bytes are used."""
    framed = chunked(pieces, extension, trailers)
    stream = framed + behind
    reader = ChunkedReader(LIMIT)
    body, position = b"", 0
    for cut in [*cuts, len(stream)]:
        fed = stream[position : position + cut]
        found, used = reader.feed(fed)
        body += b"".join(found)
        position += used
        assert reader.done or used == len(fed)
        if reader.done:
            break
    assert (body, position, reader.done) == (b"".join(pieces), len(framed), True)


# --- what it refuses ------------------------------------------------------------------------------------------------

BAD = [
    b"-1\r\n", b"+5\r\nhello", b"0x5\r\nhello", b"f" * 17 + b"\r\n", b"f" * 18, b"5 \r\nhello", b" 5\r\nhello",
    b"5\t\r\n",
    b"5_0\r\n", b"\r\n", b"\n", b"g\r\n", b";x\r\n", b"5\nhello\r\n", b"5\rhello", b"5\r\r\n", b"5;\r\nhello",
    b"5;=a\r\n",
    b"5; a=b\r\nhello", b"5;a =b\r\n", b'5;a="b\r\n', b"5;a=b\nc\r\n", b"5;a=\x00\r\n", b"5;a=\xff\r\n", b"5,a\r\n",
    b'5;a="\\\x00"\r\n', b"\xd9\xa5\r\nhello",
    b"5\r\nhelloX\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello\r0\r\n\r\n", b"5\r\nhello0\r\n\r\n",
    b"5\r\nhell\r\n0\r\n\r\n",
    b"0\r\n\n", b"0\r\n\rX", b"0\r\nno colon\r\n\r\n", b"0\r\n: x\r\n\r\n", b"0\r\nA : x\r\n\r\n", b"0\r\nA: b\n\r\n",
    b"0\r\nA: b\r\n c\r\n\r\n", b"0\r\nA: \x00\r\n\r\n", b"0\r\nA: b\rc\r\n\r\n", b"0\r\n\x00: b\r\n\r\n",
    b"5;" + b"a" * 256 + b"\r\nhello\r\n0\r\n\r\n", b"5;" + b"a" * 9000, b"5;a=" + b"b" * (1 << 20) + b"\r\n",
]  # fmt: skip


@pytest.mark.parametrize("framed", BAD, ids=[repr(framed[:24]) for framed in BAD])
def test_faults_are_bad_requests(framed: bytes) -> None:
    """Fed at once or byte by byte, a fault is refused, and without waiting for a line that cannot become right."""
    with pytest.raises(BadRequest):
        read(framed)
    reader = ChunkedReader(LIMIT)
    with pytest.raises(BadRequest):
        for position in range(min(len(framed), 400)):
            reader.feed(framed[position : position + 1])


def test_extensions_pass_up_to_their_limit() -> None:
    """256 bytes for all extensions of a chunk."""
    assert read(b"1;" + b"a" * 255 + b"\r\nx\r\n0\r\n\r\n")[0] == b"x"


def test_the_limit_counts_the_body_alone() -> None:
    """Framing is not counted; a size over the limit is refused before its bytes come."""
    framed = chunked([b"x" * 100] * 10, b";extension=1")
    assert read(framed, 1000)[0] == b"x" * 1000
    with pytest.raises(BodyTooLarge):
        read(framed, 999)
    with pytest.raises(BodyTooLarge):
        read(b"ffffffffffffffff\r\n", 1000)


def test_tiny_chunks_are_bounded() -> None:
    """A thousand of one byte pass; a body cannot consist of nothing else, nor end up so by growing slowly."""
    assert len(read(chunked([b"x"] * 1000))[0]) == 1000
    assert len(read(chunked([b"x" * 16] * 50_000))[0]) == 800_000
    with pytest.raises(BadRequest):
        read(chunked([b"x"] * 2000))
    with pytest.raises(BadRequest):
        read(chunked([b"x" * 1000] + [b"x"] * 2000))


def test_trailers_are_bounded() -> None:
    """8 KiB of trailers, whether in one line or many, arrived or arriving."""
    line = b"A: " + b"b" * 995 + b"\r\n"
    assert read(b"0\r\n" + line * 8 + b"\r\n")[2]
    for trailers in (line * 9, b"A: " + b"b" * 8190 + b"\r\n", b"A: " + b"b" * 8190):
        with pytest.raises(HeadersTooLarge):
            read(b"0\r\n" + trailers)


@given(st.binary(max_size=80))
def test_any_bytes_give_a_body_or_a_refusal(fed: bytes) -> None:
    """Nothing but a Refusal is raised, and nothing beyond what was fed is used."""
    reader = ChunkedReader(LIMIT)
    try:
        _, used = reader.feed(fed)
    except Refusal:
        return
    assert used == len(fed) or reader.done


SEEDS = [chunked([b"hello", b"x" * 30], b';a="b"', b"A: b\r\n"), chunked([b"{}"]), b"00A\r\n0123456789\r\n0\r\n\r\n"]


@settings(max_examples=300)
@given(st.sampled_from(SEEDS), st.integers(0, 60), st.integers(0, 2), st.one_of(st.just(b""), st.binary(max_size=2)))
def test_a_second_parser_reads_what_was_accepted_alike(seed: bytes, at: int, gone: int, new: bytes) -> None:
    """A mutated body that passes is the same body to h11, and ends at the same byte."""
    framed = seed[:at] + new + seed[at + gone :]
    try:
        body, used, done = read(framed)
    except Refusal:
        return
    if not done:
        return
    other = h11.Connection(h11.SERVER)
    other.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + framed)
    seen = b""
    while not isinstance(event := other.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Request | h11.Data)
        seen += bytes(event.data) if isinstance(event, h11.Data) else b""
    assert (seen, other.trailing_data[0]) == (body, framed[used:])


@pytest.mark.parametrize(
    "framed",
    [chunked([b"x"] * 900_000), b"5;" + b"a" * (20 << 20), b"0\r\n" + b"A:b\r\n" * 200_000, b"0\r\nA: " + b"b" * 9000],
    ids=["900,000 chunks", "20 MiB extension", "200,000 trailers", "one long trailer"],
)
@pytest.mark.parametrize("packet_bytes", [4, 64 << 10])
def test_the_ugliest_bodies_cost_little(framed: bytes, packet_bytes: int) -> None:
    """Work ends soon after a bound is passed, also when bytes come a few at a time."""
    reader = ChunkedReader(LIMIT)
    began = time.process_time()
    with pytest.raises(Refusal):
        for position in range(0, len(framed), packet_bytes):
            reader.feed(framed[position : position + packet_bytes])
    assert time.process_time() - began < 0.5  # 0.001 to 0.02 on the machine this was written on


def test_a_large_body_costs_what_its_bytes_cost() -> None:
    """Decoding is linear: four times the bytes, cut as small as a network cuts them, take about four times as long."""

    def cost_s(size: int) -> float:
        framed = chunked([b"x" * 8192] * (size // 8192))
        best = 1.0
        for _ in range(3):
            reader = ChunkedReader(size)
            began = time.process_time()
            for position in range(0, len(framed), 1400):
                reader.feed(framed[position : position + 1400])
            best = min(best, time.process_time() - began)
            assert reader.done
        return best

    assert cost_s(4 << 20) < 12 * cost_s(1 << 20)
