"""Event streams: where events end, and the endpoint event, whatever the chunks."""

import re
import time
from itertools import combinations_with_replacement, pairwise, product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.errors import UpstreamFailed
from proxy.mcp.sse import MAX_FIRST_EVENT, BoundaryTracker, FirstEvent, LastEvent

STREAMS = st.lists(
    st.sampled_from(
        [
            b"\n",
            b"\r",
            b"\r\n",
            b"data: x",
            b"data:",
            b"event: endpoint",
            b"event: message",
            b": c",
            b"id: 1",
            b"a",
            b"",
        ]
    ),
    max_size=14,
).map(b"".join)
CUTS = st.lists(st.integers(0, 60), max_size=6)


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    """The stream in pieces, some of them empty."""
    places = [0, *sorted(place for place in cuts if place <= len(stream)), len(stream)]
    return [stream[a:b] for a, b in pairwise(places)]


def stands_between_events(stream: bytes) -> bool:
    """The definition: all line ends made equal, the last line that came is empty."""
    lines = re.sub(rb"\r\n|\r", b"\n", stream)
    return lines.strip(b"\n") == b"" or lines.endswith(b"\n\n")


def test_the_boundary_is_known_after_every_chunk() -> None:
    """Over all streams of up to seven bytes, cut anywhere: the tracker says what the definition says of the bytes so
    far. Longer streams add nothing, for it looks at no more than three bytes of a chunk."""
    assert BoundaryTracker().at_boundary
    for length in range(8):
        for stream in map(bytes, product(b"a\r\n", repeat=length)):
            expected = stands_between_events(stream)
            for place in range(length + 1):
                tracker = BoundaryTracker()
                tracker.feed(stream[:place])
                tracker.feed(stream[place:])
                assert tracker.at_boundary is expected, (stream, place)


@given(STREAMS, CUTS)
@settings(deadline=None)
def test_the_boundary_is_known_after_any_number_of_chunks(stream: bytes, cuts: list[int]) -> None:
    """The same for whole events in many pieces."""
    tracker, seen = BoundaryTracker(), b""
    for chunk in cut(stream, cuts):
        tracker.feed(chunk)
        seen += chunk
        assert tracker.at_boundary is stands_between_events(seen)


@given(STREAMS, CUTS)
@settings(deadline=None)
def test_the_bytes_of_the_event_under_way_are_counted(stream: bytes, cuts: list[int]) -> None:
    """From the last empty line on, whichever pieces it came in; the line end before it may count, being one or two."""
    tracker, seen = BoundaryTracker(), b""
    for piece in cut(stream, cuts):
        tracker.feed(piece)
        seen += piece
        under_way = re.split(rb"(?:(?<=\n)|(?<=\r)(?!\n)|\A)(?:\r\n|\n|\r(?!\n))", seen)[-1]
        expected = 0 if stands_between_events(seen) else len(under_way)
        assert expected <= tracker.event_bytes <= expected + 2, (seen, expected)


@pytest.mark.parametrize("blank", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n", b"\n\r", b"\r\n\r"])
def test_every_kind_of_empty_line_is_a_boundary(blank: bytes) -> None:
    """CRLF, LF and CR end lines in any mixture, in one piece or byte by byte."""
    whole, bytewise = BoundaryTracker(), BoundaryTracker()
    whole.feed(b"data: " + b"x" * 70_000 + blank)
    for byte in b"data: x" + blank:
        bytewise.feed(bytes([byte]))
    assert whole.at_boundary
    assert bytewise.at_boundary


def test_text_and_half_events_are_no_boundary() -> None:
    """A line end inside CRLF, a comment line, and escaped line ends in JSON do not end an event."""
    tracker = BoundaryTracker()
    for chunk in (b"data: 1\r", b"\n", b": ping\n", b'data: {"a":"\\n\\n"}', b"\n"):
        tracker.feed(chunk)
        assert not tracker.at_boundary


def follow(chunks: list[bytes], endpoint: str) -> tuple[str, bytes]:
    """What a relay would send, and the URI found; `refused` or `waiting` in its place."""
    first = FirstEvent()
    for index, chunk in enumerate(chunks):
        try:
            if first.feed(chunk):
                return first.endpoint, first.rewritten(endpoint) + b"".join(chunks[index + 1 :])
        except UpstreamFailed:
            return "refused", b""
    return "waiting", b""


@given(STREAMS, CUTS)
@example(b"event: endpoint\r\ndata: /a\r\n\r\nrest", [15, 16, 25, 26, 27, 28])
@example(b"event: endpoint\rdata: /a\r\r\n", [26])
@settings(deadline=None)
def test_the_endpoint_is_found_however_the_stream_is_cut(stream: bytes, cuts: list[int]) -> None:
    """Split anywhere, the reader finds the same URI, sends the same bytes, and refuses the same streams."""
    assert follow(cut(stream, cuts), "/sealed") == follow([stream], "/sealed")


@pytest.mark.parametrize("ends", list(product([b"\n", b"\r", b"\r\n"], repeat=4)), ids=repr)
def test_every_kind_of_line_end_may_be_cut(ends: tuple[bytes, ...]) -> None:
    """Whatever ends the lines of the event, two cuts anywhere and single bytes give the same as the whole."""
    stream = b"event: endpoint" + ends[0] + b"data: /a" + ends[1] + ends[2] + b"z" + ends[3]
    whole = follow([stream], "/x")
    for first, second in combinations_with_replacement(range(len(stream) + 1), 2):
        assert follow([stream[:first], stream[first:second], stream[second:]], "/x") == whole
    assert follow([bytes([byte]) for byte in stream], "/x") == whole


@given(STREAMS)
@settings(deadline=None)
def test_rewriting_with_the_same_uri_changes_no_event(tail: bytes) -> None:
    """Everything but the data line is kept byte for byte."""
    head = b": hello\r\nretry: 10\n\n\nid: 7\rdata: /messages?session=1\nevent: endpoint\nother: x\n\n"
    found, sent = follow([head + tail], "/messages?session=1")
    assert found == "/messages?session=1"
    assert sent == head + tail


@pytest.mark.parametrize(
    ("stream", "endpoint", "sent"),
    [
        (b"event: endpoint\ndata: /m?s=1\n\n", "/m?s=1", b"event: endpoint\ndata: /x\n\n"),
        (b"event:endpoint\r\ndata:/m\r\n\r\nevent: m", "/m", b"event:endpoint\r\ndata: /x\r\n\r\nevent: m"),
        (b"data:  /m\revent: endpoint\r\r", " /m", b"data: /x\revent: endpoint\r\r"),
        (b"\xef\xbb\xbfdata: /m\nevent: endpoint\n\n", "/m", b"\xef\xbb\xbfdata: /x\nevent: endpoint\n\n"),
        (b"\n\n: ping\n\nevent: endpoint\ndata: /m\n\n", "/m", b"\n\n: ping\n\nevent: endpoint\ndata: /x\n\n"),
        (
            b"event: endpoint\n\nevent: endpoint\ndata: /m\n\n",
            "/m",
            b"event: endpoint\n\nevent: endpoint\ndata: /x\n\n",
        ),
        (
            b"event: endpoint\ndata: /a\r\nid: 1\ndata: b\r\ndata\n\nz",
            "/a\nb\n",
            b"event: endpoint\ndata: /x\r\nid: 1\n\nz",
        ),
        (b"event: m\nevent: endpoint\ndata: /\xc3\xa9\n\n", "/é", b"event: m\nevent: endpoint\ndata: /x\n\n"),
    ],
)
def test_only_the_data_of_the_event_is_replaced(stream: bytes, endpoint: str, sent: bytes) -> None:
    """Line ends, comments, byte order mark, order of fields and what follows stay as they came."""
    assert follow([stream], "/x") == (endpoint, sent)


@pytest.mark.parametrize(
    "stream",
    [
        b"event: message\ndata: /m\n\n",
        b"data: /m\n\n",
        b"event: Endpoint\ndata: /m\n\n",
        b"event: endpoint\nevent:\ndata: /m\n\n",
        b"event: endpoint\ndata: /\xff\n\n",
        b": " + b"x" * MAX_FIRST_EVENT,
        b": " + b"x" * MAX_FIRST_EVENT + b"\nevent: endpoint\ndata: /m\n\n",
        b": ping\n\n" * (MAX_FIRST_EVENT // 8) + b"event: endpoint\ndata: /m\n\n",
    ],
)
def test_any_other_beginning_is_the_fault_of_the_upstream(stream: bytes) -> None:
    """A first event of another kind, bytes that are no UTF-8, or 64 KiB without an endpoint are refused."""
    assert follow([stream], "/x") == ("refused", b"")


def test_a_stream_in_single_bytes_is_searched_once() -> None:
    """64 KiB of one-byte chunks cost about 0.1 s; searching all of them again for each would cost many seconds."""
    first = FirstEvent()
    started = time.process_time()
    for _ in range(MAX_FIRST_EVENT - 40):
        assert not first.feed(b"x")
    chunks = [bytes([byte]) for byte in b"\nevent: endpoint\ndata: /m\n\n"]
    assert [first.feed(chunk) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert first.endpoint == "/m"
    assert time.process_time() - started < 2


# --- the last event -------------------------------------------------------------------------------------------------

EVENTS = st.lists(
    st.sampled_from(
        [
            (b'data: {"jsonrpc":"2.0","id":1,"result":{}}', True),
            (b'id: 7\nevent: message\ndata:{ "result" : {"method":"x"}, "id" : "a"}', True),
            (b'data: {"id":null,"error":{"code":-32000},"jsonrpc":"2.0"}', True),
            (b'data: {"jsonrpc":"2.0","id":"' + b"i" * 300 + b'","result":"' + b"r" * 5000 + b'"}', True),
            (b'data: {"jsonrpc":"2.0","id":1,"method":"sampling/createMessage"}', False),
            (b'data: {"method":"notifications/progress","params":{"result":1}}', False),
            (b'data: {"id":"\\",\\"result\\":","method":"m"}', False),
            (b'event: {"result":1}\ndata: x', False),
            (b": ping", False),
            (b"", False),
        ]
    ),
    min_size=1,
    max_size=5,
)


def last_of(*chunks: bytes) -> LastEvent:
    """What is remembered of a stream of these chunks."""
    tracker, last = BoundaryTracker(), LastEvent()
    for chunk in chunks:
        tracker.feed(chunk)
        last.feed(chunk, tracker)
    return last


@given(EVENTS, st.sampled_from([b"\n", b"\r\n"]), st.lists(st.integers(0, 6000), max_size=6))
def test_a_response_that_came_last_is_known(events: list[tuple[bytes, bool]], end: bytes, cuts: list[int]) -> None:
    """Once it is complete, and not before, whatever the chunks. What is no response passes for one only behind one,
    when the empty line between them was torn."""
    stream = b"".join(text.replace(b"\n", end) + end * 2 for text, _ in events)
    chunks = cut(stream, cuts)
    known = last_of(*chunks).is_response
    torn = any(b"".join(chunks[: place + 1]).endswith((b"\n", b"\r")) for place in range(len(chunks) - 1))
    if not torn and events[-1][0]:
        assert known is events[-1][1]
    elif known:
        assert any(response for _, response in events)
    assert not last_of(*chunks, b"data: {").is_response


def test_an_endless_event_costs_no_more_than_its_beginning() -> None:
    """Neither memory nor time grows with what came."""
    last = last_of(b'data: {"jsonrpc":"2.0","id":1,"result":"', *[b"x" * 65536] * 100, b'"}\n\n')
    assert last.is_response
    assert len(last._opening) < 4096


@pytest.mark.parametrize(
    "text",
    [b'data: {"id":1,' * 80, b"data: {" + b'"id":1,' * 150, b"data:" + b" " * 1100, b"\rdata:{" * 150],
    ids=["messages", "members", "blanks", "lines"],
)
def test_no_beginning_makes_the_reading_slow(text: bytes) -> None:
    """Bytes that look like a response for as long as possible."""
    last = last_of(text[:1022] + b"\n\n")
    began = time.process_time()
    assert not last.is_response
    assert time.process_time() - began < 0.05
